"""What it takes to bring a sampler in another process the weights, and to have texts written there.

    .venv-vllm/bin/python benchmarks/sampler_server.py           # or, in any environment, with `builtin`

SmolLM2-135M in float32, whole or an adapter of rank 8; 32 prompts of 32 tokens, responses of exactly 48. The server has
one thread of the CPU, and this process another. One process asks.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from common import reviews
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.models.samplers import Beginning, SamplerConfig, ServedSampler
from rlgf.models.sampling import Sampling

TEXTS, PROMPT, RESPONSE, ROUNDS = 32, 32, 48, 5
RECIPE = (
    "imdb",
    "algorithm=grpo",
    "policy={model: smollm2-135m}",
    f"rollout={{max_prompt_tokens: {PROMPT}, max_response_tokens: {RESPONSE}}}",
)


def main() -> None:
    engine = sys.argv[1] if len(sys.argv) > 1 else "vllm"
    torch.set_num_threads(1)
    whole = load_language_model(ModelConfig(model="smollm2-135m", dtype="float32"))
    samples, _ = reviews(TEXTS)
    prompts = [whole.encode_prompt(sample.prompt * 4, PROMPT) for sample in samples]
    asked = [Beginning(prompt, [], RESPONSE, seed=i) for i, prompt in enumerate(prompts)]
    measure("whole", whole, engine, asked)
    adapted = replace(whole, adapters=Adapters(whole.model, LoRAConfig()))
    measure("adapter", adapted, engine, asked, "policy.lora={}")


def measure(name: str, policy: LanguageModel, engine: str, asked: list[Beginning], *overrides: str) -> None:
    with serving(f"sampler.engine={engine}", *overrides) as url:
        config = SamplerConfig.model_validate({"engine": engine, "server": url})
        served = ServedSampler(policy, config, PROMPT + RESPONSE)
        brought, written = [], []
        for number in range(ROUNDS + 1):  # the first warms up, and brings the base too
            start = time.perf_counter()
            served.follow()
            between = time.perf_counter()
            served.write(asked, Sampling(min_tokens=RESPONSE))
            if number:
                brought.append(between - start)
                written.append(time.perf_counter() - between)
    size = sum(parameter.nbytes for parameter in policy.trained) / 1e6
    one, other = statistics.median(brought), statistics.median(written)
    print(
        f"{engine}, {name}: {size:.1f} MB brought in {one:.2f} s ({min(brought):.2f} to {max(brought):.2f}), "
        f"{TEXTS * RESPONSE / other:.0f} tokens a second; bringing is {one / other:.3f} of writing",
        flush=True,
    )


@contextmanager
def serving(*overrides: str) -> Iterator[str]:
    """The address of a sampler in a process of its own."""
    command = [sys.executable, "-m", "rlgf", "serve-sampler", *RECIPE, *overrides, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    try:
        said = next(line for line in server.stdout if "sampler.server=" in line)
        yield said.split("sampler.server=")[1].strip()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
