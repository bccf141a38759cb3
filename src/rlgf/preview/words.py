"""An algorithm's row in plain words."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from rlgf.algorithms import ESTIMATORS, Algorithm, Hint, Mixture, Span, Term, View
from rlgf.algorithms.functions import LENGTH_RULES
from rlgf.algorithms.terms import READABLE
from rlgf.environments import EnvironmentConfig
from rlgf.rollout.config import RolloutConfig
from rlgf.schedules import Schedule, constant
from rlgf.types import Author

_WHO = {
    Author.POLICY: "the policy",
    Author.GUIDE: "the guide",
    Author.REFERENCE: "the data's own text",
    Author.PAST: "a text of the policy's that succeeded at an earlier visit",
}
_WHOSE = {Author.REFERENCE: "the data's", Author.PAST: "the policy's of earlier visits"}

_SHOWN = {Author.REFERENCE: "the data's own texts", Author.GUIDE: "a text of the guide's for each prompt"}
_CHOSEN = {
    "record": "its length is drawn between the longest that was too short for the prompt and the shortest after which {many} "
    "succeeded",
    "trial": "its length is the shortest of {tries} tries after which {many} succeed",
    "difficulty": "its share of the text is the share of the prompt's texts that failed",
}


def schedule(number: Schedule) -> str:
    """Such as ``0.6, falling to 0 over the run (linear)``."""
    if number.start == number.end:
        words = f"{number.start:g}"
    elif number.shape == "step":
        words = f"{number.start:g}, and {number.end:g} from {number.over:.0%} of the run on"
    else:
        way = "falling" if number.end < number.start else "rising"
        where = "over the run" if number.over == 1 else f"over the first {number.over:.0%} of the run"
        words = f"{number.start:g}, {way} to {number.end:g} {where} ({number.shape})"
    return words + (
        f", times a warm-up from 0 to 1 over the first {number.warmup:.0%} of the run"
        if number.warmup
        else ""
    )


def row_words(
    row: Algorithm, rollout: RolloutConfig, environment: EnvironmentConfig | None = None
) -> Mapping[str, str]:
    """Who writes, who helps and how advantages are estimated, by topic."""
    turns = None if environment is None else environment.turns
    return {
        "script": script(row),
        **({} if environment is None else {"dialogue": dialogue(environment)}),
        "help": help_words(row, rollout, turns),
        "group": "one text for each prompt"
        if row.group_size == 1
        else f"{row.group_size} texts for each prompt",
        **({"reward learns from": f"{_SHOWN[row.examples]}, and the policy's"} if row.learned_reward else {}),
        "advantage": advantage(row, "tokens" if turns is None else "turns"),
        "KL penalty": kl(row),
    }


def script(row: Algorithm) -> str:
    who = _WHO[row.script.rollout]
    if row.from_pairs:
        return "the data's preferred and rejected text of each prompt, whole"
    hint = ", where it is helped after a hint" if row.script.hinted else ""
    if row.script.rollin is None:
        return f"{who} {'is taken' if row.script.rollout is Author.REFERENCE else 'writes'} whole, from the prompt on{hint}"
    return f"{_WHO[row.script.rollin]} begins, {who} goes on"


def dialogue(environment: EnvironmentConfig) -> str:
    who = "an environment" if environment.name is None else f"the environment '{environment.name}'"
    return f"{who} answers each turn, of which there are {environment.turns} at most"


def help_words(row: Algorithm, rollout: RolloutConfig, turns: int | None = None) -> str:
    """How often, how long and after which gate somebody begins for another; ``turns`` are those of a dialogue at most."""
    help, hint, author = row.help, row.script.hint, row.script.helper
    if author is None and hint is None:
        return "none: every text begins at its prompt"
    if help.members is not None:
        what = "beginning" if hint is None else "hint"
        often = f"exactly {help.members} of the {row.group_size} texts of each prompt, each with a {what} of its own"
    else:
        one = (
            "text"
            if row.group_size == 1 or not help.shared
            else f"group of {row.group_size}, which shares it"
        )
        often = f"each {one}, with probability {schedule(help.probability)}"
    if row.script.guide_hinted:
        assert hint is not None, "it has one"
        return (
            f"{often}; {_hint(row, hint, rollout)}; the guide that is learned from reads it, and nobody else"
        )
    if hint is not None:
        return f"{often}; {_hint(row, hint, rollout)}; {_gate(row)}"
    assert author is not None, "it has no hint"
    return f"{often}; {_length(row, rollout.limit(author), turns)}; {_gate(row)}"


def _hint(row: Algorithm, hint: Hint, rollout: RolloutConfig) -> str:
    """Where a hint comes from, and how long it is."""
    written = hint.author in (Author.GUIDE, Author.POLICY)
    length = _tiers(row, hint) if hint.tiers else _length(row, rollout.max_hint_tokens if written else None)
    return f"{hint_words(hint)}; {length}; with its template at most {rollout.max_hint_tokens} tokens"


def hint_words(hint: Hint) -> str:
    """Where a hint comes from."""
    if hint.author is None:
        columns = "', then '".join(hint.named_columns)
        return f"a hint from the column '{columns}'"
    if hint.author is Author.REFERENCE:
        return "a hint from the data's own text"
    if hint.author is Author.PAST:
        return f"a hint that is {_WHO[Author.PAST]}"
    return f"a hint that {_WHO[hint.author]} writes"


def mixture_words(mixture: Mixture) -> str:
    """Which of the two rows an update runs."""
    often = schedule(mixture.explore_prob)
    return f"Each update runs {mixture.explore.name} with probability {often}, else {mixture.imitate.name}."


def _tiers(row: Algorithm, hint: Hint) -> str:
    shares = ", ".join(f"{share:.0%}" for share in hint.shares)
    how = f"{shares} of it" if shares else "each whole"
    return f"{how}, one after another until {_enough(row)} succeed"


def _enough(row: Algorithm) -> str:
    share = row.help.length.enough
    return f"more than {share:.0%} of the texts" if share else "some texts"


def _gate(row: Algorithm) -> str:
    """Who is helped."""
    gate, help = row.help.gate, row.help
    if gate is None:
        return f"{_WHO[row.script.rollout]} writes the others from the prompt on"
    least = f"{help.success:g} or more"
    if gate.high:
        which = f"of whose texts {gate.low:.0%} to {gate.high:.0%} earned {least}"
    else:
        which = f"of whose texts none earned {least}"
    if gate.looks_at == "group":
        return f"only groups {which} on their own; the texts that are helped are then written again"
    when = "at their last visit" if gate.failures == 1 else f"at their last {gate.failures} visits"
    return f"only prompts {which} {when}"


def advantage(row: Algorithm, unit: str) -> str:
    """``unit`` is what states that texts branch off from are counted in."""
    if row.advantage is None:
        return "none: no loss reads one"
    words = row.advantage
    if row.advantage == "gae" or row.advantage not in ESTIMATORS:
        words += f", gamma {row.gamma:g}, lambda {row.gae_lambda}"
    if row.start_value is not None:
        words += f", the prompt's value from {row.start_value.texts} texts of the start, once (beta {row.start_value.beta:g})"
    if row.whiten:
        words += ", whitened over the tokens whose losses read it"
    if row.branches is not None:
        words += f": a state in {row.branches.every} {unit}, {row.branches.texts} texts from each"
    return words + (f"; critic: values of the {row.critic}" if row.critic else "")


def kl(row: Algorithm) -> str:
    """How large the penalty for leaving the frozen start is, and where it stands."""
    if row.kl_penalty is None:
        return "none"
    size = f"coefficient {row.kl.coefficient:g}"
    if row.kl.target is not None:
        size += f" at first, steered to {row.kl.target:g} nats per token over {row.kl.horizon:g} updates"
    if row.kl_penalty == "loss":
        return f"{size}, times the weight of its term, in the loss"
    return f"{size}, taken off the reward of each of the policy's tokens"


def term_words(name: str, term: Term, row: Algorithm) -> list[str]:
    """A term's name, loss, tokens, weight and options."""
    parameters = inspect.signature(term.function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in READABLE}
    taken = {key: value for key, value in {**defaults, **term.options}.items() if value is not None}
    options = ", ".join(f"{key} {value}" for key, value in taken.items())
    tokens = _tokens(term.on, row) + _selected(term) + _view(term, row)
    return [name, term.loss, tokens, schedule(term.weight), options]


