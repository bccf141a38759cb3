"""What a metric is given, what it may answer, and what it may ask of the samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from trl_rewards import LENGTHS, TEXTS

from rlgf.errors import UserError
from rlgf.evaluation.files import summarize
from rlgf.metrics import MetricResult, base, build_metrics, check_needs, measure
from rlgf.strict import NamedConfig
from rlgf.types import Sample


@pytest.mark.parametrize("references", [(), ("",), ("a", " ")])
def test_a_sample_without_references_is_named(references: tuple[str, ...]) -> None:
    samples = [Sample("a", ("b",)), Sample("c", references)]
    metrics = build_metrics([NamedConfig(name=name) for name in ("words", "sari")])
    with pytest.raises(UserError, match=r"'sari' needs 'references'.*and row 1 has \(.*\): mend it\."):
        check_needs(metrics, samples, lambda i: f"row {i}", "mend it")
    check_needs(metrics, samples[:1], str, "")


def test_columns_reach_a_metric_and_its_answer_is_checked() -> None:
    def picky(prompts: Any, completions: Any, references: Any, *, level: list[int], **columns: Any) -> Any:
        return {"level": [float(n) for n in level], "total": MetricResult(0.5, [1.0] * len(level))}

    samples = [Sample("a", columns={"level": 3, "references": "kept out"}), Sample("b", columns={"level": 4})]
    found = measure({"picky": picky}, samples, ["x", "y"])
    assert found == {"level": MetricResult(3.5, [3.0, 4.0]), "total": MetricResult(0.5, [1.0, 1.0])}
    with pytest.raises(UserError, match="'picky' takes 'level', which is not given"):
        measure({"picky": picky}, [Sample("a")], ["x"])
    for wrong in (
        {"n": [1.0]},
        {"n": math.nan},
        {"n": [1.0, math.inf]},
        {"n": None},
        {"n": 10**400},
        {3: 1.0},
        {"n": MetricResult(math.nan)},
        {"n": MetricResult(1.0, [1.0])},
    ):
        with pytest.raises(UserError, match=r"one finite number \(or None\) per text"):
            measure({"own": lambda *_, wrong=wrong, **columns: wrong}, samples, ["x", "y"])


def test_a_metric_may_change_what_it_is_given() -> None:
    def changes(completions: list[str], concepts: list[list[str]]) -> list[float]:
        completions[0] = completions[0].lower()
        for wanted in concepts:
            wanted.pop()
        return [0.0] * len(completions)

    def sees(completions: list[str], concepts: list[list[str]]) -> list[float]:
        return [
            float((text, wanted) == ("A", ["a", "b"]))
            for text, wanted in zip(completions, concepts, strict=True)
        ]

    sample = Sample("p", columns={"concepts": ["a", "b"]})
    assert measure({"changes": changes, "sees": sees}, [sample], ["A"])["sees"].total == 1.0
    assert sample.columns == {"concepts": ["a", "b"]}


def test_two_metrics_of_one_name_are_refused_and_named() -> None:
    both = {"words": lambda completions: 1.0, "totals": lambda completions: {"words": 99.0}}
    with pytest.raises(UserError, match="'words' and 'totals' both return 'words'"):
        measure(both, [Sample("a")], ["x"])


def test_metrics_take_what_they_name_and_answer_as_rewards_do() -> None:
    samples = [Sample("p", ("r",), {"n": i, "references": "hidden"}) for i in range(2)]

    def plain(completions):
        return np.array([float(len(text)) for text in completions])

    async def total(n, *, references, **columns):
        assert references == [("r",), ("r",)]
        return {"total": float(sum(n)), "each": tuple(n)}

    def tensors(completions):
        return [torch.tensor(float(len(text))) for text in completions]

    found = measure({"plain": plain, "several": total, "tensors": tensors}, samples, TEXTS)
    assert found == {
        "tensors": MetricResult.mean(LENGTHS),
        "plain": MetricResult.mean(LENGTHS),
        "total": MetricResult(1.0),
        "each": MetricResult(0.5, [0.0, 1.0]),
    }
    with pytest.raises(
        UserError, match=r"the metric 'wrong' takes 'completion', which is not given: did you mean"
    ):
        measure({"wrong": lambda completion: 0.0}, samples, TEXTS)


@pytest.mark.parametrize("answer", [[None, 1.0], MetricResult(None, [None, 1.0])])
def test_a_text_that_a_metric_does_not_apply_to_has_none_and_counts_for_nothing(answer: Any) -> None:
    samples = [Sample("a"), Sample("b")]
    assert measure({"own": lambda completions: answer}, samples, ["x", "y"])["own"] == MetricResult(
        1.0, [None, 1.0]
    )
    found = measure({"own": lambda completions: [None, None]}, samples, ["x", "y"])
    assert found["own"] == MetricResult(None, [None, None])
    assert summarize(samples, ["x", "y"], found).totals == {}


def test_what_is_remembered_of_texts_is_made_once_and_let_go_where_it_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "_REMEMBERED", 3)
    made: list[list[str]] = []

    def lengths(texts: list[str]) -> list[int]:
        made.append(texts)
        return [len(text) for text in texts]

    known: dict[str, int] = {}
    assert base.remembered(known, ["a", "bb", "a"], lengths) == [1, 2, 1]
    assert base.remembered(known, ["bb", "ccc"], lengths) == [2, 3]
    assert base.remembered(known, ["a", "dddd"], lengths) == [1, 4]
    assert made == [["a", "bb"], ["ccc"], ["a", "dddd"]]
    assert known == {"a": 1, "dddd": 4}
