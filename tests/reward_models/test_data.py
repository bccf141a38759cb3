"""What reward models are trained on, and which rows of it are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from letter_data import GOOD, recipe, refusal


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            ["line 3", "'chosen' and 'rejected' are the same text"],
        ),
        (
            {"prompt": "a", "chosen": "b"},
            ["line 3", "no field 'rejected'", "data.rejected_field", "chosen, prompt"],
        ),
        ({"chosen": "a", "rejected": "b"}, ["line 3", "no field 'prompt'", "Fields: chosen, rejected"]),
        (
            {"prompt": "a", "chosen": 1, "rejected": "b"},
            ["line 3", "'chosen' must be a text or the messages of a chat (it is 1)"],
        ),
    ],
)
@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_row_that_is_no_pair_is_named(
    row: dict[str, Any], parts: list[str], split: str, tmp_path: Path
) -> None:
    rows = {"train": GOOD, "dev": GOOD, split: [*GOOD, row]}
    message = refusal(recipe("letters", tmp_path, rows["train"], rows["dev"]))
    for part in [f"{split}.jsonl", *parts]:
        assert part in message


@pytest.mark.usefixtures("no_model")
def test_empty_files_are_named(tmp_path: Path) -> None:
    assert "train.jsonl is empty" in refusal(recipe("letters", tmp_path, [], GOOD))
    told = recipe("letters", tmp_path, GOOD, [])
    assert "dev.jsonl is empty" in refusal(told)
    table = tmp_path / "empty.csv"
    table.write_text("prompt,chosen,rejected\n")
    told["data"]["validation"] = str(table)
    message = refusal(told)
    assert "empty.csv" in message
    assert "no rows" in message


@pytest.mark.usefixtures("no_model")
def test_a_label_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    told = recipe("letters", tmp_path, rows, rows, kind="classifier", positive="good")
    assert "'positive' (it is 'good')" in refusal(told)
    assert "there: 0, 1" in refusal(told)
    assert "two or more labels" in refusal(
        {**told, **recipe("x", tmp_path, rows, rows[:1]), "positive": "0", "kind": "classifier"}
    )
