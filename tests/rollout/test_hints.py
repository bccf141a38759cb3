"""Hints: whose text, how much of it, into which prompts; and that everybody else reads the prompt without them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from test_chats import SYSTEM, USER, chat_sample, with_template
from torch import Tensor

from faulty_server import FaultyServer, serving
from resume_script import toy_trainer
from rlgf import seeding
from rlgf.algorithms import Algorithm, algorithm_from
from rlgf.algorithms.catalog import GHPO, GRPO, HINTED_GRPO, QUESTA, SAGE, SCAF_GRPO
from rlgf.algorithms.hint import filled
from rlgf.errors import UserError
from rlgf.guides import Guide, HTTPGuide, HTTPGuideConfig, Request
from rlgf.models.rollout_scores import score_logprobs
from rlgf.rewards.base import RewardInput
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.plan import update_asks
from rlgf.rollout.record import PromptHistory, PromptRecord
from rlgf.types import Author, Completion, Message, Rollout, Sample, Scored
from tokenizer_kinds import byte_bpe, speaker
from toys import FavouringGuide, letter_gpt
from training_toys import build

SAMPLES = [Sample("abca"[: 1 + i % 4], ("dcbadcba",), {"hint": "dd", "none": ""}) for i in range(8)]
PLAIN = "{hint}{prompt}"


def hinted(help: dict[str, Any] | None = None, **hint: Any) -> Algorithm:
    return GRPO.changed(
        script={"hint": {"template": PLAIN, **hint}}, help={"probability": 1.0, **(help or {})}
    )


def collector(guide: Guide | None = None, **options: Any) -> Collector:
    settings = {"max_prompt_tokens": 6, "max_response_tokens": 6, "max_hint_tokens": 8, **options}
    return Collector(letter_gpt(), guide, RolloutConfig.model_validate(settings), seed=0)


def read(rollout: Rollout) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(rollout.prompt_ids, rollout.prompt_mask, strict=True)]


def of_letters(text: str) -> list[int]:
    return ["abcd".index(letter) for letter in text]


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


def test_a_group_that_fails_is_written_again_after_a_hint() -> None:
    row = HINTED_GRPO.changed(script={"hint": {"author": "reference", "template": PLAIN}})

    def pay(rollout: Rollout) -> Tensor:
        assert not rollout.hinted.any()
        return (rollout.group % 2).float()

    maker = collector()
    rollout = maker.collect(SAMPLES, row, rewards=pay)
    assert torch.equal(rollout.hinted, rollout.group % 2 == 0)
    passed = rollout.group % 2 == 1
    alone = collector().collect(SAMPLES, row.alone)
    assert alone.hints is None
    kept = [text for text, kept in zip(rollout.texts, passed.tolist(), strict=True) if kept]
    assert kept == [text for text, kept in zip(alone.texts, passed.tolist(), strict=True) if kept]


def test_a_prompt_that_failed_has_a_hint_at_its_next_visit_and_that_counts_as_help() -> None:
    """With its template the hint has 8 tokens, and the text that it is half of has 9."""
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
    assert (found.solved, found.failures, found.rate, found.help) == (False, 0, 1.0, 8 / 9)
    third, record = visit(record, 1.0)
    assert not third.hinted.any()
    assert record.rows[3].solved
    assert record.rows[3].help == 0.0
    # A template that is longer than its text makes no share above 1.
    row = row.changed(script={"hint": {"template": "aa{hint}bb{prompt}", "column": "hint", "author": None}})
    fourth, failed = visit(
        PromptRecord({place: PromptHistory(rate=0.0, failures=1) for place in places}), 1.0
    )
    assert set(fourth.hint_tokens.tolist()) == {5}
    assert set(fourth.help_limit.tolist()) == {3}
    assert {history.help for history in failed.rows.values()} == {1.0}


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


# Tiers.


def tiered(base: Algorithm, **hint: Any) -> Algorithm:
    return base.changed(script={"hint": {"template": PLAIN, **hint}})


class Watched:
    """Pays texts after a hint of so many letters, and remembers the hints that it was shown."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.shown: list[list[str | None]] = []

    def __call__(self, rollout: Rollout) -> Tensor:
        self.shown.append(list(rollout.hints or ()))
        return torch.tensor([float(len(hint or "") >= self.needed) for hint in rollout.hints or ()])


