"""The recipes of the original experiments say what the original's configuration says (github.com/Cornell-RL/tril)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rlgf.algorithms import Algorithm, Mixture, Span
from rlgf.config import Config, load_config
from rlgf.guides import LocalGuideConfig
from rlgf.models.sampling import Sampling
from rlgf.schedules import Schedule, constant

RECIPES = Path(__file__).parents[1] / "recipes"
TASKS = ("imdb", "commongen", "tldr")

ROLLOUT: dict[str, dict[str, Any]] = {
    "imdb": {
        "episodes": 112,
        "max_prompt_tokens": 64,
        "min_response_tokens": 48,
        "max_response_tokens": 48,
        "max_guide_tokens": None,
        "top_k": 50,
    },
    "commongen": {
        "episodes": 128,
        "max_prompt_tokens": 15,
        "min_response_tokens": 5,
        "max_response_tokens": 20,
        "max_guide_tokens": None,
        "top_k": None,
    },
    "tldr": {
        "episodes": 128,
        "max_prompt_tokens": 500,
        "min_response_tokens": 0,
        "max_response_tokens": 50,
        "max_guide_tokens": 20,
        "top_k": None,
    },
}
UPDATE: dict[str, dict[str, Any]] = {
    "imdb": {"epochs": 5, "minibatch": 28, "value": 0.5, "learning_rate": (1e-5, 0.0)},
    "commongen": {"epochs": 4, "minibatch": 32, "value": 30.0, "learning_rate": (5e-6, 0.0)},
    "tldr": {"epochs": 4, "minibatch": 32, "value": 0.1, "learning_rate": (5e-6, 5e-6)},
}
TRAINING = {"imdb": (50, 0.99, 0.001), "commongen": (500, 0.99, 0.0), "tldr": (1000, 1.0, 0.002)}
ROLLIN_PROB = {
    "imdb": {"ppo++": 0.6, "aggrevated": 0.8},
    "commongen": {"ppo++": 0.8, "aggrevated": 0.8},
    "tldr": {"ppo++": 0.8, "aggrevated": 1.0},
}
IMITATED = {"imdb": 20, "commongen": 100, "tldr": 200}
"""Updates of D2LOLS that are AggreVaTeD's."""


def original(task: str, *overrides: str) -> Config:
    return load_config(RECIPES / f"{task}_original.yaml", *overrides)


@pytest.mark.parametrize("task", TASKS)
def test_an_original_recipe_has_the_originals_numbers(task: str) -> None:
    config = original(task)
    assert config.task.name == task
    for name, value in ROLLOUT[task].items():
        assert getattr(config.rollout, name) == value, name
    assert (config.rollout.temperature, config.rollout.top_p) == (1.0, 1.0)
    start, end = UPDATE[task]["learning_rate"]
    assert config.update.learning_rate == Schedule(start=start, end=end)
    assert (config.update.epochs, config.update.minibatch) == (
        UPDATE[task]["epochs"],
        UPDATE[task]["minibatch"],
    )
    assert config.update.max_gradient_norm == 1.0
    assert config.training.updates == TRAINING[task][0]


@pytest.mark.parametrize("task", TASKS)
def test_the_originals_guide_is_the_start_itself(task: str) -> None:
    config = original(task)
    assert isinstance(config.guide, LocalGuideConfig)
    assert config.guide.model == config.policy.model
    assert config.guide.quantization == config.policy.quantization
    minimum = config.rollout.min_response_tokens
    assert config.guide.sampling == Sampling(top_p=0.92, top_k=config.rollout.top_k, min_tokens=minimum)


def test_the_original_of_tldr_trains_an_adapter_in_4_bits() -> None:
    policy = original("tldr").policy
    assert policy.lora is not None
    assert (policy.lora.r, policy.lora.alpha, policy.quantization) == (8, 64, "4bit")


def commands(task: str) -> dict[str, list[str]]:
    """The overrides of each command in a recipe's header, by its algorithm; those of the recipe alone are ppo++."""
    found: dict[str, list[str]] = {"ppo++": []}
    for line in (RECIPES / f"{task}_original.yaml").read_text().splitlines():
        if line.startswith("#     rlgf train "):
            overrides = shlex.split(line.removeprefix("#     rlgf train "))[1:]
            (name,) = re.findall(r"algorithm=(\S+)", " ".join(overrides))
            found[name] = overrides
    return found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("algorithm", ["ppo", "ppo++", "aggrevated", "lols", "d2lols"])
def test_every_algorithm_of_the_original_is_a_command_of_its_recipe(task: str, algorithm: str) -> None:
    made = original(task, *commands(task)[algorithm]).algorithm
    assert made.name == algorithm
    for row in made.rows:
        assert (row.whiten, row.gae_lambda, row.advantage, row.group_size) == (False, 0.95, "gae", 1)
        assert (row.gamma, row.kl.coefficient, row.kl.target) == (*TRAINING[task][1:], None)
        assert set(row.terms) == {"policy", "value", "references"}
        assert row.terms["value"].weight == constant(UPDATE[task]["value"])
        references = row.terms["references"]
        assert (references.loss, references.on, references.weight) == ("nll", Span.REFERENCES, constant(0.1))
        # The clip of ratios and of values is the default of both losses, 0.2.
        assert not any(term.options for term in row.terms.values())
    if isinstance(made, Algorithm):
        assert made.help.probability == constant(ROLLIN_PROB[task].get(algorithm, 0.0))
    if isinstance(made, Mixture):
        # Inside a mixture both rows roll in with probability 0.8, whatever they do alone.
        assert {row.name: row.help.probability for row in made.rows} == {
            "ppo++": constant(0.8),
            "aggrevated": constant(0.8),
        }
        updates = TRAINING[task][0]
        names = [made.at(update, update / updates, 0).name for update in range(updates)]
        if algorithm == "d2lols":
            assert names == ["aggrevated"] * IMITATED[task] + ["ppo++"] * (updates - IMITATED[task])
        else:
            assert made.explore_prob == constant(0.8)
