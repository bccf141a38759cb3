"""Reward models from preferences and labels: what they learn, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from letter_data import GOOD, TEXTS, Rows, letter_pairs, letters, recipe, refusal
from small_bert import save_bert
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
)
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.cli.models import merge
from rlgf.demo.imdb import labelled_reviews
from rlgf.errors import UserError
from rlgf.reward_models.train import load_reward_recipe, train_reward_model
from rlgf.rewards import build_reward
from tokenizer_kinds import word_pieces
from toys import letter_gpt

SIZES = {"vocab_size": 30522, "hidden_size": 8, "max_position_embeddings": 40}


def test_a_preference_model_learns_what_is_preferred(preference: Path) -> None:
    report = json.loads((preference / "model" / "report.json").read_text())
    assert (report["train"], report["held_out"]) == (512, 128)
    assert report["accuracy"] > 0.9
    assert 0 <= report["calibration_error"] < 0.2
    assert (preference / "model" / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_several_processes_do_not_write_the_same_model(
    letter_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_reward_recipe(recipe(letter_folder, tmp_path, GOOD, GOOD))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UserError, match="the training of a reward model runs in one process, and there are 2:"
    ):
        train_reward_model(config)


def test_training_is_repeatable_and_leaves_the_random_state(letter_folder: str, tmp_path: Path) -> None:
    found = []
    for seed in range(2):
        changes = {"epochs": 1, "output": str(tmp_path / str(seed))}
        told = recipe(letter_folder, tmp_path, letter_pairs(64, 0), letter_pairs(8, 1), **changes)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        train_reward_model(load_reward_recipe(told))
        assert torch.equal(torch.get_rng_state(), state)
        found.append((tmp_path / str(seed) / "model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_no_model_and_no_file_is_overwritten(preference: Path, letter_folder: str, tmp_path: Path) -> None:
    told = recipe(letter_folder, tmp_path, GOOD, GOOD)
    before = (preference / "model" / "model.safetensors").read_bytes()
    assert "is there already, and nothing is overwritten: set another 'output'" in refusal(
        told | {"output": str(preference / "model")}
    )
    assert (preference / "model" / "model.safetensors").read_bytes() == before
    assert "cannot be written: Not a directory; set another 'output'" in refusal(
        told | {"output": told["data"]["train"]}
    )
    assert "set another 'output'" in refusal(told | {"output": letter_folder})


def test_an_adapter_is_trained_alone_and_merged_on_request(adapter: Path, tmp_path: Path) -> None:
    assert not (adapter / "model.safetensors").exists()
    assert (adapter / "adapter_model.safetensors").stat().st_size < 60_000
    merge(str(adapter), tmp_path / "whole")
    assert not list((tmp_path / "whole").glob("adapter*"))
    start = letter_gpt(layers=2).model.state_dict()
    trained = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").state_dict()
    for name in ("transformer.wte.weight", "transformer.ln_f.weight"):
        assert torch.equal(trained[name], start[name]), "only linear layers have an adapter"
    name = "transformer.h.0.attn.c_attn.weight"
    moved = torch.linalg.matrix_rank(trained[name] - start[name], atol=1e-4)
    assert 0 < moved <= 4
    whole, over_base = (build_reward("model", {"model": str(f)}) for f in (tmp_path / "whole", adapter))
    assert whole(*TEXTS) == pytest.approx(over_base(*TEXTS), abs=1e-5)


def test_an_adapter_keeps_how_many_layers_it_is_for(letter_folder: str, tmp_path: Path) -> None:
    changes = {"lora": {"r": 2}, "layers": 1, "epochs": 1}
    told = recipe(letter_folder, tmp_path, letter_pairs(16, 0), letter_pairs(8, 1), **changes)
    train_reward_model(load_reward_recipe(told))
    merge(str(tmp_path / "model"), tmp_path / "whole")
    assert (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").config.num_hidden_layers == 1
    )
    assert len(build_reward("model", {"model": str(tmp_path / "model")})(*TEXTS)) == 3


def test_a_classifier_gives_the_probability_of_its_label(letter_folder: str, tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [letters(draw) for _ in range(600)]
    rows = [{"text": text, "label": "much" if text.count("a") > 1 else "little"} for text in texts]
    told = recipe(
        letter_folder, tmp_path, rows[:480], rows[480:], kind="classifier", positive="much", layers=1
    )
    report = train_reward_model(load_reward_recipe(told))
    assert report["accuracy"] > 0.9
    reward = build_reward("model", {"model": report and str(tmp_path / "model")})
    good, bad = reward(["bbbb", "aaaa"], ["aaaaaa", "dddddd"])
    assert 0 <= bad < 0.5 < good <= 1, "the completion alone is read"
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert saved.config.num_hidden_layers == 1


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data": {"train": "x.jsonl"}}, ["'data'", "'validation' is missing", "held-out"]),
        ({"data": {"validation": "x.jsonl"}}, ["'data'", "files ('train', 'validation', ...) or 'data'"]),
        ({"kind": "classifier"}, ["'positive' names the label"]),
        ({"positive": "good"}, ["'positive' names the label"]),
        ({"kind": "preferences"}, ["'kind'", "'preference'"]),
        ({"epoch": 2}, ["'epoch' is not a known key: did you mean 'epochs'?"]),
        ({"lora": {"r": 0}}, ["'lora.r'"]),
        ({"output": None}, ["'output'"]),
    ],
)
def test_a_recipe_that_does_not_fit_is_one_sentence(
    changes: dict[str, Any], parts: list[str], tmp_path: Path
) -> None:
    message = refusal({**recipe("letters", tmp_path, GOOD, GOOD), **changes})
    for part in parts:
        assert part in message


@pytest.mark.usefixtures("no_model")
def test_an_adapter_without_peft_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    message = refusal(recipe("letters", tmp_path, GOOD, GOOD, lora={}))
    assert "pip install 'rlgf[lora]'" in message


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (
            BertForMaskedLM,
            BertConfig(**SIZES, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8),
        ),
        (
            DistilBertForMaskedLM,
            DistilBertConfig(vocab_size=30522, dim=8, n_layers=1, n_heads=1, hidden_dim=8),
        ),
    ],
)
def test_all_that_was_drawn_at_random_is_kept_beside_an_adapter(
    tmp_path: Path, kind: Any, settings: Any
) -> None:
    """A pooler, or a layer between the trunk and the head, which the base's files do not have."""
    kind(settings).save_pretrained(tmp_path / "base")
    word_pieces().save_pretrained(tmp_path / "base")
    told = recipe(str(tmp_path / "base"), tmp_path, letter_pairs(8, 0), letter_pairs(8, 1), lora={"r": 1})
    train_reward_model(load_reward_recipe(told))
    paid = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paid.append(build_reward("model", {"model": str(tmp_path / "model")})(["a", "b"], ["b c", "d"]))
    assert paid[0] == paid[1]


