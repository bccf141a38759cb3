"""What the guides of a run will be asked for at most, what that may cost, and how `rlgf check` says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import RenderableType
from rich.text import Text

from rlgf import seeding
from rlgf.config import Config
from rlgf.guides import EnsembleConfig, GuideConfig, HTTPGuideConfig, Request, Usage
from rlgf.guides.budget import most, priced, within
from rlgf.guides.ensemble import choice, seed_within
from rlgf.guides.repeats import first_request, scored_first
from rlgf.preview import form
from rlgf.preview.faults import Checked
from rlgf.rollout.episodes import candidate_seeds
from rlgf.rollout.plan import Ask, UpdatePlan, evaluation_asks
from rlgf.run.plan import shuffled_passes
from rlgf.tasks import load_split
from rlgf.terminal import number
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
                request = Request(sample.prompt, 1, seed=0, messages=sample.messages, scored="")
                used[""][0].extend([request] * plan.row.group_size)
                used[""][1].extend([config.rollout.max_response_tokens] * plan.row.group_size)
        _add(bills, used, plan.times)
        first += plan.prompts * plan.times
    for request in _requests_first(config, train):
        assert config.guide is not None, "it is asked"
        bill = bills[_route(config.guide, request.seed)]
        bill.run += _usage(bill.config, [request], [0])
    return list(bills.values())


def _requests_first(config: Config, train: Sequence[Sample]) -> list[Request]:
    """What a remote guide is asked before the run; nothing of one that waits for the policy."""
    if not isinstance(config.guide, HTTPGuideConfig | EnsembleConfig) or not config.guide.early:
        return []
    rows = config.algorithm.rows
    scored = scored_first(train) * 2 if any(row.reads_guide_scores for row in rows) else []
    if scored and not any(row.asks_for_texts for row in rows):
        return scored
    return [*scored, first_request(train, config.rollout.max_response_tokens)]


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
    return _route(config.guides[chosen], seed_within(seed, chosen), f"{name}/{chosen}".strip("/"))


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


def asked(found: Checked, plans: Sequence[UpdatePlan]) -> list[RenderableType]:
    """A table of all requests, and what has to be known with it."""
    config = found.config
    assert found.task is not None, "loaded, or this would not be told"
    test = load_split(found.task, "test")[: config.evaluation.test_samples]
    training, evaluation = training_bills(config, plans, found.train), evaluation_bills(config, test)
    paid = any(bill.run.cost or _priced(bill) for bill in training)
    rows = form.table(
        "guide", "when", "requests", "prompt tokens", "tokens to write", *["cost"] * paid, numbers=4
    )
    for bill, measured in zip(training, evaluation, strict=True):
        for when, usage in (
            ("per update", bill.update),
            ("run", bill.run),
            ("rlgf eval", measured.run),
        ):
            server = isinstance(bill.config, HTTPGuideConfig)
            cells = [
                f"{usage.calls:,}",
                f"{usage.prompt_tokens:,}" if server else "",
                f"{usage.completion_tokens:,}",
            ]
            rows.add_row(
                Text(_name(bill) if when == "per update" else ""),
                when,
                *cells,
                *[number(usage.cost)] * paid,
            )
    distils = any(row.distills for row in config.algorithm.rows)
    notes = [said for bill in training for said in _budget(bill)]
    if distils:
        notes.append("It also gives its probabilities at every token that the loss 'distillation' reads.")
    notes += _scores(config)
    if config.guide is not None and config.guide.candidates > 1:
        notes.append(
            f"It writes {config.guide.candidates} texts for each that training asks for, and the reward picks the best."
        )
    if any(isinstance(bill.config, HTTPGuideConfig) for bill in training):
        notes.append(
            "A run begins with a request that shows that the server answers, or four that show that it repeats its scores. "
            "Tokens of prompts are guessed at two characters each. Answers in the cache are not asked for again; attempts "
            "that fail and are made again are not counted."
        )
    notes.append(
        "Training measures the policy alone; `rlgf eval` lets the guide answer the test prompts too."
    )
    return [rows, Text(" ".join(notes))]


def _scores(config: Config) -> list[str]:
    """Lines about a guide that scores texts."""
    if not any(row.reads_guide_scores for row in config.algorithm.rows):
        return []
    notes = [
        "It says how probable the policy's texts are: a server is sent each as a prompt, after which it writes one token."
    ]
    if isinstance(config.guide, HTTPGuideConfig) and config.guide.end_token is None:
        notes.append("It does not say when a text should end, since 'guide.end_token' is not set.")
    return notes


def _priced(bill: Bill) -> bool:
    config = bill.config
    return isinstance(config, HTTPGuideConfig) and bool(config.prices.prompt or config.prices.completion)


def _name(bill: Bill) -> str:
    return f"{bill.name} ({bill.config.label})" if bill.name else bill.config.label


def _budget(bill: Bill) -> list[str]:
    if not isinstance(bill.config, HTTPGuideConfig):
        return []
    budget, whose = bill.config.budget, f" of {bill.name}" if bill.name else ""
    if not budget.limited:
        key = "".join(f".guides.{name}" for name in bill.name.split("/") if name)
        return [f"There is no budget{whose} ('guide{key}.budget')."]
    limits = [
        *([f"{budget.calls:,} calls"] if budget.calls is not None else []),
        *([f"{budget.tokens:,} tokens"] if budget.tokens is not None else []),
        *([f"a cost of {budget.cost:g}"] if budget.cost is not None else []),
    ]
    if bill.suffices(bill.run):
        return [f"The budget{whose} ({', '.join(limits)}) suffices."]
    then = "trains on without the guide" if budget.then == "unguided" else "stops with a checkpoint"
    return [f"The budget{whose} ({', '.join(limits)}) may not suffice: where it is spent the run {then}."]
