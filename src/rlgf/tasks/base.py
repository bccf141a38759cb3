"""What a task is, and the task that reads your own JSON lines."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError

from rlgf.errors import UserError, nearest
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
    try:
        return factory(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{what}, option '{key}' (it is {first['input']!r}): {first['msg']}.") from error


class JsonlTask(BaseModel):
    """Your own JSON-lines files: a prompt, its references and further columns a line.

    Each line is an object. ``prompt_field`` holds a text; ``reference_field`` a text or a list of
    texts, or is None where there are no references. All other fields become columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Path | tuple[Path, ...]
    validation: Path | tuple[Path, ...] = ()
    test: Path | tuple[Path, ...] = ()
    prompt_field: str = "prompt"
    reference_field: str | None = "references"

    def load(self, split: str) -> list[Sample]:
        """The lines of the split's files, in their order.

        Raises:
            UserError: the split has no file, a file is not there or has no lines, or a line is no JSON
                object with the two fields; it names the file and the line.
        """
        check_split(split, "jsonl")
        files = getattr(self, split)
        files = (files,) if isinstance(files, Path) else files
        if not files:
            raise UserError(f"task 'jsonl' has no file for the split '{split}': give the option '{split}'.")
        return [sample for file in files for sample in self._read(file)]

    def _read(self, file: Path) -> list[Sample]:
        samples = [self._sample(row, place) for row, place in _objects(file)]
        if not samples:
            raise UserError(f"{file} is empty: it needs at least one line with a JSON object.")
        return samples

    def _sample(self, row: dict[str, Any], place: str) -> Sample:
        fields = [name for name in (self.prompt_field, self.reference_field) if name is not None]
        for option, name in zip(("prompt_field", "reference_field"), fields, strict=False):
            if name not in row:
                there = ", ".join(sorted(row)) or "none"
                raise UserError(f"{place} has no field '{name}': set the option '{option}'. Fields: {there}.")
        prompt = row[self.prompt_field]
        references = row[self.reference_field] if self.reference_field is not None else []
        references = [references] if isinstance(references, str) else references
        if not isinstance(prompt, str):
            raise UserError(f"{place}: '{self.prompt_field}' must be a text (it is {prompt!r}).")
        if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
            raise UserError(
                f"{place}: '{self.reference_field}' must be a text or a list of texts (it is {references!r})."
            )
        columns = {name: value for name, value in row.items() if name not in fields}
        return Sample(prompt, tuple(references), columns)


def check_split(split: str, task: str) -> None:
    """Refuse a split that tasks do not have.

    Raises:
        UserError: names the splits that there are.
    """
    if split not in SPLITS:
        raise UserError(f"task '{task}' has no split '{split}': {nearest(split, SPLITS)}")


def _objects(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's object, and the line's place for messages; empty lines are skipped."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a JSON-lines file in UTF-8: {error}.") from error
    # Not splitlines(): JSON texts may hold other line separators as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{place} is not valid JSON: {error}.") from error
        if not isinstance(row, dict):
            raise UserError(f'{place} must hold a JSON object such as {{"prompt": ...}}.')
        yield row, place
