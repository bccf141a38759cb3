"""Files of every kind give the same rows, and what is none is one sentence."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from written_files import load, prompts, refused, written

from rlgf.errors import UserError
from rlgf.tasks import build_task
from rlgf.tasks.rows import file_rows


def test_data_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    task = build_task("data", {"train": str(tmp_path / "none.jsonl")})
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read"):
        task.load("train")
    with pytest.raises(UserError, match=r"no file for the split 'test': give the option 'test'"):
        task.load("test")


def test_a_broken_table_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"a\.parquet cannot be read as a Parquet file: .*magic") as caught:
        build_task("data", {"train": str(tmp_path / "a.parquet")}).load("train")
    assert "\n" not in str(caught.value)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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


def test_splits_of_a_data_set_are_named_or_cut_by_an_option(tmp_path: Path) -> None:
    """Many data sets of the hub have one split alone."""
    datasets.Dataset.from_list([{"prompt": text} for text in "abcd"]).to_parquet(
        tmp_path / "hub" / "train.parquet"
    )
    options = {"data": str(tmp_path / "hub"), "reference_field": None}
    with pytest.raises(
        UserError, match=r"Unknown split \"test\".*; say which one.* by the option 'splits', such as"
    ):
        build_task("data", options).load("test")
    options["splits"] = {"train": "train[:75%]", "test": "train[75%:]"}
    task = build_task("data", options)
    assert [[s.prompt for s in task.load(split)] for split in ("train", "test")] == [["a", "b", "c"], ["d"]]
    with pytest.raises(UserError, match=r"'splits.tset' .*: it must be 'train', 'validation' or 'test'\.$"):
        build_task("data", {**options, "splits": {"tset": "train"}})


def test_two_files_of_one_split_may_have_columns_of_other_types(tmp_path: Path) -> None:
    one = written(tmp_path / "a.csv", "prompt,n\nx,1\n")
    two = written(tmp_path / "b.csv", "n,more,prompt\nmany,m,y\n")
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
        assert prompts(written(tmp_path / name, content)) == ["x"], name
    both = [written(tmp_path / f"{name}.json", f"[{row}, {row}]") for name in "no"]
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
        ("a.jsonl", '[{"prompt": "x"}]', ["line 1 must hold a JSON object", "in an array, [{...}, {...}], in a .json file"]),
        ("a.jsonl", '[\n{"prompt": "x"}\n]', ["line 1 is not valid JSON", "in a .json file"]),
        ("a.jsonl", "[" * 100_000, ["line 1", "nested too deeply"]),
        ("a.jsonl", '{"prompt": ' + "1" * 5000 + "}", ["line 1 has a value that cannot be read"]),
        ("a.json", "[]", ["a.json is an empty array"]),
        ("a.json", '["x"]', ["a.json, item 1 must hold a JSON object"]),
        ("a.json", '[{"prompt": "x"}', ["a.json is not valid JSON"]),
        ("a.json", '{\n "prompt": "x"\n}', ["a.json, line 1 is not valid JSON", "or for the data of a task all of them in an array"]),
        ("a.jsonl", '{"prompt": "a", "prompt": "b"}', ["a.jsonl, line 1 has the field 'prompt' twice"]),
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
    refused(written(tmp_path / name, content), *parts)


def test_files_that_are_not_there_and_tables_without_rows(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet", "none.json", "none.jsonl.gz"):
        refused(tmp_path / name, name, "there is no such file")
    refused(tmp_path, "it is a folder")
    pyarrow.parquet.write_table(
        pyarrow.table({"prompt": pyarrow.array([], "string")}), tmp_path / "a.parquet"
    )
    refused(tmp_path / "a.parquet", "a.parquet has no rows")
    mixed = [written(tmp_path / "a.csv", "prompt\nx\n"), written(tmp_path / "a.jsonl", '{"prompt": "x"}')]
    refused(mixed, "of one kind", "a.csv", "a.jsonl")


def test_a_data_set_that_was_saved_alone_is_the_split_train(tmp_path: Path) -> None:
    folder, rows = str(tmp_path / "saved"), [{"prompt": str(number)} for number in range(10)]
    datasets.Dataset.from_list(rows).save_to_disk(folder, num_shards=2)
    options = {"data": folder, "reference_field": None, "splits": {"validation": "train[:20%]"}}
    task = build_task("data", options)
    assert [sample.prompt for sample in task.load("train")] == [row["prompt"] for row in rows]
    assert [sample.prompt for sample in task.load("validation")] == ["0", "1"]
    with pytest.raises(
        UserError, match=r"saved cannot be loaded: Unknown split \"test\".*by the option 'splits'"
    ):
        task.load("test")
    with pytest.raises(UserError, match=r"'subset' names 'de', but .*saved is one saved data set"):
        build_task("data", {**options, "subset": "de"}).load("train")


def test_a_file_is_not_taken_for_a_data_set_of_the_hub(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a"}')
    with pytest.raises(UserError, match=r"'data' names the file .*rows\.jsonl: give it as 'train'"):
        build_task("data", {"data": str(file)}).load("train")


def test_a_data_set_of_several_subsets_says_by_which_option_one_is_named(tmp_path: Path) -> None:
    head = "---\nconfigs:\n"
    for subset in ("en", "de"):
        (tmp_path / f"{subset}.jsonl").write_text('{"prompt": "a"}\n')
        head += f"- config_name: {subset}\n  data_files:\n  - split: train\n    path: {subset}.jsonl\n"
    (tmp_path / "README.md").write_text(head + "---\n")
    options = {"data": str(tmp_path), "reference_field": None}
    assert len(build_task("data", {**options, "subset": "de"}).load("train")) == 1
    for wrong in ({}, {"subset": "fr"}):
        with pytest.raises(UserError, match=r"en.*de.*; say which one by the option 'subset'\.$"):
            build_task("data", {**options, **wrong}).load("train")
