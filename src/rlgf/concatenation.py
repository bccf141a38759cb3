"""Records of several batches become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from rlgf.types import Record, Rollout, pad


def concatenate(records: Sequence[Record]) -> Record:
    """Records one after another, each padded to the longest: prompts on the left, the rest on the right.

    What one of them has, all have, but for the entries of mappings.
    """
    if len(records) == 1:
        return records[0]

    def join(name: str, values: list[Any]) -> Any:
        first = values[0]
        if first is None:
            return None
        if isinstance(first, Rollout):
            return concatenate(values)
        if isinstance(first, Mapping):
            keys = dict.fromkeys(key for value in values for key in value)
            missing = [torch.full((len(record),), torch.nan) for record in records]
            return {
                key: torch.cat([value.get(key, gap) for value, gap in zip(values, missing, strict=True)])
                for key in keys
            }
        if not isinstance(first, Tensor):
            return tuple(entry for value in values for entry in value)
        if first.dim() == 1:
            return torch.cat(values)
        rows = [row for value in values for row in value]
        return pad(rows, 0, left=name.startswith(("prompt", "bare", "guide_ids", "guide_mask")))

    joined = {f.name: join(f.name, [getattr(r, f.name) for r in records]) for f in fields(records[0])}
    return replace(records[0], **joined)
