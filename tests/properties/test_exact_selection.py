"""Terms that learn from some of their tokens, against exact gradients; see `enumerated`."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from enumerated import (
    KL,
    POLICY,
    REFERENCE,
    RESPONSES,
    draft,
    expected_gradient,
    gradient_of,
    likelihood,
    objective,
    pairs,
    reward,
    rollout_of,
)
from torch import Tensor

from rlgf.algorithms import Algorithm, Script
from rlgf.algorithms.base_rows import BC
from rlgf.algorithms.catalog import RLOO
from rlgf.algorithms.reference_rows import CHORD, PREFIX_RFT
from rlgf.errors import UserError
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.sampling import Sampling
from rlgf.types import Author, Rollout
from toys import LENGTH, STATES, TableModel, state_index, table_language_model


def backward(
    row: Algorithm, rollout: Rollout, references: Rollout | None = None, micro: int = 10**6
) -> Tensor:
    """The library's gradient of the row's own loss, (states, 3), without a KL penalty."""
    policy = table_language_model(POLICY)
    assessor = Assessor(policy, table_language_model(REFERENCE), {}, reward, Sampling(), 10**6)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(max_micro_tokens=micro), seed=0)
    updater.backward(assessor.assess(rollout, row, 0.0), row, references=references)
    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    return policy.model.table.grad[:, :3]


def log_likelihoods(probabilities: Tensor, response: tuple[int, ...]) -> list[Tensor]:
    return [likelihood(probabilities, response, t, t + 1).log() for t in range(LENGTH)]


@pytest.mark.parametrize("micro", [10**6, 12], ids=["whole", "in micro-batches"])
def test_chord_weighs_the_references_by_their_uncertainty(micro: int) -> None:
    """Of the rest of the row nothing is paid here, so what is left is 0.1 of the mean of -phi log p over all tokens."""
    row = CHORD.changed(group_size=2)
    texts = RESPONSES[::4]
    rollout = rollout_of(
        [draft(RLOO, r, 0) for r in texts for _ in range(2)], [i // 2 for i in range(2 * len(texts))]
    )
    references = rollout_of([draft(BC, r, 0) for r in texts for _ in range(2)])

    def imitation(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for response in texts:
            for log_p in log_likelihoods(probabilities, response):
                p = log_p.detach().exp()
                total = total - p * (1 - p) * log_p
        return 0.1 * total / (LENGTH * len(texts))

    found = backward(row, rollout, references, micro)
    torch.testing.assert_close(found, gradient_of(imitation), atol=1e-6, rtol=1e-4)


def test_prefix_rft_learns_the_part_of_the_beginning_where_the_policy_is_in_doubt() -> None:
    """Groups of a text that the reference began, two tokens of it, and one that it did not begin."""
    row = PREFIX_RFT.changed(group_size=2, terms={"rollin": {"select": {"options": {"share": 0.5}}}})
    flat = POLICY.clone()
    drafts, groups, chosen = [], [], []
    for number, (one, other) in enumerate(itertools.product(RESPONSES[::3], RESPONSES[1::5])):
        helped = draft(row, one, 2)
        drafts += [helped, draft(row.model_copy(update={"script": Script()}), other, 0)]
        groups += [number] * 2
        entropies = [-(p * p.log()).sum() for p in (flat[state_index(one[:t])] for t in range(2))]
        # Of two tokens one is half; the table's rows have one entropy, so the earlier one is taken.
        assert entropies[0] == pytest.approx(entropies[1])
        chosen.append(0)
    rollout = rollout_of(drafts, groups)
    assessor = Assessor(
        table_language_model(POLICY), table_language_model(REFERENCE), {}, reward, Sampling(), 10**6
    )
    advantages = assessor.assess(rollout, row, 0.0).advantages
    assert advantages is not None

    def loss(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for number, made in enumerate(drafts):
            for t, log_p in enumerate(log_likelihoods(probabilities, tuple(made.ids))):
                by_policy = made.authors[t] is Author.POLICY
                if by_policy or t == chosen[number // 2]:
                    total = total - advantages[number, t] * log_p
        return total / (LENGTH * len(drafts))

    found = backward(row, rollout)
    torch.testing.assert_close(found, gradient_of(loss), atol=1e-6, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_gradient_is_weighed_token_by_token_whatever_the_loss(share: float) -> None:
    """A policy gradient at the tokens of highest entropy alone is that of the objective, restricted to their states.

    The table's states are given entropies of their own.
    """
    sharp = torch.stack(
        [(POLICY[i] ** (1 + i % 4)) / (POLICY[i] ** (1 + i % 4)).sum() for i in range(len(STATES))]
    )
    row = RLOO.changed(
        group_size=2, terms={"policy": {"select": {"name": "top_entropy", "options": {"share": share}}}}
    )
    rollout = pairs(RLOO)
    policy = table_language_model(sharp)
    assessor = Assessor(policy, table_language_model(REFERENCE), {}, reward, Sampling(), 10**6)
    experience = assessor.assess(rollout, row, 0.0)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(), seed=0)
    updater.backward(experience, row)
    entropy = -(sharp * sharp.log()).sum(dim=1)

    def loss(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for ids, old, advantages in zip(
            rollout.response_ids.tolist(), rollout.sampled_logprobs, experience.advantages, strict=True
        ):
            states = [state_index(ids[:t]) for t in range(LENGTH)]
            ranked = sorted(range(LENGTH), key=lambda t: (-float(entropy[states[t]]), t))
            for t in ranked[: 1 if share < 1 / 3 else 3]:
                ratio = probabilities[states[t], ids[t]] / old[t].exp()
                weighed = ratio * advantages[t], ratio.clamp(0.8, 1.2) * advantages[t]
                total = total - torch.minimum(*weighed)
        return total / (LENGTH * len(rollout))

    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    torch.testing.assert_close(
        policy.model.table.grad[:, :3], gradient_of(loss, at=sharp), atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("micro", [10**6, 1000], ids=["whole", "in micro-batches"])
def test_of_texts_that_the_limit_cut_off_nothing_is_learned(micro: int) -> None:
    """They count where rewards are compared, and among the tokens that the loss is divided by."""
    row, whole = RLOO.changed(group_size=2, terms={"policy": {"select": "finished"}}), pairs(RLOO)
    cut = torch.arange(len(whole)) % 3 == 0
    found = backward(row, replace(whole, finished=~cut), micro=micro)
    policy = table_language_model(POLICY)
    assessor = Assessor(policy, table_language_model(REFERENCE), {}, reward, Sampling(), 10**6)
    experience = assessor.assess(whole, RLOO, 0.0)
    assert experience.advantages is not None
    without = torch.where(cut[:, None], 0.0, experience.advantages)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(), seed=0)
    updater.backward(replace(experience, advantages=without), RLOO)
    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    assert policy.model.table.grad.abs().max() > 0.01
    torch.testing.assert_close(found, policy.model.table.grad[:, :3], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("micro", [10**6, 1000], ids=["whole", "in micro-batches"])
def test_a_mean_over_texts_is_that_over_tokens_where_texts_are_of_one_length(micro: int) -> None:
    """A policy gradient before the first step, whoever's ratio is taken."""
    expected = backward(RLOO.changed(group_size=2), pairs(RLOO))
    for options in ({}, {"ratio": "text"}, {"length": LENGTH}):
        policy = {"loss": "clipped_surrogate_of_texts", "options": options}
        row = RLOO.changed(group_size=2, terms={"policy": policy})
        torch.testing.assert_close(backward(row, pairs(RLOO), micro=micro), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.long
def test_a_selector_of_ones_own_changes_nothing_where_it_says_1(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef scaled(logprobs, *, by=1.0):\n    return torch.full_like(logprobs, by)\n"
    )

    def found(by: float) -> Tensor:
        select = {"name": f"{tmp_path / 'mine.py'}:scaled", "options": {"by": by}}
        return expected_gradient(RLOO.changed(terms={"policy": {"select": select}}), pairs(RLOO))

    exact = gradient_of(objective(RLOO, KL))
    torch.testing.assert_close(found(1.0), exact, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found(0.25), 0.25 * exact, atol=1e-5, rtol=1e-4)
    assert not found(0.0).any()
    with pytest.raises(UserError, match="must return finite weights of 0 or more"):
        found(-1.0)
