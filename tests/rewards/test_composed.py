"""Rewards of several terms, and what each of them says."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl_rewards import GIVEN, LENGTHS, reward_len
from trl_rewards import TEXTS as TWO_TEXTS

from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.rewards import Composed, RewardConfig, RewardInput, Term, score
from rlgf.run.build import build_parts
from rlgf.types import Author
from toys import FavouringGuide, LetterTask, letter_gpt

TEXTS = ["aab", "b", "aaaa"]
TERMS = {
    "a": {"name": "toys:share_of_a", "weight": 2.0},
    "b": {"name": f"{__name__}:count_b", "weight": -0.5},
}


def count_b(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(text.count("b")) for text in completions]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


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


def maths(completions, task, **kwargs):
    return [1.0 if kind == "maths" else None for kind in task]


def coding(completions, task, **kwargs):
    return np.array([-2.0 if kind == "coding" else None for kind in task])


def test_none_says_that_a_term_does_not_apply() -> None:
    reward = Composed({"maths": Term(maths, 3.0), "coding": Term(coding), "length": Term(reward_len, 0.0)})
    found = score(reward, RewardInput(["", ""], TWO_TEXTS, {"task": ["maths", "coding"]}))
    assert found.total.tolist() == [3, -2]
    assert found.terms["maths"].nan_to_num(-9).tolist() == [1, -9]
    assert found.terms["coding"].nan_to_num(-9).tolist() == [-9, -2]


def test_a_text_that_no_term_applies_to_is_paid_nothing_and_said() -> None:
    given = RewardInput(["", ""], TWO_TEXTS, {"task": ["poetry", "coding"]})
    reward = Composed({"maths": Term(maths), "coding": Term(coding)})
    for one in (reward, coding):
        with pytest.warns(UserWarning, match="said None of a text.*paid 0"):
            assert score(one, given).total.tolist() == [0, -2]
    assert reward([""] * 2, TWO_TEXTS, task=["poetry", "coding"]) == [None, -2.0]


@pytest.mark.parametrize("other", [-3e38, 0.0])
def test_a_sum_that_no_number_holds_is_refused_and_not_taken_for_none(other: float) -> None:
    large = Term(lambda completions: [3e38] * len(completions), 1e3)
    reward = Composed({"large": large, "other": Term(lambda completions: [other] * len(completions), 1e3)})
    with pytest.raises(UserError, match=r"no finite number: lower the weight of 'large' \(it is 1000\)"):
        score(reward, RewardInput([""], ["a"]))


def test_coroutines_of_a_sum_are_awaited_side_by_side() -> None:
    meeting: list[asyncio.Event] = []

    def waits_for_another(number: int) -> Callable[..., Any]:
        async def reward(completions, **kwargs):
            # One after the other, the first would wait for ever.
            if not meeting:
                meeting.append(asyncio.Event())
                await asyncio.wait_for(meeting[0].wait(), 10)
            else:
                meeting[0].set()
            return [float(number)] * len(completions)

        return reward

    terms = {"one": Term(waits_for_another(1)), "two": Term(waits_for_another(2)), "len": Term(reward_len)}
    assert score(Composed(terms), GIVEN).total.tolist() == [3 + length for length in LENGTHS]


def test_terms_that_do_not_apply_are_left_out_of_means(tmp_path: Path) -> None:
    def never(completions, **kwargs):
        return [None] * len(completions)

    def sometimes(completions, **kwargs):
        return [2.0 if i % 2 else None for i in range(len(completions))]

    trainer = toy_trainer(tmp_path, algorithm="grpo")
    terms = {"never": Term(never), "sometimes": Term(sometimes), "len": Term(reward_len)}
    parts = build_parts(
        trainer.config,
        task=LetterTask(),
        reward=Composed(terms),
        guide=FavouringGuide("a", 0.6),
        policy=letter_gpt(),
    )
    trainer = type(trainer)(trainer.config, parts, trainer.display)
    metrics = trainer.step()
    assert metrics["reward/sometimes"] == 2
    assert "reward/never" not in metrics
    found = trainer.evaluate(Author.POLICY, "validation")
    assert found.totals["reward/sometimes"] == 2
    assert "reward/never" not in found.totals
    assert [record["reward/sometimes"] for record in found.records[:2]] == [None, 2.0]
    found.save(tmp_path / "texts.jsonl")
    assert "NaN" not in (tmp_path / "texts.jsonl").read_text()
    assert math.isfinite(metrics["reward"])
