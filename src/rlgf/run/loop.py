"""The loop around the updates of a run: checkpoints, signals, evaluation, the log, and what ends it all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from transformers import TrainerControl

from rlgf import distributed
from rlgf.errors import FailedElsewhereError, UserError
from rlgf.evaluation.files import Evaluation
from rlgf.jsontext import to_json
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.run.agreement import (
    agree_on_settings,
    asked_again,
    checkpoint_of,
    note_on_length,
    require_shared_disk,
    restore,
)
from rlgf.run.callbacks import Callbacks
from rlgf.run.hub import write_model_card
from rlgf.run.logs import MetricsLog, SamplesLog, read_metrics, rewind_lines
from rlgf.run.saver import Saver, out_of_memory
from rlgf.run.signals import Stopping, stopped
from rlgf.run.steps import Steps
from rlgf.run.trials import answered_prompts, long_prompts, unread_prompts
from rlgf.run.warnings import Found, Watch
from rlgf.run.whole_folder import full_disk_named, write_whole

Totals = dict[str, dict[str, float]]


class TrainingLoop:
    """Runs all updates of a trainer; whatever ends them, the last finished one is saved."""

    def __init__(self, trainer: Steps, *, resume: bool) -> None:
        """Bring all processes to the same beginning: that of the run, or the main process's newest checkpoint.

        Raises:
            UserError: the folder holds another run, or a checkpoint cannot be gone on with.
        """
        self.trainer = trainer
        self.config, self.display = trainer.config, trainer.display
        self.folder = trainer.config.folder
        with distributed.one_fate():
            self._restore(resume)
            self.saver = Saver(self.config, trainer.parts, trainer.progress.update, self.display.goes_on)
            self.log = MetricsLog(self.config, trainer.trackers)
            self.samples = SamplesLog(self.folder, self.config.training.samples_kept, trainer.parts.policy)
            for log in (self.log, self.samples) if distributed.is_main() else ():
                rewind_lines(log.path, trainer.progress.update or -1)
            # All have the main process's, which has dropped what is done again.
            so_far = distributed.gathered(read_metrics(self.folder) if distributed.is_main() else None)[0]
        self.watch = Watch(self.config.model_dump(mode="json"))
        self.watch.look(so_far)  # what an earlier part of the run was told already
        self.callbacks = Callbacks(trainer, so_far)
        self.stopping = Stopping(
            self.display.note, alone=distributed.count() == 1, hurry=self._save_in_a_hurry
        )

    def run(self) -> Totals:
        """See `Trainer.train`."""
        try:
            parts, limit = self.trainer.parts, self.config.rollout.max_prompt_tokens
            codec, ends = parts.policy.codec, is_encoder_decoder(parts.policy.model)
            self._warn(long_prompts(parts.task, parts.train, codec, limit, ends=ends))
            self._warn(unread_prompts(parts.train, codec) + answered_prompts(parts.train))
            self.callbacks.tell("on_train_begin")
            asked = self._updates()
            totals = {} if asked else self._finish()
            self.callbacks.tell("on_train_end")
            self.log.close()
        except BaseException as error:
            said = self._rescue(error)
            full = out_of_memory(error, self.trainer.progress, self.config)
            told = error if full is None else UserError(full)
            if isinstance(error, UserError) and self.stopping.hurried:
                # The guide was closed while it was asked.
                told, said = stopped(self.stopping.asked), f"{error} {said}"
            if isinstance(told, UserError) or not isinstance(told, Exception):
                # Of these no traceback is shown, which would have the note at its end.
                self.display.note(said)
            told.add_note(said)
            if told is error:
                raise
            raise told from error
        finally:
            self.stopping.restore()
        if asked:
            raise stopped(asked)
        return totals

    def _updates(self) -> int:
        """The updates that are left; the number of the signal that ended them early, else 0."""
        training, trainer = self.config.training, self.trainer
        expected = trainer.progress.expected_updates(training)
        shown = self.display.run(self.config.name, expected, trainer.progress.update)
        with self.stopping, closing(trainer.ahead), shown:
            while True:
                # All processes measure or none does, and all stop or none does.
                if any(
                    distributed.gathered(
                        trainer.progress.validation_due or self.callbacks.control.should_evaluate
                    )
                ):
                    self.saver.begin(trainer.progress.update)
                    self._validate()
                number = trainer.progress.update
                done = trainer.done_share >= 1 or self.callbacks.control.should_training_stop
                # A wish from here on is for the next update.
                wishes = distributed.gathered((self.stopping.asked, done, self.callbacks.control.should_save))
                asked = next(filter(None, (wish[0] for wish in wishes)), 0)
                done, save = (any(wish[i] for wish in wishes) for i in (1, 2))
                if number and (asked or done or save or number % training.checkpoint_every == 0):
                    self.saver.save(trainer.progress)
                    self.callbacks.tell("on_save")
                # Before the test of a run that is done: a comparison would go on with its next one.
                if asked:
                    self.display.note(f"Stopped and saved after update {number}; {self.display.goes_on}.")
                    return int(asked)
                if done:
                    return 0
                self.callbacks.control = TrainerControl()
                self.saver.begin(number)
                self.callbacks.tell("on_step_begin")
                metrics = self._step()
                self.callbacks.tell("on_step_end")
                self.callbacks.tell_log(metrics)

    def _step(self) -> dict[str, float | str]:
        experience = self.trainer.assess(self.trainer.collect())
        self.saver.begin_learning()
        row = self.trainer.row()
        metrics = self.trainer.learn(experience)
        update = self.trainer.progress.update
        found = self.watch.look([{"update": update, **metrics}])
        metrics["warnings"] = float(len(self.watch.said))
        # Before all else, since the update is finished whatever fails from here on.
        self.log.write(update, metrics)
        self.samples.write(update, experience, row)
        due = update % self.config.training.sample_every == 0
        if due and experience.scored.rewards is not None:
            self.display.sample(experience, self.trainer.parts.policy)
        expected = self.trainer.progress.expected_updates(self.config.training)
        self.display.update(update, expected, metrics)
        self._warn(found)
        return metrics

    def _save_in_a_hurry(self) -> None:
        """For a signal that may not wait until the update is finished; see `Stopping`."""
        self.saver.save_early(self.trainer.progress)
        if self.trainer.parts.collector.remote is not None:
            self.trainer.parts.collector.remote.close()

    def _validate(self) -> None:
        trainer = self.trainer
        evaluation = trainer.evaluate(split="validation")
        totals = evaluation.totals
        if distributed.is_main():
            self.samples.write_evaluation(trainer.progress.update, "validation", evaluation)
            named: dict[str, float | str] = {f"validation/{name}": value for name, value in totals.items()}
            self.log.write(trainer.progress.update, named)
            found = self.watch.look([{"update": trainer.progress.update, **named}])
            kept = self.config.training.samples_kept
            self.log.write_texts(trainer.progress.update, "validation", evaluation, kept)
            self.display.measured("validation", totals)
            self._warn(found)
        trainer.progress.validation_due = False
        self.callbacks.tell_evaluation(totals)

    def _warn(self, found: Sequence[Found | str]) -> None:
        for warning in found:
            self.display.warn(str(warning))

    def _restore(self, resume: bool) -> None:
        trainer, config, folder = self.trainer, self.config, self.folder
        agree_on_settings(config, trainer.parts)
        checkpoint = checkpoint_of(folder, resume) if distributed.is_main() else None
        trainer.ahead.close()  # what it wrote was for other weights
        trainer.progress = progress = restore(checkpoint, config, trainer.parts, trainer.progress)
        if checkpoint is not None:
            self.display.note(f"Resumed from {checkpoint} after update {progress.update}.")
        elif resume and distributed.is_main():  # which a misspelled name would not show
            self.display.note(f"There is no checkpoint in {folder}: the run begins at its start.")
        for note in filter(None, (note_on_length(progress, config), asked_again(progress, config))):
            self.display.note(note)
        progress.planned = config.training.updates
        if progress.update == 0:
            progress.validation_due = True
        else:
            trainer.guide_usage.restore(progress.guide_accounts)
        if distributed.is_main():
            with full_disk_named(folder, "the recipe"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            # Of a finished run that goes on these would be taken for what it measures at its new end.
            for stale in ("summary.json", "evaluation/policy.jsonl") if trainer.done_share < 1 else ():
                (folder / stale).unlink(missing_ok=True)
        require_shared_disk(folder / "config.yaml")

    def _finish(self) -> Totals:
        """Test the policy, and write it with what it measured."""
        trainer, folder = self.trainer, self.folder
        evaluation = trainer.evaluate()
        with full_disk_named(folder, "the trained policy"):
            trainer.save_model(folder / "policy")
            if distributed.is_main():
                self._write_results(evaluation)
        distributed.gathered(None)
        return {"policy": evaluation.totals}

    def _write_results(self, evaluation: Evaluation) -> None:
        trainer, folder, update = self.trainer, self.folder, self.trainer.progress.update
        guide = trainer.guide_usage.summary(_gained(folder))
        totals = {"policy": evaluation.totals}
        progress = {**vars(trainer.progress), "prompts": trainer.progress.prompts.metrics()}
        summary = {"totals": totals, "progress": progress, "guide": guide}
        write_model_card(
            folder / "policy",
            self.config,
            evaluation,
            trainer.progress,
            guide,
            model=trainer.parts.policy.model,
            given=trainer.parts.given,
        )
        evaluation.save(folder / "evaluation" / "policy.jsonl")
        # Last of all files, since it says that the run is finished.
        write_whole(folder / "summary.json", to_json(summary, indent=1))
        self.log.write_summary(update, evaluation.totals, guide)
        self.log.write_texts(update, "test", evaluation, self.config.training.samples_kept)

    def _rescue(self, error: BaseException) -> str:
        """Save what a failure would lose, and say so.

        Raises:
            FailedElsewhereError: another process says why the run ends.
        """
        try:
            return self.saver.rescue(error, self.trainer.progress)
        except FailedElsewhereError as other:
            self.display.note(f"{str(other).rstrip('.')}. {' '.join(other.__notes__)}")
            raise
        finally:
            with suppress(Exception):
                self.log.close()


def _gained(folder: Path) -> float | None:
    """How far the validation reward rose over the run."""
    measured = [row["validation/reward"] for row in read_metrics(folder) if "validation/reward" in row]
    return measured[-1] - measured[0] if measured else None
