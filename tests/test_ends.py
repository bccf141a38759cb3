"""What ends a text: every token that the model's own files name, in sampling, scoring and splicing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlgf.algorithms import PPO
from rlgf.models.loading import LanguageModel, ModelConfig, load_language_model
from rlgf.rollout.collector import Collector, RolloutConfig
from rlgf.rollout.sampling import Sampling
from rlgf.rollout.scoring import score_logprobs
from rlgf.training.checkpoint import save_policy
from rlgf.types import Author
from toys import LetterTask, letter_gpt, letter_t5

SAMPLES = LetterTask().load("train")
C, D, END = 2, 3, 4
"""The letters c and d, and what the tokenizer says ends a text."""


def chatty(ends: list[int], model: LanguageModel | None = None) -> LanguageModel:
    """A model whose generation configuration names what ends its texts."""
    model = model or letter_gpt()
    model.model.generation_config.eos_token_id = ends  # type: ignore[union-attr]
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
