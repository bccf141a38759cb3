"""Texts with their references, and metrics of them; those that need Java are skipped where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlgf.calls import call
from rlgf.errors import UserError
from rlgf.metrics import Metric, build_metrics
from rlgf.metrics.base import ARGUMENTS
from rlgf.strict import NamedConfig

FILE = Path(__file__).parents[1] / "data" / "commongen_outputs.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text().splitlines()]
TEXTS = [row["completion"] for row in ROWS]
REFERENCES = [row["references"] for row in ROWS]
CONCEPTS = [row["concepts"] for row in ROWS]


def metric(name: str, **options: Any) -> Metric:
    """The metric, or a skipped test where it needs Java and there is none: no package brings that."""
    try:
        return build_metrics([NamedConfig(name=name, options=options)])[name]
    except UserError as error:
        if shutil.which("java") is not None:
            raise
        pytest.skip(str(error))


def of(name: str, texts: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
    given = {"prompts": [""] * len(texts), "completions": texts, "references": references}
    return dict(call(metric(name, **options), given, ARGUMENTS, name))
