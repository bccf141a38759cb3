"""A saved policy is measured against what its own run started from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import letter_gpt

MEASURED = ("kl", "output_perplexity", "reference_perplexity", "reward")


def recipe(root: Path, **changes: Any) -> dict[str, Any]:
    return {
        "task": "toys:LetterTask",
        "policy": {"model": str(root / "start")},
        "reward": "toys:share_of_a",
        "output": str(root / "run"),
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4, "learning_rate": 5e-3},
        "training": {"updates": 2, "trackers": []},
        "evaluation": {"samples": 16, "test_samples": 16},
        **changes,
    }


def run(config: Config) -> dict[str, float]:
    return Trainer(config, display=Display(Console(quiet=True))).train()["policy"]


def measured(*sources: Any) -> dict[str, float]:
    """As `rlgf eval` does."""
    return (
        Trainer(load_config(*sources), display=Display(Console(quiet=True)), evaluates=True).evaluate().totals
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_policy(letter_gpt(), tmp_path / "start")
    return tmp_path


def agree(found: dict[str, float], ended: dict[str, float]) -> None:
    assert ended["kl"] > 1e-4
    assert {name: found[name] for name in MEASURED} == pytest.approx(
        {name: ended[name] for name in MEASURED}, rel=1e-3
    )


@pytest.mark.parametrize("lora", [None, {"r": 4, "targets": ["c_attn", "c_fc"]}])
def test_a_policy_that_is_measured_again_gives_what_its_run_ended_with(root: Path, lora: Any) -> None:
    told = recipe(root, policy={"model": str(root / "start"), "lora": lora})
    ended = run(load_config(told))
    agree(measured(told, f"policy.model={root / 'run' / 'policy'}"), ended)
    # And so does the checkpoint of its last update.
    newest = root / "run" / "checkpoints" / "000002" / "policy"
    agree(measured(told, f"policy.model={newest}"), ended)
    assert measured(told)["kl"] == pytest.approx(0, abs=1e-6), "the start itself"


def test_runs_that_are_moved_together_still_know_each_other(root: Path) -> None:
    ended = run(load_config(recipe(root)))
    moved = root.parent / (root.name + "-moved")
    root.rename(moved)
    agree(measured(recipe(moved), f"policy.model={moved / 'run' / 'policy'}"), ended)


def test_a_start_that_is_gone_is_named_and_another_can_be_given(root: Path) -> None:
    ended = run(load_config(recipe(root)))
    (root / "start").rename(root / "elsewhere")
    policy = f"policy.model={root / 'run' / 'policy'}"
    with pytest.raises(
        UserError,
        match=r"was trained from '.*/start', which is there no more.*'evaluation\.reference\.model'",
    ):
        measured(recipe(root), policy)
    agree(measured(recipe(root), policy, f"evaluation.reference.model={root / 'elsewhere'}"), ended)


def test_a_start_from_scratch_is_built_again(root: Path) -> None:
    scratch = {"vocabulary": 258, "layers": 1, "heads": 2, "width": 16, "context": 32}
    ended = run(load_config(recipe(root, policy={"scratch": scratch})))
    agree(measured(recipe(root, policy={"model": str(root / "run" / "policy")})), ended)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"start": 3}', '{"start": {"model": 4}, "relative": null}'])
def test_a_damaged_record_is_named(root: Path, text: str) -> None:
    policy = shutil.copytree(root / "start", root / "policy")
    (policy / "rlgf.json").write_text(text)
    with pytest.raises(UserError, match=r"rlgf\.json does not say"):
        measured(recipe(root), f"policy.model={policy}")


def test_a_start_with_other_tokens_is_refused(root: Path) -> None:
    save_policy(letter_gpt("abcde"), root / "other")
    with pytest.raises(UserError, match="their tokenizers differ"):
        measured(recipe(root), f"evaluation.reference.model={root / 'other'}")


def test_the_record_does_not_say_whose_code_is_run(root: Path) -> None:
    run(load_config(recipe(root, policy={"model": str(root / "start"), "trust_remote_code": True})))
    assert "trust_remote_code" not in json.loads((root / "run" / "policy" / "rlgf.json").read_text())["start"]
