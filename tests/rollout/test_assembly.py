"""Finished drafts become the tensors of a rollout."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlgf.algorithms import Script
from rlgf.algorithms.catalog import OPSD
from rlgf.kept import KeptTokens
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.assembly import assemble
from rlgf.rollout.writers import Draft, HintedPrompt, Passage
from rlgf.types import Author, Sample

GUIDED = Draft(
    Sample("ab"),
    [0, 1],
    seed=0,
    ids=[2, 3, 4],
    authors=[Author.GUIDE, Author.POLICY, Author.POLICY],
    logprobs=[0.0, -1.0, -2.0],
    finished=True,
    guide="one",
    index=7,
    help_limit=5,
)
SHORT = Draft(Sample("c"), [2], seed=1, ids=[0], authors=[Author.POLICY], logprobs=[-3.0], index=3)


def test_a_text_without_a_token_of_its_guide_is_not_booked_to_it(policy: LanguageModel) -> None:
    begun = replace(GUIDED.branch(0), authors=[Author.GUIDE] * 3, altered=True)
    cut = begun.branch(0)
    cut.cut(0)
    cut.add(Author.POLICY, Passage([0], [-1.0], finished=True))
    rollout = assemble([begun, cut], [0, 1], policy)
    assert rollout.guides == ("one", None)
    assert rollout.altered.tolist() == [True, False]


def test_prompts_are_padded_on_the_left_and_responses_on_the_right(policy: LanguageModel) -> None:
    rollout = assemble([GUIDED, SHORT], [0, 1], policy)
    assert rollout.prompt_ids.tolist() == [[0, 1], [4, 2]]
    assert rollout.prompt_mask.tolist() == [[True, True], [False, True]]
    assert rollout.response_ids.tolist() == [[2, 3, 4], [0, 4, 4]]
    assert rollout.author.tolist() == [[2, 1, 1], [1, 0, 0]]
    assert rollout.sampled_logprobs.tolist() == [[0, -1, -2], [-3, 0, 0]]
    assert rollout.texts == ("cd", "a"), "the end of text is no part of a text"
    assert rollout.finished.tolist() == [True, False]
    assert (rollout.guides, rollout.index.tolist()) == (("one", None), [7, 3])
    assert rollout.help_limit.tolist() == [5, 0]


def test_places_are_known_of_all_or_of_none(policy: LanguageModel) -> None:
    assert assemble([GUIDED, replace(SHORT, index=None)], [0, 1], policy).index is None


def test_sets_stand_at_the_tokens_that_the_policy_drew(policy: LanguageModel) -> None:
    drawn = torch.tensor([[True, False, True, False, False], [False, False, False, True, True]])
    drafts = [replace(GUIDED, kept=[KeptTokens.of(drawn)]), SHORT]
    kept = assemble(drafts, [0, 1], policy).kept
    assert kept[0] is not None
    assert kept[0].mask(3, 5)[1:].tolist() == drawn.tolist()
    assert kept[1] is None


def test_a_hint_is_kept_beside_the_bare_prompt_or_for_the_guide_alone(policy: LanguageModel) -> None:
    hint = HintedPrompt("d", Sample("dab"), ids=[3, 0, 1], bare_ids=[0, 1], taken=1)
    drafts = [replace(GUIDED, prompt_ids=hint.ids, hint=hint), SHORT]
    rollout = assemble(drafts, [0, 1], policy)
    assert rollout.hints == ("d", None)
    assert rollout.bare.prompt_ids.tolist() == [[0, 1], [4, 2]]
    assert rollout.hint_tokens.tolist() == [1, 0]
    assert rollout.hint_taken is not None
    assert rollout.hint_taken.tolist() == [1, 0]
    alone = assemble([replace(GUIDED, hint=hint), SHORT], [0, 1], policy, OPSD.script)
    assert alone.bare is alone
    assert alone.hint_taken is None, "the policy had no help"
    assert alone.told.prompt_ids.tolist() == [[3, 0, 1], [4, 4, 2]]
    assert assemble([GUIDED], [0], policy, Script()).hints is None
