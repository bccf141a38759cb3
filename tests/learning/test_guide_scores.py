"""Learning from how probable a guide finds the policy's texts: with any tokenizer, and from a server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from faulty_server import FAULTS, FaultyServer, serving
from rlgf.algorithms import ALGORITHMS, Algorithm, algorithm_from
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.guides import LocalGuide, Piece, Request
from rlgf.learning.guide_scores import guide_scores
from rlgf.models.forward import Tokens
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Completion
from toys import FavouringGuide, LetterTask, letter_gpt, letter_tokenizer

OPD = algorithm_from("opd")
assert isinstance(OPD, Algorithm)


def pairs_gpt(seed: int = 0) -> LanguageModel:
    """A random GPT-2 whose tokens are letters and pairs of them."""
    names = [*"abcd", *(one + other for one in "abcd" for other in "abcd"), "<end>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [(one, other) for one in "abcd" for other in "abcd"]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        end = {"bos_token_id": len(names) - 1, "eos_token_id": len(names) - 1}
        config = GPT2Config(vocab_size=len(names), n_embd=32, n_layer=1, n_head=2, n_positions=32, **end)
        model = GPT2LMHeadModel(config)
    return LanguageModel(model.eval(), fast)


def trainer(guide: Any, output: Path = Path("never written"), updates: int = 4, **changes: Any) -> Trainer:
    sections: dict[str, Any] = {
        "task": {"name": "letters"},
        "policy": {"model": "made by hand"},
        "guide": guide if isinstance(guide, dict) else {"model": "made by hand"},
        "algorithm": "opd",
        "output": output,
        "rollout": {"episodes": 64, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 32, "epochs": 2, "learning_rate": {"start": 1e-2, "end": 0}},
        "training": {"updates": updates, "trackers": [], "checkpoint_every": 1000},
        "evaluation": {"every": 1000, "samples": 16, "test_samples": 16},
    }
    config = Config.model_validate({**sections, **changes})
    given = None if isinstance(guide, dict) else guide
    parts = build_parts(config, task=LetterTask(), guide=given, policy=letter_gpt())
    return Trainer(config, parts, Display(Console(quiet=True)))


def test_every_token_is_a_chunk_of_its_own_for_a_guide_with_the_same_tokenizer() -> None:
    guide = LocalGuide(letter_gpt(seed=7), letter_tokenizer("abcd"), Sampling())
    learner = trainer(guide)
    rollout = learner.collect()
    experience = learner.assess(rollout)
    chunks, said, there = experience.scored.chunks, experience.scored.guide_logprobs, rollout.response_mask
    assert torch.equal(chunks, torch.cumsum(there, 1) * there)
    expected = (
        guide.log_distribution(Tokens.of(rollout)).gather(2, rollout.response_ids[..., None]).squeeze(2)
    )
    torch.testing.assert_close(said, torch.where(there, expected, 0.0), atol=1e-4, rtol=1e-4)
    ratios = torch.where(there, said - rollout.sampled_logprobs, 0.0)
    torch.testing.assert_close(experience.advantages, ratios)
    assert (rollout.response_ids == 4)[there].any(), "ends too"
    described = learner.learn(experience)
    assert described["guide_kl"] == pytest.approx(float(-ratios[there].mean()), abs=1e-5)
    assert described["guide_seen"] == 1


class Halves:
    """Sees a text in pieces of two characters, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        raise AssertionError("it is asked for no text")

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        self.requests += requests
        texts = [str(request.scored) for request in requests]
        return [[Piece(i, min(i + 2, len(t)), -1.5) for i in range(0, len(t), 2)] for t in texts]


