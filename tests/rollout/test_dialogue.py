"""Dialogues: who wrote which token, what a reply costs, and where a dialogue ends."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from dialogues import LENGTH, SAMPLES, TURNS, Echo, Says, collector, runs, sure
from safetensors.torch import load_file

from conftest import sharpen
from resume_script import toy_trainer
from rlgf.algorithms.catalog import AGGREVATED, GUIDED_GRPO, PPO, PPO_PLUS_PLUS
from rlgf.errors import UserError
from rlgf.evaluation.evaluator import Evaluator
from rlgf.guides import LocalGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs
from rlgf.models.sampling import Sampling
from rlgf.rollout.plan import update_asks
from rlgf.run.update_metrics import describe
from rlgf.types import Author, Sample
from toys import FavouringGuide, letter_gpt, letter_t5, share_of_a
from training_toys import build


@pytest.mark.parametrize("make", [letter_gpt, letter_t5])
def test_a_turn_ends_in_the_token_that_ends_a_text_and_is_answered(make: Any) -> None:
    rollout = collector(make(), Echo()).collect(SAMPLES, PPO)
    dialogues = rollout.dialogues
    assert dialogues is not None
    assert max(len(dialogue) for dialogue in dialogues) > 1
    for row, dialogue in enumerate(dialogues):
        written = runs(rollout, row)
        assert [author for author, _ in written] == [
            Author.ENVIRONMENT if number % 2 else Author.POLICY for number in range(len(dialogue))
        ]
        for (_, letters), message in zip(written, dialogue, strict=True):
            assert letters.rstrip(".") == message.content
            assert message.role == ("user" if letters == "dd" and message.content == "dd" else "assistant")
        assert all(letters.endswith(".") for _, letters in written[:-1:2]), "what is answered has ended"
        assert rollout.texts[row] == "".join(message.content for message in dialogue)
        assert rollout.lengths[row] <= LENGTH


def test_the_last_turn_is_not_answered(policy: LanguageModel) -> None:
    maker = collector(policy, Echo(stop="b"), FavouringGuide("b", 1.0))
    rollout = maker.answers(Author.GUIDE, SAMPLES)
    assert runs(rollout, 0) == [(Author.GUIDE, "b"), (Author.ENVIRONMENT, "dd")] * (TURNS - 1) + [
        (Author.GUIDE, "b")
    ]
    assert not rollout.finished.any()


def test_a_turn_ends_after_the_text_that_stops_it(policy: LanguageModel) -> None:
    maker = collector(policy, Echo(stop="cb"))
    rollout = maker.collect(SAMPLES, PPO)
    answered = [letters for row in range(len(rollout)) for _, letters in runs(rollout, row)[:-1:2]]
    assert "cb" in {letters[-2:] for letters in answered}
    for letters in answered:
        assert letters.endswith((".", "cb"))
        assert "cb" not in letters[:-1], "nothing of a turn stands after what stops it"
    learned = int(rollout.written_by(Author.POLICY).sum())
    assert maker.sampled[Author.POLICY] > learned, "what was cut off is booked"


@pytest.fixture
def policy() -> LanguageModel:
    return letter_gpt()


@pytest.mark.parametrize("sampling", [{}, {"top_k": 3}])
def test_log_probabilities_are_those_of_the_states_with_replies(
    policy: LanguageModel, sampling: dict[str, int]
) -> None:
    rollout = collector(policy, Echo(stop="cb"), **sampling).collect(SAMPLES, PPO)
    again = score_logprobs(policy.model, rollout, Sampling(**sampling), policy.end_ids, 10_000)
    mine = rollout.written_by(Author.POLICY)
    torch.testing.assert_close(rollout.sampled_logprobs[mine], again[mine])
    assert not rollout.sampled_logprobs[~mine].any()
    assert torch.equal(rollout.authored, mine)


def test_an_environment_that_answers_nothing_ends_the_dialogue(policy: LanguageModel) -> None:
    rollout = collector(policy, Echo(stop="c", last="a")).collect(SAMPLES, PPO)
    assert rollout.dialogues is not None
    for dialogue in rollout.dialogues:
        assert all("a" not in message.content for message in dialogue[:-1])
    assert any("a" in dialogue[-1].content for dialogue in rollout.dialogues)


def test_an_episode_is_the_same_whoever_shares_its_batch(policy: LanguageModel) -> None:
    maker = collector(policy, Echo(stop="cb"))
    whole = maker.collect(SAMPLES, PPO)
    for number in (0, 5):
        alone = maker.collect(SAMPLES[number : number + 1], PPO, numbers=[number])
        assert runs(alone, 0) == runs(whole, number)


@pytest.mark.parametrize("guided", [False, True])
def test_each_turn_has_draws_of_its_own(policy: LanguageModel, guided: bool) -> None:
    guide = LocalGuide(letter_gpt(seed=3), policy.tokenizer, Sampling())
    maker = collector(policy, Echo(), guide)
    rollout = maker.answers(
        Author.GUIDE if guided else Author.POLICY, [Sample("a", columns={"wanted": 0})] * 400
    )
    assert rollout.dialogues is not None
    pairs = [(one[0].content[:1], one[2].content[:1]) for one in rollout.dialogues if len(one) > 2]
    assert len(pairs) > 200
    assert sum(first == second for first, second in pairs) < 0.4 * len(pairs)


def test_the_guide_begins_with_whole_turns_of_which_each_number_is_as_likely(policy: LanguageModel) -> None:
    samples = [Sample("a", columns={"wanted": 0})] * 600
    guide = FavouringGuide("b", 1.0)
    rollout = collector(policy, Echo(stop="b"), guide).collect(samples, sure(PPO_PLUS_PLUS))
    begun: Counter[int] = Counter()
    for row in range(len(rollout)):
        letters = [text for author, text in runs(rollout, row) if author is Author.GUIDE]
        assert set(letters) == {"b"}, "a turn of the guide's ends where it is stopped"
        begun[len(letters)] += 1
        assert runs(rollout, row)[2 * len(letters)][0] is Author.POLICY, "a reply stands between the two"
    assert sorted(begun) == [1, 2, 3]
    assert min(begun.values()) > 160


def test_a_dialogue_that_the_guide_ends_is_drawn_again_within_its_turns(policy: LanguageModel) -> None:
    class Twice:
        """Ends every dialogue after its third turn."""

        stop = "b"

        def __call__(self, turns: Sequence[str], **known: Any) -> str | None:
            return None if len(turns) == 3 else "d"

    samples = [Sample("a")] * 300
    rollout = collector(policy, Twice(), FavouringGuide("b", 1.0)).collect(samples, sure(PPO_PLUS_PLUS))
    begun = Counter(
        sum(author is Author.GUIDE for author, _ in runs(rollout, row)) for row in range(len(rollout))
    )
    assert sorted(begun) == [1, 2], "the last turn is left to the policy"
    assert min(begun.values()) > 110


def test_aggrevated_lets_the_guide_take_over_after_a_turn(policy: LanguageModel) -> None:
    guide = FavouringGuide("b", 1.0)
    rollout = collector(policy, Echo(stop="b"), guide).collect(SAMPLES, sure(AGGREVATED))
    for row in range(len(rollout)):
        turns = [author for author, _ in runs(rollout, row) if author is not Author.ENVIRONMENT]
        assert turns == sorted(turns), "the policy first, then the guide"
    assert Author.GUIDE in {author for row in range(len(rollout)) for author, _ in runs(rollout, row)}
    asked = guide.requests[0]
    assert asked.written.endswith("dd"), "it goes on after the reply"


def test_a_group_shares_the_turns_that_begin_it(policy: LanguageModel) -> None:
    row = sure(GUIDED_GRPO.changed(group_size=3))
    rollout = collector(policy, Echo(stop="b"), FavouringGuide("b", 1.0), episodes=72).collect(SAMPLES, row)
    for first in range(0, len(rollout), 3):
        begun = [[run for run in runs(rollout, first + n) if run[0] is Author.GUIDE] for n in range(3)]
        assert begun[0] == begun[1] == begun[2]


def test_a_reply_without_room_ends_the_dialogue(policy: LanguageModel) -> None:
    def long(turns: Sequence[str], **known: Any) -> str:
        return "d" * (LENGTH - 6)

    rollout = collector(policy, long).collect(SAMPLES, PPO)
    assert rollout.dialogues is not None
    for row, dialogue in enumerate(rollout.dialogues):
        fits = len(dialogue[0].content) + 1 + LENGTH - 6 < LENGTH
        ended = runs(rollout, row)[0][1].endswith(".")
        assert (len(dialogue) > 1) == (fits and ended)
        assert rollout.author[row, rollout.lengths[row] - 1] == Author.POLICY
    assert {len(dialogue) for dialogue in rollout.dialogues} >= {1, 3}


@pytest.mark.parametrize(
    "algorithm",
    ["ppo", "lols", "guided-grpo", {"base": "vineppo", "branches": {"every": 1, "texts": 2}}, "ghpo"],
    ids=["ppo", "lols", "guided-grpo", "vineppo", "ghpo"],
)
def test_a_run_that_goes_on_ends_in_the_same_weights(tmp_path: Path, algorithm: Any) -> None:
    options: dict[str, Any] = {
        "algorithm": algorithm,
        "environment": {"name": "toys:says_d", "turns": 3},
        "rollout": {"max_response_tokens": 9, "max_hint_tokens": 14},
    }
    whole = toy_trainer(tmp_path / "whole", **options)
    whole.train()
    half = shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "000004")
    shutil.rmtree(half / "policy")
    (half / "summary.json").unlink()
    toy_trainer(half, **options).train(resume=True)
    one, other = (load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    records = [json.loads(line) for line in (half / "samples.jsonl").read_text().splitlines()]
    assert any("environment" in dict(record["authors"]) for record in records)


@pytest.mark.parametrize("beams", [1, 3])
def test_each_turn_can_be_searched(beams: int) -> None:
    policy = sharpen(letter_gpt().model, 3.0)
    maker = collector(LanguageModel(policy, letter_gpt().tokenizer), Echo(stop="b"))
    start = letter_gpt()
    measured = Evaluator(maker, start, start, share_of_a, None, beams=beams)
    assert measured.searcher is not None
    rollout = measured.searcher.answers(Author.POLICY, SAMPLES)
    assert rollout.dialogues is not None
    assert max(map(len, rollout.dialogues)) > 1
    name = "greedy" if beams == 1 else "beam"
    records = measured.evaluate(Author.POLICY, SAMPLES).records
    assert [record[f"{name}/completion"] for record in records] == list(rollout.texts)


@pytest.mark.parametrize("own", ["lora", "encoder-decoder", "head"])
@pytest.mark.parametrize("guide", [None, "self"])
def test_policies_of_every_kind_learn_behind_a_guide_and_their_start(own: str, guide: str | None) -> None:
    trainer = build(
        "ppo++",
        changes={"help": {"probability": 0.5}},
        policy=letter_t5() if own == "encoder-decoder" else None,
        lora={"r": 4} if own == "lora" else None,
        critic="head" if own == "head" else "separate",
        guide=guide,
        environment={"name": "toys:says_d", "turns": 3},
    )
    before = [parameter.detach().clone() for parameter in trainer.parts.policy.trained]
    for _ in range(2):
        trainer.step()
    rollout = trainer.collect(trainer.batch(), trainer.row())
    assert rollout.dialogues is not None
    assert rollout.written_by(Author.GUIDE).any()
    assert rollout.written_by(Author.ENVIRONMENT).any()
    found = score_logprobs(
        trainer.parts.policy.model, rollout, Sampling(), trainer.parts.policy.end_ids, 1000
    )
    by_policy = rollout.written_by(Author.POLICY)
    torch.testing.assert_close(found[by_policy], rollout.sampled_logprobs[by_policy], atol=1e-5, rtol=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.parts.policy.trained, strict=True))


def test_the_datas_own_text_stands_as_it_is(policy: LanguageModel) -> None:
    sample = Sample("a", ("abcbdabbba",), {"wanted": 0})
    rollout = collector(policy, Echo(stop="b")).answers(Author.REFERENCE, [sample])
    assert runs(rollout, 0) == [(Author.REFERENCE, "abcbdabbba.")]


def test_replies_are_no_help(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "environment": {"name": "toys:says_d", "turns": 3},
        "rollout": {"max_response_tokens": 9},
    }
    trainer = toy_trainer(tmp_path, algorithm="ppo", **options)
    experience = trainer.assess(trainer.collect())
    found = describe(experience, trainer.row())
    assert experience.rollout.written_by(Author.ENVIRONMENT).any()
    assert "helped" not in found
    assert found["response_tokens"] == float(experience.rollout.written_by(Author.POLICY).sum()) / 8
    trainer = toy_trainer(tmp_path, algorithm="aggrevated", **options)
    experience = trainer.assess(trainer.collect())
    assert not {"guide_cut", "guide_blank"} & describe(experience, trainer.row()).keys()


@pytest.mark.parametrize("row", [PPO, sure(PPO_PLUS_PLUS), sure(AGGREVATED)], ids=lambda row: row.name)
def test_no_author_samples_more_than_is_foreseen(policy: LanguageModel, row: Any) -> None:
    """Tokens after the end of a turn count too."""
    maker = collector(policy, Says("", "b"), FavouringGuide("b", 0.4))
    maker.collect(SAMPLES, row)
    asks = update_asks(row, maker.config, len(SAMPLES), 0, 0.0, 0, turns=TURNS)
    for author in (Author.POLICY, Author.GUIDE):
        assert maker.sampled[author] <= sum(ask.limit for ask in asks if ask.author is author)


def test_a_first_turn_after_those_of_another_is_foreseen_with_what_stands_before_it(
    policy: LanguageModel,
) -> None:
    """A server is paid for that too."""
    guide = FavouringGuide("b", 0.4)
    maker = collector(policy, Says("", "b"), guide)
    row = sure(AGGREVATED)
    maker.collect(SAMPLES, row)
    sent, foreseen = dict[int, int](), dict[int, int]()
    for request in guide.requests:
        assert request.sample is not None
        sent.setdefault(request.sample.columns["wanted"], len(request.written_ids))
    for ask in update_asks(row, maker.config, len(SAMPLES), 0, 0.0, 0, turns=TURNS):
        if ask.author is Author.GUIDE:
            foreseen.setdefault(ask.sample, ask.written)
    assert all(0 < sent[number] <= foreseen[number] for number in sent)


def test_a_reply_of_another_kind_is_one_sentence(policy: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"must answer a turn with a text, or with None .* \(it answered 3\)"):
        # Another type than an environment's is the fault that is to be told.
        collector(policy, lambda turns, **known: 3).collect(SAMPLES, PPO)  # type: ignore[arg-type, return-value]
