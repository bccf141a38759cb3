"""The commands that run a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlgf.cli import main
from rlgf.config import load_config
from rlgf.types import Sample


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    rlgf("train", monkeypatch)
    return tmp_path


def rlgf(command: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["rlgf", command, "recipe.yaml", *arguments])
    main()


def test_train_with_trls_quickstart_reward(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    totals = json.loads((trained / "run" / "summary.json").read_text())["totals"]["policy"]
    assert totals["reward"] > 0
    # The data has no references, so the authors that there are by default leave them out.
    rlgf("eval", monkeypatch, "policy.model=run/policy", "--output", "texts")
    assert "before training" not in capsys.readouterr().out
    assert [path.name for path in Path("texts").iterdir()] == ["policy.jsonl"]


class Some:
    """A task whose samples do not all have a reference."""

    def __init__(self, **options: object) -> None:
        """Those of the recipe that it is laid over."""

    def load(self, split: str) -> list[Sample]:
        return [Sample("ab", ("cd",)), Sample("ab")]


def test_texts_of_the_data_that_only_some_prompts_have_are_not_measured(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = f"task.name={__name__}:Some"
    rlgf("eval", monkeypatch, own, "--output", "some")
    assert [path.name for path in Path("some").iterdir()] == ["policy.jsonl"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        rlgf("eval", monkeypatch, own, "--author", "reference")
    assert "'test' has none, or not for each prompt" in capsys.readouterr().err


def test_an_evaluation_asks_nobody_whom_it_does_not_measure(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for guided in (
        ["guide={url: 'http://127.0.0.1:9/v1', model: m}", "algorithm=ppo++"],
        ["guide.model=nowhere", "algorithm=distill"],
        ["guide=null", "algorithm=distill"],
    ):
        rlgf("eval", monkeypatch, *guided, "--author", "policy")
        assert "before training; for the trained one set policy.model=run/policy." in " ".join(
            capsys.readouterr().out.split()
        )
    (trained / "texts").mkdir()
    (trained / "texts" / "policy.jsonl").touch()
    for changes, said in (
        (["--author", "guide"], "--author guide measures the recipe's guide, and it has none"),
        (["--author", "gide"], "--author 'gide' is not known: did you mean 'guide'?"),
        (["--author", "reference"], "--author reference measures the data's own texts, and 'test' has none"),
        (["--output", "texts"], "policy.jsonl is there already, and nothing is overwritten"),
    ):
        with pytest.raises(SystemExit) as ended:
            rlgf("eval", monkeypatch, *changes)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
