"""Recipes and overrides become one configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from refused_recipes import BASE, recipe, refusal, without
from rlgf.algorithms import ALGORITHMS, Algorithm, Span, algorithm_from
from rlgf.algorithms.catalog import LOLS, PPO_PLUS_PLUS
from rlgf.config import Config, load_config
from rlgf.schedules import constant


def test_later_sources_win(tmp_path: Path) -> None:
    first = recipe(tmp_path, "task: imdb\nseed: 1\nupdate: {epochs: 3, minibatch: 16}\n", "a.yaml")
    second = recipe(tmp_path, "seed: 2\nupdate: {epochs: 4}\nreward: sentiment\n", "b.yaml")
    config = load_config(first, str(second), {"policy": {"model": "gpt2"}}, "update.epochs=5", "name=x=y")
    assert (config.seed, config.update.epochs, config.update.minibatch) == (2, 5, 16)
    assert config.name == "x=y"
    assert load_config(BASE, "seed=1", {"seed": 2}).seed == 2, "a mapping wins over an earlier override too"


def test_bare_names_of_parts_leave_room_for_options(tmp_path: Path) -> None:
    options = recipe(tmp_path, "reward: {options: {scale: 2}}\n")
    config = load_config(BASE, options, "task.options.size=10")
    assert (config.task.name, config.task.options) == ("imdb", {"size": 10})
    assert (config.reward.name, config.reward.options) == ("sentiment", {"scale": 2})


def test_sources_are_left_as_they_were() -> None:
    source = {**BASE, "algorithm": "ppo++"}
    load_config(source, "algorithm.help.probability=0.3")
    assert source == {**BASE, "algorithm": "ppo++"}


def test_an_override_keeps_the_rest_of_the_row(tmp_path: Path) -> None:
    source = recipe(tmp_path, "algorithm: ppo++\n")
    changed = load_config(BASE, source, "algorithm.help.probability=0.3").algorithm
    assert changed == PPO_PLUS_PLUS.changed(help={"probability": 0.3})


def test_an_override_without_a_name_changes_the_default_row() -> None:
    changed = load_config(BASE, "algorithm.gae_lambda=0.5").algorithm
    assert changed == ALGORITHMS["ppo"].model_copy(update={"gae_lambda": 0.5})


def test_a_later_algorithm_replaces_an_earlier_one(tmp_path: Path) -> None:
    first = recipe(tmp_path, "algorithm: {base: ppo++, help: {probability: 0.3}, gae_lambda: 0.5}\n")
    assert load_config(BASE, first, "algorithm=ppo").algorithm == ALGORITHMS["ppo"]
    assert load_config(BASE, first, "algorithm=lols").algorithm == LOLS


def test_a_row_inside_a_mixture_can_be_changed() -> None:
    changed = load_config(BASE, "algorithm=lols", "algorithm.imitate.gae_lambda=0").algorithm
    imitate = LOLS.imitate.model_copy(update={"gae_lambda": 0.0})
    assert changed == LOLS.model_copy(update={"imitate": imitate})


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_yaml_of_a_configuration_loads_to_an_equal_one(tmp_path: Path, algorithm: str) -> None:
    config = load_config(
        BASE,
        f"algorithm={algorithm}",
        "update.learning_rate={start: 1e-5, end: 0, warmup: 0.1}",
        "output=some/where",
        "evaluation.language_model.model=gpt2-xl",
    )
    assert load_config(recipe(tmp_path, config.to_yaml())) == config


def test_yaml_keeps_a_name_that_looks_like_a_number(tmp_path: Path) -> None:
    config = load_config(BASE, {"name": "1e3"})
    assert load_config(recipe(tmp_path, config.to_yaml())) == config


def test_the_tokens_that_a_term_reads_are_not_a_truth_value(tmp_path: Path) -> None:
    """YAML 1.1 reads the key `on` as true."""
    term = "algorithm: {terms: {more: {loss: nll, on: references, weight: 0.1}}}\n"
    for source in (recipe(tmp_path, term), "algorithm.terms.more={loss: nll, on: references, weight: 0.1}"):
        config = load_config(BASE, source)
        assert isinstance(config.algorithm, Algorithm)
        assert config.algorithm.terms["more"].on is Span.REFERENCES
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config


def test_a_model_replaces_one_from_scratch_and_that_a_model() -> None:
    lora = {"policy": {"lora": {"r": 2}, "model": "own/model", "revision": "main"}}
    scratch = load_config(BASE, lora, "policy.scratch.layers=1").policy
    assert (scratch.model, scratch.revision) == (None, None)
    assert (scratch.scratch and scratch.scratch.layers, scratch.lora and scratch.lora.r) == (1, 2)
    model = load_config(BASE, "policy.scratch.layers=1", "policy.model=gpt2", "policy.critic=head").policy
    assert (model.model, model.scratch, model.critic) == ("gpt2", None, "head")
    assert load_config(BASE, "policy.model=gpt2", "policy.scratch=null").policy.model == "gpt2"


def test_another_algorithm_keeps_what_the_recipe_says_of_the_task() -> None:
    first = {"algorithm": {"base": "ppo", "gamma": 0.99, "terms": {"value": {"weight": 30}}}}
    changed = load_config(BASE, first, "algorithm=aggrevated").algorithm
    assert isinstance(changed, Algorithm)
    assert (changed.name, changed.gamma, changed.terms["value"].weight) == (
        "aggrevated",
        0.99,
        constant(30.0),
    )
    grouped = load_config(BASE, first, "algorithm=grpo").algorithm
    assert grouped == ALGORITHMS["grpo"].model_copy(update={"gamma": 0.99})


@pytest.mark.parametrize(
    "algorithm",
    [
        "ppo++",
        "aggrevated",
        "lols",
        "guided-rloo",
    ],
)
def test_an_algorithm_with_a_guide_asks_for_one(algorithm: str) -> None:
    override = f"algorithm={algorithm}"
    for message in (
        refusal(without("guide"), override),
        refusal(BASE, "guide=null", override),
    ):
        assert f"algorithm '{algorithm}' needs a guide" in message, "the name that the user gave"
        assert "'guide:' section" in message


def test_a_missing_reward_is_asked_for_where_it_is_needed() -> None:
    message = refusal(without("reward"))
    assert "algorithm 'ppo' needs a reward" in message
    assert "'reward:' section" in message
    assert load_config(without("reward"), "algorithm=bc").reward is None


def test_a_whole_row_replaces_an_earlier_algorithm() -> None:
    row = {"name": "mine", "script": {"rollout": "reference"}, "terms": [{"loss": "nll"}]}
    config = load_config(BASE, "algorithm=ppo++", {"algorithm": row})
    assert config.algorithm == algorithm_from(row)
    renamed = load_config(BASE, "algorithm=ppo++", "algorithm.name=other").algorithm
    assert renamed == PPO_PLUS_PLUS.model_copy(update={"name": "other"})


def test_a_recipe_of_another_command_says_which(tmp_path: Path) -> None:
    assert refusal("compare/imdb") == "compare/imdb is a comparison: run it with `rlgf compare imdb`."
    assert refusal("rewards/verdicts", "seed=1") == (
        "rewards/verdicts is the recipe of a reward model: run it with `rlgf reward verdicts`."
    )
    own = recipe(tmp_path, "settings: {a: [imdb]}\nalgorithms: {ppo: []}\nbaseline: ppo\n")
    assert refusal(own).endswith(f" is a comparison: run it with `rlgf compare {own}`.")


@pytest.mark.parametrize("top_k", [0, -1, 1])
def test_the_top_k_of_others_that_means_none_is_told_of_ours(top_k: int) -> None:
    assert refusal(BASE, f"rollout.top_k={top_k}") == (
        f"'rollout.top_k' (it is {top_k}): it must be at least 2, or null to draw from all tokens."
    )


def test_a_configuration_cannot_be_changed() -> None:
    config = load_config(BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    assert isinstance(config, Config)
