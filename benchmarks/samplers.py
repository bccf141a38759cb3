"""How fast vLLM writes beside the built-in sampler, and what handing over the weights takes.

    make test-vllm    # once: it makes the environment
    .venv-vllm/bin/python benchmarks/samplers.py

SmolLM2-135M in float32, 32 prompts of 32 tokens, responses of exactly 48, two CPU threads; rounds in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from common import reviews
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.samplers import Beginning, BuiltinSampler, VLLMSampler
from rlgf.models.samplers.engine import hand_over
from rlgf.models.sampling import Sampling

TEXTS, PROMPT, RESPONSE, ROUNDS = 32, 32, 48, 5


def main() -> None:
    torch.set_num_threads(2)
    model = load_language_model(ModelConfig(model="smollm2-135m", dtype="float32"))
    samples, _ = reviews(TEXTS)
    prompts = [model.encode_prompt(sample.prompt * 4, PROMPT) for sample in samples]
    asked = [Beginning(prompt, [], RESPONSE, seed=i) for i, prompt in enumerate(prompts)]
    sampling = Sampling(min_tokens=RESPONSE)
    samplers = {
        "builtin": BuiltinSampler(model, "policy"),
        "vllm": VLLMSampler(model, "policy", trained=True, max_tokens=PROMPT + RESPONSE),
    }
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    for number in range(ROUNDS + 1):  # the first warms up
        for name, sampler in samplers.items():
            taken = _seconds(lambda sampler=sampler: sampler.write(asked, sampling))
            if number:
                seconds[name].append(taken)
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(
            f"{name}: {TEXTS * RESPONSE / middle:.0f} tokens a second ({min(taken):.1f} to {max(taken):.1f} s)"
        )
    ratios = [own / other for own, other in zip(seconds["builtin"], seconds["vllm"], strict=True)]
    own, other = (statistics.median(seconds[name]) for name in ("builtin", "vllm"))
    print(f"vllm / builtin: {own / other:.2f} (of the rounds: {min(ratios):.2f} to {max(ratios):.2f})")
    engine = samplers["vllm"]._engine
    handed = statistics.median(_seconds(lambda: hand_over(model.model, engine)) for _ in range(ROUNDS))
    print(f"handing over the weights: {handed:.2f} s, {handed / other:.3f} of writing with vllm")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
