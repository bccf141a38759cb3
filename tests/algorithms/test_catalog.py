"""The table of algorithms is the one that docs and papers give."""

from __future__ import annotations

import json
from typing import Any

import pytest
from known_rows import mixture, row

from rlgf.algorithms import ALGORITHMS, Help, RollinLength, Span, algorithm_from
from rlgf.schedules import constant
from rlgf.types import Author

POLICY, GUIDE, REFERENCE, PAST = Author.POLICY, Author.GUIDE, Author.REFERENCE, Author.PAST
ROLLIN, ROLLOUT, WHOLE = Span.ROLLIN, Span.ROLLOUT, Span.WHOLE


# (roll-in, roll-out, policy loss, it reads, value loss reads, advantage, grouped, probability of a roll-in)
TABLE: dict[str, tuple[Any, ...]] = {
    "bc": (None, REFERENCE, "nll", ROLLOUT, None, None, False, 0.0),
    "seq-kd": (None, GUIDE, "nll", ROLLOUT, None, None, False, 0.0),
    "dagger": (POLICY, GUIDE, "nll", ROLLOUT, None, None, False, 0.8),
    "ppo": (None, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 0.0),
    "ppo++": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 0.6),
    "aggrevated": (POLICY, GUIDE, "clipped_surrogate", ROLLIN, ROLLOUT, "gae", False, 0.8),
    "grpo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "guided-grpo": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.6),
    "rloo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "leave_one_out", True, 0.0),
    "bread": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "adaback": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "prefix-rl": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.5),
    "uft": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "hpt": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "luffy": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "exgrpo": (Author.PAST, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "prefix-rft": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "chord": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "hinted-grpo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "questa": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "pope": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.5),
    "sage": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "ghpo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 1.0),
    "scaf-grpo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "dr-po": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 1.0),
    "reverse-curriculum": (REFERENCE, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 1.0),
    "guided-rloo": (GUIDE, POLICY, "clipped_surrogate", ROLLOUT, None, "leave_one_out", True, 0.6),
    "gail": (None, POLICY, "clipped_surrogate", ROLLOUT, ROLLOUT, "gae", False, 0.0),
    "gad": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "group_relative", True, 0.0),
    "dpo": (None, POLICY, "dpo", WHOLE, None, "preference", True, 0.0),
    "guided-dpo": (GUIDE, POLICY, "dpo", WHOLE, None, "preference", True, 0.5),
    "offline-dpo": (None, REFERENCE, "dpo", WHOLE, None, "given_order", True, 0.0),
    "rebel": (None, POLICY, "rebel", WHOLE, None, "reward_difference", True, 0.0),
    "guided-rebel": (GUIDE, POLICY, "rebel", WHOLE, None, "reward_difference", True, 0.5),
    "a-star-po": (None, POLICY, "advantage_regression", ROLLOUT, None, "over_start", False, 0.0),
    "distill": (None, POLICY, "distillation", ROLLOUT, None, None, False, 0.0),
    "opd": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "guide_log_ratio", False, 0.0),
    "vineppo": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "branched", False, 0.0),
    "opsd": (None, POLICY, "distillation", ROLLOUT, None, None, False, 1.0),
    "sdft": (None, POLICY, "distillation", ROLLOUT, None, None, False, 1.0),
    "sdpo": (None, POLICY, "distillation", ROLLOUT, None, None, False, 1.0),
}
MIXTURES = {"lols": ("aggrevated", "ppo++"), "d2lols": ("aggrevated", "ppo++")}


