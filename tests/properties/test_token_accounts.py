"""Every token that the policy or a guide sampled in training is booked, whatever became of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from resume_script import toy_trainer
from rlgf.algorithms import ALGORITHMS
from rlgf.algorithms.catalog import BREAD
from rlgf.guides import BudgetSpentError, LocalGuide, ReplayGuide, ReplayGuideConfig, Request
from rlgf.models.sampling import Sampling
from rlgf.rollout.writers import Draft, Passage, Writer
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Completion
from toys import letter_gpt
from training_toys import build


class Counting:
    """What another writes, counted."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.own = 0
        self.others: list[Counting] = []

    @property
    def tokens(self) -> int:
        return self.own + sum(other.tokens for other in self.others)

    def write(self, drafts: Sequence[Draft], limits: Sequence[int]) -> list[Passage]:
        parts = self.writer.write(drafts, limits)
        self.own += sum(len(part.ids) for part in parts)
        return parts


class CountingGuide:
    """What a guide hands over, counted: tokens where it gives any, else letters and ends."""

    def __init__(self, guide: Any) -> None:
        self.guide = guide
        self.tokens = 0

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        answers: list[Completion] = self.guide.write(requests)
        for answer in answers:
            given = answer.token_ids
            self.tokens += len(given) if given is not None else len(answer.text) + answer.finished
        return answers


def counting(trainer: Trainer) -> tuple[Counting, CountingGuide]:
    writers = trainer.parts.collector.writers
    policy = Counting(writers[Author.POLICY])
    trainer.parts.collector.writers = {**writers, Author.POLICY: policy}
    start = trainer.parts.collector.start
    assert start is not None
    # What the start writes to estimate the value of a prompt is booked as the policy's.
    policy.others.append(Counting(start.writers[Author.POLICY]))
    start.writers = {**start.writers, Author.POLICY: policy.others[0]}
    writer: Any = writers[Author.GUIDE]
    writer.guide = CountingGuide(writer.guide)
    return policy, writer.guide


def all_is_booked(trainer: Trainer, updates: int = 2) -> tuple[int, int]:
    """Run some updates and compare what was sampled with what was booked; both numbers."""
    policy, guide = counting(trainer)
    for _ in range(updates):
        metrics = trainer.step()
    assert metrics["policy_tokens"] == trainer.progress.policy_tokens == policy.tokens
    assert metrics["guide_tokens"] == trainer.progress.guide_tokens == guide.tokens
    return policy.tokens, guide.tokens


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_token_that_was_sampled_is_booked(algorithm: str) -> None:
    trainer = build(algorithm, rollout={"min_response_tokens": 0})
    policy, guide = all_is_booked(trainer)
    writers = {author for row in ALGORITHMS[algorithm].rows for author in row.script.authors}
    writers |= {row.examples for row in ALGORITHMS[algorithm].rows}
    assert (policy > 0, guide > 0) == (Author.POLICY in writers, Author.GUIDE in writers)


def test_texts_that_were_dropped_are_booked() -> None:
    """A group that fails is written again; its first texts were sampled all the same."""
    trainer = build("bread", changes={"group_size": 2})
    help = {"success": 2.0, "length": {"by": "law"}}  # every group fails, and is written again once
    row = BREAD.changed(help=help)
    policy, guide = counting(trainer)
    collector = trainer.parts.collector
    kept = trainer.collect(trainer.batch(), row)
    assert collector.sampled == {Author.POLICY: policy.tokens, Author.GUIDE: guide.tokens}
    alone = trainer.collect(trainer.batch(), row.alone)
    # A guide that has ended at once helps nobody, and such a group stays as it was.
    helped = kept.written_by(Author.GUIDE).any(dim=1)
    dropped = int(alone.lengths[helped].sum())
    assert dropped > 0
    assert policy.tokens == dropped + int(kept.written_by(Author.POLICY).sum()) + int(alone.lengths.sum())


class Wordy:
    """Writes three letters more than it is asked for, and ends."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion("a" * (request.max_new_tokens + 3), finished=True) for request in requests]


class Brief:
    """Ends after two letters."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion("ab", finished=True) for _ in requests]


