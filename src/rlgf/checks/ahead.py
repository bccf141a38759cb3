"""Rules of a run that samples ahead: what has to wait for the update before it."""

from __future__ import annotations

from rlgf import distributed
from rlgf.checks.engines import engines
from rlgf.checks.rule import Rule
from rlgf.guides.config import members
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.itself import SelfGuideConfig
from rlgf.sections import Sections
from rlgf.types import Author

_REMEDY = "or set 'training.async_steps: 0'"


def the_prompts_ahead_are_known(config: Sections) -> str | None:
    if config.rollout.draw == "passes":
        return None
    return (
        "'rollout.draw: difficulty' tells the prompts of an update only after the one before it, and "
        f"'training.async_steps' samples ahead: leave 'draw' out, {_REMEDY}."
    )


def the_updates_ahead_are_known(config: Sections) -> str | None:
    if not config.training.counts_tokens:
        return None
    name = "policy_tokens" if config.training.policy_tokens is not None else "guide_tokens"
    return (
        f"'training.{name}' may end the run after any update, and 'training.async_steps' samples ahead: leave '{name}' "
        f"out, {_REMEDY}."
    )


def the_help_ahead_is_known(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        if not row.foreseen:
            return (
                f"algorithm '{row.name}' decides who is helped, or how far, by what texts have earned "
                f"('algorithm.help'), and 'training.async_steps' samples ahead of that: choose another algorithm, {_REMEDY}."
            )
    return None


def rewards_are_not_asked_ahead(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        if row.branches is not None or row.start_value is not None:
            field = "start_value" if row.branches is None else "branches"
            return (
                f"algorithm '{row.name}' asks the reward about further texts ('algorithm.{field}') before an update is "
                f"learned from, and 'training.async_steps' samples ahead of that: choose another algorithm, {_REMEDY}."
            )
    if config.guide is None or config.guide.candidates == 1:
        return None
    return (
        f"of {config.guide.candidates} texts ('guide.candidates') the reward picks the best, and it is asked in turn, while "
        f"'training.async_steps' samples ahead: set 'guide.candidates: 1', {_REMEDY}."
    )


def the_guide_stays_ahead(config: Sections) -> str | None:
    if any(server.budget.then == "unguided" for server in members(config.guide, HTTPGuideConfig)):
        return (
            "'guide.budget.then: unguided' goes on without the guide from one update to the next, and "
            f"'training.async_steps' has asked it ahead: set 'then: stop', {_REMEDY}."
        )
    writes = any(Author.GUIDE in {*row.script.authors, row.examples} for row in config.algorithm.rows)
    if writes and members(config.guide, SelfGuideConfig) and config.policy.lora is not None:
        return (
            "with 'policy.lora' the guide 'self' is the model in training with its adapter off, and "
            f"'training.async_steps' asks it while that trains: name a 'guide.model', {_REMEDY}."
        )
    return None


def engines_do_not_work_ahead(config: Sections) -> str | None:
    if config.sampler.server is not None:
        return (
            "'sampler.server' writes with the newest weights, and 'training.async_steps' samples ahead in the run's own "
            f"process: leave 'server' out, {_REMEDY}."
        )
    for where, engine in engines(config):
        if engine.engine != "builtin":
            return (
                f"'{where}.engine: {engine.engine}' writes while nothing trains, and 'training.async_steps' samples ahead: "
                f"set '{where}.engine: builtin', {_REMEDY}."
            )
    return None


def one_process_works_ahead(config: Sections) -> str | None:
    if not config.training.async_steps or distributed.launched() == 1:
        return None
    return f"'training.async_steps' runs in one process, and there are {distributed.launched()}: start one, {_REMEDY}."


AHEAD_RULES: tuple[Rule, ...] = (
    the_prompts_ahead_are_known,
    the_updates_ahead_are_known,
    the_help_ahead_is_known,
    rewards_are_not_asked_ahead,
    the_guide_stays_ahead,
    engines_do_not_work_ahead,
)
"""They hold where there are `training.async_steps`."""
