"""A comparison's numbers as tables, by hand."""

from __future__ import annotations

import csv
import json

import pytest

from rlgf.compare.comparison import Comparison
from rlgf.compare.finished import Finished
from rlgf.compare.tables import write_tables


def finished(reward: float, curve: list[tuple[float, float]], policy: float = 100.0) -> Finished:
    totals = {"reward": reward, "kl": 0.1, "output_perplexity": 12345.678}
    return Finished(totals, 120.0, curve, [], {"policy": policy, "guide": 7.0})


def judged(frontier: list[tuple[float, float]], **totals: float) -> Finished:
    return Finished(totals, 60.0, [(0.0, 0.0), (9.0, 1.0)], frontier, {"policy": 9.0, "guide": 0.0})


RUNS = {
    ("plain", "ppo", 0): finished(0.4, [(0.0, 0.1), (50.0, 0.4)]),
    ("plain", "ppo", 1): finished(0.6, [(0.0, 0.1), (50.0, 0.6)]),
    ("plain", "ppo++", 0): finished(0.7, [(0.0, 0.1), (20.0, 0.3), (40.0, 0.8)]),
    ("plain", "ppo++", 1): finished(0.9, [(0.0, 0.1), (30.0, 0.9)], policy=300.0),
}
AUTHORS = {"plain": {"start": {"reward": 0.1, "kl": 0.0}}}


@pytest.fixture
def rows(comparison: Comparison) -> dict[str, dict[str, str]]:
    _, table, _ = write_tables(comparison, RUNS, AUTHORS)
    with table.open() as file:
        return {row["who"]: row for row in csv.DictReader(file)}


def test_means_and_differences_are_over_seeds(rows: dict[str, dict[str, str]]) -> None:
    assert list(rows) == ["start", "ppo", "ppo++"]
    assert float(rows["ppo"]["reward"]) == pytest.approx(0.5)
    assert float(rows["ppo++"]["reward minus ppo"]) == pytest.approx(0.3)
    assert float(rows["ppo++"]["reward minus ppo half-width"]) == pytest.approx(0.0, abs=1e-9)
    assert rows["ppo"]["reward minus ppo"] == ""
    assert float(rows["ppo++"]["policy tokens"]) == 200
    assert float(rows["ppo"]["minutes a run"]) == 2


def test_the_level_is_where_the_baseline_ends(rows: dict[str, dict[str, str]]) -> None:
    assert rows["ppo"]["reached level"] == "1 of 2"
    assert rows["ppo++"]["reached level"] == "2 of 2"
    assert float(rows["ppo++"]["tokens to level"]) == pytest.approx((28 + 15) / 2)


def test_the_page_rounds_each_number_as_it_is_read(comparison: Comparison) -> None:
    page, _, table = write_tables(comparison, RUNS, AUTHORS)
    text = page.read_text()
    assert "| start | 1 | 0.100 | 0.000 | - |" in text
    assert "| ppo++ | 2 | 0.800 ± " in text
    assert "12,345.7" in text
    assert "'Output perplexity': of the texts under the start" in text
    assert "Reference perplexity" not in text, "which these runs lack"
    assert json.loads(table.read_text())[0] == {
        "setting": "plain",
        "who": "start",
        "seeds": 1,
        **AUTHORS["plain"]["start"],
    }


def test_algorithms_are_compared_by_the_judge_and_at_equal_kl(comparison: Comparison) -> None:
    """By hand: last KLs 0.1, 0.4, 0.2, 0.6 have the median 0.3; up to there are 0.5 and 0.75, 0.8 and 0.55."""
    comparison = comparison.model_copy(update={"metrics": ("reward", "judge", "kl")})
    runs = {
        ("plain", "ppo", 0): judged([(0.0, 0.2), (0.1, 0.5)], reward=0.5, judge=0.6, kl=0.1),
        ("plain", "ppo", 1): judged([(0.0, 0.3), (0.4, 0.9)], reward=0.9, judge=0.5, kl=0.4),
        ("plain", "ppo++", 0): judged([(0.0, 0.2), (0.2, 0.8)], reward=0.7, judge=0.9, kl=0.2),
        ("plain", "ppo++", 1): judged([(0.0, 0.2), (0.6, 0.9)], reward=0.9, judge=0.7, kl=0.6),
    }
    write_tables(comparison, runs, {"plain": {}})
    ppo, guided = json.loads((comparison.results / "toy.json").read_text())
    assert guided["judge minus ppo"] == pytest.approx(0.25)
    assert "judge minus ppo" not in ppo
    assert ppo["equal KL"] == guided["equal KL"] == pytest.approx(0.3)
    assert ppo["reward at equal KL"] == pytest.approx(0.625)
    assert guided["reward at equal KL"] == pytest.approx(0.675)
    assert "Equal KL is 0.30 nats per token" in (comparison.results / "toy.md").read_text()


