"""The commands that run a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlgf.cli import main
from rlgf.config import load_config


def test_train_with_trls_quickstart_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert "before training" not in capsys.readouterr().out
    totals = json.loads((tmp_path / "run" / "summary.json").read_text())["totals"]["policy"]
    assert totals["reward"] > 0
    # The data has no references, so the authors that there are by default leave them out.
    arguments = ["rlgf", "eval", "recipe.yaml", "policy.model=run/policy", "--output", "texts"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert "before training" not in capsys.readouterr().out
    assert [path.name for path in Path("texts").iterdir()] == ["policy.jsonl"]
    # A guide that is not measured is not asked, and the algorithm that it would help is not run.
    for guided in (
        ["guide={url: 'http://127.0.0.1:9/v1', model: m}", "algorithm=ppo++"],
        ["guide.model=nowhere", "algorithm=distill"],
        ["guide=null", "algorithm=distill"],
    ):
        monkeypatch.setattr("sys.argv", ["rlgf", "eval", "recipe.yaml", *guided, "--author", "policy"])
        main()
        assert "before training: policy.model=run/policy is" in " ".join(capsys.readouterr().out.split())
    for changes, said in (
        (["--author", "guide"], "--author guide measures the recipe's guide, and it has none"),
        (["--author", "gide"], "--author 'gide' is not known: did you mean 'guide'?"),
        (["--author", "reference"], "--author reference measures the data's own texts, and 'test' has none"),
        (["--output", "texts"], "policy.jsonl is there already, and nothing is overwritten"),
    ):
        monkeypatch.setattr("sys.argv", ["rlgf", "eval", "recipe.yaml", *changes])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
