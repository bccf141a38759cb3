"""The one exception that means 'you can mend this', and the lookup of names that suggests how."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend: one sentence that says what is wrong and what would be right."""


class FailedElsewhereError(UserError):
    """Another process of the same run failed, and says why; this one only ends with it."""


class LostProcessError(UserError):
    """Another process of the same run has ended without a word, or has not been heard of for too long."""


def own_traceback(error: BaseException) -> str:
    """The traceback from where it reaches the user's own code; all of it where it never does.

    Control characters, which a message may quote from a generated text, are escaped.
    """
    found = traceback.TracebackException.from_exception(error)
    frames = list(found.stack)
    ours = [i for i, frame in enumerate(frames) if Path(frame.filename).is_relative_to(_PACKAGE)]
    first = min(ours, default=0)
    own = [i for i in range(first, len(frames)) if _is_own(frames[i].filename)]
    if own:
        found.stack = traceback.StackSummary.from_list(frames[own[0] :])
    text = "".join(found.format())
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


_PACKAGE = Path(__file__).parent
_LIBRARIES = [_PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))]


def _is_own(file: str) -> bool:
    """Whether a file is neither ours nor a library's."""
    return not file.startswith("<") and not any(Path(file).is_relative_to(place) for place in _LIBRARIES)


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
