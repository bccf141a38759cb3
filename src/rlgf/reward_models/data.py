"""What a reward model is trained on: pairs of texts of which one is preferred, or texts with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pydantic import model_validator

from rlgf.chat import answered
from rlgf.errors import UserError, shown
from rlgf.tasks.rows import Row, placed
from rlgf.tasks.source import Files, field, is_absent, side
from rlgf.types import Messages

Example = TypeVar("Example")
Label = str | bool | int | float


class Text(NamedTuple):
    """A completion and its prompt, of a chat its messages; a text that is both in one has no completion."""

    prompt: str | Messages
    completion: str


class Pair(NamedTuple):
    """Two completions of one prompt."""

    chosen: Text
    rejected: Text


class Labelled(NamedTuple):
    """A text, and whether it has the label that is asked for."""

    text: str
    positive: bool


class ExamplesConfig(Files):
    """Files of JSON, CSV, TSV or Parquet, or a data set of the hub, and what their columns are called.

    On the rows of 'validation', which are held out, accuracy and calibration are measured.
    """

    prompt_field: str | None = "prompt"
    """None where chosen and rejected hold the whole text; whole conversations need none."""
    chosen_field: str = "chosen"
    rejected_field: str = "rejected"
    text_field: str = "text"
    label_field: str = "label"

    @model_validator(mode="after")
    def _held_out(self) -> ExamplesConfig:
        if self.data is None and self.validation == ():
            raise ValueError(
                "'validation' is missing: a reward model is measured on held-out rows, so give a file of them"
            )
        return self

    def pairs(self, split: str) -> list[Pair]:
        """The preference pairs of 'train' or 'validation'.

        Raises:
            UserError: there is no such split or it is empty, a field is missing or no text, or the two sides
                of a pair are the same; it names the file and the line.
        """
        return self._examples(split, self._pair)

    def labelled(self, split: str, positive: Label) -> list[Labelled]:
        """The texts of a split, and whether each has the label ``positive``; 1 is also ``"1"``, as in CSV.

        Raises:
            UserError: as `pairs`; or a text has no label, all texts have that one, or none has it.
        """
        labels: set[str] = set()

        def make(row: Row, place: str) -> Labelled:
            label = self._value(row, "label_field", place)
            if is_absent(label) or label == "":
                raise UserError(
                    f"{place}: '{self.label_field}' is empty (it is {label!r}): label the text or drop the row."
                )
            labels.add(str(label))
            text = self._value(row, "text_field", place)
            if not isinstance(text, str):
                raise UserError(f"{place}: '{self.text_field}' must be a text (it is {shown(text)}).")
            return Labelled(text, label == positive or str(label) == str(positive))

        found = self._examples(split, make)
        if len({one.positive for one in found}) < 2:
            there = ", ".join(sorted(labels)[:5])
            raise UserError(
                f"'positive' (it is '{positive}') must be one of two or more labels in '{split}'; there: {there}."
            )
        return found

    def _examples(self, split: str, make: Callable[[Row, str], Example]) -> list[Example]:
        return [make(row, place) for row, place in placed(self.rows(split))]

    def _pair(self, row: Row, place: str) -> Pair:
        chosen = self._side(row, "chosen_field", place)
        rejected = self._side(row, "rejected_field", place)
        prompt = self._prompt(row, conversation=not isinstance(chosen, str), place=place)
        if all(isinstance(part, str) for part in (prompt or "", chosen, rejected)):
            better, worse = str(chosen), str(rejected)
        else:
            sides = [(self.chosen_field, chosen), (self.rejected_field, rejected)]
            prompt, (better, worse) = answered(prompt, sides, place)
        if better == worse:
            raise UserError(
                f"{place}: '{self.chosen_field}' and '{self.rejected_field}' are the same text: a pair must "
                "differ, so drop the row."
            )
        if prompt is None:
            return Pair(Text(better, ""), Text(worse, ""))
        return Pair(Text(prompt, better), Text(prompt, worse))

    def _prompt(self, row: Row, *, conversation: bool, place: str) -> str | Messages | None:
        """None where chosen and rejected hold it."""
        name = self.prompt_field
        if name is None or (conversation and name not in row and "prompt_field" not in self.model_fields_set):
            return None
        return self._side(row, "prompt_field", place)

    def _side(self, row: Row, option: str, place: str) -> str | Messages:
        return side(self._value(row, option, place), getattr(self, option), place)

    def _value(self, row: Row, option: str, place: str) -> Any:
        """The value of the column that an option names."""
        return field(row, getattr(self, option), place, f"set 'data.{option}'")
