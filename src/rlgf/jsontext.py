"""JSON as every reader takes it, and texts as every file takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, **options: Any) -> str:
    """JSON text of nested mappings and lists.

    JSON has no word for infinity and "not a number", and what Python writes for them no other reader takes: they
    become null. What a data set's columns hold beside plain values, such as dates, becomes a text.

    Args:
        options: of `json.dumps`, such as ``indent``.
    """
    return json.dumps(_plain(value), allow_nan=False, default=str, **options)


def is_unicode(text: str) -> bool:
    """Whether a text is all characters: half of a surrogate pair is none, and cannot be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_characters(text: str) -> str:
    """The text with halves of surrogate pairs joined, or replaced where the other half is missing."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # tensors and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int | bool | None) else str(key)
