"""From what a recipe says under `reward:` to a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from counting_rewards import TEXTS

from chat_toys import ASKED, GOOD, USER
from refused_recipes import BASE, refusal
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.registry import resolve
from rlgf.rewards import (
    REWARDS,
    Composed,
    Judge,
    Logged,
    Reward,
    RewardConfig,
    RewardInput,
    Sentiment,
    build_reward,
    checked_rewards,
)
from rlgf.rewards.build import TermConfig, check_weights
from rlgf.run.build import build_parts
from toys import FavouringGuide, LetterTask, letter_gpt


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"sentiment": 1}, {"sentiment": (None, 1.0)}),
        ({"mood": "sentiment"}, {"mood": ("sentiment", 1.0)}),
        ({"sentiment": {"weight": 0.1}}, {"sentiment": (None, 0.1)}),
    ],
)
def test_short_forms_of_terms(terms: dict[str, Any], expected: dict[str, Any]) -> None:
    config = load_config({**BASE, "reward": {"terms": terms}}).reward
    assert config is not None
    assert config.terms is not None
    assert {key: (term.name, term.weight) for key, term in config.terms.items()} == expected


def test_another_reward_does_not_get_the_options_of_the_one_before() -> None:
    first = {"task": "imdb", "policy": {"model": "x"}, "reward": {"name": "length", "options": {"target": 4}}}
    assert load_config(first, "reward.name=sentiment").reward == RewardConfig(name="sentiment")
    assert load_config(first, {"reward": "length"}, "reward.clip=[-1, 0]").reward == RewardConfig(
        name="length", options={"target": 4}, clip=(-1, 0)
    )


def test_a_judge_takes_options_as_a_reward_does() -> None:
    judged = {**BASE, "evaluation": {"judge": {"name": "length", "options": {"target": 4}}}}
    for over, expected in (
        ({}, {"name": "length", "options": {"target": 4}}),
        ("evaluation.judge.options.target=5", {"name": "length", "options": {"target": 5}}),
        ("evaluation.judge=length", {"name": "length", "options": {"target": 4}}),
        ("evaluation.judge=sentiment", {"name": "sentiment", "options": {}}),
    ):
        judge = load_config(judged, over).evaluation.judge
        assert judge is not None
        assert judge.model_dump() == expected
    assert load_config(judged, "evaluation.judge=null").evaluation.judge is None


def test_a_judge_without_options_is_written_by_its_name() -> None:
    for judge in ("length", {"name": "length", "options": {"target": 4}}):
        assert (
            load_config(BASE, {"evaluation": {"judge": judge}}).model_dump()["evaluation"]["judge"] == judge
        )


def test_one_reward_replaces_terms_and_terms_replace_one_reward() -> None:
    terms = {"reward": {"terms": {"sentiment": 1.0}, "normalize": True}}
    later = load_config(BASE, terms).reward
    assert later is not None
    assert (later.name, later.normalize) == (None, True)
    back = load_config(BASE, terms, "reward=judge").reward
    assert back is not None
    assert (back.name, back.terms, back.normalize) == ("judge", None, True)
    tuned = load_config(BASE, terms, "reward.terms.sentiment.weight=3", "reward.terms.length=0.5").reward
    assert tuned is not None
    assert {key: term.weight for key, term in (tuned.terms or {}).items()} == {"sentiment": 3, "length": 0.5}


@pytest.mark.parametrize(
    ("reward", "parts"),
    [
        ({"name": "sentiment", "terms": {"length": 1}}, ["'reward'", "exactly one of 'name' and 'terms'"]),
        ({"normalize": True}, ["'reward'", "exactly one of 'name' and 'terms'"]),
        ({"terms": {}}, ["'reward.terms'"]),
        ({"terms": {"length": 1}, "options": {"target": 3}}, ["'options'", "each of the 'terms'"]),
        ({"name": "sentiment", "clip": [1, -1]}, ["'clip'", "[1.0, -1.0]"]),
        ({"name": "sentiment", "clip": 3}, ["'reward.clip'", "list"]),
        ({"terms": {"length": {"weight": float("nan")}}}, ["'reward.terms.length.weight'"]),
        ({"terms": {"length": {"wieght": 1}}}, ["'reward.terms.length.wieght'", "did you mean 'weight'?"]),
    ],
)
def test_a_reward_section_that_does_not_fit_is_one_sentence(reward: dict[str, Any], parts: list[str]) -> None:
    message = refusal({**BASE, "reward": reward})
    for part in parts:
        assert part in message


def test_a_recipe_builds_the_composed_reward(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand"},
            "reward": {"terms": {"short": {"name": "length", "options": {"target": 0}}}, "clip": [-2, 2]},
            "rollout": {"episodes": 4, "max_prompt_tokens": 4, "max_response_tokens": 6},
        }
    )
    parts = build_parts(config, task=LetterTask(), guide=FavouringGuide("a", 0.6), policy=letter_gpt())
    assert isinstance(parts.assessor.reward, Composed)
    assert parts.assessor.scale.clip == (-2, 2)


def lengths(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
    return [float(len(text)) for text in completions]


NO_REWARD = 3


def test_functions_are_used_as_they_are_and_classes_are_built() -> None:
    function = build_reward(f"{__name__}:lengths", {})
    assert isinstance(function, Reward)
    assert checked_rewards(function, RewardInput(TEXTS, TEXTS, {})).tolist() == [1.0, 2.0, 3.0]
    built = build_reward("counting_rewards:Returns", {"answer": [4.0]})
    assert built(["x"], ["y"]) == [4.0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sentimnt", {}, r"reward 'sentimnt' is not known: did you mean 'sentiment'\?"),
        ("sentiment", {"treshold": 0.9}, r"no option 'treshold': did you mean 'threshold'\?"),
        ("sentiment", {"threshold": 1.5}, r"option 'threshold' \(it is 1\.5\): .*less than 1"),
        ("sentiment", {"threshold": "high"}, r"option 'threshold' \(it is 'high'\)"),
        ("judge", {"threshold": 0.9}, r"no option 'threshold'"),
        (f"{__name__}:lengths", {"power": 2}, r"is a function, so it takes no options \(given: power\)"),
        ("counting_rewards:Returns", {}, r"needs the option 'answer'"),
        (f"{__name__}:NO_REWARD", {}, r"cannot be called"),
    ],
)
def test_wrong_names_and_options_are_one_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_reward(name, options)
    assert "\n" not in str(caught.value)


def test_rewards_have_their_names() -> None:
    assert {name: resolve(name, REWARDS, "reward") for name in ("sentiment", "judge")} == {
        "sentiment": Sentiment,
        "judge": Judge,
    }


def test_built_in_rewards_read_texts() -> None:
    chat = RewardInput(["<user>the film?"], ["one two three four"], references=[("a",)], messages=[(USER,)])
    length = resolve("length", REWARDS, "reward")(target=3)
    assert checked_rewards(length, chat).tolist() == [-1.0]
    assert chat.arguments(Logged(), as_text=True)["prompts"] == ["<user>the film?"]
    assert checked_rewards(resolve("metric", REWARDS, "reward")(metric="words"), chat).tolist() == [4.0]
    for name in ("sentiment", "judge", "discriminator", "metric", "length"):
        assert resolve(name, REWARDS, "reward").reads_text, name
    passed_on = RewardInput([ASKED], [[GOOD]])
    assert checked_rewards(resolve("length", REWARDS, "reward")(target=0), passed_on).tolist() == [-2.0]


def test_a_term_and_a_guide_of_one_name_are_refused() -> None:
    guides = {"guides": {"length": {"model": "gpt2"}, "other": {"model": "gpt2"}}}
    message = refusal({**BASE, "guide": guides, "reward": {"terms": {"length": {"options": {"target": 3}}}}})
    assert "both called 'length'" in message


def test_weights_of_rewards_given_in_python_name_no_other_reward() -> None:
    weight, two = TermConfig(weight=0.5), TermConfig(name="two")
    check_weights({"rew": weight}, ["rew"])
    for terms, said in (
        (
            {"rew": weight, "nun": weight},
            "'reward.terms' names 'nun', and the rewards given in Python are rew",
        ),
        ({"rew": two}, "'reward.terms.rew' names a reward, and the one of that name is given in Python"),
        ({"rew": TermConfig(options={"a": 1})}, "set its weight alone, such as rew: 0.5"),
    ):
        with pytest.raises(UserError, match=said):
            check_weights(terms, ["rew"])
