"""Rules between the data and everybody who reads it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rlgf.algorithms.spec import lacking
from rlgf.checks.rule import first
from rlgf.guides.config import members
from rlgf.guides.oracle import OracleGuideConfig
from rlgf.metrics import Metric
from rlgf.metrics.base import check_samples
from rlgf.rewards.base import LearnedReward, not_given
from rlgf.sections import Sections
from rlgf.tasks import Task, load_split
from rlgf.tasks.base import checked_samples, column_names
from rlgf.types import Author, Sample


@dataclass(frozen=True)
class Found:
    """What there is before models load."""

    task: Task
    train: Sequence[Sample]
    metrics: Mapping[str, Metric]
    rewards: Sequence[Any]
    """Each reward by itself, or the class that it is to be made from."""

    @cached_property
    def held_out(self) -> Mapping[str, Sequence[Sample]]:
        """
        Raises:
            UserError: a split is not there, or is empty.
        """
        return {split: load_split(self.task, split) for split in ("validation", "test")}


DataRule = Callable[[Sections, Found], str | None]


def samples_have_what_the_algorithm_reads(config: Sections, found: Found) -> str | None:
    columns = column_names(found.train, "train")
    some = [replace(sample, columns=columns) for sample in checked_samples(found.train, "train")]
    return first(lacking(row, sample) for row in config.algorithm.rows for sample in some)


def there_are_prompts_to_draw_from(config: Sections, found: Found) -> str | None:
    count, size = max(config.rollout.prompts(row) for row in config.algorithm.rows), len(found.train)
    if config.rollout.draw == "passes" or count <= size:
        return None
    return (
        f"'rollout.draw: difficulty' draws {count} different prompts an update, and 'train' has {size}: lower "
        "'rollout.episodes', or leave 'draw' out."
    )


def held_out_samples_are_there(config: Sections, found: Found) -> str | None:
    """The test comes after the last update: too late to learn that there is nothing to test on."""
    assert found.held_out, "loaded, or it has said why not"
    return None


def metrics_find_what_they_need(config: Sections, found: Found) -> str | None:
    counts = {"validation": config.evaluation.samples, "test": config.evaluation.test_samples}
    for split, count in counts.items() if found.metrics else ():
        some = list(checked_samples(found.held_out[split], split, count))
        check_samples(found.metrics, some, f"the task's split '{split}'")
    return None


def the_reward_learns(config: Sections, found: Found) -> str | None:
    learns = any(map(_learns, found.rewards))
    if not learns and any(row.learned_reward for row in config.algorithm.rows):
        return (
            f"algorithm '{config.algorithm.name}' needs a reward that learns beside the policy: set "
            "'reward: discriminator', or name a class of your own with 'update(rollout)', 'state_dict()' "
            "and 'load_state_dict(state)'."
        )
    if learns and any(row.start_value is not None for row in config.algorithm.rows):
        return (
            f"algorithm '{config.algorithm.name}' estimates the value of a prompt once, and the reward learns beside the "
            "policy: choose a reward that stays as it is, or another algorithm."
        )
    return None


def what_a_reward_learns_is_kept(config: Sections, found: Found) -> str | None:
    for one in found.rewards:
        if hasattr(one, "update") and not _learns(one):
            return (
                f"the reward '{_class_of(one).__name__}' has 'update', and what it learns would be lost with the run: "
                "give it 'state_dict()' and 'load_state_dict(state)' too."
            )
    return None


def rewards_find_their_references(config: Sections, found: Found) -> str | None:
    if all(row.examples is Author.GUIDE for row in config.algorithm.rows):
        return None
    for one in found.rewards:
        if getattr(one, "needs_references", False) and not found.train[0].references:
            return (
                f"the reward '{_class_of(one).__name__}' learns from reference texts, and the first sample of "
                "'train' has none: give the task's 'reference_field', or choose another reward."
            )
    return None


def rewards_take_what_there_is(config: Sections, found: Found) -> str | None:
    in_turns = config.environment is not None
    for split, samples in {"train": found.train, **found.held_out}.items():
        columns = column_names(samples, split)
        said = first(not_given(one, columns, in_turns=in_turns) for one in found.rewards)
        if said is not None:
            return said if split == "train" else f"of the task's split '{split}': {said}"
    return None


def the_guide_finds_its_references(config: Sections, found: Found) -> str | None:
    asked = any(row.asks_for_texts for row in config.algorithm.rows)
    if not asked or not members(config.guide, OracleGuideConfig):
        return None
    if all(sample.references for sample in checked_samples(found.train, "train")):
        return None
    return (
        "the guide 'oracle' writes references, and a sample of 'train' has none: give the task's 'reference_field', or "
        "choose another guide."
    )


DATA_RULES: tuple[DataRule, ...] = (
    samples_have_what_the_algorithm_reads,
    there_are_prompts_to_draw_from,
    held_out_samples_are_there,
    metrics_find_what_they_need,
    the_reward_learns,
    what_a_reward_learns_is_kept,
    rewards_find_their_references,
    the_guide_finds_its_references,
    rewards_take_what_there_is,
)


def _class_of(one: Any) -> type:
    return one if inspect.isclass(one) else type(one)


def _learns(reward: Any) -> bool:
    return issubclass(reward, LearnedReward) if inspect.isclass(reward) else isinstance(reward, LearnedReward)
