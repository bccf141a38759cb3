"""Text files, and the place of what cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pytest
from written_files import prompts, refused, written

from rlgf.errors import UserError
from rlgf.tasks import build_task

GOOD = {"prompt": "x", "references": "y"}


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "\xff", "references": "y"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 is not in UTF-8"):
        build_task("data", {"train": str(file)}).load("train")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_file_that_is_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", "prompt,references\nok,y\ncafé,x\n"),
        ("a.tsv", "prompt\treferences\nok\ty\ncafé\tx\n"),
        ("a.jsonl", '{"prompt":"ok"}\n{"prompt":"ok"}\n{"prompt":"café"}\n'),
        ("a.json", '[\n{"prompt":"ok"},\n{"prompt":"café"}]\n'),
    ):
        file = written(tmp_path / name, content.encode("cp1252"))
        refused(file, f"{name}, line 3 is not in UTF-8", "byte", "0xe9", "iconv -f CP1252")
    packed = written(tmp_path / "b.csv.gz", gzip.compress("prompt\ncafé\n".encode("latin-1")))
    refused(packed, "b.csv.gz, line 2 is not in UTF-8", "0xe9")


def test_the_byte_is_the_right_one(tmp_path: Path) -> None:
    refused(written(tmp_path / "a.csv", b"prompt\nab\xe9\n"), "line 2", "byte 3 of the line is 0xe9")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_utf16_is_one_sentence(tmp_path: Path, name: str) -> None:
    refused(written(tmp_path / name, "prompt\nx\n".encode("utf-16")), f"{name}, line 1 is not in UTF-8")
    refused(written(tmp_path / name, b"p\0r\0o\0m\0p\0t\0\n\0x\0\n\0"), name, "line 1 holds a NUL byte")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    row = '{"prompt": "x"}'
    content = {"a.jsonl": row, "a.json": f"[{row}]"}.get(name, "prompt\nx\n")
    assert prompts(written(tmp_path / name, b"\xef\xbb\xbf" + content.encode())) == ["x"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_an_address_is_no_file(name: str) -> None:
    for site in ("https://example.org/sets", "hf://datasets/owner"):
        refused(Path(f"{site}/{name}"), f"{site}/{name} is an address, and files are read: download it")
