"""What begins with a reference follows the exact gradient from each of its states, see `enumerated`."""

from __future__ import annotations

import itertools

import pytest
import torch
from enumerated import (
    REFERENCE_TEXT,
    RESPONSES,
    after_reference,
    draft,
    expected_gradient,
    gradient_of,
    likelihood,
    paired_surrogate,
    rollout_of,
    score,
    surrogate_after,
    switches_of,
    twice,
)
from torch import Tensor

from rlgf.algorithms.reference_rows import ADABACK, HPT, PREFIX_RL, UFT
from rlgf.rollout.help import positions
from rlgf.rollout.record import PromptHistory
from rlgf.rollout.writers import Draft
from rlgf.types import Sample
from toys import LENGTH


@pytest.mark.long
@pytest.mark.parametrize(
    ("history", "switches"),
    [
        (PromptHistory(), [0, 1, 2]),
        (PromptHistory(low=0.0), [1, 2]),
        (PromptHistory(low=0.0, high=2 / 3), [1]),
    ],
)
def test_a_search_follows_the_gradient_from_the_states_that_its_record_leaves(
    history: PromptHistory, switches: list[int]
) -> None:
    """Evenly from each beginning of the reference between those that are known to fail and to be enough."""
    row = ADABACK.changed(group_size=2)
    opened = Draft(Sample(""), [3], seed=0, history=history, help_limit=LENGTH)
    drafts = []
    for switch in positions(opened, row.help.length, 0.0):
        after = [r for r in RESPONSES if r[:switch] == REFERENCE_TEXT[:switch]]
        for one, other in itertools.product(after, after):
            # Each beginning is as likely as another, however many ways on there are.
            for _ in range(int(twice(one, other, switch) * 16 ** (LENGTH - switches[0]))):
                drafts += [draft(row, response, switch) for response in (one, other)]
    found = expected_gradient(row, rollout_of(drafts, [i // 2 for i in range(len(drafts))]), kl=0.0)

    def surrogate(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for switch in switches:
            after = [r for r in RESPONSES if r[:switch] == REFERENCE_TEXT[:switch]]
            for one, other in itertools.product(after, after):
                pushed = paired_surrogate(probabilities, one, other, switch)
                total = total + twice(one, other, switch) * pushed / len(switches)
        return total

    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)


@pytest.mark.long
def test_prefix_rl_follows_the_reward_from_the_prompt_and_from_each_beginning_of_the_reference() -> None:
    row = PREFIX_RL.changed(group_size=2)
    assert row.help.probability.at(0.0) == 0.5
    assert switches_of(row, 0.0) == [1, 2]
    # The prompt stands for half of the groups, as two of the beginnings do.
    found = expected_gradient(row, after_reference(row, [0, 0, 1, 2]), kl=0.0)

    def surrogate(probabilities: Tensor) -> Tensor:
        return sum((surrogate_after(probabilities, switch) / 4 for switch in (0, 0, 1, 2)), torch.tensor(0.0))

    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("progress", "switch"), [(0.0, 2), (0.2, 2), (0.3, 1), (0.6, 0), (1.0, 0)])
def test_uft_imitates_the_beginning_that_it_follows_the_reward_from(progress: float, switch: int) -> None:
    """A surrogate over the policy's tokens and a mean of log-probabilities over the reference's, ever fewer of them."""
    row = UFT.changed(group_size=2, terms={"rollin": {"weight": 0.3}})
    assert row.help.probability.at(progress) == 1.0
    assert switches_of(row, progress) == ([switch] if switch else [])
    found = expected_gradient(row, after_reference(row, [switch]), kl=0.0)

    def objective(probabilities: Tensor) -> Tensor:
        total = surrogate_after(probabilities, switch)
        if switch:
            mean = likelihood(probabilities, REFERENCE_TEXT, 0, switch).log() / switch
            total = total + 0.3 * (LENGTH - switch) * mean
        return total

    torch.testing.assert_close(found, gradient_of(objective), atol=1e-4, rtol=1e-3)


def test_hpt_imitates_where_a_group_fails_and_follows_the_reward_elsewhere() -> None:
    """GRPO over the pairs with a success, and the NLL of the reference, as a mean of its own, for all others."""
    row = HPT.changed(group_size=2, help={"success": 0.8})
    drafts, chance = [], 0.0
    for one, other in itertools.product(RESPONSES, RESPONSES):
        succeeds = max(score(one), score(other)) >= 0.8
        chance += succeeds * twice(one, other, 0)
        for _ in range(int(twice(one, other, 0) * 16**LENGTH)):
            if succeeds:
                drafts += [draft(row, response, 0) for response in (one, other)]
            else:
                drafts += [draft(row, REFERENCE_TEXT, LENGTH) for _ in range(2)]
    assert 0.2 < chance < 0.8
    found = expected_gradient(row, rollout_of(drafts, [i // 2 for i in range(len(drafts))]), kl=0.0)

    def surrogate(probabilities: Tensor) -> Tensor:
        # A mean over the policy's tokens, of which a share of `chance` of the episodes consists.
        total = chance * likelihood(probabilities, REFERENCE_TEXT, 0, LENGTH).log()
        for one, other in itertools.product(RESPONSES, RESPONSES):
            if max(score(one), score(other)) >= 0.8:
                total = total + twice(one, other, 0) * paired_surrogate(probabilities, one, other, 0)
        return total

    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)
