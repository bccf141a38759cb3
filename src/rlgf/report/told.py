"""An algorithm's row for the page: in the words of `rlgf check`, and as a drawing of an episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlgf.algorithms import Algorithm, Mixture, Span, Term, View, algorithm_from
from rlgf.environments import EnvironmentConfig
from rlgf.errors import UserError
from rlgf.preview.words import hint_words, mixture_words, row_words, term_words
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author


def told_algorithm(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page says of a run's algorithm; None where its row needs code to be understood.

    A run's folder may come from anywhere, so a loss, a rule or an estimator that is named ``file.py:function`` is not
    executed to describe it.
    """
    spec = config.get("algorithm")
    if not isinstance(spec, Mapping) or any(":" in name for name in _functions(spec)):
        return None
    try:
        algorithm = algorithm_from(spec)
        rollout = RolloutConfig.model_validate(config.get("rollout", {}))
        told = config.get("environment")
        environment = None if told is None else EnvironmentConfig.model_validate(told)
    except (UserError, ValueError):  # of another version
        return None
    return {
        "name": algorithm.name,
        "summary": algorithm.summary,
        "equation": algorithm.equation,
        "paper": algorithm.paper,
        "mixture": mixture_words(algorithm) if isinstance(algorithm, Mixture) else None,
        "needs_guide": any(row.needs_guide for row in algorithm.rows),
        "rows": [
            {
                "name": row.name,
                "topics": row_words(row, rollout, environment),
                "terms": [term_words(name, term, row) for name, term in row.terms.items()],
                "drawing": drawing(row),
            }
            for row in algorithm.rows
        ],
    }


def drawing(row: Algorithm) -> dict[str, Any]:
    """An episode as lines of segments from left to right, and below them what each term reads."""
    script, help = row.script, row.help
    after = script.rollout.name.lower()
    whole = [{"author": after, "span": "whole", "text": _writes(script.rollout)}]
    sure = help.members is None and (help.probability.start, help.probability.end) == (1.0, 1.0)
    always = sure and row.foreseen
    if script.rollin is None:
        labels = [f"with {hint_words(script.hint)}"] if script.hint is not None and script.hinted else [""]
        labels += ["without one"] if script.hinted and not always else []
        return {"lines": [{"label": label, "segments": whole} for label in labels], "reads": _reads(row)}
    parts = [
        {
            "author": script.rollin.name.lower(),
            "span": "rollin",
            "text": f"roll-in: {_writes(script.rollin)}",
        },
        {"author": after, "span": "rollout", "text": f"roll-out: {_writes(script.rollout)}"},
    ]
    lines = [{"label": "with a roll-in", "segments": parts}]
    if not always:
        lines.append({"label": "without one", "segments": whole})
    return {"lines": lines, "reads": _reads(row)}


def _reads(row: Algorithm) -> list[dict[str, str]]:
    found = []
    for name, term in row.terms.items():
        span = _span(term, row)
        text = f"{name}: {term.loss}" + (" on the data's own texts" if term.on is Span.REFERENCES else "")
        if row.script.hinted and term.view is View.PROMPT:
            text += " after the prompt without its hint"
        if row.script.hint is not None and row.script.guide_hinted and "guide_distribution" in term.reads:
            text += f", the guide's with {hint_words(row.script.hint)}"
        found.append({"span": span, "text": text})
    return found


def _span(term: Term, row: Algorithm) -> str:
    if row.script.rollin is None or term.on in (Span.WHOLE, Span.REFERENCES):
        return "whole"
    return term.on.value


def _writes(author: Author) -> str:
    taken = {Author.REFERENCE: "the data's own text", Author.PAST: "an earlier success of the policy's"}
    return taken.get(author, f"the {author.name.lower()} writes")


def _functions(spec: Any) -> Iterator[str]:
    """The names of losses, selectors, length rules and estimators anywhere in a row or a mixture."""
    if isinstance(spec, list):  # of terms
        for one in spec:
            yield from [one] if isinstance(one, str) else _functions(one)
    if isinstance(spec, Mapping):
        for key, value in spec.items():
            if key in ("loss", "advantage", "select", "by") and isinstance(value, str):
                yield value
            elif key == "select" and isinstance(value, Mapping):
                yield str(value.get("name"))
            else:
                yield from _functions(value)
