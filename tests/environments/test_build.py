"""Environments by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlgf.environments import ENVIRONMENTS, EnvironmentConfig, build_environment
from rlgf.errors import UserError
from rlgf.registry import resolve


def test_each_name_is_that_of_a_class() -> None:
    for name in ENVIRONMENTS:
        assert isinstance(resolve(name, ENVIRONMENTS, "environment"), type)
        assert callable(EnvironmentConfig(name=name).build())


def test_ones_own_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def plain(turns):\n    return None\n"
        "class Told:\n"
        "    def __init__(self, word):\n        self.word = word\n"
        "    def __call__(self, turns):\n        return self.word\n"
    )
    assert build_environment(f"{tmp_path}/mine.py:plain", {})(["x"]) is None
    assert build_environment(f"{tmp_path}/mine.py:Told", {"word": "hm"})(["x"]) == "hm"
    with pytest.raises(UserError, match="needs the option 'word'"):
        build_environment(f"{tmp_path}/mine.py:Told", {})
    with pytest.raises(UserError, match="is a function, so it takes no options"):
        build_environment(f"{tmp_path}/mine.py:plain", {"word": "hm"})
