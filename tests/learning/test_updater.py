"""From experience to gradients: when an update ends, and what its terms do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from finite_runs import trainer
from rlgf.learning.micro_batches import minibatches
from rlgf.run.trainer import Trainer
from toys import letter_gpt
from training_toys import ROWS, build, no_reward, perturb


def optimizer_steps(trainer: Trainer) -> int:
    updater = trainer.parts.updater
    parameter = next(iter(updater.policy.model.parameters()))
    return int(updater.optimizer.state[parameter]["step"])


@pytest.mark.parametrize(("limit", "steps"), [(None, 8), (1e-5, 2)])
def test_an_update_ends_once_it_has_gone_too_far(limit: float | None, steps: int) -> None:
    """The first of 4 epochs of 2 minibatches starts where the samples came from, so its KL is 0."""
    trainer = build(update={"epochs": 4, "learning_rate": 1e-2, "max_update_kl": limit})
    trainer.step()
    assert optimizer_steps(trainer) == steps


def test_a_term_on_the_references_makes_them_likelier() -> None:
    nll = {}
    for coefficient in (0.0, 1.0):
        term = {"loss": "nll", "on": "references", "weight": coefficient}
        trainer = build(reward=no_reward, changes={"terms": {"references": term}})
        steps = [trainer.step() for _ in range(3)]
        assert ("references_loss" in steps[0]) == bool(coefficient)
        nll[coefficient] = math.log(trainer.evaluate(split="validation").totals["reference_perplexity"])
    assert nll[1.0] < nll[0.0] - 0.2


@pytest.mark.parametrize("base", ["dpo", "guided-dpo"])
def test_references_are_learned_from_where_no_pair_can_be_made(base: str) -> None:
    term = {"loss": "nll", "on": "references"}
    trainer = build(base, reward=no_reward, changes={"terms": {"references": term}})
    losses = [trainer.step() for _ in range(4)]
    assert all(loss["pairs"] == 0 for loss in losses)
    assert losses[-1]["references_loss"] < losses[0]["references_loss"]


def test_each_reference_is_read_once_an_epoch_beside_pairs() -> None:
    trainer = build("dpo", changes={"terms": {"references": {"loss": "nll", "on": "references"}}})
    experience = trainer.assess(trainer.collect())
    texts = trainer.parts.collector.collect(experience.rollout.samples, ROWS["bc"])
    assert 1 < len(experience.units) < len(texts)
    found = list(minibatches(experience, texts, 2, torch.Generator().manual_seed(0)))
    assert [len(batch.units) for batch, _ in found] == [1] * len(experience.units)
    assert sorted(text for _, some in found if some is not None for text in some.texts) == sorted(texts.texts)


IDLE = """
def cautious(logprobs, advantages, mask, normalizer):
    if not mask.any():
        return logprobs.new_zeros(())
    return -(logprobs * advantages * mask).sum() / normalizer
"""


def test_a_micro_batch_without_a_token_to_learn_from_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(IDLE)
    terms = {
        "policy": {"loss": f"{tmp_path}/mine.py:cautious"},
        "rollin": {"loss": "nll", "on": "rollin", "weight": {"start": 0, "end": 1, "shape": "step"}},
    }
    trainer = build(
        "luffy", changes={"terms": terms, "kl": {"coefficient": 0}}, update={"max_micro_tokens": 8}
    )
    assert "rollin_loss" not in trainer.step()


def test_an_entropy_term_raises_the_entropy() -> None:
    """Nothing is rewarded, so all that moves the policy is the bonus."""
    after = {}
    for coefficient in (0.0, 1.0):
        policy = letter_gpt()
        perturb(policy.model, 0.3)
        trainer = build(
            reward=no_reward,
            policy=policy,
            update={"learning_rate": 3e-3},
            changes={"terms": {"entropy": {"weight": coefficient}}, "kl": {"coefficient": 0}},
        )
        after[coefficient] = [float(trainer.step()["entropy"]) for _ in range(4)][-1]
    assert after[1.0] > after[0.0] + 0.1


@pytest.mark.parametrize(
    "algorithm", ["dpo", "rebel", "guided-dpo", "guided-rebel", "offline-dpo", "bc", "distill"]
)
def test_max_update_kl_ends_an_update_of_every_loss(tmp_path: Path, algorithm: str) -> None:
    steps = {}
    for limit in (None, 1e-5):
        run = trainer(
            tmp_path / f"run {limit}",
            algorithm,
            epochs=4,
            minibatch=4,
            learning_rate=1e-2,
            max_update_kl=limit,
        )
        run.step()
        updater = run.parts.updater
        state = updater.optimizer.state[next(iter(updater.policy.model.parameters()))]
        steps[limit] = int(state["step"])
    assert steps[None] >= 4
    assert 1 <= steps[1e-5] < steps[None]
