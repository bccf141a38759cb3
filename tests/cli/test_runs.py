"""The commands that run a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlgf.cli import main
from rlgf.config import load_config


def test_train_with_trls_quickstart_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file that knows nothing of this library, by the command line."""
    (tmp_path / "reward.py").write_text(
        "def reward_num_unique_chars(completions, **kwargs):\n    return [len(set(c)) for c in completions]\n"
    )
    rows = "".join(
        json.dumps({"prompt": f"The film {i} is", "ground_truth": "good"}) + "\n" for i in range(24)
    )
    (tmp_path / "data.jsonl").write_text(rows)
    recipe = {
        "task": {
            "name": "data",
            "options": dict.fromkeys(("train", "validation", "test"), "data.jsonl"),
        },
        "policy": {"scratch": {"layers": 1, "width": 16, "heads": 2, "context": 64, "vocabulary": 300}},
        "reward": "reward.py:reward_num_unique_chars",
        "algorithm": "grpo",
        "rollout": {"episodes": 8, "max_prompt_tokens": 24, "max_response_tokens": 8},
        "training": {"updates": 2, "trackers": []},
        "evaluation": {"samples": 4, "test_samples": 4, "every": 2},
        "output": "run",
    }
    recipe["task"]["options"]["reference_field"] = None
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    monkeypatch.chdir(tmp_path)
    load_config("recipe.yaml")
    monkeypatch.setattr("sys.argv", ["rlgf", "train", "recipe.yaml"])
    main()
    totals = json.loads((tmp_path / "run" / "summary.json").read_text())["totals"]["policy"]
    assert totals["reward"] > 0
    # The data has no references, so the authors that there are by default leave them out.
    saved = ["policy.scratch=null", "policy.model=run/policy"]
    monkeypatch.setattr("sys.argv", ["rlgf", "eval", "recipe.yaml", *saved, "--output", "texts"])
    main()
    assert [path.name for path in Path("texts").iterdir()] == ["policy.jsonl"]
