"""What stands beside a reward model's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlgf.rewards import build_reward


def test_the_folder_is_plain_transformers_and_the_centre_is_kept_beside(preference: Path) -> None:
    folder = preference / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logit = model(**tokenizer("bcaadd", return_tensors="pt", return_token_type_ids=False)).logits.item()
    centre = json.loads((folder / "reward.json").read_text())["centre"]
    assert centre != 0
    assert build_reward("model", {"model": str(folder)})(["bc"], ["aadd"]) == pytest.approx(
        [logit - centre], abs=1e-5
    )
