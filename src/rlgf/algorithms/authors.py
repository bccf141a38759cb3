"""Authors by name, as recipes have them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from rlgf.types import Author


def _author(value: Any) -> Any:
    return Author[value.upper()] if isinstance(value, str) and value.upper() in Author.__members__ else value


AuthorName = Annotated[
    Author, BeforeValidator(_author), PlainSerializer(lambda a: Author(a).name.lower(), return_type=str)
]
