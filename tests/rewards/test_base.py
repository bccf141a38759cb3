"""What a reward is given and what it may answer, as TRL's users write rewards."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from counting_rewards import TEXTS, Counting, Returns
from torch import nn
from trl_rewards import GIVEN, said

from chat_toys import ASKED, GOOD, SYSTEM, USER, trl_format_reward
from rlgf.errors import UserError
from rlgf.rewards import Composed, Logged, Reward, RewardInput, Term, checked_rewards
from rlgf.rewards.base import LearnedReward, PolicyReadingReward, StatefulReward, keeps_state, learned
from rlgf.rewards.discriminator import Discriminator
from rlgf.types import Message, Rollout
from toys import share_of_a, written


def test_what_a_reward_can_do_shows_in_its_methods() -> None:
    assert isinstance(Counting(), Reward)
    assert isinstance(share_of_a, Reward)
    assert not isinstance(object(), Reward)
    assert isinstance(Counting(), LearnedReward)
    assert not isinstance(Counting(), PolicyReadingReward)
    assert not isinstance(share_of_a, StatefulReward)
    assert isinstance(Discriminator(), LearnedReward)
    assert isinstance(Discriminator(), PolicyReadingReward)


def without_columns(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    "answer", [[1.0, -2.5, 0.0], [1, True, 0.5], torch.tensor([1.0, 2, 3]), np.array([1, 2, 3])]
)
def test_good_answers_become_float32(answer: Any) -> None:
    found = checked_rewards(Returns(answer), RewardInput(TEXTS, TEXTS, {}))
    assert found.dtype == torch.float32
    assert found.tolist() == [float(value) for value in answer]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            [1.0, 2.0],
            r"the reward 'Returns' returned 2 values for 3 completions: .*one number per completion",
        ),
        ([1.0] * 4, r"returned 4 values for 3"),
        (None, r"returned None for 3 completions"),
        (dict.fromkeys("abc", "x" * 50), r"returned .{60} for 3 completions"),
        (0.5, r"returned 0\.5 for 3 completions"),
        ([1.0, float("nan"), float("inf")], r"returned nan for completion 1: .*finite"),
        ([1.0, 2.0, float("-inf")], r"returned -inf for completion 2"),
        ([1.0, 2.0, 1e39], r"returned 1e\+39 for completion 2"),
        (["good", 2.0, 3.0], r"returned 'good' for completion 0"),
        (torch.tensor([[1.0, 2.0]] * 3), r"returned \[1\.0, 2\.0\] for completion 0"),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, r"returned \{.*\} for 3 completions"),
        ("abc", r"returned 'abc' for 3 completions"),
        (np.array(["a", "b", "c"]), r"returned 'a' for completion 0"),
        ([1.0, 2.0, 1j], r"returned 1j for completion 2"),
        ([1.0, 2.0, 10**400], r"returned 1000+ for completion 2"),
    ],
)
def test_bad_answers_are_one_sentence(answer: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        checked_rewards(Returns(answer), RewardInput(TEXTS, TEXTS, {}))
    assert "\n" not in str(caught.value)


def test_columns_come_as_keywords() -> None:
    seen = {}

    def reward(
        prompts: list[str], completions: list[str], label: list[str], **rest: list[Any]
    ) -> list[float]:
        seen.update(prompts=prompts, completions=completions, label=label, rest=rest)
        return [1.0, 2.0]

    logged = Logged()
    checked_rewards(reward, RewardInput(["p", "q"], ["c", "d"], {"label": ["x", "y"], "n": [1, 2]}), logged)
    assert seen == {
        "prompts": ["p", "q"],
        "completions": ["c", "d"],
        "label": ["x", "y"],
        "rest": {"n": [1, 2], "log_extra": logged.log_extra, "log_metric": logged.log_metric},
    }


def test_a_reward_cannot_change_the_data() -> None:
    tests = ["a", "b"]

    def pops(completions: list[str], tests: list[list[str]]) -> list[float]:
        return [float(len(one.pop()) + len(one)) for one in tests]

    # Of a group all completions have the same list.
    given = RewardInput(["", ""], ["x", "y"], {"tests": [tests, tests]})
    assert checked_rewards(pops, given).tolist() == checked_rewards(pops, given).tolist() == [2, 2]
    assert tests == ["a", "b"]


def test_columns_that_a_reward_does_not_take_are_kept_from_it() -> None:
    assert (
        checked_rewards(without_columns, RewardInput(TEXTS, TEXTS, {"label": ["x"] * 3})).tolist()
        == [0.0] * 3
    )


REFERENCES = [("r",), ("s", "t"), ()]


def test_references_come_to_a_reward_that_takes_them() -> None:
    seen: list[Any] = []

    def by_name(prompts: list[str], completions: list[str], references: list[Any]) -> list[float]:
        seen.append(references)
        return [0.0] * 3

    def among_columns(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        seen.append(columns["references"])
        return [0.0] * 3

    for reward in (by_name, among_columns):
        checked_rewards(reward, RewardInput(TEXTS, TEXTS, {}, REFERENCES))
    assert seen == [REFERENCES, REFERENCES]
    own: dict[str, Any] = {"references": ["x", "y", "z"]}
    checked_rewards(among_columns, RewardInput(TEXTS, TEXTS, own, [(), (), ()]))
    assert seen[-1] == ["x", "y", "z"], "a column of that name goes before"


def test_a_reward_that_takes_no_references_works_without_them() -> None:
    assert checked_rewards(without_columns, RewardInput(TEXTS, TEXTS, {}, REFERENCES)).tolist() == [0.0] * 3


def test_a_reward_that_fails_inside_is_not_blamed_on_its_columns() -> None:
    def reward(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        raise TypeError("a bug of its own")

    with pytest.raises(TypeError, match="a bug of its own"):
        checked_rewards(reward, RewardInput(TEXTS, TEXTS, {}))


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


def test_what_is_logged_is_averaged() -> None:
    logged = Logged()

    def reward(completions, log_metric=None, **kwargs):
        log_metric("accuracy", 0.5)
        log_metric("accuracy", torch.tensor(1.0))
        return [0.0] * len(completions)

    checked_rewards(reward, GIVEN, logged)
    assert logged.metrics == {"accuracy": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (
            lambda logged: logged.log_metric(3, 0.5),
            "log_metric(name, ...) was given 3 as the name: give a text.",
        ),
        (
            lambda logged: logged.log_extra("a", 5),
            "log_extra('a', values) was given 5: give a list with a value for each text.",
        ),
        (
            lambda logged: logged.log_extra(3, [1]),
            "log_extra(name, ...) was given 3 as the name: give a text.",
        ),
        (lambda logged: logged.log_metric("a", "b"), "log_metric('a', value) was given 'b': give a number."),
        (
            lambda logged: logged.log_metric("a", None),
            "log_metric('a', value) was given None: give a number.",
        ),
    ],
)
def test_what_cannot_be_logged_is_said_at_once(log: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        log(Logged())
    assert str(caught.value) == sentence


def test_rewards_are_given_chats_as_trl_gives_them() -> None:
    seen: dict[str, Any] = {}

    def look(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions)
        return [1.0, 2.0, 3.0]

    prefilled = (USER, Message("assistant", "a j"))
    given = RewardInput(
        ["<user>the film?", "plain", "<p>"],
        [" a joy", " text", "oy"],
        messages=[(SYSTEM, USER), (), prefilled],
    )
    checked_rewards(look, given)
    assert seen["prompts"] == [ASKED, "plain", [ASKED[1]]]
    assert seen["completions"][:2] == [[GOOD], " text"]
    assert seen["completions"][2] == [{"role": "assistant", "content": "a joy"}], "all of the turn"
    chat = RewardInput(["p"], [" a joy"], messages=[(USER,)])
    assert checked_rewards(trl_format_reward, chat).tolist() == [6.0]


class Network(nn.Module):
    """Scores by a weight that it never learns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, completions: list[str], **columns: Any) -> list[float]:
        return [float(self.weight)] * len(completions)


