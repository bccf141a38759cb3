"""The commands that write texts, or measure those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from rlgf.errors import UserError

app = typer.Typer()


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
    from rlgf.models.encoder_decoder import START_TOKENS, is_encoder_decoder
    from rlgf.models.loading import ModelConfig, context_of, load_language_model
    from rlgf.models.sampling import Sampling
    from rlgf.seeding import derive
    from rlgf.terminal import visible

    language_model = load_language_model(ModelConfig(model=model))
    encodes, context = is_encoder_decoder(language_model.model), context_of(language_model.model.config)
    before = START_TOKENS if encodes else 1
    if context is not None and max_tokens + before > context:
        raise UserError(
            f"--max-tokens {max_tokens} leaves no room for what stands before a text, since the context of {model} holds "
            f"{context} tokens: lower it to {context - before} or less."
        )
    writer = LocalGuide(
        language_model, language_model.tokenizer, Sampling(temperature=temperature, top_p=top_p)
    )
    requests = [Request(p, max_tokens, derive(seed, "generate", i)) for i, p in enumerate(prompts)]
    # An encoder-decoder's text does not go on from its prompt, so it begins a line.
    between = "\n" if encodes else ""
    for prompt, completion in zip(prompts, writer.write(requests), strict=True):
        line = Text(visible(prompt), style="dim") + Text(between + visible(completion.text))
        Console().print(line, soft_wrap=True)


@app.command()
def score(
    file: Annotated[
        Path, typer.Argument(help="JSON lines with prompt and completion, as `rlgf eval --output` writes.")
    ],
    metrics: Annotated[
        str, typer.Option(help="Names with commas between them, see docs/metrics.md.")
    ] = "distinct,repetition,words",
    references: Annotated[
        Path | None, typer.Option(help="JSON lines with references: one line per text, in the same order.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for the totals and each text's values.")] = None,
) -> None:
    """Compute metrics of texts in a file."""
    from rlgf.evaluation.files import score_file
    from rlgf.outputs import require_file
    from rlgf.run.display import Display
    from rlgf.strict import NamedConfig

    if output is not None:
        require_file(output, "--output", (file, references))
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    if not names:
        raise UserError(
            "--metrics names none: give one or several of docs/metrics.md, such as distinct,words."
        )
    evaluation = score_file(file, [NamedConfig(name=name) for name in names], references)
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
    from rlgf.rewards.build import named_judge

    pairs = read_pairs(file_a, file_b)
    if judge is not None and reward is None:
        found = by_judge(http_judge(judge), *pairs)
    elif reward is not None and judge is None:
        named_judge(reward, "--reward")
        found = by_reward(build_reward(reward, {}), *pairs)
    else:
        raise UserError("give exactly one of --reward and --judge.")
    Console().print(winrate_table(found, str(file_a), str(file_b or "its references")))


@app.command()
def pairs(
    folder: Annotated[Path, typer.Argument(help="Where to write a JSON-lines file per split.")],
) -> None:
    """Write preference pairs (prompt, chosen, rejected) of the task review-verdicts."""
    from rlgf.demo.review_verdicts import write_verdict_pairs

    for split, count in write_verdict_pairs(folder).items():
        Console().print(Text(f"{folder / split}.jsonl: {count:,} pairs"))
