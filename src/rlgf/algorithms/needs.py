"""What a row of the catalog needs of the data."""

from __future__ import annotations

from rlgf.algorithms.script import Span
from rlgf.algorithms.spec import Algorithm
from rlgf.types import Author, Sample


def lacking(row: Algorithm, sample: Sample) -> str | None:
    """What a sample lacks of what a row reads, as a sentence; None where it has all."""
    if row.from_pairs and sample.rejected is None:
        return (
            f"algorithm '{row.name}' learns from pairs, and the task's samples have no rejected text: "
            "use the task 'data' with the options 'reference_field: chosen' and 'rejected_field: rejected'."
        )
    hint = row.script.hint
    read = any(term.on is Span.REFERENCES and term.ever for term in row.terms.values())
    shown = hint is not None and hint.reads_reference
    if (read or shown or Author.REFERENCE in row.script.authors) and not sample.references:
        return (
            f"algorithm '{row.name}' needs reference texts, and a sample has none: let the task give them (its "
            "option 'reference_field'), or choose another algorithm."
        )
    for column in () if hint is None else hint.named_columns:
        if column in sample.columns:
            continue
        there = ", ".join(sample.columns) or "none"
        return (
            f"algorithm '{row.name}' takes hints from the column '{column}', and a sample has none (its columns: "
            f"{there}): set 'script.hint.{'columns' if hint and hint.columns else 'column'}' to what the task gives."
        )
    return None
