"""Several guides with weights, one of them chosen for each request."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from rlgf import seeding
from rlgf.errors import UserError, nearest
from rlgf.guides.base import (
    Guide,
    GuideSettings,
    RecordedGuide,
    RemoteGuide,
    Request,
    Usage,
    completions_of,
)
from rlgf.guides.config import GuideConfig
from rlgf.guides.http import HTTPGuide
from rlgf.guides.under_way import Stopwatch
from rlgf.models.language_model import LanguageModel
from rlgf.types import Completion


class EnsembleConfig(GuideSettings):
    """Several guides, of which each episode gets one."""

    mark: ClassVar[str] = "guides"

    guides: dict[str, GuideConfig] = Field(min_length=2)
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """How often each is chosen, relative to the others; 1 where nothing is said."""

    @model_validator(mode="after")
    def _known(self) -> EnsembleConfig:
        for name in self.weights.keys() - self.guides.keys():
            raise ValueError(f"'weights' names '{name}', which is not a guide: {nearest(name, self.guides)}")
        for name, member in self.guides.items():
            if member.candidates > 1:
                raise ValueError(
                    f"'candidates' are of all guides together: set it beside 'guides', not in '{name}'"
                )
        return self

    @property
    def members(self) -> list[GuideSettings]:
        return [one for member in self.guides.values() for one in member.members]

    @property
    def label(self) -> str:
        return ", ".join(member.label for member in self.members)

    def build(self, start: LanguageModel | None) -> EnsembleGuide:
        built = {}
        for name, member in self.guides.items():
            with _errors_of(name):
                built[name] = member.build(start), self.weights.get(name, 1.0)
        return EnsembleGuide(built)


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Let the errors of a member name its settings as they stand in the recipe."""
    try:
        yield
    except UserError as error:
        error.args = (str(error).replace("'guide.", f"'guide.guides.{name}."),)
        raise


def choice(weights: Sequence[float], seed: int) -> int:
    """Which of several guides a request of this seed goes to."""
    draw, total = seeding.uniforms(1, seed, "ensemble").item(), sum(weights)
    bounds = (bound / total for bound in itertools.accumulate(weights))
    return next((i for i, bound in enumerate(bounds) if draw < bound), len(weights) - 1)


def seed_within(seed: int, name: str) -> int:
    """The seed by which the member of that name chooses, where it is several guides itself; with the same one it would
    choose by the same number."""
    return seeding.derive(seed, "within", name)


class EnsembleGuide:
    """Sends each request to one guide, drawn by weight from the request's own seed.

    Every completion says which guide wrote it, so that results can be told apart.
    """

    def __init__(self, guides: Mapping[str, tuple[Guide, float]]) -> None:
        """For each name a guide and its weight, above 0."""
        self.guides = {name: guide for name, (guide, _) in guides.items()}
        self._remote = {name: one for name, one in self.guides.items() if isinstance(one, RemoteGuide)}
        self._weights = [weight for _, weight in guides.values()]
        busy = Stopwatch()
        for server in self._servers:
            server.busy = busy

    @property
    def _servers(self) -> list[HTTPGuide]:
        """The members on servers, those of an ensemble within this one among them."""
        servers: list[HTTPGuide] = []
        for guide in self.guides.values():
            servers += guide._servers if isinstance(guide, EnsembleGuide) else []
            servers += [guide] if isinstance(guide, HTTPGuide) else []
        return servers

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`. Servers are asked side by side, unless a budget is near its end."""
        answers: dict[int, Completion] = {}
        self.prefetch(requests)
        try:
            for name, guide, chosen, asked in self._dealt(requests):
                with _errors_of(name):
                    written = completions_of(guide, asked)
                answers |= zip(chosen, (replace(one, guide=name) for one in written), strict=True)
        except UserError as error:
            self.wind_down(str(error))
            raise
        return [answers[i] for i in range(len(requests))]

    def recorded(self, requests: Sequence[Request]) -> list[Completion | None]:
        """See `RecordedGuide.recorded`; None for a guide that writes as it is asked."""
        texts: dict[int, Completion | None] = {}
        for name, guide, chosen, asked in self._dealt(requests):
            if isinstance(guide, RecordedGuide):
                with _errors_of(name):
                    texts |= zip(chosen, guide.recorded(asked), strict=True)
        return [texts.get(i) for i in range(len(requests))]

    def prefetch(self, requests: Sequence[Request]) -> None:
        """See `RemoteGuide.prefetch`; guides that cannot be asked ahead are not, and none where a budget is near its end."""
        for _, guide, _, asked in self._dealt(requests) if self.affords(requests) else ():
            if isinstance(guide, RemoteGuide):
                guide.prefetch(asked)

    def affords(self, requests: Sequence[Request]) -> bool:
        """See `RemoteGuide.affords`."""
        return all(
            guide.affords(asked)
            for _, guide, _, asked in self._dealt(requests)
            if isinstance(guide, RemoteGuide)
        )

    def wind_down(self, why: str) -> None:
        """See `RemoteGuide.wind_down`."""
        for guide in self._remote.values():
            guide.wind_down(why)

    @property
    def accounts(self) -> dict[str, Usage]:
        """See `RemoteGuide.accounts`."""
        return _together({name: guide.accounts for name, guide in self._remote.items()})

    def restore(self, accounts: Mapping[str, Usage]) -> None:
        """See `RemoteGuide.restore`."""
        for name, guide in self._remote.items():
            guide.restore(_of_member(name, accounts))

    @property
    def aside(self) -> dict[str, Usage]:
        """See `RemoteGuide.aside`."""
        return _together({name: guide.aside for name, guide in self._remote.items()})

    def share_budget(self, asides: Sequence[Mapping[str, Usage]], place: int) -> None:
        """See `RemoteGuide.share_budget`."""
        for name, guide in self._remote.items():
            guide.share_budget([_of_member(name, one) for one in asides], place)

    def close(self) -> None:
        """See `RemoteGuide.close`."""
        for guide in self._remote.values():
            guide.close()

    def _dealt(self, requests: Sequence[Request]) -> Iterator[tuple[str, Guide, list[int], list[Request]]]:
        """The guides that are asked anything, the numbers of their requests, and these as they are asked them."""
        seeds = [request.seed if request.episode is None else request.episode for request in requests]
        choices = [choice(self._weights, seed) for seed in seeds]
        for number, (name, guide) in enumerate(self.guides.items()):
            if number in choices:
                chosen = [i for i, one in enumerate(choices) if one == number]
                asked = [requests[i] for i in chosen]
                if isinstance(guide, EnsembleGuide):
                    within = (seed_within(seeds[i], name) for i in chosen)
                    asked = [replace(one, episode=seed) for one, seed in zip(asked, within, strict=True)]
                yield name, guide, chosen, asked


def _together(accounts: Mapping[str, Mapping[str, Usage]]) -> dict[str, Usage]:
    """The entries of all guides, each by its guide's name and the name that this gave it."""
    return {f"{name}/{key}": usage for name, one in accounts.items() for key, usage in one.items()}


def _of_member(name: str, accounts: Mapping[str, Usage]) -> dict[str, Usage]:
    """The entries of one guide, by the names that it gave them."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): usage for key, usage in accounts.items() if key.startswith(prefix)}
