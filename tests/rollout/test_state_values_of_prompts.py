"""The start is asked once for each prompt, and what was found is kept with the run's progress."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from rlgf.objectives.advantages import optimal_value
from rlgf.rollout.record import PromptRecord
from rlgf.run.progress import Progress
from rlgf.types import Author, Rollout, Scored
from training_toys import SAMPLES, build, perturb


class Watched:
    """Pays the share of the letter a, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Rollout] = []

    def __call__(self, rollout: Rollout) -> Tensor:
        self.shown.append(rollout)
        return torch.tensor([text.count("a") / max(len(text), 1) for text in rollout.texts])


def collected(trainer: object, places: Sequence[int], rewards: Watched, progress: Progress) -> Rollout:
    collector, row = trainer.parts.collector, trainer.row()
    samples = [SAMPLES[place] for place in places]
    return collector.collect(
        samples, row, progress.update, rewards=rewards, index=places, record=progress.prompts
    )


def test_a_value_is_that_of_the_starts_texts_and_is_kept() -> None:
    trainer, rewards = build("a-star-po"), Watched()
    perturb(trainer.parts.policy.model)
    first = collected(trainer, [0, 1, 2], rewards, trainer.progress)
    (shown,) = rewards.shown
    texts = trainer.row().start_value.texts
    assert [sample.prompt for sample in shown.samples] == [
        SAMPLES[i].prompt for i in (0, 1, 2) for _ in range(texts)
    ]
    assert torch.equal(first.start_values, optimal_value(Watched()(shown).double().view(3, texts), 0.5))
    progress = trainer.progress.advanced(
        trainer.assess(first), trainer.row(), {Author.POLICY: 0, Author.GUIDE: 0}, 0.0, {}, trainer.config
    )
    assert progress.prompts.metrics() == {}, "no visit of which a success is counted"
    again = Progress.of(json.loads(json.dumps(asdict(progress))))
    assert again == progress
    perturb(trainer.parts.policy.model)
    second = collected(trainer, [2, 3], rewards, again)
    assert [sample.prompt for sample in rewards.shown[1].samples] == [SAMPLES[3].prompt] * texts
    assert second.start_values[0] == first.start_values[2]


def test_the_start_writes_as_it_did_however_the_policy_has_moved() -> None:
    shown = []
    for moved in (False, True):
        trainer, rewards = build("a-star-po", lora={"r": 2}), Watched()
        if moved:
            with torch.no_grad():
                for parameter in trainer.parts.policy.trained:
                    parameter += 1.0
        collected(trainer, [0, 1], rewards, trainer.progress)
        shown.append(rewards.shown[0].texts)
    assert shown[0] == shown[1]


def test_a_prompt_that_comes_twice_keeps_the_value_of_its_last_group() -> None:
    """In whichever order the processes that wrote an update hand in its rows."""
    trainer = build("a-star-po")
    rollout = collected(trainer, [0, 1, 0], Watched(), trainer.progress)
    first, _, last = rollout.start_values.tolist()
    assert first != last
    for order in ([0, 1, 2], [2, 0, 1]):
        record = PromptRecord().after(Scored(rollout[torch.tensor(order)]), trainer.row())
        assert record[0].start_value == last


def test_processes_that_share_an_update_find_the_same_values() -> None:
    trainer = build("a-star-po")
    collector, row = trainer.parts.collector, trainer.row()
    whole = collector.collect(SAMPLES[:4], row, rewards=Watched())
    shares = [
        collector.collect(SAMPLES[i:4:2], row, rewards=Watched(), numbers=range(i, 4, 2)) for i in range(2)
    ]
    for i, share in enumerate(shares):
        assert torch.equal(share.start_values, whole.start_values[i::2])
