"""Numbers over finished texts."""

from collections.abc import Mapping, Sequence

from rlgf.metrics.base import Metric, MetricResult, check_needs, measure
from rlgf.metrics.text import distinct, repetition, words
from rlgf.registry import instance_of, named_callable
from rlgf.strict import NamedConfig

METRICS: Mapping[str, str] = {
    "distinct": "rlgf.metrics.text:distinct",
    "repetition": "rlgf.metrics.text:repetition",
    "words": "rlgf.metrics.text:words",
    "msttr": "rlgf.metrics.text:msttr",
    "entropy": "rlgf.metrics.text:entropy",
    "bleu": "rlgf.metrics.overlap:Bleu",
    "sacrebleu": "rlgf.metrics.overlap:Sacrebleu",
    "self_bleu": "rlgf.metrics.overlap:SelfBleu",
    "rouge": "rlgf.metrics.overlap:Rouge",
    "meteor": "rlgf.metrics.overlap:Meteor",
    "cider_d": "rlgf.metrics.overlap:CiderD",
    "spice": "rlgf.metrics.meaning:Spice",
    "spice_stand_in": "rlgf.metrics.meaning:SpiceStandIn",
    "bertscore": "rlgf.metrics.learned:BertScore",
    "bleurt": "rlgf.metrics.learned:Bleurt",
    "concept_coverage": "rlgf.metrics.meaning:ConceptCoverage",
    "sari": "rlgf.metrics.text:sari",
}
"""Where each metric is, by name: functions, and classes that are made with a recipe's options."""

TEXT_METRICS: Mapping[str, Metric] = {"distinct": distinct, "repetition": repetition, "words": words}
"""Those that are computed where nothing is said: they need nothing but the texts."""


def build_metrics(configs: Sequence[NamedConfig]) -> dict[str, Metric]:
    """The metrics of a recipe, by name.

    Making one imports its library and looks for what else it needs, and loads no model.

    Raises:
        UserError: there is no such metric (with the nearest known one), an option is not known, a library
            or another resource is missing (with what to install).
    """
    built = {}
    for config in configs:
        name, options = config.name, config.options
        call = "f(prompts, completions, references, **columns)"
        found = named_callable(name, options, METRICS, "the metric", call)
        built[name] = instance_of(found, options, f"the metric '{name}'")
    return built


__all__ = [
    "METRICS",
    "TEXT_METRICS",
    "Metric",
    "MetricResult",
    "build_metrics",
    "check_needs",
    "measure",
]
