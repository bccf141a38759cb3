"""Imitation and distillation follow exact gradients, see `enumerated`."""

from __future__ import annotations

import pytest
import torch
from enumerated import (
    GUIDE,
    POLICY,
    RESPONSES,
    draft,
    expected_gradient,
    gradient_of,
    likelihood,
    rollout_of,
    total_divergence,
    whole_distribution,
)
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.algorithms.base_rows import BC
from rlgf.algorithms.imitation_rows import DAGGER, DISTILL, SEQ_KD
from toys import LENGTH


def test_behaviour_cloning_follows_the_likelihood_of_the_references() -> None:
    drafts = [draft(BC, response, 0) for response in RESPONSES[::5]]

    def likelihood_of_all(probabilities: Tensor) -> Tensor:
        logs = [likelihood(probabilities, response, 0, LENGTH).log() for response in RESPONSES[::5]]
        return torch.stack(logs).mean()

    found = expected_gradient(BC, rollout_of(drafts))
    torch.testing.assert_close(found, gradient_of(likelihood_of_all), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("base", [SEQ_KD, DAGGER], ids=lambda row: row.name)
def test_imitation_follows_the_likelihood_of_the_guide_where_it_takes_over(base: Algorithm) -> None:
    """From the prompt, or from the states that the policy reaches; that it reaches them is not differentiated."""
    row = base if base.script.rollin is None else base.changed(help={"probability": 0.5})

    def likelihood_of_guide(probabilities: Tensor, *, through_sampling: bool = False) -> Tensor:
        total = torch.tensor(0.0)
        writer = probabilities if through_sampling else POLICY
        for response in RESPONSES:
            for switch in range(LENGTH) if row.script.rollin is not None else [0]:
                chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
                reach = likelihood(writer, response, 0, switch) * likelihood(GUIDE, response, switch, LENGTH)
                total = total + chance * reach * likelihood(probabilities, response, switch, LENGTH).log()
        return total

    found = expected_gradient(row, whole_distribution(row))
    torch.testing.assert_close(found, gradient_of(likelihood_of_guide), atol=1e-5, rtol=1e-4)
    through = gradient_of(lambda probabilities: likelihood_of_guide(probabilities, through_sampling=True))
    assert ((found - through).abs().max() > 1e-3) == (row is not base)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("guided", [False, True], ids=["from the prompt", "after a roll-in"])
def test_distillation_follows_the_divergence_at_the_states_that_the_policy_reaches(
    beta: float, guided: bool
) -> None:
    rollin = {"script": {"rollin": "guide"}, "help": {"probability": 0.5}} if guided else {}
    row = DISTILL.changed(terms={"distill": {"options": {"jsd_beta": beta}}}, **rollin)
    found = expected_gradient(row, whole_distribution(row))
    exact = gradient_of(total_divergence(row))
    torch.testing.assert_close(found, -exact, atol=1e-5, rtol=1e-4)
    # The sampling is not differentiated, and that makes a difference here.
    assert (exact - gradient_of(total_divergence(row, through_sampling=True))).abs().max() > 1e-3
