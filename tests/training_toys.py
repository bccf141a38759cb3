"""Small runs of every algorithm, and what they learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, Algorithm
from rlgf.config import Config
from rlgf.guides import LocalGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.rewards import Reward
from rlgf.rewards.discriminator import Discriminator
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Experience, Sample
from toys import LetterTask, letter_gpt, share_of_a

ROWS = {row.name: row for algorithm in ALGORITHMS.values() for row in algorithm.rows}
SAMPLES = [Sample("abca"[: 1 + i % 4], ("aaaaaa"[: 1 + i % 6],)) for i in range(16)]


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
    guide: LanguageModel | str | dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    beams: int | None = None,
) -> Trainer:
    if isinstance(guide, str):
        guide = {guide: True}
    # Its own template is longer than the context of this model.
    short = {"script": {"hint": {"template": "{hint}{prompt}"}}} if algorithm == "sdpo" else {}
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand", "critic": critic, "lora": lora},
            "guide": guide if isinstance(guide, dict) else {"model": "made by hand"},
            "reward": {"name": "made by hand"},
            "algorithm": {"base": algorithm, **short, **(changes or {})},
            "rollout": {
                "episodes": 16,
                "max_prompt_tokens": 4,
                "max_response_tokens": 6,
                "max_hint_tokens": 14,
                **(rollout or {}),
            },
            "update": {"minibatch": 8, "epochs": 2, "learning_rate": 1e-3, **(update or {})},
            "training": {"updates": 4, "trackers": [], **(training or {})},
            "evaluation": {"samples": 16, "beams": beams},
            **({} if environment is None else {"environment": environment}),
        }
    )
    policy = policy or letter_gpt()
    learns = (
        any(row.learned_reward for row in ALGORITHMS[algorithm].rows) if algorithm in ALGORITHMS else False
    )
    reward = reward or (Discriminator() if learns else share_of_a)
    writer = None
    if not isinstance(guide, dict):
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
