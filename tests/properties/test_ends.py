"""What ends a text: every token that the model's own files name, in sampling, scoring and splicing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlgf.algorithms.catalog import PPO, PPO_PLUS_PLUS
from rlgf.evaluation.evaluator import text_nll
from rlgf.guides import LocalGuide
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.response_scores import score_logprobs
from rlgf.models.sampling import Sampling
from rlgf.objectives.losses import distillation
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import splice
from rlgf.run.checkpoint import save_policy
from rlgf.types import Author, Completion, Sample
from toys import LetterTask, letter_gpt, letter_t5

SAMPLES = LetterTask().load("train")
C, D, END = 2, 3, 4
"""The letters c and d, and what the tokenizer says ends a text."""


def chatty(ends: list[int], model: LanguageModel | None = None) -> LanguageModel:
    """A model whose generation configuration names what ends its texts."""
    model = model or letter_gpt()
    model.model.generation_config.eos_token_id = ends
    return model


def collector(policy: LanguageModel, **options: object) -> Collector:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 6, "max_response_tokens": 8, **options})
    return Collector(policy, None, config, seed=0)


def test_the_ends_are_those_of_the_tokenizer_and_of_both_configurations(tmp_path: Path) -> None:
    model = chatty([D, END, 77])
    model.model.config.eos_token_id = C
    assert model.end_ids == (C, D, END), "without 77, which the tokenizer does not have"
    assert model.end_id == END
    save_policy(model, tmp_path)
    assert load_language_model(ModelConfig(model=str(tmp_path))).end_ids == (C, D, END)
    assert letter_gpt().end_ids == (END,)


@pytest.mark.parametrize("model", [letter_gpt, letter_t5])
def test_every_end_ends_a_text(model: Callable[[], LanguageModel]) -> None:
    policy = chatty([D, END], model())
    rollout = collector(policy).collect(SAMPLES, PPO)
    texts = [
        ids[mask].tolist() for ids, mask in zip(rollout.response_ids, rollout.response_mask, strict=True)
    ]
    assert all(not {D, END} & set(text[:-1]) for text in texts)
    assert [text[-1] in (D, END) for text in texts] == rollout.finished.tolist()
    assert {text[-1] for text in texts} >= {D, END}, "both occur"


@pytest.mark.parametrize("minimum", [3, 8])
def test_no_end_comes_before_the_minimum_length(minimum: int) -> None:
    policy = chatty([D, END])
    maker = collector(policy, min_response_tokens=minimum)
    rollout = maker.collect(SAMPLES, PPO)
    assert int(rollout.lengths.min()) >= minimum
    ends = torch.isin(rollout.response_ids, torch.tensor([D, END])) & rollout.response_mask
    assert not ends[:, : minimum - 1].any()
    assert rollout.written_by(Author.POLICY).sum() == rollout.response_mask.sum()
    scored = score_logprobs(policy.model, rollout, maker.config.sampling, policy.end_ids, 10**6)
    torch.testing.assert_close(scored, rollout.sampled_logprobs, atol=1e-4, rtol=1e-4)
    early = score_logprobs(policy.model, rollout, Sampling(), policy.end_ids, 10**6)
    assert (early < scored - 1e-3).any(), "the mass of both ends went to the letters that may come"


def instructed(policy: LanguageModel, ends: list[int], seed: int = 7) -> LocalGuide:
    """A guide with the policy's letters whose own tokenizer ends texts in the first of these."""
    model = letter_gpt(seed=seed)
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(ends[0])
    model.model.config.eos_token_id = None
    guide = LocalGuide(chatty(ends, model), policy.tokenizer, Sampling())
    assert guide.shares_tokenizer
    assert guide.end_ids == tuple(sorted(ends))
    return guide


@pytest.mark.parametrize("ends", [[D], [D, END], [C, D]])
def test_a_guides_end_becomes_the_policys(ends: list[int]) -> None:
    policy = letter_gpt()
    guide = instructed(policy, ends)
    config = RolloutConfig.model_validate({"max_prompt_tokens": 6, "max_response_tokens": 8})
    maker = Collector(policy, guide, config, seed=0)
    whole = maker.answers(Author.GUIDE, SAMPLES)
    for ids, mask, finished, text in zip(
        whole.response_ids, whole.response_mask, whole.finished.tolist(), whole.texts, strict=True
    ):
        written = ids[mask].tolist()
        assert not {*ends, END} & set(written[:-1])
        assert finished == (written[-1] == END)
        assert not {"abcd"[end] for end in ends if end != END} & set(text)
    assert whole.finished.sum() > 10
    always = PPO_PLUS_PLUS.changed(help={"probability": 1.0})
    rollout = maker.collect(SAMPLES, always)
    of_guide = rollout.response_ids[rollout.written_by(Author.GUIDE)]
    assert not set(of_guide.tolist()) & {*ends, END}, "the policy goes on from no end"


