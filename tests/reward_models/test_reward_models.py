"""Reward models from preferences and labels: what they learn, what is measured, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.cli.models import merge
from rlgf.config import load_config
from rlgf.demo.imdb import labelled_reviews
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.reward_models.calibration import Bin, expected_calibration_error, reliability
from rlgf.reward_models.scorer import Scorer
from rlgf.reward_models.train import load_reward_recipe, train_reward_model
from rlgf.rewards import Reward, RewardInput, build_reward, score
from rlgf.rewards.base import PolicyReadingReward
from rlgf.rollout.config import RolloutConfig
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from tokenizer_kinds import byte_bpe, encoder_pieces, llama_legacy, word_pieces
from toys import letter_gpt

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def letters(draw: random.Random, length: int = 6) -> str:
    return "".join(draw.choice("abcd") for _ in range(length))


def letter_pairs(count: int, seed: int) -> Rows:
    """The text with more of the letter a is preferred; the prompt says nothing."""
    draw, rows = random.Random(seed), []
    while len(rows) < count:
        one, other = sorted((letters(draw), letters(draw)), key=lambda text: -text.count("a"))
        if one.count("a") > other.count("a"):
            rows.append({"prompt": letters(draw, 2), "chosen": one, "rejected": other})
    return rows


@pytest.fixture(scope="module")
def letter_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("letters")
    policy = letter_gpt(layers=2)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return str(folder)


def recipe(letter_folder: str, root: Path, rows: Rows, held_out: Rows, **changes: Any) -> dict[str, Any]:
    data = {"train": write(root / "train.jsonl", rows), "validation": write(root / "dev.jsonl", held_out)}
    return {
        "kind": "preference",
        "model": letter_folder,
        "output": str(root / "model"),
        "max_tokens": 32,
        "learning_rate": 5e-3,
        "epochs": 3,
        "data": data,
        **changes,
    }


@pytest.fixture(scope="module")
def preference(letter_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preference")
    told = recipe(letter_folder, root, letter_pairs(512, 0), letter_pairs(128, 1))
    train_reward_model(load_reward_recipe(told))
    return root


def test_a_preference_model_learns_what_is_preferred(preference: Path) -> None:
    report = json.loads((preference / "model" / "report.json").read_text())
    assert (report["train"], report["held_out"]) == (512, 128)
    assert report["accuracy"] > 0.9
    assert 0 <= report["calibration_error"] < 0.2
    assert (preference / "model" / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_is_a_reward_and_its_scores_are_centred(preference: Path) -> None:
    reward = build_reward("model", {"folder": str(preference / "model")})
    good, bad = score(reward, RewardInput(["bc", "bc"], ["aaaaaa", "dddddd"], {}, [(), ()])).total.tolist()
    assert good > 0 > bad
    rows = [json.loads(line) for line in (preference / "train.jsonl").read_text().splitlines()]
    prompts = [row["prompt"] for row in rows for _ in range(2)]
    texts = [row[side] for row in rows for side in ("chosen", "rejected")]
    scores = torch.tensor(reward(prompts, texts))
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert reward(prompts[:7], texts[:7]) == pytest.approx(scores[:7].tolist(), abs=1e-4), (
        "whatever the batch"
    )
    assert reward([], []) == []
    assert len(reward([""], [""])) == 1


def test_the_folder_is_plain_transformers_and_the_centre_is_kept_beside(preference: Path) -> None:
    folder = preference / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logit = model(**tokenizer("bcaadd", return_tensors="pt", return_token_type_ids=False)).logits.item()
    centre = json.loads((folder / "reward.json").read_text())["centre"]
    assert centre != 0
    assert build_reward("model", {"folder": str(folder)})(["bc"], ["aadd"]) == pytest.approx(
        [logit - centre], abs=1e-5
    )


def test_accuracy_and_calibration_are_those_of_the_held_out_pairs(preference: Path) -> None:
    """Counted again from the stored model's own scores."""
    reward = build_reward("model", {"folder": str(preference / "model")})
    rows = [json.loads(line) for line in (preference / "dev.jsonl").read_text().splitlines()]
    sides = [
        reward([row["prompt"] for row in rows], [row[side] for row in rows])
        for side in ("chosen", "rejected")
    ]
    p = [1 / (1 + math.exp(other - one)) for one, other in zip(*sides, strict=True)]
    report = json.loads((preference / "model" / "report.json").read_text())
    assert report["accuracy"] == pytest.approx(sum(value > 0.5 for value in p) / 128, abs=1e-4)
    error = 0.0
    for low in range(10):
        inside = [v for v in p if min(int((max(v, 1 - v) - 0.5) * 20), 9) == low]
        error += abs(sum(v > 0.5 for v in inside) - sum(max(v, 1 - v) for v in inside)) / 128
    assert report["calibration_error"] == pytest.approx(error, abs=1e-3)


