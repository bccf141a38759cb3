"""How commands end: with one sentence, or with the traceback of the user's own code."""

from __future__ import annotations

import errno
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from resuming import checkpoints

import rlgf
from rlgf import cli

LATE = """\
n = 0
def r(prompts, completions, **k):
    global n
    n += 1
    if n == 5: raise ValueError("my parser failed \\x1b[31m")
    return [float(len(c)) for c in completions]
"""


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A recipe with a reward that fails in the third update."""
    (tmp_path / "raises_late.py").write_text(LATE)
    rows = [{"prompt": f"The film {i} is", "references": ["good"]} for i in range(8)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return [
        "output=run",
        "task={name: data, options: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}",
        "policy.scratch={vocabulary: 300, layers: 1, heads: 1, width: 8, context: 64}",
        "reward=raises_late.py:r",
        "rollout={episodes: 4, max_prompt_tokens: 16, max_response_tokens: 4}",
        "training={updates: 4, checkpoint_every: 20, trackers: []}",
        "evaluation={every: 9, samples: 2, test_samples: 2}",
    ]


def command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["rlgf", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_a_full_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "app", full)
    assert command(["compare", "imdb"], monkeypatch) == 2
    assert capsys.readouterr().err == "rlgf: the disk is full: free some space and run the command again.\n"


def test_a_terminal_without_a_texts_characters_ends_no_run(
    late: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_late.py").write_text(LATE.replace("n == 5", "False"))
    task = next(source for source in late if source.startswith("task")).replace("train.jsonl", "umlaut.jsonl")
    (tmp_path / "umlaut.jsonl").write_text('{"prompt": "Für", "references": ["gut"]}\n' * 4)
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    over = [task, "training={updates: 1, sample_every: 1, trackers: []}"]
    monkeypatch.setattr(sys, "argv", ["rlgf", "train", *late, *over])
    cli.main()
    shown.seek(0)
    assert "F\\xfcr [policy]" in shown.read()


def test_a_reward_that_raises_late_loses_nothing_and_is_shown_with_its_own_traceback(
    late: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["train", *late], monkeypatch) == 1
    said = capsys.readouterr().err
    assert "raises_late.py" in said
    assert 'raise ValueError("my parser failed' in said
    assert "rlgf/" not in said, "nothing of ours stands between"
    assert "\x1b" not in said, "a message can quote a generated text"
    assert "ValueError: my parser failed \\x1b[31m" in said
    assert said.rstrip().endswith("; --resume goes on.")
    (saved,) = checkpoints(tmp_path / "run")
    assert int(saved) >= 2
    (tmp_path / "raises_late.py").write_text(LATE.replace("n == 5", "False"))
    monkeypatch.setattr(sys, "argv", ["rlgf", "train", *late, "--resume"])
    cli.main()
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_traceback_that_never_reaches_the_users_code_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*unused: object, **options: object) -> None:
        json.loads("{")

    monkeypatch.setattr(cli, "app", broken)
    assert command(["train"], monkeypatch) == 1
    said = capsys.readouterr().err
    assert "json.decoder.JSONDecodeError" in said


@pytest.mark.parametrize("words", [[], ["check"], ["guide", "cache"]])
def test_help_has_its_short_name_too(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rlgf", *words, "-h"])
    cli.main()
    assert "--help" in capsys.readouterr().out


def test_an_override_with_dashes_says_how_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["check", "imdb", "--training.updates=2"], monkeypatch) == 2
    said = capsys.readouterr().err
    assert (
        said
        == "rlgf: --training.updates is no option: an override has no dashes, as training.updates=VALUE.\n"
    )


def test_ctrl_c_is_no_success(late: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that goes on after a good run must not go on after a broken-off one."""
    (tmp_path / "raises_late.py").write_text("def r(completions): raise KeyboardInterrupt")
    assert command(["train", *late], monkeypatch) == 130


def test_a_folder_that_holds_a_run_is_refused_before_models_load(
    late: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "checkpoints" / "000001").mkdir(parents=True)
    absent = "policy={model: nowhere, scratch: null}"
    assert command(["train", *late, absent], monkeypatch) == 2
    assert (
        "run already holds a run: --resume, in Python train(resume=True), goes on with it"
        in capsys.readouterr().err
    )


def test_what_evaluations_are_written_to_is_looked_at_before_models_load(
    late: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()
    absent = "policy={model: nowhere, scratch: null}"
    assert command(["eval", *late, absent, "--output", "taken"], monkeypatch) == 2
    assert "taken cannot be written: Not a directory; set another --output." in capsys.readouterr().err


def test_a_report_replaces_pages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("page.html", "train.jsonl"):
        (tmp_path / name).write_text("mine")
    assert command(["report", str(tmp_path), "--output", str(tmp_path / "train.jsonl")], monkeypatch) == 2
    assert "train.jsonl is there already, and nothing is overwritten" in capsys.readouterr().err
    assert command(["report", str(tmp_path), "--output", str(tmp_path / "page.html")], monkeypatch) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_port_that_there_is_not_is_refused(late: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(["serve-sampler", *late, "--port", "99999"], monkeypatch) == 2


def test_data_without_references_is_measured_without_them(
    late: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default an evaluation asks every author that there is, and tells of none before all are done."""
    bare = ["task.options.reference_field=null", "reward={name: length, options: {target: 3}}"]
    monkeypatch.setattr(sys, "argv", ["rlgf", "eval", *late, *bare])
    cli.main()
    assert "reference" not in capsys.readouterr().out.replace("reference perplexity", "")


def test_a_warning_of_ours_is_a_sentence_without_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert command(["version"], monkeypatch) == 2
    ours, other = (
        warnings.formatwarning("Careful.", UserWarning, file, 3) for file in (rlgf.__file__, "mine.py")
    )
    assert ours == "rlgf: Careful.\n"
    assert other.startswith("mine.py:3: UserWarning: Careful.")