class LearningNetwork(Network):
    answer: Any = None

    def update(self, rollout: Rollout) -> Any:
        return self.answer


def test_a_network_that_never_learns_has_no_state_to_keep() -> None:
    assert not keeps_state(Network())
    assert keeps_state(LearningNetwork())
    assert not keeps_state(len)


def test_what_a_reward_learns_may_have_no_metrics() -> None:
    reward, rollout = LearningNetwork(), written("ab")
    answers: list[tuple[Any, dict[str, float]]] = [(None, {}), ({"seen": 1.0}, {"seen": 1.0})]
    for answer, metrics in answers:
        reward.answer = answer
        assert learned(reward, rollout) == metrics
        named = {f"one/{name}": value for name, value in metrics.items()}
        assert Composed({"one": Term(reward)}).update(rollout) == named
    reward.answer = [1.0]
    with pytest.raises(UserError, match=r"'LearningNetwork' returned \[1.0\]: it must return a dictionary"):
        learned(reward, rollout)
    assert learned(Network(), rollout) == {}


def test_a_metric_of_a_reward_that_learns_is_a_number() -> None:
    reward, rollout = LearningNetwork(), written("ab")
    reward.answer = {"loss": torch.tensor(0.5), "sure": True}
    found = learned(reward, rollout)
    assert found == {"loss": 0.5, "sure": 1.0}
    assert {type(value) for value in found.values()} == {float}, "as the log and trackers take them"
    for value, shown in (("good", "'good'"), ([1, 2], r"\[1, 2\]"), (None, "None")):
        reward.answer = {"mood": value}
        sentence = (
            f"'update' of the reward 'LearningNetwork' returned {shown} as the metric 'mood': it must be"
        )
        with pytest.raises(UserError, match=sentence):
            learned(reward, rollout)
