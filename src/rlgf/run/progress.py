"""How far a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlgf.algorithms import Algorithm
from rlgf.config import Config
from rlgf.rollout.record import PromptRecord
from rlgf.run.update_metrics import mean_kl
from rlgf.training import TrainingConfig
from rlgf.types import Author, Experience


@dataclass
class Progress:
    """What a run knows besides weights. Random numbers follow from `update`."""

    update: int = 0
    """Updates that are done."""
    samples: int = 0
    """Samples of the training data that these have used."""
    kl_coefficients: dict[str, float] = field(default_factory=dict)
    """The coefficient of the KL penalty of each row that has run and steers it to a target, by the row's name."""
    policy_tokens: int = 0
    """Tokens that the policy sampled in training, also for texts that were dropped."""
    guide_tokens: int = 0
    """Tokens that the guide wrote in training, with those that were cut off; its own where it counts them,
    else the policy's."""
    seconds: float = 0.0
    guide_accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each remote guide was asked, see `rlgf.guides.Usage`."""
    unguided: bool = False
    """Whether the guide's budget is spent and the run goes on without it."""
    budgets: list[dict[str, Any]] = field(default_factory=list)
    """Those of all guides at that time: under others a resumed run asks its guide again."""
    planned: int = 0
    """How many updates the run was to have."""
    validation_due: bool = False
    """Whether the evaluation after the last update has yet to be made."""
    prompts: PromptRecord = field(default_factory=PromptRecord)
    """What each prompt has earned, for algorithms that say what a success is."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Progress:
        """From what `asdict` or JSON has made of one."""
        prompts = PromptRecord.of(told.get("prompts", {}).get("rows", {}))
        return cls(**{**told, "prompts": prompts})

    def advanced(
        self,
        experience: Experience,
        row: Algorithm,
        sampled: Mapping[Author, int],
        seconds: float,
        guide_accounts: dict[str, dict[str, Any]],
        config: Config,
    ) -> Progress:
        """How far the run is after one update more, which ran ``row`` and took so many seconds; ``sampled`` counts tokens of
        each author, of all processes."""
        coefficients, kl = self.kl_coefficients, mean_kl(experience.scored)
        if row.kl.target is not None and kl is not None:
            coefficients = {**coefficients, row.name: row.kl.next(experience.kl_coefficient, kl)}
        update = self.update + 1
        after = replace(
            self,
            update=update,
            samples=self.samples + config.rollout.prompts(row),
            kl_coefficients=coefficients,
            policy_tokens=self.policy_tokens + sampled[Author.POLICY],
            guide_tokens=self.guide_tokens + sampled[Author.GUIDE],
            seconds=self.seconds + seconds,
            guide_accounts=guide_accounts,
            prompts=self.prompts.after(experience.scored, row),
        )
        after.validation_due = update % config.evaluation.every == 0 or after.share(config.training) >= 1
        return after

    def share(self, training: TrainingConfig) -> float:
        """The share of the run that is over, from 0 to 1."""
        return training.share(self.update, self.policy_tokens, self.guide_tokens)

    def expected_updates(self, training: TrainingConfig) -> int:
        """How many updates the run will have had at its end."""
        return training.expected_updates(self.update, self.policy_tokens, self.guide_tokens)
