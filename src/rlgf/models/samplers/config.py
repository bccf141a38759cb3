"""What a recipe says of where tokens come from."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rlgf.identity import FREE
from rlgf.strict import Strict


class EngineConfig(Strict):
    """The engine that a model writes with."""

    engine: Literal["builtin", "vllm"] = "builtin"
    """``builtin``: the model's own passes; ``vllm``: vLLM in the same process, which holds a copy of the weights."""
    cache_gib: Annotated[float, FREE] = Field(default=2.0, gt=0)
    """Memory for vLLM's cache of keys and values, in GiB; texts that find no room in it wait."""

    @property
    def here(self) -> bool:
        """Whether vLLM runs in this process."""
        return self.engine == "vllm"

    @property
    def apart(self) -> bool:
        """Whether other passes write than those of the model itself."""
        return self.here

    @property
    def installed(self) -> bool:
        return not self.here or importlib.util.find_spec("vllm") is not None


class SamplerConfig(EngineConfig):
    """The policy's engine, and how far its probabilities may be from those of the model that is trained."""

    server: Annotated[str | None, FREE] = None
    """The address of a process that writes for all those of the run, as ``rlgf serve-sampler`` prints it; the
    engine runs there. Default: none, it runs in the run's own process."""
    importance_bound: float | None = Field(default=2.0, ge=1)
    """Advantages of tokens that vLLM, a server, passes in half precision or earlier weights drew are weighted by
    min(the policy's probability / that which they were drawn with, this); null: they are not."""
    largest_gap: Annotated[float, FREE] = Field(default=0.2, gt=0)
    """Mean difference between the engine's log-probabilities of an update's tokens and the policy's, in nats, above which the
    run ends."""

    @field_validator("server")
    @classmethod
    def _is_address(cls, server: str | None) -> str | None:
        if server is None:
            return None
        try:
            place = urlsplit(server)
            named = place.hostname and place.port is not None
        except ValueError:
            named = False
        if not named or place.scheme not in ("http", "https") or place.path.strip("/") or place.username:
            raise ValueError("it must be an address with its port, such as http://127.0.0.1:8300")
        return server.rstrip("/")

    @property
    def here(self) -> bool:
        return self.engine == "vllm" and self.server is None

    @property
    def apart(self) -> bool:
        return self.engine == "vllm" or self.server is not None


NO_ENCODERS = (
    "vLLM runs no encoder-decoder models: set 'engine: builtin' where the recipe says 'engine: vllm'."
)


def no_sets(what: str) -> str:
    return (
        f"'sampler.{what}' does not say which tokens top-k and top-p left to draw from, which training has to know: "
        "leave 'rollout.top_k' and 'rollout.top_p' out, or set 'sampler: {engine: builtin}'."
    )
