"""What `rlgf check` says of a recipe without faults: what its run will do, in plain words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rlgf.algorithms import Algorithm, Mixture
from rlgf.config import Config
from rlgf.distributed import device
from rlgf.errors import UserError
from rlgf.models.abilities import computes_in_half
from rlgf.models.text import Codec
from rlgf.preview.bill import asked
from rlgf.preview.faults import Checked
from rlgf.preview.form import note, span, table, titled, topics
from rlgf.preview.words import mixture_words, row_words, schedule, term_words
from rlgf.rollout.plan import UpdatePlan, planned
from rlgf.run.memory import Estimate, estimated, memory
from rlgf.run.trials import answered_prompts, long_prompts, policy_template, unread_prompts
from rlgf.tasks import load_split
from rlgf.tasks.chats import PromptedTask
from rlgf.terminal import number
from rlgf.types import Author


def told(found: Checked) -> Group:
    """The run in plain words."""
    config = found.config
    updates, samples = config.training.updates, len(found.train)
    plans = list(planned(config.algorithm, config.rollout, updates, config.seed, samples, config.turns))
    held_out = _held_out(found)
    parts: list[RenderableType] = [Text(f"{config.name}: {_headline(config)}", style="bold")]
    parts += [note(f"Missing: {said}") for said in found.missing.values()]
    parts += map(note, _lost_prompts(found))
    if plans[0].times > 1:
        parts.append(note(f"Counted on one of every {plans[0].times:,} updates, which stands for them."))
    parts += _algorithm(config, plans)
    parts += [titled("Sizes"), topics(_sizes(config, plans, len(found.train), held_out))]
    parts += [titled("Tokens, at most"), _tokens(config, plans, held_out)]
    parts += [titled("Memory, estimated"), *_memory(found)]
    if config.guide is not None:
        parts += [titled("Asked of the guide, at most"), *asked(found, plans)]
    return Group(*parts)


def _headline(config: Config) -> str:
    assert config.task is not None, "checked with the configuration"
    training, name = config.training, config.algorithm.name
    limits = (training.policy_tokens, "policy"), (training.guide_tokens, "guide")
    early = " or ".join(f"{limit:,} tokens of the {author}" for limit, author in limits if limit is not None)
    return (
        f"{training.updates:,} update{'s' * (training.updates != 1)} of {name} on the task '{config.task.name}', "
        f"seed {config.seed}" + (f"; it ends earlier after {early}" if early else "")
    )


def _lost_prompts(found: Checked) -> list[str]:
    """Notes on prompts that the policy does not read whole, where its tokenizer is there."""
    config = found.config
    if "policy" in found.missing or config.policy.scratch is not None:
        return []
    assert found.task is not None, "loaded, or this would not be told"
    try:
        template = policy_template(config, None)
        task = PromptedTask(found.task, lambda: template)
        train = task.load("train")
    except UserError:  # no tokenizer is there, or its template takes no chats
        return []
    assert template.tokenizer is not None, "of a model that is there"
    codec = Codec(template.tokenizer)
    long = long_prompts(task, train, codec, config.rollout.max_prompt_tokens)
    return long + unread_prompts(train, codec) + answered_prompts(train)


# The algorithm.


def _algorithm(config: Config, plans: Sequence[UpdatePlan]) -> list[RenderableType]:
    algorithm = config.algorithm
    parts: list[RenderableType] = [titled(f"Algorithm {algorithm.name}")]
    if algorithm.summary:
        parts.append(
            Text(f"{algorithm.summary} ({algorithm.paper})" if algorithm.paper else algorithm.summary)
        )
    if isinstance(algorithm, Mixture):
        runs = Counter[str]()
        for plan in plans:
            runs["explore" if plan.row is algorithm.explore else "imitate"] += plan.times
        parts.append(
            Text(
                f"{mixture_words(algorithm)} With seed {config.seed} that is {algorithm.explore.name} in "
                f"{runs['explore']:,} updates and {algorithm.imitate.name} in {runs['imitate']:,}."
            )
        )
    for row in algorithm.rows:
        if isinstance(algorithm, Mixture):
            parts.append(Text(f"\n{row.name}", style="italic"))
        parts += [topics(row_words(row, config.rollout, config.environment)), _terms(row)]
    return parts


def _terms(row: Algorithm) -> Table:
    rows = table("term", "loss", "reads tokens", "weight", "options")
    for name, term in row.terms.items():
        rows.add_row(*map(Text, term_words(name, term, row)))
    return rows


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


def _held_out(found: Checked) -> tuple[int, int]:
    """How many prompts of the validation and of the test split are measured: a split may have fewer than are wanted."""
    assert found.task is not None, "loaded, or this would not be told"
    wanted = {"validation": found.config.evaluation.samples, "test": found.config.evaluation.test_samples}
    validation, test = (min(count, len(load_split(found.task, split))) for split, count in wanted.items())
    return validation, test


def _sizes(
    config: Config, plans: Sequence[UpdatePlan], samples: int, held_out: tuple[int, int]
) -> dict[str, str]:
    prompts = sorted({plan.prompts for plan in plans})
    steps = [steps_per_update(config, plan.row) for plan in plans]
    steps_in_all = sum(each * plan.times for each, plan in zip(steps, plans, strict=True))
    total = sum(plan.prompts * plan.times for plan in plans)
    update, passes = config.update, number(total / samples, 2)
    early = ", fewer where 'max_update_kl' is reached" if update.max_update_kl is not None else ""
    rate = schedule(update.learning_rate)
    return {
        "per update": f"{config.rollout.episodes:,} episodes from {span(prompts)} prompts"
        + (", drawn by difficulty" if config.rollout.draw == "difficulty" else ""),
        "prompts in all": f"{total:,}, {passes} pass{'es' * (passes != '1')} over the {samples:,} samples of 'train'",
        **_engine(config),
        "training": f"{update.epochs} epoch{'s' * (update.epochs != 1)} in minibatches of {update.minibatch} episodes, learning rate {rate}",
        "optimizer steps": f"{span(sorted(set(steps)))} per update, {steps_in_all:,} in all{early}",
        "evaluation": f"{validations(config)} times {held_out[0]:,} prompts of 'validation', "
        f"{held_out[1]:,} of 'test' at the end",
    }


def _engine(config: Config) -> dict[str, str]:
    """Where the policy's tokens come from, where that is not the policy as it is."""
    sampler, steps = config.sampler, config.training.async_steps
    if not sampler.apart and not steps and not computes_in_half(device()):
        return {}
    bound = sampler.importance_bound
    weighed = (
        "not weighted" if bound is None else f"weighted by min(the policy's probability / its own, {bound:g})"
    )
    engine = "vLLM" if sampler.engine == "vllm" else "the built-in one"
    where = "in this process" if sampler.server is None else f"behind {sampler.server}"
    who = (
        f"works ahead with weights {steps} update{'s' if steps > 1 else ''} old"
        if steps
        else f"{engine} {where}"
    )
    return {"sampler": f"{who}; advantages of its tokens are {weighed}"}


