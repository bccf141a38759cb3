"""The loop's three parts, of every algorithm: what is collected, whether learning goes where it should, what is reported."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from resume_script import toy_trainer
from rlgf.algorithms import ALGORITHMS
from rlgf.run.display import Display
from rlgf.run.loop import TrainingLoop
from rlgf.run.trainer import Trainer
from toys import LetterTask, letter_gpt, share_of_a
from training_toys import ROWS, build, perturb, same


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo"])
def test_a_policy_whose_texts_are_all_paid_alike_is_pulled_back_to_its_reference(name: str) -> None:
    trainer = build(
        name,
        update={"learning_rate": 3e-3},
        training={"updates": 12},
        changes={"kl": {"coefficient": 1.0}},
        reward=lambda prompts, completions, **columns: [1.0] * len(completions),
    )
    perturb(trainer.parts.policy.model)
    kl = [float(trainer.step()["kl"]) for _ in range(12)]
    assert kl[0] > 0.1
    assert kl[-1] < 0.7 * kl[0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "paid"),
    [
        ("ppo", 0),
        ("ppo", 1),
        ("ppo++", 1),
        ("aggrevated", 1),
        ("lols", 0),
        ("bread", 0),
        ("rloo", 0.1),
        ("rebel", 0.1),
    ],
)
def test_a_policy_that_is_never_told_better_from_worse_stays_where_it_is(name: str, paid: float) -> None:
    """At a rate at which a reward of any kind would have changed it for good."""
    updates = 40 if name == "ppo" else 12
    trainer = build(
        name,
        update={"learning_rate": 5e-3},
        training={"updates": updates},
        changes={"kl": {"coefficient": 0.001}},
        reward=lambda prompts, completions, **columns: [paid] * len(completions),
    )
    assert max(float(trainer.step()["kl"]) for _ in range(updates)) < 1e-6


TRUNCATIONS = [{"top_k": 3}, {"top_p": 0.8}, {"top_k": 4, "top_p": 0.9, "temperature": 1.3}]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "min_response_tokens": 4}, *TRUNCATIONS])
@pytest.mark.parametrize("name", ["ppo", "ppo++", "aggrevated"])
def test_kl_of_an_untrained_policy_is_zero(name: str, options: dict[str, float]) -> None:
    trainer = build(name, rollout=options, changes={"kl": {"coefficient": 1.0}})
    row = trainer.row()
    experience = trainer.assess(trainer.collect(trainer.batch(), row), row)
    torch.testing.assert_close(
        experience.token_rewards.sum(dim=1), experience.scored.rewards, atol=1e-5, rtol=0, check_dtype=False
    )
    assert trainer.step()["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("options", TRUNCATIONS)
@pytest.mark.parametrize("critic", ["separate", "head"])
def test_ratios_of_truncated_samples_are_1_before_the_first_step_and_finite_after(
    options: dict[str, float], critic: str
) -> None:
    trainer = build("ppo", critic=critic, rollout=options, update={"learning_rate": 3e-3})
    row = ROWS["ppo"]
    experience = trainer.assess(trainer.collect(trainer.batch(), row), row)
    assert any(sets is not None for sets in experience.rollout.kept)
    unchanged = trainer.parts.updater.backward(experience, row)
    assert unchanged["update_kl"].item() == pytest.approx(0, abs=1e-6)
    trainer.parts.updater.optimizer.zero_grad()
    for _ in range(3):
        metrics = trainer.step()
    assert float(metrics["kl"]) > 1e-4
    assert all(math.isfinite(value) for value in metrics.values() if not isinstance(value, str))


# `exgrpo` is refused, since what an old text was drawn from is not kept.
@pytest.mark.parametrize("name", sorted(ALGORITHMS.keys() - {"exgrpo"}))
def test_every_algorithm_learns_from_truncated_samples(name: str) -> None:
    metrics = build(name, rollout={"top_k": 3}).step()
    assert all(math.isfinite(value) for value in metrics.values() if not isinstance(value, str))


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_an_adaptive_coefficient_follows_the_kl_of_the_run(name: str) -> None:
    trainer = build(name, changes={"kl": {"coefficient": 0.1, "target": 1e-6, "horizon": 2}})
    found = [trainer.step()["kl_coefficient"] for _ in range(4)]
    # The start has no KL; what is logged is the coefficient that the update was made with.
    assert found == pytest.approx([0.1, 0.1 * 0.9, 0.1 * 0.9 * 1.1, 0.1 * 0.9 * 1.1 * 1.1])


@pytest.mark.parametrize("algorithm", ["lols", "guided-grpo"])
def test_reference_and_guide_stay_as_they_were(algorithm: str) -> None:
    policy, guide = letter_gpt(), letter_gpt(seed=7)
    start = {
        "policy": copy.deepcopy(policy.model.state_dict()),
        "guide": copy.deepcopy(guide.model.state_dict()),
    }
    trainer = build(algorithm, policy=policy, guide=guide)
    reference = trainer.parts.assessor.reference
    assert reference is not None
    for _ in range(4):
        trainer.step()
    assert same(reference.model.state_dict(), start["policy"])
    assert same(guide.model.state_dict(), start["guide"])
    assert not same(policy.model.state_dict(), start["policy"])
    for model in (reference.model, guide.model):
        assert all(parameter.grad is None for parameter in model.parameters())


def test_the_three_steps_of_an_update_are_the_whole_of_it() -> None:
    sections = {
        "algorithm": "ppo",
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4, "epochs": 1, "learning_rate": 1e-2},
        "training": {"updates": 2, "trackers": []},
    }
    trainers = [
        Trainer(
            sections,
            display=Display(Console(quiet=True)),
            policy=letter_gpt(),
            task=LetterTask(),
            reward=share_of_a,
        )
        for _ in range(2)
    ]
    whole, apart = trainers
    before = copy.deepcopy(whole.parts.policy.model.state_dict())
    said = whole.step()
    experience = apart.assess(apart.collect())
    assert apart.progress.update == 0, "nothing is over before it is learned"
    again = apart.learn(experience)
    assert whole.progress.update == apart.progress.update == 1
    assert again["reward"] == said["reward"]
    weights = [one.parts.policy.model.state_dict() for one in trainers]
    assert same(*weights)
    assert not same(weights[0], before)


def test_names_of_trl_are_told_where_nothing_else_is_given() -> None:
    rows = [{"prompt": "a"}]
    with pytest.raises(TypeError, match=r"what TRL calls so is 'policy' here"):
        Trainer(model="gpt2", reward_funcs=len, train_dataset=rows)


def test_a_run_that_has_nothing_to_go_on_from_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingLoop, "run", lambda loop: {})
    said = io.StringIO()
    trainer = toy_trainer(tmp_path)
    trainer.display = Display(Console(file=said, width=1000))
    trainer.train(resume=True)
    assert f"There is no checkpoint in {tmp_path}: the run begins at its start." in said.getvalue()
