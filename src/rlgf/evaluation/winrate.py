"""How often one model's texts are preferred to another's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from rlgf.chat import transcript
from rlgf.errors import UserError
from rlgf.evaluation.files import Texts, read_texts
from rlgf.evaluation.statistics import Interval, interval
from rlgf.guides import HTTPGuide, HTTPGuideConfig, Request
from rlgf.packaged import find_recipe
from rlgf.recipe import read_source, validated
from rlgf.rewards import Reward, RewardInput, checked_rewards
from rlgf.types import columns_of

QUESTION = """Two texts answer the same prompt.

Prompt:
{prompt}

Text 1:
{first}

Text 2:
{second}

Which text is the better one? Answer with one digit: 1 or 2, or 0 if they are equally good."""

_ANSWER_TOKENS = 8
_JUDGE = {"style": "chat", "template": "{text}", "temperature": 0.0, "top_p": 1.0, "token_ratio": 1.0}
"""What a judge's recipe need not say: the question is sent as it is, and sampled without chance."""


@dataclass(frozen=True)
class WinRate:
    """What came of the comparisons; a tie is half a win."""

    rate: Interval
    """How often A wins over B: the mean over prompts and its 95% interval."""
    wins: int
    ties: int
    losses: int
    first_rate: float | None = None
    """How often a judge that decided chose the text it read first: 0.5 is without bias. None for a reward."""
    agreement: float | None = None
    """The share of prompts at which the judge said the same in both orders, of those where both its answers were
    choices. None where there are none, and for a reward."""
    unclear: int = 0
    """Answers of the judge that were no choice; counted as ties."""


def read_pairs(file_a: Path, file_b: Path | None) -> tuple[Texts, list[str]]:
    """A's texts, and what each is compared with: B's, or its own first reference.

    Raises:
        UserError: a file is not what it must be, the files are not of the same prompts in the same order, or a
            text has no reference.
    """
    a = read_texts(file_a)
    if file_b is None:
        for sample, place in zip(a.samples, a.places, strict=True):
            if not sample.references or not sample.references[0].strip():
                raise UserError(f"{place} has no reference to compare with: give a second file.")
        return a, [sample.references[0] for sample in a.samples]
    b = read_texts(file_b)
    if len(a.texts) != len(b.texts):
        raise UserError(
            f"{file_a} has {len(a.texts)} texts and {file_b} has {len(b.texts)}: they must answer the same prompts."
        )
    for mine, other, place in zip(a.samples, b.samples, b.places, strict=True):
        if mine.prompt != other.prompt:
            raise UserError(
                f"{place} answers another prompt than the same line of {file_a}: the prompts must be the same, in "
                "the same order."
            )
    return a, b.texts


def by_reward(reward: Reward, a: Texts, others: Sequence[str]) -> WinRate:
    """A text wins where its reward is the higher one.

    Raises:
        UserError: see `checked_rewards`; or the reward does not apply to a text.
    """
    prompts = [sample.prompt for sample in a.samples]
    columns = columns_of(a.samples)
    references = [sample.references for sample in a.samples]
    messages = [sample.messages for sample in a.samples]
    mine, theirs = (
        checked_rewards(reward, RewardInput(prompts, texts, columns, references, messages=messages))
        for texts in (a.texts, others)
    )
    if (mine.isnan() | theirs.isnan()).any():
        raise UserError(
            "the reward said None of a text: texts are compared by a reward that applies to all of them."
        )
    return _rate(((mine > theirs).float() + (mine == theirs).float() / 2).tolist())


