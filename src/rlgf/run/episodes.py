"""Episodes as records that can be read without their model: texts token by token, with the numbers of each."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlgf.algorithms import Algorithm
from rlgf.evaluation.files import RECORD
from rlgf.learning.inputs import read_by_any
from rlgf.models.language_model import LanguageModel
from rlgf.models.text import token_ends
from rlgf.objectives.losses import kl_estimate, log_ratio
from rlgf.types import Author, Experience, Rollout, take

MOST_TOKENS = 512
"""Of a longer text the first ones are kept, so that a record stays below about 25 kB."""
_MOST_CHARACTERS = 4000


def picked(rollout: Rollout, row: Algorithm, kept: int) -> Int[Tensor, "N"]:
    """Which episodes to keep: whole groups, those whose prompts come first in the order of their hashes.

    Where a prompt comes again, in a later update or in another run, it is likely to be among the kept ones again. Of
    a group that is larger than ``kept`` the first members are kept.
    """
    groups: dict[int, list[int]] = {}
    for number, group in enumerate(rollout.group.tolist()):
        groups.setdefault(group, []).append(number)
    order = sorted(groups.values(), key=lambda members: _hashed(rollout.prompts[members[0]]))
    some = order[: max(1, kept // row.group_size)]
    return torch.tensor([number for members in some for number in members][:kept])


def episode_records(
    experience: Experience,
    row: Algorithm,
    rows: Int[Tensor, "N"],
    policy: LanguageModel,
) -> Iterator[dict[str, Any]]:
    """One record for each of some episodes of an update that ran ``row``; see docs/report.md for the fields."""
    ranks = _ranks(experience)
    some = take(replace(experience, pairs=None, difference=None), rows)
    losses = (term for term in row.terms.values() if not term.of_critic)
    columns = _per_token(some, read_by_any(losses, some.rollout, row))
    for place, number in enumerate(rows.tolist()):
        pair = {"pair": ranks[number]} if number in ranks else {}
        length = int(some.rollout.lengths[place])
        lists = {name: _rounded(values[place, :length]) for name, values in columns.items()}
        known = {name: values for name, values in lists.items() if any(v is not None for v in values)}
        yield {"episode": number, **_episode(some, place, policy), **pair, **known}


def evaluated_record(number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a text of an evaluation, from one of `Evaluation.records`; it is not cut into tokens."""
    measured = {name: value for name, value in record.items() if name not in RECORD}
    numbers = {name: value for name, value in measured.items() if isinstance(value, int | float)}
    return {
        "episode": number,
        "prompt": _cut(record["prompt"]),
        "reference": _cut(next(iter(record["references"]), "")),
        "tokens": [_cut(record["completion"])],
        "authors": [["policy", 1]],
        "reward": numbers.pop("reward", None),
        "metrics": numbers,
    }


def _episode(some: Experience, place: int, policy: LanguageModel) -> dict[str, Any]:
    """What concerns an episode as a whole, and its tokens."""
    scored, rollout = some.scored, some.rollout
    sample, length = rollout.samples[place], int(rollout.lengths[place])
    authors = [Author(a).name.lower() for a in rollout.author[place, :length].tolist()]
    terms = {name: float(values[place]) for name, values in scored.reward_terms.items()}
    return {
        "group": int(rollout.group[place]),
        "prompt": _cut(sample.prompt),
        "reference": _cut(sample.references[0] if sample.references else ""),
        "tokens": pieces(rollout, place, policy),
        "left_out": max(0, length - MOST_TOKENS),
        "authors": [[who, len(list(run))] for who, run in itertools.groupby(authors)],
        "finished": bool(rollout.finished[place]),
        "guide": rollout.guides[place],
        **({} if rollout.hints is None else {"hint": _cut(rollout.hints[place] or "")}),
        "reward": None if scored.rewards is None else float(scored.rewards[place]),
        "metrics": {name: value for name, value in terms.items() if not math.isnan(value)},
    }


def pieces(rollout: Rollout, place: int, policy: LanguageModel) -> list[str]:
    """The text that each of the first tokens of a response adds to those before it; nothing for the end of the text.

    A character that several tokens spell stands at the last of them.
    """
    prompt = rollout.prompt_ids[place][rollout.prompt_mask[place]].tolist()
    ids = rollout.response_ids[place, : int(rollout.lengths[place])].tolist()
    text, found, start = rollout.texts[place], list[str](), 0
    for end in token_ends(policy.codec, ids[:MOST_TOKENS], policy.context(prompt), text):
        found.append(text[start:end] if end is not None else "")
        start = start if end is None else end
    return found


def _per_token(some: Experience, learned: Bool[Tensor, "N T"]) -> dict[str, Float[Tensor, "N T"]]:
    """Numbers of each token; NaN where there is none.

    Advantages stand at tokens that a loss of the policy reads. At the policy's own tokens stand the ratio, which is the
    probability under the policy that drew the token over that under the frozen start, and the KL of the two in nats.
    """
    scored, rollout = some.scored, some.rollout
    found = {}
    if some.advantages is not None:
        found["advantages"] = torch.where(learned, some.advantages, torch.nan)
    if scored.reference_logprobs is not None:
        by_policy = rollout.written_by(Author.POLICY)
        kl = kl_estimate(rollout.sampled_logprobs, scored.reference_logprobs)
        ratio = log_ratio(rollout.sampled_logprobs, scored.reference_logprobs).exp()
        found["kl"] = torch.where(by_policy, kl, torch.nan)
        found["ratio"] = torch.where(by_policy, ratio, torch.nan)
    if scored.values is not None:
        found["values"] = torch.where(rollout.authored, scored.values, torch.nan)
    return {name: values[:, :MOST_TOKENS] for name, values in found.items()}


def _ranks(experience: Experience) -> dict[int, str]:
    """Which episodes were set against another one, and which side they were on."""
    if experience.pairs is None:
        return {}
    return {
        n: word
        for pair in experience.pairs.tolist()
        for n, word in zip(pair, ("better", "worse"), strict=True)
    }


def _rounded(values: Float[Tensor, "T"]) -> list[float | None]:
    """Four digits of each number, None in place of an infinity or NaN."""
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values.tolist()]


def _cut(text: str) -> str:
    """The end of a long text."""
    return text if len(text) <= _MOST_CHARACTERS else "…" + text[-_MOST_CHARACTERS:]


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
