"""Files as people have them: what stands in a cell is what is read, and what cannot be read is one sentence."""

from __future__ import annotations

import datetime
import gzip
import json
import random
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlgf.errors import UserError
from rlgf.evaluation.files import summarize
from rlgf.metrics import MetricResult
from rlgf.reward_models.data import ExamplesConfig
from rlgf.tasks import build_task
from rlgf.tasks.csvfiles import CsvFiles
from rlgf.tasks.rows import file_rows


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(files: Path | list[Path], **options: Any) -> Any:
    return build_task("data", {"train": files, **options}).load("train")


def prompts(files: Path | list[Path], **options: Any) -> list[str]:
    return [sample.prompt for sample in load(files, **{"reference_field": None, **options})]


def refused(files: Path | list[Path], *parts: str, **options: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(files, **{"reference_field": None, **options})
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


CELLS = [
    "02116", "1999", "null", "NA", "NaN", "None", "N/A", "nan", "4", "1e5", "1_000", "1,5", "True", "false", "-", "-0",
    "inf", "2020-01-02", "12:30", "0x1F", "+1", "1.0", "1.50", "1e400", " x ", "\t", "a\tb", 'say "so"', "a\nb", "a\r\nb",
    "=1+1", "é", "日本", "😀", "\ufeff", "#N/A", "[]", "{}", "a;b", "a|b", "'",
]  # fmt: skip


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


# Cells keep their text.


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_cell_is_the_text_that_stands_in_the_file(tmp_path: Path, delimiter: str) -> None:
    rows = "".join(f"{i}{delimiter}{quoted(cell)}\r\n" for i, cell in enumerate(CELLS))
    file = write(tmp_path / ("a.csv" if delimiter == "," else "a.tsv"), f"n{delimiter}prompt\r\n{rows}")
    samples = load(file, reference_field=None)
    assert [sample.prompt for sample in samples] == CELLS
    assert [sample.columns["n"] for sample in samples] == [str(i) for i in range(len(CELLS))]
    order = random.Random(0).sample(range(len(CELLS)), len(CELLS))
    assert [samples[i].prompt for i in order] == [CELLS[i] for i in order]


def test_unquoted_cells_and_columns_that_look_like_numbers(tmp_path: Path) -> None:
    zips = write(tmp_path / "zip.csv", "city,zip\nBoston,02116\n")
    assert prompts(zips, template="The zip code of {city} is {zip}.") == ["The zip code of Boston is 02116."]
    years = write(tmp_path / "year.csv", "q,year\nA,1999\nB,\n")
    assert prompts(years, template="{q} ({year})") == ["A (1999)", "B ()"]
    words = write(tmp_path / "na.csv", "prompt,references\nnull,word\n2+2=,4\n")
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
        read = CsvFiles([file])
        assert [tuple(read[i].values()) for i in reversed(range(len(read)))] == rows[::-1]


def test_messages_name_the_line_on_which_a_row_begins(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 'prompt,references\n\n"a\nb\nc",x\n\nd,""\n')
    refused(file, "a.csv, line 7", "empty reference", reference_field="references")


def test_an_empty_cell_as_a_reference_is_refused_with_its_row(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "a.csv", "prompt,references\nx,y\nz,\n"),
        "line 3",
        "empty reference",
        reference_field="references",
    )