def test_tokens_of_one_piece_share_all_of_it() -> None:
    guide = Halves()
    learner = trainer(guide)
    rollout = learner.collect()
    experience = learner.assess(rollout)
    asked = {request.prefix + str(request.scored) for request in guide.requests}
    assert asked <= {
        sample.prompt + text for sample, text in zip(rollout.samples, rollout.texts, strict=True)
    }
    for row, text in enumerate(rollout.texts):
        drawn = rollout.sampled_logprobs[row].tolist()
        for i in range(0, len(text), 2):
            inside = range(i, min(i + 2, len(text)))
            expected = -1.5 - sum(drawn[one] for one in inside)
            assert [float(experience.advantages[row, one]) for one in inside] == pytest.approx(
                [expected] * len(inside), abs=1e-4
            )
        assert not experience.advantages[row, len(text) :].any()


def test_what_others_wrote_is_not_learned_from() -> None:
    row = algorithm_from({"base": "opd", "script": {"rollin": "guide"}, "help": {"probability": 1.0}})
    learner = trainer(FavouringGuide("a", 0.9))
    rollout = learner.collect(learner.batch(), row)
    chunks, _ = guide_scores(Halves(), learner.parts.policy, rollout)
    seen, begun = chunks > 0, rollout.written_by(Author.GUIDE).sum(dim=1)
    assert not (seen & ~rollout.written_by(Author.POLICY)).any()
    odd = (begun % 2 == 1) & (rollout.lengths > begun + 1)
    assert odd.any()
    assert not seen[odd, begun[odd]].any(), "the other half of that piece is the guide's"


def test_letters_of_a_guides_pair_are_one_action_and_ends_are_compared() -> None:
    guide = LocalGuide(pairs_gpt(5), letter_tokenizer("abcd"), Sampling())
    learner = trainer(guide)
    rollout = learner.collect()
    experience = learner.assess(rollout)
    chunks, straddling, model = experience.scored.chunks, 0, guide.language_model
    for row, text in enumerate(rollout.texts):
        prompt = rollout.samples[row].prompt
        both = [len(model.decode([one])) for one in model.codec.encode_both(prompt, text)]
        begins = [sum(both[:number]) for number in range(len(both))]
        expected = [size for size, begin in zip(both, begins, strict=True) if begin >= len(prompt)]
        straddling += sum(expected) < len(text)
        found = torch.bincount(chunks[row], minlength=1)[1:].tolist()
        assert found == expected + [1] * bool(rollout.finished[row])
    assert 0 < straddling < len(rollout)
    assert 0.6 < learner.learn(experience)["guide_seen"] < 1


class Doubles(Halves):
    """Writes pairs: mostly the letter a first, and mostly the same letter again."""

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        found = []
        for request in requests:
            text = str(request.scored)
            pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
            odds = [(0.7 if p[0] == "a" else 0.1) * (0.85 if p[1] == p[0] else 0.05) for p in pairs]
            found.append([Piece(2 * i, 2 * i + 2, math.log(one)) for i, one in enumerate(odds)])
        return found


@pytest.mark.long
def test_a_policy_learns_to_write_as_a_guide_with_other_tokens() -> None:
    sizes = {"episodes": 64, "max_prompt_tokens": 4, "max_response_tokens": 6, "min_response_tokens": 6}
    learner = trainer(Doubles(), updates=16, rollout=sizes)
    steps = [learner.step() for _ in range(16)]
    found = [float(step["guide_kl"]) for step in steps]
    assert all(step["guide_seen"] == 1 for step in steps)
    assert found[0] > 0.3
    assert sum(found[-3:]) / 3 < 0.3 * found[0]


# A server.


def from_server(server: FaultyServer, folder: Path, **more: Any) -> dict[str, Any]:
    return {"url": server.url, "model": "letters", "cache": str(folder / "cache"), "timeout": 0.5} | more


