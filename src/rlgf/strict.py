"""What recipes, and processes of ours, say to each other in fields: none unknown, none changed later."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Fields that nobody changes; one that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
