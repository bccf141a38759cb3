"""Rows and mixtures of the catalog, by name, and what a recipe says of one of its own."""

from __future__ import annotations

from typing import Any

from rlgf.algorithms import ALGORITHMS, Algorithm, Mixture

ROW: dict[str, Any] = {
    "name": "mine",
    "advantage": "gae",
    "terms": {"policy": {"loss": "clipped_surrogate"}, "value": {}},
}


def row(name: str) -> Algorithm:
    found = ALGORITHMS[name]
    assert isinstance(found, Algorithm)
    return found


def mixture(name: str) -> Mixture:
    found = ALGORITHMS[name]
    assert isinstance(found, Mixture)
    return found
