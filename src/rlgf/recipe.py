"""Recipes: reading them, laying one over another, and validating what they come to."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedValueType
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rlgf.errors import IncoherentError, RefusedError, UserError, misfit, nearest
from rlgf.guides.base import GuideSettings
from rlgf.guides.config import kinds
from rlgf.packaged import find_recipe
from rlgf.renamed import hint_on_key, key_for_trls, moved_key

Source = str | Path | Mapping[str, Any]
"""The path of a recipe, the name of a packaged one, an override such as ``update.epochs=2``, or a mapping."""


def laid_over(merged: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe over earlier ones, key by key.

    Raises:
        UserError: a value cannot be read.
    """
    try:
        return OmegaConf.to_container(OmegaConf.merge(_of_one_kind(merged, part), part))  # type: ignore[return-value]  # a mapping
    except UnsupportedValueType as error:
        kind = str(error).split("'")[1]
        raise UserError(
            f"'{error.full_key}' is an object of the class {kind}: a recipe holds plain texts, numbers, lists and mappings; "
            "make a number of NumPy plain with its item(), and give a function as Trainer(reward=function)."
        ) from error
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise UserError(f"a value is not valid YAML for a recipe: {' '.join(str(error).split())}.") from error


def _of_one_kind(merged: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """What of the earlier ones a recipe can be merged with: a list and a mapping take each other's place."""
    kept = {}
    for key, value in merged.items():
        kinds = {
            isinstance(one, Mapping) for one in (value, part.get(key)) if isinstance(one, Mapping | list)
        }
        if len(kinds) < 2:
            within = isinstance(value, Mapping) and isinstance(part.get(key), Mapping)
            kept[key] = _of_one_kind(value, part[key]) if within else value
    return kept


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Mapping[str, Any], given: Collection[str] = ()) -> Model:
    """Validate data, and turn each fault into a sentence, the first of which is the error's.

    Raises:
        RefusedError: the data does not fit the model.
    """
    broken = list(_not_numbers([model], data))
    try:
        found = model.model_validate(data, context={"given": given})
    except ValidationError as error:
        raise RefusedError(broken + _sentences(model, error)) from error
    if broken:
        raise RefusedError(broken)
    return found


def _not_numbers(
    models: Sequence[type[BaseModel]], data: Mapping[str, Any], before: str = ""
) -> Iterator[str]:
    """A sentence for each number that is true or false, which would be read as 1 or 0."""
    for key, value in data.items():
        annotations = [one.model_fields[key].annotation for one in models if key in one.model_fields]
        if isinstance(value, Mapping):
            inner = [one for annotation in annotations for one in _models(annotation)]
            # Of a mapping of models its keys are names.
            yield from _not_numbers(inner if annotations else models, value, f"{before}{key}.")
        elif isinstance(value, bool) and annotations and all(map(_is_number, annotations)):
            yield f"'{before}{key}' (it is {str(value).lower()}): it must be a number."


def _is_number(annotation: Any) -> bool:
    """Whether a field may hold a number, and neither true nor false."""
    kinds = _alternatives(annotation)
    return any(kind in (int, float) for kind in kinds) and not any(kind in (bool, Any) for kind in kinds)


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for argument in get_args(annotation) for kind in _alternatives(argument)]
    return [annotation]


def _sentences(model: type[BaseModel], error: ValidationError) -> list[str]:
    """The faults, the first one to mend first."""
    # A misspelled key also leaves the right one missing: the misspelling is what to mend.
    found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    misspelled = {one["loc"][:-1] for one in found if one["type"] == "extra_forbidden"}
    sentences: list[str] = []
    for one in found:
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, IncoherentError):
            sentences += cause.sentences
        elif one["type"] != "missing" or one["loc"][:-1] not in misspelled:
            sentences.append(_sentence(model, one))
    return list(dict.fromkeys(sentences))


def _sentence(model: type[BaseModel], first: ErrorDetails) -> str:
    path = [str(part) for part in first["loc"] if part != "[key]"]
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        moved = moved_key(path)
        if moved is not None:
            return f"'{where}' has moved: it is now '{moved}'."
        parent = _fields(model, path[:-1])
        if path[-1] in parent:
            kind = ".".join(path[:-1])
            return f"'{where}' does not go with the other keys of '{kind}', which are of another kind: leave it out."
        ours = key_for_trls(path[-1], model.model_fields)
        if ours is not None:
            return f"'{where}' is not a known key: what TRL calls '{path[-1]}' is here '{ours}'."
        hint = hint_on_key(path)
        if hint is not None:
            return f"'{where}' is not a known key: {hint}."
        places = _places(model, path[-1])
        # A key that many sections have says nothing of which one was meant.
        if 0 < len(places) <= _FEW:
            return f"'{where}' is not a known key: there is {' and '.join(places)}."
        return f"'{where}' is not a known key: {nearest(path[-1], parent)}"
    if first["type"] == "missing":
        return f"'{where}' is missing: the recipe must set it."
    message = misfit(first)
    if first["type"] == "string_type" and isinstance(first["input"], int | float):
        message += ": put it in quotes, on a command line as in name=\"'7'\""
    if first["input"] in ("None", "none") and any(
        type(None) in _within(one) for one in _annotations(model, path)
    ):
        message += ", or null"
    if first["type"] == "model_type":
        expected = _fields(model, path)
        message = f"it must be a mapping with keys such as {', '.join(expected)}"
        if first["ctx"]["class_name"] == "Schedule":
            message = "it must be a number, or a mapping such as {start: 0.6, end: 0}"
    if first["type"] == "tuple_type":
        message = _listed(first["input"], _words(model, path))
    value = "null" if first["input"] is None else repr(first["input"])
    given = "" if isinstance(first["input"], dict) or not path else f" (it is {value})"
    return f"'{where}'{given}: {message}." if where else f"{message}."


