"""From nothing to a policy that writes more positive movie reviews than its guide.

    make demo

Every model is trained here, on real IMDB reviews: a sentiment classifier (the reward), another kind of
classifier on other reviews (the judge), a small GPT (the start), its sibling cloned on positive reviews
(the guide). Then PPO++ trains the policy. Run it again to see the result again: what is done is kept.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgf import Author, Config, Trainer, load_config
from rlgf.compare.curves import read_curve, save_curves
from rlgf.compare.grid import train_once
from rlgf.demo.judge import Judge
from rlgf.demo.sentiment import Sentiment
from rlgf.run.display import Display, printable

RUN = ("recipes/imdb.yaml", "recipes/demo.yaml")


def main() -> None:
    display = Display()
    started = time.monotonic()

    def step(number: int, what: str) -> None:
        minutes = (time.monotonic() - started) / 60
        display.note(f"\n== {number} of 5, after {minutes:.1f} minutes: {what}")

    step(1, "the reward, a classifier on the MiniLM encoder, and the judge, TF-IDF on other reviews")
    for name, scorer in (("reward", Sentiment()), ("judge", Judge())):
        display.note(f"{name}: {json.dumps(scorer.report)}")
    step(2, "the start, a small GPT that learns to write reviews")
    train_once(load_config("recipes/start/small_gpt.yaml"), display)
    step(3, "the guide, the same GPT taught on positive reviews")
    train_once(load_config("recipes/start/positive_gpt.yaml"), display)
    config = load_config(*RUN)
    step(4, f"{config.algorithm.name}: the guide begins some texts, the policy learns from how it ends them")
    train_once(config, display)
    step(5, f"the test: the same {config.evaluation.test_samples} unseen prompts for all")
    report(config, display)
    display.note(f"Took {(time.monotonic() - started) / 60:.1f} minutes.")


def report(config: Config, display: Display) -> None:
    """The table of start, guide and trained policy, three texts before and after, the curve."""
    folder = config.folder
    start = Trainer(config, display=display)
    before = start.evaluate(Author.POLICY)
    guide = start.evaluate(Author.GUIDE)
    totals = json.loads((folder / "summary.json").read_text())["totals"]["policy"]
    rows = {"start": before.totals, "guide": guide.totals, "trained policy": totals}
    display.table("Movie reviews, test split", rows)
    trained = [
        json.loads(line) for line in (folder / "evaluation" / "policy.jsonl").read_text().splitlines()[1:]
    ]
    texts = Table(title="The same prompts before and after", show_lines=True)
    for column in ("prompt ends", "before", "after"):
        texts.add_column(column, ratio=1)
    for old, new in list(zip(before.records, trained, strict=True))[:3]:
        texts.add_row(
            Text(printable(old["prompt"][-120:])),
            Text(f"{printable(old['completion'])}  [reward {old['reward']:.2f}]"),
            Text(f"{printable(new['completion'])}  [reward {new['reward']:.2f}]"),
        )
    display.console.print(texts)
    picture = Path("runs") / "demo" / "curve.png"
    save_curves(
        picture,
        "Validation reward",
        {config.algorithm.name: [read_curve(folder)]},
        {"guide": guide.totals["reward"]},
    )
    gain = totals["reward"] - before.totals["reward"]
    display.note(
        f"Reward {before.totals['reward']:.3f} -> {totals['reward']:.3f} ({gain:+.3f}; guide "
        f"{guide.totals['reward']:.3f}); judge {before.totals['judge']:.3f} -> {totals['judge']:.3f}. "
        f"The curve is in {picture}, the policy in {folder / 'policy'}."
    )


if __name__ == "__main__":
    Console().rule("rlgf demo")
    main()
