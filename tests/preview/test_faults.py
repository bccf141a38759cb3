"""All that is wrong with a recipe is listed, and neither weights nor servers are needed for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from told_runs import RECIPE

from faulty_server import FaultyServer, serving
from rlgf.cli import main
from toys import letter_gpt


def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["rlgf", "check", *words])
    monkeypatch.setenv("COLUMNS", "100")
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def recipe_file(folder: Path, **changes: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return str(path)


def test_every_broken_rule_is_listed_and_the_code_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_file(tmp_path)
    code, out, err = command(capsys, monkeypatch, recipe, "guide=null", "reward=null", "algorithm=ppo++")
    assert (code, out) == (2, "")
    assert [line.partition(" needs ")[2][:8] for line in err.splitlines()] == ["a guide:", "a reward"]
    code, out, err = command(
        capsys,
        monkeypatch,
        recipe,
        "rollout.max_response_tokens=99",
        "reward=toys:LETTERS",
        "task=toys:LENGTH",
    )
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 3
    for part in ("context holds 64", "cannot be called", "not a class or function"):
        assert part in err


def test_models_that_are_not_there_are_missing_and_nothing_else_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_file(tmp_path, policy={"model": "nowhere/policy"}, guide={"model": "nowhere/guide"})
    code, out, err = command(capsys, monkeypatch, recipe, "algorithm=lols")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert words.count("Missing: model 'nowhere/") == 2
    assert "No figure: the policy's model is not there" in words
    assert "requests" in words


def test_no_weights_are_loaded_and_no_server_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_gpt().model.config.save_pretrained(tmp_path / "bare")
    with serving(FaultyServer()) as server:
        guide = {"url": server.url, "model": "letters", "cache": None, "budget": {"calls": 10}}
        recipe = recipe_file(tmp_path, policy={"model": str(tmp_path / "bare")}, guide=guide)
        code, out, err = command(capsys, monkeypatch, recipe, "algorithm=ppo++")
        assert (code, err) == (0, "")
        assert not server.seen
    words = " ".join(out.split())
    assert "The budget (10 calls) may not suffice: where it is spent the run stops" in words
    assert "model parameters weights gradients AdamW" in words


def test_a_template_without_room_for_a_hint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = letter_gpt()
    for part in (letters.model, letters.tokenizer):
        part.save_pretrained(tmp_path / "policy")
    recipe = recipe_file(
        tmp_path,
        policy={"model": str(tmp_path / "policy")},
        algorithm={"base": "hinted-grpo", "script": {"hint": {"template": "{hint}abcd{prompt}"}}},
    )
    code, out, err = command(capsys, monkeypatch, recipe, "rollout.max_hint_tokens=4")
    assert (code, out) == (2, "")
    assert "the template of hints takes 4 tokens, and 'rollout.max_hint_tokens' 4 leave no room" in err
    assert command(capsys, monkeypatch, recipe, "rollout.max_hint_tokens=5")[0] == 0


def test_chats_for_a_policy_without_a_chat_template_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "chats.jsonl"
    rows.write_text('{"prompt": [{"role": "user", "content": "a"}]}\n')
    options = dict.fromkeys(("train", "validation", "test"), str(rows)) | {"reference_field": None}
    recipe = recipe_file(tmp_path, task={"name": "data", "options": options})
    code, out, err = command(capsys, monkeypatch, recipe)
    assert (code, out) == (2, "")
    assert (
        "chats.jsonl, line 1: the prompt is the messages of a chat, and the policy from scratch has no" in err
    )
