"""Which metrics are drawn, and their curves."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_toys import run_folder, write_lines

from rlgf.report.charts import curve, frontiers, sections
from rlgf.report.groups import grouped
from rlgf.report.page import page_model
from rlgf.report.runs import find_runs, read_run


def test_seeds_are_one_curve_with_the_interval_of_their_mean(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        run_folder(tmp_path / "ppo++" / f"seed-{seed}", seed=seed)
    run_folder(tmp_path / "ppo" / "seed-0", algorithm="ppo", finished=False, updates=3)
    groups = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    assert [group.name for group in groups] == ["ppo", "ppo++"]
    assert list(groups[1].labels) == ["ppo++, seed 0", "ppo++, seed 1", "ppo++, seed 2"]
    found = curve(groups[1], "validation/reward")
    assert found is not None
    assert found["x"] == [0, 1, 2, 3, 4]
    assert found["mean"][0] == pytest.approx(0.11)
    # t(0.975, 2) * 0.01 / sqrt(3), of a table
    assert found["high"][0] - found["mean"][0] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3)
    assert "mean" not in (curve(groups[0], "validation/reward") or {})
    assert curve(groups[0], "nothing") is None
    paths = frontiers(groups)[0]["paths"]
    assert [path["label"] for path in paths] == ["ppo", "ppo++, seed 0", "ppo++, seed 1", "ppo++, seed 2"]
    assert paths[1]["x"] == [0.0, 0.1, 0.2, 0.3, 0.4]
    model = page_model(groups, "both")
    assert [run["state"] for run in model["runs"]] == [
        "3 of 3 updates done",
        "finished",
        "finished",
        "finished",
    ]
    assert model["going"].startswith("1 of 4 runs")


def test_two_seeds_have_a_mean_and_no_interval(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_folder(tmp_path / f"seed-{seed}", seed=seed)
    (group,) = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    found = curve(group, "reward")
    assert found is not None
    assert set(found["low"]) == {None}


def test_whatever_was_logged_is_drawn(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    write_lines(
        folder / "metrics.jsonl", [{"update": 1, "own_metric": 3.0, "seconds": 2.0, "algorithm": "ppo"}]
    )
    groups = grouped([read_run(folder)])
    assert [(s["title"], [c["title"] for c in s["charts"]]) for s in sections(groups)] == [
        ("All other metrics", ["own_metric"])
    ]


def test_names_in_charts_steer_nothing(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / f"r\u202eun{number}") for number in (0, 1)]
    write_lines(folders[0] / "metrics.jsonl", [{"update": 1, "own\u3164": 3.0}])
    groups = grouped([read_run(folder) for folder in folders])
    (chart,) = [one for one in sections(groups)[-1]["charts"] if one["title"].startswith("own")]
    assert chart["title"] == r"own\u3164"
    labels = [line["label"] for curves in chart["curves"] for line in curves["lines"]]
    labels += [path["label"] for drawn in frontiers(groups) for path in drawn["paths"]]
    assert r"r\u202eun1" in labels
    assert not any("\u202e" in label for label in labels)


def test_a_thinned_mean_is_over_the_same_seeds_at_each_update(tmp_path: Path) -> None:
    """Of two runs of which one was first logged later, every second point is of other updates."""
    for seed, first in ((0, 1), (1, 2)):
        rows = [{"update": n, "algorithm": "ppo", "reward": seed + 0.1 * n} for n in range(first, 8)]
        write_lines(run_folder(tmp_path / f"seed-{seed}", seed=seed) / "metrics.jsonl", rows)
    (group,) = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    found = curve(group, "reward", step=2)
    assert found is not None
    assert found["x"] == [1, 3, 5, 7]
    assert found["mean"] == pytest.approx([0.1, 0.8, 1.0, 1.2])
