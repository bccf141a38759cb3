"""What makes a row of the catalog incoherent: each rule is a function from the row to a sentence or nothing."""

from __future__ import annotations

from collections.abc import Callable

from rlgf.algorithms.estimators import ESTIMATORS, Estimator
from rlgf.algorithms.functions import reads_past, rule_misfit
from rlgf.algorithms.hint_rules import (
    hints_have_readers,
    pairs_share_their_prompt,
    tiers_are_tried,
    views_can_be_scored,
)
from rlgf.algorithms.row import KLConfig, Row
from rlgf.algorithms.script import Span
from rlgf.algorithms.terms import LOSSES, OF_CRITIC
from rlgf.registry import resolve
from rlgf.schedules import constant
from rlgf.types import Author

Rule = Callable[[Row], str | None]


def misfit(row: Row) -> str | None:
    """The first thing that does not fit together in a row, as a clause; None where all does."""
    return next(filter(None, (rule(row) for rule in RULES)), None)


def known_estimator(row: Row) -> str | None:
    named = None if row.advantage is None else resolve(row.advantage, ESTIMATORS, "algorithm.advantage")
    wrong = (
        f"the advantage '{row.advantage}' must be an rlgf.algorithms.Estimator: write NAME = Estimator(function) in its "
        "file and name that"
    )
    return None if isinstance(named, Estimator | None) else wrong


def callable_losses(row: Row) -> str | None:
    return next(filter(None, (term.misfit(name) for name, term in row.terms.items())), None)


def trains_the_policy(row: Row) -> str | None:
    if all(term.of_critic or not term.ever for term in row.terms.values()):
        return f"no term trains the policy: give 'terms' one with a weight above 0 and a loss such as {', '.join(LOSSES)}"
    return None


def every_segment_has_an_author(row: Row) -> str | None:
    reads = any(term.on is Span.ROLLIN for term in row.terms.values())
    if row.script.rollin is None and (reads or (row.help.ever and row.script.hint is None)):
        return "it reads or draws a roll-in, so 'script.rollin' must name who writes it"
    return None


def advantages_are_estimated(row: Row) -> str | None:
    for name, term in row.terms.items():
        if row.advantage is None and term.asks & {"advantages", "returns", "difference"}:
            return (
                f"the loss '{term.loss}' of the term '{name}' reads an advantage: set 'advantage' to "
                f"{', '.join(ESTIMATORS)} or your own"
            )
    weighed = row.paired or any(term.reads & {"advantages", "returns"} for term in row.terms.values())
    if row.advantage is not None and not weighed:
        return f"no term reads the advantage '{row.advantage}': set 'advantage: null', or a loss that weighs by it"
    if row.whiten and not row.paired and (row.reads_branches or not row.needs_reward):
        return "whitened advantages are scaled by the rewards, and it does not read those alone: leave 'whiten' out"
    return None


def lambda_has_a_reader(row: Row) -> str | None:
    # An estimator of a user's own may read it. `gamma` is the task's, and stays whatever the algorithm.
    reads = row.advantage is not None and (row.advantage == "gae" or row.advantage not in ESTIMATORS)
    if reads or row.gae_lambda == Row.model_fields["gae_lambda"].default:
        return None
    return f"'gae_lambda' {row.gae_lambda} is read by the advantage 'gae' alone (it is {row.advantage!r}): leave it out"


def pairs_meet_losses_over_pairs(row: Row) -> str | None:
    if any(term.paired for term in row.terms.values()) != row.paired:
        pairings = ", ".join(name for name, e in ESTIMATORS.items() if e.paired)
        return (
            f"pairs are picked by the advantages {pairings} and learned from by losses over pairs "
            "(dpo, rebel): set one of each, or neither"
        )
    for name, term in row.terms.items():
        if (term.on is Span.WHOLE) != term.paired:
            return f"a loss over pairs, and no other, reads whole texts: set 'on: whole' for the term '{name}' if it is one"
        if row.paired and "advantages" in term.asks:
            return f"the term '{name}' reads advantages of tokens, and '{row.advantage}' picks pairs of texts: leave the term out"
    if row.paired and (row.whiten or row.value_term is not None):
        return "a loss over pairs needs no critic and no whitening: leave the value term and 'whiten' out"
    if row.from_pairs and row.script.rollin is not None:
        return "pairs of the data are whole texts: leave 'script.rollin' out"
    if row.paired and not row.needs_reward and not row.from_pairs:
        return (
            f"the advantage '{row.advantage}' takes pairs as the data ranks them: set 'script.rollout: reference', or "
            "'advantage: preference' to rank by a reward"
        )
    return None


