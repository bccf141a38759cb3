"""The mark of tests that run vLLM, and a sampler behind a real server."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
import torch

from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import EngineConfig, build_sampler
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
