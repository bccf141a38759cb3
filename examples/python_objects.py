"""Everything from Python, no recipe: a model, its tokenizer, data, a reward and a callback that are at hand.

python examples/python_objects.py
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, set_seed

from rlgf import Trainer
from rlgf.models.scratch import ScratchConfig, build_scratch


def share_of_e(completions: list[str], **columns: object) -> list[float]:
    return [text.count("e") / max(len(text), 1) for text in completions]


class StopWhenGood(TrainerCallback):
    """As with the trainer of transformers."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        control.should_training_stop = logs.get("reward", 0) > 0.9


def main(output: str = "runs/python-objects") -> Trainer:
    _, tokenizer = build_scratch(ScratchConfig(vocabulary=258, layers=1, width=32, context=32), ["abcd"])
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 32}
    set_seed(0)  # the weights of the start are drawn here
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends))
    trainer = Trainer(
        {
            "algorithm": "rloo",
            "output": output,
            "rollout": {"episodes": 64, "max_prompt_tokens": 8, "max_response_tokens": 8},
            "update": {"minibatch": 32, "learning_rate": 1e-2},
            "training": {"updates": 40, "trackers": []},
            "evaluation": {"every": 40, "samples": 16, "test_samples": 16, "metrics": ["words"]},
        },
        policy=model,
        tokenizer=tokenizer,
        train=Dataset.from_list([{"prompt": a + b} for a in "abcd" for b in "wxyz"]),
        reward=share_of_e,
        callbacks=[StopWhenGood()],
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
