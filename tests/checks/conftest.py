"""Nothing that a rule refuses loads a model first."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("rlgf.run.models.load_language_model", "rlgf.guides.local.load_language_model"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("a model was loaded"))
