"""The guide `oracle`: a program that begins and finishes solutions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oracle_toys import KINDS, finished, oracle, samples, solved

from resume_script import toy_trainer
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.guides.oracle import OracleGuide
from rlgf.types import Author, Sample


@pytest.mark.parametrize("dataset", KINDS)
def test_without_mistakes_it_finishes_every_beginning_of_the_reference(dataset: str) -> None:
    for row in samples(dataset, 3):
        reference = row.references[0]
        begun = [reference[:length] for length in range(len(reference) + 1)]
        assert finished(oracle(), [row] * len(begun), begun) == [reference] * len(begun)


@pytest.mark.parametrize("dataset", KINDS)
def test_where_every_step_is_wrong_nothing_is_solved(dataset: str) -> None:
    rows = samples(dataset)
    assert solved(rows, finished(oracle(1.0), rows, [""] * len(rows))) == 0.0


def test_mistakes_repeat_and_depend_on_the_request_alone() -> None:
    rows = samples("spell_backward")
    once = finished(oracle(0.3), rows, [""] * len(rows))
    assert finished(oracle(0.3), rows, [""] * len(rows)) == once
    assert finished(oracle(0.3), rows[:1], [""]) == once[:1]
    assert finished(oracle(0.3, seed=1), rows, [""] * len(rows)) != once


def test_it_serves_any_task_with_references_and_refuses_one_without() -> None:
    assert finished(oracle(), [Sample("a", ("the film", "the cat"))], ["the c"]) == ["the cat"]
    with pytest.raises(UserError, match="'oracle' has no solution of 'a'"):
        finished(oracle(), [Sample("a")], [""])


def test_a_recipe_names_it_in_one_word() -> None:
    recipe = {"task": "t", "policy": {"model": "m"}, "reward": "verifier"}
    config = load_config({**recipe, "guide": "oracle"})
    assert isinstance(config.guide.build(None), OracleGuide)
    assert (
        load_config({**recipe, "guide": {"oracle": True, "errors": 0.1}}).guide.label == "oracle, errors 0.1"
    )
    with pytest.raises(UserError, match="errors"):
        load_config({**recipe, "guide": {"oracle": True, "errors": 2}})


def test_a_run_rolls_in_with_it(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, guide=oracle(), algorithm={"base": "ppo++", "help": {"probability": 1.0}})
    rollout = trainer.collect(trainer.parts.train[:4], trainer.row())
    begun = rollout.written_by(Author.GUIDE)
    assert begun.any(dim=1).all()
    for row, text, length in zip(rollout.samples, rollout.texts, begun.sum(dim=1).tolist(), strict=True):
        assert text[:length] == row.references[0][:length]
    assert torch.equal(begun, begun.cummin(dim=1).values), "a roll-in comes first"
