"""The most memory that an update takes, and whether a long run keeps to it.

python benchmarks/memory.py vocabulary    # GRPO, 64 responses of 512 tokens, SmolLM2's 49,152 tokens
python benchmarks/memory.py updates       # 1,000 updates of a trivial task
python benchmarks/memory.py pass          # one pass and its gradient of SmolLM2-135M over 1,024 tokens
python benchmarks/memory.py checkpointed  # the same where layers are computed a second time
"""

from __future__ import annotations

import copy
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback

from common import reviews
from rlgf import Trainer
from rlgf.algorithms.catalog import GRPO
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.checkpointing import enable
from rlgf.models.forward import Tokens
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model, load_tokenizer
from rlgf.models.response_scores import response_scores
from rlgf.models.sampling import Sampling
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig

VOCABULARY, EPISODES, PROMPT, RESPONSE = 49_152, 64, 64, 512


def length_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [float(len(text) % 7) for text in completions]


def gibibytes() -> float:
    """The most that this process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def vocabulary() -> None:
    """One update, phase by phase."""
    torch.set_num_threads(2)
    samples, _ = reviews(EPISODES // GRPO.group_size)
    tokenizer = load_tokenizer(ModelConfig(model="smollm2-135m"))
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_layer=8, n_embd=256, n_head=4, n_positions=PROMPT + RESPONSE)
    ).eval()
    policy = LanguageModel(model, tokenizer)
    config = RolloutConfig(
        episodes=EPISODES,
        max_prompt_tokens=PROMPT,
        min_response_tokens=RESPONSE,
        max_response_tokens=RESPONSE,
    )
    reference = LanguageModel(copy.deepcopy(model), tokenizer)
    collector = Collector(policy, None, config, seed=0)
    assessor = Assessor(policy, reference, {}, length_reward, config.sampling, config.max_batch_tokens)
    learning = UpdateConfig(epochs=1, minibatch=EPISODES, max_micro_tokens=4096)
    updater = Updater(policy, {}, config.sampling, learning, seed=0)
    print(f"loaded {gibibytes():.2f} GiB", flush=True)
    rollout = collector.collect(samples, GRPO)
    print(f"collected {gibibytes():.2f} GiB", flush=True)
    experience = assessor.assess(rollout, GRPO, 0.001)
    print(f"assessed {gibibytes():.2f} GiB", flush=True)
    updater.update(experience, GRPO)
    print(f"learned {gibibytes():.2f} GiB", flush=True)


class Watch(TrainerCallback):
    """The memory after some updates."""

    def __init__(self) -> None:
        self.megabytes: dict[int, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if state.global_step % 100 == 0:
            self.megabytes[state.global_step] = psutil.Process().memory_info().rss / 2**20
            print(
                f"after {state.global_step} updates {self.megabytes[state.global_step]:.0f} MiB", flush=True
            )


def updates() -> None:
    """A long run."""
    torch.set_num_threads(1)
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(__file__).parents[1] / "examples" / "letters.yaml"
        changes = {"output": folder, "training": {"updates": 1000}, "evaluation": {"every": 1000}}
        trainer = Trainer([recipe, changes], callbacks=[watch])
        trainer.train()
    print(f"memory at 1,000 to that at 100: {watch.megabytes[1000] / watch.megabytes[100]:.3f}")


def one_pass(*, checkpointed: bool) -> None:
    """The memory of a pass with its gradient, beside what there was before."""
    torch.set_num_threads(1)
    policy = load_language_model(ModelConfig(model="smollm2-135m"))
    if checkpointed:
        enable(policy.model)
    before = gibibytes()
    ids = torch.randint(1000, (4, 128), generator=torch.Generator().manual_seed(0))
    tokens = Tokens(ids, ids >= 0, ids.flip(0), ids >= 0)
    scores = response_scores(policy.model, tokens, Sampling(), policy.end_ids)
    scores.logprobs.sum().backward()
    print(f"{before:.2f} GiB before, {gibibytes():.2f} GiB at most")


if __name__ == "__main__":
    {
        "vocabulary": vocabulary,
        "updates": updates,
        "pass": lambda: one_pass(checkpointed=False),
        "checkpointed": lambda: one_pass(checkpointed=True),
    }[sys.argv[1]]()
