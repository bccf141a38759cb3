"""One GRPO update here and in TRL's trainer, on the same work, taking turns.

    pip install trl
    python benchmarks/against_trl.py
    python benchmarks/against_trl.py --group 8 --prompt 512 --completions 56
    python benchmarks/against_trl.py --alone rlgf

112 completions, 4 a group, prompts of 64 tokens, responses of exactly 48, one epoch in minibatches
of 28, a KL penalty to a frozen reference, a GPT-2 of 4.2 million parameters in float32, two CPU
threads, unless the command says otherwise. TRL runs without gradient checkpointing, logging or saving, so that both do just the update.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, fields
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from common import reviews, small_gpt
from rlgf.algorithms.catalog import GRPO
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Sample


@dataclass(frozen=True)
class Work:
    """What both do in an update."""

    completions: int = 112
    group: int = 4
    prompt: int = 64
    response: int = 48
    minibatch: int = 28
    rounds: int = 7

    @property
    def prompts(self) -> int:
        return self.completions // self.group

    @property
    def steps(self) -> int:
        return self.completions // self.minibatch


def length_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """No cost, so that the time is the trainers' own."""
    return [float(len(text) % 7) for text in completions]


class Ours:
    """One update: collect, assess, learn."""

    def __init__(self, work: Work, policy: LanguageModel, samples: list[Sample]) -> None:
        self.work, self.samples = work, samples
        self.row = GRPO.but(group_size=work.group)
        config = RolloutConfig(
            episodes=work.completions,
            max_prompt_tokens=work.prompt,
            min_response_tokens=work.response,
            max_response_tokens=work.response,
        )
        reference = LanguageModel(copy.deepcopy(policy.model), policy.tokenizer)
        self.collector = Collector(policy, None, config, seed=0)
        self.assessor = Assessor(
            policy, reference, {}, length_reward, config.sampling, config.max_batch_tokens
        )
        learning = UpdateConfig(epochs=1, minibatch=work.minibatch)
        self.updater = Updater(policy, {}, config.sampling, learning, seed=0)

    def update(self, number: int) -> None:
        rollout = self.collector.collect(self.samples, self.row, update=number)
        assert rollout.lengths.eq(self.work.response).all()
        self.updater.update(self.assessor.assess(rollout, self.row, 0.001), self.row, update=number)


class TakeTurns(TrainerCallback):
    """Times each whole update of TRL's trainer, and after it one of ours where there is one."""

    def __init__(self, work: Work, ours: Ours | None) -> None:
        self.work, self.ours = work, ours
        self.seconds: list[tuple[float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step % self.work.steps == 0:
            self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step % self.work.steps == 0 and self.ours is not None:
            middle = time.perf_counter()
            self.ours.update(len(self.seconds))
            self.seconds.append((middle - self.started, time.perf_counter() - middle))
            print(f"TRL {self.seconds[-1][0]:6.2f} s   rlgf {self.seconds[-1][1]:6.2f} s", flush=True)


def policy_and_prompts(work: Work) -> tuple[LanguageModel, list[str]]:
    """A policy, and prompts of exactly as many tokens."""
    _, texts = reviews(2000)
    policy = small_gpt(texts, context=work.prompt + work.response + 16)
    ids = policy.encode(" ".join(texts[: max(200, 4 * work.prompts)]))
    return policy, [policy.decode(ids[i * work.prompt : (i + 1) * work.prompt]) for i in range(work.prompts)]


def run_trl(work: Work, policy: LanguageModel, prompts: list[str], turns: TakeTurns) -> None:
    """Train with TRL, its updates timed by ``turns``."""
    with tempfile.TemporaryDirectory() as folder:
        policy.model.save_pretrained(f"{folder}/model")
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=work.minibatch,
            steps_per_generation=work.steps,
            gradient_accumulation_steps=1,
            num_generations=work.group,
            max_completion_length=work.response,
            generation_kwargs={"min_new_tokens": work.response},
            beta=0.001,
            max_steps=work.steps * (work.rounds + 1),
            learning_rate=1e-4,
            model_init_kwargs={"dtype": "float32"},
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=f"{folder}/model",
            reward_funcs=length_reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts * 20}),
            processing_class=policy.tokenizer,
            callbacks=[turns],
        )
        trainer.train()


def main(work: Work, alone: str | None) -> None:
    torch.set_num_threads(2)
    policy, prompts = policy_and_prompts(work)
    if alone == "rlgf":
        ours = Ours(work, policy, [Sample(prompt) for prompt in prompts])
        for number in range(work.rounds):
            ours.update(number)
    elif alone == "trl":
        run_trl(work, policy, prompts, TakeTurns(work, None))
    if alone is not None:
        print(f"{alone}: peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        return
    turns = TakeTurns(work, Ours(work, policy, [Sample(prompt) for prompt in prompts]))
    run_trl(work, policy, prompts, turns)
    theirs, ours_seconds = zip(*turns.seconds[1:], strict=True)
    ratios = sorted(our / their for their, our in turns.seconds[1:])
    print(
        f"medians of {work.rounds}: TRL {statistics.median(theirs):.2f} s, "
        f"rlgf {statistics.median(ours_seconds):.2f} s; ratio of medians "
        f"{statistics.median(ours_seconds) / statistics.median(theirs):.2f} "
        f"(of the rounds {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for field in fields(Work):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--alone", choices=["rlgf", "trl"], help="run one, and print its peak memory")
    given = vars(parser.parse_args())
    only = given.pop("alone")
    main(Work(**given), only)
