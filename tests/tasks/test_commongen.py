"""CommonGen: its formats, its groups, and every refusal."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.tasks import build_task, commongen
from rlgf.types import Sample

RECORD = {
    "concepts": ["field", "look", "stand"],
    "references": ["He stands in a field.", "Look at the stand."],
}


def write(path: Path, *records: Any) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_commongen_gives_the_papers_prompts_and_all_references(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl.gz", RECORD, RECORD | {"concepts": ["a"]})
    write(tmp_path / "test.jsonl", RECORD)
    task = build_task("commongen", {"folder": str(tmp_path)})
    references = tuple(RECORD["references"])
    first = Sample(
        "generate a sentence with: field look stand.", references, {"concepts": RECORD["concepts"]}
    )
    assert task.load("train") == [
        first,
        Sample("generate a sentence with: a.", references, {"concepts": ["a"]}),
    ]
    assert task.load("test") == [first]
    own = build_task("commongen", {"folder": str(tmp_path), "template": "Use {concepts}:\n"})
    assert own.load("test")[0].prompt == "Use field look stand:\n"


def test_commongen_groups_the_hubs_rows_by_set_of_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = [
        {"concept_set_idx": n, "concepts": ["a", f"b{n}"], "target": text}
        for n, text in [(0, "one"), (0, "two"), (1, "three"), (0, "four")]
    ]
    asked = []

    def load_dataset(source: str, **options: str) -> Any:
        asked.append((source, options["split"]))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = commongen.CommonGenTask()
    samples = task.load("train")
    assert [(s.references, s.columns["concepts"]) for s in samples] == [
        (("one", "two", "four"), ["a", "b0"]),
        (("three",), ["a", "b1"]),
    ]
    assert task.load("validation") == task.load("test") == samples
    assert asked == [("allenai/common_gen", split) for split in ("train", "validation", "validation")]
    rows[2]["target"] = ""
    with pytest.raises(UserError, match=r"allenai/common_gen, row 3: 'references' has an empty reference"):
        task.load("train")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (RECORD | {"references": []}, r"line 2: 'references' has an empty reference"),
        (RECORD | {"references": ["fine", ""]}, r"line 2: 'references' has an empty reference"),
        ({"concepts": ["a"]}, r"line 2 has no field 'references'. Fields: concepts"),
        ({"words": ["a"], "references": ["b"]}, r"line 2 has no field 'concepts'. Fields: references, words"),
        (RECORD | {"concepts": "a b"}, r"line 2: 'concepts' must be a list of words \(it is 'a b'\)"),
        (RECORD | {"concepts": []}, r"line 2: 'concepts' must be a list of words"),
    ],
)
def test_commongen_says_which_line_is_wrong(tmp_path: Path, record: Any, message: str) -> None:
    file = write(tmp_path / "train.jsonl.gz", RECORD, record)
    with pytest.raises(UserError, match=message) as caught:
        build_task("commongen", {"folder": str(tmp_path)}).load("train")
    assert str(file) in str(caught.value)


def test_commongen_names_a_split_that_is_missing_and_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    task = build_task("commongen", {"folder": str(tmp_path)})
    with pytest.raises(UserError, match=r"no split 'test': .* holds neither test.jsonl.gz nor test.jsonl\."):
        task.load("test")
    (tmp_path / "test.jsonl").write_bytes(json.dumps(RECORD).encode() + b'\n{"concepts": ["\xff"]}\n')
    with pytest.raises(UserError, match=r"test\.jsonl, line 2 is not in UTF-8"):
        task.load("test")


@pytest.mark.parametrize("template", ["make a sentence", "{concepts} {concepts}", "{words}", "{0}"])
def test_a_template_without_the_concepts_is_refused(template: str) -> None:
    with pytest.raises(UserError, match=r"option 'template' .*it must hold \{concepts\} once"):
        build_task("commongen", {"template": template})


def test_small_sets_can_be_left_out(tmp_path: Path) -> None:
    sets = [["run"], ["run", "team", "field"], ["dog", "run"]]
    write(tmp_path / "train.jsonl", *[RECORD | {"concepts": concepts} for concepts in sets])
    samples = build_task("commongen", {"folder": str(tmp_path), "min_concepts": 2}).load("train")
    assert [sample.columns["concepts"] for sample in samples] == sets[1:]
    with pytest.raises(UserError, match="'min_concepts'"):
        build_task("commongen", {"min_concepts": 0})


def test_a_packed_file_that_is_torn_is_one_sentence(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl.gz", *[RECORD] * 50)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train.jsonl.gz cannot be read: Compressed file ended"):
        build_task("commongen", {"folder": str(tmp_path)}).load("train")


@pytest.mark.skipif(
    "RLGF_COMMONGEN" not in os.environ, reason="RLGF_COMMONGEN names no folder with CommonGen"
)
def test_the_real_commongen_has_its_published_size() -> None:
    task = build_task("commongen", {"folder": os.environ["RLGF_COMMONGEN"]})
    sizes = {split: task.load(split) for split in ("train", "validation", "test")}
    assert {split: len(samples) for split, samples in sizes.items()} == {
        "train": 27_011,
        "validation": 993,
        "test": 1_497,
    }
    assert sum(len(s.references) for s in sizes["train"]) == 39_069
