"""Keeping what a run has learned, whatever ends it, and the way back to the last finished update."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import torch

from rlgf import distributed
from rlgf.config import Config
from rlgf.errors import FailedElsewhereError, LostProcessError, UserError, one_line
from rlgf.learning.assessor import Assessor
from rlgf.learning.updater import Updater
from rlgf.models import launcher, sharding
from rlgf.run.build import Parts
from rlgf.run.checkpoint import joint_reward, run_identity, save_checkpoint
from rlgf.run.memory import leaves_room
from rlgf.run.progress import Progress
from rlgf.run.whole_folder import clear_left
from rlgf.states import copied, digest


class Saver:
    """Writes the checkpoints of a run, also that of the last finished update when the next one fails."""

    def __init__(self, config: Config, parts: Parts, saved: int, goes_on: str) -> None:
        """``saved`` is the update of the checkpoint that the run goes on from, 0 where there is none; ``goes_on`` says how
        it goes on once it has ended."""
        self._goes_on = goes_on
        self._config = config
        self._parts = parts
        self._saved = saved
        self._saving = False
        self._undo: Undo | None = None
        self._early = 0
        """The update that `save_early` has saved."""
        self._writes = threading.Lock()
        self._room = fits(parts.updater)
        if distributed.is_main():
            clear_left(config.folder / "checkpoints")

    def begin(self, update: int) -> None:
        """An update begins after ``update`` finished ones, or the evaluation before it, which asks the rewards too."""
        self._undo = Undo(update, self._parts.assessor)

    def begin_learning(self) -> None:
        """The episodes of the update are about to change the weights."""
        assert self._undo is not None, "an update has begun"
        with self._writes:
            self._undo.keep(self._parts.updater if self._room else None)

    def save(self, progress: Progress) -> None:
        """A checkpoint of the last finished update, made sure that all processes hold the same.

        Raises:
            UserError: they do not, the disk is full, or the reward's state could not be read again.
        """
        if self._saved == progress.update:
            return
        self._saving = True
        # The update is finished, so there is no way back to keep beside what writing takes.
        self._undo = None
        distributed.same(
            "weights",
            lambda: digest([p for p in self._parts.updater.moved if not sharding.is_sharded(p)])[:16],
            f"something on one machine computes otherwise; the checkpoint of update {self._saved} stays",
        )
        reward = joint_reward(copied(self._parts.assessor.state_dict()))
        assert reward is not None, "every process gave its own"
        self._write(progress, reward)
        self._saving = False

    def save_early(self, progress: Progress) -> None:
        """A checkpoint of the last finished update while the next one collects or is assessed, in a thread of its own: who
        sent a signal may not wait until that is finished. One that cannot be written is left out."""
        if launcher.wanted() or not distributed.is_main():
            # Where processes share the weights none has all that there is to save, and the others may be anywhere.
            return
        with self._writes, suppress(Exception):
            undo, number = self._undo, progress.update
            # Else the weights are changing, or what the run does next is to save.
            new = number > max(self._saved, self._early)
            if undo is not None and undo.update == number and not undo.learning and new:
                self._put(progress, undo.reward)
                self._early = number

    def rescue(self, error: BaseException, progress: Progress) -> str:
        """Whatever ends the run, save the last finished update, and let no process leave before that.

        Returns:
            What became of it, in a sentence.

        Raises:
            FailedElsewhereError: another process says why the run ends.
        """
        told = error if isinstance(error, FailedElsewhereError) else None
        alone = isinstance(error, LostProcessError)
        try:
            distributed.tell(error)
        except FailedElsewhereError as other:
            told = other
        except LostProcessError:
            alone = True
        try:
            said = self._save_last(error, progress, alone=alone)
        except Exception as second:
            said = (
                f"The last finished update, {progress.update}, could not be saved ({type(second).__name__}: {second}); "
                f"{self._newest()}"
            )
        if not alone:
            # Also since the launcher ends all as soon as one has ended.
            with suppress(LostProcessError, FailedElsewhereError):
                said = distributed.gathered(said)[0]
        if told is not None:
            told.add_note(said)
            raise told from (None if told is error else error)
        return said

    def _save_last(self, error: BaseException, progress: Progress, *, alone: bool) -> str:
        number, undo, assessor = progress.update, self._undo, self._parts.assessor
        # The update that it was made for may have finished since.
        within = undo if undo is not None and undo.update == number else None
        own: dict[str, Any] | None = None
        failed: Exception | None = None
        try:
            own = within.reward if within is not None else copied(assessor.state_dict())
            if within is not None:
                within.put_back(self._parts.updater, assessor)
        except Exception as second:
            failed = second
        reward = own if alone else joint_reward(own)
        if failed is not None or reward is None:
            raise failed or UserError("the reward gave no state in one of the processes.")
        if number == 0:
            return "No update had finished: there is nothing to save."
        if self._saved == number:
            return f"The last finished update, {number}, is saved; {self._goes_on}."
        if self._saving and isinstance(error, Exception):
            return self._newest()
        if within is not None and not within.possible:
            reason = (
                "of weights that processes share no copy is kept"
                if launcher.wanted()
                else "a copy of what it changes would have crowded the memory"
            )
            return f"Update {number + 1} was learning, and {reason}; {self._newest()}"
        if alone and launcher.wanted():
            return f"A part of the weights is gone with the other process; {self._newest()}"
        self._write(progress, reward, alone=alone)
        return f"Saved after update {number}; {self._goes_on}."

    def _newest(self) -> str:
        if not self._saved:
            return "There is no checkpoint: the run starts again from its beginning."
        return f"The newest checkpoint is that of update {self._saved}; {self._goes_on} from there."

    def _write(self, progress: Progress, reward: dict[str, Any], *, alone: bool = False) -> None:
        """``alone``: another process is gone, and it may be the main one: all hold the same."""
        if alone and not distributed.is_main():
            # `save_pretrained` writes nothing in another process than the first of a group.
            distributed.part()
        if distributed.is_main() or alone or launcher.wanted():
            with self._writes:
                self._put(progress, reward)
        self._saved = progress.update

    def _put(self, progress: Progress, reward: dict[str, Any]) -> None:
        root, identity = self._config.folder / "checkpoints", run_identity(self._config, self._parts)
        save_checkpoint(root, self._parts.updater, progress, identity, reward)
        if distributed.is_main():
            clear_left(root)


def out_of_memory(error: BaseException, progress: Progress, config: Config) -> str | None:
    """A sentence for a failure for want of memory; None for another."""
    full = isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
    if not full:
        return None
    reason = one_line(error, 200)
    return (
        f"memory ran out in update {progress.update + 1} ({reason}): set 'update.max_micro_tokens' (it is "
        f"{config.update.max_micro_tokens}) or 'rollout.max_batch_tokens' (it is {config.rollout.max_batch_tokens}) "
        "lower, which changes no result, and go on."
    )


class Undo:
    """Copies, in memory, of what an update changes.

    The reward's state, which scoring may change, is copied when the update begins; weights and optimizer when
    learning does.
    """

    def __init__(self, update: int, assessor: Assessor) -> None:
        """``update`` is how many updates are finished."""
        self.update = update
        self.reward: dict[str, Any] = copied(assessor.state_dict())
        self.learning = False
        self._kept: tuple[list[torch.Tensor], dict[str, Any]] | None = None

    def keep(self, updater: Updater | None) -> None:
        """Learning begins: copy what it is about to change; None where the copy would crowd the memory, and
        there is no way back."""
        if updater is not None:
            self._kept = copied(updater.moved), copied(updater.optimizer.state_dict())
        self.learning = True

    @property
    def possible(self) -> bool:
        """Whether weights and optimizer are those of the last finished update, or can be again."""
        return self._kept is not None or not self.learning

    def put_back(self, updater: Updater, assessor: Assessor) -> None:
        if self._kept is not None:
            updater.put_back(*self._kept)
        assessor.load_state_dict(copied(self.reward))


def fits(updater: Updater) -> bool:
    """Whether copies of weights and optimizer, in all processes of the machine, take at most a quarter of its free memory.

    Of weights that processes share none are kept: to go back would take all processes, also the one that failed.
    """
    if any(sharding.is_sharded(parameter) for parameter in updater.trained):
        return False
    weights = sum(p.numel() * p.element_size() for p in updater.trained)
    # And two moments of each.
    return leaves_room(3 * weights)
