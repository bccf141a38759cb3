"""What a run does: collect, assess, learn. It reads an algorithm's rows and knows none by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate.tracking import GeneralTracker
from transformers import TrainerCallback

from rlgf import distributed
from rlgf.algorithms import Algorithm, Span
from rlgf.config import Config
from rlgf.errors import UserError, nearest
from rlgf.evaluation.files import Evaluation
from rlgf.guides import BudgetSpentError
from rlgf.models import launcher, sharding
from rlgf.models.samplers import bring_weights
from rlgf.run.ahead import Ahead
from rlgf.run.build import Parts
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.guide_usage import GuideUsage, budgets
from rlgf.run.plan import Plan, plan_of
from rlgf.run.progress import Progress
from rlgf.run.start import write_start
from rlgf.run.update_metrics import Phases, describe, logged_by_rewards
from rlgf.types import Author, Experience, Rollout, Sample

MEASURED: Mapping[str, Author] = {
    "policy": Author.POLICY,
    "guide": Author.GUIDE,
    "reference": Author.REFERENCE,
}
"""The authors that are measured, by name."""


def require_parts(row: Algorithm | None, parts: Parts) -> None:
    """
    Args:
        row: one given by hand; None for the run's own.

    Raises:
        UserError: it needs something that the run was set up without.
    """
    if row is None:
        return
    needs = {
        f"a critic of the {row.critic}'s texts": row.critic not in (None, *parts.updater.critics),
        "a reward": row.needs_reward and parts.assessor.reward is None,
        "the policy's frozen start": row.needs_reference and parts.assessor.reference is None,
        "a guide with probabilities": row.distills and parts.updater.guide is None,
        "a guide that scores texts": row.reads_guide_scores and parts.assessor.guide is None,
    }
    for what in (what for what, lacking in needs.items() if lacking):
        raise UserError(
            f"algorithm '{row.name}' needs {what}, which the run was set up without: let the recipe's 'algorithm' be one "
            "that needs it too, such as a mixture of both."
        )


class Steps:
    """The updates of a run, step by step, and the measuring and saving between them."""

    def __init__(
        self,
        config: Config,
        parts: Parts,
        display: Display,
        callbacks: Sequence[TrainerCallback] = (),
        trackers: Sequence[GeneralTracker] = (),
    ) -> None:
        self.config = config
        self.parts = parts
        self.display = display
        self.callbacks = callbacks
        self.trackers = trackers
        self.progress = Progress()
        self.guide_usage = GuideUsage(self.parts.collector.remote)
        self.guide_usage.settle()
        self.ahead = Ahead(config, self.parts)
        self._phases, self._booked = Phases(), Counter[Author]()

    @property
    def done_share(self) -> float:
        """The share of the run that is over, from 0 to 1."""
        return self.progress.share(self.config.training)

    def row(self, update: int | None = None) -> Algorithm:
        """The row of the algorithm that an update runs; default: the current one.

        Of a mixture in a run that tokens end, another update's is the one that it would run if updates alone ended it.
        """
        algorithm, config = self.config.algorithm, self.config
        unguided = algorithm.unguided if self.progress.unguided else None
        if update is None or update == self.progress.update:
            return unguided or algorithm.at(self.progress.update, self.done_share, config.seed)
        return unguided or algorithm.at(update, update / config.training.updates, config.seed)

    def batch(self, *, ahead: bool = False) -> list[Sample]:
        """The samples of the current update, or of the one after it.

        Args:
            ahead: the next update's.

        Raises:
            UserError: the next one's are drawn by difficulty, which this update's texts have yet to tell.
        """
        return list(self._plan(self.progress.update + ahead).samples)

    def kl_coefficient(self, row: Algorithm) -> float:
        """The weight of a row's KL penalty in the current update."""
        steered = self.progress.kl_coefficients.get(row.name)
        return row.kl.coefficient if row.kl.target is None or steered is None else steered

    def collect(self, samples: Sequence[Sample] | None = None, row: Algorithm | None = None) -> Rollout:
        """Episodes of the current update; of several processes each writes its share.

        Args:
            samples: others than those of the update.
            row: another than that of the update.

        Raises:
            UserError: it needs what the run was set up without.
        """
        require_parts(row, self.parts)
        with self._phases("collect"):
            self.parts.tell_rewards(self.progress.update, self.progress.samples)
            if samples is not None or row is not None:
                self.ahead.rest()
                rollout = self._collect(row or self.row(), samples)
            elif self.config.training.async_steps:
                rollout = self.ahead.collect(self.progress.update, self._plan)
            else:
                rollout = self._collect_within_budget()
                self._prefetch()
        return rollout

    def assess(self, rollout: Rollout, row: Algorithm | None = None) -> Experience:
        """Rewards, KL penalty, values and advantages, or pairs; of several processes all get those of all.

        Args:
            row: another than that of the update.

        Raises:
            UserError: it needs what the run was set up without.
        """
        require_parts(row, self.parts)
        row = row or self.row()
        with self._phases("assess"):
            return self.parts.assessor.assess(rollout, row, self.kl_coefficient(row))

    def learn(self, experience: Experience, row: Algorithm | None = None) -> dict[str, float | str]:
        """The optimizer steps of the current update, which is then over; a reward that learns does so after the policy.

        Returns:
            What the log says of the update, from `collect` to here.
        """
        row = row or self.row()
        with self._phases("learn"):
            references, samples = None, experience.rollout.samples
            on_references = any(
                t.on is Span.REFERENCES and t.weight.at(self.done_share) for t in row.terms.values()
            )
            if samples and on_references:
                references = self.parts.collector.answers(Author.REFERENCE, samples, self.progress.update)
            losses = self.parts.updater.update(
                experience, row, self.progress.update, self.done_share, references
            )
            if row.advantage is not None:
                # A name of ours stays ours.
                losses = self.parts.assessor.learn_reward(experience.rollout) | losses
            new = self.parts.collector.sampled - self._booked
            sampled = sum(distributed.gathered(new), Counter[Author]())
            self._booked = Counter(self.parts.collector.sampled)
            # From here on the update is finished in all processes or in none.
            self.guide_usage.settle()
        return self._advance(experience, row, losses, sampled)

    def step(self) -> dict[str, float | str]:
        """One whole update, and its metrics."""
        return self.learn(self.assess(self.collect()))

    def evaluate(self, author: Author | str = Author.POLICY, split: str = "test") -> Evaluation:
        """Every metric of what an author writes for held-out prompts.

        Args:
            author: or its name, one of `MEASURED`.

        Raises:
            UserError: there is no such author or no guide, or no such split.
        """
        if isinstance(author, str):
            if author not in MEASURED:
                raise UserError(f"author '{author}' is not known: {nearest(author, MEASURED)}")
            author = MEASURED[author]
        if author is Author.GUIDE:
            if self.parts.collector.guide is None:
                raise UserError(
                    "author 'guide' is not there: the recipe has no guide; give a 'guide:' section."
                )
            self.ahead.rest()
        self.parts.tell_rewards(self.progress.update, self.progress.samples)
        return self.parts.evaluator.evaluate(author, self._measured(split))

    def has_references(self, split: str) -> bool:
        """Whether the data has a text of its own for each prompt that an evaluation takes, and can be measured too."""
        return all(sample.references for sample in self._measured(split))

    def _measured(self, split: str) -> Sequence[Sample]:
        evaluation = self.config.evaluation
        count = evaluation.test_samples if split == "test" else evaluation.samples
        return self.parts.held_out(split)[:count]

    def save_model(self, folder: str | Path) -> None:
        """Write the policy as plain `transformers` or `peft` loads it, and what it started from beside it; called by
        all processes."""
        if distributed.is_main() or launcher.wanted():
            save_policy(self.parts.policy, Path(folder))
        if distributed.is_main():
            write_start(Path(folder), self.config.policy.model_dump(mode="json"))

    def close(self) -> None:
        """Let go of a remote guide and of whoever works ahead; what is being asked or written is given up."""
        if self.parts.collector.remote is not None:
            self.parts.collector.remote.close()
        self.ahead.close()

    def _plan(self, update: int) -> Plan:
        """What the current update, or one that is to come, is made from."""
        return plan_of(update, self.progress, self.config, self.parts.train, self.row)

    def _collect(self, row: Algorithm, samples: Sequence[Sample] | None = None) -> Rollout:
        """The episodes of the current update, or of other ``samples`` than its own."""
        plan = self._plan(self.progress.update)
        given, places = (plan.samples, plan.places) if samples is None else (samples, None)
        mine = distributed.share(len(given))
        with sharding.whole(self.parts.policy.model):
            bring_weights(self.parts.collector.sampler)
            return self.parts.collector.collect(
                [given[number] for number in mine],
                row,
                self.progress.update,
                self.done_share,
                self.parts.assessor.rewards,
                mine,
                None if places is None else [places[number] for number in mine],
                self.progress.prompts,
            )

    def _collect_within_budget(self) -> Rollout:
        """The update's episodes; without the guide from here on where its budget is spent and may be."""
        rollout, spent = None, None
        try:
            rollout = self._collect(self.row())
        except BudgetSpentError as error:
            if not error.go_on:
                raise
            spent = str(error)
        said = next(filter(None, distributed.gathered(spent)), None)
        if said is None:
            assert rollout is not None, "collected, or its budget was spent"
            return rollout
        self.display.note(f"{said} Going on without the guide.")
        self.progress.unguided, self.progress.budgets = True, budgets(self.config)
        return self._collect(self.row())

    def _prefetch(self) -> None:
        """Ask a remote guide for the roll-ins of the next update, while this one trains."""
        update = self.progress.update + 1
        due = update < self.config.training.updates and self.config.foreseen
        if due and self.parts.collector.remote is not None:
            plan = self._plan(update)
            mine = distributed.share(len(plan.samples))
            chosen = [plan.samples[number] for number in mine]
            self.parts.collector.prefetch(chosen, plan.row, update, plan.progress, mine)

    def _advance(
        self, experience: Experience, row: Algorithm, losses: dict[str, float], sampled: Counter[Author]
    ) -> dict[str, float | str]:
        """Finish the update, and say what it was like; ``sampled`` counts tokens of each author, of all processes."""
        phases, self._phases = self._phases, Phases()
        # At once, so that an interruption finds the update either finished or not.
        self.progress = progress = self.progress.advanced(
            experience, row, sampled, phases.total, self.guide_usage.dump(), self.config
        )
        return {
            **logged_by_rewards(experience.scored),
            **losses,
            "algorithm": row.name,
            **describe(experience, row),
            **progress.prompts.metrics(),
            "policy_tokens": progress.policy_tokens,
            "guide_tokens": progress.guide_tokens,
            **phases.metrics(experience),
            **self.ahead.metrics(progress.update - 1),
            **self.parts.assessor.scale.metrics(),
            **self.guide_usage.metrics(),
        }
