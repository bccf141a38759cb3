"""Tasks: where prompts, references and columns come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlgf.errors import UserError
from rlgf.registry import build_from, resolve
from rlgf.tasks.base import Task, load_split, require_task

TASKS: Mapping[str, str] = {
    "imdb": "rlgf.demo.imdb:ImdbTask",
    "commongen": "rlgf.tasks.commongen:CommonGenTask",
    "tldr": "rlgf.tasks.tldr:TldrTask",
    "review-verdicts": "rlgf.demo.review_verdicts:ReviewVerdictsTask",
    "reasoning": "rlgf.tasks.reasoning:ReasoningTask",
    "data": "rlgf.tasks.data:DataTask",
}
"""Where each task is, by name; the first line of its docstring says what it is."""


def build_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of that name with a recipe's options.

    Args:
        name: a key of ``TASKS``, or ``module:attribute`` or ``file.py:attribute`` of your own.

    Raises:
        UserError: there is no such task, or an option is not known, is missing or does not fit.
    """
    if name not in TASKS and Path(name).suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        raise UserError(
            f"task '{name}' is a file of data: set 'task: {{name: data, options: {{train: {name}}}}}', with files for "
            "'validation' and 'test' too."
        )
    factory = resolve(name, TASKS, "task")
    if not callable(factory):
        raise UserError(
            f"task '{name}' is not a class or function: it must build an object with load(split)."
        )
    task = build_from(factory, options, f"task '{name}'")
    return require_task(task, f"task '{name}' built")


__all__ = [
    "TASKS",
    "Task",
    "build_task",
    "load_split",
]
