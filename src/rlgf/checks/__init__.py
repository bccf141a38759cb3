"""Every rule between the parts of a run. Each is a function to a sentence, or to None where all is well.

There are three kinds, by what they look at. The first read the configuration alone: `RULES` always, `AHEAD_RULES` where
a run samples ahead, `DIALOGUE_RULES` where there is an environment, `SHARD_RULES` where processes share the weights of
models. `PART_RULES` open what a section names, and load no weights. `DATA_RULES` read the task's first samples too. The
rules within one algorithm are in `rlgf.algorithms.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from rlgf.checks.ahead import AHEAD_RULES
from rlgf.checks.data import DATA_RULES, Found
from rlgf.checks.dialogues import DIALOGUE_RULES
from rlgf.checks.parts import PART_RULES, named_rewards, too_short
from rlgf.checks.settings import RULES, SECTIONS
from rlgf.checks.shards import SHARD_RULES
from rlgf.errors import UserError
from rlgf.sections import Sections

__all__ = [
    "DATA_RULES",
    "PART_RULES",
    "RULES",
    "SECTIONS",
    "SHARD_RULES",
    "Found",
    "broken",
    "broken_by_data",
    "broken_by_shards",
    "broken_parts",
    "named_rewards",
    "require",
    "too_short",
]


def broken(config: Sections, given: Collection[str] = ()) -> Iterator[str]:
    """The faults between the sections of a configuration, of which Python may give objects in place of some (`given`)."""
    rules = [rule for section, rule in SECTIONS.items() if section not in given]
    rules += RULES
    if config.training.async_steps:
        rules += AHEAD_RULES
    if config.environment is not None:
        rules += DIALOGUE_RULES
    return _broken(rules, config)


def broken_parts(config: Sections, sections: Iterable[str] = PART_RULES) -> Iterator[str]:
    """The faults of all that sections made from the recipe name, before any weights load."""
    return _broken((rule for section in sections for rule in PART_RULES[section]), config)


def broken_by_shards(config: Sections) -> Iterator[str]:
    """The faults of a run whose processes share the weights of its models."""
    return _broken(SHARD_RULES, config)


def broken_by_data(config: Sections, found: Found) -> Iterator[str]:
    """The faults between the configuration and the data."""
    return _broken(DATA_RULES, config, found)


def require(sentences: Iterator[str]) -> None:
    """
    Raises:
        UserError: the first sentence, where there is one.
    """
    for sentence in sentences:
        raise UserError(sentence)


def _broken(rules: Iterable[Callable[..., str | None]], *given: Any) -> Iterator[str]:
    for rule in rules:
        try:
            sentence = rule(*given)
        except UserError as error:  # something that a rule opens cannot be had
            sentence = str(error)
        if sentence is not None:
            yield sentence