def by_judge(ask: Callable[[list[str]], list[str]], a: Texts, others: Sequence[str]) -> WinRate:
    """A judge, which answers questions in their order, reads each pair in both orders, and a text's score is the mean.

    A judge that prefers whatever it reads first (Zheng et al. 2023, arXiv 2306.05685, section 3.3) thus gives a
    tie.
    """
    prompts = [transcript(sample.messages) if sample.messages else sample.prompt for sample in a.samples]
    rows = list(zip(prompts, a.texts, others, strict=True))
    questions = [_question(prompt, mine, theirs) for prompt, mine, theirs in rows]
    questions += [_question(prompt, theirs, mine) for prompt, mine, theirs in rows]
    choices = [_choice(answer) for answer in ask(questions)]
    first = [0.5 if choice is None else choice for choice in choices]
    pairs = list(zip(first[: len(rows)], [1 - score for score in first[len(rows) :]], strict=True))
    both = zip(choices[: len(rows)], choices[len(rows) :], strict=True)
    same = [one == 1 - other for one, other in both if one is not None and other is not None]
    decided = [score for score in first if score != 0.5]
    return replace(
        _rate([sum(pair) / 2 for pair in pairs]),
        first_rate=sum(decided) / len(decided) if decided else None,
        agreement=sum(same) / len(same) if same else None,
        unclear=choices.count(None),
    )


def http_judge(source: str | Path) -> Callable[[list[str]], list[str]]:
    """A judge behind a server, with the cache and the budget of an HTTP guide.

    Args:
        source: path of a YAML file, or name of a packaged one, with the keys of an HTTP guide, such as ``url``
            and ``model``; ``template`` stands around the question, which is its ``{text}``.

    Raises:
        UserError: the recipe is not there, is no YAML, or a key of it is not known or does not fit.
    """
    recipe = find_recipe(source, "judges", "judge")
    try:
        config = validated(HTTPGuideConfig, _JUDGE | read_source(recipe))
    except UserError as error:
        raise UserError(f"--judge {recipe}, which holds keys of an HTTP guide: {error}") from error
    if config.candidates > 1:
        raise UserError(
            f"--judge {recipe}: 'candidates' is {config.candidates}, and a judge answers once: leave it out."
        )

    if config.budget.then == "unguided":
        raise UserError(f"--judge {recipe}: 'budget.then: unguided' is for runs: leave it out.")

    def ask(questions: list[str]) -> list[str]:
        with closing(HTTPGuide(config)) as guide:
            try:
                answers = guide.write([Request(question, _ANSWER_TOKENS, seed=0) for question in questions])
            except UserError as error:
                # Its keys stand at the top of the recipe here.
                said = (
                    str(error).replace(", or set 'guide.budget.then: unguided'", "").replace("'guide.", "'")
                )
                raise UserError(f"--judge {recipe}: {said}") from error
        return [answer.text for answer in answers]

    return ask


def winrate_table(found: WinRate) -> Table:
    """The lines that are printed of a win rate."""
    table = Table("", "")
    rate = found.rate
    spread = f"± {rate.half_width:.3f} (95%, {rate.count} prompts)" if rate.count > 1 else "(1 prompt)"
    table.add_row("win rate", f"{rate.mean:.3f} {spread}")
    table.add_row("wins, ties, losses", f"{found.wins}, {found.ties}, {found.losses}")
    if found.agreement is not None or found.unclear:
        first = "no choice was made" if found.first_rate is None else f"{found.first_rate:.3f}"
        table.add_row("chose the text read first (0.5: no bias)", first)
        same = "no two choices were made" if found.agreement is None else f"{found.agreement:.3f}"
        table.add_row("same answer in both orders", same)
        table.add_row("answers that were no choice", str(found.unclear))
    return table


def _question(prompt: str, first: str, second: str) -> str:
    return QUESTION.format(prompt=prompt.strip(), first=first.strip(), second=second.strip())


def _choice(answer: str) -> float | None:
    """1 for the text read first, 0 for the other, 0.5 for neither; None where the answer does not say."""
    said = set(re.findall(r"\b[012]\b", answer))
    return {"0": 0.5, "1": 1.0, "2": 0.0}[said.pop()] if len(said) == 1 else None


def _rate(scores: Sequence[float]) -> WinRate:
    return WinRate(
        rate=interval(scores),
        wins=sum(score > 0.5 for score in scores),
        ties=sum(score == 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
    )
