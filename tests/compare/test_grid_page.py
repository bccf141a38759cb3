"""The runs of a comparison as one page."""

from __future__ import annotations

import json

import yaml
from report_toys import run_folder, sample

from rlgf.compare.comparison import Comparison
from rlgf.compare.grid import MOST_BYTES, write_page


def test_a_grid_has_a_page_whose_groups_are_its_algorithms(comparison: Comparison) -> None:
    """Also where runs were made by versions whose configurations have other fields."""
    for setting, algorithm, seed in comparison.grid():
        samples = [sample(1, i, [f"{algorithm} {seed} "] * 400) for i in range(16)]
        folder = run_folder(
            comparison.folder(setting, algorithm, seed), samples, seed=seed, algorithm=algorithm
        )
        config = yaml.safe_load((folder / "config.yaml").read_text()) | {f"new in {seed}": 1}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = write_page(comparison, reversed(list(comparison.grid())))
    page = path.read_text()
    names = json.loads(page.split('id="names">')[1].split("</script>")[0])
    assert names["groups"] == ["ppo", "ppo++"]
    assert names["runs"] == ["ppo, seed 0", "ppo, seed 1", "ppo++, seed 0", "ppo++, seed 1"]
    assert path == comparison.results / "toy.html"
    assert path.stat().st_size < MOST_BYTES < 1_000_000
