"""Reward models that several files of this folder look at; they are trained once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def letter_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from toys import letter_gpt

    folder = tmp_path_factory.mktemp("letters")
    policy = letter_gpt(layers=2)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def preference(letter_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from letter_data import letter_pairs, recipe

    from rlgf.reward_models.train import load_reward_recipe, train_reward_model

    root = tmp_path_factory.mktemp("preference")
    told = recipe(letter_folder, root, letter_pairs(512, 0), letter_pairs(128, 1))
    train_reward_model(load_reward_recipe(told))
    return root


@pytest.fixture(scope="session")
def adapter(letter_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from letter_data import letter_pairs, recipe

    from rlgf.reward_models.train import load_reward_recipe, train_reward_model

    folder = tmp_path_factory.mktemp("adapter")
    changes = {"lora": {"r": 4}, "epochs": 5}
    told = recipe(letter_folder, folder, letter_pairs(512, 0), letter_pairs(128, 1), **changes)
    assert train_reward_model(load_reward_recipe(told))["accuracy"] > 0.85
    return folder / "model"


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before a model loads."""
    monkeypatch.setattr(
        "rlgf.reward_models.train.load_scorer", lambda *arguments: pytest.fail("a model was loaded")
    )