def _tokens(config: Config, plans: Sequence[UpdatePlan], held_out: tuple[int, int]) -> Table:
    rollout = config.rollout
    rows = table("", "each text", "per update", "run", numbers=3)
    episodes, updates = rollout.episodes, config.training.updates

    def add(what: str, each: int, update: int, run: int) -> None:
        rows.add_row(Text(what), f"{each:,}", f"{update:,}", f"{run:,}")

    ends = {Author.POLICY: config.training.policy_tokens, Author.GUIDE: config.training.guide_tokens}
    prompt, response = rollout.room(config.algorithm)[0], rollout.max_response_tokens
    add("prompts", prompt, episodes * prompt, updates * episodes * prompt)
    add("responses", response, episodes * response, updates * episodes * response)
    taken = {Author.REFERENCE: "the data", Author.PAST: "the policy at earlier visits"}
    for author in (Author.POLICY, Author.GUIDE, *taken):
        # Of several candidates one is used, and all are written.
        texts = config.guide.candidates if author is Author.GUIDE and config.guide is not None else 1
        sums = [texts * sum(ask.limit for ask in plan.of(author)) for plan in plans]
        if any(sums):
            whose = taken.get(author, f"the {author.name.lower()}")
            # The update that reaches a limit is finished.
            most = ends.get(author)
            run = sum(each * plan.times for each, plan in zip(sums, plans, strict=True))
            run = run if most is None else min(run, most + max(sums))
            # With an environment more is sampled than is used: what stands after the end of a turn is dropped.
            turns = 1 if author in taken else config.turns
            did = "written" if turns == texts == 1 else "sampled"
            # A hint may be longer than a response.
            each = max(rollout.limit(author), *(ask.limit for plan in plans for ask in plan.of(author)))
            add(f"  {did} by {whose}", each * turns, max(sums), run)
    measured = validations(config) * held_out[0] + held_out[1]
    response *= config.turns
    # A search goes on with as many texts as it has beams.
    texts = 1 + (config.evaluation.beams or 0)
    rows.add_row(Text("evaluation, by the policy"), f"{response:,}", "", f"{measured * texts * response:,}")
    return rows


def _memory(found: Checked) -> list[RenderableType]:
    if "policy" in found.missing:
        return [Text("No figure: the policy's model is not there, and its size and context cannot be read.")]
    estimate = estimated(found.config, list(found.missing))
    scratch = (
        " Of a model from scratch the vocabulary is the largest that it may have."
        if found.config.policy.scratch
        else ""
    )
    left_out = "Left out: models of rewards and judges, and what the libraries take."
    parts: list[RenderableType] = [
        Text(f"Of {estimate.launch.words}; docs/scaling.md has the formulas.{scratch}"),
        _models(estimate),
        _phases(estimate),
        Text(f"{memory(estimate.peak)} together, at most. {left_out}"),
    ]
    certain = estimate.refusal(estimate.least())
    if certain is not None:
        parts.append(note(certain[0].upper() + certain[1:]))
    elif estimate.refusal(estimate.peak) is not None:
        parts.append(
            note(
                "That is more than there is: lower 'update.max_micro_tokens' and 'rollout.max_batch_tokens'."
            )
        )
    absent = [who for who in found.missing if who != "policy"]
    if absent:
        parts.append(note(f"Not counted, since not there: {', '.join(absent)}."))
    return parts


def _models(estimate: Estimate) -> Table:
    """What there is of each model, as a whole."""
    rows = table("model", "parameters", "weights", "gradients", "AdamW", numbers=4)
    sizes = [*estimate.shared, *estimate.others]
    for size in sizes:
        rows.add_row(
            Text(size.name),
            f"{size.parameters:,}",
            memory(size.bytes),
            *(memory(more) if size.trained else "" for more in (size.gradients, size.moments)),
        )
    sums = [sum(getattr(size, what) for size in sizes) for what in ("bytes", "gradients", "moments")]
    rows.add_row("all", f"{sum(size.parameters for size in sizes):,}", *map(memory, sums))
    return rows


def _phases(estimate: Estimate) -> Table:
    """What a process holds, by what it does."""
    phases = estimate.phases
    rows = table("held by a process", *phases, numbers=len(phases))
    for part in dict.fromkeys(part for parts in phases.values() for part in parts):
        rows.add_row(part, *(memory(parts[part]) if part in parts else "" for parts in phases.values()))
    rows.add_row("together", *(memory(sum(parts.values())) for parts in phases.values()))
    return rows
