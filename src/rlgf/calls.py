"""Calling functions of the user's own: each is given, by name, what it takes of what there is."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import nn

from rlgf.errors import UserError, nearest

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def call(function: Callable[..., Any], given: Mapping[str, Any], first: Sequence[str], what: str) -> Any:
    """Call a function with its `arguments`.

    Raises:
        UserError: see `arguments`.
    """
    before, rest = arguments(function, given, first, what)
    return function(*before, **rest)


def arguments(
    function: Callable[..., Any], given: Mapping[str, Any], first: Sequence[str], what: str
) -> tuple[list[Any], dict[str, Any]]:
    """What a function is called with: by keyword what it takes of ``given``, and all of it where it takes any.

    Arguments are found by name, in whatever order a function has them. A parameter with a default may be
    missing. By position, in the order of ``first``, is called what has no names to go by: parameters that are
    positional only, ``*args`` alone, and compiled functions without a signature.

    Args:
        first: the names in ``given`` that a function without names gets.
        what: what a message calls the function.

    Raises:
        UserError: the function needs something that is not given; names it and what there is.
    """
    try:
        parameters, wrapped = _parameters(function)
    except (TypeError, ValueError):  # compiled, and says nothing about what it takes
        return [given[name] for name in first], {}
    positional = [
        p for p in parameters if p.kind is p.POSITIONAL_ONLY and (p.name in given or not _optional(p))
    ]
    before = [
        p.name if p.name in given else next(iter(first[i : i + 1]), p.name) for i, p in enumerate(positional)
    ]
    named = [p for p in parameters if p.kind in _BY_NAME]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not positional and not named and not takes_any and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        before = list(first)
    needed = [*before, *(p.name for p in named if not _optional(p))]
    # A wrapper may fill in what the function inside it needs.
    missing = [name for name in needed if name not in given and not wrapped]
    if missing:
        raise UserError(f"{what} takes '{missing[0]}', which is not given: {nearest(missing[0], given)}")
    rest = {name: value for name, value in given.items() if name not in before}
    if not takes_any:
        rest = {p.name: rest[p.name] for p in named if p.name in rest}
    if wrapped and not _takes_keywords(function):
        return [rest[p.name] for p in named if p.name in rest], {}
    return [given[name] for name in before], rest


def _parameters(function: Callable[..., Any]) -> tuple[list[inspect.Parameter], bool]:
    """What a function takes, and whether that is said by a function inside it, around which it is a wrapper."""
    if isinstance(function, nn.Module):
        function = function.forward
    outer = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    inner = list(inspect.signature(function).parameters.values())
    if any(p.kind in (*_BY_NAME, p.POSITIONAL_ONLY) for p in outer):
        return outer, False
    return inner, inner != outer


def _takes_keywords(function: Callable[..., Any]) -> bool:
    outer = inspect.signature(function, follow_wrapped=False).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in outer)


def _optional(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty


def own(value: Any) -> Any:
    """A copy of a list or a dictionary, which a function may change; anything else as it is."""
    return copy.deepcopy(value) if isinstance(value, list | dict) else value


def awaited(answers: Sequence[Any]) -> list[Any]:
    """The answers, those of coroutines awaited side by side; also where this thread runs an event loop itself.

    All are waited for before the first exception of one is raised.
    """
    waiting = [i for i, answer in enumerate(answers) if inspect.isawaitable(answer)]
    found = list(answers)
    if waiting:
        results = asyncio.run_coroutine_threadsafe(
            _all([answers[i] for i in waiting]), _loop(os.getpid())
        ).result()
        for i, result in zip(waiting, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            found[i] = result
    return found


async def _all(waiting: Sequence[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*waiting, return_exceptions=True)


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """A process's event loop in a thread of its own, the same one at every call: clients belong to the loop
    that they were first used in."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async rewards", daemon=True).start()
    return loop
