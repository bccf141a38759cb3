"""What a task is, and what its samples must be."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, overload, runtime_checkable

from rlgf.errors import UserError, nearest
from rlgf.jsontext import is_unicode
from rlgf.types import Message, Sample

SPLITS = ("train", "validation", "test")
SEEN = 256
"""Samples that are looked at before a run, which takes no time; the rest are held to be like these."""


@runtime_checkable
class Task(Protocol):
    """Where samples come from.

    To bring your own, write a class with this method, or a function that returns an object with it,
    and name it in the recipe as ``module:attribute`` or ``file.py:attribute``. It is called with the
    recipe's ``options`` as keyword arguments.
    """

    def load(self, split: str) -> Sequence[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order."""


class LazySamples(Sequence[Sample], ABC):
    """Samples that are made when they are asked for."""

    @abstractmethod
    def sample(self, number: int) -> Sample:
        """The sample of a place, from 0."""

    @abstractmethod
    def place(self, number: int) -> str:
        """What a message to the user calls a sample, such as its file and line."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.sample(index % len(self))

    def __iter__(self) -> Iterator[Sample]:
        return map(self.sample, range(len(self)))


def require_task(task: Any, what: str) -> Task:
    """The same object, checked to be a task.

    Args:
        what: the beginning of the message.

    Raises:
        UserError: it has no method that can be called as ``load(split)``.
    """
    try:
        inspect.signature(task.load).bind(SPLITS[0])
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"{what} a {type(task).__name__}, which has no method load(split) ({error})."
        ) from error
    except ValueError:
        pass  # compiled, and says nothing about what it takes
    found: Task = task
    return found


def load_split(task: Task, split: str) -> Sequence[Sample]:
    """The samples of a task's split, checked to be some.

    Raises:
        UserError: see `Task.load`; or it returned something else, or nothing.
    """
    found: Any = task.load(split)
    indexed = hasattr(found, "__len__") and hasattr(found, "__getitem__")
    if not indexed or isinstance(found, str | Mapping):
        raise UserError(
            f"the task's load('{split}') must return a list of rlgf.Sample (it returned a {type(found).__name__})."
        )
    if len(found) == 0:
        raise UserError(f"the task's split '{split}' is empty: it needs at least one sample.")
    # A list holds objects at hand; of anything else one may be dear to make.
    for number in range(len(found) if isinstance(found, list | tuple) else 1):
        check_sample(found[number], f"sample {number} of the task's split '{split}'")
    samples: Sequence[Sample] = found
    return samples


def check_sample(sample: Any, place: str) -> None:
    """
    Args:
        place: what a message calls the sample.

    Raises:
        UserError: it is none, or a field of it is of another kind than it must be.
    """
    if not isinstance(sample, Sample):
        raise UserError(f"{place} must be an rlgf.Sample (it is {sample!r:.60}).")
    texts = sample.references
    if not isinstance(texts, list | tuple):
        raise UserError(f"{place}: 'references' must be a tuple of texts (it is {texts!r:.60}).")
    named = [("prompt", sample.prompt), ("cue", sample.cue), *(("references", text) for text in texts)]
    if sample.rejected is not None:
        named.append(("rejected", sample.rejected))
    messages = sample.messages
    if not isinstance(messages, list | tuple) or not all(isinstance(one, Message) for one in messages):
        raise UserError(f"{place}: 'messages' must be a tuple of rlgf.Message (it is {messages!r:.60}).")
    named += [("messages", part) for one in messages for part in (one.role, one.content)]
    for name, text in named:
        if not isinstance(text, str):
            several = name in ("references", "messages")
            kind = "a tuple of texts (one is" if several else "a text (it is"
            raise UserError(f"{place}: '{name}' must be {kind} {text!r:.60}).")
        if not is_unicode(text):
            raise UserError(
                f"{place}: '{name}' has half of a surrogate pair, which is not a character: put U+FFFD in its place."
            )
    if not isinstance(sample.columns, Mapping) or not all(isinstance(name, str) for name in sample.columns):
        raise UserError(
            f"{place}: 'columns' must be a mapping of names to values (it is {sample.columns!r:.60})."
        )


def checked_samples(samples: Sequence[Any], split: str, most: int = SEEN) -> Iterator[Sample]:
    """The first samples, by place, since a sequence of the user's own may know no slices.

    Raises:
        UserError: see `check_sample`.
    """
    for number in range(min(most, len(samples))):
        sample = samples[number]
        check_sample(sample, f"sample {number} of the task's split '{split}'")
        yield sample


def column_names(samples: Sequence[Any], split: str) -> dict[str, None]:
    """The columns that any of the first 256 samples has, each with None, which it is where a sample lacks it.

    Raises:
        UserError: see `check_sample`.
    """
    return {name: None for sample in checked_samples(samples, split) for name in sample.columns}


def check_split(split: str, task: str) -> None:
    """Refuse a split that tasks do not have.

    Raises:
        UserError: names the splits that there are.
    """
    if split not in SPLITS:
        raise UserError(f"task '{task}' has no split '{split}': {nearest(split, SPLITS)}")
