"""The terminal shows generated text as it is, and nothing in it can steer the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from rich.console import Console
from typer.testing import CliRunner

from rlgf.cli import app
from rlgf.guides import LocalGuide, Request
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.rollout.assembly import assemble
from rlgf.rollout.writers import Draft
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.seeding import derive
from rlgf.terminal import visible
from rlgf.types import Author, Experience, Sample, Scored
from tokenizer_kinds import byte_bpe, llama_legacy, speaker


def experience(language_model: LanguageModel, prompt: str, parts: list[tuple[Author, str]]) -> Experience:
    draft = Draft(Sample(prompt), language_model.encode(prompt), seed=0)
    for author, text in parts:
        ids = language_model.encode(text)
        draft.ids += ids
        draft.authors += [author] * len(ids)
    draft.logprobs = [0.0] * len(draft.ids)
    longer = Draft(Sample("x"), [0], 0, [0] * 99, [Author.POLICY] * 99, [0.0] * 99)
    rollout = assemble([draft, longer], [0, 1], language_model)
    return Experience(Scored(rollout, rewards=torch.tensor([0.25, 0.0])))


def shown(language_model: LanguageModel, prompt: str, parts: list[tuple[Author, str]]) -> str:
    screen = io.StringIO()
    display = Display(Console(file=screen, width=400))
    display.sample(experience(language_model, prompt, parts), language_model)
    return screen.getvalue().strip()


def test_a_sample_names_the_author_of_each_part(language_model: LanguageModel) -> None:
    parts = [(Author.GUIDE, "was fine"), (Author.POLICY, "and long"), (Author.REFERENCE, "indeed")]
    line = shown(language_model, "The film", parts)
    assert line == "The film [guide] was fine [policy] and long [reference] indeed (reward 0.250)"


def test_a_sample_shows_markup_and_escapes_as_text(language_model: LanguageModel) -> None:
    parts = [(Author.POLICY, "[bold red]x[/bold red] [/] :smile: \x1b[31mred\x07")]
    line = shown(language_model, "[link=http://x]prompt[/link]", parts)
    expected = r"[link=http://x]prompt[/link] [policy] [bold red]x[/bold red] [/] :smile: \x1b[31mred\x07"
    assert line == f"{expected} (reward 0.250)"


def test_notes_are_no_markup() -> None:
    screen = io.StringIO()
    display = Display(Console(file=screen, width=40))
    display.note("runs/[a] [/] " + "long " * 20)
    assert screen.getvalue() == "runs/[a] [/] " + "long " * 20 + "\n", "one line, however narrow the terminal"


def test_an_update_is_one_line_of_what_was_measured() -> None:
    screen = io.StringIO()
    display = Display(Console(file=screen, width=40))
    with display.run("name", 12, 0):
        display.update(
            3,
            12,
            {
                "algorithm": "ppo++",
                "reward": 0.51239,
                "policy_loss": 2.0,
                "tokens_per_second": 12345.6,
                "seconds": 1.5,
            },
        )
    (line,) = screen.getvalue().splitlines()
    assert line.split() == [
        "3/12",
        "ppo++",
        "reward",
        "0.5124",
        "policy_loss",
        "2",
        "tokens_per_second",
        "12,346",
        "1.5s",
    ]


def test_generated_text_is_shown_as_it_is(tmp_path: Path) -> None:
    """No space is put before it or taken from it, whichever way the tokenizer marks words."""
    for kind in (byte_bpe, llama_legacy):
        model = speaker(kind())
        save_policy(model, tmp_path / kind.__name__)
        arguments = ["generate", str(tmp_path / kind.__name__), "The fil", "--max-tokens", "12"]
        found = set()
        for seed in range(6):
            shown = CliRunner().invoke(app, [*arguments, "--seed", str(seed)])
            assert shown.exit_code == 0
            guide = LocalGuide(model, model.tokenizer, Sampling())
            request = Request("The fil", 12, derive(seed, "generate", 0))
            (completion,) = guide.write([request])
            assert shown.stdout == "The fil" + visible(completion.text) + "\n"
            found.add(completion.text[:1] == " ")
        assert False in found


def test_the_title_of_a_table_is_plain_text() -> None:
    screen = io.StringIO()
    Display(Console(file=screen, width=400)).table("a\x1b[31m\u202e [bold]b", {"policy": {"reward": 1.0}})
    assert "[bold]b" in screen.getvalue()
    assert not {"\x1b", "\u202e"} & set(screen.getvalue())


def test_a_title_stays_whole_on_a_narrow_terminal() -> None:
    screen, title = io.StringIO(), "results/of_a_run_with_a_long_name.jsonl: 12 texts"
    Display(Console(file=screen, width=20)).table(title, {"policy": {"reward": 1.0}})
    assert title in screen.getvalue().splitlines()


def test_a_table_without_values_is_a_sentence() -> None:
    screen = io.StringIO()
    Display(Console(file=screen, width=80)).table("one.jsonl", {"total": {}})
    assert screen.getvalue() == "one.jsonl: none of the metrics has a value for these texts.\n"
