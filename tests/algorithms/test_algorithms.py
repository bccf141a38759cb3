"""The table of algorithms is the one that docs and papers give, and nothing incoherent gets in."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlgf.algorithms import (
    ALGORITHMS,
    ESTIMATORS,
    Algorithm,
    Estimates,
    Help,
    Mixture,
    RollinLength,
    Signals,
    Span,
    algorithm_from,
)
from rlgf.algorithms.pick import carried
from rlgf.algorithms.spec import merged
from rlgf.errors import UserError
from rlgf.objectives import advantages
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

POLICY, GUIDE, REFERENCE = Author.POLICY, Author.GUIDE, Author.REFERENCE
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
    "distill": (None, POLICY, "distillation", ROLLOUT, None, None, False, 0.0),
    "opd": (None, POLICY, "clipped_surrogate", ROLLOUT, None, "guide_log_ratio", False, 0.0),
    "opsd": (None, POLICY, "distillation", ROLLOUT, None, None, False, 1.0),
    "sdft": (None, POLICY, "distillation", ROLLOUT, None, None, False, 1.0),
}
MIXTURES = {"lols": ("aggrevated", "ppo++"), "d2lols": ("aggrevated", "ppo++")}

ROW: dict[str, Any] = {
    "name": "mine",
    "advantage": "gae",
    "terms": {"policy": {"loss": "clipped_surrogate"}, "value": {}},
}


def row(name: str) -> Algorithm:
    found = ALGORITHMS[name]
    assert isinstance(found, Algorithm)
    return found


def mixture(name: str) -> Mixture:
    found = ALGORITHMS[name]
    assert isinstance(found, Mixture)
    return found


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
    own = drawn | {"luffy", "hpt", "bread", "adaback", "opsd", "sdft", "ghpo", "scaf-grpo"}
    assert (found.help.length == whole) == (name not in own)
    origins = {
        "hinted-grpo": GUIDE,
        "questa": REFERENCE,
        "pope": REFERENCE,
        "sage": POLICY,
        "opsd": REFERENCE,
        "sdft": REFERENCE,
    }
    origins |= {"ghpo": REFERENCE, "scaf-grpo": REFERENCE}
    assert bool(found.tiers) == (name in ("ghpo", "scaf-grpo"))
    assert (found.script.hint and found.script.hint.author) == origins.get(name)
    assert found.scores_prompts == (name == "hinted-grpo")
    assert found.help.members == (1 if name in ("luffy", "prefix-rft", "scaf-grpo") else None)
    assert found.script.guide_hinted == (name in ("opsd", "sdft"))
    assert found.distills == (name in ("distill", "opsd", "sdft"))
    assert ("kl" in found.terms) == (found.advantage == "group_relative") == (found.kl_penalty == "loss")
    assert found.learned_reward == (name in ("gail", "gad"))
    assert (found.examples is GUIDE) == (name == "gad")
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
    assert set(ALGORITHMS) == {*TABLE, *MIXTURES}
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


def test_a_dump_names_authors_in_words() -> None:
    dump = row("aggrevated").model_dump(mode="json")
    assert dump["script"] == {"rollin": "policy", "rollout": "guide"}
    assert dump["terms"]["policy"]["on"] == "rollin"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"script": {"rollout": "guide"}}, "policy must have"),
        (
            {"script": {"rollin": "guide"}, "terms": {"policy": {"on": "rollin"}}},
            "policy must have",
        ),
        ({"script": {"rollout": "reference"}}, "policy must have"),
        ({"terms": {"value": None}}, "needs a critic: give 'terms' one with the loss 'value'"),
        ({"terms": {"value": {"on": "rollin"}}, "script": {"rollin": "policy"}}, "set 'on: rollout'"),
        ({"terms": {"second": {"loss": "value"}}}, "two terms train the critic"),
        ({"terms": {"policy": {"on": "rollin"}}}, "'script.rollin' must name who writes it"),
        ({"help": {"probability": 0.5}}, "'script.rollin' must name who writes it"),
        ({"help": {"probability": {"start": 0.5, "end": 0}}}, "'script.rollin' must name who writes it"),
        ({"help": {"probability": {"start": 0, "end": 0.5}}}, "'script.rollin' must name who writes it"),
        ({"terms": {"policy": None}}, "no term trains the policy"),
        ({"examples": "guide"}, "set 'learned_reward: true' too"),
        ({"examples": "policy", "learned_reward": True}, "set 'examples' to reference or guide"),
        ({"terms": {"policy": {"options": {"clop": 0.1}}}}, "has no option 'clop' .it has 'clip'"),
        ({"terms": {"value": {"on": "references"}}}, "the references have none"),
        ({"advantage": None}, "reads an advantage: set 'advantage' to gae"),
        ({"terms": {"policy": {"loss": "nll"}, "value": None}}, "no term reads the advantage 'gae'"),
        (
            {"advantage": "group_relative", "terms": {"value": None}},
            "'group_size' must be 2 or more .it is 1",
        ),
    ],
)
def test_an_incoherent_row_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        algorithm_from(merged(ROW, changes))


def test_a_policy_loss_that_weighs_by_an_advantage_needs_one() -> None:
    with pytest.raises(ValidationError, match="advantage"):
        algorithm_from({"name": "mine", "terms": {"policy": {"loss": "clipped_surrogate"}}})


@pytest.mark.parametrize("advantage", ["group_relative", "leave_one_out"])
def test_a_group_advantage_needs_groups(advantage: str) -> None:
    """In groups of one every advantage is 0: nothing would be learned, and nothing said."""
    terms = [{"loss": "clipped_surrogate"}]
    with pytest.raises(ValidationError, match="'group_size' must be 2 or more"):
        algorithm_from({"name": "mine", "advantage": advantage, "terms": terms})
    found = algorithm_from({"name": "mine", "advantage": advantage, "terms": terms, "group_size": 2})
    assert isinstance(found, Algorithm)
    assert found.grouped


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"advantage": "gea"}, "algorithm.advantage 'gea' is not known: did you mean 'gae'"),
        ({"terms": {"policy": {"loss": "clipped_surogate"}}}, "did you mean 'clipped_surrogate'"),
    ],
)
def test_an_unknown_part_names_the_nearest(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        algorithm_from(ROW | changes)


@pytest.mark.parametrize(
    "changes",
    [{"scripts": {}}, {"script": {"rollout": "teacher"}}, {"gae_lambda": 1.5}, {"name": None}, {"gamma": 2}],
)
def test_a_row_with_unknown_keys_or_values_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        algorithm_from(ROW | changes)


@pytest.mark.parametrize(
    ("base", "nearest"),
    [
        ("pppo", "ppo"),
        ("aggravated", "aggrevated"),
        ("d2lol", "d2lols"),
        ("PPO", "ppo"),
    ],
)
def test_an_unknown_base_names_the_nearest(base: str, nearest: str) -> None:
    with pytest.raises(UserError, match="is not known") as caught:
        algorithm_from(base)
    message = str(caught.value)
    assert f"'{base}'" in message
    assert f"did you mean '{nearest}'" in message
    with pytest.raises(UserError, match="is not known"):
        algorithm_from({"base": base, "gae_lambda": 0.5})


def test_base_changes_fields_and_keeps_the_rest() -> None:
    changed = algorithm_from(
        {"base": "ppo++", "name": "mine", "gae_lambda": 0.5, "script": {"rollout": "policy"}}
    )
    assert changed == row("ppo++").model_copy(update={"name": "mine", "gae_lambda": 0.5})
    assert row("ppo++").gae_lambda == 0.95


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0.3, constant(0.3)),
        ({"start": 0.5, "end": 0}, Schedule(start=0.5, end=0.0)),
        ({"end": 0}, Schedule(start=0.6, end=0.0)),
        (
            {"start": 1, "end": 0, "shape": "step", "over": 0.5},
            Schedule(start=1.0, end=0.0, shape="step", over=0.5),
        ),
    ],
)
def test_base_takes_schedules_in_every_form(written: Any, expected: Schedule) -> None:
    changed = algorithm_from({"base": "ppo++", "help": {"probability": written}})
    assert changed == row("ppo++").model_copy(update={"help": Help(probability=expected)})


def test_base_reaches_into_nested_fields() -> None:
    changed = algorithm_from({"base": "ppo++", "help": {"length": {"high": {"start": 0.9, "end": 0.1}}}})
    assert isinstance(changed, Algorithm)
    assert changed.help.length == RollinLength(high=Schedule(start=0.9, end=0.1))


def test_base_reaches_into_the_parts_of_a_mixture() -> None:
    changed = algorithm_from(
        {
            "base": "lols",
            "explore": {"help": {"probability": 0.2, "length": {"low": 0.5}}},
            "imitate": {"gae_lambda": 1.0},
            "explore_prob": {"start": 0.1, "end": 0.9},
        }
    )
    lols = mixture("lols")
    assert isinstance(changed, Mixture)
    length = RollinLength(low=constant(0.5))
    assert changed.explore == lols.explore.model_copy(
        update={"help": Help(probability=constant(0.2), length=length)}
    )
    assert changed.imitate == lols.imitate.model_copy(update={"gae_lambda": 1.0})
    assert changed.explore_prob == Schedule(start=0.1, end=0.9)
    assert mixture("lols").explore == row("ppo++").changed(help={"probability": 0.8})


def test_a_row_of_a_mixture_can_be_named_or_have_a_base() -> None:
    cloned = {"base": "bc", "script": {"rollout": "guide"}}
    own = algorithm_from({"name": "own", "imitate": cloned, "explore": "ppo", "explore_prob": 0.5})
    assert isinstance(own, Mixture)
    assert own.imitate == algorithm_from(cloned)
    assert own.explore == row("ppo")
    changed = algorithm_from(
        {"base": "d2lols", "gamma": 0.9, "imitate": "rloo", "explore": {"base": "grpo", "gamma": 0.8}}
    )
    assert isinstance(changed, Mixture)
    assert [found.name for found in changed.rows] == ["rloo", "grpo"]
    assert [found.gamma for found in changed.rows] == [0.9, 0.8]
    assert changed.explore_prob == mixture("d2lols").explore_prob
    with pytest.raises(
        UserError, match=r"'algorithm\.imitate' is the mixture 'lols': name an algorithm of one row"
    ):
        algorithm_from({"base": "d2lols", "imitate": "lols"})


def test_the_parts_of_a_changed_mixture_are_checked() -> None:
    with pytest.raises(ValidationError, match="needs a critic"):
        algorithm_from({"base": "lols", "explore": {"terms": {"value": None}}})


def test_what_only_rows_have_is_changed_in_both_rows_of_a_mixture() -> None:
    changed = algorithm_from(
        {"base": "lols", "gamma": 0.9, "terms": {"value": {"weight": 2}}, "imitate": {"gamma": 0.8}}
    )
    assert [(found.gamma, found.terms["value"].weight) for found in changed.rows] == [
        (0.8, constant(2.0)),
        (0.9, constant(2.0)),
    ]
    with pytest.raises(ValidationError, match="gama"):
        algorithm_from({"base": "lols", "gama": 0.5})


def test_terms_can_be_a_list() -> None:
    terms: list[dict[str, Any]] = [
        {"loss": "clipped_surrogate", "options": {"clip": 0.1}},
        {"loss": "value"},
        {"loss": "nll", "on": "references", "weight": 0.1},
        {"loss": "nll", "on": "rollout", "weight": 0.2},
    ]
    found = algorithm_from({"base": "ppo", "terms": terms})
    assert isinstance(found, Algorithm)
    assert list(found.terms) == ["clipped_surrogate", "value", "nll", "nll_4"]
    assert found.terms["value"].weight == constant(1.0), "a list is the whole of the terms"


LOSS = """
def cautious(logprobs, advantages, mask, normalizer, *, margin):
    kept = mask & (advantages > margin)
    return -(logprobs * advantages * kept).sum() / normalizer