def branches_have_readers(row: Row) -> str | None:
    if row.reads_branches != (row.branches is not None):
        return (
            "texts branch off for an advantage that values states by them: set 'advantage: branched' and 'branches: "
            "{every: 16, texts: 4}', or another advantage and 'branches: null'"
        )
    if row.branches is not None and row.script.rollout is Author.REFERENCE:
        return "the data's texts do not go on from any state: set 'script.rollout' to policy or guide for 'branches'"
    return None


def ratios_are_to_the_writer(row: Row) -> str | None:
    for name, term in row.terms.items():
        if "old_logprobs" in term.asks and row.script.author(term.on) not in (Author.POLICY, Author.PAST):
            return (
                f"the loss '{term.loss}' of the term '{name}' needs the probabilities of who wrote the {term.on}, so the "
                "policy must have: set another 'on', or a loss that does without, such as nll, policy_gradient or shaped_importance"
            )
        if term.on is Span.ROLLIN and term.weighs_advantages and row.members_alike:
            return (
                "the advantages of a group cancel over a roll-in that its members share: set "
                f"'help.shared: false', or 'loss: nll' for the term '{name}'"
            )
    return None


def critics_judge_who_finishes(row: Row) -> str | None:
    for name, term in row.terms.items():
        if term.reads & OF_CRITIC and not term.of_critic:
            odd = ", ".join(sorted(term.reads & OF_CRITIC))
            return f"the loss '{term.loss}' of the term '{name}' reads {odd} and trains no critic: let it read 'values' too"
        if "returns" in term.reads and row.estimator is not None and not row.estimator.returns:
            return (
                f"the loss '{term.loss}' of the term '{name}' reads returns, and the advantage '{row.advantage}' "
                "estimates none: set 'advantage: gae', or take the term out"
            )
        if term.reads & OF_CRITIC and term.on is not Span.ROLLOUT:
            return f"a value is that of who finishes the text: set 'on: rollout' for the term '{name}'"
    if sum(term.of_critic for term in row.terms.values()) > 1:
        return "two terms train the critic: keep one of them"
    if row.advantage == "gae" and row.value_term is None:
        return "the advantage 'gae' needs a critic: give 'terms' one with the loss 'value'"
    return None


def groups_are_large_enough(row: Row) -> str | None:
    if row.grouped and row.group_size < 2:
        return f"it compares the members of a group: 'group_size' must be 2 or more (it is {row.group_size})"
    if row.from_pairs and row.group_size != 2:
        return f"it learns from given pairs: set 'group_size: 2' (it is {row.group_size})"
    if (row.help.members or 0) > row.group_size:
        return f"'help.members' {row.help.members} exceeds 'group_size' {row.group_size}: lower it, or make groups larger"
    return None


def help_can_be_given(row: Row) -> str | None:
    script, help = row.script, row.help
    drawn = max(help.probability.start, help.probability.end) > 0
    nobody = script.rollin is None and script.hint is None
    if help.members is not None and (nobody or help.shared or drawn):
        return (
            "'help.members' says how many members of a group have a roll-in of their own: set 'script.rollin' to who "
            "writes it, 'help.shared: false', and no 'help.probability'; or 'help.members: null'"
        )
    begun = script.rollin in (None, Author.POLICY) and script.hint is None
    if help.length.whole and (begun or (row.members_alike and script.hint is None)):
        return (
            "'help.length.whole' gives an episode to the author of its roll-in: set 'script.rollin' to guide or "
            "reference, and in groups 'help.shared: false', so that members differ"
        )
    return None


def callable_length(row: Row) -> str | None:
    law = row.help.length
    return rule_misfit(law.by, law.options, bounded=(law.low, law.high) != (constant(0.0), constant(1.0)))


def help_can_depend_on_successes(row: Row) -> str | None:
    help, law = row.help, row.help.length
    if help.success is not None and not row.needs_reward:
        return "'help.success' says what a text has to earn: it needs an 'advantage' that reads a reward"
    depends = "gate" if help.gate is not None else "length.by" if reads_past(law.by) else None
    if depends is None:
        return None
    if help.success is None:
        return f"'help.{depends}' counts successes: set 'help.success' to what a text has to earn to be one, such as 0.5"
    hint = row.script.hint
    if row.script.rollin in (None, Author.POLICY) and hint is None:
        return (
            f"'help.{depends}' gives help by what it takes: it needs a 'script.rollin' of guide or reference, or a "
            "'script.hint'"
        )
    if law.by == "trial" and hint is not None and not row.tiers:
        return (
            "'help.length.by: trial' cuts a beginning shorter within the update: with a 'script.hint' set 'by' to law, record "
            "or difficulty, or give the hint tiers ('shares' or 'columns')"
        )
    if (law.by == "record" or (law.by == "trial" and hint is None)) and not help.shared:
        return f"'help.length.by: {law.by}' judges help by all texts that had it: set 'help.shared: true'"
    if law.by == "trial" and not help.looks_first:
        return "'help.length.by: trial' looks for help where texts failed: set 'help.gate: {looks_at: group}'"
    return None


