"""What another engine sampled: scored again by the policy, weighed, and refused where it is too far off.

The engine here is the built-in one with weights of its own, near the policy's or far from them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, Algorithm
from rlgf.concatenation import concatenate
from rlgf.errors import UserError
from rlgf.learning.assessor import Assessor
from rlgf.learning.inputs import InputReader
from rlgf.models.forward import Tokens
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs
from rlgf.models.samplers import Beginning, BuiltinSampler
from rlgf.models.sampling import Sampling
from rlgf.objectives.advantages import importance_weights
from rlgf.objectives.losses import kl_to_reference
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.run.update_metrics import describe
from rlgf.types import Author, Rollout, Sample
from toys import FavouringGuide, letter_gpt, share_of_a

SAMPLES = [Sample("abca"[: 1 + i % 4]) for i in range(12)]
CONFIG = RolloutConfig(max_prompt_tokens=6, max_response_tokens=8)
GUIDED = ALGORITHMS["guided-grpo"].changed(group_size=2, kl={"coefficient": 0.1})


class OtherWeights:
    """An engine whose weights are the policy's with noise."""

    def __init__(self, policy: LanguageModel, noise: float, largest_gap: float | None) -> None:
        random = torch.Generator().manual_seed(0)
        other = copy.deepcopy(policy.model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter += noise * torch.randn(parameter.shape, generator=random)
        self.model = LanguageModel(other, policy.tokenizer)
        self.largest_gap = largest_gap
        self._inner = BuiltinSampler(self.model, "policy")

    def write(
        self, beginnings: Sequence[Beginning], sampling: Sampling, *, keep_sets: bool = False
    ) -> list[Continuation]:
        return self._inner.write(beginnings, sampling, keep_sets=keep_sets)


@pytest.fixture
def policy() -> LanguageModel:
    return letter_gpt()


def collected(policy: LanguageModel, engine: OtherWeights, row: Algorithm = GUIDED) -> Rollout:
    guide = FavouringGuide("a", 0.6)
    return Collector(policy, guide, CONFIG, seed=0, sampler=engine).collect(SAMPLES, row)


def scored(model: LanguageModel, rollout: Rollout) -> Tensor:
    return score_logprobs(model.model, rollout, CONFIG.sampling, model.end_ids, 4096)


def assessor(policy: LanguageModel, bound: float | None) -> Assessor:
    reference = LanguageModel(copy.deepcopy(policy.model), policy.tokenizer)
    return Assessor(policy, reference, {}, share_of_a, CONFIG.sampling, 4096, importance_bound=bound)


def test_a_rollout_has_the_policys_log_probabilities_beside_the_engines(policy: LanguageModel) -> None:
    engine = OtherWeights(policy, 0.1, largest_gap=1.0)
    rollout = collected(policy, engine)
    by_policy = rollout.written_by(Author.POLICY)
    assert rollout.written_by(Author.GUIDE).any()
    assert rollout.engine_logprobs is not None
    for found, model in ((rollout.sampled_logprobs, policy), (rollout.engine_logprobs, engine.model)):
        expected = scored(model, rollout)
        torch.testing.assert_close(found[by_policy], expected[by_policy], atol=1e-5, rtol=1e-4)
        assert not found[~by_policy].any()
    assert (rollout.sampled_logprobs - rollout.engine_logprobs)[by_policy].abs().min() > 0


def test_the_built_in_engine_needs_no_second_pass(policy: LanguageModel) -> None:
    rollout = Collector(policy, FavouringGuide("a", 0.6), CONFIG, seed=0).collect(SAMPLES, GUIDED)
    assert rollout.engine_logprobs is None
    assert assessor(policy, 2.0).assess(rollout, GUIDED, 0.1).importance is None


def test_what_others_wrote_is_not_scored_and_has_the_same_fields(policy: LanguageModel) -> None:
    """Of several processes one may have texts of others alone."""
    engine = OtherWeights(policy, 5.0, largest_gap=1e-9)
    answers = Collector(policy, FavouringGuide("a", 0.6), CONFIG, 0, engine).answers(Author.GUIDE, SAMPLES)
    assert answers.engine_logprobs is not None
    assert torch.equal(answers.engine_logprobs, answers.sampled_logprobs)
    own = collected(policy, OtherWeights(policy, 0.1, largest_gap=1.0))
    for first, second in ((answers, own), (own, answers)):
        joined = concatenate([first, second])
        assert joined.engine_logprobs is not None
        assert len(joined.engine_logprobs) == len(answers) + len(own)
    experience = assessor(policy, 2.0).assess(answers, GUIDED, 0.1)
    assert "sampler_gap" not in describe(experience, GUIDED)


def test_an_engine_with_other_weights_ends_in_one_sentence(policy: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"more than 'sampler\.largest_gap' 0\.2") as caught:
        collected(policy, OtherWeights(policy, 1.0, largest_gap=0.2))
    assert "\n" not in str(caught.value)
    engine = OtherWeights(policy, 1.0, largest_gap=0.2)
    with torch.no_grad():
        engine.model.model.transformer.ln_f.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="nan nats per token"):
        collected(policy, engine)


