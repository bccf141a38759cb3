"""Recipes and overrides become one configuration, and what is wrong in them becomes one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlgf.algorithms import ALGORITHMS, Algorithm, Span, algorithm_from
from rlgf.algorithms.catalog import LOLS, PPO_PLUS_PLUS
from rlgf.config import Config, TrainingConfig, load_config
from rlgf.errors import UserError
from rlgf.schedules import Schedule, constant

BASE: dict[str, Any] = {
    "task": "imdb",
    "policy": {"model": "gpt2"},
    "guide": {"model": "gpt2-large"},
    "reward": "sentiment",
}
Source = str | Path | dict[str, Any]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in BASE.items() if name != key}


def recipe(tmp_path: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def refusal(*sources: Source) -> str:
    """What a user is told, made sure to be one sentence on one line."""
    with pytest.raises(UserError) as caught:
        load_config(*sources)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


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


def test_a_schedule_is_a_number_or_a_mapping() -> None:
    config = load_config(
        BASE,
        "update.learning_rate=1e-4",
        "algorithm.terms.value.weight={start: 1, end: 0, shape: cosine}",
        {"algorithm": {"terms": {"entropy": {"weight": {"start": 0.01}}}}},
    )
    assert config.update.learning_rate == constant(1e-4), "YAML 1.1 would read 1e-4 as a string"
    assert isinstance(config.algorithm, Algorithm)
    terms = config.algorithm.terms
    assert terms["value"].weight == Schedule(start=1, end=0, shape="cosine")
    assert (terms["entropy"].loss, terms["entropy"].weight) == ("entropy", constant(0.01))


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


def test_default_folder_is_named_after_the_run() -> None:
    assert load_config(BASE, "name=mine").folder == Path("runs/mine")
    assert load_config(BASE, "output=there").folder == Path("there")


@pytest.mark.parametrize(
    ("override", "key", "suggestion"),
    [
        ("algoritm=ppo", "'algoritm'", "'algorithm'"),
        ("update.epoch=2", "'update.epoch'", "'epochs'"),
        ("algorithm.kl.coef=0.1", "'algorithm.kl.coef'", "'coefficient'"),
        ("guide.sampling.top_pp=0.9", "'guide.sampling.top_pp'", "'top_p'"),
        ("task.nme=imdb", "'task.nme'", "'name'"),
        ("algorithm={base: ppo, gae_lamda: 1}", "'algorithm.gae_lamda'", "'gae_lambda'"),
        ("algorithm.gae_lamda=1", "'algorithm.gae_lamda'", "'gae_lambda'"),
        ("algorithm={base: lols, imitate: {whitn: true}}", "'algorithm.imitate.whitn'", "'whiten'"),
        (
            "algorithm={base: ppo++, help: {probability: {strat: 1}}}",
            "'algorithm.help.probability.strat'",
            "'start'",
        ),
        ("update.learning_rate.strat=1", "'update.learning_rate.strat'", "'start'"),
        ("evaluation.language_model.modl=gpt2", "'evaluation.language_model.modl'", "'model'"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(override: str, key: str, suggestion: str) -> None:
    message = refusal(BASE, override)
    assert f"{key} is not a known key" in message
    assert f"did you mean {suggestion}?" in message


def test_a_misspelt_section_is_named_rather_than_called_missing() -> None:
    message = refusal({**without("policy"), "polcy": {"model": "gpt2"}})
    assert "'polcy' is not a known key: did you mean 'policy'?" in message


def test_a_key_like_no_other_gets_the_list_of_known_ones() -> None:
    message = refusal(BASE, "zzz=1")
    assert "'zzz' is not a known key" in message
    assert "did you mean" not in message
    assert "algorithm, evaluation, guide" in message


@pytest.mark.parametrize(
    ("override", "now"),
    [
        ("training.gamma=0.9", "algorithm.gamma"),
        ("training.kl.coefficient=0.1", "algorithm.kl"),
        ("rollout.group_size=4", "algorithm.group_size"),
        ("update.clip=0.1", "algorithm.terms.policy.options.clip"),
        ("update.value_coef=0.1", "algorithm.terms.value.weight"),
        ("update.reference_coef=0.1", "algorithm.terms.references"),
        ("algorithm.rollin_prob=0.1", "algorithm.help.probability"),
        ("algorithm={base: lols, explore: {rollin_prob: 0.1}}", "algorithm.explore.help.probability"),
        ("algorithm={base: lols, rollin_prob: 0.1}", "algorithm.help.probability"),
        ("algorithm={base: distill, jsd_beta: 0.1}", "algorithm.terms.distill.options.jsd_beta"),
    ],
)
def test_a_key_of_an_earlier_version_is_told_where_it_went(override: str, now: str) -> None:
    message = refusal(BASE, override)
    assert f"has moved: it is now '{now}" in message


def test_the_tokens_that_a_term_reads_are_not_a_truth_value(tmp_path: Path) -> None:
    """YAML 1.1 reads the key `on` as true."""
    term = "algorithm: {terms: {more: {loss: nll, on: references, weight: 0.1}}}\n"
    for source in (recipe(tmp_path, term), "algorithm.terms.more={loss: nll, on: references, weight: 0.1}"):
        config = load_config(BASE, source)
        assert isinstance(config.algorithm, Algorithm)
        assert config.algorithm.terms["more"].on is Span.REFERENCES
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "again.yaml") == config


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


@pytest.mark.parametrize("section", ["task", "policy"])
def test_a_missing_section_is_named(section: str) -> None:
    assert f"'{section}' is missing" in refusal(without(section))


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed=x", ["'seed'", "'x'", "integer"]),
        ("rollout.episodes=1.5", ["'rollout.episodes'", "1.5", "integer"]),
        ("rollout.episodes=0", ["'rollout.episodes'", "0", "greater than or equal to 1"]),
        ("rollout.episodes.x=3", ["'rollout.episodes'", "integer"]),
        ("rollout.temperature=0", ["'rollout.temperature'", "greater than 0"]),
        ("algorithm.gamma=1.1", ["'algorithm.gamma'", "1.1", "less than or equal to 1"]),
        ("training.trackers=[comet]", ["'training.trackers", "comet", "tensorboard"]),
        ("policy.critic=shared", ["'policy.critic'", "'shared'", "'separate' or 'head'"]),
        ("update.learning_rate=fast", ["'update.learning_rate'", "'fast'"]),
        ("update.learning_rate=true", ["'update.learning_rate'"]),
        ("update.learning_rate={start: 1, shape: sine}", ["'update.learning_rate.shape'", "cosine"]),
        ("update=3", ["'update'", "3"]),
        ("guide=gpt2", ["'guide'", "gpt2"]),
        ("guide.dtype=int8", ["'guide.dtype'", "int8", "bfloat16"]),
        ("policy.scratch.width=128", ["'policy'", "exactly one of 'model' and 'scratch'"]),
        ("policy.model=null", ["'policy'", "exactly one of 'model' and 'scratch'"]),
        ("rollout.top_p=0", ["'rollout.top_p'", "greater than 0"]),
        ("rollout.top_k=1", ["'rollout.top_k'", "greater than or equal to 2"]),
        ("rollout.min_response_tokens=60", ["'min_response_tokens' 60", "'max_response_tokens' 48"]),
        ("algorithm.group_size=3", ["'rollout.episodes' 112", "multiple of the 'algorithm.group_size' 3"]),
        ("algorithm={base: grpo, group_size: 1}", ["'group_size' must be 2 or more", "it is 1"]),
        ("algorithm=pppo", ["'pppo'", "did you mean 'ppo'?"]),
        ("algorithm={base: ppo, advantage: gea}", ["algorithm.advantage 'gea'", "did you mean 'gae'?"]),
        ("algorithm={base: ppo, advantage: 'no.such:x'}", ["algorithm.advantage", "no.such", "imported"]),
        ("algorithm={base: ppo, script: {rollout: gide}}", ["'algorithm.script.rollout'", "gide"]),
        ("algorithm={base: ppo, help: {probability: 0.3}}", ["'script.rollin' must name who writes it"]),
        ("algorithm={base: ppo, terms: {value: null}}", ["'algorithm'", "needs a critic", "'value'"]),
        ("algorithm.gae_lambda=2", ["'algorithm.gae_lambda'", "less than or equal to 1"]),
        ("algorithm=3", ["'algorithm'", "3"]),
        ("algorithm=null", ["'algorithm'"]),
        ("algorithm=[ppo]", ["'algorithm'", "ppo"]),
        ("algorithm.base=3", ["3", "ppo"]),
    ],
)
def test_a_value_that_does_not_fit_names_its_field(override: str, parts: list[str]) -> None:
    message = refusal(BASE, override)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("update.learning_rate=-1e-4", "'update.learning_rate"),
        ("update.learning_rate=.nan", "'update.learning_rate"),
        ("algorithm.kl.coefficient=inf", "'algorithm.kl.coefficient'"),
        ("algorithm={base: ppo++, help: {probability: 1.5}}", "'algorithm.help.probability"),
        ("algorithm={base: lols, explore_prob: {start: 0, end: -1}}", "'algorithm.explore_prob"),
    ],
)
def test_numbers_that_would_train_nonsense_are_refused(override: str, field: str) -> None:
    assert field in refusal(BASE, override)


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


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"task: [imdb\nseed: 1", "not valid YAML"),
        (b"task:\n\t- imdb", "not valid YAML"),
        (b"seed: 1\nseed: 2", "duplicate key seed"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- task\n- seed", "must be a mapping"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    message = refusal(BASE, path)
    assert "broken.yaml" in message
    assert part in message


def test_a_recipe_of_one_word_is_no_recipe(tmp_path: Path) -> None:
    assert "'hello'" in refusal(recipe(tmp_path, "hello\n"))


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", str(tmp_path / "nothing.yaml"), tmp_path):
        message = refusal(path)
        assert str(path) in message
        assert ("there is no recipe" if path != tmp_path else "is a folder") in message


@pytest.mark.parametrize("override", ["update.epochs=[1", "update.epochs={a: b", "seed='1", "name=${"])
def test_an_override_that_is_no_yaml_is_named(override: str) -> None:
    assert override in refusal(BASE, override)


def test_an_equals_sign_does_not_hide_a_missing_recipe(tmp_path: Path) -> None:
    path = recipe(tmp_path, "seed: 7\n", "lr=1.yaml")
    assert load_config(BASE, str(path)).seed == 7


def test_a_configuration_cannot_be_changed() -> None:
    config = load_config(BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    assert isinstance(config, Config)


def test_a_whole_row_replaces_an_earlier_algorithm() -> None:
    row = {"name": "mine", "script": {"rollout": "reference"}, "terms": [{"loss": "nll"}]}
    config = load_config(BASE, "algorithm=ppo++", {"algorithm": row})
    assert config.algorithm == algorithm_from(row)
    renamed = load_config(BASE, "algorithm=ppo++", "algorithm.name=other").algorithm
    assert renamed == PPO_PLUS_PLUS.model_copy(update={"name": "other"})


def test_a_value_that_is_no_reference_is_one_sentence() -> None:
    assert "not valid YAML" in refusal(BASE, {"name": "${"})


def test_the_share_is_that_of_whatever_is_nearest_its_end() -> None:
    plain = TrainingConfig(updates=10)
    assert [plain.share(update, 10**9, 10**9) for update in (0, 3, 10)] == [0, 0.3, 1]
    bound = TrainingConfig(updates=10, policy_tokens=400, guide_tokens=100)
    assert bound.share(1, 80, 10) == 0.2
    assert bound.share(1, 80, 50) == 0.5
    assert bound.share(1, 500, 50) == 1
    assert not plain.counts_tokens
    assert bound.counts_tokens
    assert plain.expected_updates(3, 80, 10) == 10
    assert bound.expected_updates(2, 80, 10) == 10
    assert bound.expected_updates(4, 320, 10) == 5
    assert bound.expected_updates(6, 430, 10) == 6
    assert bound.expected_updates(0, 0, 0) == 10
