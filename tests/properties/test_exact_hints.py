"""Texts that were written after a hint, against exact gradients; see `enumerated`.

A policy has one table for the bare prompt and one for the prompt with a hint, so the two views share no parameter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from enumerated import (
    KL,
    POLICY,
    REFERENCE,
    RESPONSES,
    gradient_of,
    likelihood,
    penalized,
    reward,
    score,
    table,
)
from torch import Tensor

from rlgf.algorithms import Algorithm, Hint, Script
from rlgf.algorithms.catalog import GHPO, HINTED_GRPO, OPSD, POPE, QUESTA, RLOO, SAGE, SCAF_GRPO, SDFT, SDPO
from rlgf.guides.itself import SelfGuide
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.sampling import Sampling
from rlgf.rollout.assembly import assemble
from rlgf.rollout.writers import Draft, HintedPrompt
from rlgf.types import Author, Experience, Rollout, Sample
from toys import LENGTH, STATES, HintedTableModel, hinted_table_model, state_index
from training_toys import no_reward

HINTED, HINTED_REFERENCE = table(3), table(4)
SCRIPT = Script(hint=Hint(column="hint"))
WRITTEN = RLOO.changed(group_size=2, script={"hint": {"column": "hint"}}, help={"probability": 1.0})
PROMPT = WRITTEN.changed(
    terms={"policy": {"view": "prompt", "options": {"clip": 100.0}}, "kl": {"view": "prompt"}}
)


def hinted_draft(response: tuple[int, ...], *, hinted: bool = True) -> Draft:
    made = Draft(Sample(""), [0, 3] if hinted else [3], seed=0)
    made.hint = HintedPrompt("a", Sample("a"), [0, 3], [3], taken=1) if hinted else None
    made.ids, made.authors = list(response), [Author.POLICY] * LENGTH
    at = HINTED if hinted else POLICY
    made.logprobs = [float(at[state_index(response[:t]), response[t]].log()) for t in range(LENGTH)]
    return made


def every_pair(*, hinted: bool = True) -> Rollout:
    """Every pair of texts, as often as a policy that reads the hint writes it."""
    at = HINTED if hinted else POLICY
    listed = [r for r in RESPONSES for _ in range(int(float(likelihood(at, r, 0, LENGTH)) * 64))]
    # Each text with each of some others: the mean of their rewards is that of all.
    drafts = [
        hinted_draft(response, hinted=hinted)
        for one, other in itertools.product(listed, listed)
        for response in (one, other)
    ]
    return assemble(drafts, [i // 2 for i in range(len(drafts))], hinted_table_model(POLICY, HINTED), SCRIPT)


def found_gradients(
    row: Algorithm, rollout: Rollout, kl: float = 0.0, micro: int = 10**6
) -> tuple[Tensor, Tensor, Experience]:
    """The library's gradients of the objective, summed over tokens, at the bare and the hinted table."""
    policy = hinted_table_model(POLICY, HINTED)
    reference = hinted_table_model(REFERENCE, HINTED_REFERENCE)
    assessor = Assessor(policy, reference, {}, reward, Sampling(), 10**6)
    experience = assessor.assess(rollout, row, kl)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(max_micro_tokens=micro), seed=0)
    updater.backward(experience, row)
    assert isinstance(policy.model, HintedTableModel)
    assert policy.model.table.grad is not None
    gradient = -LENGTH * policy.model.table.grad[:, :3]
    return gradient[: len(STATES)], gradient[len(STATES) :], experience