def test_a_run_from_a_server_that_fails_is_the_run_from_one_that_does_not(tmp_path: Path) -> None:
    """And the second run asks for nothing but the trial."""
    found, asked = [], []
    for name, serve in (
        ("good", {}),
        ("bad", {"faults": [f for f in FAULTS if f != "hang"], "share": 0.3}),
        ("again", {}),
    ):
        folder = tmp_path / ("good" if name == "again" else name)
        with serving(FaultyServer(**serve)) as server:
            learner = trainer(from_server(server, folder), tmp_path / name, updates=2, rollout={"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 6}, update={"minibatch": 16})  # fmt: skip
            steps = [learner.step() for _ in range(2)]
            learner.close()
            found.append([step["policy_loss"] for step in steps])
            asked.append(len(server.seen))
            assert all(body.get("echo") for body in server.bodies), "no text is asked for"
    assert found[0] == found[1] == found[2]
    assert asked[0] > 4 or asked[2] == 2


def test_a_server_that_does_not_repeat_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    def scores(text: str, asked: int) -> dict[str, Any]:
        count = len(text) + 1
        return {"tokens": [*text, "a"], "token_logprobs": [None, *[-1.0 - asked] * (count - 1)]}

    with serving(FaultyServer(scores=scores)) as server:
        with pytest.raises(UserError, match=r"'guide.url' .* was scored twice"):
            trainer(from_server(server, tmp_path))
        assert sum(server.seen.values()) == 4


class FailsOnce(FavouringGuide):
    """Gives out when it is asked for the third time."""

    asked = 0

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        self.asked += 1
        if self.asked == 3:
            raise UserError("the server is gone.")
        return super().score(requests)


def test_a_run_whose_guide_gave_out_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    small = {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6}

    def made(name: str, guide: FavouringGuide) -> Trainer:
        return trainer(guide, tmp_path / name, rollout=small, update={"minibatch": 8})

    whole = made("whole", FavouringGuide("a", 0.8)).train()
    with pytest.raises(UserError, match="the server is gone"):
        made("cut", FailsOnce("a", 0.8)).train()
    resumed = made("cut", FavouringGuide("a", 0.8))
    assert resumed.train(resume=True) == whole
    assert resumed.progress.update == 4


# What is refused.


class Writer:
    """Writes, and says nothing of what others wrote."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return []


BASE: dict[str, Any] = {
    "task": "toys:LetterTask",
    "policy": {"model": "nowhere"},
    "algorithm": "opd",
    "output": "never written",
}
CHAT = {"url": "http://127.0.0.1:1/v1", "model": "m", "style": "chat"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "algorithm 'opd' needs a guide"),
        ({"guide": CHAT}, "a chat server says that of no text but its own: set 'guide.style: completions'"),
        ({"guide": {"oracle": True}}, "a guide given by 'guide.oracle' does not say it: set 'guide.model'"),
        ({"guide": {"name": f"{Path(__file__)}:Writer"}}, r"'guide.name' does not say it.*'score\(requests\)'"),
        (
            {"guide": {"url": "http://127.0.0.1:1/v1", "model": "m", "budget": {"calls": 9, "then": "unguided"}}},
            "'guide.budget.then: unguided' does not fit algorithm 'opd'",
        ),
        (
            {"guide": "self", "algorithm": {"base": "opd", "script": {"hint": {"author": "reference"}}, "help": {"probability": 1}}},
            "leave 'script.hint' out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_score_is_refused_before_anything_loads(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config({**BASE, **changes})


def test_a_guide_given_in_python_without_scores_is_refused() -> None:
    with pytest.raises(UserError, match=r"the guide Writer has no method 'score\(requests\)'"):
        trainer(Writer())


def test_the_row_asks_for_scores_and_for_nothing_else() -> None:
    assert OPD.needs_guide
    assert OPD.reads_guide_scores
    needs = (OPD.distills, OPD.needs_reward, OPD.needs_reference, OPD.kl_penalty, OPD.asks_for_texts)
    assert not any(needs)
    assert OPD.unguided is None
    assert [name for name, one in ALGORITHMS.items() if any(row.reads_guide_scores for row in one.rows)] == [
        "opd"
    ]