@pytest.mark.parametrize(
    ("needed", "hint"), [(1, "dc"), (2, "dc"), (3, "dcba"), (5, "dcbadc"), (9, "dcbadc")]
)
def test_a_group_is_written_after_the_first_tier_that_helps(needed: int, hint: str) -> None:
    """Of the reference's 9 tokens, the end included, the three tiers give 2, 4 and 6."""
    pay, row = Watched(needed), tiered(GHPO)
    rollout = collector().collect(SAMPLES, row, rewards=pay)
    assert set(rollout.hints or ()) == {hint}
    assert set(rollout.own_rate.tolist()) == {0.0}
    assert read(rollout) == [of_letters(hint + sample.prompt) for sample in rollout.samples]
    tried = [["dc", "dcba", "dcbadc"][: 1 + number] for number in range(3)]
    shown = [hints[0] for hints in pay.shown if hints]
    assert shown == [None, *next(tiers for tiers in tried if tiers[-1] == hint)]


def test_each_group_goes_on_to_the_tier_that_it_needs() -> None:
    row = tiered(GHPO)

    def pay(rollout: Rollout) -> Tensor:
        needed = 2 * (rollout.group % 4)
        return (torch.tensor([len(hint or "") for hint in rollout.hints or ()]) >= needed).float()

    maker = collector()
    own = maker.collect(SAMPLES, row.alone)
    sampled = maker.sampled[Author.POLICY]
    rollout = maker.collect(SAMPLES, row, rewards=pay)
    found = [len(hint or "") for hint in rollout.hints or ()]
    assert found == [2 * (group % 4) for group in rollout.group.tolist()]
    assert rollout.texts[:4] == own.texts[:4], "a group of which some succeed stays as it was"
    # In three tiers 6, 4 and 2 groups of 4 are written again.
    again = maker.sampled[Author.POLICY] - 2 * sampled
    assert 4 * 12 <= again <= 4 * 12 * maker.config.max_response_tokens


def test_only_the_members_that_have_hints_climb() -> None:
    pay, row = Watched(3), tiered(SCAF_GRPO)
    maker = collector()
    own = maker.collect(SAMPLES, row.alone)
    rollout = maker.collect(SAMPLES, row, rewards=pay)
    assert rollout.hinted.view(-1, 4).sum(dim=1).tolist() == [1] * len(SAMPLES)
    assert {hint for hint in rollout.hints or () if hint} == {"dcba"}
    for i in (~rollout.hinted).nonzero().squeeze(1).tolist():
        assert rollout.texts[i] == own.texts[i]
    # One text a tier is judged, and not the rest of its group.
    assert [len(hints) for hints in pay.shown] == [4 * len(SAMPLES), len(SAMPLES), len(SAMPLES)]


def test_columns_are_tiers_and_each_may_be_given_in_shares() -> None:
    samples = [replace(sample, columns={"idea": "d", "plan": "dcb", "empty": ""}) for sample in SAMPLES]
    row = tiered(SCAF_GRPO, author=None, shares=[], columns=["idea", "plan"])
    for needed, hint in ((1, "d"), (2, "dcb"), (9, "dcb")):
        rollout = collector().collect(samples, row, rewards=Watched(needed))
        assert {hint for hint in rollout.hints or () if hint} == {hint}
    pay = Watched(9)
    both = tiered(GHPO, author=None, shares=[0.5, 1.0], columns=["idea", "empty", "plan"])
    rollout = collector().collect(samples, both, rewards=pay)
    assert [hints[0] for hints in pay.shown] == [None, "d", "d", "dc", "dcb"], "an empty one helps nobody"
    with pytest.raises(
        UserError, match=r"column 'plan', and a sample has none .* set 'script\.hint\.columns'"
    ):
        collector().collect(SAMPLES, row.changed(script={"hint": {"columns": ["hint", "plan"]}}))


