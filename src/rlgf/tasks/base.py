"""What a task is, and how one is made from a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError

from rlgf.errors import UserError, nearest
from rlgf.registry import resolve
from rlgf.types import Sample

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
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{what}, option '{key}' (it is {first['input']!r}): {first['msg']}.") from error


def check_options(factory: Callable[..., Any], options: Mapping[str, Any], what: str) -> None:
    """Refuse options that a class or function does not take, before it is called.

    Raises:
        UserError: an option is not known or is missing.
    """
    parameters = inspect.signature(factory).parameters.values()
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
    """A class or function by its name, made sure to be one whose objects are called, or that is, and not called yet.

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


def check_split(split: str, task: str) -> None:
    """Refuse a split that tasks do not have.

    Raises:
        UserError: names the splits that there are.
    """
    if split not in SPLITS:
        raise UserError(f"task '{task}' has no split '{split}': {nearest(split, SPLITS)}")
