"""Models for the tests of this folder."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel


@pytest.fixture(params=["tiny_gpt2", "tiny_llama", "tiny_mistral"])
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    model: PreTrainedModel = request.getfixturevalue(request.param)
    return model
