"""What `rlgf check` says of the guide: what it will be asked, and what that costs at most."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from rlgf.check import form
from rlgf.check.bill import Bill, evaluation_bills, training_bills
from rlgf.check.faults import Checked
from rlgf.config import Config
from rlgf.guides import HTTPGuideConfig
from rlgf.rollout.plan import UpdatePlan
from rlgf.tasks import load_split


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
                *[f"{usage.cost:,.4g}"] * paid,
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
    """What is said of a guide that scores texts."""
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
    budget = bill.config.budget
    if not budget.limited:
        return ["There is no budget ('guide.budget')."]
    limits = [
        *([f"{budget.calls:,} calls"] if budget.calls is not None else []),
        *([f"{budget.tokens:,} tokens"] if budget.tokens is not None else []),
        *([f"a cost of {budget.cost:g}"] if budget.cost is not None else []),
    ]
    whose = f" of {bill.name}" if bill.name else ""
    if bill.suffices(bill.run):
        return [f"The budget{whose} ({', '.join(limits)}) suffices."]
    then = "trains on without the guide" if budget.then == "unguided" else "stops with a checkpoint"
    return [f"The budget{whose} ({', '.join(limits)}) may not suffice: where it is spent the run {then}."]
