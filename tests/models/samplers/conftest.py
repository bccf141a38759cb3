"""A sampler behind a server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines import desk_of, serving
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.desk import Desk
from toys import letter_gpt


@pytest.fixture
def own() -> LanguageModel:
    """The server's model."""
    return letter_gpt(seed=1)


@pytest.fixture
def desk(own: LanguageModel) -> Desk:
    return desk_of(own)


@pytest.fixture
def url(desk: Desk) -> Iterator[str]:
    with serving(desk) as url:
        yield url
