"""Which settings a run is known by: all but those that its schema marks as changing no result."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

from rlgf.schedules import Schedule


class _Mark(Enum):
    """Stands in the annotation of a field, as in ``Annotated[int, FREE]``."""

    FREE = "free"
    LATER = "later"


FREE = _Mark.FREE
"""Marks a field that changes no result: memory, speed, prices, the things shown and measured. A resumed run may change
it. Every other field belongs to the run's identity."""
LATER = _Mark.LATER
"""Marks a section that runs of earlier versions do not have: at its default it is not part of the identity, so that
they can be resumed."""


def identity(
    config: BaseModel, also: Collection[str] = (), *, exclude_defaults: bool = False
) -> dict[str, Any]:
    """The settings, as JSON has them, that a run must have in common with one that goes on with it, and the free fields
    named in ``also``."""
    dumped = config.model_dump(mode="json", exclude_defaults=exclude_defaults)
    pruned: dict[str, Any] = _pruned(config, dumped, also)
    return pruned


def is_free(model: type[BaseModel], name: str) -> bool:
    return FREE in model.model_fields[name].metadata


def _as_ever(value: BaseModel, name: str) -> bool:
    field = type(value).model_fields[name]
    return LATER in field.metadata and getattr(value, name) == field.default


def moving_schedules(config: BaseModel) -> list[str]:
    """Dotted names of the numbers that change over a run, and so depend on how long it is."""
    found = [name for name, value in _leaves(config, "") if isinstance(value, Schedule) and value.changes]
    return sorted(found)


def _pruned(value: Any, dumped: Any, also: Collection[str]) -> Any:
    if isinstance(value, BaseModel) and isinstance(dumped, Mapping):
        kind = type(value)
        return {
            name: _pruned(getattr(value, name), entry, also)
            for name, entry in dumped.items()
            if (name in also or not is_free(kind, name)) and not _as_ever(value, name)
        }
    if isinstance(value, Mapping) and isinstance(dumped, Mapping):
        return {key: _pruned(value.get(key), entry, also) for key, entry in dumped.items()}
    if isinstance(value, list | tuple) and isinstance(dumped, list):
        return [_pruned(one, entry, also) for one, entry in zip(value, dumped, strict=True)]
    return dumped


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every value below, with where it stands; a schedule is one."""
    entries: Mapping[Any, Any] = {}
    if isinstance(value, BaseModel) and not isinstance(value, Schedule):
        entries = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, Mapping):
        entries = value
    if not entries:
        yield place, value
    for name, entry in entries.items():
        yield from _leaves(entry, f"{place}.{name}".lstrip("."))
