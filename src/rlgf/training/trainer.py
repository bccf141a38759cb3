"""The training loop. It reads an algorithm's rows and knows none by name."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rlgf.algorithms import Algorithm
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.guides import BudgetSpentError
from rlgf.jsontext import to_json
from rlgf.metrics.records import Evaluation
from rlgf.training import processes
from rlgf.training.accounts import Accounts
from rlgf.training.checkpoint import (
    Progress,
    full_disk_named,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_policy,
)
from rlgf.training.describe import describe, mean_kl
from rlgf.training.display import Display
from rlgf.training.kl import KLController
from rlgf.training.logbook import Logbook, read_metrics
from rlgf.training.modelcard import write_model_card
from rlgf.training.order import shuffled_passes
from rlgf.training.parts import Parts, build_parts
from rlgf.training.start import write_start
from rlgf.types import Author, Experience, Rollout, Sample


@dataclass(frozen=True)
class _Gathered:
    """What an update is to learn from, and when its parts were ready."""

    row: Algorithm
    experience: Experience
    sampled: Counter[Author]
    """How many tokens this process let each author sample for it."""
    started: float
    collected: float
    assessed: float


class Trainer:
    """Trains a policy as a configuration says.

    The three steps of an update (`collect`, `assess`, `learn`) are methods, so that a loop of your
    own can call them.
    """

    def __init__(
        self,
        config: Config,
        parts: Parts | None = None,
        display: Display | None = None,
        *,
        evaluates: bool = False,
    ) -> None:
        """Load what the configuration names.

        Args:
            parts: models, task, reward and guide made by hand, instead of those of the recipe.
            evaluates: for `evaluate` alone; a policy that a run saved is then compared with that run's start.

        Raises:
            UserError: something that the configuration names cannot be had or does not fit.
        """
        self.config = config
        self.display = display or Display(Console(quiet=not processes.is_main()))
        if parts is None:
            with processes.main_first():
                parts = build_parts(config, evaluates=evaluates)
        self.parts = parts
        self.progress = Progress(kl_coefficient=config.training.kl.coefficient)
        self.kl = KLController(config.training.kl)
        self.accounts = Accounts(self.parts.collector.remote)
        self._stop = False

    @property
    def done_share(self) -> float:
        """The share of the run that is over, from 0 to 1."""
        return self.progress.update / self.config.training.updates

    def row(self, update: int | None = None) -> Algorithm:
        """The row of the algorithm that an update runs; default: the current one."""
        algorithm, config = self.config.algorithm, self.config
        unguided = algorithm.unguided if self.progress.unguided else None
        number = self.progress.update if update is None else update
        return unguided or algorithm.at(number, config.training.updates, config.seed)

    def batch(self, update: int | None = None) -> list[Sample]:
        """The samples of an update; default: the current one."""
        data, count = self.parts.train, self.config.rollout.prompts
        first = (self.progress.update if update is None else update) * count
        return [data[index] for index in shuffled_passes(first, count, len(data), self.config.seed)]

    def collect(self, samples: Sequence[Sample], row: Algorithm) -> Rollout:
        """Episodes for the samples, written as the row says; of several processes each writes its share."""
        mine = processes.share(len(samples))
        self._tell_rewards()
        return self.parts.collector.collect(
            [samples[number] for number in mine],
            row,
            self.progress.update,
            self.done_share,
            self.config.rollout.group_size,
            self.parts.assessor.rewards,
            mine,
        )

    def assess(self, rollout: Rollout, row: Algorithm) -> Experience:
        """Rewards, KL penalty, values and advantages."""
        return self.parts.assessor.assess(rollout, row, self.kl.coefficient)

    def learn(self, experience: Experience, row: Algorithm) -> dict[str, float]:
        """The optimizer steps of one update; a reward that learns does so behind the policy."""
        references = None
        if self.config.update.reference_coef.at(self.done_share):
            samples = experience.rollout.samples
            references = self.parts.collector.answers(Author.REFERENCE, samples, self.progress.update)
        metrics = self.parts.updater.update(
            experience, row, self.progress.update, self.done_share, references
        )
        if row.advantage is not None:
            metrics |= self.parts.assessor.learn_reward(experience.rollout)
        return metrics

    def step(self) -> dict[str, float | str]:
        """One whole update, and its metrics."""
        return self._learned(self._gathered())

    def _gathered(self) -> _Gathered:
        started = time.perf_counter()
        before = Counter(self.parts.collector.sampled)
        row, rollout = self._collect_within_budget()
        sampled = self.parts.collector.sampled - before
        collected = time.perf_counter()
        self.prefetch()
        experience = self.assess(rollout, row)
        return _Gathered(row, experience, sampled, started, collected, time.perf_counter())

    def _learned(self, gathered: _Gathered) -> dict[str, float | str]:
        row, experience = gathered.row, gathered.experience
        losses = self.learn(experience, row)
        finished = time.perf_counter()
        seconds = finished - gathered.started
        self._account(gathered, seconds)
        if self.progress.update % self.config.training.sample_every == 0 and row.needs_reward:
            self.display.sample(experience, self.parts.policy)
        return {
            "algorithm": row.name,
            **describe(experience, row),
            **losses,
            "kl_coefficient": self.kl.coefficient,
            "policy_tokens": self.progress.policy_tokens,
            "guide_tokens": self.progress.guide_tokens,
            "seconds": seconds,
            "seconds_collect": gathered.collected - gathered.started,
            "seconds_assess": gathered.assessed - gathered.collected,
            "seconds_learn": finished - gathered.assessed,
            "tokens_per_second": float(experience.rollout.response_mask.sum()) / seconds,
            **self.parts.assessor.scale.metrics(),
            **self.accounts.metrics(),
        }

    def prefetch(self) -> None:
        """Ask a remote guide for the roll-ins of the next update, while this one trains."""
        update, updates = self.progress.update + 1, self.config.training.updates
        if update < updates and self.parts.collector.remote is not None:
            samples, group_size = self.batch(update), self.config.rollout.group_size
            mine = processes.share(len(samples))
            chosen = [samples[number] for number in mine]
            self.parts.collector.prefetch(
                chosen, self.row(update), update, update / updates, group_size, mine
            )

    def _collect_within_budget(self) -> tuple[Algorithm, Rollout]:
        row = self.row()
        try:
            return row, self.collect(self.batch(), row)
        except BudgetSpentError as spent:
            if not spent.go_on:
                raise
            self.display.note(f"{spent} Going on without the guide.")
        self.progress.unguided = True
        row = self.row()
        return row, self.collect(self.batch(), row)

    def train(self, *, resume: bool = False) -> dict[str, dict[str, float]]:
        """Run all updates, evaluate, and write everything to the output folder.

        Args:
            resume: go on from the newest checkpoint, if there is one.

        Returns:
            Totals of the test evaluation, under 'policy'.

        Raises:
            UserError: the folder holds another run, or a checkpoint cannot be read or written.
            KeyboardInterrupt: after Ctrl-C, once the update under way is finished and saved.
        """
        folder = self.config.folder
        self._prepare(folder, resume)
        logbook = Logbook(folder, self.config.training.trackers, self.config.name)
        logbook.rewind(self.progress.update or -1)
        updates = self.config.training.updates
        try:
            with self._interruptible(), self.display.run(self.config.name, updates, self.progress.update):
                if self.progress.update == 0:
                    self._validate(logbook)
                while self.progress.update < updates:
                    try:
                        gathered = self._gathered()
                    except UserError:
                        # A guide or a reward gave out: what was learned before stays.
                        if self.progress.update:
                            self._save()
                        raise
                    metrics = self._learned(gathered)
                    logbook.write(self.progress.update, metrics)
                    self.display.update(self.progress.update, updates, metrics)
                    done = self.progress.update == updates
                    if self.progress.update % self.config.evaluation.every == 0 or done:
                        self._validate(logbook)
                    # All processes stop or none does; what is asked from here on is for the next update.
                    stop = any(processes.gathered(self._stop))
                    if stop or done or self.progress.update % self.config.training.checkpoint_every == 0:
                        self._save()
                    if stop and not done:
                        self.display.note(
                            f"Stopped and saved after update {self.progress.update}; --resume goes on."
                        )
                        raise KeyboardInterrupt
        finally:
            logbook.close()
        return self._finish(folder)

    def evaluate(self, author: Author = Author.POLICY, split: str = "test") -> Evaluation:
        """Every metric of what an author writes for held-out prompts."""
        evaluation = self.config.evaluation
        count = evaluation.test_samples if split == "test" else evaluation.samples
        self._tell_rewards()
        return self.parts.evaluator.evaluate(author, self.parts.held_out(split)[:count])

    def close(self) -> None:
        """Let go of a remote guide; what it is being asked is given up."""
        if self.parts.collector.remote is not None:
            self.parts.collector.remote.close()

    def _tell_rewards(self) -> None:
        """How far the run is, for rewards that ask."""
        for state in (self.parts.assessor.trainer_state, self.parts.evaluator.trainer_state):
            state.global_step = self.progress.update
            state.epoch = self.progress.update * self.config.rollout.prompts / len(self.parts.train)

    def _account(self, gathered: _Gathered, seconds: float) -> None:
        self.progress.update += 1
        for sampled in processes.gathered(gathered.sampled):
            self.progress.policy_tokens += sampled[Author.POLICY]
            self.progress.guide_tokens += sampled[Author.GUIDE]
        self.progress.seconds += seconds
        self.progress.guide_accounts = self.accounts.dump()
        if gathered.row.needs_reward:
            self.kl.observe(mean_kl(gathered.experience))
        self.progress.kl_coefficient = self.kl.coefficient

    def _validate(self, logbook: Logbook) -> None:
        if not processes.is_main():
            return
        totals = self.evaluate(split="validation").totals
        logbook.write(self.progress.update, {f"validation/{name}": value for name, value in totals.items()})
        shown = ("reward", "judge", "kl", "reference_perplexity", "output_perplexity")
        numbers = "  ".join(
            f"{name.replace('_', ' ')} {totals[name]:.3f}" for name in shown if name in totals
        )
        self.display.note(f"      validation  {numbers}")

    def _prepare(self, folder: Path, resume: bool) -> None:
        checkpoint = latest_checkpoint(folder / "checkpoints")
        if checkpoint is None and (folder / "summary.json").exists():
            raise UserError(
                f"{folder} holds a finished run without checkpoints, which cannot go on: set another 'output'."
            )
        if checkpoint is not None and not resume:
            raise UserError(
                f"{folder} already holds a run: --resume goes on with it, or set another 'output'."
            )
        if checkpoint is not None:
            self.progress = load_checkpoint(
                checkpoint, self.parts.updater, self.config.identity, self.parts.assessor
            )
            self.kl.coefficient = self.progress.kl_coefficient
            self.accounts.restore(self.progress.guide_accounts)
            self.display.note(f"Resumed from {checkpoint} after update {self.progress.update}.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if processes.is_main():
                (folder / "config.yaml").write_text(self.config.to_yaml())
        except OSError as error:
            raise UserError(
                f"the output folder {folder} cannot be written: {error.strerror}; set another 'output'."
            ) from error
        self._stop = False

    def _save(self) -> None:
        if processes.is_main():
            save_checkpoint(
                self.config.folder / "checkpoints",
                self.parts.updater,
                self.progress,
                self.config.identity,
                self.parts.assessor.state_dict(),
            )

    def _finish(self, folder: Path) -> dict[str, dict[str, float]]:
        totals = self._test(folder) if processes.is_main() else {}
        return dict(processes.gathered(totals)[0])

    def _test(self, folder: Path) -> dict[str, dict[str, float]]:
        evaluation = self.evaluate()
        totals = {"policy": evaluation.totals}
        summary = {
            "totals": totals,
            "progress": self.progress.__dict__,
            "guide": self.accounts.summary(self._gained(folder)),
        }
        with full_disk_named(folder, "the trained policy"):
            save_policy(self.parts.policy, folder / "policy")
            write_start(folder / "policy", self.config.policy.model_dump(mode="json"))
            write_model_card(folder / "policy", self.config, evaluation.totals, self.progress)
            evaluation.save(folder / "evaluation" / "policy.jsonl")
            # Last, since it says that the run is finished.
            (folder / "summary.json").write_text(to_json(summary, indent=1))
        return totals

    def _gained(self, folder: Path) -> float | None:
        """How far the validation reward rose over the run."""
        measured = [row["validation/reward"] for row in read_metrics(folder) if "validation/reward" in row]
        return measured[-1] - measured[0] if measured else None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C asks the loop to stop after the update under way; a second one is immediate."""

        def ask(number: int, frame: Any) -> None:
            self._stop = True
            # Not the handler of before: a shell's background jobs start with this signal ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.display.note(
                "Stopping after this update; press Ctrl-C again to stop at once, without saving."
            )

        previous = signal.getsignal(signal.SIGINT)
        in_main_thread = True
        try:
            signal.signal(signal.SIGINT, ask)
        except ValueError:
            in_main_thread = False
        try:
            yield
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, previous)
