"""From folders to the file of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlgf.errors import UserError
from rlgf.report.groups import grouped
from rlgf.report.page import render
from rlgf.report.runs import find_runs, read_run, summaries


def write_report(paths: Sequence[Path], output: Path | None = None, title: str | None = None) -> Path:
    """Write the page of the runs at or below some folders, finished or not; returns where it is.

    Args:
        output: default: ``report.html`` in the first folder.
        title: default: the name of the first folder, or of the run.

    Raises:
        UserError: a path holds no run, a file is not what a run writes, or the page cannot be written.
    """
    folders = find_runs(paths)
    runs = [read_run(folder) for folder in folders]
    tables = {} if runs else summaries(paths)
    first = paths[0] if paths[0].is_dir() else paths[0].parent
    output = output or first / "report.html"
    named = runs[0].name if len(runs) == 1 else first.resolve().name
    page = render(grouped(runs), tables, title or named)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}; give another --output.") from error
    return output
