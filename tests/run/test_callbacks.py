"""Callbacks of transformers find what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import EarlyStoppingCallback, TrainerCallback

from rlgf.config import load_config
from rlgf.run.callbacks import Arguments
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import LetterTask, letter_gpt


class Reads(TrainerCallback):
    """Keeps what the last event showed."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
        self.logged.append(logs)

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.read = args.output_dir, args.max_steps, args.eval_steps, args.training.updates, state.max_steps

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.history, self.best = list(state.log_history), state.best_metric


def trainer(folder: Path, paid: list[float], updates: int, callbacks: list[Any]) -> Trainer:
    """A run whose validations are paid so."""
    left = iter(paid)

    class Planned(Trainer):
        def evaluate(self, *given: Any, **named: Any) -> Any:
            found = super().evaluate(*given, **named)
            found.totals["reward"] = next(left, 0.0)
            return found

    return Planned(
        {
            "algorithm": "rloo",
            "output": str(folder),
            "rollout": {"episodes": 4, "max_prompt_tokens": 4, "max_response_tokens": 2},
            "update": {"minibatch": 4, "epochs": 1},
            "training": {"updates": updates, "trackers": [], "checkpoint_every": 1},
            "evaluation": {"every": 1, "samples": 2, "test_samples": 2},
        },
        display=Display(Console(quiet=True)),
        policy=letter_gpt(),
        task=LetterTask(),
        reward=lambda completions, **columns: [0.0] * len(completions),
        callbacks=callbacks,
    )


def test_early_stopping_ends_a_run_whose_validation_reward_no_longer_rises(tmp_path: Path) -> None:
    reads = Reads()
    run = trainer(tmp_path, [0.1, 0.3, 0.2, 0.3, 0.9], 8, [EarlyStoppingCallback(2), reads])
    run.train()
    assert run.progress.update == 3, "two validations after the best one"
    assert reads.read == (str(tmp_path), 8, 1, 8, 8)
    assert reads.best == 0.3
    evaluated = [line["eval_reward"] for line in reads.history if "eval_reward" in line]
    assert evaluated == [0.1, 0.3, 0.2, 0.3]
    assert [logs["eval_reward"] for logs in reads.logged if "eval_reward" in logs] == evaluated
    assert [line["step"] for line in reads.history if "reward" in line] == [1, 2, 3]


def test_a_resumed_run_knows_its_log_and_its_best(tmp_path: Path) -> None:
    trainer(tmp_path, [0.1, 0.3], 1, []).train()
    reads = Reads()
    trainer(tmp_path, [0.2], 2, [reads]).train(resume=True)
    assert reads.best == 0.3
    assert [line["step"] for line in reads.history] == [0, 1, 1, 2, 2]


def test_a_field_that_a_run_does_not_have_is_named() -> None:
    args = Arguments(load_config("imdb"))
    assert args.seed == 0
    assert args.to_dict()["max_steps"] == args.training.updates
    assert not hasattr(args, "deepspeed")
    with pytest.raises(
        AttributeError, match=r"a callback reads args\.deepspeed, which a run does not have: it has"
    ):
        _ = args.deepspeed
