"""Data of one's own: files and data sets of the hub, by column names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pair_files import PAIR, pair_file

from rlgf.errors import UserError
from rlgf.tasks import build_task
from rlgf.types import Sample


def test_pairs_are_read_from_a_file(tmp_path: Path) -> None:
    task = build_task("data", pair_file(tmp_path / "a.jsonl", PAIR | {"id": 7}))
    assert task.load("train")[:] == [
        Sample("ab", ("aaaaa",), {"chosen": "aaaaa", "rejected": "bcd", "id": 7}, rejected="bcd")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": "aaaaa"}, r"a\.jsonl, line 2: 'chosen' and 'rejected' are identical"),
        ({"rejected": 3}, r"line 2: 'rejected' must be a text or the messages of a chat \(it is 3\)"),
        ({"chosen": ["a", "b"]}, r"line 2: a pair needs one text to compare with 'rejected' \(there are 2\)"),
        ({"chosen": ""}, r"line 2: 'chosen' has an empty reference"),
    ],
)
def test_a_pair_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_task("data", pair_file(tmp_path / "a.jsonl", PAIR, PAIR | change)).load("train")
    missing = pair_file(tmp_path / "b.jsonl", {"prompt": "a", "chosen": "b"})
    with pytest.raises(
        UserError, match=r"no field 'rejected': set the option 'rejected_field'. Fields: chosen"
    ):
        build_task("data", missing).load("train")
