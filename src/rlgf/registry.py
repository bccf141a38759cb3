"""Names in a recipe become objects, each exactly once per run."""

from __future__ import annotations

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

    A file is executed when one of its names is first asked for, and not again (see `forget_edited`): what it keeps in
    its own variables is shared by everything that the recipe names from it.

    Raises:
        UserError: No such name, file, module or attribute.
    """
    if name in table:
        found = table[name]
        return resolve(found, {}, what) if isinstance(found, str) else found
    place, separator, attribute = name.rpartition(":")
    if not separator:
        known = f": {nearest(name, table)}" if table else "."
        raise UserError(
            f"{what} '{name}' is not known{known} Your own is named as module:attribute or file.py:attribute."
        )
    importable = place.endswith(".py") or all(part.isidentifier() for part in place.split("."))
    if not importable:
        raise UserError(f"{what} '{name}': '{place}' is neither a file that ends in .py nor a module's name.")
    try:
        module = _loaded(Path(place).resolve()) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, FileNotFoundError, SyntaxError) as error:
        raise UserError(f"{what} '{name}': {place} cannot be imported ({error}).") from error
    except SystemExit as error:
        raise UserError(
            f"{what} '{name}': {place} ends the program while it is imported ({error!r}): put what it does as a script "
            "below if __name__ == '__main__'."
        ) from error
    if not hasattr(module, attribute):
        raise UserError(f"{what} '{name}': {place} has no '{attribute}'.")
    return getattr(module, attribute)


_EXECUTED: dict[Path, tuple[int, ModuleType]] = {}
"""Each file that was executed, with when it had last been written."""


def forget_edited() -> None:
    """Let files that were edited since be executed again when they are next asked for, as in a notebook.

    A run that goes on keeps what it resolved a file to: this is called where a configuration is loaded.
    """
    for path, (written, _) in list(_EXECUTED.items()):
        if not path.is_file() or path.stat().st_mtime_ns != written:
            del _EXECUTED[path]


def _loaded(path: Path) -> ModuleType:
    if path not in _EXECUTED:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None, "a file that ends in .py"
        assert spec.loader is not None, "likewise"
        module = importlib.util.module_from_spec(spec)
        written = path.stat().st_mtime_ns
        spec.loader.exec_module(module)
        _EXECUTED[path] = written, module
    return _EXECUTED[path][1]
