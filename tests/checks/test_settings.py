"""Rules of the configuration alone: what does not fit is one sentence."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import ValidationError
from unfit_parts import refusal

from rlgf.algorithms.imitation_rows import DISTILL
from rlgf.config import Config, load_config
from rlgf.guides import LocalGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from toys import letter_gpt, sentence_of


def local(language_model: LanguageModel, **sampling: Any) -> LocalGuide:
    return LocalGuide(language_model, letter_gpt().tokenizer, Sampling(**sampling))


RECIPE: dict[str, Any] = {"task": "imdb", "policy": {"model": "gpt2"}, "reward": "sentiment"}
BLIND: dict[str, dict[str, Any]] = {
    "url": {"url": "http://127.0.0.1:1/v1", "model": "x"},
    "file": {"file": "texts.jsonl"},
    "guides": {"guides": {"one": {"model": "x"}, "other": {"model": "y"}}},
    "name": {"name": "toys:FavouringGuide", "options": {"favourite": "a", "probability": 0.5}},
}
LATER = {"loss": "distillation", "weight": {"start": 0, "end": 0.1}}
DISTILLING: dict[str, Any] = {
    "distill": "distill",
    "later": {"base": "ppo", "terms": {"distill": LATER}},
    "d2lols": {"base": "d2lols", "explore": {"terms": {"distill": LATER}}},
}


@pytest.mark.parametrize("key", BLIND)
@pytest.mark.parametrize("algorithm", DISTILLING)
def test_a_guide_that_can_never_score_is_refused_with_the_recipe(key: str, algorithm: str) -> None:
    recipe = {**RECIPE, "guide": BLIND[key]}
    assert load_config(recipe, "algorithm=ppo++").guide is not None
    message = sentence_of(lambda: load_config(recipe, {"algorithm": DISTILLING[algorithm]}))
    assert f"'guide.{key}'" in message
    assert "set 'guide.model'" in message
    assert "the loss 'distillation'" in message


@pytest.mark.parametrize("algorithm", DISTILLING)
def test_no_guide_at_all_is_refused_with_the_recipe(algorithm: str) -> None:
    message = sentence_of(lambda: load_config(RECIPE, {"algorithm": DISTILLING[algorithm]}))
    assert "needs a guide" in message
    assert "'guide:' section" in message


def made() -> LocalGuide:
    """What a function returns shows only once it is called."""
    return local(letter_gpt(seed=7))


@pytest.mark.parametrize("guide", [{"model": "x"}, {"name": f"{__name__}:made"}])
def test_a_guide_that_may_score_is_not_refused_with_the_recipe(guide: dict[str, Any]) -> None:
    recipe = {**RECIPE, "guide": guide, "reward": None}
    assert load_config(recipe, "algorithm=distill").algorithm == DISTILL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "dpo", "reward": None}, "'dpo' needs a reward"),
        ({"algorithm": {"base": "rebel", "group_size": 1}}, "'group_size' must be 2 or more"),
        ({"algorithm": {"base": "offline-dpo", "group_size": 4}}, r"set 'group_size: 2' \(it is 4\)"),
        (
            {"algorithm": "offline-dpo", "rollout": {"min_response_tokens": 5}},
            r"'rollout.min_response_tokens: 0' \(it is 5\)",
        ),
        ({"algorithm": "guided-dpo", "guide": None}, "needs a guide"),
        (
            {"algorithm": "vineppo", "reward": {"name": "sentiment", "clip": [0, 1]}},
            "'vineppo' takes means of rewards, and 'reward.clip' cuts each one off",
        ),
    ],
)
def test_what_a_pair_algorithm_needs_is_asked_for(changes: dict[str, Any], message: str) -> None:
    config = {
        "task": "imdb",
        "policy": {"model": "a"},
        "guide": {"model": "b"},
        "reward": {"name": "sentiment"},
    }
    config["task"] = {"name": "imdb"}
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(config | changes)


VLLM = "sampler.engine=vllm"


def test_an_engine_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert "'sampler.engine: vllm' needs vLLM: pip install vllm" in refusal(VLLM)
    guide = {"guide": {"model": "gpt2", "sampler": {"engine": "vllm"}}}
    assert "'guide.sampler.engine: vllm' needs vLLM" in refusal("sampler.engine=builtin", guide)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["guide=null", "algorithm=ppo++"], "algorithm 'ppo++' needs a guide: give a 'guide:' section"),
        (["reward=null"], "algorithm 'ppo' needs a reward: give a 'reward:' section"),
        (["algorithm=distill"], "a guide given by 'guide.url' has none"),
        (
            ["algorithm=distill", {"guide": {"model": "x", "template": "A rave: {text}"}}],
            "'guide.template' is for what the guide writes: leave it out",
        ),
        (
            ["algorithm=ppo++", "guide.candidates=4"],
            "in algorithm 'ppo++' the guide begins texts: set it to 1, or an algorithm",
        ),
        (
            ["algorithm=hinted-grpo", "rollout.max_hint_tokens=16", "guide.candidates=2"],
            "in algorithm 'hinted-grpo' the guide writes hints",
        ),
        (
            ["algorithm=seq-kd", "guide.candidates=4", "reward=null"],
            "of 4 texts ('guide.candidates') the reward picks the best: give a 'reward:' section",
        ),
        (
            [{"guide": {"guides": {"a": {"model": "x", "candidates": 2}, "b": {"model": "y"}}}}],
            "set it beside 'guides', not in 'a'",
        ),
        ([{"guide": {"model": "x", "template": "{text} A rave"}}], "it must end in '{text}'"),
        (["rollout.episodes=6", "algorithm=grpo"], "must be a multiple of the 'algorithm.group_size' 4"),
        (["algorithm=offline-dpo", "rollout.min_response_tokens=2"], "given texts of any length"),
        (["algorithm=aggrevated", "guide.budget.then=unguided"], "does not fit algorithm 'aggrevated'"),
        (["algorithm=gad", "guide.budget.then=unguided"], "or nothing is left to learn from; set 'stop'"),
        ([{"guide": None}, "algorithm=gad", "reward=discriminator"], "algorithm 'gad' needs a guide"),
        (["algorithm=a-star-po", "reward.normalize=true"], "set 'reward.normalize: false'"),
        (["algorithm=exgrpo", "rollout.top_k=5"], "which tokens it chose among is not kept: set 'rollout.top_k: null'"),
        (["algorithm=exgrpo", "rollout.top_p=0.9"], "set 'rollout.top_p: 1'"),
        (["algorithm=a-star-po", {"reward": {"clip": [0, 1]}}], "set 'reward.clip: null'"),
        (["algorithm=gad"], "needs a reward that learns beside the policy"),
        (
            [{"reward": {"terms": {"a": "toys:share_of_a"}}}, {"guide": {"guides": {"a": {"model": "x"}, "b": {"model": "y"}}}}],
            "both called 'a'",
        ),
        (
            ["algorithm=hinted-grpo", "rollout.max_hint_tokens=16", "update.max_update_kl=0.1"],
            "knows that only after the prompts with hints",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_before_models_load(overrides: list[Any], message: str) -> None:
    assert message in refusal(*overrides)
