"""The training loop: experience, the update, and what a step reports."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, Algorithm, KLConfig
from rlgf.config import Config
from rlgf.guides import LocalGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.rollout_scores import score_logprobs, score_values
from rlgf.models.sampling import Sampling
from rlgf.rewards import Reward
from rlgf.rewards.discriminator import Discriminator
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.run.update_metrics import mean_kl
from rlgf.types import Author, Experience, Sample
from toys import LetterTask, letter_gpt, share_of_a

ROWS = {row.name: row for algorithm in ALGORITHMS.values() for row in algorithm.rows}
SAMPLES = [Sample("abca"[: 1 + i % 4], ("aaaaaa"[: 1 + i % 6],)) for i in range(16)]
WITH_REWARD = sorted(name for name, row in ROWS.items() if row.needs_reward)


def build(
    algorithm: str = "ppo",
    *,
    changes: dict[str, Any] | None = None,
    rollout: dict[str, Any] | None = None,
    update: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    critic: str = "separate",
    lora: dict[str, Any] | None = None,
    reward: Reward | None = None,
    policy: LanguageModel | None = None,
    guide: LanguageModel | str | None = None,
) -> Trainer:
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand", "critic": critic, "lora": lora},
            "guide": {guide: True} if isinstance(guide, str) else {"model": "made by hand"},
            "reward": {"name": "made by hand"},
            "algorithm": {"base": algorithm, **(changes or {})},
            "rollout": {
                "episodes": 16,
                "max_prompt_tokens": 4,
                "max_response_tokens": 6,
                "max_hint_tokens": 14,
                **(rollout or {}),
            },
            "update": {"minibatch": 8, "epochs": 2, "learning_rate": 1e-3, **(update or {})},
            "training": {"updates": 4, "trackers": [], **(training or {})},
            "evaluation": {"samples": 16},
        }
    )
    policy = policy or letter_gpt()
    learns = (
        any(row.learned_reward for row in ALGORITHMS[algorithm].rows) if algorithm in ALGORITHMS else False
    )
    reward = reward or (Discriminator() if learns else share_of_a)
    writer = None
    if not isinstance(guide, str):
        writer = LocalGuide(guide or letter_gpt(seed=7), policy.tokenizer, Sampling())
    parts = build_parts(config, task=LetterTask(), reward=reward, guide=writer, policy=policy)
    return Trainer(config, parts, Display(Console(quiet=True)))


def perturb(model: torch.nn.Module, scale: float = 0.2) -> None:
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=noise)


def experience_of(trainer: Trainer, row: Algorithm) -> Experience:
    """Episodes of unequal lengths, with a policy and critics that have moved away from their start."""
    perturb(trainer.parts.policy.model)
    for critic in trainer.parts.updater.critics.values():
        perturb(critic)
    samples = SAMPLES[: trainer.config.rollout.episodes // row.group_size]
    return trainer.assess(trainer.collect(samples, row), row)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def no_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [0.0] * len(completions)


# The KL penalty.


@pytest.mark.parametrize("name", WITH_REWARD)
def test_kl_penalty_reaches_every_algorithm(name: str) -> None:
    """In the rewards, in the loss, or as DPO's own beta."""
    trainer = build(name)
    row = ROWS[name].changed(kl={"coefficient": 0.3})
    experience = experience_of(trainer, row)
    rollout = experience.rollout
    by_policy = rollout.written_by(Author.POLICY)
    assert by_policy.any()
    ratios = (rollout.sampled_logprobs - experience.scored.reference_logprobs) * by_policy
    assert ratios[by_policy].abs().min() > 0
    assert row.kl_penalty == (
        "loss" if row.advantage == "group_relative" else None if row.advantage == "preference" else "reward"
    )
    assert experience.kl_coefficient == 0.3

    in_reward = 0.3 if row.kl_penalty == "reward" else 0.0
    expected = experience.scored.rewards - in_reward * ratios.sum(dim=1)
    torch.testing.assert_close(experience.token_rewards.sum(dim=1), expected, atol=1e-5, rtol=1e-5)
    before_last = torch.arange(by_policy.shape[1]) < rollout.lengths[:, None] - 1
    paying = experience.token_rewards[before_last & by_policy]
    torch.testing.assert_close(paying, -in_reward * ratios[before_last & by_policy])
    assert not experience.token_rewards[before_last & ~by_policy].any(), "others pay nothing"
    assert not experience.token_rewards[~rollout.response_mask].any()
    reported = trainer.parts.updater.update(experience, row)
    assert ("kl_estimate" in reported) == (row.kl_penalty == "loss")


