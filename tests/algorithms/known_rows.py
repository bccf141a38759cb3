"""Rows and mixtures of the catalog, by name."""

from __future__ import annotations

from rlgf.algorithms import ALGORITHMS, Algorithm, Mixture


def row(name: str) -> Algorithm:
    found = ALGORITHMS[name]
    assert isinstance(found, Algorithm)
    return found


def mixture(name: str) -> Mixture:
    found = ALGORITHMS[name]
    assert isinstance(found, Mixture)
    return found
