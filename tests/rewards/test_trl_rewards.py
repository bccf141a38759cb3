"""Rewards as TRL's users write them: how they are called, and what they may answer."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from resume_script import toy_trainer
from rlgf.cli import main
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.metrics import MetricResult, measure
from rlgf.rewards import Composed, Logged, RewardInput, Term, build_reward, checked_rewards, score
from rlgf.run.build import build_parts
from rlgf.types import Author, Sample
from toys import FavouringGuide, LetterTask, letter_gpt

PROMPTS, TEXTS = ["Is it good?", "And this?"], ["a good one", "a bad"]
GIVEN = RewardInput(
    PROMPTS,
    TEXTS,
    {"solution": ["one", "two"], "answer": ["x", None]},
    [("r",), ()],
    prompt_ids=[[1], [2]],
    completion_ids=[[5, 6, 7], [8]],
    finished=[True, False],
)


def said(reward: Callable[..., Any], given: RewardInput = GIVEN) -> list[float]:
    found: list[float] = checked_rewards(reward, given).tolist()
    return found


# As TRL's documentation, its own rewards and the notebooks around it write them.


def reward_len(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def accuracy_reward(completions, solution, **kwargs):
    return [float(wanted in text) for text, wanted in zip(completions, solution, strict=True)]


def completions_first(completions, prompts, **kwargs):
    return [float("good" in text) for text in completions]


def optional_column(completions, answer=None, **kwargs):
    return [float(value == "x") for value in answer]


def optional_and_missing(completions, no_column="nothing", **kwargs):
    return [float(no_column == "nothing")] * len(completions)


def by_keyword(*, completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def no_more_than_it_needs(solution, completions):
    return accuracy_reward(completions, solution)


def tokens(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def cut_short(finished, **kwargs):
    return [float(ended) for ended in finished]


def all_by_name(**kwargs):
    return [
        float(len(ids) + len(text))
        for ids, text in zip(kwargs["completion_ids"], kwargs["completions"], strict=True)
    ]


def positional_only(prompts, completions, /):
    return reward_len(completions)


def positional_only_other_way(completions, prompts, /, **kwargs):
    assert "prompts" not in kwargs
    return reward_len(completions)


def positional_only_own_names(one, other, /):
    return reward_len(other)


def anything(*args):
    return reward_len(args[1])


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def wrapped_by_position(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def with_a_client(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, client=len, **kwargs)

    return wrapper


@with_a_client
def through_a_client(completions, client, **kwargs):
    return [float(client(text)) for text in completions]


def scaled(completions, scale, **kwargs):
    return [scale * value for value in reward_len(completions)]


class Punishment:
    """As TRL's own punishment of long texts."""

    __name__ = "punishment"

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, completion_ids, **kwargs):
        return [-1.0 if len(ids) > self.limit else 0.0 for ids in completion_ids]

    def bound(self, completions, **kwargs):
        return reward_len(completions)

    @staticmethod
    def static(completions, **kwargs):
        return reward_len(completions)


class Network(nn.Module):
    def forward(self, completions):
        return torch.tensor([[float(len(text))] for text in completions], requires_grad=True)


async def asynchronous(completions, **kwargs):
    await asyncio.sleep(0)
    return reward_len(completions)


class Asynchronous:
    async def __call__(self, completions, **kwargs):
        return reward_len(completions)


LENGTHS = [float(len(text)) for text in TEXTS]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (reward_len, LENGTHS),
        (accuracy_reward, [1, 0]),
        (completions_first, [1, 0]),
        (optional_column, [1, 0]),
        (optional_and_missing, [1, 1]),
        (by_keyword, LENGTHS),
        (no_more_than_it_needs, [1, 0]),
        (tokens, [3, 1]),
        (cut_short, [1, 0]),
        (all_by_name, [13, 6]),
        (positional_only, LENGTHS),
        (positional_only_other_way, LENGTHS),
        (positional_only_own_names, LENGTHS),
        (anything, LENGTHS),
        (wrapped(reward_len), LENGTHS),
        (wrapped(no_more_than_it_needs), [1, 0]),
        (wrapped_by_position(no_more_than_it_needs), [1, 0]),
        (through_a_client, LENGTHS),
        (functools.partial(scaled, scale=2.0), [2 * length for length in LENGTHS]),
        (Punishment(2), [-1, 0]),
        (Punishment(2).bound, LENGTHS),
        (Punishment.static, LENGTHS),
        (Network(), LENGTHS),
        (lambda completions, **_: reward_len(completions), LENGTHS),
        (asynchronous, LENGTHS),
        (functools.partial(asynchronous), LENGTHS),
        (Asynchronous(), LENGTHS),
        (Composed({"length": Term(reward_len, 2.0)}), [2 * length for length in LENGTHS]),
    ],
)
def test_a_reward_is_given_what_it_takes_by_name(reward: Any, expected: list[float]) -> None:
    assert said(reward) == expected


