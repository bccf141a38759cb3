"""Which prompts an update gets: all of them in turn, or those more often that teach more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from resuming import equal, metrics, state
from scipy.stats import chisquare

from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.rollout.record import PromptHistory, PromptRecord
from rlgf.run.plan import by_difficulty, shuffled_passes


def test_shuffled_passes_cover_each_epoch_exactly_once() -> None:
    size, count = 7, 5
    drawn = [i for update in range(14) for i in shuffled_passes(update * count, count, size, seed=3)]
    epochs = [drawn[start : start + size] for start in range(0, len(drawn), size)]
    assert len(epochs) == 10
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 8, "another order each time"


@pytest.mark.parametrize(("first", "count"), [(0, 3), (5, 4), (13, 30), (14, 7), (69, 1)])
def test_any_stretch_of_the_shuffled_passes_is_the_same(first: int, count: int) -> None:
    whole = list(shuffled_passes(0, 70, 7, seed=3))
    assert list(shuffled_passes(first, count, 7, seed=3)) == whole[first : first + count]
    assert list(shuffled_passes(0, 70, 7, seed=4)) != whole


RATES = {0: 0.0, 1: 0.5, 2: 1.0, 3: 0.25}
WEIGHTS = [0.05, 0.3, 0.05, 0.05 + 0.25 * 0.75, 0.3]
"""Of the five samples, of which the last one never came."""


def test_a_prompt_is_drawn_in_proportion_to_what_it_teaches() -> None:
    draws = 4000
    first = Counter(by_difficulty(1, 5, 3, update, RATES)[0] for update in range(draws))
    expected = [draws * weight / sum(WEIGHTS) for weight in WEIGHTS]
    assert chisquare([first[i] for i in range(5)], expected).pvalue > 0.01


def test_the_second_draw_is_one_from_what_is_left() -> None:
    draws = 4000
    pairs = Counter(
        tuple(by_difficulty(2, 3, 5, update, {0: 0.0, 1: 0.5, 2: 1.0})) for update in range(draws)
    )
    weights = [0.05, 0.3, 0.05]
    chances = {
        (i, j): weights[i] / 0.4 * weights[j] / (0.4 - weights[i])
        for i in range(3)
        for j in range(3)
        if i != j
    }
    assert set(pairs) <= set(chances)
    assert chisquare([pairs[key] for key in chances], [draws * p for p in chances.values()]).pvalue > 0.01


def test_all_of_the_data_may_be_drawn_and_none_of_it_twice() -> None:
    assert sorted(by_difficulty(5, 5, 0, 1, RATES)) == list(range(5))
    assert by_difficulty(3, 5, 0, 1, RATES) == by_difficulty(3, 5, 0, 1, RATES)
    assert {tuple(by_difficulty(3, 5, 0, update, RATES)) for update in range(20)} != {(0, 1, 2)}


def test_rates_are_those_of_the_last_visit() -> None:
    record = PromptRecord({3: PromptHistory(visits=2, rate=0.5), 4: PromptHistory()})
    assert record.rates == {3: 0.5}


DRAWN: dict[str, Any] = {
    "algorithm": {"base": "grpo", "help": {"success": 0.5}},
    "rollout": {"draw": "difficulty"},
    "training": {"updates": 6, "checkpoint_every": 2},
}


@pytest.mark.long
def test_a_run_draws_by_what_it_has_seen_and_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    straight = toy_trainer(tmp_path / "straight", **DRAWN)
    straight.train()

    def stop(update: int) -> None:
        if update == 5 and trainer.progress.update == 4:
            raise KeyboardInterrupt

    trainer = toy_trainer(tmp_path / "run", stop, **DRAWN)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    resumed = toy_trainer(tmp_path / "run", **DRAWN)
    resumed.train(resume=True)
    assert equal(state(resumed), state(straight))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "straight")
    assert sum(row.visits for row in resumed.progress.prompts.rows.values()) == 6 * 2


def test_the_next_draw_is_not_known_before_this_one_has_earned(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, **DRAWN)
    assert len(trainer.batch()) == 2
    with pytest.raises(
        UserError, match=r"'rollout.draw: difficulty' tells the next samples only after this update"
    ):
        trainer.batch(ahead=True)


def test_it_needs_to_know_what_a_success_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set 'algorithm.help.success' to what a text has to earn"):
        toy_trainer(tmp_path, algorithm="grpo", rollout={"draw": "difficulty"})


def test_it_needs_as_many_prompts_as_an_update_takes(tmp_path: Path) -> None:
    many = {**DRAWN, "rollout": {"draw": "difficulty", "episodes": 4000}, "update": {"minibatch": 4000}}
    with pytest.raises(UserError, match=r"draws 1000 different prompts an update, and 'train' has"):
        toy_trainer(tmp_path, **many)
