"""What decoding costs beyond the model's own passes, and what a guide's kept texts save.

    python benchmarks/decoding.py

112 prompts of 64 tokens, responses of exactly 48, a GPT-2 of 4.2 million parameters in float32, two CPU
threads. The guide has the policy's tokenizer and its texts at hand, as a cache has; each text is begun by it
up to a place that is drawn evenly, so about half of the tokens are its.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from common import reviews, small_gpt
from rlgf import seeding
from rlgf.algorithms.catalog import PPO, PPO_PLUS_PLUS
from rlgf.guides import Request
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.schedules import constant
from rlgf.types import Author, Completion

PROMPTS, PROMPT, RESPONSE, ROUNDS = 112, 64, 48, 7


class KeptTexts:
    """Any tokens, at once."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion("", finished=False, token_ids=self._ids(request)) for request in requests]

    def _ids(self, request: Request) -> tuple[int, ...]:
        random = seeding.generator(request.seed, "kept")
        return tuple(torch.randint(1, self.vocabulary, (request.max_new_tokens,), generator=random).tolist())


class InModel:
    """Seconds within a model's forward passes."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.seconds = 0.0
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, *unused: object) -> None:
        self.started = time.perf_counter()

    def _end(self, *unused: object) -> None:
        self.seconds += time.perf_counter() - self.started


def main() -> None:
    torch.set_num_threads(2)
    samples, texts = reviews(PROMPTS)
    policy = small_gpt(texts)
    config = RolloutConfig(episodes=PROMPTS, max_prompt_tokens=PROMPT, min_response_tokens=RESPONSE)
    guided = PPO_PLUS_PLUS.but(help=PPO_PLUS_PLUS.help.model_copy(update={"probability": constant(1.0)}))
    guide = KeptTexts(len(policy.tokenizer))
    alone, begun = Collector(policy, None, config, seed=0), Collector(policy, guide, config, seed=0)
    works: dict[str, Callable[[], object]] = {
        "PPO": lambda: alone.collect(samples, PPO),
        "PPO++": lambda: begun.collect(samples, guided),
    }
    rollout = begun.collect(samples, guided)
    share = float(rollout.written_by(Author.GUIDE).sum() / rollout.lengths.sum())
    clock = InModel(policy.model)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    outside = []
    for _ in range(ROUNDS):
        for name, work in works.items():
            clock.seconds, started = 0.0, time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
            if name == "PPO":
                outside.append(1 - clock.seconds / seconds[name][-1])
    ratios = sorted(b / a for a, b in zip(seconds["PPO"], seconds["PPO++"], strict=True))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    print(f"medians of {ROUNDS}, seconds to collect: PPO {medians['PPO']:.2f}, PPO++ {medians['PPO++']:.2f}")
    print(
        f"PPO++ with {share:.0%} of its tokens from kept texts, to PPO: ratio of medians "
        f"{medians['PPO++'] / medians['PPO']:.2f} (of the rounds {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    print(
        f"outside the model's passes: {statistics.median(outside):.1%} of the time to collect "
        f"({min(outside):.1%} to {max(outside):.1%})"
    )


if __name__ == "__main__":
    main()
