"""Evaluated texts: what they scored, and the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlgf.chat import as_dicts, is_chat, read_messages
from rlgf.errors import UserError, shown
from rlgf.jsontext import to_json
from rlgf.metrics import build_metrics, check_needs, measure
from rlgf.metrics.base import MetricResult
from rlgf.strict import NamedConfig
from rlgf.tasks.jsonfiles import JsonLines
from rlgf.tasks.rows import Row, placed
from rlgf.types import Sample

WATCHED = (
    "reward",
    "greedy/reward",
    "beam/reward",
    "judge",
    "kl",
    "reference_perplexity",
    "output_perplexity",
)
"""Of all totals those that a terminal and a table show where nothing else is asked for, in this order."""

RECORD = ("prompt", "messages", "completion", "references", "columns")
"""What a record holds beside the values of a text."""


@dataclass(frozen=True)
class Evaluation:
    """Totals of every metric, and for each text what it scored.

    A record holds ``prompt``, of a chat its ``messages``, ``completion``, ``references``, ``columns`` and the
    text's values: enough to score the texts again without the task.
    """

    totals: dict[str, float]
    records: list[dict[str, Any]]
    without_value: tuple[str, ...] = ()
    """Metrics that apply to none of the texts."""

    def save(self, path: Path) -> None:
        """Totals on the first line, then one line a text (JSON lines)."""
        lines = [{"totals": self.totals}, *self.records]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(to_json(line) + "\n" for line in lines))


def summarize(
    samples: Sequence[Sample],
    texts: Sequence[str],
    found: Mapping[str, MetricResult],
    extra: Mapping[str, Sequence[Any]] | None = None,
) -> Evaluation:
    """Totals and records of the results. What else is known about each text (``extra``, by name) goes into the records
    alone.

    Raises:
        UserError: ``extra`` has not one value for each text, or one of its names or of a result is a record's own.
    """
    taken = found.keys() & {*RECORD}
    if taken:
        raise UserError(
            f"a metric returns '{min(taken)}', which would take the place of each text's own: let it return another name."
        )
    for name, column in (extra or {}).items():
        if name in RECORD:
            raise UserError(
                f"log_extra('{name}', values) would take the place of each text's own '{name}': choose another name."
            )
        if len(column) != len(texts):
            raise UserError(
                f"log_extra('{name}', values) was given {len(column)} values for {len(texts)} texts."
            )
    totals = {name: result.total for name, result in found.items() if result.total is not None}
    records = [
        {
            "prompt": sample.prompt,
            **({"messages": as_dicts(sample.messages)} if sample.messages else {}),
            "completion": text,
            "references": list(sample.references),
            "columns": dict(sample.columns),
            **{name: column[i] for name, column in (extra or {}).items()},
            **{name: result.per_text[i] for name, result in found.items() if result.per_text is not None},
        }
        for i, (sample, text) in enumerate(zip(samples, texts, strict=True))
    ]
    return Evaluation(totals, records, tuple(name for name in found if name not in totals))


@dataclass(frozen=True)
class Texts:
    """Finished texts of a file, each with its sample."""

    samples: list[Sample]
    texts: list[str]
    places: list[str]
    """File and line of each, for messages."""


def read_texts(file: Path, references: Path | None = None) -> Texts:
    """Texts from JSON lines such as `Evaluation.save` writes.

    Args:
        file: each line with ``prompt`` and ``completion``, and perhaps ``messages`` (the prompt's, of a chat),
            ``references`` (a text or a list of texts), ``concepts`` (a list of texts) and ``columns`` (a mapping).
        references: takes the place of references and concepts: JSON lines with these, one for each text and in
            the same order. Where a line has a ``prompt``, it must be the text's.

    Raises:
        UserError: a file or a line is not what it must be; names the file, the line and the field.
    """
    rows = _rows(file)
    samples = [_sample(row, place) for row, place in rows]
    texts = [_text(row, "completion", place) for row, place in rows]
    if references is not None:
        given = _rows(references)
        if len(given) != len(rows):
            raise UserError(
                f"--references {references} has {len(given)} lines for {len(rows)} texts in {file}: it must have one "
                "line a text, in the same order."
            )
        samples = [_with(sample, *row) for sample, row in zip(samples, given, strict=True)]
    return Texts(samples, texts, [place for _, place in rows])


def _rows(file: Path) -> list[tuple[Row, str]]:
    rows = list(placed(JsonLines(file)))
    if "totals" in rows[0][0]:
        rows = rows[1:]
    if not rows:
        raise UserError(f"{file} holds no texts: it needs at least one line with 'prompt' and 'completion'.")
    return rows


def _sample(row: Row, place: str) -> Sample:
    columns = row.get("columns", {})
    if not isinstance(columns, dict):
        raise UserError(f"{place}: 'columns' must be a mapping of names to values (it is {shown(columns)}).")
    chat = row.get("messages")
    return Sample(
        _text(row, "prompt", place),
        _list(row, "references", place),
        columns | _concepts(row, place),
        messages=read_messages(chat, "messages", place) if is_chat(chat) else (),
    )


def _with(sample: Sample, row: Row, place: str) -> Sample:
    """The sample with the references and concepts of another file's line."""
    if row.get("prompt", sample.prompt) != sample.prompt:
        raise UserError(
            f"{place}: its 'prompt' is not that of the text on the same line ({sample.prompt[:60]!r}): the files "
            "must be in the same order."
        )
    if "references" not in row:
        raise UserError(f"{place} has no field 'references': it must hold a text or a list of texts.")
    columns = {**sample.columns, **_concepts(row, place)}
    return replace(sample, references=_list(row, "references", place), columns=columns)


def _text(row: Row, name: str, place: str) -> str:
    if not isinstance(row.get(name), str):
        if name in row:
            chat = (
                "; the messages of a chat stand under 'messages', beside the prompt's text"
                if is_chat(row[name])
                else ""
            )
            raise UserError(f"{place}: '{name}' must be a text (it is {shown(row[name])}){chat}.")
        there = ", ".join(row) or "none"
        raise UserError(f"{place} must have the text '{name}'. Fields: {there}.")
    return str(row[name])


def _list(row: Row, name: str, place: str) -> tuple[str, ...]:
    given = row.get(name, [])
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{place}: '{name}' must be a text or a list of texts (it is {shown(given)}).")
    return tuple(texts)


def _concepts(row: Row, place: str) -> dict[str, list[str]]:
    return {"concepts": list(_list(row, "concepts", place))} if "concepts" in row else {}


def score_file(file: Path, metrics: Sequence[NamedConfig], references: Path | None = None) -> Evaluation:
    """Metrics of texts in a file (see `read_texts`), with the ``references`` of another file where it has none or others are
    wanted.

    Raises:
        UserError: a file, a line or a metric is not what it must be, a metric lacks a library, a text what a
            metric needs.
    """
    read = read_texts(file, references)
    built = build_metrics(metrics)
    remedy = "give --references FILE, or leave the metric out of --metrics"
    check_needs(built, read.samples, lambda i: read.places[i], remedy)
    return summarize(read.samples, read.texts, measure(built, read.samples, read.texts))
