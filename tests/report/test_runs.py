"""Reading what runs have written so far."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_toys import run_folder, sample, write_lines

from rlgf.errors import UserError
from rlgf.report.page import write_report
from rlgf.report.runs import find_runs, read_run
from toys import sentence_of


def test_a_run_that_goes_on_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", [sample(1, 0, ["a"]), sample(1, 0, ["b"])], finished=False)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"update": 5, "re')
    run = read_run(folder)
    assert run.updates == 4
    # An evaluation that was interrupted is written again, and the later line counts.
    assert [s["tokens"] for s in run.samples] == [["b"]]
    assert write_report([folder]).is_file()


def test_the_texts_of_the_test_are_samples_of_the_last_update(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", [sample(4, 0, ["a"])])
    (folder / "evaluation").mkdir()
    text = {"prompt": "p", "completion": "c", "references": ["r", "s"], "columns": {"n": 1}}
    lines = [
        {"totals": {"reward": 0.5}},
        {**text, "reward": 0.25, "kl": 0.5, "spelled": "x"},
        {"completion": "d" * 5000},
    ]
    write_lines(folder / "evaluation" / "policy.jsonl", lines)
    _, *tested = read_run(folder).samples
    assert tested[0] == {
        "update": 4,
        "split": "test",
        "episode": 0,
        "prompt": "p",
        "reference": "r",
        "tokens": ["c"],
        "authors": [["policy", 1]],
        "reward": 0.25,
        "metrics": {"kl": 0.5},
    }
    (told,) = tested[1:]
    assert (told["episode"], told["prompt"], told["reference"], told["reward"]) == (1, "", "", None)
    assert told["tokens"] == ["d" * 5000]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "samples.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(UserError, match=r"samples.jsonl, line 2, is not JSON"):
        read_run(folder)
    (folder / "samples.jsonl").write_bytes(b'{}\n{"a": "\xff"}\n')
    with pytest.raises(UserError, match=r"samples.jsonl, line 2, is not JSON"):
        read_run(folder)
    (folder / "config.yaml").write_bytes(b"name: \xff\n")
    assert "config.yaml is not YAML ('utf-8' codec" in sentence_of(lambda: read_run(folder))
    (folder / "config.yaml").write_text("a: [")
    assert "config.yaml is not YAML (" in sentence_of(lambda: read_run(folder))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="holds no run"):
        find_runs([tmp_path])


def test_a_null_in_a_summary_is_no_number(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "summary.json").write_text('{"totals": {"policy": {"reward": null, "kl": 0.5}}}')
    assert read_run(folder).totals == {"kl": 0.5}
    (folder / "summary.json").write_text('{"totals": null, "progress": null}')
    assert read_run(folder).totals is None
    assert write_report([folder]).is_file()
