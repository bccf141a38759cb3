"""The clipped loss as a mean over texts, against a loop over tokens."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlgf.objectives.losses import clipped_surrogate_of_texts

Text = list[tuple[float, float, float, bool]]
"""Tokens as (new, old, advantage, masked in)."""
TOKEN = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(-3, 3), st.booleans())
TEXTS = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.lists(TOKEN, min_size=width, max_size=width), min_size=1, max_size=4)
)


def columns(texts: list[Text]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    new, old, advantage = (
        torch.tensor([[token[i] for token in text] for text in texts], dtype=torch.float64) for i in range(3)
    )
    return new, old, advantage, torch.tensor([[token[3] for token in text] for text in texts])


@given(TEXTS, st.sampled_from(["token", "text"]), st.sampled_from([None, 7]))
def test_each_text_has_its_own_sum(
    texts: list[Text], ratio: Literal["token", "text"], length: int | None
) -> None:
    loss, metrics = clipped_surrogate_of_texts(*columns(texts), 5.0, 11.0, 0.2, 0.5, ratio, length)
    expected, outside = 0.0, 0
    for text in texts:
        read = [(new - old, advantage) for new, old, advantage, masked_in in text if masked_in]
        mean = sum(moved for moved, _ in read) / max(len(read), 1)
        for moved, advantage in read:
            rho = math.exp(moved if ratio == "token" else mean)
            expected -= min(rho * advantage, min(max(rho, 0.8), 1.5) * advantage) / (length or len(read))
            outside += not 0.8 <= rho <= 1.5
    assert loss.item() == pytest.approx(expected / 5, abs=1e-9)
    assert metrics["clip_fraction"].item() == pytest.approx(outside / 11, abs=1e-6)


def test_a_ratio_of_texts_gives_every_token_the_same_gradient() -> None:
    """GSPO's equation 10: the text's ratio times its advantage, over its length."""
    old = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -0.7, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    advantages = torch.tensor([[0.7] * 3, [-0.4, -0.4, 5.0]])
    new = (old + torch.tensor([[0.05, -0.01, 0.02], [0.1, -0.04, 3.0]])).requires_grad_()
    clipped_surrogate_of_texts(new, old, advantages, mask, 2.0, 5.0, ratio="text")[0].backward()
    first, second = math.exp(0.02) * 0.7 / 3 / 2, math.exp(0.03) * -0.4 / 2 / 2
    torch.testing.assert_close(new.grad, -torch.tensor([[first] * 3, [second, second, 0.0]]))


@pytest.mark.parametrize("ratio", ["token", "text"])
def test_texts_may_be_learned_from_apart(ratio: Literal["token", "text"]) -> None:
    torch.manual_seed(0)
    new, old, advantages = (torch.randn(4, 5) for _ in range(3))
    mask = torch.rand(4, 5) < 0.7
    given = (4.0, float(mask.sum()), 0.2, None, ratio)
    whole, _ = clipped_surrogate_of_texts(new, old, advantages, mask, *given)
    apart = [
        clipped_surrogate_of_texts(
            new[i : i + 1], old[i : i + 1], advantages[i : i + 1], mask[i : i + 1], *given
        )[0]
        for i in range(4)
    ]
    torch.testing.assert_close(torch.stack(apart).sum(), whole)