@pytest.mark.parametrize("name", TABLE)
def test_each_row_is_the_one_of_the_design(name: str) -> None:
    found = row(name)
    learned = next(term for term in found.terms.values() if not term.of_critic)
    assert (
        found.script.rollin,
        found.script.rollout,
        learned.loss,
        learned.on,
        None if found.value_term is None else found.value_term.on,
        found.advantage,
        found.grouped,
        found.help.probability.at(0.0),
    ) == TABLE[name]
    assert (found.group_size > 1) == found.grouped
    assert found.whiten == (found.advantage == "gae")
    whole = RollinLength(low=constant(0.0), high=constant(1.0))
    drawn = {"reverse-curriculum", "prefix-rft", "questa", "pope", "uft"}
    own = drawn | {"luffy", "exgrpo", "hpt", "bread", "adaback", "opsd", "sdft", "sdpo", "ghpo", "scaf-grpo"}
    own |= {"hinted-grpo", "sage"}
    assert (found.help.length == whole) == (name not in own)
    origins = {
        "hinted-grpo": GUIDE,
        "questa": REFERENCE,
        "pope": REFERENCE,
        "sage": POLICY,
        "opsd": REFERENCE,
        "sdft": REFERENCE,
        "sdpo": PAST,
    }
    origins |= {"ghpo": REFERENCE, "scaf-grpo": REFERENCE}
    assert bool(found.tiers) == (name in ("ghpo", "scaf-grpo"))
    assert (found.script.hint and found.script.hint.author) == origins.get(name)
    assert found.scores_prompts == (name == "hinted-grpo")
    assert found.help.members == (1 if name in ("luffy", "exgrpo", "prefix-rft", "scaf-grpo") else None)
    assert found.script.guide_hinted == (name in ("opsd", "sdft", "sdpo"))
    assert found.distills == (name in ("distill", "opsd", "sdft", "sdpo"))
    own_kl = found.advantage in ("group_relative", "branched")
    assert ("kl" in found.terms) == own_kl == (found.kl_penalty == "loss")
    assert (found.branches is not None) == (name == "vineppo")
    assert found.learned_reward == (name in ("gail", "gad"))
    assert (found.examples is GUIDE) == (name == "gad")
    assert (found.start_value is not None) == (name == "a-star-po")
    assert found.rows == (found,)
    assert found.at(3, 0.3, 0) is found


@pytest.mark.parametrize("name", MIXTURES)
def test_each_mixture_is_the_one_of_the_design(name: str) -> None:
    found = mixture(name)
    imitate, explore = (row(part) for part in MIXTURES[name])
    assert found.imitate == imitate
    # The original's PPO++ rolls in more often inside a mixture than alone.
    assert found.explore == explore.changed(help={"probability": 0.8})
    assert found.rows == (found.imitate, found.explore)


def test_the_table_holds_these_and_no_others() -> None:
    assert set(ALGORITHMS) == {*TABLE, *MIXTURES}, "each stands in TABLE or MIXTURES too"
    assert all(name == found.name for name, found in ALGORITHMS.items())
    assert all(found.summary and found.equation and found.paper for found in ALGORITHMS.values())


@pytest.mark.parametrize(
    ("name", "critics"),
    [
        ("bc", [None]),
        ("ppo", ["policy"]),
        ("ppo++", ["policy"]),
        ("aggrevated", ["guide"]),
        ("grpo", [None]),
        ("guided-rloo", [None]),
        ("lols", ["guide", "policy"]),
        ("d2lols", ["guide", "policy"]),
    ],
)
def test_a_critic_is_named_after_whose_value_it_is(name: str, critics: list[str | None]) -> None:
    assert [part.critic for part in ALGORITHMS[name].rows] == critics


def test_authors_are_those_who_write_a_part() -> None:
    assert row("ppo").script.authors == {POLICY}
    assert row("bc").script.authors == {REFERENCE}
    assert row("ppo++").script.authors == row("aggrevated").script.authors == {POLICY, GUIDE}
    assert row("aggrevated").script.author(ROLLIN) is POLICY
    assert row("aggrevated").script.author(ROLLOUT) is GUIDE


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_survives_its_own_dump(name: str) -> None:
    """The rows are made by copying, which validates nothing; this does."""
    found = ALGORITHMS[name]
    assert algorithm_from(found.model_dump()) == found
    assert algorithm_from(json.loads(found.model_dump_json())) == found
    assert algorithm_from(name) == algorithm_from({"base": name}) == algorithm_from(found) == found


@pytest.mark.parametrize("name", [name for name in TABLE if row(name).unguided is not None])
def test_without_its_guide_a_row_is_a_whole_one(name: str) -> None:
    unguided = row(name).unguided
    assert unguided is not None
    assert algorithm_from(unguided.model_dump()) == unguided
    assert not unguided.needs_guide
    # What only a roll-in of the guide's has a meaning for is gone with it.
    if row(name).script.rollin is GUIDE:
        assert not any(term.on is ROLLIN for term in unguided.terms.values())
        help = row(name).help
        assert unguided.help == Help(shared=help.shared, success=help.success)
