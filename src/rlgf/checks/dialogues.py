"""Rules of a run with an environment: which rows can be held as a dialogue."""

from __future__ import annotations

from rlgf.algorithms import Algorithm, Span
from rlgf.checks.rule import Rule
from rlgf.sections import Sections
from rlgf.types import Author

_REMEDY = "choose another algorithm, or leave 'environment' out"


def an_environment_has_a_name(config: Sections) -> str | None:
    if config.environment is not None and config.environment.name is None:
        return "'environment.name' is missing: the recipe must set it."
    return None


def environments_answer_new_texts(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        learned = any(term.on is Span.REFERENCES for term in row.terms.values())
        stand = Author.REFERENCE in (row.script.rollin, row.script.rollout)
        if learned or stand or Author.PAST in row.script.authors:
            return (
                f"algorithm '{row.name}' takes texts that stand already, and an 'environment' answers turns as they are "
                f"written: {_REMEDY}."
            )
    return None


def turns_are_plain_texts(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        field = _of_single_texts(row)
        if field is not None:
            return f"algorithm '{row.name}' has '{field}', which is of single texts and not of dialogues: {_REMEDY}."
    if config.guide is not None and config.guide.candidates > 1:
        return (
            f"of {config.guide.candidates} texts ('guide.candidates') the reward picks the best, and it pays whole dialogues: "
            "set 'guide.candidates: 1', or leave 'environment' out."
        )
    return None


def rollins_are_whole_turns(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        law = row.help.length
        if row.help.ever and row.script.hint is None and (law.by != "law" or law.whole):
            said = "whole: true" if law.whole else f"by: {law.by}"
            return (
                f"algorithm '{row.name}' measures a roll-in in tokens ('algorithm.help.length.{said}'), and in a dialogue it is "
                f"a number of turns: set 'by: law', or leave 'environment' out."
            )
    return None


DIALOGUE_RULES: tuple[Rule, ...] = (
    environments_answer_new_texts,
    turns_are_plain_texts,
    rollins_are_whole_turns,
)
"""They hold where there is an `environment`."""


def _of_single_texts(row: Algorithm) -> str | None:
    """A field of a row that has no meaning in a dialogue yet."""
    found = {
        "algorithm.start_value": row.start_value is not None,
        "algorithm.learned_reward": row.learned_reward,
        "algorithm.advantage: guide_log_ratio": row.reads_guide_scores,
    }
    return next((field for field, has in found.items() if has), None)