def test_the_kl_in_the_loss_is_reported_as_the_kl_of_the_moment() -> None:
    trainer = build("grpo", update={"epochs": 1, "minibatch": 16})
    row = ROWS["grpo"].changed(kl={"coefficient": 0.3})
    experience = experience_of(trainer, row)
    reported = trainer.parts.updater.update(experience, row)
    assert reported["kl_estimate"] == pytest.approx(mean_kl(experience.scored), rel=1e-4)


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


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_learns_from_truncated_samples(name: str) -> None:
    metrics = build(name, rollout={"top_k": 3}).step()
    assert all(math.isfinite(value) for value in metrics.values() if not isinstance(value, str))


def test_kl_controller_follows_its_closed_form() -> None:
    config, coefficient = KLConfig(coefficient=0.1, target=0.02, horizon=10), 0.1
    for kl in (0.02, 0.022, 0.019, 0.5, 0.0):
        coefficient = config.next(coefficient, kl)
    assert coefficient == pytest.approx(0.1 * 1.0 * 1.01 * 0.995 * 1.02 * 0.98)


def test_without_a_target_the_coefficient_stays() -> None:
    assert KLConfig(coefficient=0.1).next(0.3, 5.0) == 0.3


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_an_adaptive_coefficient_follows_the_kl_of_the_run(name: str) -> None:
    trainer = build(name, changes={"kl": {"coefficient": 0.1, "target": 1e-6, "horizon": 2}})
    found = [trainer.step()["kl_coefficient"] for _ in range(4)]
    # The start has no KL; what is logged is the coefficient that the update was made with.
    assert found == pytest.approx([0.1, 0.1 * 0.9, 0.1 * 0.9 * 1.1, 0.1 * 0.9 * 1.1 * 1.1])


# The update.


def learned_span(name: str) -> str:
    return next(str(term.on) for term in ROWS[name].terms.values() if not term.of_critic)


def gradients(trainer: Trainer, experience: Experience, row: Algorithm, rows: Sequence[int]) -> list[Tensor]:
    updater = trainer.parts.updater
    order = torch.tensor(rows)
    references = trainer.parts.collector.collect(experience.rollout.samples, ROWS["bc"])
    updater.optimizer.zero_grad()
    updater.backward(experience.take_units(order), row, references=references[order])
    return [p.grad.clone() for ps in updater.parameters.values() for p in ps if p.grad is not None]


MORE = {
    "references": {"loss": "nll", "on": "references", "weight": 0.2},
    "entropy": {"weight": 0.1},
}


@pytest.mark.parametrize(
    ("name", "critic"),
    [
        ("bc", "separate"),
        ("ppo++", "separate"),
        ("ppo++", "head"),
        ("aggrevated", "separate"),
        ("aggrevated", "head"),
        ("guided-grpo", "separate"),
        ("luffy", "separate"),
    ],
)
def test_gradients_depend_neither_on_micro_batches_nor_on_order(name: str, critic: str) -> None:
    found = []
    for budget, rows in ((10_000, range(16)), (30, range(16)), (1, range(16)), (30, range(15, -1, -1))):
        trainer = build(name, critic=critic, update={"max_micro_tokens": budget})
        row = ROWS[name].changed(terms={**MORE, "entropy": {"weight": 0.1, "on": learned_span(name)}})
        found.append(gradients(trainer, experience_of(trainer, row), row, rows))
    whole, *others = found
    assert max(float(gradient.abs().max()) for gradient in whole) > 1e-3
    for other in others:
        torch.testing.assert_close(other, whole, atol=1e-5, rtol=1e-4)