_FEW = 3


def _places(model: type[BaseModel], key: str) -> list[str]:
    """Where else a key is known: beside the sections, or in one of them."""
    inside = {
        section: _models(field.annotation) for section, field in model.model_fields.items() if section != key
    }
    found = [key] if key in model.model_fields else []
    found += [
        f"{section}.{key}" for section, kinds in inside.items() if any(key in m.model_fields for m in kinds)
    ]
    return [f"'{place}'" for place in found]


def _listed(given: Any, words: Sequence[str]) -> str:
    """The right form where a list was wanted and something else was given: of any words, or of some known ones."""
    if not isinstance(given, str):
        return "it must be a list, such as [], which is empty"
    word = given if given in words or not words else words[0]
    return f"it must be a list, such as [{word}]; [] is none"


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys that are known at a place in the configuration."""
    return sorted({name for m in _parents(model, path) for name in m.model_fields})


def _words(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The words that a place in the configuration takes; none where it takes any."""
    return [word for one in _annotations(model, path) for word in _within(one) if isinstance(word, str)]


def _annotations(model: type[BaseModel], path: Sequence[str]) -> list[Any]:
    """Those of the fields that a place in the configuration may belong to."""
    fields = [m.model_fields for m in _parents(model, path[:-1])]
    return [some[path[-1]].annotation for some in fields if path[-1] in some]


def _parents(model: type[BaseModel], path: Sequence[str]) -> list[type[BaseModel]]:
    """What the keys at a place in the configuration may belong to."""
    models = [model]
    for key in path:
        found = [
            m
            for parent in models
            if key in parent.model_fields
            for m in _models(parent.model_fields[key].annotation)
        ]
        models = found or models
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    found = [one for one in _within(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return [kind for one in found for kind in (kinds() if issubclass(one, GuideSettings) else [one])]


def _within(annotation: Any) -> Iterator[Any]:
    """An annotation, and what it is made of: the kinds of a union, and what a mapping or a list holds."""
    yield annotation
    for argument in get_args(annotation):
        yield from _within(argument)


def read_source(source: str | Path | Mapping[str, Any], folder: str = "") -> dict[str, Any]:
    """What one recipe, override or mapping says, a packaged recipe's name being looked for in ``folder`` first.

    Raises:
        UserError: there is no such recipe, or it is not YAML.
    """
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, str | Path):
        raise UserError(
            "a recipe must be a path, a name, an override such as seed=1 or a mapping (it is a "
            f"{type(source).__name__}); objects have names of their own, such as Trainer(policy=model, reward=function)."
        )
    path = Path(source)
    # Not the method of the path, which raises for a text that is longer than a name may be.
    override = isinstance(source, str) and "=" in source and not os.path.isfile(path)
    if not override:
        path = find_recipe(source, folder)
    what = f"the override {source}" if override else f"the recipe {path}"
    try:
        plain = OmegaConf.to_container(
            OmegaConf.from_dotlist([str(source)]) if override else OmegaConf.load(path)
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not in UTF-8 ({error.reason}): save it as UTF-8.") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        if "cannot start any token" in reason and not override and _indents_by_tabs(path):
            reason += ": there is a tab, and YAML is indented by spaces"
        if override:
            reason += (
                ": a text with braces, brackets or a colon goes into quotes of its own, as in name='\"a: b\"'"
            )
        raise UserError(f"{what} is not valid YAML: {reason}.") from error
    if not isinstance(plain, dict):
        raise UserError(f"{what} must be a mapping of keys to values.")
    found: dict[str, Any] = _with_text_keys(plain)
    return found


def _indents_by_tabs(path: Path) -> bool:
    return any(
        "\t" in line[: -len(line.lstrip())] for line in path.read_text("utf-8").splitlines() if line.strip()
    )


def _with_text_keys(value: Any) -> Any:
    """The same with texts for keys: YAML 1.1 reads the key `on` of a term as true."""
    if isinstance(value, list):
        return [_with_text_keys(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {"on" if key is True else str(key): _with_text_keys(entry) for key, entry in value.items()}
