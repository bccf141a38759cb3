"""What stands in a cell of a CSV or TSV file is what is read."""

from __future__ import annotations

import random
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_files import load, prompts, refused, written

from rlgf.tasks.csvfiles import CsvFile


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


CELLS = [
    "02116", "1999", "null", "NA", "NaN", "None", "N/A", "nan", "4", "1e5", "1_000", "1,5", "True", "false", "-", "-0",
    "inf", "2020-01-02", "12:30", "0x1F", "+1", "1.0", "1.50", "1e400", " x ", "\t", "a\tb", 'say "so"', "a\nb", "a\r\nb",
    "=1+1", "é", "日本", "😀", "\ufeff", "#N/A", "[]", "{}", "a;b", "a|b", "'",
]  # fmt: skip


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_cell_is_the_text_that_stands_in_the_file(tmp_path: Path, delimiter: str) -> None:
    rows = "".join(f"{i}{delimiter}{quoted(cell)}\r\n" for i, cell in enumerate(CELLS))
    file = written(tmp_path / ("a.csv" if delimiter == "," else "a.tsv"), f"n{delimiter}prompt\r\n{rows}")
    samples = load(file, reference_field=None)
    assert [sample.prompt for sample in samples] == CELLS
    assert [sample.columns["n"] for sample in samples] == [str(i) for i in range(len(CELLS))]
    order = random.Random(0).sample(range(len(CELLS)), len(CELLS))
    assert [samples[i].prompt for i in order] == [CELLS[i] for i in order]


def test_unquoted_cells_and_columns_that_look_like_numbers(tmp_path: Path) -> None:
    zips = written(tmp_path / "zip.csv", "city,zip\nBoston,02116\n")
    assert prompts(zips, template="The zip code of {city} is {zip}.") == ["The zip code of Boston is 02116."]
    years = written(tmp_path / "year.csv", "q,year\nA,1999\nB,\n")
    assert prompts(years, template="{q} ({year})") == ["A (1999)", "B ()"]
    words = written(tmp_path / "na.csv", "prompt,references\nnull,word\n2+2=,4\n")
    assert [(s.prompt, s.references) for s in load(words)] == [("null", ("word",)), ("2+2=", ("4",))]


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_any_text_is_read_as_it_was_written(rows: list[tuple[str, str]], end: str) -> None:
    import csv
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([("one", "two"), *rows])
        read = CsvFile(file)
        assert [tuple(read[i].values()) for i in reversed(range(len(read)))] == rows[::-1]


def test_messages_name_the_line_on_which_a_row_begins(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", 'prompt,references\n\n"a\nb\nc",x\n\nd,""\n')
    refused(file, "a.csv, line 7", "empty reference", reference_field="references")


def test_a_cell_may_be_longer_than_the_librarys_limit(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", "prompt,n\n" + "x" * 300_000 + ",1\n")
    assert [len(prompt) for prompt in prompts(file)] == [300_000]


def test_rows_are_not_held_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "a.csv"
    with file.open("w") as out:
        out.write("prompt\n")
        out.writelines(f"row {i} {'x' * 2000}\n" for i in range(2_000))
    tracemalloc.start()
    rows = CsvFile(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 2_000
    assert rows[1_999]["prompt"].startswith("row 1999 ")
    assert peak < 5e5 < file.stat().st_size
