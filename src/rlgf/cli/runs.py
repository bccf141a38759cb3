"""The commands that run a recipe."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from rlgf.errors import UserError, nearest

app = typer.Typer()


def refuse(sentence: str) -> None:
    """Say on standard error what a user can mend."""
    Console(stderr=True).print(Text(f"rlgf: {sentence}", style="bold red"), soft_wrap=True)


Sources = Annotated[
    list[str],
    typer.Argument(
        help="Recipes (names that `rlgf recipes` lists, or paths of YAML files) and overrides such as "
        "update.epochs=2; later ones win."
    ),
]


@app.command()
def train(
    sources: Sources,
    resume: Annotated[
        bool, typer.Option(help="Go on from the newest checkpoint of the output folder.")
    ] = False,
) -> None:
    """Train a policy as recipes say, then test it."""
    from rlgf.config import load_config
    from rlgf.run.agreement import require_output
    from rlgf.run.trainer import Trainer

    config = load_config(*sources)
    require_output(config.folder, resume)
    with closing(Trainer(config)) as trainer:
        totals = trainer.train(resume=resume)
    trainer.display.table(f"{trainer.config.name}: test split", totals)
    trainer.display.note(f"Policy, metrics and texts are in {trainer.config.folder}.")


@app.command("eval")
def evaluate(
    sources: Sources,
    author: Annotated[
        list[str] | None,
        typer.Option(help="policy, guide or reference; repeat for several. Default: all that there are."),
    ] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    output: Annotated[Path | None, typer.Option(help="Folder for a JSON-lines file an author.")] = None,
) -> None:
    """Measure the recipe's policy (policy.model=FOLDER), its guide and the data's own texts."""
    from rlgf import distributed
    from rlgf.config import load_config
    from rlgf.outputs import require_folder, require_none
    from rlgf.run.start import trained_policy
    from rlgf.run.steps import MEASURED
    from rlgf.run.trainer import Trainer

    for name in author or ():
        if name not in MEASURED:
            raise UserError(f"--author '{name}' is not known: {nearest(name, MEASURED)}")
    # A guide that is not measured is not asked, and need not be there.
    config = load_config(*sources, given=["guide"])
    if author and "guide" not in author:
        config = config.model_copy(update={"guide": None})
    elif author and config.guide is None:
        raise UserError(
            "--author guide measures the recipe's guide, and it has none: give a 'guide:' section."
        )
    if output is not None:
        require_folder(output, "--output")
        require_none((output / f"{name}.jsonl" for name in author or MEASURED), "--output")
    rows = {}
    with closing(Trainer(config, evaluates=True)) as trainer, distributed.one_fate():
        there = dict.fromkeys(MEASURED, True)
        there |= {"guide": config.guide is not None, "reference": trainer.has_references(split)}
        if author and not there["reference"] and "reference" in author:
            raise UserError(
                f"--author reference measures the data's own texts, and '{split}' has none, or not for each prompt: give the "
                "task's 'reference_field', or leave this author out."
            )
        for name in author or [name for name, is_there in there.items() if is_there]:
            evaluation = trainer.evaluate(name, split)
            rows[name] = evaluation.totals
            if output is not None and distributed.is_main():
                evaluation.save(output / f"{name}.jsonl")
    trainer.display.table(f"{config.name}: {split} split", rows)
    trained = trained_policy(config) if "policy" in rows else None
    if trained is not None:
        trainer.display.note(
            f"This is the policy before training; for the trained one set policy.model={trained}."
        )


@app.command()
def check(sources: Sources) -> None:
    """Say what a recipe would do and what it would need, or all that is wrong with it; loads no model, asks no server.

    Under a launcher such as torchrun it says what each process needs.
    """
    from rlgf.config import load_config
    from rlgf.errors import RefusedError
    from rlgf.preview.faults import check as checked
    from rlgf.preview.report import told

    try:
        found = checked(load_config(*sources))
    except RefusedError as error:
        sentences = error.sentences
    else:
        sentences = found.broken
    # Of several processes one speaks.
    speaks = os.environ.get("RANK", "0") == "0"
    for sentence in sentences if speaks else ():
        refuse(sentence)
    if sentences:
        sys.exit(2)
    if speaks:
        Console().print(told(found))


@app.command()
def compare(
    recipe: Annotated[
        str, typer.Argument(help="A comparison: a packaged one's name, such as imdb, or a path.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as seeds=2.")] = None,
    report_only: Annotated[bool, typer.Option(help="Tabulate what has finished; train nothing.")] = False,
) -> None:
    """Run algorithms and seeds over a recipe; run it again to go on where it stopped."""
    from rlgf.compare.comparison import load_comparison
    from rlgf.compare.grid import run_comparison

    run_comparison(load_comparison(recipe, overrides or []), report_only=report_only)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Output folders of runs, or folders of them such as `rlgf compare` writes."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: report.html in the first folder.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Default: the name of the run or folder.")] = None,
) -> None:
    """Write runs, finished or not, as one page: what ran, curves, and every kept sample token by token."""
    from rlgf.outputs import require_file, require_none
    from rlgf.report.page import write_report
    from rlgf.run.display import Display

    if output is not None:
        require_file(output, "--output")
        # A page is written again as its runs go on.
        require_none([output] if output.suffix != ".html" else [], "--output")
    Display().note(f"Wrote {write_report(runs, output, title)}; open it in a browser.")


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(help="Output folder of a run, such as runs/imdb.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds from one look to the next.")] = 2.0,
) -> None:
    """Follow a run in the terminal until it ends: curves, time left, guide, warnings, newest texts."""
    from rlgf.watch.follow import follow

    follow(run, Console(), every)
