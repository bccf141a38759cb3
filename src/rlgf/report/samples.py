"""The samples of runs as the page reads them: lines of JSON in blocks, parsed a few at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlgf.jsontext import to_json
from rlgf.report.groups import Group

_BLOCK = 2**17
"""Characters of a block: a browser hands one out in a few milliseconds."""


def sample_lines(groups: Sequence[Group], most: int) -> tuple[list[str], list[str], int]:
    """Lines of prompts, lines of samples that say which prompt they answer by its number, and how many there were.

    Where there are more than ``most``, updates are left out evenly, each whole; the first and last ones stay.
    """
    labels = [label for group in groups for label in group.labels]
    runs = [run for group in groups for run in group.runs]
    share = most // max(1, len(runs))
    prompts: dict[str, int] = {}
    samples = []
    for number, run in enumerate(runs):
        for sample in thinned(run.samples, share):
            prompt = prompts.setdefault(str(sample.get("prompt", "")), len(prompts))
            rest = {k: v for k, v in sample.items() if k not in ("prompt", "reference") and v is not None}
            references = {"reference": sample["reference"]} if sample.get("reference") else {}
            samples.append(to_json({"run": number, "p": prompt, **rest, **references}, separators=(",", ":")))
    assert len(labels) == len(runs), "a label for each run"
    total = sum(len(run.samples) for run in runs)
    return [to_json(prompt) for prompt in prompts], samples, total


def thinned(samples: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most so many samples: those of all updates, or of every second, third, ... and the last."""
    updates = sorted({sample["update"] for sample in samples})
    for step in itertools.count(1):
        kept = {*updates[::step], *updates[-1:]}
        found = [sample for sample in samples if sample["update"] in kept]
        if len(found) <= most or len(kept) <= 2:
            return found[:most]
    raise AssertionError("the steps never end")


def blocks(lines: Sequence[str]) -> Iterator[str]:
    """Lines joined to blocks of about equal size."""
    block, size = list[str](), 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield "\n".join(block)
            block, size = [], 0
    if block:
        yield "\n".join(block)