"""


def test_your_own_loss_is_one_function_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOSS)
    term = {"loss": f"{tmp_path}/mine.py:cautious", "options": {"margin": 0.1}}
    found = algorithm_from({"base": "grpo", "terms": {"policy": term}})
    assert isinstance(found, Algorithm)
    assert found.terms["policy"].reads == {"logprobs", "advantages", "mask", "normalizer"}
    with pytest.raises(ValidationError, match="needs 'margin', which is neither an input"):
        algorithm_from({"base": "grpo", "terms": {"policy": {**term, "options": {}}}})


PENALTY = """
def squared(logprobs, reference_logprobs, mask, normalizer, kl_coefficient):
    return kl_coefficient * (((logprobs - reference_logprobs) ** 2) * mask).sum() / normalizer
"""


def test_your_own_kl_penalty_leaves_the_rewards(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PENALTY)
    own = {"base": "ppo", "terms": {"near": {"loss": f"{tmp_path}/mine.py:squared"}}}
    for spec, place in (("ppo", "reward"), (own, "loss")):
        found = algorithm_from(spec)
        assert isinstance(found, Algorithm)
        assert found.kl_penalty == place


@pytest.mark.parametrize(
    ("old", "base", "kept"),
    [
        ({"base": "ppo", "gamma": 0.9, "whiten": False}, "grpo", {"gamma": 0.9}),
        (
            {"base": "ppo++", "help": {"probability": 0.3}, "kl": {"coefficient": 0}},
            "ppo",
            {"kl": {"coefficient": 0}},
        ),
        ({"base": "ppo", "terms": {"value": {"weight": 30}}}, "d2lols", {"terms": {"value": {"weight": 30}}}),
        ({"base": "ppo", "terms": {"value": {"weight": 30}}}, "grpo", {}),
        ({"base": "ppo", "terms": {"policy": {"options": {"clip": 0.1}}}}, "grpo", {}),
        (
            {"terms": {"old": {"loss": "nll", "on": "references"}}},
            "grpo",
            {"terms": {"old": {"loss": "nll", "on": "references"}}},
        ),
    ],
)
def test_another_algorithm_keeps_what_belongs_to_the_task(
    old: dict[str, Any], base: str, kept: dict[str, Any]
) -> None:
    assert carried(old, base) == kept
    algorithm_from({"base": base, **kept})


def test_what_a_recipe_says_is_not_changed() -> None:
    spec = {"base": "lols", "explore": {"help": {"probability": {"start": 0.2, "end": 0.1}}}}
    before = json.dumps(spec)
    algorithm_from(spec)
    assert json.dumps(spec) == before


@pytest.mark.parametrize("updates", [1, 5, 10, 24, 50, 333, 500])
def test_d2lols_imitates_for_exactly_the_first_two_fifths(updates: int) -> None:
    found = mixture("d2lols")
    for seed in range(3):
        names = [found.at(update, update / updates, seed).name for update in range(updates)]
        first = math.ceil(updates * 2 / 5)
        assert names == ["aggrevated"] * first + ["ppo++"] * (updates - first)


def test_lols_explores_with_probability_0_8() -> None:
    updates = 4000
    names = [mixture("lols").at(update, update / updates, 0).name for update in range(updates)]
    assert set(names) == {"aggrevated", "ppo++"}
    # Four standard deviations.
    assert abs(names.count("ppo++") / updates - 0.8) < 4 * math.sqrt(0.8 * 0.2 / updates)


def test_lols_draws_each_update_from_the_seed_and_its_number_alone() -> None:
    found = mixture("lols")
    forwards = [found.at(update, update / 200, 7) for update in range(200)]
    torch.rand(5)
    backwards = [found.at(update, update / 200, 7) for update in reversed(range(200))][::-1]
    assert backwards == forwards
    assert [found.at(update, update / 1000, 7) for update in range(200)] == forwards
    assert [found.at(update, update / 200, 8) for update in range(200)] != forwards


def test_explore_prob_follows_its_schedule() -> None:
    found = algorithm_from({"base": "lols", "explore_prob": {"start": 0, "end": 1}})
    explored = [found.at(update, update / 2000, 0).name == "ppo++" for update in range(2000)]
    quarters = [sum(explored[i : i + 500]) / 500 for i in range(0, 2000, 500)]
    assert quarters == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.08)


@pytest.fixture
def signals() -> Signals:
    random = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    return Signals(
        token_rewards=torch.randn(4, 3, generator=random) * mask,
        rewards=torch.tensor([1.0, 0.5, -1.0, 2.5]),
        values=torch.randn(4, 3, generator=random),
        mask=mask,
        group=torch.tensor([1, 0, 1, 0]),
        gamma=0.9,
        gae_lambda=0.6,
    )


def test_the_gae_estimator_is_gae_with_the_rows_numbers(signals: Signals) -> None:
    assert signals.values is not None
    wanted, returns = advantages.gae(signals.token_rewards, signals.values, signals.mask, 0.9, 0.6)
    found = ESTIMATORS["gae"].estimate(signals)
    assert isinstance(found, Estimates)
    assert found.returns is not None
    assert torch.equal(found.advantages, wanted)
    assert torch.equal(found.returns, returns)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("group_relative", advantages.group_relative),
        ("leave_one_out", advantages.leave_one_out),
    ],
)
def test_a_group_estimator_gives_every_token_its_episodes_score(
    signals: Signals, name: str, score: Any
) -> None:
    found = ESTIMATORS[name].estimate(signals)
    assert isinstance(found, Estimates)
    wanted = score(signals.token_rewards.sum(dim=1), signals.group)
    assert wanted.all()
    for episode in range(4):
        for t in range(3):
            expected = wanted[episode].item() if signals.mask[episode, t] else 0.0
            assert found.advantages[episode, t].item() == pytest.approx(expected)
    assert found.returns is None


def test_your_own_estimator_is_named_by_file_and_attribute(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from rlgf.algorithms import Estimator\nhalf = Estimator(lambda s: s, grouped=True)\n")
    found = algorithm_from({"base": "grpo", "name": "mine", "advantage": f"{file}:half"})
    assert isinstance(found, Algorithm)
    assert found.grouped
