"""Metrics of texts in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlgf.evaluation.files import Evaluation, read_texts, summarize
from rlgf.metrics import build_metrics, check_needs, measure
from rlgf.strict import NamedConfig


def score_file(file: Path, metrics: Sequence[NamedConfig], references: Path | None = None) -> Evaluation:
    """Read texts and compute metrics of them.

    Args:
        file: JSON lines, see `read_texts`.
        references: JSON lines with the texts' references, where the file has none or others are wanted.

    Raises:
        UserError: a file, a line or a metric is not what it must be, a metric lacks a library, a text what a
            metric needs.
    """
    read = read_texts(file, references)
    built = build_metrics(metrics)
    remedy = "give --references FILE, or leave the metric out of --metrics"
    check_needs(built, read.samples, lambda i: read.places[i], remedy)
    return summarize(read.samples, read.texts, measure(built, read.samples, read.texts))
