"""From a reward's numbers to the pay: the running moments, and clipping."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resume_script import toy_trainer
from rlgf.rewards import Scale
from rlgf.types import Author
from toys import share_of_a

TERMS = {
    "a": {"name": "toys:share_of_a", "weight": 2.0},
    "b": {"name": f"{__name__}:count_b", "weight": -0.5},
}


def count_b(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(text.count("b")) for text in completions]


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), min_size=1, max_size=6))
def test_the_running_moments_are_those_of_all_rewards_so_far(batches: list[list[float]]) -> None:
    scale = Scale(normalize=True)
    for number, batch in enumerate(batches, start=1):
        paid = scale.pay(torch.tensor(batch))
        so_far = torch.tensor([r for seen in batches[:number] for r in seen], dtype=torch.float64)
        mean, std = float(so_far.mean()), float(so_far.var(unbiased=False).sqrt())
        assert scale.mean == pytest.approx(mean, abs=1e-6)
        assert scale.std == pytest.approx(std, abs=1e-5)
        if std > 1e-3:
            torch.testing.assert_close(paid, (torch.tensor(batch) - mean) / std, atol=1e-3, rtol=1e-3)


def test_rewards_that_are_all_the_same_pay_nothing() -> None:
    paid = Scale(normalize=True).pay(torch.full((7,), 0.1))
    assert paid.abs().max() < 1e-3


def test_clipping_comes_after_normalizing() -> None:
    rewards = torch.tensor([0.0, 0.0, 0.0, 0.0, 100.0])
    assert Scale(normalize=True, clip=(-0.25, 1.5)).pay(rewards).tolist() == [-0.25] * 4 + [1.5]
    assert Scale(clip=(-1.0, 50.0)).pay(rewards).tolist() == [0, 0, 0, 0, 50]


def test_a_saved_scale_goes_on_as_if_nothing_had_happened() -> None:
    one, other = Scale(normalize=True), Scale(normalize=True)
    one.pay(torch.tensor([1.0, 2.0, 5.0]))
    other.load_state_dict(one.state_dict())
    late = torch.tensor([3.0, -1.0])
    assert torch.equal(one.pay(late), other.pay(late))
    assert one.state_dict() == other.state_dict()


def test_evaluation_leaves_the_running_moments_alone(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, reward={"terms": TERMS, "normalize": True})
    trainer.step()
    before = trainer.parts.assessor.scale.state_dict()
    found = trainer.evaluate(Author.POLICY, "validation")
    assert trainer.parts.assessor.scale.state_dict() == before
    texts = [record["completion"] for record in found.records]
    expected = [2 * a - 0.5 * b for a, b in zip(share_of_a([], texts), count_b([], texts), strict=True)]
    assert [record["reward"] for record in found.records] == pytest.approx(expected, abs=1e-5)
