"""Rewards that count in the texts themselves: their length, or a metric of them."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from rlgf.errors import UserError
from rlgf.metrics import build_metrics
from rlgf.metrics.base import metric_values
from rlgf.strict import NamedConfig, Strict


class Length(Strict):
    """A penalty on long texts: minus the words over a target, ``-max(0, words - target)``.

    Words are what stands between spaces. They are counted rather than tokens, since a reward reads
    text, and what a text costs then does not depend on the policy's tokenizer.
    """

    reads_text: ClassVar = True

    target: int = Field(ge=0)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """One number, 0 or less, a completion; see `Reward`."""
        return [float(-max(0, len(text.split()) - self.target)) for text in completions]


class MetricReward:
    """A metric with a value for each text, paid as it is."""

    reads_text = True

    def __init__(self, metric: str, key: str | None = None, options: dict[str, Any] | None = None) -> None:
        """
        Args:
            metric: a name among `rlgf.metrics.METRICS`, or ``module:attribute`` or ``file.py:attribute``.
            key: which of the metric's values, where it has several for each text.
            options: of the metric.

        Raises:
            UserError: there is no such metric, or something that it needs is missing.
        """
        self._metric = build_metrics([NamedConfig(name=metric, options=options or {})])[metric]
        self.metric = metric
        self.key = key

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        """The metric's value of each completion, None where it does not apply to one; see `Reward`.

        Raises:
            UserError: the metric has no value for each text, or several and `key` names none of them.
        """
        columns.setdefault("references", [()] * len(completions))
        given = {**columns, "prompts": prompts, "completions": completions}
        found = metric_values(self._metric, given, self.metric)
        of_text = {name: result.per_text for name, result in found.items() if result.per_text is not None}
        if not of_text:
            raise UserError(
                f"the metric '{self.metric}' cannot be a reward: it has totals alone "
                f"({', '.join(found)}), and a reward needs a value for each text."
            )
        key = next(iter(of_text)) if self.key is None and len(of_text) == 1 else self.key
        if key not in of_text:
            raise UserError(
                f"reward 'metric', option 'key' (it is {self.key!r}): it must name one of the values that "
                f"'{self.metric}' has for each text: {', '.join(of_text)}."
            )
        return list(of_text[key])
