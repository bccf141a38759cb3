"""Who writes what: switch times, splices, authors, lengths, log-probabilities."""

from __future__ import annotations

import pytest
import torch
from collecting import LENGTH, SAMPLES, authors, collector, sure

from rlgf.algorithms.base_rows import BC
from rlgf.algorithms.catalog import BREAD, GUIDED_GRPO, PPO, PPO_PLUS_PLUS
from rlgf.algorithms.reference_rows import REVERSE_CURRICULUM
from rlgf.errors import UserError
from rlgf.guides import LocalGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs
from rlgf.models.sampling import Sampling
from rlgf.rollout.writers import splice
from rlgf.types import Author, Completion, Rollout, Sample
from toys import FavouringGuide, letter_gpt


@pytest.fixture
def policy() -> LanguageModel:
    return letter_gpt()


def test_a_group_shares_prompt_and_rollin(policy: LanguageModel) -> None:
    guide = FavouringGuide("a", 0.5)
    maker = collector(policy, guide, episodes=48, min_response_tokens=LENGTH)
    rollout = maker.collect(SAMPLES, sure(GUIDED_GRPO))
    assert len(rollout) == 4 * len(SAMPLES)
    assert len(guide.requests) == len(SAMPLES), "one roll-in a group"
    for group in range(len(SAMPLES)):
        rows = (rollout.group == group).nonzero().squeeze(1)
        switch = int(rollout.written_by(Author.GUIDE)[rows[0]].sum())
        assert len({tuple(rollout.response_ids[r, :switch].tolist()) for r in rows}) == 1
        assert torch.equal(rollout.author[rows], rollout.author[rows[:1]].expand(4, -1))
    responses = {tuple(ids) for ids in rollout.response_ids.tolist()}
    assert len(responses) > len(SAMPLES), "members of a group go on in different ways"


def test_reference_author_writes_the_data_sets_text(policy: LanguageModel) -> None:
    rollout = collector(policy).collect([Sample("ab", ("dcba",)), Sample("a", ("d" * 30,))], BC)
    assert rollout.response_ids[0, :5].tolist() == [3, 2, 1, 0, 4], "a text that fits ends in end-of-text"
    assert rollout.finished.tolist() == [True, False]
    assert rollout.lengths.tolist() == [5, LENGTH]
    assert set(authors(rollout, 0)) == {Author.REFERENCE}


def test_prompts_keep_their_end(policy: LanguageModel) -> None:
    rollout = collector(policy).collect([Sample("aaaabcdabc"), Sample("b")], PPO)
    assert rollout.prompt_ids[0].tolist() == [1, 2, 3, 0, 1, 2]
    assert rollout.prompt_mask.sum(dim=1).tolist() == [6, 1]


def test_end_of_text_counts_although_it_is_also_the_pad_token(policy: LanguageModel) -> None:
    rollout = collector(policy).collect(SAMPLES * 8, PPO)
    ended = rollout.finished.nonzero().squeeze(1)
    assert len(ended) > 10
    for i in ended.tolist():
        length = int(rollout.lengths[i])
        assert rollout.response_ids[i, length - 1] == policy.end_id
        assert rollout.author[i, length - 1] == Author.POLICY
        assert rollout.sampled_logprobs[i, length - 1] < 0


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_sampling_equal_a_scoring_pass(
    policy: LanguageModel, temperature: float
) -> None:
    maker = collector(policy, FavouringGuide("b", 0.7), temperature=temperature, min_response_tokens=4)
    rollout = maker.collect(SAMPLES, PPO_PLUS_PLUS)
    scored = score_logprobs(policy.model, rollout, maker.config.sampling, policy.end_ids, 10**6)
    by_policy = rollout.written_by(Author.POLICY)
    torch.testing.assert_close(rollout.sampled_logprobs[by_policy], scored[by_policy], atol=1e-5, rtol=1e-4)
    assert not rollout.sampled_logprobs[~by_policy].any()


