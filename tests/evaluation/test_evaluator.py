"""What an evaluation reports of each author."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from resume_script import toy_trainer
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.evaluation.evaluator import Evaluator, _extra, _Share, perplexities, perplexity, text_nll
from rlgf.metrics import TEXT_METRICS
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
    policy: LanguageModel | None = None,
    judge: Reward | None = None,
    beams: int | None = None,
    **options: object,
) -> Evaluator:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 4, "max_response_tokens": 8, **options})
    start = letter_gpt()
    collector = Collector(policy or start, FavouringGuide("a", 0.6), config, seed=0)
    reference = letter_gpt()
    return Evaluator(collector, reference, reference, share_of_a, judge, beams=beams)


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
    assert found.totals["distinct_1"] == TEXT_METRICS["distinct"](texts)["distinct_1"]


def test_perplexities_are_those_of_the_models_named() -> None:
    policy = perturbed(letter_gpt())
    found = evaluator(policy).evaluate(Author.POLICY, SAMPLES)
    limits = RolloutConfig(max_prompt_tokens=4, max_response_tokens=8, max_batch_tokens=999)
    prompts, texts = ([record[key] for record in found.records] for key in ("prompt", "completion"))
    samples = [Sample(prompt) for prompt in prompts]
    outputs = text_nll(letter_gpt(), samples, texts, limits)
    references = text_nll(policy, samples, ["aaaaaa"] * len(prompts), limits)
    assert found.totals["output_perplexity"] == pytest.approx(perplexity(*outputs), rel=1e-4)
    assert found.totals["reference_perplexity"] == pytest.approx(perplexity(*references), rel=1e-4)
    assert [r["output_perplexity"] for r in found.records] == pytest.approx(perplexities(*outputs), rel=1e-4)


def test_the_judge_is_reported_beside_the_reward() -> None:
    assert "judge" not in evaluator().evaluate(Author.POLICY, SAMPLES).totals
    found = evaluator(judge=share_of_b).evaluate(Author.POLICY, SAMPLES)
    texts = [record["completion"] for record in found.records]
    assert [record["judge"] for record in found.records] == pytest.approx(share_of_b([], texts))
    assert [record["reward"] for record in found.records] == pytest.approx(share_of_a([], texts))


@pytest.mark.parametrize(("beams", "name"), [(1, "greedy"), (3, "beam")])
def test_the_texts_of_a_beam_search_are_measured_beside_the_others(beams: int, name: str) -> None:
    policy = perturbed(letter_gpt())
    plain = evaluator(policy, judge=share_of_b).evaluate(Author.POLICY, SAMPLES)
    measured = evaluator(policy, judge=share_of_b, beams=beams)
    found = measured.evaluate(Author.POLICY, SAMPLES)
    searched = {key.removeprefix(f"{name}/"): total for key, total in found.totals.items() if "/" in key}
    assert {**found.totals, **plain.totals} == found.totals
    # Neither says what it is drawn from.
    assert searched.keys() == plain.totals.keys() - {"kl", "reference_perplexity"}
    texts = [record[f"{name}/completion"] for record in found.records]
    assert [record[f"{name}/reward"] for record in found.records] == share_of_a([], texts)
    assert [record[f"{name}/judge"] for record in found.records] == share_of_b([], texts)
    assert measured.searcher is not None
    assert texts == list(measured.searcher.answers(Author.POLICY, SAMPLES).texts)
    assert searched["output_perplexity"] < plain.totals["output_perplexity"]
    # A guide and a reference text are what they are.
    assert not any("/" in key for key in measured.evaluate(Author.GUIDE, SAMPLES).totals)


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


def test_what_one_process_said_beside_its_texts_stays_with_them() -> None:
    """A reward may call `log_extra` only where it has something to say, which no text of a process may be."""
    shares = [
        _Share(("a", "b"), [1, 1]),
        _Share(("c",), [1], extra={"why": ["short"]}),
        _Share(("d",), [1], extra={"why": ["long"], "how": [1]}),
    ]
    assert _extra(shares) == {"why": [None, None, "short", "long"], "how": [None, None, None, 1]}


def test_save_writes_totals_and_one_json_line_a_text(tmp_path: Path) -> None:
    found = evaluator(judge=share_of_b).evaluate(Author.POLICY, SAMPLES)
    path = tmp_path / "new" / "folder" / "policy.jsonl"
    found.save(path)
    totals, *records = [json.loads(line) for line in path.read_text().splitlines()]
    assert totals == {"totals": found.totals}
    assert records == found.records


def test_the_default_metrics_stay() -> None:
    config = load_config({"task": "imdb", "policy": {"model": "m"}, "reward": "sentiment"})
    assert [metric.name for metric in config.evaluation.metrics] == ["distinct", "repetition", "words"]
    assert load_config(config.model_dump(mode="json")) == config


def test_a_recipe_says_what_is_measured(tmp_path: Path) -> None:
    metrics = ["words", {"name": "sari"}, "msttr"]
    trainer = toy_trainer(tmp_path / "run", evaluation={"metrics": metrics, "samples": 4, "test_samples": 8})
    totals = trainer.evaluate().totals
    assert {"words", "sari"} <= totals.keys()
    assert not {"distinct_1", "repetition"} & totals.keys()


@pytest.mark.parametrize("metrics", ["words", {"words": 1}, [3], [{"nam": "words"}]])
def test_metrics_that_are_no_list_of_names_are_refused(metrics: Any) -> None:
    with pytest.raises(UserError, match=r"evaluation\.metrics"):
        load_config(
            {
                "task": "imdb",
                "policy": {"model": "m"},
                "reward": "sentiment",
                "evaluation": {"metrics": metrics},
            }
        )


@pytest.mark.parametrize("name", ["reward", "kl", "output_perplexity", "prompt", "tokens"])
def test_a_metric_takes_no_name_of_an_evaluation(name: str) -> None:
    found = evaluator()
    found.metrics = {"own": lambda completions: {name: 1.0}}
    with pytest.raises(UserError, match=f"a metric( of 'evaluation.metrics')? returns '{name}'"):
        found.evaluate(Author.POLICY, SAMPLES[:2])
