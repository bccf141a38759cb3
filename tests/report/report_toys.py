"""Run folders as a run writes them, made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

HOSTILE = (
    "</script><script>window.ran = 1</script><!--<script>",
    "<img src=x onerror='window.ran = 1'> & 'quotes' \"more\"",
    "\x1b[31mred\x07 \x00 \u202eright to left\u202c \u2066isolated\u2069 \u200b\ufeff\u3164 \ud800",
    "]]> {{ 7 * 7 }} ${7 * 7} \u2028\u2029 <a href='javascript:window.ran = 1'>",
)


def sample(update: int, episode: int, tokens: list[str], **fields: Any) -> dict[str, Any]:
    """A line of samples.jsonl; half of its tokens are the guide's."""
    half = len(tokens) // 2
    authors = [["guide", half], ["policy", len(tokens) - half]] if half else [["policy", len(tokens)]]
    return {
        "update": update,
        "split": "train",
        "algorithm": "ppo++",
        "episode": episode,
        "group": episode // 2,
        "prompt": f"prompt {episode // 2}",
        "reference": "",
        "tokens": tokens,
        "left_out": 0,
        "authors": authors,
        "finished": episode % 2 == 0,
        "guide": None,
        "reward": episode / 10,
        "metrics": {},
        "advantages": [None] * half + [(-1.0) ** i for i in range(half, len(tokens))],
        "kl": [None] * half + [0.01 * i for i in range(half, len(tokens))],
        "ratio": [None] * half + [1.1] * (len(tokens) - half),
        "values": [0.5] * len(tokens),
        **fields,
    }


def run_folder(
    folder: Path,
    samples: Iterable[Mapping[str, Any]] = (),
    *,
    seed: int = 0,
    updates: int = 4,
    algorithm: Any = "ppo++",
    finished: bool = True,
    rise: float = 0.1,
) -> Path:
    """A run whose reward rises by so much each update."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "name": folder.name,
        "seed": seed,
        "output": str(folder),
        "task": {"name": "letters"},
        "policy": {"model": "tiny"},
        "guide": {"model": "better"},
        "reward": {"name": "share_of_a"},
        "algorithm": {"base": algorithm} if isinstance(algorithm, str) else algorithm,
        "rollout": {"max_response_tokens": 48},
        "training": {"updates": updates},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines: list[dict[str, Any]] = [{"update": 0, "validation/reward": 0.1 + seed / 100, "validation/kl": 0.0}]
    for update in range(1, updates + 1):
        reward = 0.1 + rise * update + seed / 100
        lines.append(
            {"update": update, "algorithm": "ppo++", "reward": reward, "kl": update / 10, "entropy": 2.0}
        )
        lines.append({"update": update, "validation/reward": reward, "validation/kl": update / 10})
    write_lines(folder / "metrics.jsonl", lines)
    write_lines(folder / "samples.jsonl", samples)
    if finished:
        totals = {
            "totals": {"policy": {"reward": 0.5, "kl": 0.4}},
            "progress": {"seconds": 120.0},
            "guide": {},
        }
        (folder / "summary.json").write_text(json.dumps(totals))
    return folder


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
