"""The training loop. It reads an algorithm's rows and knows none by name."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rlgf import seeding
from rlgf.algorithms import Algorithm
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.losses import kl_estimate
from rlgf.training.checkpoint import (
    Progress,
    full_disk_named,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_policy,
)
from rlgf.training.display import Display
from rlgf.training.evaluation import Evaluation
from rlgf.training.kl import KLController
from rlgf.training.logbook import Logbook
from rlgf.training.modelcard import write_model_card
from rlgf.training.parts import Parts, build_parts
from rlgf.types import Author, Experience, Rollout, Sample


class Trainer:
    """Trains a policy as a configuration says.

    The three steps of an update (`collect`, `assess`, `learn`) are methods, so that a loop of your
    own can call them.
    """

    def __init__(self, config: Config, parts: Parts | None = None, display: Display | None = None) -> None:
        """Load what the configuration names.

        Args:
            parts: models, task, reward and guide made by hand, instead of those of the recipe.

        Raises:
            UserError: something that the configuration names cannot be had or does not fit.
        """
        self.config = config
        self.display = display or Display()
        self.parts = parts or build_parts(config)
        self.progress = Progress(kl_coefficient=config.training.kl.coefficient)
        self.kl = KLController(config.training.kl)
        self._stop = False

    @property
    def done_share(self) -> float:
        """The share of the run that is over, from 0 to 1."""
        return self.progress.update / self.config.training.updates

    def row(self) -> Algorithm:
        """The row of the algorithm that the current update runs."""
        config = self.config
        return config.algorithm.at(self.progress.update, config.training.updates, config.seed)

    def batch(self) -> list[Sample]:
        """The samples of the current update: shuffled passes over the data, one after another."""
        data = self.parts.train
        count = self.config.rollout.prompts
        first = self.progress.update * count
        return [data[index] for index in shuffled_passes(first, count, len(data), self.config.seed)]

    def collect(self, samples: Sequence[Sample], row: Algorithm) -> Rollout:
        """Episodes for the samples, written as the row says."""
        group_size = self.config.rollout.group_size
        return self.parts.collector.collect(samples, row, self.progress.update, self.done_share, group_size)

    def assess(self, rollout: Rollout, row: Algorithm) -> Experience:
        """Rewards, KL penalty, values and advantages."""
        return self.parts.assessor.assess(rollout, row, self.kl.coefficient)

    def learn(self, experience: Experience, row: Algorithm) -> dict[str, float]:
        """The optimizer steps of one update."""
        references = None
        if self.config.update.reference_coef.at(self.done_share):
            samples = experience.rollout.samples
            references = self.parts.collector.answers(Author.REFERENCE, samples, self.progress.update)
        return self.parts.updater.update(experience, row, self.progress.update, self.done_share, references)

    def step(self) -> dict[str, float | str]:
        """One whole update, and its metrics."""
        started = time.perf_counter()
        row = self.row()
        rollout = self.collect(self.batch(), row)
        collected = time.perf_counter()
        experience = self.assess(rollout, row)
        assessed = time.perf_counter()
        losses = self.learn(experience, row)
        finished = time.perf_counter()
        self._account(experience, row, finished - started)
        if self.progress.update % self.config.training.sample_every == 0 and row.advantage is not None:
            self.display.sample(experience, self.parts.policy)
        return {
            "algorithm": row.name,
            **_describe(experience, row),
            **losses,
            "kl_coefficient": self.kl.coefficient,
            "policy_tokens": self.progress.policy_tokens,
            "guide_tokens": self.progress.guide_tokens,
            "seconds": finished - started,
            "seconds_collect": collected - started,
            "seconds_assess": assessed - collected,
            "seconds_learn": finished - assessed,
            "tokens_per_second": float(rollout.response_mask.sum()) / (finished - started),
        }

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
                    metrics = self.step()
                    logbook.write(self.progress.update, metrics)
                    self.display.update(self.progress.update, updates, metrics)
                    done = self.progress.update == updates
                    if self.progress.update % self.config.evaluation.every == 0 or done:
                        self._validate(logbook)
                    if (
                        self._stop
                        or done
                        or self.progress.update % self.config.training.checkpoint_every == 0
                    ):
                        self._save()
                    if self._stop and not done:
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
        return self.parts.evaluator.evaluate(author, self.parts.held_out(split)[:count])

    def _account(self, experience: Experience, row: Algorithm, seconds: float) -> None:
        rollout = experience.rollout
        self.progress.update += 1
        self.progress.policy_tokens += int(rollout.written_by(Author.POLICY).sum())
        self.progress.guide_tokens += int(rollout.written_by(Author.GUIDE).sum())
        self.progress.seconds += seconds
        if row.advantage is not None:
            self.kl.observe(_mean_kl(experience))
        self.progress.kl_coefficient = self.kl.coefficient

    def _validate(self, logbook: Logbook) -> None:
        totals = self.evaluate(split="validation").totals
        logbook.write(self.progress.update, {f"validation/{name}": value for name, value in totals.items()})
        shown = ("reward", "judge", "kl", "reference_perplexity", "output_perplexity")
        numbers = "  ".join(
            f"{name.replace('_', ' ')} {totals[name]:.3f}" for name in shown if name in totals
        )
        self.display.note(f"      validation  {numbers}")

    def _prepare(self, folder: Path, resume: bool) -> None:
        checkpoint = latest_checkpoint(folder / "checkpoints")
        if (checkpoint is not None or (folder / "summary.json").exists()) and not resume:
            raise UserError(
                f"{folder} already holds a run: --resume goes on with it, or set another 'output'."
            )
        if checkpoint is not None:
            self.progress = load_checkpoint(checkpoint, self.parts.updater, self._identity())
            self.kl.coefficient = self.progress.kl_coefficient
            self.display.note(f"Resumed from {checkpoint} after update {self.progress.update}.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(self.config.to_yaml())
        except OSError as error:
            raise UserError(
                f"the output folder {folder} cannot be written: {error.strerror}; set another 'output'."
            ) from error
        self._stop = False

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that wrote the checkpoint."""
        return self.config.model_dump(mode="json", exclude={"output", "name", "evaluation"})

    def _save(self) -> None:
        save_checkpoint(
            self.config.folder / "checkpoints", self.parts.updater, self.progress, self._identity()
        )

    def _finish(self, folder: Path) -> dict[str, dict[str, float]]:
        evaluation = self.evaluate()
        totals = {"policy": evaluation.totals}
        summary = {"totals": totals, "progress": self.progress.__dict__}
        with full_disk_named(folder, "the trained policy"):
            save_policy(self.parts.policy, folder / "policy")
            write_model_card(folder / "policy", self.config, evaluation.totals, self.progress)
            evaluation.save(folder / "evaluation" / "policy.jsonl")
            # Last, since it says that the run is finished.
            (folder / "summary.json").write_text(json.dumps(summary, indent=1))
        return totals

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C asks the loop to stop after the update under way; a second one is immediate."""

        def ask(number: int, frame: Any) -> None:
            self._stop = True
            signal.signal(signal.SIGINT, previous)
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


def shuffled_passes(first: int, count: int, size: int, seed: int) -> Iterator[int]:
    """Indices of a stretch of the endless sequence of shuffled passes over ``size`` samples."""
    for epoch in range(first // size, (first + count - 1) // size + 1):
        order = torch.randperm(size, generator=seeding.generator(seed, "order", epoch)).tolist()
        start = epoch * size
        yield from order[max(first - start, 0) : first + count - start]


def _mean_kl(experience: Experience) -> float:
    """KL(policy || reference) in nats a token, over the policy's tokens; never negative."""
    rollout = experience.rollout
    mask = rollout.written_by(Author.POLICY)
    estimate = kl_estimate(rollout.sampled_logprobs, experience.reference_logprobs)
    return float(torch.where(mask, estimate, 0.0).sum() / mask.sum().clamp(min=1))


def _describe(experience: Experience, row: Algorithm) -> dict[str, float]:
    """What the episodes of an update looked like."""
    rollout = experience.rollout
    found = {"response_tokens": float(rollout.lengths.float().mean())}
    if row.advantage is not None:
        by_policy = rollout.written_by(Author.POLICY)
        found |= {
            "reward": float(experience.rewards.mean()),
            "kl": _mean_kl(experience),
            "entropy": float(-rollout.sampled_logprobs.sum() / by_policy.sum().clamp(min=1)),
            "learned_tokens": float(experience.policy_mask.sum()),
        }
    return found
