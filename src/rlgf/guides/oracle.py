"""A guide that knows the solution: a program that begins or finishes it, with as many mistakes as it is told.

A solution is a generator of steps. Each is a pair of texts, the right one and a wrong one; what was
written is sent back, so that what follows a mistake follows from it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from random import Random
from typing import ClassVar, Literal

from pydantic import Field

from rlgf import seeding
from rlgf.errors import UserError
from rlgf.guides.base import GuideSettings, Request
from rlgf.models.language_model import LanguageModel
from rlgf.tasks.answers import STEPS, Form, number
from rlgf.types import Completion, Sample


class OracleGuideConfig(GuideSettings):
    """A program that writes the reference of a sample; in a recipe ``guide: oracle`` is short for one without mistakes."""

    mark: ClassVar[str] = "oracle"

    oracle: Literal[True]
    errors: float = Field(default=0.0, ge=0, le=1)
    """The probability of a step to be wrong: a line of the steps, a letter of `spell_backward`, an item of
    `number_sorting`, a word of any other text. What follows a wrong step follows from it."""
    habitual: bool = False
    """Whether the same step is wrong each time it is met, instead of anew each time by chance: of letters, `errors`
    is then the share that the guide never gets right."""
    seed: int = 0
    """Another seed makes other mistakes."""

    @property
    def label(self) -> str:
        kind = "habitual errors" if self.habitual else "errors"
        return f"oracle, {kind} {self.errors:g}" if self.errors else "oracle"

    def build(self, start: LanguageModel | None) -> OracleGuide:
        return OracleGuide(self)


class OracleGuide:
    """Begins a solution, or finishes one: it makes good what can be made good, and else ends the text.

    Its texts are known before they are asked for (see `RecordedGuide`), and a function of the request:
    the same mistakes in the same place, however requests are batched.
    """

    def __init__(self, config: OracleGuideConfig) -> None:
        self.config = config

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`.

        Raises:
            UserError: a request is not of a sample with a reference.
        """
        return [Completion(self._text(request), finished=True) for request in requests]

    def recorded(self, requests: Sequence[Request]) -> list[Completion | None]:
        """See `RecordedGuide.recorded`; raises what `write` does."""
        return list(self.write(requests))

    def _text(self, request: Request) -> str:
        if request.sample is None or not request.sample.references:
            raise UserError(
                f"the guide 'oracle' has no solution of {request.prompt[-60:]!r}: it needs a task whose samples have "
                "references, such as 'reasoning'."
            )
        errors, seed = self.config.errors, self.config.seed
        if self.config.habitual:
            # What a wrong step says is fixed by the sample, and whether it is wrong by the step alone.
            random = Random(seeding.derive(seed, "oracle", request.sample.references[0]))
            return written_solution(request.sample, request.response, random, partial(_habit, seed, errors))
        random = Random(seeding.derive(seed, "oracle", request.seed, request.prompt, request.response))
        return written_solution(request.sample, request.response, random, lambda _: random.random() < errors)


def _habit(seed: int, errors: float, step: str) -> bool:
    return Random(seeding.derive(seed, "habit", step.strip())).random() < errors


Steps = Generator[tuple[str, str], str, None]


def solution(sample: Sample, written: str, random: Random) -> Steps:
    """The rest of a solution after what is written of it; nothing where that cannot be made good any more."""
    form = Form(str(sample.columns.get("response_form", "{answer}")))
    reference = next((text for text in sample.references if text.startswith(written)), sample.references[0])
    if "response_form" not in sample.columns:
        yield from words(reference, written, random)
    elif form.has_steps:
        yield from _with_steps(sample, form, written, random)
    else:
        before, answered = _mark(form, written)
        yield from _answer(sample, form, before, answered, random)


def _with_steps(sample: Sample, form: Form, written: str, random: Random) -> Steps:
    """Lines, the mark and the answer. Wrong lines of others stay and are gone on from as if they were right."""
    dataset, metadata = str(sample.columns["dataset"]), sample.columns["metadata"]
    head = form.head[len(written) :] if form.head.startswith(written) else ""
    right, off = STEPS[dataset](metadata), 0
    if form.mark not in written:
        done = written.removeprefix(form.head).split("\n") if not head else [""]
        for skip, before, line in _lines_left(right, done):
            texts = (_moved(line, off, dataset), _mistaken(line, off, dataset, random))
            told, mistaken = (head + before + text[skip:] for text in texts)
            # Where the right result is half written, a wrong one would not go on from it.
            said = yield told, mistaken if texts[1].startswith(line[:skip]) else told
            written += said
            off, head = (round(_result(texts[1]) - _result(line)) if said != told else off), ""
    before, answered = _mark(form, written)
    if off and dataset == "chain_sum":
        told = before + str(int(sample.columns["answer"]) + off) + form.end
        yield told, told
    elif off:  # of numbers that do not come out
        answer = altered(str(sample.columns["answer"]), random)
        yield before + answer + form.end, before + answer + form.end
    else:
        yield from _answer(sample, form, before, answered, random)


