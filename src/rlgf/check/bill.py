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
from rlgf.guides.repeats import first_request, scored_first
from rlgf.rollout.episodes import candidate_seeds
from rlgf.rollout.plan import Ask, UpdatePlan, evaluation_asks
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
        asks, scores = plan.of(Author.GUIDE), plan.row.reads_guide_scores
        samples = [train[index] for index in order] if asks or scores else []
        used = _asked(config.guide, asks, samples, config.guide.candidates if config.guide is not None else 1)
        if scores and isinstance(config.guide, HTTPGuideConfig):
            # Of each text it is asked how probable it is, which no model in this process is paid for.
            used.setdefault("", ([], []))
            for sample in samples:
                requests = [_scored(sample)] * plan.row.group_size
                used[""][0].extend(requests)
                used[""][1].extend([config.rollout.max_response_tokens] * len(requests))
        _add(bills, used, plan.times)
        first += plan.prompts * plan.times
    if config.guide is not None and _asked_first(config.guide):
        for request in _requests_first(config, train):
            bill = bills[_route(config.guide, request.seed)]
            bill.run += _usage(bill.config, [request], [0])
    return list(bills.values())


def _requests_first(config: Config, train: Sequence[Sample]) -> list[Request]:
    """What a remote guide is asked before the run."""
    rows = config.algorithm.rows
    scored = scored_first(train) * 2 if any(row.reads_guide_scores for row in rows) else []
    written = (
        []
        if scored and not any(row.asks_for_texts for row in rows)
        else [first_request(train, config.rollout.max_response_tokens)]
    )
    return scored + written


def _scored(sample: Sample) -> Request:
    return Request(sample.prompt, 1, seed=0, messages=sample.messages, scored="")


def evaluation_bills(config: Config, samples: Sequence[Sample]) -> list[Bill]:
    """What ``rlgf eval`` asks of each guide."""
    bills = _bills(config.guide)
    asks = evaluation_asks(Author.GUIDE, config.rollout, len(samples), config.turns)
    _add(bills, _asked(config.guide, asks, samples))
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


_Asked = dict[str, tuple[list[Request], list[int]]]
"""What one update asks of each guide, and how many tokens of the response are sent with each request."""


def _asked(
    guide: GuideConfig | None, asks: Sequence[Ask], samples: Sequence[Sample], candidates: int = 1
) -> _Asked:
    """The texts that one update asks for, each so many times."""
    of_guides: _Asked = {}
    every = [(ask, one) for ask in asks for one in candidate_seeds(ask.seed, candidates)]
    for ask, one in every:
        assert guide is not None, "checked: who asks a guide has one"
        sample, seed = samples[ask.sample], seeding.derive(one, "guide")
        request = Request(sample.prompt, ask.limit, seed, messages=sample.messages)
        requests, written = of_guides.setdefault(_route(guide, request.seed), ([], []))
        requests.append(request)
        written.append(ask.written)
    return of_guides


def _add(bills: dict[str, Bill], of_guides: _Asked, times: int = 1) -> None:
    """Book what one update asks for, and as many more like it."""
    for name, (requests, written) in of_guides.items():
        bill = bills[name]
        usage = _usage(bill.config, requests, written)
        bill.run += usage * times
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
