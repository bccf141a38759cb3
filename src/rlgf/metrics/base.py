"""What a metric is, what it may ask of the samples, and how several are computed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, TypeVar, runtime_checkable

from rlgf.calls import arguments, awaited, call, own
from rlgf.errors import UserError, shown
from rlgf.types import Sample, columns_of

Made = TypeVar("Made")
References = Sequence[Sequence[str]]

_REMEMBERED = 200_000
"""Texts of which something is remembered."""


@dataclass(frozen=True)
class MetricResult:
    """What a metric says of texts."""

    total: float | None
    """That of all texts together; None where the metric applies to none."""
    per_text: Sequence[float | None] | None = None
    """That of each text, None for one that the metric does not apply to; None where there is only a total."""

    @staticmethod
    def mean(values: Sequence[float | None]) -> MetricResult:
        """Values whose total is their mean, over the texts that they apply to."""
        said = [value for value in values if value is not None]
        return MetricResult(sum(said) / len(said) if said else None, list(values))


Values = Mapping[str, MetricResult | list[float] | list[float | None] | float]

ARGUMENTS = ("prompts", "completions", "references")
"""What every metric is given. Columns of these names are not passed on."""


@runtime_checkable
class Metric(Protocol):
    """A metric. It returns a `MetricResult` for each of its names: a total, and values per text.

    For short, a list is the values per text, whose mean is the total, and a number is a total alone. None stands for a
    text that the metric does not apply to. The samples' further columns come as keyword arguments, a list with one value
    per text (None where a sample has none). It is called by keyword, with what it takes of these.
    A metric may have an attribute ``needs``, a tuple of what each sample must have: ``"references"`` or the
    name of a column, a list of texts in either case.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Values: ...


def measure(
    metrics: Mapping[str, Metric], samples: Sequence[Sample], texts: Sequence[str]
) -> dict[str, MetricResult]:
    """Every metric of the texts, one text per sample.

    Raises:
        UserError: a metric takes what the samples do not have, or returned another number of values, or one
            that is not finite, or a name that another has returned.
    """
    given = _given(samples, texts)
    found: dict[str, MetricResult] = {}
    owners: dict[str, str] = {}
    for name, metric in metrics.items():
        for key, result in metric_values(metric, given, name).items():
            if key in owners:
                raise UserError(
                    f"the metrics '{owners[key]}' and '{name}' both return '{key}': let one of them return another name."
                )
            owners[key], found[key] = name, result
    return found


def _given(samples: Sequence[Sample], texts: Sequence[str]) -> dict[str, Any]:
    prompts, references = [s.prompt for s in samples], [s.references for s in samples]
    columns = {name: values for name, values in columns_of(samples).items() if name not in ARGUMENTS}
    return {"prompts": prompts, "completions": list(texts), "references": references, **columns}


def metric_values(metric: Metric, given: Mapping[str, Any], name: str) -> dict[str, MetricResult]:
    """Call a metric and make sure of its answer.

    Args:
        given: what it may take, by name: `ARGUMENTS` and columns.

    Raises:
        UserError: it takes something that is not given, or it returned another number of values than texts, or
            one that is not finite.
    """
    # It may change what it is given, which others are given too, and lists of a column are those of the data.
    copied = {
        key: list(map(own, value)) if isinstance(value, list) else value for key, value in given.items()
    }
    (answer,) = awaited([call(metric, copied, ARGUMENTS, f"the metric '{name}'")])
    count = len(given["completions"])
    found: dict[str, MetricResult] = {}
    if isinstance(answer, Mapping) and not answer:
        answer = MetricResult(None)
    # An answer that is not a mapping stands under the metric's own name.
    for key, value in (answer if isinstance(answer, Mapping) else {name: answer}).items():
        result = _result(value, count) if isinstance(key, str) else None
        if result is None:
            raise UserError(
                f"the metric '{name}' must return one finite number (or None) per text or a finite total under "
                f"'{key}' ({count} texts)."
            )
        found[key] = result
    return found


def _result(value: Any, count: int) -> MetricResult | None:
    """What a metric returned under a name; None where that is not finite, or not of all texts."""
    values: Any
    if isinstance(value, MetricResult):
        total, values = value.total, value.per_text
        if total is None and values is None:
            return value
    else:
        plain = value.tolist() if hasattr(value, "tolist") else value
        total, values = (None, plain) if isinstance(plain, list | tuple) else (plain, None)
    if values is not None:
        values = [one.tolist() if hasattr(one, "tolist") else one for one in values]
    if total is not None and not _finite(total):
        return None
    if values is None:
        return None if total is None else MetricResult(float(total))
    if len(values) != count or not all(one is None or _finite(one) for one in values):
        return None
    numbers = [None if one is None else float(one) for one in values]
    return MetricResult.mean(numbers) if total is None else MetricResult(float(total), numbers)


def _finite(number: Any) -> bool:
    try:
        return isinstance(number, Real) and math.isfinite(number)
    except OverflowError:  # a whole number that no float holds
        return False


def check_needs(
    metrics: Mapping[str, Metric], samples: Sequence[Sample], place: Callable[[int], str], remedy: str
) -> None:
    """Refuse samples that lack what a metric needs.

    Args:
        place: how a message calls the sample of a number.
        remedy: what would be right, the end of the message.

    Raises:
        UserError: names the metric, the sample and what it lacks.
    """
    for name, metric in metrics.items():
        for need in getattr(metric, "needs", ()):
            for i, sample in enumerate(samples):
                given = sample.references if need == "references" else sample.columns.get(need)
                if not _texts(given):
                    raise UserError(
                        f"the metric '{name}' needs '{need}', one or more texts that are not blank, and "
                        f"{place(i)} has {shown(given)}: {remedy}."
                    )


def check_samples(metrics: Mapping[str, Metric], samples: Sequence[Sample], where: str) -> None:
    """Refuse samples that lack what a metric needs, or a column that it takes.

    Raises:
        UserError: names the metric, and the sample and what it lacks, or the column.
    """
    remedy = "let the task give it, or take the metric out of 'evaluation.metrics'"
    check_needs(metrics, samples, lambda i: f"sample {i} of {where}", remedy)
    given = _given(samples, [""] * len(samples))
    for name, metric in metrics.items():
        arguments(metric, given, ARGUMENTS, f"the metric '{name}'")


def installed(module: str, metric: str, packages: str) -> Any:
    """The module of a library that not everybody has.

    Raises:
        UserError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"the metric '{metric}' needs a library: pip install {packages} ({error})."
        ) from error


def remembered(
    known: dict[str, Made], texts: Sequence[str], make: Callable[[list[str]], list[Made]]
) -> list[Made]:
    """The result of ``make`` for each text. ``known`` keeps it, since references come again at every evaluation."""
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        if len(known) + len(new) > _REMEMBERED:
            # Remembered texts may be among these, so all of them are done again.
            known.clear()
            new = list(dict.fromkeys(texts))
        known.update(zip(new, make(new), strict=True))
    return [known[text] for text in texts]


def _texts(given: Any) -> bool:
    return (
        isinstance(given, list | tuple)
        and bool(given)
        and all(isinstance(text, str) and text.strip() for text in given)
    )
