"""What reward models are trained on, and which rows of it are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from letter_data import GOOD, recipe, refusal
from written_files import written

from chat_toys import FORMS, SYSTEM, TAGS, USER, with_template, write
from rlgf.errors import UserError
from rlgf.reward_models.data import ExamplesConfig
from rlgf.reward_models.train import load_reward_recipe
from tokenizer_kinds import byte_bpe


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
        (
            {"prompt": "a", "chosen": None, "rejected": "b"},
            ["line 3", "'chosen' must be a text or the messages of a chat (it is None)."],
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


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("label", [None, float("nan"), ""])
def test_a_text_without_a_label_is_no_example_of_another_label(label: Any, tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}]
    told = recipe(
        "x", tmp_path, [*rows, {"text": "c", "label": label}], rows, kind="classifier", positive="good"
    )
    assert "train.jsonl, line 3: 'label' is empty" in refusal(told)


@pytest.mark.parametrize(
    ("positive", "labels"),
    [(1, (1, 0)), (1, ("1", "0")), ("1", (1, 0)), (1, (1.0, 0.0)), (True, (True, False))],
)
def test_a_label_may_be_a_number(positive: Any, labels: tuple[Any, Any], tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in zip("ab", labels, strict=True)]
    config = load_reward_recipe(recipe("x", tmp_path, rows, rows, kind="classifier", positive=positive))
    assert config.positive == positive
    assert config.data.labelled("train", positive) == [("a", True), ("b", False)]


@pytest.mark.parametrize("form", [name for name, (row, _) in FORMS.items() if "rejected" in row])
def test_pairs_of_reward_models_have_every_form(form: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", FORMS[form][0])
    config = ExamplesConfig(train=Path(file), validation=Path(file))
    (pair,) = config.pairs("train")
    assert pair.chosen == ((SYSTEM, USER), " a joy")
    assert pair.rejected == ((SYSTEM, USER), " a bore")


@pytest.mark.usefixtures("no_model")
def test_a_chat_that_the_template_refuses_is_named_before_the_model_loads(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]
    rows = [{"chosen": turns, "rejected": [turns[0], {**turns[1], "content": "y"}]}]
    system = [{"role": "system", "content": "s"}]
    rows.append({side: [*system, *messages] for side, messages in rows[0].items()})
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TAGS
    with_template(byte_bpe(), template).save_pretrained(tmp_path / "base")
    message = refusal(recipe(str(tmp_path / "base"), tmp_path, rows, rows[:1]))
    assert "train.jsonl, line 2: the chat template of model " in message
    assert "choose another 'model'" in message


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_pairs_of_reward_models_are_read_in_the_same_way(tmp_path: Path) -> None:
    file = written(
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
