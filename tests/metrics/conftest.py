"""What takes seconds to start, once for all tests of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rlgf.metrics import Metric


@pytest.fixture(scope="session")
def tokenized() -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and completions as pycocoevalcap's own tokenizer makes them."""
    from outputs import REFERENCES, TEXTS, metric

    metric("bleu")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def tokens(texts: list[list[str]]) -> dict[int, list[str]]:
        return PTBTokenizer().tokenize(
            {i: [{"caption": text} for text in row] for i, row in enumerate(texts)}
        )

    return tokens(REFERENCES), tokens([[text] for text in TEXTS])


@pytest.fixture(scope="session")
def meteor() -> Metric:
    """One process for all tests: it takes seconds to start."""
    from outputs import metric

    return metric("meteor")
