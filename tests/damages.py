"""A small valid run, and the damages that can be done to it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import GPT2Config, GPT2ForSequenceClassification

from rlgf import cli
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
    ("reward/reward.json", "deleted"): "it is then a reward model as others publish them",
    ("reward/reward.json", "a folder"): "likewise",
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
            "reward": {"name": "model", "options": {"model": str(self.root / "reward")}},
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
