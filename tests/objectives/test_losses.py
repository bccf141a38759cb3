"""Losses against scalar loops, their gradients against what clipping is for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlgf.objectives.losses import (
    clipped_surrogate,
    clipped_value,
    distillation,
    kl_estimate,
    negative_entropy,
    negative_log_likelihood,
    policy_gradient,
    shaped_importance,
    shaped_ratio,
    update_kl,
)

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, dict[str, Tensor]]]

CLIP = 0.2


def coin(logit: Tensor) -> Tensor:
    """Log-probabilities of two tokens."""
    return torch.stack([logit, -logit], dim=-1).log_softmax(dim=-1)


LOSSES: dict[str, Loss] = {
    "clipped_surrogate": lambda x, old, target, mask, n: clipped_surrogate(x, old, target, mask, n, CLIP),
    "clipped_value": lambda x, old, target, mask, n: (clipped_value(x, old, target, mask, n, CLIP), {}),
    "negative_log_likelihood": lambda x, old, target, mask, n: (negative_log_likelihood(x, mask, n), {}),
    "policy_gradient": lambda x, old, target, mask, n: (policy_gradient(x, target, mask, n), {}),
    "shaped_importance": lambda x, old, target, mask, n: shaped_importance(x, target, mask, n),
    "shaped_ratio": lambda x, old, target, mask, n: shaped_ratio(x, old, target, mask, n),
    "distillation": lambda x, old, target, mask, n: (distillation(coin(x), coin(old), mask, n, 0.3), {}),
    "negative_entropy": lambda x, old, target, mask, n: (negative_entropy(x, mask, n), {}),
}
"""Each loss as a function of what is trained, its old value, advantages or returns, mask, normalizer."""

TOKENS = st.lists(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(-3, 3), st.booleans()), min_size=1, max_size=6
)
"""One row of (new, old, advantage or return, masked in)."""

Row = list[tuple[float, float, float, bool]]


def columns(row: Row) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    new, old, target, mask = zip(*row, strict=True)
    numbers = [torch.tensor([x], dtype=torch.float64) for x in (new, old, target)]
    return numbers[0], numbers[1], numbers[2], torch.tensor([mask])


def batch(rows: int = 6, length: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    new, old, target = (torch.randn(rows, length, generator=random, dtype=torch.float64) for _ in range(3))
    return new, old, target, torch.rand(rows, length, generator=random) < 0.6


def one(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def slope(loss: str, new: float, old: float, target: float) -> float:
    """The derivative of a loss over one token."""
    x = one(new).requires_grad_()
    LOSSES[loss](x, one(old), one(target), torch.ones(1, 1, dtype=torch.bool), 1.0)[0].backward()
    assert x.grad is not None
    return x.grad.item()


@given(TOKENS, st.floats(0.5, 20))
def test_clipped_surrogate_equals_a_loop(row: Row, normalizer: float) -> None:
    loss, metrics = clipped_surrogate(*columns(row), normalizer, CLIP)
    alike, _ = clipped_surrogate(*columns(row), normalizer, CLIP, CLIP)
    wider, outside = clipped_surrogate(*columns(row), normalizer, CLIP, 0.5)
    new, old, _, mask = columns(row)
    moved = update_kl(new, old, mask, normalizer)
    total = clips = kl = of_wider = clips_of_wider = 0.0
    for new, old, advantage, masked_in in row:
        if masked_in:
            ratio = math.exp(new - old)
            total -= min(ratio * advantage, min(max(ratio, 1 - CLIP), 1 + CLIP) * advantage)
            clips += not 1 - CLIP <= ratio <= 1 + CLIP
            of_wider -= min(ratio * advantage, min(max(ratio, 1 - CLIP), 1.5) * advantage)
            clips_of_wider += not 1 - CLIP <= ratio <= 1.5
            kl += (ratio - 1) - math.log(ratio)
    assert loss.item() == pytest.approx(total / normalizer, abs=1e-9)
    assert metrics["clip_fraction"].item() == pytest.approx(clips / normalizer, abs=1e-6)
    assert moved.item() == pytest.approx(kl / normalizer, abs=1e-9)
    assert alike.item() == loss.item()
    assert wider.item() == pytest.approx(of_wider / normalizer, abs=1e-9)
    assert outside["clip_fraction"].item() == pytest.approx(clips_of_wider / normalizer, abs=1e-6)


@given(TOKENS, st.floats(0.5, 20))
def test_shaped_importance_equals_a_loop(row: Row, normalizer: float) -> None:
    logprobs, _, target, mask = columns(row)
    loss, metrics = shaped_importance(logprobs, target, mask, normalizer)
    weights = [math.exp(new) / (math.exp(new) + 0.1) if masked_in else 0.0 for new, _, _, masked_in in row]
    total = -sum(weight * advantage for weight, (_, _, advantage, _) in zip(weights, row, strict=True))
    assert loss.item() == pytest.approx(total / normalizer, abs=1e-9)
    assert metrics["shaped_weight"].item() == pytest.approx(sum(weights) / normalizer, abs=1e-9)


@given(TOKENS, st.floats(0.5, 20))
def test_shaped_ratio_equals_a_loop(row: Row, normalizer: float) -> None:
    logprobs, old, target, mask = columns(row)
    loss, metrics = shaped_ratio(logprobs, old, target, mask, normalizer, shape=0.3)
    ratios = [math.exp(new - old) for new, old, _, _ in row]
    weights = [x / (x + 0.3) if masked_in else 0.0 for x, (*_, masked_in) in zip(ratios, row, strict=True)]
    total = -sum(weight * advantage for weight, (_, _, advantage, _) in zip(weights, row, strict=True))
    assert loss.item() == pytest.approx(total / normalizer, abs=1e-9)
    assert metrics["shaped_weight"].item() == pytest.approx(sum(weights) / normalizer, abs=1e-9)


@given(TOKENS, st.floats(0.5, 20))
def test_clipped_value_equals_a_loop(row: Row, normalizer: float) -> None:
    loss = clipped_value(*columns(row), normalizer, CLIP)
    total = 0.0
    for new, old, target, masked_in in row:
        if masked_in:
            clipped = min(max(new, old - CLIP), old + CLIP)
            total += max((new - target) ** 2, (clipped - target) ** 2) / 2
    assert loss.item() == pytest.approx(total / normalizer, abs=1e-9)


@given(TOKENS, st.floats(0.5, 20))
def test_the_plain_sums_equal_a_loop(row: Row, normalizer: float) -> None:
    numbers, _, advantages, mask = columns(row)
    gradient = policy_gradient(numbers, advantages, mask, normalizer)
    weighed = sum(new * target for new, _, target, masked_in in row if masked_in)
    assert gradient.item() == pytest.approx(-weighed / normalizer, abs=1e-9)
    total = sum(new for new, _, _, masked_in in row if masked_in) / normalizer
    nll = negative_log_likelihood(numbers, mask, normalizer)
    bonus = -negative_entropy(numbers, mask, normalizer)
    assert nll.item() == pytest.approx(-total, abs=1e-9)
    assert bonus.item() == pytest.approx(total, abs=1e-9)


def test_the_gradient_at_ratio_1_is_the_plain_policy_gradient() -> None:
    _, _, advantages, mask = batch()
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(*mask.shape, 4, generator=random, dtype=torch.float64, requires_grad=True)
    actions = torch.randint(4, mask.shape, generator=random)
    logprobs = logits.log_softmax(dim=-1).gather(-1, actions[..., None]).squeeze(-1)
    count = float(mask.sum())

    surrogate, metrics = clipped_surrogate(logprobs, logprobs.detach(), advantages, mask, count, CLIP)
    (actual,) = torch.autograd.grad(surrogate, logits, retain_graph=True)

    one_hot = torch.nn.functional.one_hot(actions, 4)
    score = one_hot - logits.detach().softmax(dim=-1)
    expected = -score * (advantages * mask)[..., None] / count
    torch.testing.assert_close(actual, expected)
    assert metrics["clip_fraction"] == update_kl(logprobs, logprobs.detach(), mask, count) == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.5, 1.0, False),
        (1.5, -1.0, True),
        (0.5, -1.0, False),
        (0.5, 1.0, True),
        (1.1, 1.0, True),
        (0.9, -1.0, True),
    ],
)
def test_clipping_blocks_only_a_ratio_that_would_leave_further(
    ratio: float, advantage: float, moves: bool
) -> None:
    expected = -advantage * ratio if moves else 0.0
    assert slope("clipped_surrogate", math.log(ratio), 0.0, advantage) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "target", "moves"),
    [
        (0.5, 2.0, False),
        (0.5, -2.0, True),
        (-0.5, -2.0, False),
        (-0.5, 2.0, True),
        (0.1, 2.0, True),
        (-0.1, -2.0, True),
    ],
)
def test_value_clipping_blocks_only_a_value_that_would_leave_further(
    value: float, target: float, moves: bool
) -> None:
    expected = value - target if moves else 0.0
    assert slope("clipped_value", 3.0 + value, 3.0, 3.0 + target) == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sizes", [[1] * 6, [2, 4], [5, 1], [3, 0, 3]])
def test_micro_batches_with_one_normalizer_add_up_to_the_batch(name: str, sizes: list[int]) -> None:
    new, old, target, mask = batch()
    count = float(mask.sum())

    def run(rows: slice) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        x = new[rows].clone().requires_grad_()
        loss, metrics = LOSSES[name](x, old[rows], target[rows], mask[rows], count)
        loss.backward()
        assert x.grad is not None
        return loss.detach(), x.grad, metrics

    whole_loss, whole_gradient, whole_metrics = run(slice(None))
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    parts = [run(slice(a, b)) for a, b in itertools.pairwise(edges)]

    assert whole_gradient.any()
    torch.testing.assert_close(torch.stack([p[0] for p in parts]).sum(), whole_loss)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), whole_gradient)
    for key, value in whole_metrics.items():
        torch.testing.assert_close(torch.stack([p[2][key] for p in parts]).sum(), value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("extreme", [1e4, -1e4, 1e30, -1e30])
def test_masked_tokens_change_neither_loss_nor_gradient(name: str, extreme: float) -> None:
    new, old, target, mask = (x.float() if x.is_floating_point() else x for x in batch())
    clean = new.clone().requires_grad_()
    clean_loss, clean_metrics = LOSSES[name](clean, old, target, mask, 7.0)
    clean_loss.backward()

    dirty = new.masked_fill(~mask, extreme).requires_grad_()
    dirty_old, dirty_target = old.masked_fill(~mask, -extreme), target.masked_fill(~mask, extreme)
    dirty_loss, dirty_metrics = LOSSES[name](dirty, dirty_old, dirty_target, mask, 7.0)
    dirty_loss.backward()

    assert clean.grad is not None
    assert dirty.grad is not None
    assert not dirty.grad[~mask].any()
    assert torch.equal(dirty.grad, clean.grad)
    assert torch.equal(dirty_loss, clean_loss)
    assert dirty_metrics == clean_metrics


@pytest.mark.parametrize("name", ["clipped_surrogate", "negative_log_likelihood"])
def test_a_masked_token_that_could_not_be_drawn_is_harmless(name: str) -> None:
    """A guide's token may have probability 0 under the policy's truncated distribution."""
    impossible = torch.tensor([[-math.inf, -1.0]], requires_grad=True)
    old, target, mask = impossible.detach().clone(), torch.ones(1, 2), torch.tensor([[False, True]])
    loss, _ = LOSSES[name](impossible, old, target, mask, 1.0)
    loss.backward()
    assert loss.isfinite()
    assert impossible.grad is not None
    assert impossible.grad.tolist() == [[0.0, -1.0]]


@given(st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1, max_size=8))
def test_kl_estimate_equals_its_formula_and_is_not_negative(pairs: list[tuple[float, float]]) -> None:
    new, reference = (torch.tensor([column], dtype=torch.float64) for column in zip(*pairs, strict=True))
    estimate = kl_estimate(new, reference)
    assert estimate[0].tolist() == pytest.approx([math.exp(r - n) - 1 - (r - n) for n, r in pairs], abs=1e-9)
    assert (estimate >= -1e-15).all()


def test_kl_estimate_of_equal_log_probs_is_exactly_0() -> None:
    logprobs = -torch.rand(3, 4)
    assert not kl_estimate(logprobs, logprobs).any()


def test_kl_estimate_of_nearly_equal_log_probs_is_not_negative() -> None:
    difference = torch.linspace(-1e-3, 1e-3, 2001)[None]
    assert kl_estimate(torch.zeros_like(difference), difference).min() >= 0


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_kl_estimate_under_the_policy_is_the_kl(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    policy, reference = (
        (2 * torch.randn(1, 7, generator=random, dtype=torch.float64)).log_softmax(dim=-1) for _ in range(2)
    )
    exact = (policy.exp() * (policy - reference)).sum()
    mean = (policy.exp() * kl_estimate(policy, reference)).sum()
    torch.testing.assert_close(mean, exact)
