"""What a task is, and how one is made."""

from __future__ import annotations

import pytest

from rlgf.demo.imdb import ImdbTask, labelled_reviews
from rlgf.errors import UserError
from rlgf.tasks import Task, build_task


@pytest.mark.parametrize("task", [ImdbTask(), build_task("data", {"train": "a.jsonl"})])
def test_unknown_splits_are_named(task: Task) -> None:
    with pytest.raises(UserError, match=r"no split 'tests': did you mean 'test'\? Known: test, train, valid"):
        task.load("tests")
    with pytest.raises(UserError, match="no split"):
        labelled_reviews("tests")
