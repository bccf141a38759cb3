"""The kind of a rule, and two things that rules of several kinds need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rlgf.guides.config import guide_models
from rlgf.models.samplers import EngineConfig
from rlgf.sections import Sections

Rule = Callable[[Sections], str | None]


def first(sentences: Iterable[str | None]) -> str | None:
    """The first fault, where there is one."""
    return next((sentence for sentence in sentences if sentence is not None), None)


def engines(config: Sections) -> Iterator[tuple[str, EngineConfig]]:
    """Every engine that writes, by the section that says so."""
    yield "sampler", config.sampler
    for guide in guide_models(config.guide) if config.guide is not None else []:
        yield "guide.sampler", guide.sampler