def _lines_left(right: Sequence[str], done: list[str]) -> list[tuple[int, str, str]]:
    """The lines that are yet to be written, each with how much of it stands and with what comes before it."""
    *complete, last = done
    at, standing, before = len([line for line in complete if line]), 0, ""
    if at < len(right) and right[at].startswith(last):
        at, standing, before = (at, len(last), "") if last != right[at] else (at + 1, 0, "\n")
    elif last:
        # A whole line stays, though wrong; half a wrong line is followed by the right one.
        at, before = at + bool(re.search(r"= -?[\d.]+$", last)), "\n"
    return [(0 if i else standing, "\n" if i else before, line) for i, line in enumerate(right[at:])]


def _result(line: str) -> float:
    return float(line.rpartition("= ")[2])


def _moved(line: str, off: int, dataset: str) -> str:
    """A line of a chain sum whose totals are off; of other data sets the line itself."""
    if dataset != "chain_sum" or not off:
        return line
    before, operator, term, _, after = line.split(" ")
    return f"{int(before) + off} {operator} {term} = {int(after) + off}"


def _mistaken(line: str, off: int, dataset: str, random: Random) -> str:
    """The same line with a wrong result."""
    start, _, result = _moved(line, off, dataset).rpartition("= ")
    return f"{start}= {number(float(result) + random.choice((-1, 1)) * random.randint(1, 9))}"


def _mark(form: Form, written: str) -> tuple[str, str]:
    """The text that must still come before the answer, and what there is of the answer."""
    if not form.mark or form.mark in written:
        return "", written.rpartition(form.mark)[2] if form.mark else written
    return _missing(form.mark, written), ""


def _missing(part: str, written: str) -> str:
    """The rest of a part, where a text may end in the beginning of that part."""
    return part[next(n for n in range(len(part), -1, -1) if written.endswith(part[:n])) :]


def _answer(sample: Sample, form: Form, before: str, answered: str, random: Random) -> Steps:
    end = _missing(form.end, answered)
    if form.end and (end != form.end or form.end in answered):
        if end:
            yield end, end
        return
    program = PROGRAMS.get(str(sample.columns["dataset"]), words)
    steps = program(str(sample.columns["answer"]), answered, random)
    said: str | None = None
    while True:
        try:
            right, wrong = next(steps) if said is None else steps.send(said.removeprefix(before))
        except StopIteration:
            break
        before = "" if said is not None else before
        said = yield before + right, before + wrong
    if end:
        yield end, end


def words(text: str, written: str, random: Random) -> Steps:
    """Word by word, of which a wrong one has one character changed; from a wrong beginning nothing."""
    if text.startswith(written):
        for word in re.findall(r"\s*(?:[^\w\s]+\s+)*\S+|\s+$", text[len(written) :]):
            yield word, altered(word, random)


def letters(text: str, written: str, random: Random) -> Steps:
    """Letter by letter, also after wrong ones: those that follow still stand where they belong.

    A wrong letter is the next of the alphabet: a slip that is always the same can come to be the likelier letter.
    """
    for letter in text[len(written) :]:
        kind = next((kind for kind in _KINDS if letter in kind), letter + "?")
        yield letter, kind[(kind.index(letter) + 1) % len(kind)]


def items(text: str, written: str, random: Random) -> Steps:
    """Item by item of a list of texts, of which a wrong one is the next but one; from a wrong beginning nothing."""
    if not text.startswith(written):
        return
    ends = [match.end() for match in re.finditer(r"'[^']*'", text)]
    start, left = len(written), []
    for end in ends:
        if end > len(written):
            left.append(text[start:end])
            start = end
    if left and not re.match(r"[\[, ]*'", left[0]):  # an item that is half written
        yield left[0], left[0]
        left = left[1:]
    values = [piece.partition("'")[2] for piece in left]
    leads = [piece.partition("'")[0] + "'" for piece in left]
    for lead in leads:
        said = yield lead + values[0], lead + values[min(1, len(values) - 1)]
        values.remove(said.partition("'")[2])
    if len(written) < len(text):
        yield text[max(start, len(written)) :], text[max(start, len(written)) :]


PROGRAMS: Mapping[str, Callable[[str, str, Random], Steps]] = {
    "spell_backward": letters,
    "number_sorting": items,
}
"""Who writes the answers of a data set; `words` writes those of all others."""


def altered(text: str, random: Random) -> str:
    """The text with one of its letters or digits changed for another; without any, its last character twice."""
    places = [i for i, c in enumerate(text) if any(c in kind for kind in _KINDS)]
    if not places:
        return text + text[-1:]
    place = random.choice(places)
    kind = next(kind for kind in _KINDS if text[place] in kind)
    return text[:place] + random.choice(kind.replace(text[place], "")) + text[place + 1 :]


_KINDS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)


def written_solution(sample: Sample, written: str, random: Random, slips: Callable[[str], bool]) -> str:
    """The rest of a solution, of which each step is wrong that ``slips``."""
    steps, text, said = solution(sample, written, random), "", None
    while True:
        try:
            right, wrong = next(steps) if said is None else steps.send(said)
        except StopIteration:
            return text
        said = wrong if slips(right) else right
        text += said
