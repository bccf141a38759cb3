"""A file of pairs of which one text is preferred."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def pair_file(path: Path, *records: dict[str, Any]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    files = {split: str(path) for split in ("train", "validation", "test")}
    return {**files, "reference_field": "chosen", "rejected_field": "rejected"}


PAIR = {"prompt": "ab", "chosen": "aaaaa", "rejected": "bcd"}
