"""Procedural problems with verifiers: the data sets of the package reasoning-gym."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, validate_call

from rlgf.errors import UserError, nearest
from rlgf.tasks.answers import STEPS, Form
from rlgf.tasks.base import SPLITS, check_split
from rlgf.tasks.source import template_parts
from rlgf.types import Sample

_MISSING = "needs the package reasoning-gym: pip install 'rlgf[reasoning]'."
_OURS = ("seed", "size")
_Samples = Annotated[int, Field(ge=1, le=10_000_000)]
_PATIENCE = 1000
"""So many problems in a row that were all there before end the search for a new one."""


class ReasoningTask:
    """Problems that a program poses and checks: any data set of reasoning-gym, such as countdown or chain_sum.

    Questions of test, validation and train are disjoint, since all come from one stream in which a
    repeated one is left out: the first are the test split, so that it does not depend on ``train_samples``.
    """

    @validate_call(config=ConfigDict(strict=True))
    def __init__(
        self,
        dataset: str,
        train_samples: _Samples = 2000,
        validation_samples: _Samples = 200,
        test_samples: _Samples = 500,
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
        prompt: str = "{question}\n",
        response: str = "{answer}",
        **options: Any,
    ) -> None:
        """
        Args:
            dataset: its name in reasoning-gym.
            prompt: a template of ``{question}`` or of what a problem's metadata hold, such as ``{word}``; a list is
                written with commas.
            response: how the reference holds the answer and where the verifier finds it, see `Form`:
                ``{answer}`` is the whole response, ``{steps}\\nAnswer: {answer}`` the steps of a solution before it.
            options: of the data set, such as ``min_terms``.

        Raises:
            UserError: the package is missing, or the data set or one of its options is not known or does not fit.
            ValidationError: another argument does not fit, such as a number of samples below 1.
        """
        self.dataset, self.options = dataset, options
        self.counts = {"test": test_samples, "validation": validation_samples, "train": train_samples}
        self._problems = problems(dataset, options, seed, 20 * sum(self.counts.values()) + _PATIENCE)
        self.form = _form(response, dataset)
        try:
            self._prompt = template_parts(prompt)
        except ValueError as error:
            raise UserError(f"task 'reasoning', option 'prompt' (it is {prompt!r}): {error}.") from error
        self._samples: dict[str, list[Sample]] = {}

    def load(self, split: str) -> list[Sample]:
        """The samples of 'train', 'validation' or 'test', always in the same order.

        Raises:
            UserError: the data set has not as many distinct questions, or the prompt names what it does not have.
        """
        check_split(split, "reasoning")
        if not self._samples:
            self._samples = self._drawn()
        return self._samples[split]

    def _drawn(self) -> dict[str, list[Sample]]:
        found: dict[str, list[Sample]] = {name: [] for name in SPLITS}
        stream = self._distinct()
        for split, count in self.counts.items():
            for sample in stream:
                found[split].append(sample)
                if len(found[split]) == count:
                    break
            else:
                there = sum(map(len, found.values()))
                raise UserError(
                    f"task 'reasoning': the data set '{self.dataset}' repeats itself after {there} distinct problems, and "
                    f"{sum(self.counts.values())} are asked for: lower 'train_samples', "
                    "'validation_samples' or 'test_samples', or set options under which there are more."
                )
        return found

    def _distinct(self) -> Iterator[Sample]:
        """Samples of which no two share a question, or a prompt."""
        seen: set[str] = set()
        number = fruitless = 0
        while fruitless < _PATIENCE and number < len(self._problems):
            entry, number = self._problems[number], number + 1
            sample = self._sample(entry)
            keys = {"question " + entry["question"], "prompt " + sample.prompt}
            fruitless = fruitless + 1 if keys & seen else 0
            seen |= keys
            if not fruitless:
                yield sample

    def _sample(self, entry: Mapping[str, Any]) -> Sample:
        answer, metadata = entry["answer"], entry["metadata"]
        references: tuple[str, ...] = ()
        if answer is not None:
            steps = "\n".join(STEPS[self.dataset](metadata)) if self.form.has_steps else ""
            references = (self.form.written(str(answer), steps),)
        columns = {
            "dataset": self.dataset,
            "dataset_options": self.options,
            "response_form": self.form.template,
            "question": entry["question"],
            "answer": answer,
            "metadata": metadata,
        }
        return Sample(self._prompted(entry), references, columns)

    def _prompted(self, entry: Mapping[str, Any]) -> str:
        values = {**entry["metadata"], "question": entry["question"]}
        text = ""
        for before, name in self._prompt:
            text += before
            if name is not None:
                if name not in values:
                    raise UserError(
                        f"task 'reasoning', option 'prompt': a problem of '{self.dataset}' has no '{name}': "
                        f"{nearest(name, values)}"
                    )
                value = values[name]
                text += ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        return text


def _form(response: str, dataset: str) -> Form:
    place = f"task 'reasoning', option 'response' (it is {response!r})"
    try:
        form = Form(response)
    except ValueError as error:
        raise UserError(f"{place}: {error}.") from error
    if form.has_steps and dataset not in STEPS:
        raise UserError(f"{place}: the steps of '{dataset}' cannot be written: {nearest(dataset, STEPS)}")
    return form


def problems(dataset: str, options: Mapping[str, Any], seed: int = 0, size: int = 1) -> Any:
    """A data set of reasoning-gym, with ``[number]`` and ``score_answer(answer, entry)``.

    Raises:
        UserError: the package is missing, or the data set or an option is not known or does not fit.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError as error:
        raise UserError(f"task 'reasoning' {_MISSING}") from error
    if dataset not in DATASETS:
        raise UserError(f"task 'reasoning': there is no data set '{dataset}': {nearest(dataset, DATASETS)}")
    known = [f.name for f in dataclasses.fields(DATASETS[dataset][1]) if f.name not in _OURS]
    for name in options:
        if name not in known:
            raise UserError(
                f"task 'reasoning': the data set '{dataset}' has no option '{name}': {nearest(name, known)}"
            )
    try:
        return create_dataset(dataset, **options, seed=seed, size=size)
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(
            f"task 'reasoning': the data set '{dataset}' refuses its options: {error}."
        ) from error