def test_training_is_repeatable_and_leaves_the_random_state(letter_folder: str, tmp_path: Path) -> None:
    found = []
    for seed in range(2):
        told = recipe(letter_folder, tmp_path, letter_pairs(64, 0), letter_pairs(8, 1), epochs=1)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        train_reward_model(load_reward_recipe(told))
        assert torch.equal(torch.get_rng_state(), state)
        found.append((tmp_path / "model" / "model.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def adapter(letter_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    changes = {"lora": {"r": 4}, "epochs": 5}
    told = recipe(letter_folder, folder, letter_pairs(512, 0), letter_pairs(128, 1), **changes)
    assert train_reward_model(load_reward_recipe(told))["accuracy"] > 0.85
    return folder / "model"


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
    whole, over_base = (build_reward("model", {"folder": str(f)}) for f in (tmp_path / "whole", adapter))
    assert whole(*TEXTS) == pytest.approx(over_base(*TEXTS), abs=1e-5)


TEXTS = (["ab", "cd", "a"], ["aaaa", "b", "dcbadcba"])


def adapted(folder: str, **sizes: int) -> LanguageModel:
    policy = load_language_model(ModelConfig(model=folder))
    return replace(policy, adapters=Adapters(policy.model, LoRAConfig(**sizes)))


def attached(folder: Path, policy: LanguageModel) -> Reward:
    reward = build_reward("adapter", {"folder": str(folder)})
    assert isinstance(reward, PolicyReadingReward)
    reward.attach(policy, RolloutConfig(), 0)
    return reward


def test_an_adapter_on_the_policys_base_pays_what_a_model_of_its_own_would(
    adapter: Path, letter_folder: str
) -> None:
    expected = build_reward("model", {"folder": str(adapter)})(*TEXTS)
    assert max(expected) - min(expected) > 1
    policy = adapted(letter_folder, r=2)
    ids = torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        before = policy.model(ids).logits
        reward, other = attached(adapter, policy), attached(adapter, policy)
        assert reward(*TEXTS) == pytest.approx(expected, abs=1e-5)
        assert torch.equal(policy.model(ids).logits, before), "the policy runs with its own adapter alone"
        for parameter in policy.trained:
            parameter.add_(1.0)
        assert not torch.allclose(policy.model(ids).logits, before, atol=1e-2)
        assert reward(*TEXTS) == pytest.approx(expected, abs=1e-5), "what the policy learns moves no reward"
        assert other(*TEXTS) == reward(*TEXTS)


def test_a_run_with_a_reward_over_its_own_base(adapter: Path, letter_folder: str, tmp_path: Path) -> None:
    config = load_config(
        {
            "task": "toys:LetterTask",
            "policy": {"model": letter_folder, "lora": {"r": 2}},
            "reward": {"name": "adapter", "options": {"folder": str(adapter)}},
            "algorithm": {"base": "ppo", "kl": {"coefficient": 0.0}},
            "output": str(tmp_path),
            "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "update": {"minibatch": 8},
            "training": {"updates": 1, "trackers": []},
        }
    )
    trainer = Trainer(config, build_parts(config), Display(Console(quiet=True)))
    rollout = trainer.collect(trainer.batch(), trainer.row())
    expected = build_reward("model", {"folder": str(adapter)})(list(rollout.prompts), list(rollout.texts))
    assert trainer.step()["reward"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_an_adapter_that_cannot_stand_on_the_policy_is_refused(
    adapter: Path, letter_folder: str, preference: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"it holds a whole model; pay by it with 'reward.name: model'"):
        build_reward("adapter", {"folder": str(preference / "model")})
    with pytest.raises(UserError, match=r"set 'policy.lora'"):
        attached(adapter, load_language_model(ModelConfig(model=letter_folder)))
    save_policy(letter_gpt(layers=2), tmp_path / "other")
    with pytest.raises(UserError, match=r"belongs to the base '.*', and the policy's is '.*other'"):
        attached(adapter, adapted(str(tmp_path / "other")))
    notes = json.loads((adapter / "reward.json").read_text())
    shallow = tmp_path / "shallow"
    shutil.copytree(adapter, shallow)
    (shallow / "reward.json").write_text(json.dumps({**notes, "layers": 1}))
    with pytest.raises(UserError, match="an adapter on 1 layers of its base"):
        build_reward("adapter", {"folder": str(shallow)})


def test_an_adapter_keeps_how_many_layers_it_is_for(letter_folder: str, tmp_path: Path) -> None:
    changes = {"lora": {"r": 2}, "layers": 1, "epochs": 1}
    told = recipe(letter_folder, tmp_path, letter_pairs(16, 0), letter_pairs(8, 1), **changes)
    train_reward_model(load_reward_recipe(told))
    merge(str(tmp_path / "model"), tmp_path / "whole")
    assert (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").config.num_hidden_layers == 1
    )
    assert len(build_reward("model", {"folder": str(tmp_path / "model")})(*TEXTS)) == 3


def test_a_classifier_gives_the_probability_of_its_label(letter_folder: str, tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [letters(draw) for _ in range(600)]
    rows = [{"text": text, "label": "much" if text.count("a") > 1 else "little"} for text in texts]
    told = recipe(
        letter_folder, tmp_path, rows[:480], rows[480:], kind="classifier", positive="much", layers=1
    )
    report = train_reward_model(load_reward_recipe(told))
    assert report["accuracy"] > 0.9
    reward = build_reward("model", {"folder": report and str(tmp_path / "model")})
    good, bad = reward(["bbbb", "aaaa"], ["aaaaaa", "dddddd"])
    assert 0 <= bad < 0.5 < good <= 1, "the completion alone is read"
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert saved.config.num_hidden_layers == 1


def test_the_expected_calibration_error_is_that_of_its_definition() -> None:
    """Four predictions at 0.9 of which three are right, and two at 0.6 (one as 0.4) that are both right."""
    probabilities = torch.tensor([0.91, 0.91, 0.91, 0.09, 0.61, 0.39])
    labels = torch.tensor([True, True, False, False, True, False])
    bins = reliability(probabilities, labels)
    assert [one.count for one in bins] == [2, 4]
    assert [one.accuracy for one in bins] == [1.0, 0.75]
    assert [one.confidence for one in bins] == pytest.approx([0.61, 0.91])
    assert expected_calibration_error(bins) == pytest.approx(2 / 6 * 0.39 + 4 / 6 * 0.16, abs=1e-6)
    assert expected_calibration_error([Bin(5, 0.8, 0.8)]) == 0


# Refusals.

GOOD: Rows = [
    {"prompt": "a", "chosen": "ab", "rejected": "ba"},
    {"prompt": "b", "chosen": "a", "rejected": "b"},
]


def refusal(told: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        train_reward_model(load_reward_recipe(told))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before a model loads."""
    monkeypatch.setattr(
        "rlgf.reward_models.train.load_scorer", lambda *arguments: pytest.fail("a model was loaded")
    )


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
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data": {"train": "x.jsonl"}}, ["'data'", "'validation' is missing", "held-out"]),
        ({"data": {"validation": "x.jsonl"}}, ["'data'", "files ('train', 'validation') or 'data'"]),
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
def test_a_label_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    told = recipe("letters", tmp_path, rows, rows, kind="classifier", positive="good")
    assert "'positive' (it is 'good')" in refusal(told)
    assert "there: 0, 1" in refusal(told)
    assert "two or more labels" in refusal(
        {**told, **recipe("x", tmp_path, rows, rows[:1]), "positive": "0", "kind": "classifier"}
    )


@pytest.mark.usefixtures("no_model")
def test_an_adapter_without_peft_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    message = refusal(recipe("letters", tmp_path, GOOD, GOOD, lora={}))
    assert "pip install 'rlgf[lora]'" in message


def test_a_model_that_cannot_serve_is_one_sentence(letter_folder: str, tmp_path: Path) -> None:
    assert "model 'nothing' cannot be loaded" in refusal(recipe("nothing", tmp_path, GOOD, GOOD))
    long = recipe(letter_folder, tmp_path, GOOD, GOOD, max_tokens=64)
    assert "'max_tokens' 64 is more than the model" in refusal(long)
    assert "set it to 32 or less" in refusal(long)


def test_a_folder_without_a_reward_model_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="holds no reward model; give a folder that `rlgf reward"):
            build_reward("model", {"folder": str(folder)})


# Real texts.


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


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy, encoder_pieces])
def test_a_scorer_reads_what_its_tokenizer_makes_of_a_text(kind: Any) -> None:
    """With a beginning of text where there is one, once, also where the text is cut."""
    scorer = Scorer(None, kind(), 99)
    before, after = scorer.codec.around
    for prompt, completion in [("the film", " was a joy"), ("the mus", "ic"), ("", "a joy"), ("a", "")]:
        (ids,) = scorer.encode([prompt], [completion])
        assert ids == scorer.tokenizer(prompt + completion)["input_ids"]
    (ids,) = replace(scorer, max_tokens=6).encode(["the film was"], [" a joy from the first scene"])
    assert len(ids) == 6
    assert ids[: len(before)] == before
    assert ids[6 - len(after) :] == after
    if before:
        name = scorer.tokenizer.convert_ids_to_tokens(before[0])
        assert scorer.encode([f"{name}the film"], [""])[0].count(before[0]) == 1


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy])
def test_a_completion_cannot_write_a_scorers_special_tokens(kind: Any) -> None:
    scorer = Scorer(None, kind(), 99)
    around = [i for part in scorer.codec.around for i in part]
    names = [scorer.tokenizer.eos_token, *(["[MASK]", "[PAD]"] if kind is word_pieces else [])]
    special = scorer.tokenizer.all_special_ids
    for name in names:
        (ids,) = scorer.encode(["the film"], [f" was{name} a joy"])
        assert [i for i in ids if i in special] == around
        (told,) = scorer.encode([f"the{name} film"], [" was"])
        assert len([i for i in told if i in special]) == len(around) + 1, "a prompt may be a rendered chat"
    end = names[0]
    assert scorer.encode(["the"], [f" film{end} a joy"]) == scorer.encode(["the"], [" film"])
