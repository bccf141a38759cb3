"""Hints: whose text, how much of it, into which prompts; and that everybody else reads the prompt without them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hinted_texts import PLAIN, SAMPLES, collector, hinted, of_letters, read
from safetensors.torch import load_file
from torch import Tensor

from chat_toys import SYSTEM, USER, chat_sample, with_template
from resume_script import toy_trainer
from rlgf.algorithms import algorithm_from
from rlgf.algorithms.catalog import QUESTA, SAGE
from rlgf.errors import UserError
from rlgf.guides import Request
from rlgf.models.response_scores import score_logprobs
from rlgf.rewards.base import RewardInput
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.hints import HintGiver
from rlgf.rollout.record import PromptHistory, PromptRecord
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Completion, Message, Rollout, Sample, Scored
from tokenizer_kinds import byte_bpe, speaker
from toys import FavouringGuide, letter_gpt


def test_a_share_of_the_reference_stands_in_the_prompt() -> None:
    """Of its 9 tokens, the end included, half are 4."""
    row = hinted({"length": {"low": 0.5, "high": 0.5}}, author="reference")
    rollout = collector().collect(SAMPLES, row)
    half = "dcba"
    assert rollout.hints is not None
    assert set(rollout.hints) == {half}
    assert read(rollout) == [of_letters(half + sample.prompt) for sample in rollout.samples]
    assert read(rollout.bare) == [of_letters(sample.prompt) for sample in rollout.samples]
    assert rollout.hinted.all()
    assert rollout.hint_tokens.tolist() == [4] * len(rollout)


def test_log_probabilities_are_those_of_the_prompt_with_the_hint() -> None:
    maker = collector()
    rollout = maker.collect(SAMPLES, hinted({"probability": 0.5}, author="reference"))
    assert 0 < int(rollout.hinted.sum()) < len(rollout)

    def scored(seen: Rollout) -> Tensor:
        return score_logprobs(
            maker.policy.model,
            seen,
            maker.config.sampling,
            maker.policy.end_ids,
            maker.config.max_batch_tokens,
        )

    torch.testing.assert_close(scored(rollout), rollout.sampled_logprobs, atol=1e-5, rtol=1e-4)
    gap = (scored(rollout.bare) - rollout.sampled_logprobs).abs().amax(dim=1)
    assert ((gap > 1e-4) == rollout.hinted).all()


def test_rewards_are_given_the_prompt_without_the_hint() -> None:
    rollout = collector().collect(SAMPLES, hinted(column="hint"))
    given = RewardInput.of(rollout)
    assert list(given.prompts) == [sample.prompt for sample in rollout.samples]
    assert given.prompt_ids == [of_letters(sample.prompt) for sample in rollout.samples]


def test_a_column_is_a_hint_and_an_empty_one_is_none() -> None:
    row = hinted({"length": {"whole": True}}, column="hint")
    rollout = collector().collect(SAMPLES, row)
    assert set(rollout.hints or ()) == {"dd"}
    rollout = collector().collect(SAMPLES, row.changed(script={"hint": {"column": "none"}}))
    assert not rollout.hinted.any()
    assert torch.equal(rollout.prompt_ids, rollout.bare.prompt_ids)
    numbered = [replace(sample, columns={"hint": n % 2}) for n, sample in enumerate(SAMPLES)]
    numbers = Collector(letter_gpt("abcd01"), None, collector().config, seed=0)
    assert numbers.collect(numbered, row).hinted.all(), "0 is a value"
    with pytest.raises(UserError, match=r"column 'clue', and a sample has none \(its columns: hint, none\)"):
        collector().collect(SAMPLES, row.changed(script={"hint": {"column": "clue"}}))


def test_a_guide_is_asked_around_the_prompt_and_tells_nobody_else() -> None:
    guide = FavouringGuide("c", 1.0)
    row = hinted({"length": {"whole": True}}, author="guide", ask="a{prompt}b{reference}")
    maker = collector(guide)
    rollout = maker.collect(SAMPLES, row)
    assert [request.prefix for request in guide.requests] == [f"a{s.prompt}bdcbadcba" for s in SAMPLES]
    assert {request.max_new_tokens for request in guide.requests} == {8}
    assert set(rollout.hints or ()) == {"c" * 8}
    assert maker.sampled[Author.GUIDE] == 8 * len(SAMPLES)
    assert not rollout.written_by(Author.GUIDE).any()


def test_a_guide_that_writes_the_response_reads_the_hint() -> None:
    guide = FavouringGuide("c", 1.0)
    changes = {
        "name": "clone",
        "script": {"rollout": "guide", "hint": {"column": "hint", "template": PLAIN}},
        "help": {"probability": 1.0, "length": {"whole": True}},
        "terms": {"nll": {"view": "prompt"}},
    }
    rollout = collector(guide).collect(SAMPLES, algorithm_from(changes))
    assert [request.prompt for request in guide.requests] == [f"dd{s.prompt}" for s in SAMPLES]
    assert read(rollout.bare) == [of_letters(s.prompt) for s in SAMPLES]


def test_the_policy_writes_hints_of_its_own_that_are_booked() -> None:
    row = SAGE.changed(
        script={"hint": {"ask": "{prompt}{reference}", "template": PLAIN}}, help={"gate": None}
    )
    maker = collector()
    rollout = maker.collect(SAMPLES, row)
    assert rollout.hinted.any()
    # A group shares its hint, and the hint is not the beginning of its members' texts.
    for hint in zip(*[iter(rollout.hints or ())] * 4, strict=True):
        assert len(set(hint)) == 1
    assert maker.sampled[Author.POLICY] > int(rollout.lengths.sum())


def test_a_prompt_that_failed_has_a_hint_at_its_next_visit_and_that_counts_as_help() -> None:
    """The hint has 4 tokens of a text that has 9 with its end; what its template adds is not of that text."""
    help = {"success": 0.5, "gate": {"looks_at": "record"}, "length": {"low": 0.5, "high": 0.5}}
    row = hinted(help, author="reference", template="a{hint}bbb{prompt}")
    places = [3, 1, 4, 0, 5, 2, 6, 7]

    def visit(record: PromptRecord, earned: float) -> tuple[Rollout, PromptRecord]:
        rollout = collector().collect(SAMPLES, row, index=places, record=record)
        return rollout, record.after(Scored(rollout, torch.full((len(rollout),), earned)), row)

    first, record = visit(PromptRecord(), 0.0)
    assert not first.hinted.any()
    second, record = visit(record, 1.0)
    assert second.hinted.all()
    assert set(second.help_limit.tolist()) == {9}
    found = record.rows[3]
    assert (found.solved, found.failures, found.rate, found.help) == (False, 0, 1.0, 4 / 9)
    third, record = visit(record, 1.0)
    assert not third.hinted.any()
    assert record.rows[3].solved
    assert record.rows[3].help == 0.0
    # A template that is longer than its text counts for nothing.
    row = row.changed(script={"hint": {"template": "aa{hint}bb{prompt}", "column": "hint", "author": None}})
    fourth, failed = visit(
        PromptRecord({place: PromptHistory(rate=0.0, failures=1) for place in places}), 1.0
    )
    assert set(fourth.hint_tokens.tolist()) == {5}
    assert set(fourth.help_limit.tolist()) == {3}
    assert {history.help for history in failed.rows.values()} == {1 / 3}


@pytest.mark.parametrize("needed", [0, 1, 5, 8])
def test_a_search_over_visits_finds_the_shortest_hint(needed: int) -> None:
    """Texts succeed after so many letters of the reference, which has eight and its end."""
    help = {"success": 0.5, "length": {"by": "record"}}
    row = hinted(help, author="reference", template="aaa{hint}{prompt}")
    record, places, found = PromptRecord(), range(len(SAMPLES)), set[int]()
    for update in range(20):
        rollout = collector(max_hint_tokens=11).collect(SAMPLES, row, update, index=places, record=record)
        letters = torch.tensor([len(hint or "") for hint in rollout.hints or ()])
        assert all(group.unique().numel() == 1 for group in letters.view(-1, row.group_size))
        record = record.after(Scored(rollout, (letters >= needed).float()), row)
        for place, history in record.rows.items():
            assert history.low is None or history.low * 9 < needed
            assert history.high is None or history.high * 9 >= needed
            if history.high == needed / 9:
                found.add(place)
    assert found == set(places)


@pytest.mark.parametrize(("rate", "tokens"), [(0.0, 8), (0.5, 4), (0.75, 2), (1.0, 0)])
def test_the_harder_a_prompt_the_longer_its_hint(rate: float, tokens: int) -> None:
    help = {"success": 0.5, "gate": {"high": 1.0}, "length": {"by": "difficulty"}}

    def pay(rollout: Rollout) -> Tensor:
        assert not rollout.hinted.any()
        return (torch.arange(len(rollout)) % 4 < 4 * rate).float()

    rollout = collector().collect(SAMPLES, hinted(help, author="reference"), rewards=pay)
    assert set(rollout.hints or ()) == {"dcbadcba"[:tokens] or None}
    assert set(rollout.own_rate.tolist()) == {rate if tokens else -1.0}


def test_exactly_so_many_members_have_a_hint_of_their_own() -> None:
    help = {"members": 1, "probability": 0.0, "shared": False}
    rollout = collector().collect(SAMPLES, hinted(help, author="reference"))
    assert rollout.hinted.view(-1, 4).sum(dim=1).tolist() == [1] * len(SAMPLES)
    assert len(set(rollout.hints or ())) > 2, "each of a length of its own"


def test_a_hint_is_cut_to_its_room_and_the_prompt_stays() -> None:
    row = hinted({"length": {"whole": True}}, author="reference")
    rollout = collector(max_hint_tokens=3).collect(SAMPLES, row)
    assert set(rollout.hints or ()) == {"dcb"}
    assert rollout.hint_cut is not None
    assert rollout.hint_cut.all()
    whole = collector(max_hint_tokens=8).collect(SAMPLES, row)
    assert whole.hint_cut is not None
    assert not whole.hint_cut.any()


@pytest.mark.parametrize("room", [3, 8])
def test_a_prompt_that_is_cut_has_no_hint(room: int) -> None:
    """With one it would tell what it does not tell without, and the two views would be of different prompts."""
    row = hinted({"length": {"whole": True}}, author="reference")
    maker = collector(max_prompt_tokens=3, max_hint_tokens=room)
    rollout = maker.collect([Sample("aaaaab", ("dcba",))], row)
    assert rollout.hints == (None,) * 4
    assert rollout.hint_cut is not None
    assert rollout.hint_cut.all()
    assert read(rollout) == [of_letters("aab")] * 4


def test_who_is_asked_for_a_hint_reads_the_problem_and_the_beginning_of_a_long_solution() -> None:
    row = SAGE.changed(
        script={"hint": {"ask": "{reference}d{prompt}", "template": PLAIN}}, help={"gate": None}
    )
    maker = collector(max_prompt_tokens=4, max_hint_tokens=4)
    drafts = [Draft(sample, of_letters(sample.prompt), seed=0) for sample in SAMPLES]
    asked, _ = HintGiver(maker.policy, maker.config).asked(drafts, row, 0.0)
    assert [draft.prompt_ids for draft in asked] == [
        of_letters("dcbadcba"[: 7 - len(sample.prompt)] + "d" + sample.prompt) for sample in SAMPLES
    ]


def test_a_template_without_room_for_a_hint_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"takes 8 tokens, and 'rollout\.max_hint_tokens' 8 leave no room"):
        collector().collect(SAMPLES, QUESTA.changed(script={"hint": {"template": "{prompt} Hint: {hint}\n"}}))


def test_the_cue_stays_at_the_end() -> None:
    row = hinted({"length": {"whole": True}}, column="hint", template="{prompt}{hint}")
    sample = Sample("abcc", ("d",), {"hint": "dd"}, cue="cc")
    assert read(collector().collect([sample], row))[0] == of_letters("abddcc")


def test_of_a_chat_the_users_last_message_has_the_hint() -> None:
    policy = speaker(with_template(byte_bpe()))
    config = RolloutConfig(max_prompt_tokens=60, max_response_tokens=4, max_hint_tokens=40)
    guide = Recorder()
    row = algorithm_from(
        {
            "name": "clone",
            "script": {"rollout": "guide", "hint": {"column": "hint", "template": "{prompt} ({hint})"}},
            "help": {"probability": 1.0, "length": {"whole": True}},
            "terms": {"nll": {}},
        }
    )
    sample = replace(chat_sample(policy), columns={"hint": "a joy"})
    rollout = Collector(policy, guide, config, seed=0).collect([sample], row)
    (request,) = guide.requests
    assert request.messages == (SYSTEM, Message("user", f"{USER.content} (a joy)"))
    assert request.prompt == chat_sample(policy, *request.messages).prompt
    assert rollout.samples[0].messages == (SYSTEM, USER)
    assert policy.tokenizer.decode(rollout.prompt_ids[0]).endswith("<user>the film? (a joy)<assistant>")


class Recorder:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        return [Completion("a", finished=True) for _ in requests]


SEARCHED = {
    "base": "hinted-grpo",
    "help": {"gate": {"looks_at": "record"}, "length": {"by": "record", "whole": False}},
}


@pytest.mark.parametrize(
    "algorithm", ["hinted-grpo", "questa", "sage", "ghpo", "scaf-grpo", "prefix-rft", "chord", SEARCHED]
)
def test_a_run_that_goes_on_ends_in_the_same_weights(tmp_path: Path, algorithm: str | dict[str, Any]) -> None:
    options: dict[str, Any] = {"algorithm": algorithm, "rollout": {"max_hint_tokens": 14}}
    toy_trainer(tmp_path / "whole", **options).train()
    half = shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "000004")
    shutil.rmtree(half / "policy")
    (half / "summary.json").unlink()
    toy_trainer(half, **options).train(resume=True)
    one, other = (load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
