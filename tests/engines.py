"""The mark of tests that run vLLM, and a sampler behind a real server."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import torch

from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import Beginning, EngineConfig, SamplerConfig, ServedSampler, build_sampler
from rlgf.models.samplers.desk import Desk
from rlgf.models.samplers.server import SamplerServer
from rlgf.models.samplers.wire import described

NEEDS_VLLM = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: run 'make test-vllm'"
    ),
]


def desk_of(
    policy: LanguageModel, engine: Literal["builtin", "vllm"] = "builtin", max_tokens: int = 64
) -> Desk:
    """What works behind a server."""
    settings = EngineConfig(engine=engine, cache_gib=0.05)
    sampler = build_sampler(settings, policy, "policy", 4096, max_tokens)
    return Desk(policy, sampler, described(policy, engine, torch.float32, max_tokens))


@contextmanager
def serving(desk: Desk, token: str | None = None) -> Iterator[str]:
    """Its address, while it answers."""
    server = SamplerServer(desk, token=token)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.url
    finally:
        server.close()
        thread.join()


ASKED = [Beginning([i % 4, 1], [], 6, seed=i) for i in range(8)]


def client(
    url: str, policy: LanguageModel, max_tokens: int = 32, seconds: float = 30.0, **changes: Any
) -> ServedSampler:
    config = SamplerConfig.model_validate({"server": url, **changes})
    return ServedSampler(policy, config, max_tokens, seconds)


def ids(texts: Sequence[Continuation]) -> list[list[int]]:
    return [text.token_ids.tolist() for text in texts]
