"""What the guides of a run will be asked for at most, and what that may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rlgf import seeding
from rlgf.config import Config
from rlgf.guides import EnsembleConfig, GuideConfig, HTTPGuideConfig, Request, Usage
from rlgf.guides.budget import most, priced, within
from rlgf.guides.ensemble import choice
from rlgf.rollout.candidates import candidate_seeds
from rlgf.rollout.plan import Ask, UpdatePlan, evaluation_asks, first_request
from rlgf.run.data_order import shuffled_passes
from rlgf.types import Author, Sample


@dataclass
class Bill:
    """Of one guide, at most. Tokens are the guide's own where it is on a server, else the policy's."""

    name: str
    config: GuideConfig
    update: Usage = field(default_factory=Usage)
    """Of the update that asks for most of each."""
    run: Usage = field(default_factory=Usage)

    def suffices(self, usage: Usage) -> bool:
        """Whether the guide's budget allows a usage; one without a budget allows all."""
        return not isinstance(self.config, HTTPGuideConfig) or within(self.config.budget, usage)


def training_bills(config: Config, plans: Iterable[UpdatePlan], train: Sequence[Sample]) -> list[Bill]:
    """What training asks of each guide; the request before the run, which shows that a server answers, included."""
    bills, first = _bills(config.guide), 0
    for plan in plans:
        order = list(shuffled_passes(first, plan.prompts, len(train), config.seed))
        asks = plan.of(Author.GUIDE)
        samples = [train[index] for index in order] if asks else []
        _add(bills, config.guide, asks, samples, config.guide.candidates if config.guide is not None else 1)
        first += plan.prompts
    if config.guide is not None and _asked_first(config.guide):
        request = first_request(config.rollout, train)
        bill = bills[_route(config.guide, request.seed)]
        bill.run += _usage(bill.config, [request], [0])
    return list(bills.values())


def evaluation_bills(config: Config, samples: Sequence[Sample]) -> list[Bill]:
    """What ``rlgf eval`` asks of each guide."""
    bills = _bills(config.guide)
    asks = evaluation_asks(Author.GUIDE, config.rollout, len(samples))
    _add(bills, config.guide, asks, samples)
    return list(bills.values())


def _bills(guide: GuideConfig | None) -> dict[str, Bill]:
    return {name: Bill(name, member) for name, member in _named("", guide)} if guide is not None else {}


def _named(name: str, config: GuideConfig) -> list[tuple[str, GuideConfig]]:
    if not isinstance(config, EnsembleConfig):
        return [(name, config)]
    return [found for key, one in config.guides.items() for found in _named(f"{name}/{key}".strip("/"), one)]


def _route(config: GuideConfig, seed: int, name: str = "") -> str:
    """The name of the guide that a request of this seed goes to."""
    if not isinstance(config, EnsembleConfig):
        return name
    names = list(config.guides)
    chosen = names[choice([config.weights.get(one, 1.0) for one in names], seed)]
    return _route(config.guides[chosen], seed, f"{name}/{chosen}".strip("/"))


def _asked_first(config: GuideConfig) -> bool:
    return config.early and isinstance(config, HTTPGuideConfig | EnsembleConfig)


def _add(
    bills: dict[str, Bill],
    guide: GuideConfig | None,
    asks: Sequence[Ask],
    samples: Sequence[Sample],
    candidates: int = 1,
) -> None:
    """Book what one update asks for, each text so many times."""
    of_guides: dict[str, tuple[list[Request], list[int]]] = {}
    every = [(ask, one) for ask in asks for one in candidate_seeds(ask.seed, candidates)]
    for ask, one in every:
        assert guide is not None, "checked: who asks a guide has one"
        sample, seed = samples[ask.sample], seeding.derive(one, "guide")
        request = Request(sample.prompt, ask.limit, seed, messages=sample.messages)
        requests, written = of_guides.setdefault(_route(guide, request.seed), ([], []))
        requests.append(request)
        written.append(ask.written)
    for name, (requests, written) in of_guides.items():
        bill = bills[name]
        usage = _usage(bill.config, requests, written)
        bill.run += usage
        bill.update = Usage(
            calls=max(bill.update.calls, usage.calls),
            prompt_tokens=max(bill.update.prompt_tokens, usage.prompt_tokens),
            completion_tokens=max(bill.update.completion_tokens, usage.completion_tokens),
            cost=max(bill.update.cost, usage.cost),
        )


def _usage(config: GuideConfig, requests: Sequence[Request], written: Sequence[int]) -> Usage:
    if not isinstance(config, HTTPGuideConfig):
        return Usage(
            calls=len(requests), completion_tokens=sum(request.max_new_tokens for request in requests)
        )
    # What stands of the response is sent with the prompt, and is yet to be written.
    more = sum(math.ceil(tokens * config.token_ratio) for tokens in written)
    return most(config, requests) + priced(config, 0, more, 0)
