"""Reading recipes, laying one over another, and what is wrong in them as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unfit_parts import SOUND

from refused_recipes import BASE, recipe, refusal, without
from rlgf.config import load_config
from rlgf.errors import RefusedError, UserError
from rlgf.recipe import laid_over

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
        "reward": {"name": "model", "options": {"model": "r"}},
        "algorithm": "ppo++",
    }
    whole = load_config(base).model_dump(mode="json")
    for number, place in enumerate(places(whole)):
        change: dict[str, Any] = {}
        inner = change
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = VALUES[value]
        said = what_is_said_of(*((change, base) if number % 2 else (base, change)))
        assert said is None or ("\n" not in said and said.endswith(".")), (place, said)


def what_is_said_of(*sources: dict[str, Any]) -> str | None:
    try:
        load_config(*sources)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("change", "key", "kind"),
    [
        ({"update": {"epochs": np.int64(3)}}, "update.epochs", "int64"),
        ({"reward": {"name": len}}, "reward.name", "builtin_function_or_method"),
    ],
)
def test_an_object_in_a_recipe_is_named_with_its_field(change: dict[str, Any], key: str, kind: str) -> None:
    assert refusal(BASE, change).startswith(f"'{key}' is an object of the class {kind}: a recipe holds plain")


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
        ("algorithm.terms.policy.wieght=2", "'algorithm.terms.policy.wieght'", "'weight'"),
        ("evaluation.metrics=[{name: words, option: {}}]", "'evaluation.metrics.0.option'", "'options'"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(override: str, key: str, suggestion: str) -> None:
    message = refusal(BASE, override)
    assert f"{key} is not a known key" in message
    assert f"did you mean {suggestion}?" in message


def test_a_misspelt_section_is_named_rather_than_called_missing() -> None:
    message = refusal({**without("policy"), "polcy": {"model": "gpt2"}})
    assert "'polcy' is not a known key: did you mean 'policy'?" in message


@pytest.mark.parametrize(
    ("override", "places"),
    [
        ("epochs=2", "'update.epochs'"),
        ("training.minibatch=2", "'update.minibatch'"),
        ("training.seed=2", "'seed' and 'guide.seed'"),
        ("help.probability=0.5", "'algorithm.help'"),
        ("temperature=0.5", "'guide.temperature' and 'rollout.temperature'"),
    ],
)
def test_a_key_of_another_section_is_told_where_it_belongs(override: str, places: str) -> None:
    key = override.partition("=")[0].removesuffix(".probability")
    assert f"'{key}' is not a known key: there is {places}." in refusal(BASE, override)


def test_a_key_like_no_other_gets_the_list_of_known_ones() -> None:
    message = refusal(BASE, "zzz=1")
    assert "'zzz' is not a known key" in message
    assert "did you mean" not in message
    assert "algorithm, environment, evaluation, guide" in message


def test_a_list_and_a_mapping_take_each_others_place() -> None:
    earlier = {"a": {"b": 1}, "c": [1], "d": {"e": [1], "f": {"g": 2}}, "h": 3}
    assert laid_over(earlier, {"a": [2], "d": {"e": {"x": 1}, "f": {"y": 2}}}) == {
        "a": [2],
        "c": [1],
        "d": {"e": {"x": 1}, "f": {"g": 2, "y": 2}},
        "h": 3,
    }
    assert "'reward' (it is ['sentiment', 'length']): it must be a mapping" in refusal(
        BASE, "reward=[sentiment, length]"
    )


def test_options_of_your_own_may_be_true_whatever_they_are_called() -> None:
    own = {"guide": {"name": "toys:FavouringGuide", "options": {"favourite": "a", "candidates": True}}}
    assert "it must be a number" not in str(what_is_said_of(BASE, own))


@pytest.mark.parametrize("section", ["task", "policy"])
def test_a_missing_section_is_named(section: str) -> None:
    assert f"'{section}' is missing" in refusal(without(section))


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed=x", ["'seed'", "'x'", "whole number"]),
        ("rollout.episodes=1.5", ["'rollout.episodes'", "1.5", "whole number"]),
        ("rollout.episodes=0", ["'rollout.episodes'", "0", "at least 1"]),
        ("rollout.episodes.x=3", ["'rollout.episodes'", "whole number"]),
        ("rollout.episodes=yes", ["'rollout.episodes' (it is true): it must be a number."]),
        ("rollout.top_k=false", ["'rollout.top_k' (it is false): it must be a number."]),
        ("algorithm={base: ppo, kl: {coefficient: true}}", ["'algorithm.kl.coefficient' (it is true)"]),
        ("algorithm.gae_lambda=true", ["'algorithm.gae_lambda' (it is true)"]),
        (
            "guide={guides: {a: {url: http://h/v1, model: m, top_p: true}, b: {model: m}}}",
            ["'guide.guides.a.top_p' (it is true)"],
        ),
        ("rollout.temperature=0", ["'rollout.temperature'", "at least 0.01"]),
        ("rollout.temperature=1e-300", ["'rollout.temperature'", "at least 0.01"]),
        ("rollout.temperature=.inf", ["'rollout.temperature'", "finite number"]),
        ("algorithm.gamma=1.1", ["'algorithm.gamma'", "1.1", "at most 1"]),
        ("training.trackers=tensorboard", ["'training.trackers'", "a list, such as [tensorboard]"]),
        ("training.trackers=none", ["it must be a list, such as [tensorboard]; [] is none."]),
        ("training.trackers=wandb", ["it must be a list, such as [wandb]; [] is none."]),
        ("training.trackers=null", ["'training.trackers'", "a list, such as [], which is empty"]),
        ("output=~/runs", ["'output'", "'~' is not expanded in a recipe"]),
        ("output=true", ["'output'", "it must be a path"]),
        ('output="runs/a\\0b"', ["'output'", "must not hold the character NUL"]),
        ('name="a\\0b"', ["'name'", "must not hold the character NUL"]),
        ("evaluation.metrics=[null]", ["'evaluation.metrics.0'", "with keys such as name, options"]),
        (
            "algorithm={base: ppo, explore_prob: 1}",
            ["'algorithm.explore_prob' does not go with the other keys"],
        ),
        ("guide={url: u, file: a.jsonl}", ["'guide.file' does not go with the other keys of 'guide'"]),
        ("algorithm={explore: ppo, imitate: bc}", ["a mixture: give it a 'name', or a 'base'"]),
        ("training.trackers=[comet]", ["'training.trackers", "comet", "tensorboard"]),
        ("policy.critic=shared", ["'policy.critic'", "'shared'", "'separate' or 'head'"]),
        ("update.learning_rate=fast", ["'update.learning_rate'", "'fast'"]),
        ("update.learning_rate=true", ["'update.learning_rate'"]),
        ("update.learning_rate={start: 1, shape: sine}", ["'update.learning_rate.shape'", "cosine"]),
        ("update=3", ["'update'", "3"]),
        ("guide=gpt2", ["'guide'", "gpt2"]),
        ("guide.dtype=int8", ["'guide.dtype'", "int8", "bfloat16"]),
        (
            "policy={model: gpt2, scratch: {}}",
            ["'policy'", "exactly one of 'model' and 'scratch' (null takes"],
        ),
        ("policy.model=null", ["'policy'", "exactly one of 'model' and 'scratch'"]),
        ("rollout.top_p=0", ["'rollout.top_p'", "more than 0"]),
        ("rollout.top_k=1", ["'rollout.top_k'", "at least 2, or null"]),
        ("rollout.min_response_tokens=60", ["'min_response_tokens' 60", "'max_response_tokens' 48"]),
        ("algorithm.group_size=3", ["'rollout.episodes' 112", "multiple of the 'algorithm.group_size' 3"]),
        ("algorithm={base: grpo, group_size: 1}", ["'group_size' must be 2 or more", "it is 1"]),
        ("algorithm=pppo", ["'pppo'", "did you mean 'ppo'?"]),
        ("algorithm={base: ppo, advantage: gea}", ["algorithm.advantage 'gea'", "did you mean 'gae'?"]),
        ("algorithm={base: ppo, advantage: 'no.such:x'}", ["algorithm.advantage", "no.such", "imported"]),
        ("algorithm={base: ppo, script: {rollout: gide}}", ["'algorithm.script.rollout'", "gide"]),
        ("algorithm={base: ppo, help: {probability: 0.3}}", ["'script.rollin' must name who writes it"]),
        ("algorithm={base: ppo, terms: {value: null}}", ["'algorithm'", "needs a critic", "'value'"]),
        ("algorithm.gae_lambda=2", ["'algorithm.gae_lambda'", "a number from 0 to 1, or 'adaptive'"]),
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
    ("content", "part"),
    [
        (b"task: [imdb\nseed: 1", "not valid YAML"),
        (b"task:\n\t- imdb", "line 2, column 1: there is a tab, and YAML is indented by spaces."),
        (b"seed: 1\nseed: 2", "duplicate key seed"),
        (b"\xff\xfe\x00", "is not in UTF-8 (invalid start byte): save it as UTF-8."),
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


def test_an_override_may_be_longer_than_a_file_name(tmp_path: Path) -> None:
    assert load_config(BASE, "name=" + "long" * 100).name == "long" * 100
    assert "there is no recipe" in refusal("long" * 100)


def test_a_value_that_is_no_reference_is_one_sentence() -> None:
    assert "not valid YAML" in refusal(BASE, {"name": "${"})


def test_everything_that_is_wrong_is_said_at_once_and_the_first_is_the_error() -> None:
    with pytest.raises(RefusedError) as caught:
        load_config(SOUND, "reward=null", "guide=null", "algorithm=guided-grpo", "rollout.episodes=6")
    assert len(caught.value.sentences) == 3
    assert str(caught.value) == caught.value.sentences[0]
    with pytest.raises(RefusedError) as caught:
        load_config(SOUND, "sed=1", "update.epochs=0", "rollout.top_p=2")
    assert [s.split("'")[1] for s in caught.value.sentences] == ["sed", "rollout.top_p", "update.epochs"]


def test_a_misspelled_key_is_not_also_a_missing_one() -> None:
    source = {key: value for key, value in SOUND.items() if key != "task"}
    with pytest.raises(RefusedError) as caught:
        load_config(source, {"taks": "imdb"})
    assert len(caught.value.sentences) == 1
