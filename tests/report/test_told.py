"""Algorithms in words and drawings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlgf.algorithms import ALGORITHMS
from rlgf.report.told import drawing, told_algorithm


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_told_and_drawn(name: str) -> None:
    config: dict[str, Any] = {"algorithm": ALGORITHMS[name].model_dump(mode="json"), "rollout": {}}
    told = told_algorithm(config)
    assert told is not None
    assert len(told["rows"]) == len(ALGORITHMS[name].rows)
    for row, drawn in zip(ALGORITHMS[name].rows, told["rows"], strict=True):
        authors = {part["author"] for line in drawn["drawing"]["lines"] for part in line["segments"]}
        writers = {row.script.rollin, row.script.rollout} - {None}
        assert authors == {author.name.lower() for author in writers}
        hints = [line["label"] for line in drawn["drawing"]["lines"] if "hint" in line["label"]]
        assert len(hints) == row.script.hinted
        assert len(drawn["drawing"]["reads"]) == len(row.terms)


@pytest.mark.parametrize(
    "algorithm",
    [
        {"base": "bc", "terms": {"policy": {"loss": "CODE"}}},
        {"base": "bc", "terms": ["CODE"]},
        {"base": "bc", "terms": [{"loss": "nll", "select": "CODE"}]},
        {"base": "grpo", "advantage": "CODE"},
        {"base": "guided-grpo", "help": {"length": {"by": "CODE"}}},
        {"base": "lols", "explore": {"help": {"length": {"by": "CODE"}}}},
    ],
)
def test_code_that_a_folder_names_is_not_executed(algorithm: dict[str, Any], tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    told = json.loads(json.dumps(algorithm).replace("CODE", f"{trap}:anything"))
    assert told_algorithm({"algorithm": told}) is None
    assert not (tmp_path / "executed").exists()


def test_what_may_have_no_help_is_drawn_without_it_too() -> None:
    lines = {name: len(drawing(row.rows[0])["lines"]) for name, row in ALGORITHMS.items()}
    assert {name for name, count in lines.items() if count == 1 and ALGORITHMS[name].rows[0].help.ever} == {
        "dr-po",
        "reverse-curriculum",
        "questa",
        "uft",
        "opsd",
        "sdft",
        "sdpo",
    }


def test_ppo_plus_plus_learns_from_the_rollout_and_aggrevated_from_the_rollin() -> None:
    spans = {
        name: drawing(ALGORITHMS[name].rows[0])["reads"][0]["span"] for name in ("ppo++", "aggrevated", "ppo")
    }
    assert spans == {"ppo++": "rollout", "aggrevated": "rollin", "ppo": "whole"}