def test_scores_do_not_depend_on_batching_or_order(policy: LanguageModel) -> None:
    rollout = collector(policy).collect(SAMPLES, PPO)
    sampling = Sampling()
    whole = score_logprobs(policy.model, rollout, sampling, policy.end_ids, 10**6)
    order = torch.randperm(len(rollout), generator=torch.Generator().manual_seed(1))
    shuffled = score_logprobs(policy.model, rollout[order], sampling, policy.end_ids, 10**6)
    small = score_logprobs(policy.model, rollout, sampling, policy.end_ids, 20)
    torch.testing.assert_close(shuffled, whole[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(small, whole, atol=1e-5, rtol=1e-5)


def test_collecting_is_a_function_of_seed_and_update(policy: LanguageModel) -> None:
    maker = collector(policy, FavouringGuide("a", 0.5))
    one, again = (maker.collect(SAMPLES, PPO_PLUS_PLUS, update=3) for _ in range(2))
    assert torch.equal(one.response_ids, again.response_ids)
    assert not torch.equal(one.response_ids, maker.collect(SAMPLES, PPO_PLUS_PLUS, update=4).response_ids)


def test_guides_of_both_kinds_of_tokenizer_write_the_same_text(policy: LanguageModel) -> None:
    """With ids handed over or with text in between, the roll-in is the same where tokens are letters."""
    local = LocalGuide(letter_gpt(seed=7), policy.tokenizer, Sampling())
    assert local.shares_tokenizer

    class TextOnly:
        def write(self, requests: list[object]) -> list[Completion]:
            return [Completion(c.text, c.finished) for c in local.write(requests)]

    row = sure(PPO_PLUS_PLUS)
    by_ids = collector(policy, local).collect(SAMPLES, row)
    by_text = collector(policy, TextOnly()).collect(SAMPLES, row)
    assert torch.equal(by_ids.response_ids, by_text.response_ids)
    assert torch.equal(by_ids.author, by_text.author)


def test_a_guide_is_not_the_live_policy(policy: LanguageModel) -> None:
    guide = LocalGuide(letter_gpt(seed=7), policy.tokenizer, Sampling())
    maker = collector(policy, guide, min_response_tokens=LENGTH)
    before = maker.collect(SAMPLES, sure(PPO_PLUS_PLUS))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    after = maker.collect(SAMPLES, sure(PPO_PLUS_PLUS))
    by_guide = before.written_by(Author.GUIDE)
    assert torch.equal(by_guide, after.written_by(Author.GUIDE))
    assert torch.equal(before.response_ids[by_guide], after.response_ids[by_guide])
    assert not torch.equal(before.response_ids, after.response_ids)


@pytest.mark.parametrize(
    ("completion", "limit", "ids", "finished"),
    [
        (Completion("abcd", finished=False), 3, [0, 1, 2], False),
        (Completion("ab", finished=True), 3, [0, 1, 4], True),
        (Completion("abc", finished=True), 3, [0, 1, 2], False),
        (Completion("", finished=False), 3, [4], True),
        (Completion("ab\ufffd", finished=False), 3, [0, 1], False),
        (Completion("x", finished=True, token_ids=(3, 4)), 3, [3, 4], True),
    ],
)
def test_splice(
    policy: LanguageModel, completion: Completion, limit: int, ids: list[int], finished: bool
) -> None:
    part = splice(policy, completion, limit)
    assert (part.ids, part.finished) == (ids, finished)


@pytest.mark.parametrize("foreign", [5, -1])
def test_a_token_that_the_policy_does_not_have_is_named(policy: LanguageModel, foreign: int) -> None:
    completion = Completion("ab", finished=False, token_ids=(0, foreign))
    with pytest.raises(
        UserError, match=rf"returned the token {foreign}, .* has those from 0 to 4: leave 'token_ids'"
    ):
        splice(policy, completion, 3)


def test_missing_guide_and_references_are_named(policy: LanguageModel) -> None:
    with pytest.raises(UserError, match="needs a guide"):
        collector(policy).collect(SAMPLES, PPO_PLUS_PLUS)
    with pytest.raises(UserError, match="a sample has none"):
        collector(policy).collect([Sample("a")], BC)


def counting(rollout: Rollout) -> torch.Tensor:
    """The share of the letter a, the reward of the tests below."""
    return torch.tensor([text.count("a") / max(len(text), 1) for text in rollout.texts])


def test_on_failure_only_groups_that_all_fail_get_a_rollin(policy: LanguageModel) -> None:
    guide = FavouringGuide("a", 1.0)
    maker = collector(policy, guide, min_response_tokens=LENGTH)
    row = BREAD.changed(group_size=2, help={"success": 0.35, "length": {"by": "law"}})
    alone = maker.collect(SAMPLES, row.alone)
    assert guide.requests == []
    rollout = maker.collect(SAMPLES, row, rewards=counting)
    failed = counting(alone).view(-1, 2).amax(dim=1) < 0.35
    assert 0 < int(failed.sum()) < len(SAMPLES)
    assert len(guide.requests) == int(failed.sum())
    assert rollout.group.tolist() == [i // 2 for i in range(2 * len(SAMPLES))]
    for i in range(len(rollout)):
        if failed[i // 2]:
            assert authors(rollout, i)[0] is Author.GUIDE
        else:
            assert rollout.texts[i] == alone.texts[i]
            assert Author.GUIDE not in authors(rollout, i)
    everywhere = maker.collect(SAMPLES, row.changed(help={"gate": None}))
    redone = [i for i in range(len(rollout)) if failed[i // 2]]
    assert [authors(rollout, i) for i in redone] == [authors(everywhere, i) for i in redone]


def test_the_reverse_curriculum_goes_from_the_end_to_the_beginning(policy: LanguageModel) -> None:
    maker = collector(policy, min_response_tokens=LENGTH)

    def given(progress: float) -> set[int]:
        rollout = maker.collect(SAMPLES, REVERSE_CURRICULUM, 0, progress)
        for i in range(len(rollout)):
            count = authors(rollout, i).count(Author.REFERENCE)
            assert rollout.texts[i][:count] == ("dcba" * 3)[:count]
        return set(rollout.written_by(Author.REFERENCE).sum(dim=1).tolist())

    assert given(0.0) == {LENGTH - 1}
    assert given(0.5) <= {4, 5}
    assert given(1.0) == {0}
