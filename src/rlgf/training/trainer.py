"""The training loop. It reads an algorithm's rows and knows none by name."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from rlgf.algorithms import Algorithm, Span
from rlgf.config import Config
from rlgf.errors import FailedElsewhereError, UserError
from rlgf.guides import BudgetSpentError
from rlgf.jsontext import to_json
from rlgf.metrics.records import Evaluation
from rlgf.training import processes
from rlgf.training.accounts import Accounts
from rlgf.training.beginning import agree_on_settings, checkpoint_of, note_on_length, restore
from rlgf.training.checkpoint import Progress, full_disk_named, save_policy
from rlgf.training.describe import describe, mean_kl
from rlgf.training.display import Display
from rlgf.training.logbook import Logbook, read_metrics
from rlgf.training.modelcard import write_model_card
from rlgf.training.order import shuffled_passes
from rlgf.training.parts import Parts, build_parts
from rlgf.training.saving import Saver, out_of_memory
from rlgf.training.start import write_start
from rlgf.training.stopping import Stopping, stopped
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
        processes.join(config.training.process_timeout)
        self.display = display or Display(Console(quiet=not processes.is_main()))
        if parts is None:
            with processes.one_fate(), processes.main_first():
                parts = build_parts(config, evaluates=evaluates)
        self.parts = parts
        self.progress = Progress()
        self.accounts = Accounts(self.parts.collector.remote)
        self.accounts.settle()
        self._stopping: Stopping | None = None
        self._saver: Saver | None = None
        """While `train` runs."""

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

    def batch(self, *, ahead: bool = False) -> list[Sample]:
        """The samples of the current update, or of the one after it.

        Args:
            ahead: the next update's.
        """
        data, first, count = self.parts.train, self.progress.samples, self._prompts(self.row())
        if ahead:
            first, count = first + count, self._prompts(self.row(self.progress.update + 1))
        return [data[index] for index in shuffled_passes(first, count, len(data), self.config.seed)]

    def kl_coefficient(self, row: Algorithm) -> float:
        """The weight of a row's KL penalty in the current update."""
        return self.progress.kl_coefficients.get(row.name, row.kl.coefficient)

    def _prompts(self, row: Algorithm) -> int:
        return self.config.rollout.episodes // row.group_size

    def collect(self, samples: Sequence[Sample], row: Algorithm) -> Rollout:
        """Episodes for the samples, written as the row says; of several processes each writes its share."""
        mine = processes.share(len(samples))
        self._tell_rewards()
        return self.parts.collector.collect(
            [samples[number] for number in mine],
            row,
            self.progress.update,
            self.done_share,
            self.parts.assessor.rewards,
            mine,
        )

    def assess(self, rollout: Rollout, row: Algorithm) -> Experience:
        """Rewards, KL penalty, values and advantages."""
        return self.parts.assessor.assess(rollout, row, self.kl_coefficient(row))

    def learn(self, experience: Experience, row: Algorithm) -> dict[str, float]:
        """The optimizer steps of one update; a reward that learns does so after the policy."""
        references = None
        if any(term.on is Span.REFERENCES and term.weight.at(self.done_share) for term in row.terms.values()):
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
        self._save_if_asked()
        self.prefetch()
        experience = self.assess(rollout, row)
        self._save_if_asked()
        return _Gathered(row, experience, sampled, started, collected, time.perf_counter())

    def _learned(self, gathered: _Gathered) -> dict[str, float | str]:
        row, experience = gathered.row, gathered.experience
        losses = self.learn(experience, row)
        sampled = sum(processes.gathered(gathered.sampled), Counter[Author]())
        # From here on the update is finished in all processes or in none.
        self.accounts.settle()
        finished = time.perf_counter()
        seconds = finished - gathered.started
        self._account(gathered, sampled, seconds)
        if self.progress.update % self.config.training.sample_every == 0 and row.needs_reward:
            self.display.sample(experience, self.parts.policy)
        return {
            "algorithm": row.name,
            **describe(experience, row),
            **losses,
            "kl_coefficient": experience.kl_coefficient,
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
            samples = self.batch(ahead=True)
            mine = processes.share(len(samples))
            chosen = [samples[number] for number in mine]
            self.parts.collector.prefetch(chosen, self.row(update), update, update / updates, mine)

    def _collect_within_budget(self) -> tuple[Algorithm, Rollout]:
        row, rollout, spent = self.row(), None, None
        try:
            rollout = self.collect(self.batch(), row)
        except BudgetSpentError as error:
            if not error.go_on:
                raise
            spent = str(error)
        said = next(filter(None, processes.gathered(spent)), None)
        if said is None:
            assert rollout is not None, "collected, or its budget was spent"
            return row, rollout
        self.display.note(f"{said} Going on without the guide.")
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
            UserError: the folder holds another run, a checkpoint cannot be read or written, a guide gave out, or
                memory did; or another process failed, see `FailedElsewhereError` and `LostProcessError`.
            KeyboardInterrupt: after Ctrl-C, once the update under way is finished and saved.
            SystemExit: after SIGTERM or SIGHUP, likewise.
            Exception: whatever a reward, a metric, a guide or a tracker of your own raises. Whatever ends the run, the
                last finished update is saved first, and a note on the exception says so.
        """
        folder = self.config.folder
        with processes.one_fate():
            saver = self._saver = self._prepare(folder, resume)
            logbook = Logbook(folder, self.config.training.trackers, self.config.name)
            logbook.rewind(self.progress.update or -1)
        try:
            asked = self._updates(logbook, saver)
            totals = {} if asked else self._finish(folder)
            logbook.close()
        except BaseException as error:
            said = self._end(error, saver, logbook)
            full = out_of_memory(error, self.progress, self.config)
            if full is not None:
                self.display.note(said)
                raise _with_note(UserError(full), said) from error
            if isinstance(error, UserError) or not isinstance(error, Exception):
                # Of these no traceback is shown, which would have the note at its end.
                self.display.note(said)
            _with_note(error, said)
            raise
        if asked:
            raise stopped(asked)
        return totals

    def _updates(self, logbook: Logbook, saver: Saver) -> int:
        """The updates that are left; the number of the signal that ended them early, else 0."""
        training = self.config.training
        stopping = Stopping(self.display.note, alone=processes.count() == 1)
        with stopping, self.display.run(self.config.name, training.updates, self.progress.update):
            self._stopping = stopping
            while True:
                if self.progress.validation_due:
                    saver.begin(self.progress.update)
                    self._validate(logbook)
                number = self.progress.update
                done = number >= training.updates
                # All processes stop or none does; what is asked from here on is for the next update.
                asked = next(filter(None, processes.gathered(stopping.asked)), 0)
                if number and (asked or done or number % training.checkpoint_every == 0):
                    saver.save(self.progress)
                if done:
                    return 0
                if asked:
                    self.display.note(f"Stopped and saved after update {number}; --resume goes on.")
                    return int(asked)
                saver.begin(number)
                gathered = self._gathered()
                saver.begin_learning()
                metrics = self._learned(gathered)
                logbook.write(self.progress.update, metrics)
                self.display.update(self.progress.update, training.updates, metrics)

    def _save_if_asked(self) -> None:
        """Who takes the machine away may not wait until the update is finished; who pressed Ctrl-C does."""
        asked = self._stopping.asked if self._stopping is not None else 0
        if self._saver is not None and asked not in (0, signal.SIGINT):
            self._saver.save_early(self.progress)

    def _end(self, error: BaseException, saver: Saver, logbook: Logbook) -> str:
        """Save what a failure would lose, and say so.

        Raises:
            FailedElsewhereError: another process says why the run ends.
        """
        try:
            return saver.rescue(error, self.progress)
        except FailedElsewhereError as other:
            self.display.note(f"{str(other).rstrip('.')}. {' '.join(other.__notes__)}")
            raise
        finally:
            with suppress(Exception):
                logbook.close()

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
            state.epoch = self.progress.samples / len(self.parts.train)

    def _account(self, gathered: _Gathered, sampled: Counter[Author], seconds: float) -> None:
        """
        Args:
            sampled: tokens of each author, of all processes.
        """
        progress, config = self.progress, self.config
        update = progress.update + 1
        row, experience = gathered.row, gathered.experience
        coefficients = progress.kl_coefficients
        if row.needs_reward:
            after = row.kl.next(experience.kl_coefficient, mean_kl(experience.scored))
            coefficients = {**coefficients, row.name: after}
        # At once, so that an interruption finds the update either finished or not.
        self.progress = replace(
            progress,
            update=update,
            samples=progress.samples + self._prompts(row),
            kl_coefficients=coefficients,
            policy_tokens=progress.policy_tokens + sampled[Author.POLICY],
            guide_tokens=progress.guide_tokens + sampled[Author.GUIDE],
            seconds=progress.seconds + seconds,
            guide_accounts=self.accounts.dump(),
            validation_due=update % config.evaluation.every == 0 or update == config.training.updates,
        )

    def _validate(self, logbook: Logbook) -> None:
        totals = self.evaluate(split="validation").totals
        if processes.is_main():
            logbook.write(
                self.progress.update, {f"validation/{name}": value for name, value in totals.items()}
            )
        self.progress.validation_due = False
        shown = ("reward", "judge", "kl", "reference_perplexity", "output_perplexity")
        numbers = "  ".join(
            f"{name.replace('_', ' ')} {totals[name]:.3f}" for name in shown if name in totals
        )
        self.display.note(f"      validation  {numbers}")

    def _prepare(self, folder: Path, resume: bool) -> Saver:
        """Bring all processes to the same beginning: that of the run, or the main process's newest checkpoint."""
        agree_on_settings(self.config, self.parts, self.batch())
        checkpoint = checkpoint_of(folder, resume) if processes.is_main() else None
        self.progress = restore(checkpoint, self.config, self.parts, self.progress)
        if checkpoint is not None:
            self.display.note(f"Resumed from {checkpoint} after update {self.progress.update}.")
        note = note_on_length(self.progress, self.config)
        if note is not None:
            self.display.note(note)
        self.progress.planned = self.config.training.updates
        if self.progress.update == 0:
            self.progress.validation_due = True
        else:
            self.accounts.restore(self.progress.guide_accounts)
            self.accounts.settle()
        try:
            if processes.is_main():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "config.yaml").write_text(self.config.to_yaml())
        except OSError as error:
            raise UserError(
                f"the output folder {folder} cannot be written: {error.strerror}; set another 'output'."
            ) from error
        return Saver(self.config, self.parts, saved=self.progress.update)

    def _finish(self, folder: Path) -> dict[str, dict[str, float]]:
        """Test the policy, and write it with what it measured."""
        evaluation = self.evaluate()
        totals = {"policy": evaluation.totals}
        if processes.is_main():
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
        processes.gathered(None)
        return totals

    def _gained(self, folder: Path) -> float | None:
        """How far the validation reward rose over the run."""
        measured = [row["validation/reward"] for row in read_metrics(folder) if "validation/reward" in row]
        return measured[-1] - measured[0] if measured else None


def _with_note(error: BaseException, note: str) -> BaseException:
    error.add_note(note)
    return error