def _view(term: Term, row: Algorithm) -> str:
    if not row.script.hinted or term.on is Span.REFERENCES:
        return ""
    return (
        ", after the prompt without its hint"
        if term.view is View.PROMPT
        else ", after the prompt as it was read"
    )


def _selected(term: Term) -> str:
    if term.select is None:
        return ""
    options = "".join(f", {key} {value}" for key, value in term.select.options.items())
    return f", weighed by {term.select.name}{options}"


def _tokens(span: Span, row: Algorithm) -> str:
    if span is Span.WHOLE:
        return "whole texts"
    if span is Span.REFERENCES:
        return "the data's own texts"
    author = row.script.author(span)
    whose = _WHOSE.get(author, f"{_WHO[author]}'s")
    return f"{whose} ({'roll-in' if span is Span.ROLLIN else 'roll-out'})"


def _length(row: Algorithm, limit: int | None, turns: int | None = None) -> str:
    law = row.help.length
    if law.whole:
        return "a whole text, up to its end"
    if law.by not in LENGTH_RULES:
        return f"its length is chosen by {law.by}"
    bounds = f"from the share {schedule(law.low)} to the share {schedule(law.high)} of the text"
    bounded = (law.low, law.high) != (constant(0.0), constant(1.0))
    if law.by != "law":
        words = _CHOSEN[law.by].format(tries=law.tries, many=_enough(row))
        return f"{words}, within bounds {bounds}" if bounded else words
    if law.low == law.high:
        return f"its length is the share {schedule(law.low)} of the text"
    if bounded:
        return f"its length is uniform {bounds}"
    if limit is None:
        return "its length is uniform from 1 token to one less than the text has"
    if turns is not None:
        return f"its length is uniform from 1 to {turns - 1} turns, or to one less than the dialogue has"
    positions = law.positions(limit, 0.0)
    if not positions:
        return f"with a limit of {limit} tokens there is no room for one"
    return f"its length is uniform from 1 to {positions[-1]} tokens, or to one less than the text has"