def test_parquet_cells(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "zip": ["02116", "null", "1e5"],
            "year": pyarrow.array([1999, 2000, 2**62]),
            "day": pyarrow.array([datetime.date(2020, 1, 2)] * 3),
            "kind": pyarrow.array(["a", "b", "a"]).dictionary_encode(),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = prompts(tmp_path / "a.parquet", template="{zip} {year} {day} {kind}")
    assert found == ["02116 1999 2020-01-02 a", "null 2000 2020-01-02 b", f"1e5 {2**62} 2020-01-02 a"]
    absent = pyarrow.table({"q": ["A", "B"], "year": pyarrow.array([1999, None])})
    pyarrow.parquet.write_table(absent, tmp_path / "b.PARQUET")
    refused(tmp_path / "b.PARQUET", "b.PARQUET, row 2: 'year' has no value", template="{q} ({year})")
    assert prompts(tmp_path / "b.PARQUET", template="{q} ({year})", absent="?") == ["A (1999)", "B (?)"]


def test_two_files_of_one_split_may_have_columns_of_other_types(tmp_path: Path) -> None:
    one = write(tmp_path / "a.csv", "prompt,n\nx,1\n")
    two = write(tmp_path / "b.csv", "n,more,prompt\nmany,m,y\n")
    assert [(s.prompt, s.columns) for s in load([one, two], reference_field=None)] == [
        ("x", {"n": "1"}),
        ("y", {"n": "many", "more": "m"}),
    ]
    for name, values in (("a", [1]), ("b", ["many"])):
        pyarrow.parquet.write_table(
            pyarrow.table({"prompt": [name], "n": values}), tmp_path / f"{name}.parquet"
        )
    samples = load([tmp_path / "a.parquet", tmp_path / "b.parquet"], reference_field=None)
    assert [s.columns for s in samples] == [{"n": 1}, {"n": "many"}]
    assert samples[-1].prompt == "b"


# What is absent.


def test_null_in_a_template_is_refused_unless_an_option_says_what_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"q":"Where?","context":"Here."}\n{"q":"Who?","context":null}\n')
    refused(file, "a.jsonl, line 2: 'context' has no value", "'absent'", template="{context}\n{q}")
    assert prompts(file, template="{context}\n{q}", absent="") == ["Here.\nWhere?", "\nWho?"]
    nan = write(tmp_path / "b.jsonl", '{"q": NaN}\n')
    refused(nan, "line 1: 'q' has no value (it is nan)", template="{q}")
    null = write(tmp_path / "c.jsonl", '{"prompt": null}\n')
    refused(null, "line 1: 'prompt' must be a text")
    assert prompts(null, absent="") == [""]


def test_values_in_a_template_are_texts_and_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"n": 4, "x": 1.5, "yes": true, "list": ["a"]}\n')
    assert prompts(file, template="{n} {x} {yes}") == ["4 1.5 true"]
    refused(file, "line 1: 'list' must be a text or a number to stand in a template", template="{list}")


