"""What each tracker of a run is given besides its numbers: the recipe, and tables of texts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from accelerate.tracking import GeneralTracker

COLUMNS = ("update", "prompt", "completion", "reward")
"""Of the table of a validation's texts."""
_ESCAPES = str.maketrans(
    {sign: f"&#{ord(sign)};" for sign in "&<>|`![]()*_\\~#"} | {"\n": "<br>", "\r": "<br>"}
)
"""Whatever means something in Markdown or HTML, as an entity."""


def describe_run(tracker: GeneralTracker, recipe: Mapping[str, Any], text: str) -> None:
    """Give a tracker the recipe once: a value for each field, to TensorBoard as text.

    Args:
        text: the recipe as YAML.
    """
    if tracker.name == "tensorboard":
        # Its own form of parameters would be a second run beside this one.
        _written(tracker, "recipe", "\n".join("    " + line for line in text.splitlines()), 0)
    else:
        tracker.store_init_configuration(dict(_fields(recipe)))


def write_table(
    tracker: GeneralTracker, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
) -> None:
    """Give a tracker a table, in its own form; one that has none is passed over."""
    if tracker.name == "tensorboard":
        lines = [columns, ["---"] * len(columns), *rows]
        _written(tracker, name, "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines), step)
    elif tracker.name == "trackio":
        trackio, pandas = (importlib.import_module(module) for module in ("trackio", "pandas"))
        frame = pandas.DataFrame([list(row) for row in rows], columns=list(columns))
        tracker.log({name: trackio.Table(dataframe=frame)}, step=step)
    elif tracker.name == "mlflow":
        table = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
        importlib.import_module("mlflow").log_table(table, f"{name}.json")  # one file, which grows
    elif hasattr(tracker, "log_table"):
        tracker.log_table(name, columns=list(columns), data=[list(row) for row in rows], step=step)


def _written(tracker: Any, name: str, text: str, step: int) -> None:
    tracker.writer.add_text(name, text, global_step=step)
    tracker.writer.flush()


def _cell(value: Any) -> str:
    """For a table in Markdown: nothing in a text may end its cell or be markup."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("\r\n", "\n").translate(_ESCAPES)


def _fields(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str | float | bool]]:
    """Every field by its dotted name; what trackers do not know as a value is written as text."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _fields(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str | int | float) else str(value)
