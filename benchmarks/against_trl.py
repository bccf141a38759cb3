"""One GRPO update here and in TRL's trainer, on the same work, taking turns.

    pip install trl
    python benchmarks/against_trl.py

112 completions, 4 a group, prompts of 64 tokens, responses of exactly 48, one epoch in minibatches
of 28, a KL penalty to a frozen reference, a GPT-2 of 4.2 million parameters in float32, two CPU
threads. TRL runs without gradient checkpointing, logging or saving, so that both do just the update.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from common import reviews, small_gpt
from rlgf.algorithms.catalog import GRPO
from rlgf.learning.assessor import Assessor
from rlgf.learning.config import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Sample

PROMPTS, PROMPT, RESPONSE, MINIBATCH, ROUNDS = 28, 64, 48, 28, 7
GROUP = GRPO.group_size
STEPS = PROMPTS * GROUP // MINIBATCH


def length_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """No cost, so that the time is the trainers' own."""
    return [float(len(text) % 7) for text in completions]


class Ours:
    """One update: collect, assess, learn."""

    def __init__(self, policy: LanguageModel, samples: list[Sample]) -> None:
        self.samples = samples
        config = RolloutConfig(
            episodes=PROMPTS * GROUP,
            max_prompt_tokens=PROMPT,
            min_response_tokens=RESPONSE,
            max_response_tokens=RESPONSE,
        )
        reference = LanguageModel(copy.deepcopy(policy.model), policy.tokenizer)
        self.collector = Collector(policy, None, config, seed=0)
        self.assessor = Assessor(
            policy, reference, {}, length_reward, config.sampling, config.max_batch_tokens
        )
        self.updater = Updater(
            policy, {}, config.sampling, UpdateConfig(epochs=1, minibatch=MINIBATCH), seed=0
        )

    def update(self, number: int) -> None:
        rollout = self.collector.collect(self.samples, GRPO, update=number)
        assert rollout.lengths.eq(RESPONSE).all()
        self.updater.update(self.assessor.assess(rollout, GRPO, 0.001), GRPO, update=number)


class TakeTurns(TrainerCallback):
    """Times each whole update of TRL's trainer, and after it one of ours."""

    def __init__(self, ours: Ours) -> None:
        self.ours = ours
        self.seconds: list[tuple[float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step % STEPS == 0:
            self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step % STEPS == 0:
            middle = time.perf_counter()
            self.ours.update(len(self.seconds))
            self.seconds.append((middle - self.started, time.perf_counter() - middle))
            print(f"TRL {self.seconds[-1][0]:6.2f} s   rlgf {self.seconds[-1][1]:6.2f} s", flush=True)


def main() -> None:
    torch.set_num_threads(2)
    samples, texts = reviews(PROMPTS)
    policy = small_gpt(texts)
    # Both see the same prompts, of exactly 64 tokens.
    prompts = [policy.decode(policy.encode(s.prompt + s.references[0])[:PROMPT]) for s in samples]
    turns = TakeTurns(Ours(policy, [Sample(prompt) for prompt in prompts]))
    with tempfile.TemporaryDirectory() as folder:
        policy.model.save_pretrained(f"{folder}/model")
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=MINIBATCH,
            steps_per_generation=STEPS,
            gradient_accumulation_steps=1,
            num_generations=GROUP,
            max_completion_length=RESPONSE,
            generation_kwargs={"min_new_tokens": RESPONSE},
            beta=0.001,
            max_steps=STEPS * (ROUNDS + 1),
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
    theirs, ours = zip(*turns.seconds[1:], strict=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"medians of {ROUNDS}: TRL {statistics.median(theirs):.2f} s, rlgf {statistics.median(ours):.2f} s")
    print(f"ratio of medians {ratio:.2f}")


if __name__ == "__main__":
    main()
