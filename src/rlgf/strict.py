"""What recipes, and processes of ours, say to each other in fields: none unknown, none changed later."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """Fields that nobody changes; one that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class NamedConfig(Strict):
    """Something found by name: one of ours, or your own as `module:attribute` or `file.py:attribute`.

    In a recipe the bare name is short for one without options.
    """

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data
