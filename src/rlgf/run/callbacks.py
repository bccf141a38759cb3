"""Callbacks of `transformers` told of a run, in the words that its own trainer has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerControl
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from rlgf import distributed
from rlgf.config import Config
from rlgf.run.steps import Steps

_BEST = "reward"


class Arguments:
    """What callbacks read as ``args``: the usual fields of `transformers.TrainingArguments`, as the configuration has
    them, and the configuration's own sections by their names."""

    def __init__(self, config: Config) -> None:
        training, update = config.training, config.update
        self._config = config
        self._usual: dict[str, Any] = {
            "output_dir": str(config.folder),
            "run_name": config.name,
            "max_steps": training.updates,
            "learning_rate": update.learning_rate.start,
            "weight_decay": update.weight_decay,
            "max_grad_norm": update.max_gradient_norm,
            "gradient_checkpointing": update.gradient_checkpointing,
            "report_to": list(training.trackers),
            "logging_strategy": IntervalStrategy.STEPS,
            "logging_steps": 1,
            "logging_first_step": True,
            "eval_strategy": IntervalStrategy.STEPS,
            "eval_steps": config.evaluation.every,
            "eval_delay": 0,
            "save_strategy": SaveStrategy.STEPS,
            "save_steps": training.checkpoint_every,
            "metric_for_best_model": _BEST,
            "greater_is_better": True,
            "load_best_model_at_end": False,
            "process_index": distributed.rank(),
            "world_size": distributed.count(),
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of an object that is being copied there is nothing yet
            raise AttributeError(name)
        if name in self._usual:
            return self._usual[name]
        if name in type(self._config).model_fields or name in ("folder", "turns"):
            return getattr(self._config, name)
        raise AttributeError(
            f"a callback reads args.{name}, which a run does not have: it has {', '.join(self._usual)}, and the sections "
            "of its recipe."
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe, and the usual fields beside it."""
        return {**self._config.model_dump(mode="json"), **self._usual}


class Callbacks:
    """The callbacks of a trainer, their state and what they wish for."""

    def __init__(self, trainer: Steps, so_far: Sequence[Mapping[str, Any]]) -> None:
        """``so_far`` holds the lines of the run's log that an earlier part of it wrote."""
        self.trainer, self.control = trainer, TrainerControl()
        self.args = args = Arguments(trainer.config)
        self.state = state = trainer.parts.assessor.trainer_state
        state.is_world_process_zero = state.is_local_process_zero = distributed.is_main()
        state.logging_steps, state.eval_steps, state.save_steps = 1, args.eval_steps, args.save_steps
        state.log_history, state.best_metric = [], None
        for line in so_far:
            metrics = {key: value for key, value in line.items() if key != "update"}
            self._note(line["update"], {key.replace("validation/", "eval_"): v for key, v in metrics.items()})

    def tell(self, event: str, **named: Any) -> None:
        """Tell of an event, as `transformers.TrainerCallback` names it."""
        parts, progress = self.trainer.parts, self.trainer.progress
        parts.tell_rewards(progress.update, progress.samples)
        for callback in self.trainer.callbacks:
            control = getattr(callback, event)(
                self.args,
                self.state,
                self.control,
                model=parts.policy.model,
                processing_class=parts.policy.tokenizer,
                optimizer=parts.updater.optimizer,
                trainer=self.trainer,
                **named,
            )
            self.control = control if isinstance(control, TrainerControl) else self.control

    def tell_log(self, metrics: Mapping[str, Any]) -> None:
        """Tell of an update's metrics."""
        self._note(self.trainer.progress.update, metrics)
        self.tell("on_log", logs=dict(metrics))

    def tell_evaluation(self, totals: Mapping[str, float]) -> None:
        """Tell of measured numbers, by their names and by those that `transformers` gives it."""
        named = {f"eval_{name}": value for name, value in totals.items()}
        self.tell("on_log", logs=named)
        # Callbacks compare with the best before this one.
        self.tell("on_evaluate", metrics={**totals, **named})
        self._note(self.trainer.progress.update, named)

    def _note(self, update: int, metrics: Mapping[str, Any]) -> None:
        self.state.log_history.append({**metrics, "step": update})
        found = metrics.get(f"eval_{_BEST}")
        if found is not None and (self.state.best_metric is None or found > self.state.best_metric):
            self.state.best_metric, self.state.best_global_step = found, update
