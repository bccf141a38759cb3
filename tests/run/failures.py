"""Runs in which something fails in the third update, and how they must end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from resuming import equal, metrics, state

from resume_script import toy_trainer
from rlgf.run.trainer import Trainer
from toys import share_of_a

SELDOM = {"training": {"checkpoint_every": 4}, "evaluation": {"every": 2}}
"""So that only a failure saves anything before the end."""


def goes_on(folder: Path, straight: Trainer) -> None:
    """Make sure that a run that failed ends as one that did not."""
    resumed = toy_trainer(folder, **SELDOM)
    resumed.train(resume=True)
    assert equal(state(resumed), state(straight))
    assert metrics(folder) == metrics(straight.config.folder)


def in_third(what: Callable[[], None]) -> Callable[[int], None]:
    """Something that happens while the third update's texts are rewarded."""
    seen = []

    def during(update: int) -> None:
        # The evaluation after the second update asks the reward too.
        seen.append(update)
        if seen.count(3) == 2:
            what()

    return during


def raising(error: BaseException) -> Callable[[], None]:
    def what() -> None:
        raise error

    return what


class Remembering:
    """A reward with a state that changes with every call."""

    def __init__(self, kept: Any = 0) -> None:
        self.calls, self.kept, self.fails = 0, kept, False

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        self.calls += 1
        if self.fails and self.calls == 5:
            raise ValueError("after it has counted")
        return [share + self.calls / 100 for share in share_of_a(prompts, completions)]

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.kept = state["calls"], state["kept"]


def with_reward(folder: Path, reward: Any) -> Trainer:
    from rlgf.run.build import build_parts
    from toys import FavouringGuide, LetterTask, letter_gpt

    config = toy_trainer(folder, **SELDOM).config
    parts = build_parts(
        config, task=LetterTask(), reward=reward, guide=FavouringGuide("a", 0.6), policy=letter_gpt()
    )
    return Trainer(config, parts)
