"""What a recipe says of where tokens come from: the policy's under `sampler`, a local guide's under its own."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlgf.identity import FREE


class EngineConfig(BaseModel):
    """The engine that a model writes with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["builtin", "vllm"] = "builtin"
    """``builtin``: the model's own passes; ``vllm``: vLLM in the same process, which holds a copy of the weights."""
    cache_gib: Annotated[float, FREE] = Field(default=2.0, gt=0)
    """Memory for vLLM's cache of keys and values, in GiB; texts that find no room in it wait."""

    @property
    def installed(self) -> bool:
        return self.engine == "builtin" or importlib.util.find_spec("vllm") is not None


class SamplerConfig(EngineConfig):
    """The policy's engine, and how far its probabilities may be from those of the model that is trained."""

    importance_bound: float | None = Field(default=2.0, ge=1)
    """Advantages of tokens that vLLM or, with `training.async_steps`, earlier weights drew are weighted by
    min(the policy's probability / that which they were drawn with, this); null: they are not."""
    largest_gap: Annotated[float, FREE] = Field(default=0.2, gt=0)
    """Mean difference between vLLM's log-probabilities of an update's tokens and the policy's, in nats, above which the
    run ends."""
