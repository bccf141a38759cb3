"""Names in a recipe become objects, each exactly once per run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from rlgf.errors import UserError, misfit, nearest


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


def build_from(factory: Callable[..., Any], options: Mapping[str, Any], what: str) -> Any:
    """Call a class or function with the options of a recipe.

    Args:
        what: how a message calls the part, such as "task 'imdb'".

    Raises:
        UserError: an option is not known, is missing or does not fit.
    """
    check_options(factory, options, what)
    try:
        return factory(**options)
    except ValidationError as error:
        first = error.errors()[0]
        # A place ends where it names kinds of a union, which are no keys.
        named = itertools.takewhile(lambda part: re.fullmatch(r"\w+", str(part)), first["loc"])
        key = ".".join(map(str, named))
        place = f"{what}, option '{key}' (it is {first['input']!r})" if key else what
        raise UserError(f"{place}: {misfit(first)}.") from error


def check_options(factory: Callable[..., Any], options: Mapping[str, Any], what: str) -> None:
    """Refuse options that a class or function does not take, before it is called.

    Raises:
        UserError: an option is not known or is missing.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # compiled, and says nothing about what it takes
        raise UserError(f"{what} does not say what it takes: name a class or function of your own.") from None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in options:
            if key not in names:
                hint = nearest(key, names) if names else "it takes none."
                raise UserError(f"{what} has no option '{key}': {hint}")
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in options:
            # What was meant for one that is given texts or a split gets the options, and returns what is.
            once = ": a function is called once, with the options alone, and returns the object that is used"
            raise UserError(
                f"{what} needs the option '{parameter.name}'{once if inspect.isroutine(factory) else ''}."
            )


def named_callable(
    name: str, options: Mapping[str, Any], table: Mapping[str, Any], kind: str, call: str
) -> Any:
    """A class or function by its name, not called yet. It, or the objects of a class, must be callable.

    Args:
        kind: how a message calls it, such as "reward".
        call: how it is called, such as "f(completions, **kwargs)".

    Raises:
        UserError: there is none of this name, it cannot be called, or it does not take these options.
    """
    found, what = resolve(name, table, kind), f"{kind} '{name}'"
    made = inspect.isclass(found)
    if not (any("__call__" in vars(one) for one in found.__mro__) if made else callable(found)):
        raise UserError(f"{what} cannot be called: it must be a function such as {call}.")
    if made:
        check_options(found, options, what)
    elif options:
        raise UserError(
            f"{what} is a function, so it takes no options (given: {', '.join(options)}): "
            "make it a class with __init__ and __call__."
        )
    return found


def instance_of(found: Any, options: Mapping[str, Any], what: str) -> Any:
    """An object of a class, made with a recipe's options; a function as it is.

    Args:
        found: see `named_callable`.
        what: how a message calls it, such as "reward 'length'".

    Raises:
        UserError: an option does not fit.
    """
    return build_from(found, options, what) if inspect.isclass(found) else found


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
        # A name of its own, so that no module of the same name is hidden.
        name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, "a file that ends in .py"
        assert spec.loader is not None, "likewise"
        module = importlib.util.module_from_spec(spec)
        written = path.stat().st_mtime_ns
        # Dataclasses and pydantic look up there what the annotations of a class name.
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        _EXECUTED[path] = written, module
    return _EXECUTED[path][1]
