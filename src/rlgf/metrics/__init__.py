"""Numbers over finished texts."""

from rlgf.metrics.text import TEXT_METRICS, Metric

__all__ = ["TEXT_METRICS", "Metric"]
