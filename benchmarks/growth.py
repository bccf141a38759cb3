"""How the cost of an update grows with one size at a time, as exponents; and where its seconds go.

    python benchmarks/growth.py exponents [--quick] [--write]    # docs/growth.png, a section of docs/performance.md
    python benchmarks/growth.py profile [--quick] [ALGORITHM ...]  # default: grpo ppo++

An exponent is the slope of log(seconds) over log(size), by least squares: 1 is proportional, 0 free. Each size is
measured in turns, so that what else the machine does falls on all; medians of the rounds count.
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import os
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from common import reviews, small_gpt
from rlgf.algorithms.catalog import GRPO, PPO_PLUS_PLUS
from rlgf.guides import LocalGuide
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.critic import build_critic
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.run.trainer import Trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faulty_server import FaultyServer, serving

ROOT = Path(__file__).parents[1]
BASE = {"episodes": 32, "response": 32, "width": 128, "group": 4, "vocabulary": 4096}
GROWTH: dict[str, Sequence[int]] = {
    "episodes": (16, 32, 64, 128),
    "response": (16, 32, 64, 128),
    "width": (64, 128, 256, 512),
    "group": (2, 4, 8, 16),
    "vocabulary": (2048, 4096, 16384, 49152),
    "latency": (50, 200, 800, 3200),
}
WORDS = {
    "episodes": "episodes of an update",
    "response": "tokens of a response",
    "width": "width of the model, 4 layers",
    "group": "texts of a prompt, episodes the same",
    "vocabulary": "tokens in the vocabulary",
    "latency": "milliseconds of a guide's answer, guided GRPO",
}
PROMPT, LAYERS, PHASES = 32, 4, ("collect", "assess", "learn")
_BEGIN, _END = "<!-- written by benchmarks/growth.py -->\n", "<!-- until here -->\n"


def length_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [float(len(text) % 7) for text in completions]


def model(size: dict[str, int], tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    config = GPT2Config(
        vocab_size=max(size["vocabulary"], len(tokenizer)),
        n_layer=LAYERS,
        n_embd=size["width"],
        n_head=size["width"] // 32,
        n_positions=PROMPT + size["response"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    return LanguageModel(GPT2LMHeadModel(config).eval(), tokenizer)


def update_of(size: dict[str, int], tokenizer: PreTrainedTokenizerBase) -> Callable[[], dict[str, float]]:
    """One GRPO update of a size, which tells the seconds of its three steps."""
    policy = model(size, tokenizer)
    row = GRPO.but(group_size=size["group"])
    samples, _ = reviews(size["episodes"] // row.group_size)
    config = RolloutConfig(
        episodes=size["episodes"],
        max_prompt_tokens=PROMPT,
        min_response_tokens=size["response"],
        max_response_tokens=size["response"],
    )
    reference = LanguageModel(copy.deepcopy(policy.model), tokenizer)
    collector = Collector(policy, None, config, seed=0)
    assessor = Assessor(policy, reference, {}, length_reward, config.sampling, config.max_batch_tokens)
    updater = Updater(policy, {}, config.sampling, UpdateConfig(epochs=1, minibatch=32), seed=0)

    return lambda: timed(
        lambda: collector.collect(samples, row),
        lambda rollout: assessor.assess(rollout, row, 0.001),
        lambda experience: updater.update(experience, row),
    )


def guided_update(
    latency: int, tokenizer: PreTrainedTokenizerBase, stack: ExitStack
) -> Callable[[], dict[str, float]]:
    """One update of guided GRPO whose guide, a server, takes some milliseconds an answer; it is asked ahead of need."""
    server = stack.enter_context(serving(FaultyServer(latency=latency / 1000)))
    trainer = Trainer(
        {
            "algorithm": {"base": "guided-grpo", "group_size": BASE["group"]},
            "guide": {"url": server.url, "model": "letters", "concurrency": 32, "cache": None},
            "rollout": {
                "episodes": BASE["episodes"],
                "max_prompt_tokens": PROMPT,
                "min_response_tokens": BASE["response"],
                "max_response_tokens": BASE["response"],
            },
            "update": {"epochs": 1, "minibatch": 32},
            "training": {"trackers": []},
            "output": stack.enter_context(TemporaryDirectory()),
        },
        policy=model(BASE, tokenizer),
        reward=length_reward,
        train=reviews(200)[0],
    )
    stack.callback(trainer.close)

    def update() -> dict[str, float]:
        # The one before it asks for its beginnings, and no other update may pass meanwhile.
        trainer.step()
        return timed(trainer.collect, trainer.assess, trainer.learn)

    return update


def timed(
    collect: Callable[[], Any], assess: Callable[[Any], Any], learn: Callable[[Any], object]
) -> dict[str, float]:
    """The seconds of each step of one update."""
    times = [time.perf_counter()]
    rollout = collect()
    times.append(time.perf_counter())
    experience = assess(rollout)
    times.append(time.perf_counter())
    learn(experience)
    times.append(time.perf_counter())
    return dict(zip(PHASES, np.diff(times).tolist(), strict=True))


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of a line through the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measured(what: str, rounds: int, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Median seconds of each step, and of all, at each size."""
    tokenizer = small_gpt(reviews(1)[1], vocabulary=2048).tokenizer
    with ExitStack() as stack:
        if what == "latency":
            updates = [guided_update(size, tokenizer, stack) for size in sizes]
        else:
            updates = [update_of({**BASE, what: size}, tokenizer) for size in sizes]
        for update in updates:
            update()
        found = [[update() for update in updates] for _ in range(rounds)]
    medians = {
        phase: [statistics.median(one[number][phase] for one in found) for number in range(len(sizes))]
        for phase in PHASES
    }
    return {**medians, "update": [sum(parts) for parts in zip(*medians.values(), strict=True)]}


