"""What a reward is: a function from finished texts to numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from numbers import Real
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import TrainerState

from rlgf.calls import arguments, awaited, call, own
from rlgf.chat import as_dicts, parted, transcript
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Message, Messages, Rollout


@runtime_checkable
class Reward(Protocol):
    """Scores finished texts: one number per completion, higher is better, or None where it does not apply.

    It is called by keyword, as TRL calls it, with those of these that it takes, or with all of them where it
    takes ``**kwargs``; each is a list with one entry a completion:

    - ``prompts`` and ``completions``: texts; of a chat, as in TRL, lists of messages, which are dictionaries with
      ``role`` and ``content``; a completion is then a list of one message, or of all
      turns and replies of a dialogue;
    - ``prompt_ids`` and ``completion_ids``: token ids of the policy, the end-of-text token included;
    - ``finished``: whether the text ended by itself, and not at the length limit; of a dialogue, its last
      turn, or all of it where its environment ended it;
    - ``references``: a tuple of texts for each;
    - in dialogues ``turns`` and ``replies``: lists of texts, the author's and the environment's;
    - every further column of the samples by its name;

    and with ``trainer_state``, ``log_extra(column, values)`` and ``log_metric(name, value)`` as in TRL. It may be
    ``async def``. Numbers come as any sequence, an array or a tensor of one number for each completion.

    A reward with an attribute ``reads_text`` that is true is given texts of chats too: as the prompt what the
    policy's chat template makes of it.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


@runtime_checkable
class StatefulReward(Reward, Protocol):
    """A reward that changes over a run; its state goes into every checkpoint, see `keeps_state`.

    A state holds tensors, numbers and texts, in dictionaries and lists: `torch.load` reads it with
    ``weights_only``.
    """

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


@runtime_checkable
class LearnedReward(StatefulReward, Protocol):
    """A reward that learns beside the policy."""

    def update(self, rollout: Rollout, /) -> Mapping[str, float] | None:
        """Learn from the episodes of an update, which have been paid and learned from by then.

        Of several processes each is given the episodes of all, and must learn the same.

        Returns:
            Metrics to log, where there are any.
        """


def keeps_state(reward: object) -> TypeGuard[StatefulReward]:
    """Whether a reward's state goes into checkpoints: not that of a network that scores and never learns."""
    learns = isinstance(reward, LearnedReward)
    return isinstance(reward, StatefulReward) and (learns or not isinstance(reward, nn.Module))


def learned(reward: Reward | None, rollout: Rollout) -> dict[str, float]:
    """Let a reward learn, if it is one that does; its metrics.

    Raises:
        UserError: its `update` returned something else, or a metric that is not a number.
    """
    found: Any = reward.update(rollout) if isinstance(reward, LearnedReward) else None
    if found is not None and not isinstance(found, Mapping):
        raise UserError(
            f"'update' of {_name(reward)} returned {found!r:.60}: it must return a dictionary of metrics, or nothing."
        )
    return {str(name): _metric(reward, name, value) for name, value in (found or {}).items()}


def _metric(reward: Reward | None, name: Any, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"'update' of {_name(reward)} returned {value!r:.60} as the metric '{name}': it must be a number."
        ) from error


@runtime_checkable
class PolicyReadingReward(Reward, Protocol):
    """A reward that is made from the policy that it is to pay."""

    def attach(self, policy: LanguageModel, config: RolloutConfig, seed: int, /) -> None:
        """Called once, when the policy is loaded, its adapter included, and before anything is scored.

        It must copy the weights that it keeps, or inject an adapter of its own into ``policy.adapters``.
        """