def test_the_policys_end_ends_a_guides_text() -> None:
    """Also where the guide itself goes on, and as one of several."""
    policy = chatty([C, END])
    for ids, finished, expected in [
        ((0, 1, END, 0), False, [0, 1, END]),
        ((0, C, 1, D), True, [0, C]),
        ((0, 1, D), True, [0, 1, END]),
        ((0, 1), False, [0, 1]),
        ((D,), True, [END]),
        ((), False, [END]),
    ]:
        part = splice(policy, Completion("", finished, token_ids=ids), 9)
        assert (part.ids, part.finished) == (expected, expected[-1] in policy.end_ids)
    assert not splice(policy, Completion("", True, token_ids=(0, 1, D)), 2).finished


@pytest.mark.parametrize("text", ["ab<end>", "ab<end>ba", "ab<end><end>"])
@pytest.mark.parametrize("finished", [True, False])
def test_an_end_that_is_written_out_ends_the_text(text: str, finished: bool) -> None:
    policy = letter_gpt()
    part = splice(policy, Completion(text, finished), 9)
    assert (part.ids, part.finished, part.altered) == ([0, 1, END], True, False)
    sample = Sample("abc", (text,), rejected="b" + text)
    rollout = collector(policy).answers(Author.REFERENCE, [sample] * 3)
    assert rollout.references == [("ab",)] * 3
    assert rollout.samples[0].rejected == "bab"
    assert rollout.texts == ("ab",) * 3
    assert rollout.response_ids[rollout.response_mask].tolist() == [0, 1, END] * 3
    limits = RolloutConfig(max_prompt_tokens=9, max_response_tokens=9, max_batch_tokens=99)
    found = [text_nll(policy, [Sample("abc")], [one], limits) for one in (text, "ab<end>")]
    assert found[0] == found[1]


def divergence(updater: Updater, tokens: Tokens, logits: Tensor, beta: float) -> Tensor:
    assert updater.guide is not None
    scored = updater.guide.log_distribution(tokens)
    policy, guide = updater.reader.distributions(logits, scored)
    return distillation(policy, guide, tokens.response_mask, 1.0, beta)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    ("policy_ends", "guide_ends"), [([END], [D]), ([C, END], [END]), ([END], [C, END]), ([C, END], [D])]
)
def test_distillation_compares_the_probabilities_of_ending(
    policy_ends: list[int], guide_ends: list[int], beta: float
) -> None:
    policy = chatty(policy_ends)
    guide = instructed(policy, guide_ends)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(), 0, guide)
    rollout = collector(policy).collect(SAMPLES[:6], PPO)
    tokens = Tokens.of(rollout)
    logits, _ = response_outputs(policy.model, tokens)
    found = divergence(updater, tokens, logits, beta)

    def outcomes(logprobs: Tensor, ends: set[int]) -> list[float]:
        """The probability of each token that both can go on from, and of ending, given one of these."""
        p = logprobs.double().exp().tolist()
        shared = [i for i in range(5) if i not in {*policy_ends, *guide_ends}]
        kept = [*(p[i] for i in shared), sum(p[i] for i in ends)]
        return [x / sum(kept) for x in kept]

    def kl(p: list[float], q: list[float]) -> float:
        return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))

    expected = 0.0
    of_guide = guide.log_distribution(tokens)
    for b, t in rollout.response_mask.nonzero().tolist():
        q = outcomes(logits[b, t].log_softmax(-1), set(policy_ends))
        p = outcomes(of_guide[b, t], {*guide_ends, *policy_ends})
        m = [beta * x + (1 - beta) * y for x, y in zip(p, q, strict=True)]
        expected += {0.0: kl(p, q), 1.0: kl(q, p)}.get(beta, beta * kl(p, m) + (1 - beta) * kl(q, m))
    assert found.item() == pytest.approx(expected, rel=1e-4)
    (gradient,) = torch.autograd.grad(found, policy.model.get_input_embeddings().weight)
    assert gradient.isfinite().all()


def test_a_policy_learns_to_end_where_its_guide_ends() -> None:
    """The guide ends in d, which the policy writes for its own: it learns to end in its own token instead."""
    policy = chatty([END])
    guide = instructed(policy, [D])
    with torch.no_grad():
        bias = torch.zeros(5)
        bias[D] = 3.0
        head = guide.language_model.model.get_output_embeddings()
        head.bias = torch.nn.Parameter(bias)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(), 0, guide)
    tokens = Tokens.of(collector(policy).collect(SAMPLES[:6], PPO))
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=0.01)
    for _ in range(60):
        logits, _ = response_outputs(policy.model, tokens)
        loss = divergence(updater, tokens, logits, 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    p = response_outputs(policy.model, tokens)[0][tokens.response_mask].softmax(dim=-1).mean(dim=0)
    assert p[END] > 0.6
    assert p[D] < 0.3
