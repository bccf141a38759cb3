"""The expected gradient of `vineppo` is that of the expected reward, whatever the distance of its states.

As in test_exact_gradients.py a batch is the distribution itself; a state's value, which the texts that branch off from it
have in the mean, is the exact one. What they measure is tested in tests/rollout/test_state_values.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from enumerated import (
    GUIDE,
    POLICY,
    draft,
    episodes,
    expected_gradient,
    gradient_of,
    objective,
    reward,
    rollout_of,
    state_values,
)
from torch import Tensor

from rlgf.algorithms import Algorithm, Span
from rlgf.algorithms.base_rows import VINE_PPO
from rlgf.guides import LocalGuide
from rlgf.models.sampling import Sampling
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.state_values import branch_points
from rlgf.types import Author, Rollout, Sample
from toys import LENGTH, state_index, table_language_model


def branched(row: Algorithm, every: int) -> Rollout:
    """The distribution, with exact values where texts branch off."""
    author = row.script.rollout
    values = state_values(POLICY if author is Author.POLICY else GUIDE, 0.0)
    drafts = [draft(row, r, h) for r, h, count in episodes(row) for _ in range(count)]
    known = torch.full((len(drafts), LENGTH), torch.nan)
    for number, one in enumerate(drafts):
        for point in branch_points(one.authors, every):
            known[number, point] = values[state_index(tuple(one.ids[:point]))]
    return replace(rollout_of(drafts), branch_values=known)


@pytest.mark.parametrize("rollin", [None, Author.GUIDE], ids=["alone", "after the guide"])
@pytest.mark.parametrize("every", [1, 2, LENGTH])
def test_the_gradient_is_that_of_the_expected_reward(every: int, rollin: Author | None) -> None:
    help = {"probability": 0.5} if rollin else {}
    row = VINE_PPO.changed(script={"rollin": rollin}, help=help)
    found = expected_gradient(row, branched(row, every), kl=0.0)
    exact = gradient_of(objective(row, 0.0))
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)


def test_values_of_the_guide_make_one_step_improvements_on_it() -> None:
    """AggreVaTeD without a critic: ``sum over t < h of grad log pi(a|s) (V^g(s') - V^g(s))``."""
    row = VINE_PPO.changed(
        script={"rollin": "policy", "rollout": "guide"},
        help={"probability": 0.5},
        terms={"policy": {"on": "rollin"}, "kl": {"on": "rollin"}},
    )
    assert row.terms["policy"].on is Span.ROLLIN
    found = expected_gradient(row, branched(row, 1), kl=0.0)
    values = state_values(GUIDE, 0.0)
    wanted = torch.zeros_like(found)
    for response, switch, count in episodes(row):
        for t in range(switch):
            here, after = response[:t], response[: t + 1]
            at = state_index(here)
            better = values[state_index(after)] - values[at]
            score: Tensor = -POLICY[at].clone()
            score[response[t]] += 1
            wanted[at] += count / 256 * better * score
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("author", [Author.POLICY, Author.GUIDE])
def test_what_texts_from_a_state_earn_approaches_its_value(author: Author) -> None:
    """With 2,000 texts from each state the mean is within 0.03, four standard errors and a little, of the exact value."""
    script = {} if author is Author.POLICY else {"rollin": "policy", "rollout": "guide"}
    help = {} if author is Author.POLICY else {"probability": 1.0}
    terms = {} if author is Author.POLICY else {"policy": {"on": "rollin"}, "kl": {"on": "rollin"}}
    row = VINE_PPO.changed(script=script, help=help, terms=terms, branches={"every": 1, "texts": 2000})
    policy, guide = table_language_model(POLICY), table_language_model(GUIDE)
    config = RolloutConfig(max_prompt_tokens=4, max_response_tokens=LENGTH, min_response_tokens=LENGTH)
    maker = Collector(policy, LocalGuide(guide, guide.tokenizer, Sampling(min_tokens=LENGTH)), config, seed=0)

    def pay(rollout: Rollout) -> Tensor:
        return Tensor(reward(rollout.prompts, list(rollout.texts)))

    rollout = maker.collect([Sample("")] * 3, row, rewards=pay)
    exact = state_values(POLICY if author is Author.POLICY else GUIDE, 0.0)
    assert rollout.branch_values is not None
    compared = 0
    for ids, values in zip(rollout.response_ids.tolist(), rollout.branch_values, strict=True):
        for point in (~values.isnan()).nonzero().flatten().tolist():
            assert values[point].item() == pytest.approx(
                exact[state_index(tuple(ids[:point]))].item(), abs=0.03
            )
            compared += 1
    assert compared >= 6
