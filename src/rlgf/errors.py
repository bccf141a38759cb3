"""The one exception that means 'you can mend this', and the lookup of names that suggests how."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend: one sentence that says what is wrong and what would be right."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that points from an unknown name to the nearest known one."""
    known = sorted(known)
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean '{by_lower[close[0]]}'?" if close else ""
    return f"{hint} Known: {', '.join(known)}.".strip()


def resolve(name: str, table: Mapping[str, Any], what: str) -> Any:
    """Find a part by its name in ``table``, or as ``module:attribute`` or ``file.py:attribute``.

    Raises:
        UserError: No such name, file, module or attribute.
    """
    if name in table:
        return table[name]
    place, separator, attribute = name.rpartition(":")
    if not separator:
        raise UserError(
            f"{what} '{name}' is not known: {nearest(name, table)} "
            "Your own is named as module:attribute or file.py:attribute."
        )
    importable = place.endswith(".py") or all(part.isidentifier() for part in place.split("."))
    if not importable:
        raise UserError(f"{what} '{name}': '{place}' is neither a file that ends in .py nor a module's name.")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, FileNotFoundError) as error:
        raise UserError(f"{what} '{name}': {place} cannot be imported ({error}).") from error
    if not hasattr(module, attribute):
        raise UserError(f"{what} '{name}': {place} has no '{attribute}'.")
    return getattr(module, attribute)


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
