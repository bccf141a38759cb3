"""`rlgf check`: what a recipe will do, or all its faults, before anything is loaded or asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rlgf import checks
from rlgf.algorithms import Algorithm, Mixture
from rlgf.check.bill import Bill, evaluation_bills, training_bills
from rlgf.check.words import row_words, schedule, term_words
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.guides import HTTPGuideConfig, guide_models
from rlgf.metrics import Metric, build_metrics
from rlgf.models.loading import ModelConfig, load_model_config
from rlgf.models.memory import Size, frozen_size, logits_bytes, policy_sizes
from rlgf.rollout.plan import UpdatePlan, planned
from rlgf.tasks import Task, build_task
from rlgf.types import Author, Sample


@dataclass
class Checked:
    """A recipe's faults; and where there are none, what its run needs to be told in words."""

    config: Config
    broken: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Models that are not there, by who they are, with a sentence each."""
    task: Task | None = None
    train: Sequence[Sample] = ()


def check(config: Config) -> Checked:
    """Every rule that can be checked without weights and without asking a server."""
    found = Checked(config, missing=dict(_missing(config)))
    rewards: list[Any] = []
    found.broken += [said for said in checks.broken_parts(config) if said not in found.missing.values()]
    with _noting(found.broken):
        rewards = checks.named_rewards(config)
    with _noting(found.broken):
        assert config.task is not None, "checked with the configuration"
        found.task = build_task(config.task.name, config.task.options)
        found.train = checks.loaded(found.task, "train")
    metrics: dict[str, Metric] = {}
    with _noting(found.broken):
        metrics = build_metrics(config.evaluation.metrics)
    if found.task is not None and len(found.train):
        given = checks.Found(found.task, found.train, metrics, rewards)
        found.broken += checks.broken_by_data(config, given)
    found.broken = list(dict.fromkeys(found.broken))
    return found


def told(found: Checked) -> Group:
    """The run in plain words."""
    config = found.config
    plans = list(planned(config.algorithm, config.rollout, config.training.updates, config.seed))
    parts: list[RenderableType] = [Text(f"{config.name}: {_headline(config)}", style="bold")]
    parts += [_note(f"Missing: {said}") for said in found.missing.values()]
    parts += _algorithm(config, plans)
    parts += [_titled("Sizes"), _grid(_sizes(config, plans, len(found.train)))]
    parts += [_titled("Tokens, at most"), _tokens(config, plans)]
    parts += [_titled("Memory, estimated"), *_memory(found)]
    if config.guide is not None:
        parts += [_titled("Asked of the guide, at most"), *_asked(found, plans)]
    return Group(*parts)


def _headline(config: Config) -> str:
    assert config.task is not None, "checked with the configuration"
    updates, name = config.training.updates, config.algorithm.name
    return f"{updates:,} update{'s' * (updates != 1)} of {name} on the task '{config.task.name}', seed {config.seed}"


def _missing(config: Config) -> Iterator[tuple[str, str]]:
    """Models that the recipe names and that are not there."""
    for who, model in _models(config):
        try:
            if isinstance(model, ModelConfig):
                load_model_config(model)
        except UserError as error:
            yield who, str(error)


def _models(config: Config) -> Iterator[tuple[str, Any]]:
    """Every model that a run of the recipe loads for itself, by who it is."""
    yield "policy", config.policy.source
    guides = guide_models(config.guide) if config.guide is not None else []
    for number, guide in enumerate(guides):
        yield f"guide {number + 1}" if len(guides) > 1 else "guide", guide
    if config.evaluation.reference is not None:
        yield "evaluation's reference", config.evaluation.reference
    if config.evaluation.language_model is not None:
        yield "evaluation's language model", config.evaluation.language_model


@contextmanager
def _noting(sentences: list[str]) -> Iterator[None]:
    """Go on after what a user can mend, and keep what it says."""
    try:
        yield
    except UserError as error:
        sentences.append(str(error))


# The algorithm.


def _algorithm(config: Config, plans: Sequence[UpdatePlan]) -> list[RenderableType]:
    algorithm = config.algorithm
    parts: list[RenderableType] = [_titled(f"Algorithm {algorithm.name}")]
    if algorithm.summary:
        parts.append(
            Text(f"{algorithm.summary} ({algorithm.paper})" if algorithm.paper else algorithm.summary)
        )
    if isinstance(algorithm, Mixture):
        runs = Counter("explore" if plan.row is algorithm.explore else "imitate" for plan in plans)
        parts.append(
            Text(
                f"Each update runs {algorithm.explore.name} with probability {schedule(algorithm.explore_prob)}, else "
                f"{algorithm.imitate.name}. With seed {config.seed} that is {algorithm.explore.name} in "
                f"{runs['explore']:,} updates and {algorithm.imitate.name} in {runs['imitate']:,}."
            )
        )
    for row in algorithm.rows:
        if isinstance(algorithm, Mixture):
            parts.append(Text(f"\n{row.name}", style="italic"))
        parts += [_grid(row_words(row, config.rollout)), _terms(row)]
    return parts


def _terms(row: Algorithm) -> Table:
    table = _table("term", "loss", "reads tokens", "weight", "options")
    for name, term in row.terms.items():
        table.add_row(*map(Text, term_words(name, term, row)))
    return table


# Numbers.


def steps_per_update(config: Config, row: Algorithm) -> int:
    """Optimizer steps of one update, at most."""
    size, each = config.rollout.episodes, 1
    if row.paired:  # one pair of each group, whose two texts stay together
        size, each = size // row.group_size, 2
    return config.update.epochs * math.ceil(size / max(1, config.update.minibatch // each))


def validations(config: Config) -> int:
    """How often the policy is measured on the validation split."""
    updates, every = config.training.updates, config.evaluation.every
    return 1 + updates // every + (updates % every != 0)


def _sizes(config: Config, plans: Sequence[UpdatePlan], samples: int) -> dict[str, str]:
    prompts = sorted({plan.prompts for plan in plans})
    steps = [steps_per_update(config, plan.row) for plan in plans]
    total = sum(plan.prompts for plan in plans)
    update = config.update
    early = ", fewer where 'max_update_kl' is reached" if update.max_update_kl is not None else ""
    rate = schedule(update.learning_rate)
    return {
        "per update": f"{config.rollout.episodes:,} episodes from {_range(prompts)} prompts",
        "prompts in all": f"{total:,}, {total / samples:.2g} passes over the {samples:,} samples of 'train'",
        "training": f"{update.epochs} epochs in minibatches of {update.minibatch} episodes, learning rate {rate}",
        "optimizer steps": f"{_range(sorted(set(steps)))} per update, {sum(steps):,} in all{early}",
        "evaluation": f"{validations(config)} times {config.evaluation.samples:,} prompts of 'validation', "
        f"{config.evaluation.test_samples:,} of 'test' at the end",
    }


def _tokens(config: Config, plans: Sequence[UpdatePlan]) -> Table:
    rollout, evaluation = config.rollout, config.evaluation
    table = _table("", "each text", "per update", "run", numbers=3)
    episodes, updates = rollout.episodes, config.training.updates

    def add(what: str, each: int, update: int, run: int) -> None:
        table.add_row(Text(what), f"{each:,}", f"{update:,}", f"{run:,}")

    prompt, response = rollout.max_prompt_tokens, rollout.max_response_tokens
    add("prompts", prompt, episodes * prompt, updates * episodes * prompt)
    add("responses", response, episodes * response, updates * episodes * response)
    for author in (Author.POLICY, Author.GUIDE, Author.REFERENCE):
        sums = [sum(ask.limit for ask in plan.of(author)) for plan in plans]
        if any(sums):
            whose = "the data" if author is Author.REFERENCE else f"the {author.name.lower()}"
            add(f"  written by {whose}", rollout.limit(author), max(sums), sum(sums))
    texts = validations(config) * evaluation.samples + evaluation.test_samples
    table.add_row(Text("evaluation, by the policy"), f"{response:,}", "", f"{texts * response:,}")
    return table


def _memory(found: Checked) -> list[RenderableType]:
    config = found.config
    parts: list[RenderableType] = []
    if "policy" in found.missing:
        return [Text("No figure: the policy's model is not there, and its size and context cannot be read.")]
    names = sorted({str(row.critic) for row in config.algorithm.rows} - {"None"})
    policy = config.policy
    sizes = policy_sizes(policy.source, policy.lora, policy.critic, names)
    others = [
        frozen_size(who, model)
        for who, model in _models(config)
        if who != "policy" and who not in found.missing
    ]
    table = _table("part", "parameters", "weights", "gradients and AdamW", numbers=3)
    everything: list[Size] = [*sizes.parts, *others]
    for part in everything:
        more = memory(part.training_bytes) if part.trained else ""
        table.add_row(Text(part.name), f"{part.parameters:,}", memory(part.bytes), more)
    weights = sum(part.bytes for part in everything)
    table.add_row(
        "all", f"{sum(p.parameters for p in everything):,}", memory(weights), memory(sizes.training_bytes)
    )
    parts.append(table)
    rollout = config.rollout
    logits = logits_bytes(
        sizes.vocabulary,
        rollout.max_prompt_tokens,
        rollout.max_response_tokens,
        config.update.max_micro_tokens,
        config.update.minibatch,
    )
    scratch = (
        " Of a model from scratch the vocabulary is the largest that it may have." if policy.scratch else ""
    )
    left_out = "Left out: activations, the cache of keys and values while texts are written, models of rewards and judges, and what the libraries take."
    parts.append(
        Text(
            f"{memory(weights + sizes.training_bytes)} together, and {memory(logits)} for the logits of the largest "
            f"micro-batch, of which several copies are alive at a time.{scratch} {left_out}"
        )
    )
    absent = [who for who in found.missing if who != "policy"]
    if absent:
        parts.append(_note(f"Not counted, since not there: {', '.join(absent)}."))
    return parts


def memory(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


# The guide.


def _asked(found: Checked, plans: Sequence[UpdatePlan]) -> list[RenderableType]:
    config = found.config
    assert found.task is not None, "loaded, or this would not be told"
    test = checks.loaded(found.task, "test")[: config.evaluation.test_samples]
    training, evaluation = training_bills(config, plans, found.train), evaluation_bills(config, test)
    paid = any(bill.run.cost or _priced(bill) for bill in training)
    table = _table(
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
            table.add_row(
                Text(_name(bill) if when == "per update" else ""),
                when,
                *cells,
                *[f"{usage.cost:,.4g}"] * paid,
            )
    distils = any(row.distills for row in config.algorithm.rows)
    notes = [said for bill in training for said in _budget(bill)]
    if distils:
        notes.append("It also gives its probabilities at every token that the loss 'distillation' reads.")
    if any(isinstance(bill.config, HTTPGuideConfig) for bill in training):
        notes.append(
            "A run begins with one request that shows that the server answers. Tokens of prompts are guessed at two "
            "characters each. Answers in the cache are not asked for again; attempts that fail and are made again "
            "are not counted."
        )
    notes.append(
        "Training measures the policy alone; `rlgf eval` lets the guide answer the test prompts too."
    )
    return [table, Text(" ".join(notes))]


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


# Form.


def _titled(title: str) -> Text:
    return Text(f"\n{title}", style="bold")


def _note(words: str) -> Text:
    return Text(words, style="yellow")


def _grid(rows: Mapping[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for topic, words in rows.items():
        grid.add_row(topic, Text(words))
    return grid


def _table(*columns: str, numbers: int = 0) -> Table:
    """
    Args:
        numbers: how many of the last columns hold numbers.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        right = place >= len(columns) - numbers
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
