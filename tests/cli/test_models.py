"""The commands that make models."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlgf.cli.models import merge
from rlgf.errors import UserError
from rlgf.run.checkpoint import save_policy
from toys import letter_gpt


def test_a_model_that_is_no_adapter_is_not_merged(tmp_path: Path) -> None:
    save_policy(letter_gpt(), tmp_path / "base")
    with pytest.raises(UserError, match="holds no adapter"):
        merge(str(tmp_path / "base"), tmp_path / "whole")