def exponents(*, quick: bool, write: bool) -> None:
    torch.set_num_threads(2)
    load = os.getloadavg()[0]
    found: dict[str, dict[str, list[float]]] = {}
    lines = [
        "| grows | sizes | collect | assess | learn | update | update, largest to smallest |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, sizes in GROWTH.items():
        tried = sizes[:3] if quick else sizes
        found[what] = measured(what, 1 if quick else 5, tried)
        slopes = " | ".join(f"{exponent(tried, seconds):.2f}" for seconds in found[what].values())
        ratio = found[what]["update"][-1] / found[what]["update"][0]
        lines.append(f"| {WORDS[what]} | {', '.join(map(str, tried))} | {slopes} | {ratio:.1f} |")
        print(lines[-1], flush=True)
    if write:
        plot(found, ROOT / "docs" / "growth.png")
        others = ", ".join(f"{name} {value}" for name, value in BASE.items())
        section = [
            "## Growth",
            "",
            "Exponents of the seconds of a GRPO update (`python benchmarks/growth.py exponents --write`),",
            f"{date.today()}, two threads, {1 if quick else 5} rounds in turns, load before {load:.1f}.",
            f"Where they do not grow: {others};",
            f"prompts of {PROMPT} tokens, {LAYERS} layers, one epoch.",
            "",
            *lines,
            "",
            "![Seconds over sizes](growth.png)",
            "",
        ]
        put(ROOT / "docs" / "performance.md", "\n".join(section))


def plot(found: dict[str, dict[str, list[float]]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(found), figsize=(3 * len(found), 3), sharey=True, layout="constrained"
    )
    for axis, (what, lines) in zip(axes, found.items(), strict=True):
        sizes = GROWTH[what][: len(lines["update"])]
        for name, seconds in lines.items():
            axis.loglog(sizes, seconds, marker="o", label=f"{name}, {exponent(sizes, seconds):.2f}")
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set_title(WORDS[what].split(",")[0], fontsize="medium")
        axis.legend(fontsize="small")
    axes[0].set_ylabel("seconds")
    figure.savefig(file, dpi=80)


def put(file: Path, section: str) -> None:
    """Write a section between its marks, at the end of a page that has none."""
    text = file.read_text()
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    file.write_text(f"{before.rstrip()}\n\n{_BEGIN}{section}{_END}{after}")


def profile(algorithms: Sequence[str], *, quick: bool, top: int = 14) -> None:
    """The functions of this library, PyTorch and transformers in which an update's seconds are spent."""
    torch.set_num_threads(1)
    for name in algorithms or ("grpo", "ppo++"):
        row = {"grpo": GRPO, "ppo++": PPO_PLUS_PLUS}[name]
        episodes = 28 if quick else 112
        samples, texts = reviews(episodes // row.group_size)
        policy, guide, reference = (small_gpt(texts) for _ in range(3))
        config = RolloutConfig(episodes=episodes, min_response_tokens=48)
        critics = {"policy": build_critic("separate", policy.model)} if row.critic else {}
        writer = LocalGuide(guide, policy.tokenizer, Sampling(top_p=0.92, min_tokens=48))
        collector = Collector(policy, writer, config, seed=0)
        assessor = Assessor(
            policy, reference, critics, length_reward, config.sampling, config.max_batch_tokens
        )
        updater = Updater(policy, critics, config.sampling, UpdateConfig(epochs=1), seed=0)
        watch, parts = cProfile.Profile(), {}

        def timed(phase: str, work: Callable[..., Any], *given: Any, into: Any = (watch, parts)) -> Any:
            started = time.perf_counter()
            found = into[0].runcall(work, *given)
            into[1][phase] = time.perf_counter() - started
            return found

        rollout = timed("collect", collector.collect, samples, row)
        experience = timed("assess", assessor.assess, rollout, row, 0.001)
        timed("learn", updater.update, experience, row)
        total = sum(parts.values())
        said = ", ".join(f"{phase} {taken:.2f} s ({taken / total:.0%})" for phase, taken in parts.items())
        print(f"\n{name}: {total:.2f} s: {said}")
        stats: Any = pstats.Stats(watch)
        own = sorted(((own, where) for where, (_, _, own, _, _) in stats.stats.items()), reverse=True)
        for seconds, (file, line, function) in own[:top]:
            place = function if file == "~" else f"{Path(file).name}:{line} {function}"
            print(f"  {seconds / total:6.1%}  {place}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["exponents", "profile"])
    parser.add_argument("algorithms", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_intermixed_args()
    if given.what == "exponents":
        exponents(quick=given.quick, write=given.write)
    else:
        profile(given.algorithms, quick=given.quick)


if __name__ == "__main__":
    main()
