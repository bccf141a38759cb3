"""Critics and optimizer in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from resume_script import toy_trainer


def test_checkpoints_are_read_where_their_device_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `torch.load` is told, since there is no second device here."""
    toy_trainer(tmp_path, training={"updates": 1}).train()
    load, told = torch.load, []

    def noting(*arguments: Any, **options: Any) -> Any:
        told.append((options.get("weights_only"), options.get("map_location")))
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", noting)
    toy_trainer(tmp_path, training={"updates": 1}).train(resume=True)
    assert told
    assert set(told) == {(True, "cpu")}
