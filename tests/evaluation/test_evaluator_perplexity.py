"""Perplexity against plain forward passes."""

from __future__ import annotations

import math

import pytest
import torch

from chat_toys import QUIET, THINKS, USER, collector, with_template
from rlgf.evaluation.evaluator import Evaluator, perplexities, perplexity, text_nll
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author, Sample
from tokenizer_kinds import byte_bpe, llama_legacy, speaker


def test_perplexity_equals_a_plain_forward_pass(language_model: LanguageModel) -> None:
    prompts = ["The film was", "", "She plays the part with wit, and the music is lovely. He"]
    texts = [
        " a joy from the first scene to the last.",
        "He leaves",
        " buys bread and walks home in the rain.",
    ]
    samples = [Sample(prompt) for prompt in prompts]
    config = RolloutConfig(max_prompt_tokens=12, max_response_tokens=14, max_batch_tokens=40)
    nll, tokens = text_nll(language_model, samples, texts, config)
    expected, counts = [], []
    for prompt, text in zip(prompts, texts, strict=True):
        before = language_model.encode(prompt)[-12:] or [language_model.end_id]
        ids = language_model.encode(text)[:14]
        with torch.no_grad():
            logits = language_model.model(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1]
        expected.append(torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum").item())
        counts.append(len(ids))
    assert tokens.tolist() == counts
    torch.testing.assert_close(nll, torch.tensor(expected), atol=1e-4, rtol=1e-5)
    assert perplexity(nll, tokens) == pytest.approx(math.exp(sum(expected) / sum(counts)), rel=1e-5)
    assert perplexities(nll, tokens) == pytest.approx(
        [math.exp(e / c) for e, c in zip(expected, counts, strict=True)], rel=1e-5
    )


def test_perplexity_of_an_empty_text_is_that_of_ending(language_model: LanguageModel) -> None:
    config = RolloutConfig(max_prompt_tokens=9, max_response_tokens=9, max_batch_tokens=99)
    nll, tokens = text_nll(language_model, [Sample("The film")], [""], config)
    with torch.no_grad():
        logits = language_model.model(torch.tensor([language_model.encode("The film")])).logits[0, -1]
    assert tokens.tolist() == [1]
    assert nll.item() == pytest.approx(-logits.log_softmax(-1)[language_model.end_id].item(), abs=1e-4)


def test_a_language_model_of_another_family_is_told_what_the_row_says() -> None:
    policy, other = speaker(with_template(byte_bpe())), speaker(with_template(llama_legacy(), THINKS), seed=1)
    maker = collector(policy, None)
    evaluator = Evaluator(maker, policy, other, None, None, metrics={})
    found = evaluator.evaluate(
        Author.POLICY, [Sample("<user>the film?<assistant>", columns=QUIET, messages=(USER,))]
    )
    nll, tokens = text_nll(
        other,
        [Sample("<quiet><user>the film?<assistant>")],
        [found.records[0]["completion"]],
        RolloutConfig(max_prompt_tokens=50, max_response_tokens=10, max_batch_tokens=99),
    )
    assert found.totals["output_perplexity"] == pytest.approx(perplexity(nll, tokens), rel=1e-5)


def test_the_perplexity_of_what_is_all_but_impossible_is_infinite() -> None:
    assert perplexity(torch.tensor([5000.0]), torch.tensor([2.0])) == float("inf")
