"""Names in a recipe become objects, each exactly once per run."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rlgf.errors import UserError, nearest


def resolve(name: str, table: Mapping[str, Any], what: str) -> Any:
    """Find something by its name in ``table``, or as ``module:attribute`` or ``file.py:attribute``.

    A table holds objects, or says of each where it is, as ``module:attribute``: things that are not named are not imported.

    A file is executed when one of its names is first asked for, and never again: what it keeps in its own
    variables is shared by everything that the recipe names from it.

    Raises:
        UserError: No such name, file, module or attribute.
    """
    if name in table:
        found = table[name]
        return resolve(found, {}, what) if isinstance(found, str) else found
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
        module = _loaded(Path(place).resolve()) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, FileNotFoundError) as error:
        raise UserError(f"{what} '{name}': {place} cannot be imported ({error}).") from error
    if not hasattr(module, attribute):
        raise UserError(f"{what} '{name}': {place} has no '{attribute}'.")
    return getattr(module, attribute)


def _loaded(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return _executed(path, path.stat().st_mtime_ns)


@functools.cache
def _executed(path: Path, changed: int) -> ModuleType:
    """
    Args:
        changed: when the file was last written: in a notebook an edited file is another one.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
