"""The tasks of summaries and of given words: CommonGen, TL;DR and its stand-in of reviews."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.config import load_config
from rlgf.demo.imdb import labelled_reviews
from rlgf.demo.review_verdicts import ReviewVerdictsTask, write_verdict_pairs
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import ReferenceWriter, prompt_tokens
from rlgf.tasks import Task, build_task, commongen
from rlgf.types import Author, Sample

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


def test_behaviour_cloning_sees_every_reference(language_model: LanguageModel) -> None:
    sample = Sample("He", (" leaves", " walks", " sings"))
    collector = Collector(language_model, None, RolloutConfig(max_response_tokens=12), seed=0)
    texts = {collector.answers(Author.REFERENCE, [sample], update).texts[0] for update in range(30)}
    assert texts == set(sample.references)
    assert isinstance(collector.writers[Author.REFERENCE], ReferenceWriter)


HEADER = "SUBREDDIT: r/a\n\nTITLE: t\n\nPOST: "
POST = HEADER + "word " * 40 + "end"


@pytest.mark.parametrize(
    ("row", "sample"),
    [
        (
            {"prompt": "POST: a b\n\nTL;DR:", "completion": " short", "id": 3},
            Sample("POST: a b\n\nTL;DR:", (" short",), {"id": 3}, cue="\n\nTL;DR:"),
        ),
        (
            {"prompt": "POST: a b \nTL;DR: ", "label": "short\n"},
            Sample("POST: a b \nTL;DR:", (" short",), {}, cue=" \nTL;DR:"),
        ),
    ],
    ids=["trl-lib", "CarperAI"],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_tldr_reads_both_formats(
    tmp_path: Path, row: dict[str, Any], sample: Sample, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / f"a.{kind}"
    if kind == "parquet":
        datasets.Dataset.from_list([row]).to_parquet(str(file))
    else:
        write(file, row)
    assert list(build_task("tldr", {"train": str(file)}).load("train")) == [sample]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a TL;DR:", "summary": "b"},
            r"line 1 has no field 'label': .*'completion'. Fields: prompt, s",
        ),
        ({"post": "a", "label": "b"}, r"line 1 has no field 'prompt'. Fields: label, post"),
        (
            {"prompt": "a", "label": "b"},
            r"line 1: 'prompt' must be a text that ends in 'TL;DR:' \(it is 'a'\)",
        ),
        ({"prompt": "a TL;DR:", "label": " "}, r"line 1: 'label' must be a summary in words \(it is ' '\)"),
        ({"prompt": "a TL;DR:", "completion": None}, r"line 1: 'completion' must be a summary in words"),
    ],
)
def test_tldr_says_what_is_wrong_with_a_row(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    task = build_task("tldr", {"train": str(write(tmp_path / "a.jsonl", row))})
    with pytest.raises(UserError, match=message):
        task.load("train")
    with pytest.raises(UserError, match="task 'tldr' has no file for the split 'test'"):
        task.load("test")


@pytest.mark.parametrize("limit", [200, 60, 45, 12])
def test_a_long_post_loses_its_end_and_keeps_header_and_cue(
    language_model: LanguageModel, limit: int
) -> None:
    cue = "\n\nTL;DR:"
    sample = Sample(POST + cue, cue=cue)
    ids = prompt_tokens(language_model, sample, limit)
    whole = language_model.encode(sample.prompt)
    assert len(ids) == min(limit, len(whole))
    text = language_model.decode(ids)
    assert text.endswith(cue)
    assert POST.startswith(text.removesuffix(cue))
    if len(whole) <= limit:
        assert ids == whole


def test_a_limit_below_the_cue_keeps_the_end_of_the_cue(language_model: LanguageModel) -> None:
    sample = Sample(POST + "\n\nTL;DR:", cue="\n\nTL;DR:")
    assert prompt_tokens(language_model, sample, 2) == language_model.encode("\n\nTL;DR:")[-2:]


def test_a_prompt_without_a_cue_loses_its_beginning(language_model: LanguageModel) -> None:
    assert prompt_tokens(language_model, Sample(POST), 9) == language_model.encode(POST)[-9:]


def test_the_collector_cuts_prompts_before_their_cue(language_model: LanguageModel) -> None:
    sample = Sample(POST + "\n\nTL;DR:", (" x",), cue="\n\nTL;DR:")
    collector = Collector(language_model, None, RolloutConfig(max_prompt_tokens=40, max_response_tokens=4), 0)
    rollout = collector.answers(Author.REFERENCE, [sample])
    text = language_model.decode(rollout.prompt_ids[0].tolist())
    assert text.startswith("SUBREDDIT: r/a\n\nTITLE")
    assert text.endswith("\n\nTL;DR:")


def test_a_verdict_is_the_last_sentence_of_its_review() -> None:
    reviews = dict(labelled_reviews("validation"))
    samples = ReviewVerdictsTask().load("validation")
    assert 150 < len(samples) < 500
    posts = {re.sub(r"\s+", " ", text): label for text, label in reviews.items()}
    for sample in samples:
        post = sample.prompt.removeprefix("POST: ").removesuffix("\n\nTL;DR:")
        (verdict,) = sample.references
        assert posts[post + verdict] == sample.columns["label"]
        assert 5 <= len(verdict.split()) <= 30
        assert verdict.startswith(" ")
        assert sample.cue == "\n\nTL;DR:"
        assert not re.search(r"[.!?]\s", verdict)
    assert isinstance(build_task("review-verdicts", {"max_words": 10}), Task)


def test_verdict_pairs_are_disjoint_between_splits_and_of_opposite_labels(tmp_path: Path) -> None:
    counts = write_verdict_pairs(tmp_path)
    records = {
        split: [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()]
        for split in counts
    }
    assert {split: len(found) for split, found in records.items()} == counts
    assert set(counts) == {"train", "validation", "test", "reward", "judge"}
    labels = {s.references[0]: s.columns["label"] for s in ReviewVerdictsTask().load("validation")}
    prompts = {s.prompt: s for s in ReviewVerdictsTask().load("validation")}
    for record in records["validation"]:
        own = prompts[record["prompt"]]
        assert own.references[0] == record["chosen" if own.columns["label"] == "positive" else "rejected"]
        assert (labels[record["chosen"]], labels[record["rejected"]]) == ("positive", "negative")
    assert counts["validation"] == len(prompts)
    seen = [record["prompt"] for found in records.values() for record in found]
    assert len(seen) == len(set(seen))


def test_the_command_writes_pairs_and_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pairs", str(tmp_path / "pairs")])
    assert done.exit_code == 0
    written = sorted(path.name for path in (tmp_path / "pairs").iterdir())
    assert written == sorted(f"{name}.jsonl" for name in ("train", "validation", "test", "reward", "judge"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be written: File exists\."):
        write_verdict_pairs(tmp_path / "file")


@pytest.mark.parametrize("recipe", ["commongen", "tldr"])
def test_the_recipes_name_their_task(recipe: str) -> None:
    file = Path(__file__).parents[2] / f"recipes/{recipe}.yaml"
    config = load_config(file, "reward=sentiment", "algorithm=ppo++")
    assert isinstance(build_task(config.task.name, config.task.options), Task)


def test_the_recipe_of_tldr_needs_a_reward_of_yours() -> None:
    with pytest.raises(UserError, match="needs a reward"):
        load_config(Path(__file__).parents[2] / "recipes/tldr.yaml")


def test_the_stand_in_recipe_goes_over_the_one_of_imdb() -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    config = load_config(recipes / "imdb.yaml", recipes / "review_verdicts.yaml")
    assert (config.task.name, config.rollout.min_response_tokens) == ("review-verdicts", 0)
