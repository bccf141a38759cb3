"""The divergence between two distributions against its definition and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlgf.objectives.losses import distillation

VOCABULARY = 4
LOGITS = st.lists(st.floats(-4, 4), min_size=VOCABULARY, max_size=VOCABULARY)
ONE = torch.ones(1, 1, dtype=torch.bool)


def logs(logits: list[float]) -> Tensor:
    return torch.tensor([[logits]], dtype=torch.float64).log_softmax(dim=-1)


def divergence(policy: list[float], guide: list[float], beta: float) -> float:
    return float(distillation(logs(policy), logs(guide), ONE, 1.0, beta))


def slow_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow(policy: list[float], guide: list[float], beta: float) -> float:
    """From the definitions, in probabilities."""
    q, p = ([math.exp(x) / math.fsum(map(math.exp, logits)) for x in logits] for logits in (policy, guide))
    if beta in (0, 1):
        return slow_kl(p, q) if beta == 0 else slow_kl(q, p)
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    return beta * slow_kl(p, m) + (1 - beta) * slow_kl(q, m)


BETAS = st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0])


@given(LOGITS, LOGITS, BETAS)
def test_the_divergence_equals_its_definition_and_is_not_negative(
    policy: list[float], guide: list[float], beta: float
) -> None:
    found = divergence(policy, guide, beta)
    assert found == pytest.approx(slow(policy, guide, beta), abs=1e-12)
    assert found >= -1e-14


@given(LOGITS, BETAS)
def test_equal_distributions_are_0_apart_and_pull_nowhere(logits: list[float], beta: float) -> None:
    policy = torch.tensor([[logits]], dtype=torch.float64, requires_grad=True)
    loss = distillation(policy.log_softmax(dim=-1), logs(logits), ONE, 1.0, beta)
    loss.backward()
    assert policy.grad is not None
    assert loss.item() == pytest.approx(0, abs=1e-14)
    torch.testing.assert_close(policy.grad, torch.zeros_like(policy), atol=1e-14, rtol=0)


@given(LOGITS, LOGITS)
def test_the_generalized_divergence_tends_to_both_kls(policy: list[float], guide: list[float]) -> None:
    near = 1e-6
    forward, reverse = divergence(policy, guide, 0.0), divergence(policy, guide, 1.0)
    assert divergence(policy, guide, near) / near == pytest.approx(forward, abs=0.02)
    assert divergence(policy, guide, 1 - near) / near == pytest.approx(reverse, abs=0.02)


def test_only_masked_tokens_count_and_the_normalizer_divides() -> None:
    random = torch.Generator().manual_seed(0)
    policy, guide = (
        torch.randn(2, 3, VOCABULARY, generator=random, dtype=torch.float64).log_softmax(dim=-1)
        for _ in range(2)
    )
    mask = torch.tensor([[True, False, True], [False, True, False]])
    found = distillation(policy, guide, mask, 7.0, 0.5)
    total = sum(slow(policy[b, t].tolist(), guide[b, t].tolist(), 0.5) for b, t in mask.nonzero().tolist())
    assert found.item() == pytest.approx(total / 7)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_token_that_neither_can_draw_is_harmless(beta: float) -> None:
    policy = torch.tensor([[[0.3, -0.2, -math.inf]]], requires_grad=True)
    guide = torch.tensor([[[-1.0, 0.5, -math.inf]]]).log_softmax(dim=-1)
    loss = distillation(policy.log_softmax(dim=-1), guide, ONE, 1.0, beta)
    loss.backward()
    assert loss.item() == pytest.approx(slow([0.3, -0.2], [-1.0, 0.5], beta), abs=1e-6)
    assert policy.grad is not None
    assert policy.grad.isfinite().all()
    assert policy.grad[0, 0, 2] == 0