def test_columns_that_are_not_finite_are_kept_and_written_as_null(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"prompt": "x", "n": NaN, "many": [1, -Infinity]}\n')
    (sample,) = load(file, reference_field=None)
    assert str(sample.columns["n"]) == "nan"
    summarize([sample], ["text"], {"words": MetricResult.mean([1.0])}).save(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    record = json.loads(lines[1], parse_constant=lambda name: pytest.fail(name))
    assert record["columns"] == {"n": None, "many": [1, None]}


# Encodings.


def test_a_file_that_is_not_utf8_names_line_byte_and_option(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", "prompt,references\nok,y\ncafé,x\n"),
        ("a.tsv", "prompt\treferences\nok\ty\ncafé\tx\n"),
        ("a.jsonl", '{"prompt":"ok"}\n{"prompt":"ok"}\n{"prompt":"café"}\n'),
        ("a.json", '[\n{"prompt":"ok"},\n{"prompt":"café"}]\n'),
    ):
        file = write(tmp_path / name, content.encode("cp1252"))
        refused(file, f"{name}, line 3 is not in UTF-8", "byte", "0xe9", "'encoding'", "cp1252")
        assert prompts(file, encoding="cp1252")[-1] == "café"
    packed = write(tmp_path / "b.csv.gz", gzip.compress("prompt\ncafé\n".encode("latin-1")))
    assert prompts(packed, encoding="latin-1") == ["café"]


def test_the_byte_is_the_right_one(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", b"prompt\nab\xe9\n"), "line 2", "byte 3 of the line is 0xe9")
    wrong = write(tmp_path / "b.csv", "prompt\nab日\n")
    refused(wrong, "b.csv, line 2, byte 10 of the file (0xe6), is not in 'ascii'", encoding="ascii")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "shift_jis", "gb18030"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = "café" if encoding == "cp1252" else "ok" if encoding == "utf-16-le" else "日本"
    file = write(tmp_path / "a.csv", f'prompt,n\r\n"{text}\n{text}",1\r\n'.encode(encoding))
    assert prompts(file, encoding=encoding) == [f"{text}\n{text}"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_utf16_without_the_option_is_one_sentence(tmp_path: Path, name: str) -> None:
    refused(
        write(tmp_path / name, "prompt\nx\n".encode("utf-16")), name, "is in UTF-16", "'encoding' to 'utf-16'"
    )
    refused(
        write(tmp_path / name, b"p\0r\0o\0m\0p\0t\0\n\0x\0\n\0"),
        name,
        "line 1 holds a NUL byte",
        "'encoding'",
    )


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    row = '{"prompt": "x"}'
    content = {"a.jsonl": row, "a.json": f"[{row}]"}.get(name, "prompt\nx\n")
    assert prompts(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode())) == ["x"]


def test_an_encoding_that_is_none_is_refused() -> None:
    for name in ("utf8x", "base64", ""):
        with pytest.raises(UserError, match=r"option 'encoding'.*such as 'utf-8', 'cp1252'"):
            build_task("data", {"train": "a.csv", "encoding": name})


# Halves of characters.


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path: Path) -> None:
    lines = [
        r'{"prompt": "whole \ud83d\ude00"}',
        r'{"prompt": "smile \ud83d"}',
        r'{"prompt": "a text about \\ud83d"}',
        r'{"prompt": "\ude00 and \ud83d\ud83d\ude00", "more": {"\udc00": ["\ud800"]}}',
    ]
    file = write(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.warns(
        UserWarning, match=r"a\.jsonl, line 2: half of a surrogate pair.*U\+FFFD \(2 such lines"
    ):
        samples = load(file, reference_field=None)
    found = ["whole 😀", "smile \ufffd", r"a text about \ud83d", "\ufffd and \ufffd😀"]
    assert [sample.prompt for sample in samples] == found
    assert samples[3].columns == {"more": {"\ufffd": ["\ufffd"]}}


# Kinds of files.


def test_files_are_read_by_their_kind(tmp_path: Path) -> None:
    row, table = '{"prompt": "x"}', "prompt,n\nx,1\n"
    kinds: dict[str, str | bytes] = {
        "a.CSV": table,
        "b.csv.gz": gzip.compress(table.encode()),
        "c.Tsv": table.replace(",", "\t"),
        "d.tsv.GZ": gzip.compress(table.replace(",", "\t").encode()),
        "e.jsonl.gz": gzip.compress(row.encode()),
        "f.ndjson": row,
        "g.json": f"  [{row}\n]",
        "h.json": row + "\n",
        "i.JSONL": row,
        "j": row,
        "k.json.gz": gzip.compress(f"[{row}]".encode()),
        "l.csv": gzip.compress(table.encode()),
        "m.txt": row,
    }
    for name, content in kinds.items():
        assert prompts(write(tmp_path / name, content)) == ["x"], name
    both = [write(tmp_path / f"{name}.json", f"[{row}, {row}]") for name in "no"]
    assert prompts(both) == ["x"] * 4
    assert file_rows(both).place(3).endswith("o.json, item 2")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "", ["a.csv is empty"]),
        ("a.csv", "\n\n", ["a.csv is empty"]),
        ("a.csv", "prompt,n\n", ["a.csv has the names of columns (prompt, n), and no rows"]),
        ("a.csv", "prompt,n\nx,1\ny\n", ["line 3 has 1 cells, and the header has 2"]),
        ("a.csv", "prompt,n\nx,1,2\n", ["line 2 has 3 cells, and the header has 2 (prompt, n): quote a cell"]),
        ("a.csv", "prompt,n,prompt\nx,1,2\n", ["two columns called 'prompt'"]),
        ("a.csv", 'prompt\n"x\ny\n', ["line 2 is not valid CSV", "unexpected end of data"]),
        ("a.csv", 'prompt\n"x"y\n', ["line 2 is not valid CSV"]),
        ("a.csv", "prompt\rx\r", ["not valid CSV"]),
        ("a.csv", "prompt;n\nx;1\n", ["one column, 'prompt;n'", "parted by ';'", "by ','"]),
        ("a.tsv", "prompt,n\nx,1\n", ["one column, 'prompt,n'", "parted by ','"]),
        ("a.csv", "prompt\nx\0y\n", ["line 2 holds a NUL byte"]),
        ("a.csv", '[{"prompt": "x"}]\n', ["no rows"]),
        ("a.jsonl", "prompt,n\nx,1\n", ["a.jsonl, line 1 is not valid JSON"]),
        ("a.jsonl", "\n \n", ["a.jsonl is empty"]),
        ("a.jsonl", "[" * 100_000, ["line 1", "nested too deeply"]),
        ("a.jsonl", '{"prompt": ' + "1" * 5000 + "}", ["line 1 has a value that cannot be read"]),
        ("a.json", "[]", ["a.json is an empty array"]),
        ("a.json", '["x"]', ["a.json, item 1 must hold a JSON object"]),
        ("a.json", '[{"prompt": "x"}', ["a.json is not valid JSON"]),
        ("a.json", '{\n "prompt": "x"\n}', ["a.json, line 1 is not valid JSON"]),
        ("a.csv.gz", b"\x1f\x8b broken", ["a.csv.gz cannot be read"]),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "x"}' * 99, mtime=0)[:-9], ["a.jsonl.gz cannot be read"]),
        ("a.csv.bz2", "x", ["a.csv.bz2 is packed", "gzip"]),
        ("a.xlsx", "x", ["a.xlsx is a spreadsheet", "CSV"]),
        ("a.parquet", "x", ["a.parquet cannot be read as a Parquet file"]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_true_sentence(
    tmp_path: Path, name: str, content: str | bytes, parts: list[str]
) -> None:
    refused(write(tmp_path / name, content), *parts)


def test_files_that_are_not_there_and_tables_without_rows(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet", "none.json", "none.jsonl.gz"):
        refused(tmp_path / name, name, "there is no such file")
    refused(tmp_path, "it is a folder")
    pyarrow.parquet.write_table(
        pyarrow.table({"prompt": pyarrow.array([], "string")}), tmp_path / "a.parquet"
    )
    refused(tmp_path / "a.parquet", "a.parquet has no rows")
    mixed = [write(tmp_path / "a.csv", "prompt\nx\n"), write(tmp_path / "a.jsonl", '{"prompt": "x"}')]
    refused(mixed, "of one kind", "a.csv", "a.jsonl")


def test_a_cell_may_be_longer_than_the_librarys_limit(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "prompt,n\n" + "x" * 300_000 + ",1\n")
    assert [len(prompt) for prompt in prompts(file)] == [300_000]


def test_rows_are_not_held_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "a.csv"
    with file.open("w") as out:
        out.write("prompt\n")
        out.writelines(f"row {i} {'x' * 2000}\n" for i in range(2_000))
    tracemalloc.start()
    rows = CsvFiles([file])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 2_000
    assert rows[1_999]["prompt"].startswith("row 1999 ")
    assert peak < 5e5 < file.stat().st_size


# Templates.


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ('{"question": "{q}"}', "question"),
        ("{}", "{} names no column"),
        ("{q} }", "Single '}'"),
        ("{q", "expected '}'"),
        ("{q:d}", "{q:d} names no column"),
        ("{q!r}", "{q!r} names no column"),
        ("{q.upper}", "{q.upper} names no column"),
        ("{q[0]}", "{q[0]} names no column"),
        ("{ }", "names no column"),
    ],
)  # fmt: skip
def test_braces_that_are_not_fields_are_said(template: str, shown: str) -> None:
    with pytest.raises(UserError) as caught:
        build_task("data", {"train": "q.jsonl", "template": template})
    assert shown in str(caught.value)
    assert "a brace that belongs to the text twice, as {{ or }}" in str(caught.value)


def test_braces_that_are_written_twice_are_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"q": "{x}", "my column": "y"}\n')
    assert prompts(file, template='{{"question": "{q}"}} {my column}') == ['{"question": "{x}"} y']
    refused(file, "has no field 'r'", "written twice", template="{r}")
    with pytest.raises(UserError, match=r"option 'template'.*twice"):
        build_task("commongen", {"template": "{concepts}}"})


# Pairs for reward models are read by the same readers.


def test_pairs_of_reward_models_are_read_in_the_same_way(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.tsv", "prompt\tchosen\trejected\n2+2=\t4\t05\ncafé\tnull\tNA\n".encode("cp1252")
    )
    config = ExamplesConfig(train=file, validation=file, encoding="cp1252")
    read = [
        (pair.chosen.prompt, pair.chosen.completion, pair.rejected.completion)
        for pair in config.pairs("train")
    ]
    assert read == [("2+2=", "4", "05"), ("café", "null", "NA")]
    with pytest.raises(UserError, match=r"a\.tsv, line 3 is not in UTF-8"):
        ExamplesConfig(train=file, validation=file).pairs("train")
