"""Lemmas and scene graphs from parses."""

from __future__ import annotations

import pytest
from outputs import metric


@pytest.mark.parametrize(
    ("text", "propositions"),
    [
        (
            "A young girl standing on a tennis court.",
            "girl|court|girl young|court tennis|girl stand|girl on court",
        ),
        ("The ball was thrown by a man and his son.", "ball|man|son|man throw ball|son throw ball"),
        ("Two men who are happy eat red apples.", "man|apple|man two|man happy|apple red|man eat apple"),
        ("A dog leaps to catch a thrown frisbee.", "dog|frisbee|dog leap|frisbee throw|dog catch frisbee"),
    ],
)
def test_propositions_are_objects_attributes_and_relations(text: str, propositions: str) -> None:
    metric("spice_stand_in")
    from rlgf.metrics.meaning import parse

    assert parse([text])[0].propositions == {tuple(p.split()) for p in propositions.split("|")}
