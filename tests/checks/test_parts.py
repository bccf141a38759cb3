"""Rules of what a section of a recipe names."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.run.build import build_parts
from toys import LetterTask


def test_a_reward_that_cannot_be_paid_is_refused_before_a_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("rlgf.run.build.load_language_model", load)
    config = Config.model_validate(
        {
            "task": {"name": "toys:LetterTask"},
            "policy": {"scratch": {}},
            "reward": {"name": "metric", "options": {"metric": "distinct"}},
        }
    )
    with pytest.raises(UserError, match="cannot be a reward"):
        build_parts(config, task=LetterTask())
