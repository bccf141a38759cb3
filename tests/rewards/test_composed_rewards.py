"""Rewards of several terms, what is paid of them, and the built-in rewards that count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resume_script import toy_trainer
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.rewards import Composed, RewardConfig, RewardInput, Scale, Term, build_reward, score
from rlgf.run.build import build_parts
from rlgf.types import Author
from test_config import BASE, refusal
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a

TEXTS = ["aab", "b", "aaaa"]
TERMS = {
    "a": {"name": "toys:share_of_a", "weight": 2.0},
    "b": {"name": f"{__name__}:count_b", "weight": -0.5},
}


def count_b(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(text.count("b")) for text in completions]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# The weighted sum.


def test_a_composed_reward_is_the_weighted_sum_of_its_terms() -> None:
    reward = RewardConfig.model_validate({"terms": TERMS}).build()
    found = score(reward, RewardInput(TEXTS, TEXTS, {}, [()] * 3))
    assert found.terms["a"].tolist() == pytest.approx([2 / 3, 0, 1])
    assert found.terms["b"].tolist() == [1, 1, 0]
    assert found.total.tolist() == pytest.approx([2 * 2 / 3 - 0.5, -0.5, 2])
    assert reward(TEXTS, TEXTS) == pytest.approx(found.total.tolist()), "it is a plain reward too"


def test_only_the_terms_that_take_references_get_them() -> None:
    def overlap(prompts: list[str], completions: list[str], references: list[Any]) -> list[float]:
        return [float(text in texts) for text, texts in zip(completions, references, strict=True)]

    reward = Composed({"overlap": Term(overlap), "b": Term(count_b)})
    assert score(reward, RewardInput(TEXTS, TEXTS, {}, [("aab",), ("x",), ()])).terms["overlap"].tolist() == [
        1,
        0,
        0,
    ]
    assert reward(TEXTS, TEXTS, references=[("aab",), ("x",), ()]) == [2, 1, 0]


def test_a_term_that_answers_wrongly_is_named() -> None:
    reward = Composed({"bad": Term(lambda prompts, completions, **columns: [1.0]), "b": Term(count_b)})
    with pytest.raises(UserError, match="returned 1 values for 3 completions"):
        score(reward, RewardInput(TEXTS, TEXTS, {}, [()] * 3))


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


def test_a_term_and_a_guide_of_one_name_are_refused() -> None:
    guides = {"guides": {"length": {"model": "gpt2"}, "other": {"model": "gpt2"}}}
    message = refusal({**BASE, "guide": guides, "reward": {"terms": {"length": {"options": {"target": 3}}}}})
    assert "both called 'length'" in message


# What is paid.


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), min_size=1, max_size=6))
def test_the_running_moments_are_those_of_all_rewards_so_far(batches: list[list[float]]) -> None:
    scale = Scale(normalize=True)
    for number, batch in enumerate(batches, start=1):
        paid = scale.pay(torch.tensor(batch))
        so_far = torch.tensor([r for seen in batches[:number] for r in seen], dtype=torch.float64)
        mean, std = float(so_far.mean()), float(so_far.var(unbiased=False).sqrt())
        assert scale.mean == pytest.approx(mean, abs=1e-6)
        assert scale.std == pytest.approx(std, abs=1e-5)
        if std > 1e-3:
            torch.testing.assert_close(paid, (torch.tensor(batch) - mean) / std, atol=1e-3, rtol=1e-3)


def test_rewards_that_are_all_the_same_pay_nothing() -> None:
    paid = Scale(normalize=True).pay(torch.full((7,), 0.1))
    assert paid.abs().max() < 1e-3


def test_clipping_comes_after_normalizing() -> None:
    rewards = torch.tensor([0.0, 0.0, 0.0, 0.0, 100.0])
    assert Scale(normalize=True, clip=(-0.25, 1.5)).pay(rewards).tolist() == [-0.25] * 4 + [1.5]
    assert Scale(clip=(-1.0, 50.0)).pay(rewards).tolist() == [0, 0, 0, 0, 50]


def test_a_saved_scale_goes_on_as_if_nothing_had_happened() -> None:
    one, other = Scale(normalize=True), Scale(normalize=True)
    one.pay(torch.tensor([1.0, 2.0, 5.0]))
    other.load_state_dict(one.state_dict())
    late = torch.tensor([3.0, -1.0])
    assert torch.equal(one.pay(late), other.pay(late))
    assert one.state_dict() == other.state_dict()


def test_what_is_paid_reaches_the_advantages_and_what_is_said_the_log(tmp_path: Path) -> None:
    trainer = toy_trainer(
        tmp_path,
        reward={"terms": TERMS, "normalize": True, "clip": [-1, 1]},
        algorithm={"base": "grpo", "kl": {"coefficient": 0.0}},
    )
    row = trainer.row()
    experience = trainer.assess(trainer.collect(trainer.batch(), row), row)
    said = experience.scored.rewards
    terms = experience.scored.reward_terms
    assert said.tolist() == pytest.approx((2 * terms["a"] - 0.5 * terms["b"]).tolist(), abs=1e-6)
    paid = ((said - said.mean()) / said.std(unbiased=False)).clamp(-1, 1)
    torch.testing.assert_close(experience.token_rewards.sum(dim=1), paid, atol=1e-5, rtol=1e-5)
    for group in experience.rollout.group.unique():
        rows = experience.rollout.group == group
        centred = paid[rows] - paid[rows].mean()
        if paid[rows].std() > 1e-3:
            expected = centred / paid[rows].std(unbiased=False)
            found = experience.advantages[rows, 0]
            assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.999
            torch.testing.assert_close(found / expected, torch.full_like(found, 1.0), atol=0.2, rtol=0)


def test_terms_are_logged_apart_in_training_and_in_evaluation(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, reward={"terms": TERMS, "normalize": True})
    trainer.train()
    for line in lines(tmp_path):
        prefix = "" if "reward" in line else "validation/"
        total = 2 * line[f"{prefix}reward/a"] - 0.5 * line[f"{prefix}reward/b"]
        assert line[f"{prefix}reward"] == pytest.approx(total, abs=1e-5)
        assert ("running_reward_mean" in line) == (prefix == "")
    totals, *texts = map(json.loads, (tmp_path / "evaluation" / "policy.jsonl").read_text().splitlines())
    assert {"reward", "reward/a", "reward/b"} <= totals["totals"].keys()
    assert [text["reward/b"] for text in texts] == [text["completion"].count("b") for text in texts]


def test_evaluation_leaves_the_running_moments_alone(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, reward={"terms": TERMS, "normalize": True})
    trainer.step()
    before = trainer.parts.assessor.scale.state_dict()
    found = trainer.evaluate(Author.POLICY, "validation")
    assert trainer.parts.assessor.scale.state_dict() == before
    texts = [record["completion"] for record in found.records]
    expected = [2 * a - 0.5 * b for a, b in zip(share_of_a([], texts), count_b([], texts), strict=True)]
    assert [record["reward"] for record in found.records] == pytest.approx(expected, abs=1e-5)


# The built-in rewards that count.


def test_length_counts_the_words_over_the_target() -> None:
    reward = build_reward("length", {"target": 2})
    assert reward([""] * 4, ["", "one two", "one  two\nthree", "a b c d e"]) == [0, 0, -1, -3]


def test_a_metric_pays_what_it_says_of_each_text() -> None:
    reward = build_reward("metric", {"metric": "words"})
    assert score(
        reward, RewardInput(["", ""], ["one two", "one"], {"label": [1, 2]}, [(), ()])
    ).total.tolist() == [2, 1]


def several(
    prompts: list[str], completions: list[str], references: list[Any], **columns: list[Any]
) -> dict[str, Any]:
    return {
        "first": [float(len(texts)) for texts in references],
        "second": [float(value) for value in columns["n"]],
        "total": 3.0,
    }


@pytest.mark.parametrize(("key", "expected"), [("first", [1, 0]), ("second", [5, 6])])
def test_a_metric_gets_references_and_columns(key: str, expected: list[float]) -> None:
    reward = build_reward("metric", {"metric": f"{__name__}:several", "key": key})
    assert (
        score(reward, RewardInput(["", ""], ["", ""], {"n": [5, 6]}, [("r",), ()])).total.tolist() == expected
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "wrods"}, "metric 'wrods' is not known: did you mean 'words'?"),
        (
            {"metric": "distinct"},
            "'distinct' cannot be a reward: it has totals alone (distinct_1, distinct_2, distinct_3)",
        ),
        ({"metric": f"{__name__}:several"}, "option 'key' (it is None): .*: first, second"),
        (
            {"metric": f"{__name__}:several", "key": "total"},
            "option 'key' (it is 'total'): .*: first, second",
        ),
        ({}, "needs the option 'metric'"),
    ],
)
def test_a_metric_that_cannot_be_paid_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        score(build_reward("metric", options), RewardInput([""], [""], {"n": [1]}, [()]))
    start, _, end = message.partition(".*")
    assert start in str(caught.value)
    assert end in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reward_that_cannot_be_paid_is_refused_before_a_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("rlgf.run.build.load_language_model", load)
    config = Config.model_validate(
        {
            "task": {"name": "toys:LetterTask"},
            "policy": {"scratch": {}},
            "reward": {"name": "metric", "options": {"metric": "distinct"}},
        }
    )
    with pytest.raises(UserError, match="cannot be a reward"):
        build_parts(config, task=LetterTask())


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
