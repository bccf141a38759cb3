"""How a recipe picks a row of the catalog, or changes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlgf.algorithms.catalog import ALGORITHMS
from rlgf.algorithms.spec import Algorithm, AnyAlgorithm, Mixture, merged
from rlgf.algorithms.terms import LOSSES
from rlgf.errors import UserError, nearest


def algorithm_from(spec: Any) -> AnyAlgorithm:
    """An algorithm from what a recipe says: a name, a row, or ``base`` with changed fields.

    Changes without a ``base`` or a ``name`` are changes to `ppo`. What a mixture has only in its rows is changed in
    both of them; each of these can be named, or have a ``base``, too.

    Raises:
        UserError: ``base`` is not in the catalog, or a row of a mixture is itself a mixture.
        ValueError: it is neither a name nor a mapping, or a field does not fit.
    """
    if isinstance(spec, Algorithm | Mixture):
        return spec
    if isinstance(spec, str):
        spec = {"base": spec}
    if not isinstance(spec, Mapping):
        raise ValueError("it must be a name such as 'ppo++', or a mapping with 'base' or 'name'")
    changes = {key: value for key, value in spec.items() if key != "base"}
    if "base" not in spec and "name" in spec:
        rows = {key: _member(key, changes[key]) for key in _MEMBERS if key in changes}
        return (Mixture if rows else Algorithm).model_validate(changes | rows)
    if "base" not in spec and any(key in spec for key in _MEMBERS):
        raise ValueError(
            "'imitate' and 'explore' make a mixture: give it a 'name', or a 'base' such as 'lols'"
        )
    base = str(spec.get("base", "ppo"))
    if base not in ALGORITHMS:
        raise UserError(f"algorithm '{base}' is not known: {nearest(base, ALGORITHMS)}")
    row = ALGORITHMS[base]
    _check_terms(changes.get("terms"), row)
    if isinstance(row, Mixture):
        of_rows = {key: changes.pop(key) for key in [*changes] if key in _OF_ROWS}
        for name in _MEMBERS:
            own = changes.get(name, {})
            changes[name] = _member(name, merged(of_rows, {"base": own} if isinstance(own, str) else own))
    return type(row).model_validate(merged(row.model_dump(), changes))


def _check_terms(terms: Any, row: AnyAlgorithm) -> None:
    """
    Raises:
        UserError: a change is of a term that the row has not.
    """
    own = {name for one in row.rows for name in one.terms}
    for name, term in terms.items() if isinstance(terms, Mapping) else ():
        if isinstance(term, Mapping) and "loss" not in term and name not in own and name not in LOSSES:
            raise UserError(
                f"'algorithm.terms' changes '{name}', and '{row.name}' has no such term: {nearest(name, own)} A new one needs a "
                "'loss', or the name of one."
            )


def _member(key: str, spec: Any) -> Any:
    """A row of a mixture, where it is named or changes one that is; anything else as it stands."""
    if not isinstance(spec, str) and not (isinstance(spec, Mapping) and "base" in spec):
        return spec
    row = algorithm_from(spec)
    if isinstance(row, Mixture):
        raise UserError(f"'algorithm.{key}' is the mixture '{row.name}': name an algorithm of one row.")
    return row


_MEMBERS = ("imitate", "explore")
_OF_ROWS = Algorithm.model_fields.keys() - Mixture.model_fields.keys()


def carried(old: Mapping[str, Any], base: str) -> dict[str, Any]:
    """What stays of a recipe's algorithm where a later recipe names another: what belongs to the task and its rewards.

    That is the discount, the KL penalty where it has a place, terms that the recipe added, and how much the value loss
    weighs, for an algorithm that has one.
    """
    kept = {key: old[key] for key in ("gamma", "kl") if key in old}
    terms, before, after = old.get("terms"), _terms_of(old.get("base", "ppo")), _terms_of(base)
    if isinstance(terms, Mapping):
        stays = {
            name: term
            for name, term in terms.items()
            if name not in before or (name == "value" and name in after)
        }
        kept |= {"terms": stays} if stays else {}
    row = ALGORITHMS.get(base)
    if row is not None and "terms" not in kept and all(one.kl_penalty is None for one in row.rows):
        kept.pop("kl", None)
    return kept


def _terms_of(base: str) -> set[str]:
    """The names of the terms of an algorithm's rows; none for an unknown one."""
    row = ALGORITHMS.get(base)
    return {name for one in row.rows for name in one.terms} if row is not None else set()
