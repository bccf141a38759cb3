"""Answers that a verifier would work at for ever are not right, and do not stop a run."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from rlgf.tasks import verifying
from rlgf.tasks.reasoning import ReasoningTask
from rlgf.tasks.verifying import verified


def score(answer: str, dataset: str = "countdown", **options: Any) -> float:
    sample = ReasoningTask(dataset, 2, 2, 2, **options).load("train")[0]
    entry = {name: sample.columns[name] for name in ("question", "answer", "metadata")}
    return verified(
        answer.format(**entry["metadata"], answer=entry["answer"]),
        dataset,
        sample.columns["dataset_options"],
        entry,
    )


@pytest.mark.long
def test_what_does_not_end_is_not_right_and_what_comes_after_it_is_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = time.monotonic()
    assert score("9**9**9") == 0
    assert 4 < time.monotonic() - begun < 40
    assert score("{expression}") > 0.9
    monkeypatch.setattr(verifying, "_ENDLESS", re.compile(""))
    assert score("{expression}") > 0.9


@pytest.mark.parametrize("answer", ["{expression}", "({expression})**1", "", "1/0", "print(1)"])
def test_a_process_of_its_own_says_the_same(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = score(answer)
    monkeypatch.setattr(verifying, "_ENDLESS", re.compile("" if found else "."))
    assert score(answer) == found


def test_where_the_process_cannot_start_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "__name__", "rlgf.tasks.missing")
    monkeypatch.setattr(verifying, "_ASIDE", verifying._Aside())
    with pytest.raises(verifying.UserError, match="the process that asks the verifier does not start"):
        verified("2**2", "countdown", {}, {})