class Closing:
    """Writes out the end of a text and goes on after it."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [Completion("ab<end>cd", finished=False) for _ in requests]


@pytest.mark.parametrize("algorithm", ["ppo++", "aggrevated", "guided-grpo", "luffy"])
@pytest.mark.parametrize("guide", [Wordy(), Brief()], ids=lambda guide: type(guide).__name__)
def test_what_is_cut_off_a_guides_text_is_booked(tmp_path: Path, algorithm: str, guide: Any) -> None:
    """Behind the limit, or taken back because the text ended before the switch."""
    trainer = toy_trainer(tmp_path, guide=guide, algorithm={"base": algorithm}, seed=3)
    all_is_booked(trainer)


def test_what_stands_behind_a_written_out_end_is_booked(tmp_path: Path) -> None:
    trainer = toy_trainer(
        tmp_path, guide=Closing(), algorithm={"base": "ppo++", "help": {"probability": 1.0}}
    )
    trainer.step()
    # a, b, the end, and what follows in the tokens that it would have as a text.
    after = len(trainer.parts.policy.encode("<end>cd"))
    assert trainer.progress.guide_tokens == 8 * (3 + after)


def test_a_foreign_guides_tokens_are_its_own(tmp_path: Path) -> None:
    """Its limit leaves room for tokens that hold less text, and what is over is cut off after the splice."""
    foreign = LocalGuide(letter_gpt("dcba", seed=7), letter_gpt().tokenizer, Sampling())
    assert not foreign.shares_tokenizer
    sampled = Counter[str]()

    class Telling:
        def write(self, requests: Sequence[Request]) -> list[Completion]:
            answers = foreign.write(requests)
            for answer in answers:
                assert answer.sampled is not None
                sampled["its own"] += answer.sampled
                sampled["letters and ends"] += len(answer.text) + answer.finished
            return answers

    trainer = toy_trainer(tmp_path, guide=Telling(), algorithm="aggrevated")
    trainer.step()
    assert trainer.progress.guide_tokens == sampled["its own"] == sampled["letters and ends"] > 0


def test_of_a_recorded_text_what_is_used_is_booked(tmp_path: Path) -> None:
    file = tmp_path / "recorded.jsonl"
    prompts = {sample.prompt for sample in toy_trainer(tmp_path / "one").parts.train}
    rows = [{"prompt": prompt, "completion": "abcd" * 9} for prompt in prompts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    guide = ReplayGuide(ReplayGuideConfig(file=file))
    trainer = toy_trainer(
        tmp_path / "two", guide=guide, algorithm={"base": "ppo++", "help": {"probability": 1.0}}
    )
    episodes = trainer.collect()
    trainer.learn(trainer.assess(episodes))
    assert trainer.progress.guide_tokens == int(episodes.written_by(Author.GUIDE).sum()) > 0


def test_texts_of_an_update_that_is_made_again_without_its_guide_are_booked(tmp_path: Path) -> None:
    class Spent:
        def write(self, requests: Sequence[Request]) -> list[Completion]:
            raise BudgetSpentError("the budget is spent.", go_on=True)

    algorithm = {"base": "bread", "help": {"success": 2.0}}
    trainer = toy_trainer(tmp_path, guide=Spent(), algorithm=algorithm)
    policy, _ = counting(trainer)
    trainer.step()
    assert trainer.progress.unguided
    written = trainer.collect(trainer.batch(), trainer.row())
    assert trainer.progress.policy_tokens == policy.tokens - int(written.lengths.sum())


def test_evaluation_is_an_account_of_its_own_and_dropped_episodes_are_the_next_updates(
    tmp_path: Path,
) -> None:
    trainer = toy_trainer(
        tmp_path,
        algorithm={
            "base": "ppo++",
            "terms": {"references": {"loss": "nll", "on": "references", "weight": 0.1}},
        },
    )
    policy, guide = counting(trainer)
    trainer.evaluate(split="validation")
    trainer.evaluate(Author.GUIDE, split="validation")
    besides = policy.tokens, guide.tokens
    trainer.collect()
    trainer.step()
    assert trainer.progress.policy_tokens == policy.tokens - besides[0]
    assert trainer.progress.guide_tokens == guide.tokens - besides[1]


def test_a_shared_beginning_is_booked_once() -> None:
    trainer = build("guided-grpo", rollout={"min_response_tokens": 6})
    row = trainer.row().changed(help={"probability": 1.0})
    rollout = trainer.collect(trainer.batch(), row)
    assert trainer.parts.collector.sampled[Author.GUIDE] < int(rollout.written_by(Author.GUIDE).sum())