@dataclass(frozen=True)
class RewardInput:
    """Finished texts and what a reward may ask about them: one entry for each text, or None where nothing is known."""

    prompts: Sequence[Any]
    """Texts; lists of messages where a reward passes on what it was given."""
    completions: Sequence[Any]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    references: Sequence[Sequence[str]] | None = None
    prompt_ids: Sequence[Sequence[int]] | None = None
    completion_ids: Sequence[Sequence[int]] | None = None
    finished: Sequence[bool] | None = None
    trainer_state: TrainerState | None = None
    """How far the run is: ``global_step`` updates of ``max_steps``."""
    messages: Sequence[Messages] | None = None
    """The prompts of chats; see `Sample.messages`."""
    dialogues: Sequence[Messages] | None = None
    """Turns and replies, see `Rollout.dialogues`."""

    @classmethod
    def of(cls, rollout: Rollout, trainer_state: TrainerState | None = None) -> RewardInput:
        """Everything known about a rollout's texts."""
        prompts = zip(rollout.bare.prompt_ids, rollout.bare.prompt_mask, strict=True)
        responses = zip(rollout.response_ids, rollout.response_mask, strict=True)
        return cls(
            rollout.prompts,
            rollout.texts,
            rollout.columns,
            rollout.references,
            prompt_ids=[ids[mask].tolist() for ids, mask in prompts],
            completion_ids=[ids[mask].tolist() for ids, mask in responses],
            finished=rollout.finished.tolist(),
            trainer_state=trainer_state,
            messages=rollout.messages,
            dialogues=rollout.dialogues,
        )

    def arguments(self, logged: Logged, *, as_text: bool = False) -> dict[str, Any]:
        """Everything by the name that a reward has for it.

        Args:
            as_text: whether the reward reads texts alone; see `Reward`.

        A column called ``references`` or ``finished`` goes before ours; one with another of these
        names is hidden by it, as in TRL.
        """
        own = {"references": self.references, "finished": self.finished}
        over = {
            "turns": self._said("assistant"),
            "replies": self._said("user"),
            "prompt_ids": self.prompt_ids,
            "completion_ids": self.completion_ids,
            "trainer_state": self.trainer_state,
        }
        prompts, completions = self._texts() if as_text else self._as_in_trl()
        return {
            "prompts": prompts,
            "completions": completions,
            **_there(own),
            # A reward may change what it is given, and lists of a column are those of the data.
            **_there({k: _own(column) for k, column in self.columns.items() if k not in _FIRST}),
            **_there(over),
            "log_extra": logged.log_extra,
            "log_metric": logged.log_metric,
        }

    def _as_in_trl(self) -> tuple[list[Any], list[Any]]:
        """Prompts and completions; those of chats as messages, of which the last is all of the assistant's turn."""
        prompts, completions = list[Any](self.prompts), list[Any](self.completions)
        for i, messages in enumerate(self.messages or ()):
            if messages:
                before, begun = parted(messages)
                prompts[i] = as_dicts(before)
                first, *rest = (
                    self.dialogues[i] if self.dialogues else (Message("assistant", completions[i]),)
                )
                completions[i] = as_dicts((Message("assistant", begun + first.content), *rest))
        return prompts, completions

    def _said(self, role: str) -> list[list[str]] | None:
        """The turns or the replies of each dialogue."""
        if self.dialogues is None:
            return None
        return [[message.content for message in one if message.role == role] for one in self.dialogues]

    def _texts(self) -> tuple[list[str], list[str]]:
        """The same as texts, also where another reward passes on the messages that it was given."""
        prompts = [transcript(asked) if isinstance(asked := told(p), tuple) else asked for p in self.prompts]
        return prompts, [completion_text(completion) for completion in self.completions]


def told(prompt: Any) -> str | Messages:
    """A prompt as a reward is given it: a text, or the messages of a chat."""
    return prompt if isinstance(prompt, str) else tuple(Message(m["role"], m["content"]) for m in prompt)


def completion_text(completion: Any) -> str:
    """The text of a completion as a reward is given it: a text, or a list of the assistant's message."""
    return completion if isinstance(completion, str) else "".join(m["content"] for m in completion)


@dataclass(frozen=True)
class Logged:
    """What rewards say beside their numbers."""

    metrics: dict[str, list[float]] = field(default_factory=dict)
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """One entry a text."""

    def log_metric(self, name: Any, value: Any) -> None:
        """Log a number beside the run's own metrics; several values of one update are averaged.

        Raises:
            UserError: the name is not a text, or the value not a number.
        """
        _check_text("log_metric", name)
        try:
            self.metrics.setdefault(name, []).append(float(value))
        except (TypeError, ValueError) as error:
            raise UserError(f"log_metric('{name}', value) was given {value!r}: give a number.") from error

    def log_extra(self, column: Any, values: Any) -> None:
        """Keep one value for each text; evaluations write them beside the text.

        Raises:
            UserError: the name is not a text, or there are no values to go through.
        """
        _check_text("log_extra", column)
        try:
            self.extra[column] = list(values)
        except TypeError as error:
            raise UserError(
                f"log_extra('{column}', values) was given {values!r}: give a list with a value for each text."
            ) from error