def test_as_many_texts_are_foreseen_as_there_are_tiers() -> None:
    for row, tiers in ((tiered(GHPO), 3), (tiered(SCAF_GRPO), 4)):
        maker = collector()
        maker.collect(SAMPLES, row, rewards=Watched(99))
        asks = update_asks(row, maker.config, len(SAMPLES), 0, 0.0, 0)
        assert len(asks) == 4 * len(SAMPLES) * (1 + tiers)
        assert maker.sampled[Author.POLICY] <= sum(ask.limit for ask in asks)


def test_the_record_knows_how_much_of_the_reference_it_took() -> None:
    row = tiered(GHPO)
    rollout = collector().collect(SAMPLES, row, rewards=Watched(3), index=range(len(SAMPLES)))
    history = PromptRecord().after(Scored(rollout, Watched(3)(rollout)), row)[0]
    assert (history.rate, history.solved, history.help) == (0.0, False, pytest.approx(4 / 9))


# What fits.


def test_a_hint_is_cut_to_its_room_and_the_prompt_stays() -> None:
    row = hinted({"length": {"whole": True}}, author="reference")
    rollout = collector(max_hint_tokens=3).collect(SAMPLES, row)
    assert set(rollout.hints or ()) == {"dcb"}
    rollout = collector(max_prompt_tokens=3, max_hint_tokens=3).collect([Sample("aaaaab", ("dcba",))], row)
    assert rollout.hints == (None,) * 4
    assert read(rollout) == [of_letters("aab")] * 4, "a prompt that is cut has no room beside it"


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


def test_a_remote_guide_is_asked_ahead_for_just_the_hints_of_the_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    row = hinted(author="guide", ask="a{prompt}")
    with serving(FaultyServer(letters="abcd")) as server:
        guide = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", style="completions", cache=None))
        maker = collector(guide)
        maker.prefetch(SAMPLES, row, 0, 0.0)
        assert maker.collect(SAMPLES, row).hinted.any()
        guide.close()
        assert len(server.bodies) == guide.usage.calls == len(SAMPLES)
        assert {body["prompt"] for body in server.bodies} == {f"a{sample.prompt}" for sample in SAMPLES}


