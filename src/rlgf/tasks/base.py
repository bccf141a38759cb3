"""What a task is, and how one is made from a recipe."""

from __future__ import annotations

import inspect
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, overload, runtime_checkable

from pydantic import ValidationError

from rlgf.errors import UserError, misfit, nearest
from rlgf.jsontext import is_unicode
from rlgf.registry import resolve
from rlgf.types import Message, Sample

SPLITS = ("train", "validation", "test")


@runtime_checkable
class Task(Protocol):
    """Where samples come from.

    To bring your own, write a class with this method, or a function that returns an object with it,
    and name it in the recipe as ``module:attribute`` or ``file.py:attribute``. It is called with the
    recipe's ``options`` as keyword arguments.
    """

    def load(self, split: str) -> Sequence[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order."""
        ...


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
        raise UserError(
            f"{place}: 'messages' must be a tuple of rlgf.types.Message (it is {messages!r:.60})."
        )
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


def build_from(factory: Callable[..., Any], options: Mapping[str, Any], what: str) -> Any:
    """Call a class or function with the options of a recipe.

    Args:
        what: how a message calls the part, such as "task 'imdb'".

    Raises:
        UserError: an option is not known, is missing or does not fit.
    """
    check_options(factory, options, what)
    try:
        return factory(**options)
    except ValidationError as error:
        first = error.errors()[0]
        # A place ends where it names kinds of a union, which are no keys.
        named = itertools.takewhile(lambda part: re.fullmatch(r"\w+", str(part)), first["loc"])
        key = ".".join(map(str, named))
        place = f"{what}, option '{key}' (it is {first['input']!r})" if key else what
        raise UserError(f"{place}: {misfit(first)}.") from error


def check_options(factory: Callable[..., Any], options: Mapping[str, Any], what: str) -> None:
    """Refuse options that a class or function does not take, before it is called.

    Raises:
        UserError: an option is not known or is missing.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # compiled, and says nothing about what it takes
        raise UserError(f"{what} does not say what it takes: name a class or function of your own.") from None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in options:
            if key not in names:
                hint = nearest(key, names) if names else "it takes none."
                raise UserError(f"{what} has no option '{key}': {hint}")
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise UserError(f"{what} needs the option '{parameter.name}'.")


def named_callable(
    name: str, options: Mapping[str, Any], table: Mapping[str, Any], kind: str, call: str
) -> Any:
    """A class or function by its name, not called yet. It, or the objects of a class, must be callable.

    Args:
        kind: how a message calls it, such as "reward".
        call: how it is called, such as "f(completions, **kwargs)".

    Raises:
        UserError: there is none of this name, it cannot be called, or it does not take these options.
    """
    found, what = resolve(name, table, kind), f"{kind} '{name}'"
    made = inspect.isclass(found)
    if not (any("__call__" in vars(one) for one in found.__mro__) if made else callable(found)):
        raise UserError(f"{what} cannot be called: it must be a function such as {call}.")
    if made:
        check_options(found, options, what)
    elif options:
        raise UserError(
            f"{what} is a function, so it takes no options (given: {', '.join(options)}): "
            "make it a class with __init__ and __call__."
        )
    return found


def instance_of(found: Any, options: Mapping[str, Any], what: str) -> Any:
    """An object of a class, made with a recipe's options; a function as it is.

    Args:
        found: see `named_callable`.
        what: how a message calls it, such as "reward 'length'".

    Raises:
        UserError: an option does not fit.
    """
    return build_from(found, options, what) if inspect.isclass(found) else found


def check_split(split: str, task: str) -> None:
    """Refuse a split that tasks do not have.

    Raises:
        UserError: names the splits that there are.
    """
    if split not in SPLITS:
        raise UserError(f"task '{task}' has no split '{split}': {nearest(split, SPLITS)}")
