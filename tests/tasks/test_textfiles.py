"""Text files of every encoding, packed or not, and the place of what cannot be read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import datasets
import pytest
from written_files import prompts, refused, written

from rlgf.errors import UserError
from rlgf.tasks import build_task
from rlgf.tasks.textfiles import opened

GOOD = {"prompt": "x", "references": "y"}


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "\xff", "references": "y"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 is not in UTF-8"):
        build_task("data", {"train": str(file)}).load("train")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_file_that_is_not_utf8_names_line_byte_and_option(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", "prompt,references\nok,y\ncafé,x\n"),
        ("a.tsv", "prompt\treferences\nok\ty\ncafé\tx\n"),
        ("a.jsonl", '{"prompt":"ok"}\n{"prompt":"ok"}\n{"prompt":"café"}\n'),
        ("a.json", '[\n{"prompt":"ok"},\n{"prompt":"café"}]\n'),
    ):
        file = written(tmp_path / name, content.encode("cp1252"))
        refused(file, f"{name}, line 3 is not in UTF-8", "byte", "0xe9", "'encoding'", "cp1252")
        assert prompts(file, encoding="cp1252")[-1] == "café"
    packed = written(tmp_path / "b.csv.gz", gzip.compress("prompt\ncafé\n".encode("latin-1")))
    assert prompts(packed, encoding="latin-1") == ["café"]


def test_the_byte_is_the_right_one(tmp_path: Path) -> None:
    refused(written(tmp_path / "a.csv", b"prompt\nab\xe9\n"), "line 2", "byte 3 of the line is 0xe9")
    wrong = written(tmp_path / "b.csv", "prompt\nab日\n")
    refused(wrong, "b.csv, line 2, byte 10 of the file (0xe6), is not in 'ascii'", encoding="ascii")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "shift_jis", "gb18030"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = "café" if encoding == "cp1252" else "ok" if encoding == "utf-16-le" else "日本"
    file = written(tmp_path / "a.csv", f'prompt,n\r\n"{text}\n{text}",1\r\n'.encode(encoding))
    assert prompts(file, encoding=encoding) == [f"{text}\n{text}"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_utf16_without_the_option_is_one_sentence(tmp_path: Path, name: str) -> None:
    refused(
        written(tmp_path / name, "prompt\nx\n".encode("utf-16")),
        name,
        "is in UTF-16",
        "'encoding' to 'utf-16'",
    )
    refused(
        written(tmp_path / name, b"p\0r\0o\0m\0p\0t\0\n\0x\0\n\0"),
        name,
        "line 1 holds a NUL byte",
        "'encoding'",
    )


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    row = '{"prompt": "x"}'
    content = {"a.jsonl": row, "a.json": f"[{row}]"}.get(name, "prompt\nx\n")
    assert prompts(written(tmp_path / name, b"\xef\xbb\xbf" + content.encode())) == ["x"]


def test_an_encoding_that_is_none_is_refused() -> None:
    for name in ("utf8x", "base64", ""):
        with pytest.raises(UserError, match=r"option 'encoding'.*such as 'utf-8', 'cp1252'"):
            build_task("data", {"train": "a.csv", "encoding": name})


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_an_address_is_no_file(name: str) -> None:
    for site in ("https://example.org/sets", "hf://datasets/owner"):
        refused(Path(f"{site}/{name}"), f"{site}/{name} is an address, and files are read: download it")


def test_a_pipe_is_not_said_to_be_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        UserError, match=r"pipe cannot be read: it is a pipe, .* save its text as a file first"
    ):
        opened(tmp_path / "pipe")
