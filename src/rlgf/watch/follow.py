"""Following a run until it ends."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from rlgf.errors import UserError
from rlgf.report.runs import METRICS, find_runs, read_run
from rlgf.run.alive import goes_on
from rlgf.terminal import printable
from rlgf.watch.view import view

_IDLE = 9
"""How many times as long as it looks it waits, at least."""


def follow(path: Path, console: Console, every: float = 2.0) -> None:
    """Show a run until its process ends or Ctrl-C is pressed, and leave the last view in the terminal.

    Into a pipe, and on a terminal that cannot be written over, the present view is written once.

    Args:
        path: the run's folder, or one above it alone.
        every: seconds from one view to the next; more where a view takes more than a tenth of that.

    Raises:
        UserError: there is no run, or several.
    """
    folder = _folder(path)
    if console.is_terminal and not console.is_dumb_terminal:
        with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
            while goes_on(folder):
                begun = time.perf_counter()
                live.update(_view(folder, console, ended=False), refresh=True)
                # All that a run has written is read anew: who watches a long one leaves the machine to it.
                time.sleep(max(every, _IDLE * (time.perf_counter() - begun)))
    console.print(_view(folder, console, ended=not goes_on(folder)))


def _folder(path: Path) -> Path:
    """The run's folder: one that begins has no metrics yet."""
    if not (path / METRICS).is_file() and goes_on(path):
        return path
    found = find_runs([path])
    if len(found) != 1:
        going = [folder for folder in found if goes_on(folder)]
        if len(going) != 1:
            raise UserError(
                f"{path} holds {len(found)} runs, of which {len(going)} go on: give the folder of one, such as "
                f"{(going or found or [path])[0]}."
            )
        found = going
    return found[0]


def _view(folder: Path, console: Console, *, ended: bool) -> RenderableType:
    run = read_run(folder)
    if not run.metrics and not ended:
        return Text(f"{printable(str(folder))}: the run loads its models.")
    return view(run, goes_on=not ended, width=console.width, height=console.height)