def _check_text(function: str, name: Any) -> None:
    if not isinstance(name, str):
        raise UserError(f"{function}(name, ...) was given {name!r} as the name: give a text.")


_FIRST = ("prompts", "completions")
_LARGEST = torch.finfo(torch.float32).max


def checked_rewards(reward: Reward, given: RewardInput, logged: Logged | None = None) -> Float[Tensor, "B"]:
    """Call a reward and make sure of its answer: float32, one value a completion, NaN where it says None.

    Raises:
        UserError: the reward takes something that is not given, or it returned another number of values, or
            one that is neither a finite number nor None; says which and what would be right.
    """
    return all_checked_rewards({"": reward}, given, logged or Logged())[""]


def all_checked_rewards(
    rewards: Mapping[str, Reward], given: RewardInput, logged: Logged
) -> dict[str, Float[Tensor, "B"]]:
    """The same for several rewards; those that are coroutines are awaited side by side."""
    answers: list[Any] = []
    try:
        for reward in rewards.values():
            answers.append(_asked(reward, given, logged))
        answers = awaited(answers)
    finally:
        for answer in answers:
            if inspect.iscoroutine(answer):
                answer.close()  # one before it failed
    checked = zip(rewards.items(), answers, strict=True)
    return {key: _checked(answer, len(given.completions), _name(reward)) for (key, reward), answer in checked}


def _asked(reward: Reward, given: RewardInput, logged: Logged) -> Any:
    if inspect.isclass(reward):
        raise UserError(f"{_name(reward)} is a class: give an object of it.")
    as_text = bool(getattr(reward, "reads_text", False))
    return call(reward, given.arguments(logged, as_text=as_text), _FIRST, _name(reward))


def not_given(reward: object, columns: Iterable[str], *, in_turns: bool) -> str | None:
    """A sentence on what a reward takes and no run would give it; it is not called.

    Args:
        reward: itself, or the class that it is to be made from.
        columns: those of the data.
        in_turns: whether it is to score dialogues.
    """
    function: Any = partial(reward.__call__, None) if inspect.isclass(reward) else reward
    everything = RewardInput(
        [],
        [],
        {name: [] for name in columns},
        [],
        prompt_ids=[],
        completion_ids=[],
        finished=[],
        trainer_state=TrainerState(),
        dialogues=[] if in_turns else None,
    )
    try:
        arguments(function, everything.arguments(Logged()), _FIRST, _name(reward))
    except UserError as error:
        return str(error)
    return None


def name_of(given: Any) -> str:
    """A function's own name, also of a partial of it; of another object its class's."""
    given = given.func if isinstance(given, partial) else given
    return str(getattr(given, "__name__", type(given).__name__))


def _name(reward: Any) -> str:
    return f"the reward '{name_of(reward)}'"


def _own(column: Any) -> Any:
    if not isinstance(column, Sequence):
        return column  # no column: a reward made of others hands on what it was given
    return [own(value) for value in column]


def _there(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, Sequence) else value
        for name, value in arguments.items()
        if value is not None
    }


def _checked(answer: Any, count: int, name: str) -> Float[Tensor, "B"]:
    values = answer.tolist() if hasattr(answer, "tolist") else answer
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | set | frozenset):
        values = list(values)
    if not isinstance(values, list) or len(values) != count:
        returned = f"{len(values)} values" if isinstance(values, list) else f"{values!r:.60}"
        raise UserError(
            f"{name} returned {returned} for {count} completions: it must return a list with one number per completion."
        )
    numbers = [_number(value) for value in values]
    for i, number in enumerate(numbers):
        if number is not None and not (math.isfinite(number) and abs(number) <= _LARGEST):
            raise UserError(
                f"{name} returned {values[i]!r:.60} for completion {i}: it must return finite float32 numbers, or None "
                "where it does not apply."
            )
    return torch.tensor([math.nan if number is None else number for number in numbers], dtype=torch.float32)


def _number(value: Any) -> float | None:
    """One completion's value, also as an array or a list of a single number; NaN for anything else."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) == 1:
        return _number(value[0])
    if value is None:
        return None
    try:
        return float(value) if isinstance(value, Real | Decimal) else math.nan
    except OverflowError:
        return math.inf
