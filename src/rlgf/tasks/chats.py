"""Chats of a task as prompts of the policy: messages through its chat template, when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from rlgf.chat import ChatTemplate
from rlgf.tasks.base import LazySamples, Task, check_sample, column_names, load_split
from rlgf.tasks.source import CHECKED
from rlgf.types import Sample


class PromptedTask:
    """A task, each chat of which has a prompt too: what a chat template makes of its messages.

    A prompt that the task itself gives stays.
    """

    def __init__(self, task: Task, template: Callable[[], ChatTemplate]) -> None:
        """
        Args:
            template: called once, and only where a sample has messages and no prompt.
        """
        self._task = task
        self._template = template

    def load(self, split: str) -> Prompted:
        """The samples of a split; chats among the first 10,000 are tried, where the first is one.

        Raises:
            UserError: as `load_split` does; also if a chat has no template, or its template refuses it.
        """
        samples = Prompted(load_split(self._task, split), lambda: self.template, split)
        samples.try_chats()
        return samples

    @property
    def continues_texts(self) -> bool:
        """Whether the task says that its prompts are texts to go on with, of which the end is enough."""
        return getattr(self._task, "continues_texts", False)

    @cached_property
    def template(self) -> ChatTemplate:
        return self._template()


class Prompted(LazySamples):
    """The samples of a `PromptedTask`, each with all columns that the first of them have."""

    def __init__(self, samples: Sequence[Sample], template: Callable[[], ChatTemplate], split: str) -> None:
        self.samples = samples
        self._template = template
        self._split = split

    def __len__(self) -> int:
        return len(self.samples)

    def try_chats(self) -> None:
        """Make the prompts of the first 10,000, where the first is a chat.

        Raises:
            UserError: see `PromptedTask.load`.
        """
        for number in range(min(len(self), CHECKED) if self.samples[0].messages else 0):
            self[number]

    def sample(self, number: int) -> Sample:
        """
        Raises:
            UserError: see `PromptedTask.load`.
        """
        sample = self.samples[number]
        check_sample(sample, self.place(number))
        if self._columns.keys() - sample.columns.keys():
            # What is asked about an update's few samples alone would depend on which these are.
            sample = replace(sample, columns={**self._columns, **sample.columns})
        if not sample.messages or sample.prompt:
            return sample
        place = self.place(number)
        prompt = self._template().prompt(sample.messages, sample.columns, place)
        return replace(sample, prompt=prompt)

    @cached_property
    def _columns(self) -> dict[str, None]:
        return column_names(self.samples, self._split)

    def place(self, number: int) -> str:
        place = getattr(self.samples, "place", None)
        return f"sample {number} of the task's split '{self._split}'" if place is None else str(place(number))