def test_a_model_that_cannot_serve_is_one_sentence(letter_folder: str, tmp_path: Path) -> None:
    assert "model 'nothing' cannot be loaded" in refusal(recipe("nothing", tmp_path, GOOD, GOOD))
    long = recipe(letter_folder, tmp_path, GOOD, GOOD, max_tokens=64)
    assert "'max_tokens' 64 is more than the model" in refusal(long)
    assert "set it to 32 or less" in refusal(long)


@pytest.mark.parametrize("chosen", [False, True])
def test_what_is_cut_and_what_teaches_nothing_is_told_of(tmp_path: Path, chosen: bool) -> None:
    base = save_bert(tmp_path / "base", BertForMaskedLM)
    long = {"prompt": "it was", "chosen": "dull " + "good " * 200, "rejected": "fine " + "good " * 200}
    told = recipe(base, tmp_path, [*GOOD, long], GOOD, epochs=1)
    if not chosen:
        del told["max_tokens"]
    with pytest.warns(UserWarning, match="to learn from") as caught:
        train_reward_model(load_reward_recipe(told))
    said = [str(one.message) for one in caught]
    alike = f"1 of the 3 pairs to learn from read the same on both sides, with 'max_tokens' {32 if chosen else 128}, and"
    assert said[-1].startswith(alike)
    cut = "2 of the 6 texts to learn from have 128 tokens or more, and of those with more the beginning is left out"
    assert [one.startswith(cut) for one in said[:-1]] == ([] if chosen else [True])


def review_pairs(reviews: Any, seed: int) -> Rows:
    """An opening of any review, gone on by 32 words of a positive review, or by as many of a negative one."""
    draw = random.Random(seed)
    words = {
        label: [text.split(" ")[16:48] for text, of in reviews if of == label and text.count(" ") > 48]
        for label in ("positive", "negative")
    }
    openings = [" ".join(text.split(" ")[:16]) for text, _ in reviews]
    return [
        {"prompt": draw.choice(openings), "chosen": " " + " ".join(good), "rejected": " " + " ".join(bad)}
        for good, bad in zip(words["positive"], words["negative"], strict=False)
    ]


@pytest.mark.long
def test_minilm_learns_a_preference_for_positive_reviews_from_the_command_line(tmp_path: Path) -> None:
    reviews = labelled_reviews("reward")
    rows, held_out = review_pairs(reviews[400:1000], 0), review_pairs(reviews[:400], 1)
    told = recipe("minilm", tmp_path, rows, held_out, layers=1, epochs=1, max_tokens=64, learning_rate=3e-4)
    (tmp_path / "recipe.yaml").write_text(json.dumps(told))
    done = CliRunner().invoke(app, ["reward", str(tmp_path / "recipe.yaml"), "minibatch=16"])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    assert report["held_out"] > 150
    assert report["accuracy"] > 0.55