def test_a_compiled_function_without_a_signature_gets_prompts_and_completions() -> None:
    with pytest.raises(ValueError, match="signature"):
        inspect.signature(max)
    with pytest.raises(UserError, match="'max' returned 'a good one' for completion 0"):
        said(max)


def test_what_is_not_there_is_named_with_what_is() -> None:
    def needs(completions, solutions, **kwargs):
        return [0.0] * 2

    with pytest.raises(
        UserError, match="'needs' takes 'solutions', which is not given: did you mean 'solution'"
    ) as e:
        said(needs)
    assert "completion_ids" in str(e.value)
    with pytest.raises(
        UserError, match=r"takes 'completion', which is not given: did you mean 'completions'\?"
    ):
        said(lambda completion: [0.0] * 2)
    with pytest.raises(UserError, match="takes 'completion_ids', which is not given"):
        said(tokens, RewardInput(PROMPTS, TEXTS))
    with pytest.raises(UserError, match="'Punishment' is a class: give an object of it"):
        said(Punishment)


def test_columns_with_the_names_of_what_a_reward_is_given() -> None:
    """TRL knows `finished` and `references` as columns alone; the others are its own, and hide a column."""
    seen: dict[str, Any] = {}

    def reward(**kwargs):
        seen.update(kwargs)
        return [0.0] * 2

    names = (
        "prompts",
        "completions",
        "completion_ids",
        "finished",
        "references",
        "log_metric",
        "trainer_state",
    )
    said(
        reward,
        RewardInput(
            PROMPTS, TEXTS, {name: [name] * 2 for name in names}, [(), ()], None, [[1], [2]], [True] * 2
        ),
    )
    assert {name for name in names if seen[name] == [name] * 2} == {"finished", "references", "trainer_state"}
    assert seen["completion_ids"] == [[1], [2]]
    assert callable(seen["log_metric"])


# What they answer.


@pytest.mark.parametrize(
    "answer",
    [
        [1, 2.5],
        (1, 2.5),
        np.array([1, 2.5]),
        np.array([1, 2.5], dtype=np.float16),
        np.array([[1], [2.5]]),
        [np.float32(1), np.array(2.5)],
        [np.array([1.0]), torch.tensor([2.5])],
        torch.tensor([1, 2.5], dtype=torch.bfloat16),
        torch.tensor([[1], [2.5]], requires_grad=True),
        [torch.tensor(1), torch.tensor(2.5)],
        [True, Decimal("2.5")],
        map(float, [1, 2.5]),
        {0: 1.0, 1: 2.5}.values(),
    ],
)
def test_answers_of_every_kind(answer: Any) -> None:
    assert said(lambda completions: answer) == [1.0, 2.5]


@pytest.mark.parametrize(
    "answer", [[True, False], [np.bool_(True), np.bool_(False)], np.array([True, False])]
)
def test_truths_are_numbers(answer: Any) -> None:
    assert said(lambda completions: answer) == [1.0, 0.0]


def maths(completions, task, **kwargs):
    return [1.0 if kind == "maths" else None for kind in task]


def coding(completions, task, **kwargs):
    return np.array([-2.0 if kind == "coding" else None for kind in task])


def test_none_says_that_a_term_does_not_apply() -> None:
    reward = Composed({"maths": Term(maths, 3.0), "coding": Term(coding), "length": Term(reward_len, 0.0)})
    found = score(reward, RewardInput(["", ""], TEXTS, {"task": ["maths", "coding"]}))
    assert found.total.tolist() == [3, -2]
    assert found.terms["maths"].nan_to_num(-9).tolist() == [1, -9]
    assert found.terms["coding"].nan_to_num(-9).tolist() == [-9, -2]


def test_a_text_that_no_term_applies_to_is_paid_nothing_and_said() -> None:
    given = RewardInput(["", ""], TEXTS, {"task": ["poetry", "coding"]})
    reward = Composed({"maths": Term(maths), "coding": Term(coding)})
    for one in (reward, coding):
        with pytest.warns(UserWarning, match="said None of a text.*paid 0"):
            assert score(one, given).total.tolist() == [0, -2]
    assert reward([""] * 2, TEXTS, task=["poetry", "coding"]) == [None, -2.0]


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


def test_a_coroutine_is_awaited_where_an_event_loop_runs_already() -> None:
    async def notebook() -> list[float]:
        return said(asynchronous)

    assert asyncio.run(notebook()) == LENGTHS


def test_every_call_uses_the_same_event_loop() -> None:
    loops = []

    async def reward(completions, **kwargs):
        loops.append(asyncio.get_running_loop())
        return [0.0] * 2

    said(reward)
    said(reward)
    assert loops[0] is loops[1]


def test_errors_of_rewards_come_out_as_they_are() -> None:
    async def fails(completions, **kwargs):
        raise KeyError("mine")

    def fails_at_once(completions, **kwargs):
        raise TypeError("mine too")

    with pytest.raises(KeyError, match="mine"):
        said(fails)
    with pytest.raises(TypeError, match="mine too"):
        score(Composed({"waits": Term(asynchronous), "fails": Term(fails_at_once)}), GIVEN)


