"""What a run is made of, from its configuration, and what is refused before a model loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.run.build import build_parts


def test_offline_dpo_without_pairs_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "references": "b"}\n')
    config = {
        "task": {"name": "data", "options": {"train": str(path)}},
        "policy": {"scratch": {}},
        "algorithm": "offline-dpo",
    }
    with pytest.raises(UserError, match=r"learns from pairs, .* 'rejected_field: rejected'"):
        build_parts(Config.model_validate(config))