@pytest.mark.parametrize("looks_at", ["group", "record"])
def test_a_remote_guide_is_not_asked_ahead_where_a_gate_is_yet_to_open(
    monkeypatch: pytest.MonkeyPatch, looks_at: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    row = hinted({"success": 0.5, "gate": {"looks_at": looks_at}}, author="guide", ask="a{prompt}")
    with serving(FaultyServer(letters="abcd")) as server:
        guide = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", style="completions", cache=None))
        collector(guide).prefetch(SAMPLES, row, 0, 0.0)
        guide.close()
        assert not server.bodies


@pytest.mark.parametrize("looks_at", ["group", "record"])
def test_what_a_guide_will_be_asked_for_is_known_before(looks_at: str) -> None:
    help = {"probability": 0.5, "success": 0.5, "gate": {"looks_at": looks_at}}
    row = hinted(help, author="guide")
    guide = FavouringGuide("c", 1.0)
    maker = collector(guide)
    failed = PromptRecord(dict.fromkeys(range(len(SAMPLES)), PromptHistory(rate=0.0, failures=1)))
    maker.collect(
        SAMPLES,
        row,
        rewards=lambda rollout: torch.zeros(len(rollout)),
        index=range(len(SAMPLES)),
        record=failed,
    )
    asks = update_asks(row, maker.config, len(SAMPLES), 0, 0.0, 0)
    planned = [ask.limit for ask in asks if ask.author is Author.GUIDE]
    assert planned == [request.max_new_tokens for request in guide.requests]
    seeds = [seeding.derive(ask.seed, "guide") for ask in asks if ask.author is Author.GUIDE]
    assert seeds == [request.seed for request in guide.requests]
    policy = [ask for ask in asks if ask.author is Author.POLICY]
    assert len(policy) == (2 if looks_at == "group" else 1) * 4 * len(SAMPLES)
    assert all((ask.written, ask.limit) == (0, 6) for ask in policy)


# What is refused, and what a run is like.


def test_a_template_is_filled_once() -> None:
    assert filled("{hint}|{prompt}", hint="{prompt}", prompt="{hint}{x}") == "{prompt}|{hint}{x}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"script": {"hint": {"author": None}}}, "either 'author' .* or 'column'"),
        ({"script": {"hint": {"column": "x"}}}, "either 'author' .* or 'column'"),
        ({"script": {"hint": {"template": "{prompt}"}}}, "must hold {hint} and {prompt}"),
        ({"script": {"hint": {"author": "policy"}}}, "the policy must be told to write a hint"),
        ({"script": {"hint": {"author": "reference", "ask": "{prompt}"}}}, "leave 'ask' out"),
        ({"help": {"length": {"by": "record"}}}, "searches how long the beginning of a response has to be"),
        ({"help": {"length": {"by": "trial"}}}, "set 'by' to law or difficulty"),
        ({"help": {"length": {"by": "trial"}}}, "or give the hint tiers"),
        ({"base": "ghpo", "help": {"length": {"by": "record"}}}, "set 'help.length.by: trial'"),
        ({"base": "ghpo", "help": {"length": {"by": "law"}}}, "are tried one after another"),
        ({"base": "ghpo", "help": {"gate": {"looks_at": "record"}}}, "looks for help where texts failed"),
        ({"base": "ghpo", "help": {"length": {"high": 0.5}}}, "leave 'help.length.low' and 'high' out"),
        ({"base": "ghpo", "script": {"hint": {"author": "guide"}}}, "tiers are of a text that is there"),
        ({"base": "ghpo", "script": {"hint": {"columns": ["x"]}}}, "a hint has one origin"),
        ({"base": "ghpo", "script": {"hint": {"shares": [0.5, 0.25]}}}, "must rise"),
        ({"base": "ghpo", "script": {"hint": {"shares": [0.5, 1.5]}}}, "less than or equal to 1"),
        ({"help": {"success": None}}, "'help.gate' counts successes: set 'help.success'"),
        ({"script": {"rollin": "guide"}}, "leave 'script.rollin' or 'script.hint' out"),
        ({"help": {"probability": 0.0}}, "its hint is never given"),
        ({"advantage": "leave_one_out", "terms": {"kl": None}}, "with the loss 'kl' and 'view: prompt'"),
        ({"terms": {"x": {"loss": "nll", "on": "references", "view": "prompt"}}}, "leave its 'view' out"),
    ],
)
def test_a_hint_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from({"base": "hinted-grpo", **changes})


def test_without_its_guide_a_row_has_no_hints() -> None:
    unguided = HINTED_GRPO.unguided
    assert unguided is not None
    assert HINTED_GRPO.needs_guide
    assert not unguided.needs_guide
    assert unguided.script.hint is None
    assert QUESTA.unguided == QUESTA


def test_the_log_tells_of_hints() -> None:
    trainer = build("questa", changes={"script": {"hint": {"template": PLAIN}}})
    metrics = trainer.step()
    assert 0 < metrics["helped"] <= 1
    assert 1 <= metrics["help_tokens"] <= 16
    assert metrics["update_kl"] >= 0
    # What was sampled after a hint is no measure of how far the policy has moved after the prompt without it.
    assert (
        "update_kl"
        not in build(
            "questa",
            changes={
                "terms": {t: {"view": "prompt"} for t in ("policy", "kl")},
                "script": {"hint": {"template": PLAIN}},
                "help": {"length": {"low": 1.0, "high": 1.0}},
            },
        ).step()
    )


@pytest.mark.parametrize(
    "algorithm", ["hinted-grpo", "questa", "sage", "ghpo", "scaf-grpo", "prefix-rft", "chord"]
)
def test_a_run_that_goes_on_ends_in_the_same_weights(tmp_path: Path, algorithm: str) -> None:
    options: dict[str, Any] = {"algorithm": algorithm, "rollout": {"max_hint_tokens": 14}}
    toy_trainer(tmp_path / "whole", **options).train()
    half = shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "000004")
    shutil.rmtree(half / "policy")
    (half / "summary.json").unlink()
    toy_trainer(half, **options).train(resume=True)
    one, other = (load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
