"""One thing at a time is damaged in a small valid run: each ends in one sentence and exit code 2, or is harmless."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2ForSequenceClassification

from rlgf import cli
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.run.checkpoint import save_policy
from toys import letter_gpt

DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "garbled": lambda file: file.write_bytes(bytes(byte ^ 0xA5 for byte in file.read_bytes())),
    "of another kind": lambda file: file.write_text("[1, 2]"),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "not downloaded": lambda file: file.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    ),
}
MODEL = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
FILES = {
    "model": MODEL,
    "guide": MODEL,
    "reward": ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "reward.json"),
    "adapter": (
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ),
    "data": ("train.jsonl", "validation.jsonl", "test.jsonl", "answers.jsonl"),
}
HARMLESS = {
    ("model/generation_config.json", "deleted"): "the end is also in config.json",
    ("guide/generation_config.json", "deleted"): "the end is also in config.json",
    ("data/train.jsonl", "truncated"): "two whole lines are left",
    ("data/validation.jsonl", "truncated"): "two whole lines are left",
    ("data/test.jsonl", "truncated"): "two whole lines are left",
}
"""Damages that a run does not mind, and why."""


@dataclass(frozen=True)
class World:
    """A valid run's files, and what `rlgf` says of them."""

    root: Path
    said: pytest.CaptureFixture[str]

    def recipe(self, **changes: Any) -> dict[str, Any]:
        data = self.root / "data"
        return {
            "task": {"name": "data", "options": {split: str(data / f"{split}.jsonl") for split in SPLITS}},
            "policy": {"model": str(self.root / "model")},
            "reward": {"name": "model", "options": {"folder": str(self.root / "reward")}},
            "output": str(self.root / "new"),
            "rollout": {"episodes": 2, "max_prompt_tokens": 4, "max_response_tokens": 3},
            "update": {"minibatch": 2, "epochs": 1},
            "training": {"updates": 1, "trackers": []},
            "evaluation": {"samples": 1, "test_samples": 1, "metrics": ["words"]},
            **changes,
        }

    def recipe_for(self, folder: str) -> dict[str, Any]:
        """A recipe that reads the folder."""
        if folder == "guide":
            return self.recipe(algorithm="ppo++", guide={"model": str(self.root / "guide")})
        if folder == "adapter":
            return self.recipe(policy={"model": str(self.root / "adapter")})
        return self.recipe()

    def run(self, recipe: dict[str, Any], *options: str, command: str = "train") -> str:
        """What a command says on standard error; made sure to be one sentence with exit code 2, or nothing."""
        file = self.root / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe))
        shutil.rmtree(self.root / "new", ignore_errors=True)
        return self.told("rlgf", command, str(file), *options)

    def told(self, *arguments: str) -> str:
        self.said.readouterr()
        before, sys.argv = sys.argv, list(arguments)
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv = before
        error = self.said.readouterr().err.strip()
        if code == 0:
            return ""
        assert code == 2, (arguments, code, error)
        assert error.startswith("rlgf: "), error
        assert "\n" not in error, error
        assert error.endswith("."), error
        return error


SPLITS = ("train", "validation", "test")