def test_an_unchanged_policy_has_no_kl_whatever_the_engine(policy: LanguageModel) -> None:
    rollout = collected(policy, OtherWeights(policy, 0.1, largest_gap=1.0))
    experience = assessor(policy, 2.0).assess(rollout, GUIDED, 0.1)
    assert describe(experience, GUIDED)["kl"] == pytest.approx(0, abs=1e-9)
    assert torch.equal(experience.old_logprobs, rollout.sampled_logprobs)


@pytest.mark.parametrize("bound", [1.05, 1e6])
def test_advantages_of_the_policys_tokens_are_weighted(policy: LanguageModel, bound: float) -> None:
    rollout = collected(policy, OtherWeights(policy, 0.1, largest_gap=1.0))
    by_policy = rollout.written_by(Author.POLICY)
    plain = assessor(policy, None).assess(rollout, GUIDED, 0.1)
    assert plain.importance is None
    assert plain.advantages is not None
    found = assessor(policy, bound).assess(rollout, GUIDED, 0.1)
    assert found.advantages is not None
    ratio = (rollout.sampled_logprobs - rollout.engine_logprobs).exp()
    weights = torch.where(by_policy, torch.minimum(ratio, torch.tensor(bound)), 1.0)
    torch.testing.assert_close(found.advantages, plain.advantages * weights)
    assert (ratio[by_policy] > bound).any() == (bound < 2)
    assert not torch.equal(found.advantages, plain.advantages)


def test_the_log_says_how_far_the_engine_is(policy: LanguageModel) -> None:
    rollout = collected(policy, OtherWeights(policy, 0.1, largest_gap=1.0))
    by_policy = rollout.written_by(Author.POLICY)
    experience = assessor(policy, 2.0).assess(rollout, GUIDED, 0.1)
    said = describe(experience, GUIDED)
    assert rollout.engine_logprobs is not None
    gaps = (rollout.sampled_logprobs - rollout.engine_logprobs)[by_policy].abs()
    assert said["sampler_gap"] == pytest.approx(float(gaps.mean()))
    assert said["sampler_gap_max"] == pytest.approx(float(gaps.max()))
    weights = (rollout.sampled_logprobs - rollout.engine_logprobs)[by_policy].exp().clamp(max=2)
    assert said["sampler_weight"] == pytest.approx(float(weights.mean()))
    plain = replace(
        experience, scored=replace(experience.scored, rollout=replace(rollout, engine_logprobs=None))
    )
    assert not any(name.startswith("sampler") for name in describe(plain, GUIDED))


def test_a_kl_term_is_that_of_the_policy_whoever_drew_the_tokens() -> None:
    """Over a vocabulary of five, summed up whole: the gradient of ``KL(pi || reference)`` at a policy that has moved."""
    random = torch.Generator().manual_seed(1)
    engine, old, reference = torch.randn(3, 5, generator=random).log_softmax(-1)
    logits = torch.randn(5, generator=random).requires_grad_()
    logprobs = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits, retain_graph=True)
    mask, found = torch.ones(1, 1, dtype=torch.bool), torch.zeros(5)
    for token in range(5):
        columns = [one[token].view(1, 1) for one in (logprobs, old, reference)]
        weight = importance_weights(columns[1], engine[token].view(1, 1), 1e9)
        loss, _ = kl_to_reference(*columns, mask, 1.0, 1.0, weight)
        found += engine[token].exp() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(found, exact)


def test_weights_reach_a_kl_term(policy: LanguageModel) -> None:
    rollout = collected(policy, OtherWeights(policy, 0.1, largest_gap=1.0))
    experience = assessor(policy, 2.0).assess(rollout, GUIDED, 0.1)
    tokens = Tokens.of(rollout)
    reader = InputReader(policy, CONFIG.sampling, 5, None)
    inputs, _ = reader.read(GUIDED.reads, experience, tokens)
    assert inputs.importance is not None
    assert torch.equal(inputs.importance, experience.importance)
    assert (inputs.importance[rollout.written_by(Author.POLICY)] != 1).any()