def test_a_comparison_without_a_reward_is_a_table_without_one(comparison: Comparison) -> None:
    tokens = {"policy": 9.0, "guide": 7.0}
    runs = {
        ("plain", name, 0): Finished({"kl": 0.1, "judge": 0.5}, 60.0, [], [], tokens)
        for name in ("ppo", "ppo++")
    }
    page, _, table = write_tables(comparison, runs, {"plain": {}})
    assert [row["who"] for row in json.loads(table.read_text())] == ["ppo", "ppo++"]
    assert "| | seeds | kl | policy tokens |" in page.read_text()
    assert ".png" not in page.read_text()


def test_an_algorithm_without_a_reward_stands_beside_others(comparison: Comparison) -> None:
    comparison = comparison.model_copy(update={"metrics": ("reward", "judge")})
    runs = {
        ("plain", "ppo", 0): judged([(0.0, 0.2), (0.1, 0.5)], reward=0.5, judge=0.6),
        ("plain", "ppo++", 0): Finished({"judge": 0.4}, 60.0, [], [], {"policy": 9.0, "guide": 0.0}),
    }
    _, _, table = write_tables(comparison, runs, {"plain": {}})
    paid, unpaid = json.loads(table.read_text())
    assert paid["reward at equal KL"] == 0.5
    assert unpaid["reached level"] == "0 of 1"
    assert "reward at equal KL" not in unpaid


def test_the_reward_at_equal_kl_is_that_of_the_last_visit(comparison: Comparison) -> None:
    """By hand: the median of the last KLs 0.4, 0.2 and 0.3 is 0.3; the highest reward within it would be 0.8."""
    comparison = comparison.model_copy(update={"metrics": ("reward", "judge"), "seeds": 3})
    frontier = [(0.0, 0.2), (0.1, 0.8), (0.4, 0.2)]
    runs = {
        ("plain", "ppo", 0): judged(frontier, reward=0.2, judge=0.6),
        ("plain", "ppo", 1): judged([(0.5, 0.9), (0.2, 0.5)], reward=0.5, judge=0.6),
        ("plain", "ppo++", 0): judged([(0.9, 0.1), (0.3, 0.6)], reward=0.6, judge=0.6),
    }
    write_tables(comparison, runs, {"plain": {}})
    ppo, guided = json.loads((comparison.results / "toy.json").read_text())
    assert ppo["reward at equal KL"] == pytest.approx((0.4 + 0.5) / 2)
    assert guided["reward at equal KL"] == pytest.approx(0.6)


def test_a_run_that_was_never_near_has_no_reward_at_equal_kl(comparison: Comparison) -> None:
    comparison = comparison.model_copy(update={"metrics": ("reward", "judge")})
    runs = {
        ("plain", "ppo", 0): judged([(0.0, 0.2), (0.1, 0.8)], reward=0.8, judge=0.6),
        ("plain", "ppo", 1): judged([(0.0, 0.2), (0.1, 0.8)], reward=0.8, judge=0.6),
        ("plain", "ppo++", 0): judged([(0.9, 0.1), (1.0, 0.6)], reward=0.6, judge=0.6),
    }
    page, *_ = write_tables(comparison, runs, {"plain": {}})
    line = next(line for line in page.read_text().splitlines() if line.startswith("| ppo++"))
    assert line.split("|")[7].strip() == "-"


def test_rewards_of_another_kind_are_not_compared(comparison: Comparison) -> None:
    """A row that is paid by another reward has its own numbers and no difference, level or equal KL."""
    other = (*comparison.algorithms["ppo++"], "reward=toys:turns_of_a")
    algorithms = {**comparison.algorithms, "ppo++": other}
    comparison = comparison.model_copy(
        update={"metrics": ("reward", "judge", "kl"), "algorithms": algorithms}
    )
    runs = {
        ("plain", "ppo", 0): judged([(0.0, 0.2), (0.1, 0.5)], reward=0.5, judge=0.6, kl=0.1),
        ("plain", "ppo++", 0): judged([(0.0, -9.0), (4.0, 30.0)], reward=30.0, judge=0.9, kl=4.0),
    }
    write_tables(comparison, runs, {"plain": {}})
    paid, otherwise = json.loads((comparison.results / "toy.json").read_text())
    assert paid["equal KL"] == pytest.approx(0.1)
    assert otherwise["reward"] == 30
    assert otherwise["judge minus ppo"] == pytest.approx(0.3)
    for name in ("reward minus ppo", "reward at equal KL", "tokens to level", "reached level"):
        assert name not in otherwise


def test_nothing_is_less_than_nothing(comparison: Comparison) -> None:
    runs = {("plain", "ppo", 0): finished(-0.0001, [(0.0, 0.1), (50.0, 0.4)])}
    page, *_ = write_tables(comparison, runs, {"plain": {}})
    assert "| ppo | 1 | 0.000 |" in page.read_text()
