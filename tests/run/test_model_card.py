"""The card beside a saved policy. That of a real run is in test_checkpoint.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlgf.config import load_config
from rlgf.evaluation.files import Evaluation
from rlgf.run.model_card import write_model_card
from rlgf.run.progress import Progress


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"model": "owner/name"}, "base_model: owner/name"),
        ({"model": "owner/name", "lora": {}}, "AutoPeftModelForCausalLM"),
        ({"scratch": {}}, "| from | `a small model from random weights` |"),
    ],
)
def test_a_model_card_names_its_base(tmp_path: Path, policy: dict[str, Any], said: str) -> None:
    recipe = {"name": "a|b", "task": "imdb", "policy": policy, "reward": "sentiment", "algorithm": "ppo"}
    evaluation = Evaluation({"reward": 0.5}, [{"reward": 0.5}])
    usage = {"calls": 1200.0, "prompt_tokens": 5.0, "completion_tokens": 6.0, "cost": 0.25}
    write_model_card(tmp_path, load_config(recipe), evaluation, Progress(), usage, encoder_decoder=False)
    card = (tmp_path / "README.md").read_text()
    assert said in card
    assert "| asked of the guide | 1,200 answers, 11 tokens, cost 0.25 |" in card
    assert "| reward | 0.5000 |  |" in card, "one text has no interval"
    assert "# a/b" in card
