"""The samples of runs as the page reads them: compressed lines, of which a browser parses a few at a time."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlgf.report.groups import Group

_BLOCK = 2**14
"""Characters of a block: a browser unpacks one in a few milliseconds."""
_HEAD = ("update", "split", "algorithm", "episode", "group", "finished", "left_out", "reward")
_APART = ("prompt", "tokens", "authors", *_HEAD)


def sample_lines(groups: Sequence[Group], most: int) -> tuple[list[str], list[str], int]:
    """Lines of prompts, lines of samples that say which prompt they answer by its number, and how many there were.

    The line of a sample is two JSON texts with a tab between them: what a list of samples needs, and what the page
    needs once the sample is opened. Where there are more than ``most``, updates are left out evenly, each whole; the first
    and the last one stay.
    """
    runs = [run for group in groups for run in group.runs]
    share = most // max(1, len(runs))
    prompts: dict[str, int] = {}
    samples = []
    for number, run in enumerate(runs):
        for sample in thinned(run.samples, share):
            prompt = prompts.setdefault(str(sample.get("prompt", "")), len(prompts))
            samples.append(_line(number, prompt, sample))
    total = sum(len(run.samples) for run in runs)
    return [json.dumps(prompt) for prompt in prompts], samples, total


def fitting(groups: Sequence[Group], most: int, room: int) -> tuple[list[str], list[str], int]:
    """What `sample_lines` gives, of as many samples as take no more than so many bytes of the page."""
    while True:
        prompts, samples, total = sample_lines(groups, most)
        # An element around each block takes 60 bytes.
        size = sum(len(block) + 60 for block in (*packed(prompts), *packed(samples)))
        if size <= room or not samples:
            return prompts, samples, total
        most = min(len(samples) - 1, int(0.95 * len(samples) * room / size))


def thinned(samples: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most so many samples: those of all updates, or of every second, third, ... and the last; where two are too
    many, the first ones of each split of each."""
    updates = sorted({sample["update"] for sample in samples})
    for step in itertools.count(1):
        kept = {*updates[::step], *updates[-1:]}
        found = [sample for sample in samples if sample["update"] in kept]
        if len(found) <= most:
            return found
        if len(kept) <= 2:
            return _first(found, most)
    raise AssertionError("the steps never end")


def _first(samples: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """So many samples, in their order: by turns the next one of each split of each update."""
    place: dict[tuple[Any, Any], int] = {}
    turns = []
    for number, sample in enumerate(samples):
        of = (sample["update"], sample.get("split"))
        place[of] = place.get(of, -1) + 1
        turns.append((place[of], number))
    return [samples[number] for number in sorted(number for _, number in sorted(turns)[:most])]


def packed(lines: Sequence[str]) -> list[str]:
    """Lines as blocks of base64 that are one gzip stream: a fifth of their size, and letters and digits alone."""
    zipped = base64.b64encode(gzip.compress("\n".join(lines).encode(), mtime=0)).decode()
    return [zipped[start : start + _BLOCK] for start in range(0, len(zipped), _BLOCK)] if lines else []


def _line(run: int, prompt: int, sample: Mapping[str, Any]) -> str:
    tokens = sample["tokens"]
    head = {"run": run, "p": prompt, **{k: sample[k] for k in _HEAD if sample.get(k) is not None}}
    ends = list(itertools.accumulate(count for _, count in sample["authors"]))
    starts = [0, *ends]
    head["parts"] = [
        [author, count, "".join(tokens[start:end])]
        for (author, count), start, end in zip(sample["authors"], starts, ends, strict=False)
    ]
    rest = {k: v for k, v in sample.items() if k not in _APART and v}
    rest["cuts"] = [_units(token) for token in tokens]
    return "\t".join(json.dumps(part, separators=(",", ":")) for part in (head, rest))


def _units(text: str) -> int:
    """The length of a text as JavaScript counts it."""
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2