def corrected(clip: float, denominator: Tensor) -> Callable[[Tensor], Tensor]:
    """The surrogate after the bare prompt of what was written after the hint, from its definition.

    Args:
        denominator: the table that ratios are to.
    """

    def value(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for one, other in itertools.product(RESPONSES, RESPONSES):
            chance = likelihood(HINTED, one, 0, LENGTH) * likelihood(HINTED, other, 0, LENGTH)
            advantage = score(one) - score(other)
            for t in range(LENGTH):
                at = state_index(one[:t]), one[t]
                ratio = probabilities[at] / denominator[at]
                bounded = ratio.clamp(1 - clip, 1 + clip)
                total = total + chance * torch.minimum(ratio * advantage, bounded * advantage)
        return total

    return value


def bare_kl(probabilities: Tensor) -> Tensor:
    """KL(policy || reference) after the bare prompt, over the states that the policy reaches with the hint."""
    total = torch.tensor(0.0)
    for state in STATES:
        at = state_index(state)
        reach = likelihood(HINTED, state, 0, len(state))
        total = total + reach * (probabilities[at] * (probabilities[at] / REFERENCE[at]).log()).sum()
    return total


@pytest.mark.parametrize("clip", [100.0, 0.2], ids=["not clipped", "clipped"])
def test_after_the_bare_prompt_ratios_are_to_what_was_sampled_after_the_hint(clip: float) -> None:
    row = PROMPT.changed(terms={"policy": {"options": {"clip": clip}}})
    bare, hinted, _ = found_gradients(row, every_pair())
    torch.testing.assert_close(bare, gradient_of(corrected(clip, HINTED)), atol=1e-4, rtol=1e-3)
    assert not hinted.any(), "nothing is learned about the prompt with the hint"
    # Without the correction it would be another gradient.
    assert (bare - gradient_of(corrected(clip, POLICY))).abs().max() > 1e-2


def test_the_kl_of_a_view_is_that_of_its_prompt() -> None:
    rollout = every_pair()
    plain, _, _ = found_gradients(PROMPT, rollout)
    penalty = found_gradients(PROMPT, rollout, kl=KL)[0] - plain
    torch.testing.assert_close(penalty, -KL * gradient_of(bare_kl), atol=1e-5, rtol=1e-3)


def test_as_written_the_objective_is_that_of_the_prompt_with_the_hint() -> None:
    def value(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for response in RESPONSES:
            penalty = penalized(POLICY, response, 0, 0.0)
            for t in range(LENGTH):
                at = state_index(response[:t]), response[t]
                penalty = penalty - KL * (probabilities[at].log() - HINTED_REFERENCE[at].log())
            total = total + likelihood(probabilities, response, 0, LENGTH) * penalty
        return total

    bare, hinted, _ = found_gradients(WRITTEN, every_pair(), kl=KL)
    torch.testing.assert_close(hinted, gradient_of(value, at=HINTED), atol=1e-4, rtol=1e-3)
    assert not bare.any()


def test_without_a_hint_both_views_are_one() -> None:
    rollout = every_pair(hinted=False)
    written = WRITTEN.changed(terms={"kl": {}})
    found = [found_gradients(row, rollout, kl=KL) for row in (written, PROMPT)]
    assert found[0][0].abs().max() > 1e-2
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-6, rtol=1e-5)
    assert not found[0][1].any()


@pytest.mark.parametrize("base", [HINTED_GRPO, QUESTA, POPE, SAGE, GHPO, SCAF_GRPO], ids=lambda row: row.name)
def test_the_rows_learn_after_the_prompt_that_they_say(base: Algorithm) -> None:
    """With the members' advantages given by the estimator, which has its own tests; micro-batches change nothing."""
    row, as_written = base.changed(group_size=2), base is not HINTED_GRPO
    texts = RESPONSES[::2]
    drafts = [hinted_draft(r, hinted=i % 4 < 2) for i, r in enumerate(texts[: len(texts) // 2 * 2])]
    rollout = assemble(
        drafts, [i // 2 for i in range(len(drafts))], hinted_table_model(POLICY, HINTED), SCRIPT
    )
    bare, hinted, experience = found_gradients(row, rollout)

    def value(probabilities: Tensor, *, of_hinted: bool) -> Tensor:
        total = torch.tensor(0.0)
        for draft, advantages in zip(drafts, experience.advantages, strict=True):
            scored_hinted = draft.hint is not None and as_written
            if scored_hinted is not of_hinted:
                continue
            for t in range(LENGTH):
                ratio = (
                    probabilities[state_index(draft.ids[:t]), draft.ids[t]]
                    / torch.tensor(draft.logprobs[t]).exp()
                )
                clipped = ratio.clamp(0.8, 1.2)
                total = total + torch.minimum(ratio * advantages[t], clipped * advantages[t])
        return total / len(drafts)

    exact = gradient_of(lambda p: value(p, of_hinted=False))
    torch.testing.assert_close(bare, exact, atol=1e-6, rtol=1e-4)
    if as_written:
        exact = gradient_of(lambda p: value(p, of_hinted=True), at=HINTED)
        torch.testing.assert_close(hinted, exact, atol=1e-6, rtol=1e-4)
    cut = found_gradients(row, rollout, micro=12)
    torch.testing.assert_close(cut[0], bare, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(cut[1], hinted, atol=1e-6, rtol=1e-4)


# A guide that reads the hint, while the policy writes without it.


def every_text_for_the_guide(row: Algorithm) -> Rollout:
    """Every text as often as a policy that reads the bare prompt writes it; the guide reads the hint."""
    drafts = []
    for response in RESPONSES:
        for _ in range(int(float(likelihood(POLICY, response, 0, LENGTH)) * 64)):
            draft = hinted_draft(response, hinted=False)
            draft.hint = HintedPrompt("a", Sample("a"), [0, 3], [3], taken=1)
            drafts.append(draft)
    return assemble(drafts, list(range(len(drafts))), hinted_table_model(POLICY, HINTED), row.script)


def to_the_guide(beta: float, guide: Tensor) -> Callable[[Tensor], Tensor]:
    """The divergence of the guide's table from the policy's, summed over the states that the policy reaches."""

    def value(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for state in STATES:
            p, q = guide[state_index(state)], probabilities[state_index(state)]
            m = beta * p + (1 - beta) * q
            apart = (q * (q / p).log()).sum()
            if beta < 1:
                apart = beta * (p * (p / m).log()).sum() + (1 - beta) * (q * (q / m).log()).sum()
            total = total + likelihood(POLICY, state, 0, len(state)) * apart
        return total

    return value


@pytest.mark.parametrize(
    ("row", "beta"), [(OPSD, 0.5), (SDFT, 1.0), (SDPO, 1.0)], ids=["opsd", "sdft", "sdpo"]
)
def test_the_policy_learns_without_the_hint_what_its_start_says_with_it(row: Algorithm, beta: float) -> None:
    policy, start = hinted_table_model(POLICY, HINTED), hinted_table_model(REFERENCE, HINTED_REFERENCE)
    guide = SelfGuide(start, policy.tokenizer, Sampling())
    rollout = every_text_for_the_guide(row)
    experience = Assessor(policy, start, {}, no_reward, Sampling(), 10**6).assess(rollout, row, 0.0)
    found = []
    for micro in (10**6, 12):
        updater = Updater(policy, {}, Sampling(), UpdateConfig(max_micro_tokens=micro), seed=0, guide=guide)
        updater.optimizer.zero_grad()
        updater.backward(experience, row)
        assert isinstance(policy.model, HintedTableModel)
        assert policy.model.table.grad is not None
        found.append(LENGTH * policy.model.table.grad[:, :3].clone())
    exact = gradient_of(to_the_guide(beta, HINTED_REFERENCE))
    torch.testing.assert_close(found[0][: len(STATES)], exact, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-4)
    assert not found[0][len(STATES) :].any(), "nothing is learned about the prompt with the hint"
    # After the bare prompt the guide would have said something else.
    assert (exact - gradient_of(to_the_guide(beta, REFERENCE))).abs().max() > 1e-2
