"""What is measured of the policy leaves its past out, and nothing forgets how probable that was when it was drawn."""

from __future__ import annotations

import pytest
import torch

from rlgf.learning.micro_batches import with_beginning
from rlgf.rollout.assembly import gaps, rescored
from rlgf.rollout.record import PromptRecord
from rlgf.run.update_metrics import describe
from rlgf.types import Author, Experience, Scored
from training_toys import SAMPLES, build, perturb


@pytest.fixture
def replayed() -> tuple[object, Experience]:
    """Groups with an old text each, of a policy that has moved since."""
    trainer = build("exgrpo", changes={"help": {"gate": None}}, update={"max_update_kl": 1.0})
    collector, row, record = trainer.parts.collector, trainer.row(), PromptRecord()
    for update in range(2):
        rollout = collector.collect(SAMPLES[:4], row, update, index=range(4), record=record)
        record = record.after(Scored(rollout, torch.ones(16)), row)
        if update == 0:
            perturb(trainer.parts.policy.model)
    assert rollout.written_by(Author.PAST).any(dim=1).sum() == 4
    return trainer, trainer.assess(rollout)


def test_a_second_scoring_is_of_what_was_written_now(replayed: tuple[object, Experience]) -> None:
    trainer, rollout = replayed[0], replayed[1].rollout
    parts = trainer.parts
    perturb(parts.policy.model)
    again = rescored(rollout, parts.policy, trainer.config.rollout)
    past = rollout.written_by(Author.PAST)
    assert torch.equal(again.sampled_logprobs[past], rollout.sampled_logprobs[past])
    assert not torch.equal(again.sampled_logprobs, rollout.sampled_logprobs)
    assert len(gaps(again)) == int(rollout.written_by(Author.POLICY).sum())


def test_the_ratio_stays_that_to_who_wrote_it(replayed: tuple[object, Experience]) -> None:
    """Also where it is measured how far an update goes, for which other texts of others are scored before it."""
    trainer, experience = replayed
    updater = trainer.parts.updater
    begun = with_beginning(experience, trainer.row(), updater.policy, updater.sampling, 10**6)
    assert torch.equal(begun.old_logprobs, experience.rollout.sampled_logprobs)
    metrics = updater.update(experience, trainer.row())
    assert metrics["first_step_kl"] == pytest.approx(0, abs=1e-6), "the policy has moved since the past alone"


def test_entropy_is_that_of_the_policys_own_tokens(replayed: tuple[object, Experience]) -> None:
    trainer, experience = replayed
    rollout = experience.rollout
    own = rollout.sampled_logprobs[rollout.written_by(Author.POLICY)]
    assert describe(experience, trainer.row())["entropy"] == pytest.approx(-float(own.mean()))
