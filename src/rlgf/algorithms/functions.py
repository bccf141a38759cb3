"""Functions that a row names: what they read, and whether they can be called as the row says.

A length rule is one of them: how much of its author's text begins an episode, as a function of the run and of the
prompt's past. A rule names what it reads, one parameter for each; its other parameters are options; your own is one
function in one file::

    def less_each_visit(length, visits, *, share=0.5):
        return int(length * share**visits)

named from a recipe as ``help: {length: {by: mine.py:less_each_visit, options: {share: 0.7}}}``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rlgf.errors import UserError, nearest
from rlgf.errors import misfit as in_words
from rlgf.registry import resolve


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
            return f"the option '{key}' of {where} is {value!r}: {in_words(error.errors()[0])}"
    return None


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters; none where they cannot be read."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}


LengthRule = Callable[..., int]

LENGTH_RULES = ("law", "record", "trial", "difficulty")
"""Those that are built in."""

OF_PROMPT = frozenset({"visits", "texts", "successes", "rewards", "solved", "failures", "rate", "help"})
"""What a rule may read of the prompt's past, see `rlgf.rollout.record.PromptHistory`; of a gate that looks at the
group, ``rate`` is that of the group's own texts."""
RULE_READS = frozenset({"length", "progress", "where"}) | OF_PROMPT
"""``length``: tokens of the author's text, or as many as it may have; ``progress``: the share of the run that is over;
``where``: a number drawn uniformly from 0 to 1 for the episode."""


def rule_named(name: str) -> LengthRule | None:
    """A rule of your own; None for one that is built in.

    Raises:
        UserError: there is no such function.
    """
    if name in LENGTH_RULES:
        return None
    if ":" not in name:
        raise UserError(
            f"the length rule '{name}' is not known: {nearest(name, LENGTH_RULES)} "
            "Your own is named as module:attribute or file.py:attribute."
        )
    found: LengthRule = resolve(name, {}, "the length rule")
    return found


def rule_misfit(name: str, options: Mapping[str, Any], *, bounded: bool) -> str | None:
    """Why a rule cannot be called with its options, in a clause; None where it can.

    Args:
        bounded: whether the row bounds lengths by two shares.
    """
    rule = rule_named(name)
    if rule is not None and bounded:
        return "a length rule of your own chooses alone: leave 'help.length.low' and 'high' out"
    if rule is None:
        return (
            f"'help.length.options' are those of a function of your own, and 'by' is '{name}'"
            if options
            else None
        )
    return misfit(rule, options, f"the length rule '{name}'", "'help.length'", RULE_READS)


def reads_past(name: str) -> bool:
    """Whether a rule depends on what a prompt earned before."""
    rule = rule_named(name)
    return name in ("record", "difficulty", "trial") if rule is None else bool(parameters(rule) & OF_PROMPT)


def rule_length(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> int:
    """How many tokens a rule of your own asks for.

    Args:
        known: a value for each of `RULE_READS`.

    Raises:
        UserError: that is no number of tokens below ``length``.
    """
    rule = rule_named(name)
    assert rule is not None, "asked for where the rule is not built in"
    tokens = rule(**{key: known[key] for key in parameters(rule) & RULE_READS}, **options)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens < max(known["length"], 1):
        raise UserError(
            f"the length rule '{name}' gave {tokens!r} for a text of {known['length']} tokens: it must give a whole number "
            "from 0 to one below that."
        )
    return tokens
