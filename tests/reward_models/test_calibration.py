"""Whether a model is right as often as it says, against definitions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from rlgf.reward_models.calibration import Bin, expected_calibration_error, reliability
from rlgf.rewards import build_reward


def test_accuracy_and_calibration_are_those_of_the_held_out_pairs(preference: Path) -> None:
    """Counted again from the stored model's own scores."""
    reward = build_reward("model", {"model": str(preference / "model")})
    rows = [json.loads(line) for line in (preference / "dev.jsonl").read_text().splitlines()]
    sides = [
        reward([row["prompt"] for row in rows], [row[side] for row in rows])
        for side in ("chosen", "rejected")
    ]
    p = [1 / (1 + math.exp(other - one)) for one, other in zip(*sides, strict=True)]
    report = json.loads((preference / "model" / "report.json").read_text())
    assert report["accuracy"] == pytest.approx(sum(value > 0.5 for value in p) / 128, abs=1e-4)
    error = 0.0
    for low in range(10):
        inside = [v for v in p if min(int((max(v, 1 - v) - 0.5) * 20), 9) == low]
        error += abs(sum(v > 0.5 for v in inside) - sum(max(v, 1 - v) for v in inside)) / 128
    assert report["calibration_error"] == pytest.approx(error, abs=1e-3)


def test_the_expected_calibration_error_is_that_of_its_definition() -> None:
    """Four predictions at 0.9 of which three are right, and two at 0.6 (one as 0.4) that are both right."""
    probabilities = torch.tensor([0.91, 0.91, 0.91, 0.09, 0.61, 0.39])
    labels = torch.tensor([True, True, False, False, True, False])
    bins = reliability(probabilities, labels)
    assert [one.count for one in bins] == [2, 4]
    assert [one.accuracy for one in bins] == [1.0, 0.75]
    assert [one.confidence for one in bins] == pytest.approx([0.61, 0.91])
    assert expected_calibration_error(bins) == pytest.approx(2 / 6 * 0.39 + 4 / 6 * 0.16, abs=1e-6)
    assert expected_calibration_error([Bin(5, 0.8, 0.8)]) == 0
