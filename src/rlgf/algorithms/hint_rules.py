"""Where a row may have hints: who reads them, in which tiers, and which prompt its terms learn from."""

from __future__ import annotations

from rlgf.algorithms.row import Row
from rlgf.algorithms.script import Span, View
from rlgf.schedules import constant
from rlgf.types import Author


def tiers_are_tried(row: Row) -> str | None:
    law = row.help.length
    if not row.tiers:
        return None
    if law.by != "trial":
        return (
            "the tiers of a hint ('script.hint.shares', 'columns') are tried one after another where texts failed: set "
            "'help.length.by: trial' and 'help.gate: {looks_at: group}'"
        )
    if (law.low, law.high) != (constant(0.0), constant(1.0)):
        return "the tiers of a hint say how much of it is given: leave 'help.length.low' and 'high' out"
    return None


def hints_have_readers(row: Row) -> str | None:
    if row.script.hint is None:
        return None
    if row.script.rollin is not None:
        return "an episode is helped by a roll-in or by a hint: leave 'script.rollin' or 'script.hint' out"
    if row.reads_guide_scores:
        return f"the advantage '{row.advantage}' scores texts after the prompts of the data: leave 'script.hint' out"
    if row.script.rollout is Author.REFERENCE or row.from_pairs:
        return "a text of the data reads no hint: set 'script.rollout' to policy or guide, or leave 'script.hint' out"
    if not row.help.ever:
        return "its hint is never given: set 'help.probability' or 'help.members', or leave 'script.hint' out"
    return _unread(row) if row.script.guide_hinted else None


def _unread(row: Row) -> str | None:
    """What keeps the guide from reading the hints that are for it alone."""
    if not row.distills:
        return (
            "its hint is for the guide ('script.hint.reader'), and no term learns from the guide's probabilities: give "
            "'terms' one with the loss 'distillation', or set 'reader: writer'"
        )
    if row.script.rollout is not Author.POLICY:
        return (
            "a hint for the guide alone helps to judge what the policy writes: set 'script.rollout: policy', or "
            "'script.hint.reader: writer'"
        )
    if row.help.length.by == "record":
        return (
            "'help.length.by: record' judges a hint by the texts after it, and the guide alone reads this one: set 'by' to "
            "law or difficulty, or 'script.hint.reader: writer'"
        )
    if row.help.looks_first:
        return (
            "a hint for the guide alone changes no text, so none is written again: set 'help.gate.looks_at: record', or "
            "'script.hint.reader: writer'"
        )
    return None


def pairs_share_their_prompt(row: Row) -> str | None:
    if not row.paired or not row.script.hinted or row.help.shared:
        return None
    return (
        "a loss over pairs compares texts that were written after one prompt: let a group share its hint, with "
        "'help.shared: true', and 'help.probability' in place of 'help.members'"
    )


def views_can_be_scored(row: Row) -> str | None:
    for name, term in row.terms.items():
        if term.view is View.WRITTEN:
            continue
        if term.paired or term.of_critic or term.on is Span.REFERENCES:
            return (
                f"the term '{name}' has no other view than its texts were written with: leave its 'view' out"
            )
        if row.script.hinted and term.penalizes_kl and row.kl.target is not None:
            return (
                f"the term '{name}' penalizes KL after the bare prompt, and 'kl.target' is one of texts as they were written, "
                "after a hint: leave 'kl.target' out"
            )
        if row.script.hinted and row.kl_penalty == "reward" and term.weighs_advantages:
            return (
                f"the term '{name}' learns after the bare prompt, and a KL penalty in the rewards is that of texts after "
                "a hint: give 'terms' one with the loss 'kl' and 'view: prompt', which takes it out of the rewards"
            )
    return None
