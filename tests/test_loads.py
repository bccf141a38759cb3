"""One thing at a time is damaged in a small valid run: each ends in one sentence and exit code 2, or is harmless."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model

from damages import DAMAGES, FILES, HARMLESS, SPLITS, World, damaged, reward_model
from rlgf.run.checkpoint import save_policy
from toys import letter_gpt


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


@pytest.mark.parametrize("folder", ["model", "guide"])
def test_a_model_without_any_tokenizer_is_said_to_have_none(
    world: World, folder: str, tmp_path: Path
) -> None:
    """The library would make one up."""
    kept = [shutil.move(file, tmp_path) for file in (world.root / folder).glob("token*")]
    try:
        said = world.run(world.recipe_for(folder))
    finally:
        for file in kept:
            shutil.move(file, world.root / folder)
    assert f"{world.root / folder} has no tokenizer, such as tokenizer.json" in said


@pytest.mark.parametrize(
    "name", ["nothing", "./nothing", "nobody/nothing", "/nowhere/at/all", "", "a b", "data/train.jsonl"]
)
@pytest.mark.parametrize(
    "where", ["policy.model", "guide.model", "reward.options.model", "evaluation.language_model.model"]
)
def test_what_is_not_there_is_named(world: World, where: str, name: str) -> None:
    said = world.run(world.recipe_for("guide"), f"{where}={name or chr(39) * 2}")
    assert name in said


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


@pytest.mark.long
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
        said = world.run(world.recipe(), f"reward.options.model={world.root / 'guide'}")
    finally:
        notes.unlink()
    assert "never trained to score texts" in said


def test_a_weight_file_with_another_version_of_a_layer_is_refused(world: World) -> None:
    file = world.root / "adapter" / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    weights = {name: torch.cat([weight, weight]) for name, weight in load_file(file).items()}
    with damaged(file, lambda file: save_file(weights, file)):
        assert "the adapter" in world.run(world.recipe_for("adapter"))