# Metrics are called in the same way.


def test_metrics_take_what_they_name_and_answer_as_rewards_do() -> None:
    samples = [Sample("p", ("r",), {"n": i, "references": "hidden"}) for i in range(2)]

    def plain(completions):
        return np.array([float(len(text)) for text in completions])

    async def total(n, *, references, **columns):
        assert references == [("r",), ("r",)]
        return {"total": float(sum(n)), "each": tuple(n)}

    found = measure({"plain": plain, "several": total}, samples, TEXTS)
    assert found == {
        "plain": MetricResult.mean(LENGTHS),
        "total": MetricResult(1.0),
        "each": MetricResult(0.5, [0.0, 1.0]),
    }
    with pytest.raises(
        UserError, match=r"the metric 'wrong' takes 'completion', which is not given: did you mean"
    ):
        measure({"wrong": lambda completion: 0.0}, samples, TEXTS)
    with pytest.raises(UserError, match="must return one finite number per text"):
        measure({"wrong": lambda completions: [None, 1.0]}, samples, TEXTS)


def as_a_metric(completions):
    return [len(text) for text in completions]


def test_a_metric_of_that_kind_is_a_reward() -> None:
    assert said(build_reward("metric", {"metric": f"{__name__}:as_a_metric"})) == LENGTHS


# In a run.


def test_a_run_gives_tokens_ends_and_progress_and_keeps_what_is_logged(tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def reward(completions, completion_ids, finished, trainer_state, log_extra, log_metric, **kwargs):
        calls.append({"ids": completion_ids, "texts": completions, "finished": finished, **kwargs})
        calls[-1]["step"] = (trainer_state.global_step, trainer_state.max_steps)
        log_metric("letters", sum(map(len, completions)))
        log_extra("first", [text[:1] for text in completions])
        return [text.count("a") / 6 for text in completions]

    trainer = toy_trainer(tmp_path, algorithm="ppo")
    config = trainer.config
    parts = build_parts(
        config, task=LetterTask(), reward=reward, guide=FavouringGuide("a", 0.6), policy=letter_gpt()
    )
    trainer = type(trainer)(config, parts, trainer.display)
    trainer.train()
    tokenizer = parts.policy.tokenizer
    for call in calls:
        assert list(map(len, call["ids"])) == [
            len(text) + ended for text, ended in zip(call["texts"], call["finished"], strict=True)
        ]
        assert tokenizer.decode(call["ids"][0], skip_special_tokens=True) == call["texts"][0]
        assert call["prompt_ids"][0]
    training = [call["step"] for call in calls]
    assert training[-1] == (4, 4)
    assert {(update, 4) for update in range(4)} <= set(training)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all("letters" in line for line in lines if "reward" in line)
    assert all("validation/letters" in line for line in lines if "validation/reward" in line)
    _, *texts = map(json.loads, (tmp_path / "evaluation" / "policy.jsonl").read_text().splitlines())
    assert [text["first"] for text in texts] == [text["completion"][:1] for text in texts]


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


def test_train_with_trls_quickstart_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file that knows nothing of this library, by the command line."""
    (tmp_path / "reward.py").write_text(
        "def reward_num_unique_chars(completions, **kwargs):\n    return [len(set(c)) for c in completions]\n"
    )
    rows = "".join(
        json.dumps({"prompt": f"The film {i} is", "ground_truth": "good"}) + "\n" for i in range(24)
    )
    (tmp_path / "data.jsonl").write_text(rows)
    recipe = {
        "task": {
            "name": "data",
            "options": dict.fromkeys(("train", "validation", "test"), "data.jsonl"),
        },
        "policy": {"scratch": {"layers": 1, "width": 16, "heads": 2, "context": 64, "vocabulary": 300}},
        "reward": "reward.py:reward_num_unique_chars",
        "algorithm": "grpo",
        "rollout": {"episodes": 8, "max_prompt_tokens": 24, "max_response_tokens": 8},
        "training": {"updates": 2, "trackers": []},
        "evaluation": {"samples": 4, "test_samples": 4, "every": 2},
        "output": "run",
    }
    recipe["task"]["options"]["reference_field"] = None
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    monkeypatch.chdir(tmp_path)
    load_config("recipe.yaml")
    monkeypatch.setattr("sys.argv", ["rlgf", "train", "recipe.yaml"])
    main()
    totals = json.loads((tmp_path / "run" / "summary.json").read_text())["totals"]["policy"]
    assert totals["reward"] > 0


def test_what_is_logged_is_averaged() -> None:
    logged = Logged()

    def reward(completions, log_metric=None, **kwargs):
        log_metric("accuracy", 0.5)
        log_metric("accuracy", torch.tensor(1.0))
        return [0.0] * len(completions)

    checked_rewards(reward, GIVEN, logged)
    assert logged.metrics == {"accuracy": [0.5, 1.0]}
