"""A small comparison for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from rlgf.compare.comparison import Comparison


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    from rlgf.compare.comparison import load_comparison
    from rlgf.run.checkpoint import save_policy
    from toys import letter_gpt

    save_policy(letter_gpt(), tmp_path / "start")
    save_policy(letter_gpt(seed=1), tmp_path / "guide")
    base = {
        "task": "toys:LetterTask",
        "policy": {"model": str(tmp_path / "start")},
        "guide": {"model": str(tmp_path / "guide")},
        "reward": "toys:share_of_a",
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 8, "epochs": 1},
        "training": {"updates": 2, "trackers": []},
        "evaluation": {"every": 1, "samples": 8, "test_samples": 8},
    }
    recipe = {
        "name": "toy",
        "settings": {"plain": [str(tmp_path / "base.yaml")]},
        "algorithms": {"ppo": ["algorithm=ppo"], "ppo++": ["algorithm=ppo++"]},
        "seeds": 2,
        "baseline": "ppo",
        "metrics": ["reward", "kl", "output_perplexity"],
        "runs": str(tmp_path / "runs"),
        "results": str(tmp_path / "results"),
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(recipe))
    return load_comparison(tmp_path / "compare.yaml")
