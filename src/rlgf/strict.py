"""What recipes, and processes of ours, say to each other in fields: none unknown, none changed later."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Fields that nobody changes; one that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class NamedConfig(Strict):
    """Something found by name: one of ours, or your own as `module:attribute` or `file.py:attribute`.

    In a recipe the bare name is short for one without options.
    """

    name: str
    options: dict[str, Any] = {}
