"""What is shown of a run, and that no text can steer the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from report_toys import HOSTILE, run_folder, sample, write_lines
from rich.console import Console

from rlgf.report.runs import Run, read_run
from rlgf.watch.view import charts, duration, time_left, view

LINES = [{"update": update, "reward": update / 10, "kl": 0.5} for update in range(1, 6)]


def drawn(metrics: list[dict[str, Any]], most: int = 6, width: int = 60, height: int = 8) -> list[str]:
    found = []
    for chart in charts(Run(Path("run"), {}, metrics, []), width, height, most):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(chart)
        found.append(console.export_text())
    return found


def test_what_was_logged_is_drawn_and_nothing_else() -> None:
    first, second = drawn([*LINES, {"update": 5, "validation/reward": 0.9}])
    assert "reward" in first.splitlines()[0]
    assert "training 0.5" in first
    assert "validation 0.9" in first
    assert "0.1 to 0.9" in first
    assert "KL, nats per token" in second
    assert drawn([]) == []


def test_charts_keep_to_their_size_and_number() -> None:
    (only,) = drawn(LINES, most=1, width=30, height=6)
    lines = only.splitlines()
    assert len(lines) == 6
    assert {len(line) for line in lines} == {30}


def test_a_rising_curve_rises() -> None:
    rows = [row[1:-1] for row in drawn(LINES, most=1)[0].splitlines()[2:-1]]
    filled = [[i for i, mark in enumerate(row) if mark.strip() and mark != "⠀"] for row in rows]
    filled = [places for places in filled if places]
    assert len(filled) > 1
    assert min(filled[0]) > min(filled[-1]), "the highest dots are the last ones"


_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def shown(folder: Path, *, going: bool = False, width: int = 100, height: int = 50) -> str:
    """The view in colours, as a terminal would get it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    console.print(view(read_run(folder), goes_on=going, width=width, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_finished_run_is_shown_whole(tmp_path: Path) -> None:
    samples = [sample(update, n, [" a", " b", " c", " d"]) for update in (1, 4) for n in range(4)]
    plain = _COLOUR.sub("", shown(run_folder(tmp_path / "fine", samples)))
    assert "fine  ppo++" in plain
    assert "4 of 4" in plain
    assert "finished in 2 min 0 s; test: reward 0.5  kl 0.4" in plain
    assert "training 0.5  validation 0.5  0.1 to 0.5" in plain
    assert "prompt 0 [guide]  a b [policy]  c d" in plain.replace(
        "[guide] a b [policy] c d", "[guide]  a b [policy]  c d"
    )
    assert "   1 train" not in plain, "the newest texts alone"


def test_authors_have_their_colours(tmp_path: Path) -> None:
    text = shown(run_folder(tmp_path / "run", [sample(4, 0, [" guided", " own"])]))
    assert "\x1b[33m" in text.partition("guided")[0][-12:]
    assert "\x1b[36m" in text.partition("own")[0][-12:]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_text_can_steer_the_terminal(tmp_path: Path, width: int) -> None:
    samples = [
        sample(4, n, [text, text], prompt=text, split=text if n == 3 else "train")
        for n, text in enumerate(HOSTILE)
    ]
    folder = run_folder(tmp_path / "run", samples)
    config = (folder / "config.yaml").read_text().replace("name: run", r'name: "\e[2J\u202enuR"')
    (folder / "config.yaml").write_text(config)
    lines = [{"update": 4, "algorithm": HOSTILE[2], "reward": 1.0}]
    write_lines(folder / "metrics.jsonl", lines)
    plain = _COLOUR.sub("", shown(folder, width=width))
    assert all(c.isprintable() or c == "\n" for c in plain), [c for c in plain if not c.isprintable()]
    assert width < 80 or r"\x1b[2J\u202enuR" in plain


def test_warnings_and_the_guides_account_are_shown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", updates=12)
    asked = {"guide_calls": 10, "guide_cached": 5, "guide_cost": 0.5, "guide_prompt_tokens": 100}
    lines = [{"update": n, "algorithm": "ppo", "reward": 0.0, "seconds": 60.0, **asked} for n in range(1, 12)]
    write_lines(folder / "metrics.jsonl", lines)
    (folder / "summary.json").unlink()
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config + "guide: {budget: {calls: 115, tokens: 2500000}}\n")
    plain = " ".join(_COLOUR.sub("", shown(folder, going=True)).split())
    assert "about 1 min 0 s left" in plain
    assert "110 of 115 answers asked for, 55 from the cache, 1,100 of 2,500,000 tokens, cost 5.5" in plain
    assert "! update 10: The reward has stood at its lowest" in plain
    assert "! update 11: 96% of 'guide.budget.calls' is spent" in plain
    assert "stopped; `rlgf train ... --resume` goes on" in _COLOUR.sub("", shown(folder))


def test_the_time_left_is_that_of_the_newest_updates(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", updates=40)
    write_lines(
        folder / "metrics.jsonl", [{"update": n, "seconds": 100.0 if n <= 10 else 2.0} for n in range(1, 21)]
    )
    assert time_left(read_run(folder)) == 20 * 2.0
    assert [duration(s) for s in (0.4, 59.4, 60.0, 3599.0, 7500.0)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "2 h 5 min",
    ]
