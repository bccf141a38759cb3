"""The page of methods has a section for each row of the catalog, and each section's block is that row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from doc_blocks import ROOT, blocks_of
from rlgf.algorithms import ALGORITHMS, algorithm_from
from rlgf.identity import identity
from rlgf.recipe import read_source

PAGE = ROOT / "docs/methods.md"
MEASURED = {
    name: json.loads((ROOT / f"results/{name}.json").read_text(encoding="utf-8"))
    for name in ("methods", "hints", "warm")
}
"""The tables of a comparison: of methods at equal tokens of the policy, then of the guide."""
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")


class Section(NamedTuple):
    name: str
    kind: str
    """The heading that it stands under."""
    first: int
    """Its first line, counted from 1."""
    lines: list[str]


def _sections() -> Iterator[Section]:
    kind, found = "", None
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith(("## ", "### ")):
            if found is not None:
                yield found
            # A remark may follow, which keeps the anchors of 'ppo' and 'ppo++' apart.
            found = Section(line.split()[1], kind, number, []) if line.startswith("### ") else None
            kind = line[3:] if line.startswith("## ") else kind
        elif found is not None:
            found.lines.append(line)


SECTIONS = list(_sections())


def test_every_row_has_a_section_and_every_section_is_a_row() -> None:
    assert sorted(section.name for section in SECTIONS) == sorted(ALGORITHMS)


def test_the_contents_list_each_row_under_its_kind() -> None:
    text = PAGE.read_text(encoding="utf-8")
    entries = re.findall(r"^- \[([^\]]+)\]\(#[\w-]+\): (.*(?:\n  .*)*)", text, re.MULTILINE)
    listed = {kind: re.findall(r"\[`([^`]+)`\]", rows) for kind, rows in entries}
    there: dict[str, list[str]] = {}
    for section in SECTIONS:
        there.setdefault(section.kind, []).append(section.name)
    assert listed == there, "the contents of docs/methods.md are its sections, in their order"


def test_the_readme_counts_the_rows() -> None:
    counted = f"[{len(ALGORITHMS)}, each on half a page](docs/methods.md)"
    assert counted in (ROOT / "README.md").read_text(), "README.md says how many there are"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_the_block_of_a_section_is_the_row(section: Section, tmp_path: Path) -> None:
    inside = range(section.first, section.first + len(section.lines) + 1)
    (block,) = (block for block in blocks_of(PAGE) if block.line in inside)
    assert block.language == "yaml"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(block.text, encoding="utf-8")
    said = read_source(recipe)["algorithm"]
    assert said.get("base") != section.name, "the row is written out, not named"
    assert identity(algorithm_from(said)) == identity(ALGORITHMS[section.name])


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_section_names_the_papers_and_what_was_measured(section: Section) -> None:
    text = "\n".join(section.lines)
    assert set(_ARXIV.findall(ALGORITHMS[section.name].paper)) == set(_ARXIV.findall(text))
    assert len(re.findall(r"^- (?:Measured: [^(]*\(\[results\]\(|Not measured )", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^- Paper: ", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_figure_is_that_of_the_table(section: Section) -> None:
    said = re.search(
        r"^- Measured: ([^(]*)\(\[results\]\(../results/(\w+).md", "\n".join(section.lines), re.MULTILINE
    )
    for name, rows in MEASURED.items():
        scored = "judge" if "judge" in rows[0] else "reward"
        figures = [
            f"{row[scored]:.3f} ± {row[f'{scored} half-width']:.3f}"
            for row in rows
            if row["who"] == section.name
        ]
        if figures:
            assert said is not None
            assert said[2] != name or said[1].startswith(", ".join(figures))
        else:
            assert said is None or said[2] != name
