"""Text metrics, perplexity, and what an evaluation reports of each author."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from rlgf.evaluation.evaluator import Evaluator
from rlgf.evaluation.perplexity import perplexities, perplexity, text_nll
from rlgf.metrics import TEXT_METRICS
from rlgf.metrics.text import distinct, repetition, words
from rlgf.models.language_model import LanguageModel
from rlgf.rewards import Reward
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author, Sample
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a

SAMPLES = LetterTask().load("test")[:12]


def share_of_b(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [text.count("b") / max(len(text), 1) for text in completions]


def perturbed(policy: LanguageModel, scale: float = 0.3) -> LanguageModel:
    model = copy.deepcopy(policy.model)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=noise)
    return LanguageModel(model, policy.tokenizer)


def evaluator(
    policy: LanguageModel | None = None, judge: Reward | None = None, **options: object
) -> Evaluator:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 4, "max_response_tokens": 8, **options})
    start = letter_gpt()
    collector = Collector(policy or start, FavouringGuide("a", 0.6), config, seed=0)
    reference = letter_gpt()
    return Evaluator(collector, reference, reference, share_of_a, judge, config)


def test_distinct_counts_ngrams_of_all_texts() -> None:
    """the cat the cat | a cat: words the, cat, a of 6; pairs the-cat, cat-the, a-cat of 4; 2 triples."""
    found = distinct([], ["The cat  the\ncat", "a cat"], [])
    assert list(found) == ["distinct_1", "distinct_2", "distinct_3"]
    assert list(found.values()) == pytest.approx([3 / 6, 3 / 4, 1])
    assert list(distinct([], ["", "word"], []).values()) == [1.0, 0.0, 0.0]
    assert list(distinct([], [""], []).values()) == [0.0, 0.0, 0.0]


def test_repetition_counts_trigrams_that_stood_before() -> None:
    """a b c a b c holds abc, bca, cab and abc again; x x x x x holds one trigram three times."""
    found = repetition([], ["a b c A b c", "x x x x x", "a b c d", "a b", ""], [])
    assert found == {"repetition": [pytest.approx(1 / 4), pytest.approx(2 / 3), 0.0, 0.0, 0.0]}


def test_words_counts_what_stands_between_spaces() -> None:
    assert words([], ["one  two\nthree,four", ""], []) == {"words": [3.0, 0.0]}


def test_perplexity_equals_a_plain_forward_pass(language_model: LanguageModel) -> None:
    prompts = ["The film was", "", "She plays the part with wit, and the music is lovely. He"]
    texts = [
        " a joy from the first scene to the last.",
        "He leaves",
        " buys bread and walks home in the rain.",
    ]
    samples = [Sample(prompt) for prompt in prompts]
    nll, tokens = text_nll(
        language_model, samples, texts, max_prompt_tokens=12, max_tokens=14, max_batch_tokens=40
    )
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
    nll, tokens = text_nll(
        language_model, [Sample("The film")], [""], max_prompt_tokens=9, max_tokens=9, max_batch_tokens=99
    )
    with torch.no_grad():
        logits = language_model.model(torch.tensor([language_model.encode("The film")])).logits[0, -1]
    assert tokens.tolist() == [1]
    assert nll.item() == pytest.approx(-logits.log_softmax(-1)[language_model.end_id].item(), abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "min_response_tokens": 5}])
def test_kl_of_the_start_is_zero(options: dict[str, float]) -> None:
    found = evaluator(**options).evaluate(Author.POLICY, SAMPLES)
    assert found.totals["kl"] == pytest.approx(0, abs=1e-6)
    assert found.totals["output_perplexity"] > 1


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "min_response_tokens": 5}])
def test_kl_of_a_changed_policy_is_positive_for_every_text(options: dict[str, float]) -> None:
    found = evaluator(perturbed(letter_gpt()), **options).evaluate(Author.POLICY, SAMPLES)
    assert all(record["kl"] > 0 for record in found.records)
    assert found.totals["kl"] > 0.01


def test_totals_are_of_the_texts() -> None:
    found = evaluator(perturbed(letter_gpt())).evaluate(Author.POLICY, SAMPLES)
    texts = [record["completion"] for record in found.records]
    assert [record["prompt"] for record in found.records] == [sample.prompt for sample in SAMPLES]
    assert [record["reward"] for record in found.records] == pytest.approx(share_of_a([], texts))
    for name in ("reward", "kl", "words", "repetition"):
        assert found.totals[name] == pytest.approx(sum(r[name] for r in found.records) / len(texts))
    # The end of a text is one more token, unless it ran into the limit of 8.
    assert found.totals["tokens"] == pytest.approx(sum(min(len(t) + 1, 8) for t in texts) / len(texts))
    assert found.totals["distinct_1"] == TEXT_METRICS["distinct"]([], texts, [])["distinct_1"]


def test_perplexities_are_those_of_the_models_named() -> None:
    policy = perturbed(letter_gpt())
    found = evaluator(policy).evaluate(Author.POLICY, SAMPLES)
    limits = {"max_prompt_tokens": 4, "max_tokens": 8, "max_batch_tokens": 999}
    prompts, texts = ([record[key] for record in found.records] for key in ("prompt", "completion"))
    samples = [Sample(prompt) for prompt in prompts]
    outputs = text_nll(letter_gpt(), samples, texts, **limits)
    references = text_nll(policy, samples, ["aaaaaa"] * len(prompts), **limits)
    assert found.totals["output_perplexity"] == pytest.approx(perplexity(*outputs), rel=1e-4)
    assert found.totals["reference_perplexity"] == pytest.approx(perplexity(*references), rel=1e-4)
    assert [r["output_perplexity"] for r in found.records] == pytest.approx(perplexities(*outputs), rel=1e-4)


def test_the_judge_is_reported_beside_the_reward() -> None:
    assert "judge" not in evaluator().evaluate(Author.POLICY, SAMPLES).totals
    found = evaluator(judge=share_of_b).evaluate(Author.POLICY, SAMPLES)
    texts = [record["completion"] for record in found.records]
    assert [record["judge"] for record in found.records] == pytest.approx(share_of_b([], texts))
    assert [record["reward"] for record in found.records] == pytest.approx(share_of_a([], texts))


def test_the_same_noise_twice_gives_the_same_result() -> None:
    measured = evaluator()
    first, second = (measured.evaluate(Author.POLICY, SAMPLES) for _ in range(2))
    assert first == second
    assert len({record["completion"] for record in first.records}) > 1


def test_every_prompt_is_answered_once_whatever_the_group_size() -> None:
    grouped = evaluator(episodes=12).evaluate(Author.POLICY, SAMPLES)
    assert len(grouped.records) == len(SAMPLES)
    assert grouped == evaluator().evaluate(Author.POLICY, SAMPLES)


def test_guide_and_reference_texts_are_measured_in_the_same_way() -> None:
    measured = evaluator()
    guide = measured.evaluate(Author.GUIDE, SAMPLES)
    reference = measured.evaluate(Author.REFERENCE, SAMPLES)
    assert guide.totals["reward"] == pytest.approx(0.6, abs=0.2)
    assert {record["completion"] for record in reference.records} == {"aaaaaa"}
    assert reference.totals["reward"] == 1
    for found in (guide, reference):
        assert "output_perplexity" in found.totals
        assert not {"kl", "reference_perplexity"} & found.totals.keys(), "these are of the policy alone"


def test_prompts_without_references_have_no_reference_perplexity() -> None:
    found = evaluator().evaluate(Author.POLICY, [Sample("ab", ("a",)), Sample("b")])
    assert "reference_perplexity" not in found.totals
    assert "kl" in found.totals


def test_save_writes_totals_and_one_json_line_a_text(tmp_path: Path) -> None:
    found = evaluator(judge=share_of_b).evaluate(Author.POLICY, SAMPLES)
    path = tmp_path / "new" / "folder" / "policy.jsonl"
    found.save(path)
    totals, *records = [json.loads(line) for line in path.read_text().splitlines()]
    assert totals == {"totals": found.totals}
    assert records == found.records
