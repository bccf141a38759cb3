"""The commands that write texts, or measure those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console
from rich.text import Text

from rlgf.errors import UserError

if TYPE_CHECKING:
    from rlgf.strict import NamedConfig

app = typer.Typer()


def _named(given: str, option: str) -> list[NamedConfig]:
    """What an option names, each as in a recipe: a bare name, or a name and options in braces.

    Raises:
        UserError: it is not written so.
    """
    from rlgf.recipe import validated
    from rlgf.strict import NamedConfig

    try:
        read = yaml.safe_load(f"[{given.strip(' ,')}]")
        configs = [{"name": one} if isinstance(one, str) else one for one in read]
        if all(isinstance(one, dict) for one in configs):
            return [validated(NamedConfig, one) for one in configs]
    except UserError as error:
        raise UserError(f"{option} {given}: {error}") from error
    except yaml.YAMLError:
        pass
    raise UserError(
        f'{option} {given} cannot be read: give a name, or with options "{{name: NAME, options: {{KEY: VALUE}}}}".'
    )


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="A folder, a hub name or a packaged model.")],
    prompts: Annotated[list[str], typer.Argument(help="Texts to continue.")],
    max_tokens: Annotated[int, typer.Option(min=1)] = 48,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    seed: int = 0,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask each text as a user's message, in the model's chat template.")
    ] = False,
) -> None:
    """Let a model continue texts, or answer them."""
    from rlgf.guides import LocalGuide, Request
    from rlgf.jsontext import is_unicode
    from rlgf.models.encoder_decoder import START_TOKENS, is_encoder_decoder
    from rlgf.models.loading import ModelConfig, context_of, load_language_model
    from rlgf.models.sampling import Sampling
    from rlgf.seeding import derive
    from rlgf.terminal import visible
    from rlgf.types import Message

    unreadable = next((prompt for prompt in prompts if not is_unicode(prompt)), None)
    if unreadable is not None:
        raise UserError(
            f"the prompt {unreadable!r} is not in UTF-8: let the terminal or the script write UTF-8."
        )
    language_model = load_language_model(ModelConfig(model=model))
    encodes, context = is_encoder_decoder(language_model.model), context_of(language_model.model.config)
    before = START_TOKENS if encodes else 1
    if context is not None and max_tokens + before > context:
        raise UserError(
            f"--max-tokens {max_tokens} leaves no room for what stands before a text, since the context of {model} holds "
            f"{context} tokens: lower it to {context - before} or less."
        )
    if chat and language_model.tokenizer.chat_template is None:
        raise UserError(f"--chat asks for a chat template, and {model} has none: leave it out.")
    writer = LocalGuide(
        language_model, language_model.tokenizer, Sampling(temperature=temperature, top_p=top_p)
    )
    chats = [(Message("user", prompt),) if chat else () for prompt in prompts]
    requests = [
        Request(prompt, max_tokens, derive(seed, "generate", number), messages=messages)
        for number, (prompt, messages) in enumerate(zip(prompts, chats, strict=True))
    ]
    # An encoder-decoder's text does not go on from its prompt, and an answer neither, so it begins a line.
    between = "\n" if encodes or chat else ""
    for prompt, completion in zip(prompts, writer.write(requests), strict=True):
        line = Text(visible(prompt), style="dim") + Text(between + visible(completion.text))
        Console().print(line, soft_wrap=True)


@app.command()
def score(
    file: Annotated[
        Path, typer.Argument(help="JSON lines with prompt and completion, as `rlgf eval --output` writes.")
    ],
    metrics: Annotated[
        str,
        typer.Option(
            help="With commas between them, each a name of docs/metrics.md or {name: NAME, options: {KEY: VALUE}}."
        ),
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

    if output is not None:
        require_file(output, "--output", (file, references))
    named = _named(metrics, "--metrics")
    if not named:
        raise UserError(
            "--metrics names none: give one or several of docs/metrics.md, such as distinct,words."
        )
    evaluation = score_file(file, named, references)
    if output is not None:
        evaluation.save(output)
    title = f"{file}: {len(evaluation.records)} texts"
    Display().table(title, {"total": evaluation.totals})
    if evaluation.totals and evaluation.without_value:
        missing = ", ".join(evaluation.without_value)
        Display().note(f"No value for these texts: {missing}. docs/metrics.md says what a metric needs.")


@app.command()
def winrate(
    file_a: Annotated[Path, typer.Argument(help="JSON lines with prompt and completion.")],
    file_b: Annotated[
        Path | None, typer.Argument(help="The same prompts by another model. Default: A's references.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="Prefer by a reward: its name, or {name: length, options: {target: 40}}."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Prefer by a model: YAML with the keys of an HTTP guide.")
    ] = None,
) -> None:
    """Show how often A's texts are preferred to B's."""
    from rlgf.evaluation.winrate import by_judge, by_reward, http_judge, read_pairs, winrate_table
    from rlgf.rewards import build_reward
    from rlgf.rewards.build import named_judge
    from rlgf.terminal import printable

    pairs = read_pairs(file_a, file_b)
    if judge is not None and reward is None:
        found = by_judge(http_judge(judge), *pairs)
    elif reward is not None and judge is None:
        named = _named(reward, "--reward")
        if len(named) != 1:
            raise UserError(f"--reward names {len(named)} rewards: give one.")
        name, options = named[0].name, named[0].options
        named_judge(name, options, "--reward")
        found = by_reward(build_reward(name, options), *pairs)
    else:
        raise UserError("give exactly one of --reward and --judge.")
    # Not as the table's own title, which a narrow table breaks within words.
    Console().print(Text(printable(f"{file_a} against {file_b or 'its references'}")), soft_wrap=True)
    Console().print(winrate_table(found))


@app.command()
def pairs(
    folder: Annotated[Path, typer.Argument(help="Where to write a JSON-lines file per split.")],
) -> None:
    """Write preference pairs (prompt, chosen, rejected) of the task review-verdicts."""
    from rlgf.demo.review_verdicts import write_verdict_pairs

    for split, count in write_verdict_pairs(folder).items():
        Console().print(Text(f"{folder / split}.jsonl: {count:,} pairs"))
