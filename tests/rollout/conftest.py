"""A policy of letters for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rlgf.models.language_model import LanguageModel


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    from toys import letter_gpt

    return letter_gpt()
