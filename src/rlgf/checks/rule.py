"""What a rule is, and two helpers that rules of several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rlgf.guides.config import members
from rlgf.guides.local import LocalGuideConfig
from rlgf.models.samplers import EngineConfig
from rlgf.sections import Sections

Rule = Callable[[Sections], str | None]


def first(sentences: Iterable[str | None]) -> str | None:
    """The first fault, where there is one."""
    return next((sentence for sentence in sentences if sentence is not None), None)


def engines(config: Sections) -> Iterator[tuple[str, EngineConfig]]:
    """Every engine that writes, by the section that says so."""
    yield "sampler", config.sampler
    for guide in members(config.guide, LocalGuideConfig):
        yield "guide.sampler", guide.sampler
