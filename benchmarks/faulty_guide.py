"""Ten thousand requests through a server of which one attempt in five fails.

    python benchmarks/faulty_guide.py

Prints how long it took, what was retried and how far memory grew, and checks that every answer is the
one that a calm server gives, each exactly once.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faulty_server import FAULTS, FaultyServer, answer_to, serving
from rlgf.guides import HTTPGuide, HTTPGuideConfig, Request

REQUESTS, BATCH = 10_000, 500


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    with serving(FaultyServer(faults=FAULTS, share=0.2, hang=0.8, keep=False)) as server:
        guide = HTTPGuide(
            HTTPGuideConfig(url=server.url, model="letters", timeout=0.5, concurrency=32, cache=None)
        )
        started, wrong, early = time.perf_counter(), 0, 0.0
        for first in range(0, REQUESTS, BATCH):
            requests = [Request(f"text {i} ", 4, seed=i) for i in range(first, first + BATCH)]
            for request, completion in zip(requests, guide.write(requests), strict=True):
                wrong += completion.text != answer_to(request.prefix, request.seed, server.letters, 6)
            early = early or peak_mib()
        seconds = time.perf_counter() - started
        attempts = sum(server.seen.values())
        print(f"{guide.usage.calls} answers, {wrong} wrong, {len(server.seen)} different requests")
        print(f"{attempts} attempts, {guide.usage.retries} of them failed; {seconds:.0f} s")
        print(f"peak memory {early:.0f} MiB after {BATCH} requests, {peak_mib():.0f} MiB after {REQUESTS}")
        guide.close()


if __name__ == "__main__":
    main()
