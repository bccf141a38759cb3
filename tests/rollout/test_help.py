"""Where roll-ins end: each state of a text is visited as often as the switch law says, whatever its length."""

from __future__ import annotations

from collections import defaultdict

import pytest
from scipy.stats import chisquare
from switches import LIMIT, MANY, SEEDS, Ends, collect, is_uniform, sure, switches

from rlgf.algorithms.catalog import GUIDED_GRPO, LUFFY, PPO_PLUS_PLUS
from rlgf.algorithms.reference_rows import DR_PO, REVERSE_CURRICULUM
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author, Sample
from toys import FavouringGuide


def test_the_coin_leaves_the_other_episodes_without_a_rollin(policy: LanguageModel) -> None:
    row = PPO_PLUS_PLUS.changed(help={"probability": 0.6})
    found = switches(collect(policy, row, guide=FavouringGuide("a", 1.0)), Author.GUIDE)
    assert found.count(0) == pytest.approx(0.4 * SEEDS, abs=48)  # four standard deviations
    is_uniform([h for h in found if h], 1, LIMIT - 1)


def test_a_response_of_one_token_has_no_rollin(policy: LanguageModel) -> None:
    found = switches(collect(policy, sure(DR_PO), ["aaa"], limit=1, samples=40), Author.REFERENCE)
    assert set(found) == {0}


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in groups"])
@pytest.mark.parametrize("letters", [1, 6, LIMIT - 1, LIMIT, 3 * LIMIT])
def test_a_reference_is_cut_anywhere_in_its_own_length(
    policy: LanguageModel, letters: int, grouped: bool
) -> None:
    row = sure(GUIDED_GRPO if grouped else DR_PO, script={"rollin": "reference"})
    size = 2 if grouped else 1
    samples = MANY if letters == 6 else SEEDS
    rollout = collect(policy, row, ["d" * letters], group_size=size, samples=samples)
    assert len(rollout) == size * samples
    # The end counts as a token, and a longer text ends at the limit.
    is_uniform(switches(rollout, Author.REFERENCE, size), 1, min(letters + 1, LIMIT) - 1)
    assert all(
        text.startswith("d" * h)
        for text, h in zip(rollout.texts[::size], switches(rollout, Author.REFERENCE, size), strict=True)
    )


def test_an_empty_reference_has_no_state_to_begin_from(policy: LanguageModel) -> None:
    assert set(switches(collect(policy, sure(DR_PO), [""], samples=40), Author.REFERENCE)) == {0}


def test_each_of_several_references_is_cut_in_its_own_length(policy: LanguageModel) -> None:
    config = RolloutConfig(max_prompt_tokens=4, max_response_tokens=LIMIT)
    maker = Collector(policy, None, config, seed=0)
    maker.writers = {**maker.writers, Author.POLICY: Ends()}
    rollout = maker.collect([Sample("ab", ("aaa", "bbbbbbb"))] * SEEDS, sure(DR_PO))
    found = defaultdict(list)
    for text, switch in zip(rollout.texts, switches(rollout, Author.REFERENCE), strict=True):
        found[text[0]].append(switch)
    is_uniform(found["a"], 1, 3)
    is_uniform(found["b"], 1, 7)


def test_references_of_different_lengths_stand_in_one_batch(policy: LanguageModel) -> None:
    rollout = collect(policy, sure(DR_PO), ["a" * 3, "b" * 9])
    found = switches(rollout, Author.REFERENCE)
    is_uniform(found[::2], 1, 3)
    is_uniform(found[1::2], 1, 9)


@pytest.mark.parametrize(
    ("letters", "progress", "positions"),
    [
        (12, 0.0, {12}),
        (12, 0.25, {9}),
        (12, 0.5, {6}),
        (12, 0.75, {3}),
        (12, 1.0, {0}),
        (60, 0.5, {22, 23, 24}),
    ],
)
def test_the_reverse_curriculum_goes_through_the_text_itself(
    policy: LanguageModel, letters: int, progress: float, positions: set[int]
) -> None:
    rollout = collect(policy, REVERSE_CURRICULUM, ["a" * letters], limit=48, progress=progress, samples=40)
    assert set(switches(rollout, Author.REFERENCE)) == positions


@pytest.mark.parametrize("members", [1, 3, 4])
def test_exactly_so_many_members_of_each_group_have_a_rollin(policy: LanguageModel, members: int) -> None:
    row = LUFFY.changed(help={"members": members})
    rollout = collect(policy, row, guide=FavouringGuide("a", 1.0), group_size=4, limit=2)
    guided = (rollout.written_by(Author.GUIDE).sum(dim=1) > 0).view(-1, 4)
    assert (guided.sum(dim=1) == members).all()
    if members < 4:
        # Each place in a group as often: losses that take the first of equals favour nobody.
        assert chisquare(guided.sum(dim=0).tolist()).pvalue > 1e-4
