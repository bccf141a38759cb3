"""The table of algorithms in the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from rlgf.algorithms import ALGORITHMS
from rlgf.algorithms.show import algorithm_table


def test_every_row_is_shown_with_who_writes_what_is_learned_and_its_paper() -> None:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(algorithm_table())
    lines = console.export_text().splitlines()
    for name, row in ALGORITHMS.items():
        assert any(name in line and row.paper in line for line in lines), name
    (shown,) = (line for line in lines if "│ ppo++ " in line and "guide, p = " in line)
    assert "clipped_surrogate on rollout" in shown
    assert "V of the policy" in shown
    assert any("│ bread " in line and "guide, p = 1 where the gate opens" in line for line in lines)
    assert "where the gate opens" not in shown
    assert any("aggrevated" in line and " or " in line for line in lines), "a mixture names its rows"
