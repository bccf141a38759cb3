"""What it gains, or costs, to sample while an update learns: the seconds of an update by `training.async_steps`.

    python benchmarks/ahead.py [--latency 0.3] [--updates 4] [--rounds 3] [--steps 0 1]

A GPT-2 with 0.8 million parameters over letters; 112 episodes an update, responses of exactly 48 tokens, 1 epoch.
The guide is an HTTP server in a process of its own that takes so many seconds an answer, asked 16 at a time. What
is measured are updates in the middle of a run, while as many are begun ahead as are used up. The variants take turns,
and ratios are within a round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.queues import Queue
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from rich.console import Console

from faulty_server import FaultyServer
from rlgf import Trainer, load_config
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from toys import LetterTask, letter_gpt, share_of_a

ALGORITHMS = ("ppo", "ppo++", "aggrevated")
"""No guide; one that begins texts, whose answers are fetched ahead in any case; one that finishes them."""


def serve(latency: float, told: Queue[str]) -> None:
    server = FaultyServer(latency=latency, keep=False)
    told.put(server.url)
    server.serve_forever()


@contextmanager
def server(latency: float) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=serve, args=(latency, told), daemon=True)
    process.start()
    try:
        yield told.get(timeout=60)
    finally:
        process.terminate()


def trainer(algorithm: str, steps: int, updates: int, url: str, folder: Path) -> Trainer:
    config = load_config(
        {
            "policy": {"model": "made by hand"},
            "guide": {"url": url, "model": "letters", "cache": None, "concurrency": 16},
            "algorithm": algorithm,
            "output": str(folder),
            "rollout": {
                "episodes": 112,
                "max_prompt_tokens": 4,
                "min_response_tokens": 48,
                "max_response_tokens": 48,
            },
            "update": {"minibatch": 28, "epochs": 1},
            "training": {"updates": updates, "async_steps": steps, "trackers": []},
        },
        given=("task", "policy", "reward"),
    )
    policy = letter_gpt(width=128, layers=4, context=64)
    parts = build_parts(config, task=LetterTask(), reward=share_of_a, policy=policy)
    return Trainer(config, parts, Display(Console(quiet=True)))


def measured(algorithm: str, steps: int, updates: int, url: str) -> tuple[float, float]:
    """Seconds of an update, and those of them in which its texts were waited for; means."""
    planned = 1 + steps + updates + steps
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(trainer(algorithm, steps, planned, url, Path(folder))) as run,
    ):
        for _ in range(1 + steps):
            run.step()
        started = time.perf_counter()
        waited = [float(run.step()["seconds_collect"]) for _ in range(updates)]
        return (time.perf_counter() - started) / updates, sum(waited) / updates


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS)
    given = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    with server(given.latency) as url:
        for _ in range(given.rounds):
            for algorithm in given.algorithms:
                for steps in given.steps:
                    found[algorithm, steps].append(measured(algorithm, steps, given.updates, url))
    for (algorithm, steps), times in found.items():
        seconds, waited = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(
            one[0] / base[0] for one, base in zip(times, found[algorithm, given.steps[0]], strict=True)
        )
        print(
            f"{algorithm:12} async_steps {steps}: {seconds:6.2f} s an update, {waited:5.2f} s of it to collect; "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