def test_an_update_ends_in_the_same_policy_whatever_the_micro_batches() -> None:
    """What the models say is compared: the bias of attention keys changes nothing, and its gradient is
    rounding noise that Adam scales up.
    """
    row = ROWS["ppo++"].changed(terms=MORE)
    ends = []
    for budget in (10_000, 30):
        trainer = build("ppo++", update={"max_micro_tokens": budget})
        parts = trainer.parts
        experience = experience_of(trainer, row)
        trainer.learn(experience, row)
        episodes = experience.rollout
        ends.append(
            (
                score_logprobs(parts.policy.model, episodes, Sampling(), parts.policy.end_ids, 10_000),
                score_values(parts.updater.critics["policy"], parts.policy.model, episodes, 10_000),
            )
        )
    assert (ends[0][1] - experience.scored.values).abs().max() > 0.01
    torch.testing.assert_close(ends[0], ends[1], atol=1e-4, rtol=1e-4)


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


def test_learning_rates_follow_their_schedules() -> None:
    trainer = build(
        update={"learning_rate": {"start": 4e-3, "end": 0.0}, "critic_learning_rate": {"start": 1.0}}
    )
    rates = []
    for _ in range(4):
        trainer.step()
        rates.append([group["lr"] for group in trainer.parts.updater.optimizer.param_groups])
    assert rates == [pytest.approx([4e-3 * left, 1.0]) for left in (1.0, 0.75, 0.5, 0.25)]


def test_a_critic_learns_at_the_rate_of_the_policy_by_default() -> None:
    trainer = build("lols", update={"learning_rate": 2e-3})
    trainer.step()
    assert [group["lr"] for group in trainer.parts.updater.optimizer.param_groups] == [2e-3] * 3


# The loop.


def test_a_batch_takes_one_sample_per_group() -> None:
    trainer = build("grpo")
    assert len(trainer.batch()) == 4
    assert len(trainer.collect(trainer.batch(), ROWS["grpo"])) == 16


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


def test_each_update_of_a_mixture_trains_the_critic_of_its_row() -> None:
    trainer = build("d2lols")
    critics = trainer.parts.updater.critics
    assert set(critics) == {"guide", "policy"}
    for critic in ("guide", "guide", "policy", "policy"):
        before = {name: copy.deepcopy(module.state_dict()) for name, module in critics.items()}
        trainer.step()
        assert [n for n, module in critics.items() if not same(module.state_dict(), before[n])] == [critic]


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_step_reports_finite_numbers(algorithm: str) -> None:
    given = algorithm == "offline-dpo"
    trainer = build(algorithm, rollout={} if given else {"min_response_tokens": 3})
    for _ in range(2):
        row = trainer.row()
        episodes = trainer.collect(trainer.batch(), row)
        metrics = trainer.step()
    assert metrics.pop("algorithm") == row.name
    assert all(isinstance(value, float | int) and math.isfinite(value) for value in metrics.values())
    assert metrics["response_tokens"] == pytest.approx(float(episodes.lengths.float().mean()))
    assert 0 < metrics["seconds_learn"] < metrics["seconds"]
    if row.needs_reward:
        by_policy = int(episodes.written_by(Author.POLICY).sum())
        # Of a group, a loss over pairs reads two whole texts; one with a term on roll-ins of others reads all of them.
        read = metrics["learned_tokens"]
        exact = algorithm not in ("luffy", "prefix-rft", "hpt", "uft") and not row.paired
        assert read == by_policy if exact else 0 < read <= int(episodes.lengths.sum())
        assert row.learned_reward or 0 <= metrics["reward"] <= 1
        assert 0 < metrics["entropy"] < 2 * math.log(5)


def test_a_reward_is_not_asked_for_behaviour_cloning() -> None:
    def refuse(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        raise AssertionError("there is no advantage to estimate")

    trainer = build("bc", reward=refuse)
    assert trainer.step()["policy_loss"] > trainer.step()["policy_loss"] > 0
