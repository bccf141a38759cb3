"""What cannot be sampled ahead is refused before a model loads."""

from __future__ import annotations

from typing import Any

import pytest
from unfit_parts import SOUND, refusal

from rlgf import checks
from rlgf.config import load_config
from rlgf.models.samplers import EngineConfig


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["rollout.draw=difficulty", "algorithm.help.success=0.5"],
            "'rollout.draw: difficulty' tells the prompts of an update only after the one before it",
        ),
        (["training.policy_tokens=100"], "'training.policy_tokens' may end the run after any update"),
        (
            ["training.guide_tokens=100", "algorithm=ppo++"],
            "'training.guide_tokens' may end the run after any update",
        ),
        (
            ["algorithm=bread"],
            "algorithm 'bread' decides who is helped, or how far, by what texts have earned",
        ),
        (
            ["algorithm=a-star-po"],
            "'a-star-po' asks the reward about further texts ('algorithm.start_value')",
        ),
        (
            ["algorithm=exgrpo", "algorithm.help.gate=null"],
            "algorithm 'exgrpo' decides who is helped, or how far, by what texts have earned",
        ),
        (["algorithm=adaback"], "algorithm 'adaback' decides who is helped, or how far"),
        (["algorithm=vineppo"], "'vineppo' asks the reward about further texts ('algorithm.branches')"),
        (
            ["algorithm=seq-kd", "guide.candidates=2"],
            "of 2 texts ('guide.candidates') the reward picks the best",
        ),
        (["algorithm=ppo++", "guide.budget.then=unguided"], "set 'then: stop'"),
        (
            [
                {"guide": "self", "policy": {"model": "gpt2", "lora": {}, "scratch": None}},
                "algorithm=ppo++",
            ],
            "the guide 'self' is the model in training with its adapter off",
        ),
        (["sampler.engine=vllm"], "'sampler.engine: vllm' writes while nothing trains"),
        (
            [{"guide": {"model": "gpt2", "sampler": {"engine": "vllm"}}}],
            "'guide.sampler.engine: vllm' writes while nothing trains",
        ),
        (["sampler.server=http://127.0.0.1:8300"], "'sampler.server' writes with the newest weights"),
        (["training.async_steps=-1"], "'training.async_steps'"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_one_sentence_before_models_load(
    overrides: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    assert message in (said := refusal("training.async_steps=2", *overrides))
    assert "'training.async_steps" in said


@pytest.mark.parametrize("algorithm", ["ppo++", "d2lols", "seq-kd"])
def test_what_can_be_sampled_ahead_is_not_refused(algorithm: str) -> None:
    config = load_config(SOUND, f"algorithm={algorithm}", "training.async_steps=1")
    assert list(checks.broken(config)) == []


def test_a_policy_that_only_scores_itself_can_be_sampled_ahead() -> None:
    itself = {"guide": "self", "policy": {"model": "gpt2", "lora": {}}, "algorithm": "opsd"}
    base = {name: section for name, section in SOUND.items() if name not in itself}
    assert list(checks.broken(load_config(base, itself, "training.async_steps=1"))) == []


def test_sampling_ahead_in_several_processes_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = "'training.async_steps' runs in one process, and there are 2"
    assert said in refusal("training.async_steps=1")
    assert list(checks.broken_parts(load_config(SOUND))) == []
