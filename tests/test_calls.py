"""Functions of the user's own are given, by name, what they take; coroutines are awaited."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

import pytest
import torch
from torch import nn
from trl_rewards import GIVEN, LENGTHS, PROMPTS, TEXTS, asynchronous, reward_len, said

from rlgf.calls import arguments
from rlgf.errors import UserError
from rlgf.rewards import Composed, RewardInput, Term, score


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


class Asynchronous:
    async def __call__(self, completions, **kwargs):
        return reward_len(completions)


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


def test_what_a_function_lacks_is_found_before_it_is_called() -> None:
    def right(completions, /, answer, solution=None):
        pytest.fail("called")

    given = {"completions": ["a"], "answer": ["b"], "prompts": ["c"]}
    assert arguments(right, given, ("completions",), "it") == ([["a"]], {"answer": ["b"]})
    with pytest.raises(UserError, match="it takes 'answer', which is not given"):
        arguments(right, {"completions": ["a"]}, ("completions",), "it")
