"""All that is wrong with a recipe, as far as that shows before anything is loaded or asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rlgf import checks
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.metrics import Metric, build_metrics
from rlgf.models.loading import ModelConfig, load_model_config
from rlgf.run.memory import Launch, models
from rlgf.run.trials import check_hints, policy_template
from rlgf.tasks import Task, build_task, load_split
from rlgf.tasks.chats import Prompted
from rlgf.types import Sample


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
    with _noting(found.broken):
        if Launch.found().shares:
            found.broken += checks.broken_by_shards(config)
    rewards: list[Any] = []
    found.broken += [said for said in checks.broken_parts(config) if said not in found.missing.values()]
    with _noting(found.broken):
        rewards = checks.named_rewards(config)
    with _noting(found.broken):
        assert config.task is not None, "checked with the configuration"
        found.task = build_task(config.task.name, config.task.options)
        found.train = load_split(found.task, "train")
    with _noting(found.broken):
        if len(found.train) and "policy" not in found.missing:
            template = partial(policy_template, config, None)
            prompted = Prompted(found.train, template, "train")
            prompted.try_chats()
            check_hints(config, template, prompted)
    metrics: dict[str, Metric] = {}
    with _noting(found.broken):
        metrics = build_metrics(config.evaluation.metrics)
    if found.task is not None and len(found.train):
        given = checks.Found(found.task, found.train, metrics, rewards)
        found.broken += checks.broken_by_data(config, given)
    found.broken = list(dict.fromkeys(found.broken))
    return found


def _missing(config: Config) -> Iterator[tuple[str, str]]:
    """Models that the recipe names and that are not there."""
    for who, model in models(config):
        try:
            if isinstance(model, ModelConfig):
                load_model_config(model)
        except UserError as error:
            yield who, str(error)


@contextmanager
def _noting(sentences: list[str]) -> Iterator[None]:
    """Go on after what a user can mend, and keep what it says."""
    try:
        yield
    except UserError as error:
        sentences.append(str(error))