def a_steered_penalty_weighs(row: Row) -> str | None:
    steers = row.kl.target is not None
    if not steers and row.kl.horizon != KLConfig().horizon:
        return "'kl.horizon' steers nothing without 'kl.target': set that too, or leave 'kl.horizon' out"
    if steers and row.kl_penalty is None:
        return "'kl.target' steers a penalty that nothing reads here: give 'terms' one with the loss 'kl', or set 'kl.target: null'"
    if steers and not row.kl.coefficient:
        return "'kl.target' multiplies 'kl.coefficient', and 0 stays 0: set 'kl.coefficient' to where it starts, such as 0.001"
    return None


def the_rollin_has_an_author_of_its_own(row: Row) -> str | None:
    # Which tokens are of the roll-in is told by who wrote them.
    if row.script.rollin is not row.script.rollout:
        return None
    return (
        f"'script.rollin' and 'script.rollout' are both {row.script.rollout.name.lower()}, so that nothing tells the two "
        "apart: leave 'script.rollin' out, or name another author"
    )


def the_rollin_is_given(row: Row) -> str | None:
    # With another term a probability of 0 is the same algorithm without its guide.
    if row.help.ever or any(not term.of_critic and term.on is not Span.ROLLIN for term in row.terms.values()):
        return None
    return "all that the policy learns from is a roll-in that is never given: set 'help.probability' or 'help.members'"


def examples_are_shown_to_a_reward_that_learns(row: Row) -> str | None:
    if row.examples is Author.REFERENCE:
        return None
    if row.examples is not Author.GUIDE:
        return "a reward that learns compares the policy's texts with those of others: set 'examples' to reference or guide"
    if not row.learned_reward:
        return "'examples' are shown to a reward that learns: set 'learned_reward: true' too, or leave 'examples' out"
    return None


def the_past_begins_texts(row: Row) -> str | None:
    past = row.script.helper is Author.PAST
    if Author.PAST in (row.script.rollout, row.examples) or (past and row.script.hinted):
        return (
            "the policy's past is no more than texts that were written: name 'past' as 'script.rollin', or as the author "
            "of a hint that the guide alone reads ('reader: guide')"
        )
    if past and row.help.success is None:
        return (
            "the author 'past' gives texts of the policy's that succeeded at an earlier visit: set 'help.success' to "
            "what a text has to earn to be one, such as 0.5"
        )
    return None


def start_values_are_read(row: Row) -> str | None:
    reads = row.estimator is not None and row.estimator.reads_start
    if reads != (row.start_value is not None):
        return (
            "'start_value' says how the advantage 'over_start' estimates the value of a prompt: set both, such as "
            "'start_value: {texts: 8, beta: 0.5}', or neither"
        )
    if reads and (row.script.rollout is not Author.POLICY or row.script.rollin or row.script.hint):
        return "a start value is that of the bare prompt: let the policy write whole texts, without roll-ins and hints"
    if reads and (row.learned_reward or row.whiten):
        return "a start value stays as first estimated, and is compared with what texts earn: leave 'learned_reward' and 'whiten' out"
    return None


RULES: tuple[Rule, ...] = (
    known_estimator,
    callable_losses,
    trains_the_policy,
    every_segment_has_an_author,
    pairs_meet_losses_over_pairs,
    advantages_are_estimated,
    lambda_has_a_reader,
    branches_have_readers,
    ratios_are_to_the_writer,
    critics_judge_who_finishes,
    groups_are_large_enough,
    help_can_be_given,
    callable_length,
    help_can_depend_on_successes,
    hints_have_readers,
    tiers_are_tried,
    views_can_be_scored,
    a_steered_penalty_weighs,
    examples_are_shown_to_a_reward_that_learns,
    start_values_are_read,
    the_past_begins_texts,
    pairs_share_their_prompt,
    the_rollin_has_an_author_of_its_own,
    the_rollin_is_given,
)
