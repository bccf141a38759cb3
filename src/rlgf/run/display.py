"""What a run shows in the terminal: progress, a line per update, sample texts with their authors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rlgf.evaluation.files import WATCHED
from rlgf.models.language_model import LanguageModel
from rlgf.terminal import append_part, number, printable
from rlgf.types import Author, Experience

_OF_UPDATES = ("reward", "kl", "policy_loss", "value_loss", "tokens_per_second", "guide_overlap")
"""The shown ones of all numbers that are logged of an update, in this order."""


class Display:
    """Writes to one console; everything generated is shown as plain text, never as markup."""

    def __init__(self, console: Console | None = None, goes_on: str = "--resume goes on") -> None:
        """``goes_on`` says how a run goes on once it has ended."""
        self.console = console or Console()
        self.goes_on = goes_on
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    @contextmanager
    def run(self, name: str, updates: int, done: int) -> Iterator[None]:
        """Show a progress bar while the block runs, in a terminal."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            self._progress = progress
            self._task = progress.add_task(name, total=updates, completed=done, numbers="")
            try:
                yield
            finally:
                self._progress = self._task = None

    def update(self, update: int, updates: int, metrics: Mapping[str, float | str]) -> None:
        """One line per update, and the bar moves on."""
        numbers = "  ".join(
            f"{name} {number(float(metrics[name]))}" for name in _OF_UPDATES if name in metrics
        )
        if metrics.get("warnings"):
            numbers += f"  warnings {metrics['warnings']:.0f}"
        self.console.print(
            Text(f"{update:>5}/{updates}  {metrics['algorithm']:<12} {numbers}  {metrics['seconds']:.1f}s"),
            soft_wrap=True,
        )
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=update, total=updates, numbers=numbers)

    def sample(self, experience: Experience, policy: LanguageModel) -> None:
        """One episode, each part in its author's colour."""
        rollout = experience.rollout
        line = Text("      ")
        line.append(printable(" ".join(rollout.samples[0].prompt.split()[-15:])) + " ", style="dim")
        ids = rollout.response_ids[0, : int(rollout.lengths[0])].tolist()
        before = policy.context(rollout.prompt_ids[0][rollout.prompt_mask[0]].tolist())
        start = 0
        for author, tokens in itertools.groupby(rollout.author[0, : len(ids)].tolist()):
            end = start + len(list(tokens))
            text = printable(policy.decode(ids[start:end], before + ids[:start]))
            append_part(line, Author(author).name.lower(), text)
            start = end
        assert experience.scored.rewards is not None, "shown of updates with a reward"
        line.append(f"(reward {experience.scored.rewards[0]:.3f})", style="dim")
        self.console.print(line, soft_wrap=True)

    def measured(self, split: str, totals: Mapping[str, float]) -> None:
        """The totals of an evaluation that are watched while a run goes on."""
        named = ((name.replace("_", " "), totals[name]) for name in WATCHED if name in totals)
        self.note(f"      {split}  " + "  ".join(f"{name} {total:.3f}" for name, total in named))

    def note(self, message: str) -> None:
        self.console.print(Text(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """A note that should not be passed over."""
        self.console.print(Text(message, style="yellow"), soft_wrap=True)

    def table(self, title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
        """One column per author, one row per metric; a dash where a metric does not apply."""
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        if not names:
            self.note(f"{printable(title)}: none of the metrics has a value for these texts.")
            return
        # Not as the table's own title, which a narrow table breaks within words.
        self.note(f"\n{printable(title)}")
        table = Table("")
        for author in rows:
            table.add_column(author, justify="right")
        for name in names:
            values = (f"{row[name]:.3f}" if name in row else "-" for row in rows.values())
            table.add_row(name.replace("_", " "), *values)
        self.console.print(table)
