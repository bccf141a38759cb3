"""The one exception that means 'you can mend this', and what its sentences are made of."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlgf.terminal import visible


class UserError(Exception):
    """Something the user can mend: one sentence that names the fault and the remedy."""


class RefusedError(UserError):
    """A configuration with one thing wrong or several; as an error it says the first."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__(sentences[0])
        self.sentences = sentences


class IncoherentError(ValueError):
    """The sections of a configuration do not fit together; for `pydantic`, which turns it into its own error."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__(sentences[0])
        self.sentences = sentences


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
    return visible(text, kept="\n\t")


_PACKAGE = Path(__file__).parent
_LIBRARIES = [_PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))]


def _is_own(file: str) -> bool:
    """Whether a file is neither ours nor a library's."""
    return not file.startswith("<") and not any(Path(file).is_relative_to(place) for place in _LIBRARIES)


def one_line(said: object, most: int) -> str:
    """What an error of somebody else's says, as a part of a sentence of at most ``most`` characters."""
    return " ".join(str(said).split())[:most].rstrip(".")


def not_expanded(path: str | Path) -> str:
    """The end of a sentence about a path that begins with the home folder's sign; empty for any other."""
    return f"; '~' is not expanded: write {Path.home()} in its place" if str(path).startswith("~") else ""


def shown(value: object) -> str:
    """A value as a part of a sentence: a long one is cut."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def misfit(found: Mapping[str, Any]) -> str:
    """What one of the errors of `pydantic` says, without a full stop and in words that need no knowledge of it."""
    words = _MISFITS.get(found["type"])
    if words is None:
        return str(found["msg"]).removeprefix("Value error, ").removesuffix(".")
    return words.format_map(found.get("ctx", {}))


_WHOLE, _NUMBER, _TRUTH = "it must be a whole number", "it must be a number", "it must be true or false"
_MISFITS: Mapping[str, str] = {
    "path_type": "it must be a path",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _TRUTH),
    "string_type": "it must be a text",
    "dict_type": "it must be a mapping of names to values",
    "finite_number": "it must be a finite number",
    "greater_than": "it must be more than {gt:.10g}",
    "greater_than_equal": "it must be at least {ge:.10g}",
    "less_than": "it must be less than {lt:.10g}",
    "less_than_equal": "it must be at most {le:.10g}",
    "too_short": "it must have at least {min_length} entries (it has {actual_length})",
    "literal_error": "it must be {expected}",
}
"""What the errors of `pydantic` say here, by their type; what it puts into a sentence stands in braces."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence, which points from an unknown name to the nearest known one."""
    known = sorted(known)
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.65)
    close = close or [word for word in by_lower if len(name) > 2 and word.startswith(name.lower())]
    listed = ", ".join(known)
    return f"did you mean '{by_lower[close[0]]}'? Known: {listed}." if close else f"choose from {listed}."
