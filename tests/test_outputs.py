"""What may be written, and what is left as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlgf.outputs import require_file, require_folder, require_no_model
from toys import sentence_of


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("one")
    os.link(texts, tmp_path / "same.jsonl")
    require_file(tmp_path / "new" / "er.jsonl", "--output", [texts, None, tmp_path / "nowhere"])
    require_file(texts, "--output", [tmp_path / "other.jsonl"])
    for file, said in (
        (texts, "is read, and would be overwritten: give another --output"),
        (tmp_path / "same.jsonl", "is read, and would be overwritten"),
        (tmp_path, "cannot be written: Is a directory; give another --output"),
        (texts / "in", "cannot be written: Not a directory"),
        (tmp_path / ("long" * 100), "cannot be written: File name too long"),
        (tmp_path / ("long" * 100) / "in", "cannot be written: File name too long"),
    ):
        assert said in sentence_of(lambda file=file: require_file(file, "--output", [texts]))


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", "reward.json"])
def test_a_folder_with_a_model_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.txt").touch()
    require_no_model(tmp_path, "'output'")
    require_folder(tmp_path, "'output'")
    (tmp_path / name).touch()
    assert f"{name} is there already, and nothing is overwritten: set another 'output'" in sentence_of(
        lambda: require_no_model(tmp_path, "'output'")
    )
