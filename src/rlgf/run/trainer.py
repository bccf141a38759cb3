"""`Trainer`: a run from what Python or a recipe gives, trained from its first update to its last."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from accelerate.tracking import GeneralTracker
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from rlgf import checks, distributed
from rlgf.config import Config
from rlgf.environments import Environment
from rlgf.errors import UserError
from rlgf.guides import Guide
from rlgf.learning.rates import SchedulerFactory
from rlgf.learning.updater import OptimizerFactory
from rlgf.models import launcher
from rlgf.models.language_model import LanguageModel
from rlgf.recipe import Source
from rlgf.renamed import refuse_others
from rlgf.rewards import Reward
from rlgf.run.alive import FolderLock
from rlgf.run.build import Parts, build_parts
from rlgf.run.display import Display
from rlgf.run.given import Given, configured, fitted, gathered, listeners
from rlgf.run.loop import TrainingLoop
from rlgf.run.steps import Steps
from rlgf.tasks import Task


class Trainer(Steps):
    """Trains a policy as a configuration says.

    `train` does all of it. An update is three steps, which a loop of your own can call::

        trainer = Trainer(config)
        for _ in range(config.training.updates):
            experience = trainer.assess(trainer.collect())
            print(trainer.learn(experience)["reward"])
        trainer.save_model("policy")

    `learn` finishes an update: schedules, samples, seeds and the account of tokens go on from there, as in `train`.
    """

    def __init__(
        self,
        config: Config | Source | Sequence[Source] | None = None,
        parts: Parts | None = None,
        display: Display | None = None,
        *,
        policy: PreTrainedModel | LanguageModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        peft_config: Any = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        task: Task | None = None,
        guide: Guide | None = None,
        reward: Reward | Sequence[Reward] | None = None,
        environment: Environment | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
        trackers: Sequence[GeneralTracker] | None = None,
        evaluates: bool = False,
        **others: Any,
    ) -> None:
        """Load what the configuration names; an object given here takes the place of a section, which may be missing.

        Args:
            config: a configuration, or what `load_config` takes: a recipe, a mapping, or several of them.
            parts: what `build_parts` made.
            policy: the model to train.
            tokenizer: the policy's; default: the one of its name.
            peft_config: a `peft.LoraConfig`, of an adapter to train instead of the policy's own weights.
            train: samples to train on: a `datasets.Dataset`, or a list of dictionaries or of `Sample`. The options of the
                recipe's task 'data', such as ``prompt_field``, say how its rows are read.
            validation: likewise, to measure on during the run; default: ``train``.
            test: likewise, at its end; default: ``validation``.
            task: all three.
            reward: a function as TRL has it, or several, which are added up, with the weights of the recipe's
                ``reward.terms`` of the same names.
            environment: answers the turns of dialogues.
            optimizer: makes the optimizer from groups of parameters, the policy's first, as ``functools.partial`` does of
                ``torch.optim.SGD``. A learning rate that it sets takes the place of the recipe's default.
            scheduler: makes a scheduler of the optimizer's learning rates, as ``functools.partial`` does of
                ``transformers.get_linear_schedule_with_warmup``; it is stepped once after each update.
            callbacks: told of the events of `train`, as by the trainer of `transformers`; their ``args`` have the
                usual fields of `TrainingArguments` and the sections of the configuration. `should_training_stop`,
                `should_save` and `should_evaluate` are honoured.
            trackers: further ones than the recipe names.
            evaluates: for `evaluate` alone; a policy that a run saved is then compared with that run's start.
            others: there are none; what TRL calls otherwise is told.

        Raises:
            TypeError: there is no such argument.
            UserError: something that the configuration names cannot be had or does not fit.
        """
        refuse_others(others)
        told = listeners(callbacks, trackers)
        given = gathered(
            policy=policy,
            tokenizer=tokenizer,
            data={"train": train, "validation": validation, "test": test},
            task=task,
            guide=guide,
            reward=reward,
            environment=environment,
            optimizer=optimizer,
            scheduler=scheduler,
        )
        if parts is not None and (given != Given() or peft_config is not None):
            raise UserError("'parts' are already built: give objects to 'build_parts', or leave 'parts' out.")
        config = configured(config, given, peft_config)
        given = fitted(given, config)
        distributed.join(config.training.process_timeout)
        if launcher.wanted():
            checks.require(checks.broken_by_shards(config))
        display = display or Display(Console(quiet=not distributed.is_main()))
        with distributed.one_fate():
            parts = parts or build_parts(config, **vars(given), evaluates=evaluates)
        super().__init__(config, parts, display, *told)

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
            SystemExit: after SIGTERM or SIGHUP, likewise, but for an update that still needs a remote guide.
            Exception: whatever a reward, a metric or a guide of your own raises. Whatever ends the run, the
                last finished update is saved first, and a note on the exception says so.
        """
        with ExitStack() as ended:
            with distributed.one_fate():
                # Other processes may be on machines that do not see the folder.
                if distributed.is_main():
                    ended.callback(FolderLock(self.config.folder).release)
            return TrainingLoop(self, resume=resume).run()