def reward_model(folder: Path) -> None:
    policy = letter_gpt("ab", width=16)
    config = GPT2Config(**{**policy.model.config.to_dict(), "num_labels": 1})
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    (folder / "reward.json").write_text(json.dumps({"kind": "preference", "max_tokens": 16}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    policy = letter_gpt("ab", width=16)
    save_policy(policy, root / "model")
    save_policy(letter_gpt("ab", width=16, seed=1), root / "guide")
    reward_model(root / "reward")
    base = letter_gpt("ab", width=16)
    base.model.name_or_path = str(root / "model")
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    get_peft_model(base.model, config).save_pretrained(root / "adapter", save_embedding_layers=False)
    policy.tokenizer.save_pretrained(root / "adapter")
    (root / "data").mkdir()
    row = json.dumps({"prompt": "ab", "references": ["aab"]}) + "\n"
    for split in SPLITS:
        (root / "data" / f"{split}.jsonl").write_text(4 * row)
    answer = json.dumps({"prompt": "ab", "completion": "abab", "finished": False}) + "\n"
    (root / "data" / "answers.jsonl").write_text(answer)
    return root


@pytest.fixture
def world(root: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return World(root, capsys)


@dataclass
class damaged:  # noqa: N801  # reads as the function that it stands for
    """A damaged file, mended after the block."""

    file: Path
    damage: Callable[[Path], object]

    def __enter__(self) -> None:
        self.kept = self.file.read_bytes()
        self.damage(self.file)

    def __exit__(self, *error: object) -> None:
        if self.file.is_dir():
            self.file.rmdir()
        self.file.write_bytes(self.kept)


def test_the_run_is_valid_before_it_is_damaged(world: World) -> None:
    for folder in FILES:
        assert world.run(world.recipe_for(folder)) == ""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", [f"{folder}/{file}" for folder, files in FILES.items() for file in files])
def test_a_damaged_file_is_named(world: World, place: str, damage: str) -> None:
    folder = place.partition("/")[0]
    recipe = world.recipe_for(folder)
    if place == "data/answers.jsonl":
        recipe = world.recipe(algorithm="ppo++", guide={"file": str(world.root / place)})
    with damaged(world.root / place, DAMAGES[damage]):
        said = world.run(recipe)
    if (place, damage) in HARMLESS:
        assert said == ""
    else:
        assert str(world.root / folder) in said


CHECKPOINT = (
    "manifest.json",
    "config.json",
    "progress.json",
    "optimizer.pt",
    "reward.pt",
    "state/shard-00001-model-00001-of-00001.safetensors",
    "policy/config.json",
    "policy/model.safetensors",
    "policy/tokenizer.json",
)


@pytest.mark.parametrize("damage", ["deleted", "empty", "truncated", "garbled", "a folder"])
def test_a_damaged_checkpoint_is_named(world: World, damage: str) -> None:
    run = world.root / "run"
    recipe = world.recipe(output=str(run))
    shutil.rmtree(run, ignore_errors=True)
    assert world.run(recipe) == ""
    for name in CHECKPOINT:
        file = run / "checkpoints" / "000001" / name
        with damaged(file, DAMAGES[damage]):
            assert str(run / "checkpoints" / "000001") in world.run(recipe, "--resume")
    assert world.run(recipe, "--resume") == ""


CONFIGS: dict[str, Any] = {
    "model_type": "unheard-of",
    "vocab_size": 77,
    "n_embd": 24,
    "n_layer": 3,
    "activation_function": "unheard-of",
    "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    "n_head": 5,
    "dtype": "unheard-of",
}


@pytest.mark.parametrize("key", CONFIGS)
@pytest.mark.parametrize("folder", ["model", "guide", "reward"])
def test_a_configuration_that_does_not_fit_its_weights_is_named(world: World, folder: str, key: str) -> None:
    file = world.root / folder / "config.json"
    told = {**json.loads(file.read_text()), key: CONFIGS[key]}
    if key == "auto_map":
        told["model_type"] = "own"
    with damaged(file, lambda file: file.write_text(json.dumps(told))):
        said = world.run(world.recipe_for(folder))
    assert str(world.root / folder) in said


@pytest.mark.parametrize("folder", ["model", "guide", "reward"])
def test_a_tokenizer_larger_than_the_embeddings_is_named(world: World, folder: str) -> None:
    letter_gpt("abcdefgh").tokenizer.save_pretrained(world.root / "larger")
    files = ("tokenizer.json", "tokenizer_config.json")
    kept = {name: (world.root / folder / name).read_bytes() for name in files}
    try:
        for name in files:
            shutil.copy(world.root / "larger" / name, world.root / folder / name)
        said = world.run(world.recipe_for(folder))
    finally:
        for name, content in kept.items():
            (world.root / folder / name).write_bytes(content)
    assert "largest token id is 8, and the model has embeddings for 3 tokens" in said


@pytest.mark.parametrize(
    "name", ["nothing", "./nothing", "nobody/nothing", "/nowhere/at/all", "", "a b", "data/train.jsonl"]
)
@pytest.mark.parametrize(
    "where", ["policy.model", "guide.model", "reward.options.folder", "evaluation.language_model.model"]
)
def test_what_is_not_there_is_named(world: World, where: str, name: str) -> None:
    said = world.run(world.recipe_for("guide"), f"{where}={name or chr(39) * 2}")
    assert name in said


VALUES: dict[str, Any] = {
    "a word": "wrong",
    "negative": -1,
    "a list": [1],
    "a mapping": {"a": 1},
    "not a number": float("nan"),
    "nothing": None,
    "an interpolation": "${nowhere}",
}


def places(section: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in section.items():
        yield (*before, key)
        if isinstance(value, dict) and value:
            yield from places(value, (*before, key))


@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_a_recipe_ends_in_a_traceback(value: str) -> None:
    """Every field of a whole recipe gets it, in front of the recipe and after it."""
    base = {
        "task": {"name": "data", "options": {"train": "a.jsonl"}},
        "policy": {"model": "m"},
        "guide": {"model": "g"},
        "reward": {"name": "model", "options": {"folder": "r"}},
        "algorithm": "ppo++",
    }
    whole = load_config(base).model_dump(mode="json")
    for number, place in enumerate(places(whole)):
        change: dict[str, Any] = {}
        inner = change
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = VALUES[value]
        said = refusal(*((change, base) if number % 2 else (base, change)))
        assert said is None or ("\n" not in said and said.endswith(".")), (place, said)


def refusal(*sources: dict[str, Any]) -> str | None:
    try:
        load_config(*sources)
    except UserError as error:
        return str(error)
    return None


RECIPES = {
    "empty": b"",
    "a list": b"- 1\n- 2\n",
    "a word": b"hello",
    "a tab": b"a:\n\t- b",
    "torn": b"policy: {model: ",
    "binary": bytes(range(256)),
    "not in UTF-8": "name: Müller".encode("latin-1"),
    "with a null byte": b"name: a\0b",
    "twice the same key": b"seed: 1\nseed: 2\n",
    "an unknown tag": b"seed: !!python/object/apply:os.system ['true']\n",
    "an alias to nothing": b"seed: *nothing\n",
    "numbers as keys": b"1: 2\n",
}


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("command", ["train", "eval", "reward", "compare"])
def test_a_damaged_recipe_is_named(world: World, command: str, kind: str) -> None:
    file = world.root / "broken.yaml"
    file.write_bytes(RECIPES[kind])
    assert world.told("rlgf", command, str(file))
    assert world.told("rlgf", command, str(world.root / "data")), "a folder"


def test_as_a_command_of_its_own(world: World) -> None:
    """In a process of its own nothing but the sentence stands on standard error."""
    file = world.root / "recipe.yaml"
    file.write_text(yaml.safe_dump(world.recipe()))
    with damaged(world.root / "model" / "model.safetensors", DAMAGES["truncated"]):
        ended = subprocess.run(
            [sys.executable, "-m", "rlgf", "train", str(file)],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            check=False,
        )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"rlgf: model '{world.root / 'model'}' cannot be loaded: ")
    assert "model.safetensors is torn" in line


def test_a_reward_folder_without_a_trained_head_is_refused(world: World) -> None:
    notes = world.root / "guide" / "reward.json"
    shutil.copy(world.root / "reward" / "reward.json", notes)
    try:
        said = world.run(world.recipe(), f"reward.options.folder={world.root / 'guide'}")
    finally:
        notes.unlink()
    assert "never trained as a reward model" in said


def test_a_weight_file_with_another_version_of_a_layer_is_refused(world: World) -> None:
    file = world.root / "adapter" / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    weights = {name: torch.cat([weight, weight]) for name, weight in load_file(file).items()}
    with damaged(file, lambda file: save_file(weights, file)):
        assert "the adapter" in world.run(world.recipe_for("adapter"))
