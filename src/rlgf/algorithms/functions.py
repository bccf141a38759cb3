"""Functions that a row names: what they read, and whether they can be called as the row says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError


@cache
def parameters(function: Callable[..., Any]) -> frozenset[str]:
    """The names of a function's parameters, which are asked for at every micro-batch."""
    return frozenset(inspect.signature(function).parameters)


def misfit(
    function: Any, options: Mapping[str, Any], what: str, where: str, readable: Collection[str]
) -> str | None:
    """Why a function cannot be called with some inputs and options, in a clause; None where it can.

    Args:
        what: how a message calls the function, such as "the loss 'mine.py:cautious'".
        where: what it belongs to, such as "the term 'policy'".
        readable: the inputs that there are.
    """
    if not callable(function) or inspect.isclass(function):
        return f"{what} of {where} must be a function"
    try:
        named = inspect.signature(function).parameters
    except ValueError:  # compiled, and says nothing about what it takes
        return f"{what} of {where} does not say what it reads: write a function around it"
    own = {key: p for key, p in named.items() if key not in readable}
    for key in options.keys() - own.keys():
        known = ", ".join(f"'{option}'" for option in own) or "none"
        return f"{what} of {where} has no option '{key}' (it has {known})"
    for key, parameter in own.items():
        if parameter.default is parameter.empty and key not in options:
            return (
                f"{what} of {where} needs '{key}', which is neither an input "
                f"({', '.join(sorted(readable))}) nor among its 'options'"
            )
    hints = _hints(function)
    for key, value in options.items():
        try:
            TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            return f"the option '{key}' of {where} is {value!r}: {reason}"
    return None


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters; none where they cannot be read."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}
