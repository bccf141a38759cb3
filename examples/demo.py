"""What a guide is for, in two acts.

    make demo

The first is a task that a start alone cannot learn, since it never meets a reward: the same algorithm with as many
updates, without and with a guide. The second is real text: SmolLM2 goes on with real movie reviews, and its guide is
the same SmolLM2, behind a text that asks for praise. Run it again to see it again: what is done is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rlgf import Author, Config, Trainer, load_config
from rlgf.compare.curves import save_curves
from rlgf.compare.finished import read_evaluations
from rlgf.compare.grid import train_once
from rlgf.report.page import write_report
from rlgf.report.runs import json_lines
from rlgf.run.display import Display, printable

RUNS = Path("runs/demo")
ALONE = ("grpo", ("algorithm=grpo",))
GUIDED = ("guided-grpo", ())
SPELLING = ("recipes/reasoning.yaml", "evaluation.every=10", "evaluation.test_samples=400")
REVIEWS = ("recipes/imdb.yaml", "recipes/demo.yaml")


def main() -> None:
    display, started = Display(), time.monotonic()

    def title(text: str) -> None:
        display.console.print(Rule(f"{text} ({(time.monotonic() - started) / 60:.1f} minutes in)"))

    title("Act 1: words of ten letters, to be spelled backward")
    spell(display)
    title("Act 2: real movie reviews, to be gone on from kindly")
    config = load_config(*REVIEWS)
    train_once(config, display)
    title("The same unseen prompts for all")
    compare(config, display)
    report = write_report([RUNS], RUNS / "report.html")
    display.note(f"Took {(time.monotonic() - started) / 60:.1f} minutes. Every sample and curve: {report}")


def spell(display: Display) -> None:
    """Train with and without a guide at the same time, and draw both curves as they grow."""
    display.note(
        "The start, a tiny GPT, knows where each letter comes from and prefers a wrong one. Only a word that is right "
        "in every letter is paid. The guide is a program that gets one word in three right."
    )
    display.note("First the start is made, which takes a minute.")
    train_once(load_config("recipes/start/reasoning.yaml"), Display(Console(quiet=True)))
    display.note(
        "GRPO, 120 updates of 64 texts without a guide, and as many with one; solved of 128 unseen words:"
    )
    folders = {name: RUNS / name for name, _ in (ALONE, GUIDED)}
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rlgf",
                "train",
                *SPELLING,
                *changes,
                f"output={folders[name]}",
                "--resume",
            ],
            stdout=subprocess.DEVNULL,
        )
        for name, changes in (ALONE, GUIDED)
    ]
    for update, alone, guided in grown(list(folders.values()), running):
        display.console.print(f"{update:>5}   without {bar(alone)}   with {bar(guided)}", highlight=False)
    if any(process.wait() for process in running):
        raise SystemExit("A run of act 1 failed; its sentence stands above.")
    curves = {name: [read_evaluations(folder)[0]] for name, folder in folders.items()}
    save_curves(RUNS / "spelling.png", "Words solved", curves, {})
    solved = [totals(folder)["reward"] for folder in folders.values()]
    display.note(f"Of 400 further words: {solved[0]:.0%} without the guide, {solved[1]:.0%} with it.")


def grown(folders: list[Path], running: list[subprocess.Popen[bytes]]) -> Iterator[tuple[int, float, float]]:
    """The points that two runs have reached both, as they reach them: (update, reward of each)."""
    shown = 0
    while True:
        ended = all(process.poll() is not None for process in running)
        curves = [validations(folder) for folder in folders]
        reached = list(zip(*curves, strict=False))
        for (update, first), (_, second) in reached[shown:]:
            yield update, first, second
        shown = len(reached)
        if ended:
            return
        time.sleep(1)


def validations(folder: Path) -> list[tuple[int, float]]:
    metrics = json_lines(folder / "metrics.jsonl")
    return [(one["update"], one["validation/reward"]) for one in metrics if "validation/reward" in one]


def bar(share: float, width: int = 20) -> str:
    return f"{'█' * round(share * width):<{width}} {share:4.0%}"


def compare(config: Config, display: Display) -> None:
    """Start, guide and policy in numbers, and three texts of each that can be read aloud."""
    start = Trainer(config, display=display)
    found = {"start": start.evaluate(Author.POLICY), "guide": start.evaluate(Author.GUIDE)}
    trained = totals(config.folder)
    shown = ("reward", "judge", "kl", "output_perplexity")
    rows = {name: dict(one.totals) for name, one in found.items()} | {"trained policy": trained}
    display.table(
        f"{config.evaluation.test_samples} unseen prompts",
        {name: {key: row[key] for key in shown if key in row} for name, row in rows.items()},
    )
    lines = (config.folder / "evaluation" / "policy.jsonl").read_text().splitlines()[1:]
    after = [json.loads(line) for line in lines]
    texts = Table(title="The same prompts before and after", show_lines=True)
    for column in ("prompt ends", "start", "guide", "trained policy"):
        texts.add_column(column, ratio=1)
    for row in list(zip(found["start"].records, found["guide"].records, after, strict=True))[:3]:
        said = [Text(f"{printable(one['completion'])}  [reward {one['reward']:.2f}]") for one in row]
        texts.add_row(Text(printable(row[0]["prompt"][-100:])), *said)
    display.console.print(texts)


def totals(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "summary.json").read_text())["totals"]["policy"]
    return found


if __name__ == "__main__":
    main()
