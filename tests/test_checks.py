"""Rules between the parts of a run: each bad recipe ends in one sentence, and no model is loaded for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlgf import checks
from rlgf.algorithms import ESTIMATORS, Algorithm
from rlgf.config import Config, load_config
from rlgf.errors import RefusedError, UserError
from rlgf.guides import Request
from rlgf.models.samplers import EngineConfig
from rlgf.run.build import build_parts
from rlgf.types import Completion, Sample
from toys import letter_gpt

HERE = "test_checks"
SOUND: dict[str, Any] = {
    "task": "toys:LetterTask",
    "policy": {"scratch": {"context": 64}},
    "guide": {"url": "http://127.0.0.1:9/v1", "model": "nobody", "patience": 0.1, "timeout": 0.1},
    "reward": "toys:share_of_a",
    "rollout": {"episodes": 8, "max_prompt_tokens": 8, "max_response_tokens": 8},
    "evaluation": {"metrics": ["words"]},
}

NUMBER = 5


def group_mean(signals: Any) -> Tensor:
    return signals.rewards


def of_old_values(old_values: Tensor, mask: Tensor, normalizer: float) -> Tensor:
    return (old_values * mask).sum() / normalizer


def mute(completions: list[str]) -> list[float]:
    return [0.0 for _ in completions]


class Silent:
    """Neither writes, nor loads, nor can be called."""

    def __init__(self, loudness: int = 0) -> None:
        self.loudness = loudness


class BarePrompts:
    def load(self, split: str) -> list[Sample]:
        return [Sample("abcd")]


class Writes:
    def write(self, requests: list[Request]) -> list[Completion]:
        return [Completion("a", finished=False) for _ in requests]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("rlgf.run.build.load_language_model", "rlgf.guides.local.load_language_model"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("a model was loaded"))


def refusal(*sources: Any, task: str = "toys:LetterTask") -> str:
    """What a user is told where a run is built, made sure to be one sentence on one line."""
    other = any(isinstance(source, dict) and "guide" in source for source in sources)
    base = {key: value for key, value in SOUND.items() if not other or key != "guide"}
    with pytest.raises(UserError) as caught:
        build_parts(load_config(base, {"task": task}, *sources))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_sound_recipe_breaks_no_rule() -> None:
    config = load_config(SOUND, "algorithm=lols")
    assert list(checks.broken(config)) == []
    assert list(checks.broken_parts(config)) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Between sections.
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
        (["algorithm=gad"], "needs a reward that learns beside the policy"),
        (
            [{"reward": {"terms": {"a": "toys:share_of_a"}}}, {"guide": {"guides": {"a": {"model": "x"}, "b": {"model": "y"}}}}],
            "both called 'a'",
        ),
        (
            ["algorithm=hinted-grpo", "rollout.max_hint_tokens=16", "update.max_update_kl=0.1"],
            "knows that only after the prompts with hints",
        ),
        (
            ["algorithm=hinted-grpo"],
            "'rollout.max_hint_tokens' 64 and 'rollout.max_response_tokens' 8 make 136 tokens, and the policy's",
        ),
        # What a section names.
        (["rollout.max_response_tokens=60"], "make 68 tokens, and the policy's context holds 64"),
        ([f"reward={HERE}:Silent"], f"reward '{HERE}:Silent' cannot be called"),
        ([f"reward={HERE}:NUMBER"], f"reward '{HERE}:NUMBER' cannot be called"),
        ([f"evaluation.judge={HERE}:NUMBER"], f"reward '{HERE}:NUMBER' cannot be called"),
        (["reward.options.loud=1"], "is a function, so it takes no options (given: loud)"),
        ([{"guide": {"name": f"{HERE}:Silent"}}], "has no method 'write(requests)'"),
        ([{"guide": {"name": f"{HERE}:NUMBER"}}], "is not a class or function"),
        ([{"guide": {"name": f"{HERE}:Writes", "options": {"loud": 1}}}], "has no option 'loud'"),
        (
            [{"guide": {"guides": {"own": {"name": f"{HERE}:Silent"}, "local": {"model": "gpt2"}}}}],
            "'guide.name' test_checks:Silent has no method 'write(requests)'",
        ),
        ([f"evaluation.metrics=[{HERE}:NUMBER]"], f"the metric '{HERE}:NUMBER' cannot be called"),
        ([f"evaluation.metrics=[{HERE}:Silent]"], f"the metric '{HERE}:Silent' cannot be called"),
        # The algorithm's own.
        (["algorithm.terms.policy.on=rollin"], "'script.rollin' must name who writes it"),
        (["algorithm.terms.value=null"], "needs a critic: give 'terms' one with the loss 'value'"),
        ([f"algorithm.terms.own.loss={HERE}:of_old_values"], "reads old_values and trains no critic"),
        (["algorithm=rloo", "algorithm.terms.value.weight=1"], "the advantage 'leave_one_out' estimates none"),
        ([f"algorithm.terms.policy.loss={HERE}:NUMBER"], "of the term 'policy' must be a function"),
        ([f"algorithm.terms.policy.loss={HERE}:Silent"], "of the term 'policy' must be a function"),
        (["algorithm.terms.policy.loss=torch:relu"], "does not say what it reads"),
        ([f"algorithm.advantage={HERE}:group_mean"], "must be an rlgf.algorithms.Estimator"),
        # Keys of another version.
        (["update.clip=0.1"], "'update.clip' has moved: it is now 'algorithm.terms.policy.options.clip'"),
        (["algorithm.rollin_prob=0.1"], "'algorithm.rollin_prob' has moved: it is now 'algorithm.help.probability'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_before_models_load(overrides: list[Any], message: str) -> None:
    assert message in refusal(*overrides)


VLLM = "sampler.engine=vllm"
ENCODES = {"policy": {"scratch": {"context": 64, "encoder_layers": 2}}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.top_k=5"], "which training has to know: leave 'rollout.top_k' and 'rollout.top_p' out"),
        (["rollout.top_p=0.9"], "which training has to know: leave 'rollout.top_k' and 'rollout.top_p' out"),
        (["policy={model: gpt2, lora: {}, scratch: null}"], "train without 'policy.lora'"),
        (
            ["policy={model: gpt2, lora: {}, quantization: 4bit, scratch: null}"],
            "train without 'policy.lora'",
        ),
        ([ENCODES], "vLLM runs no encoder-decoder models"),
        (["sampler.importance_bound=0.5"], "'sampler.importance_bound'"),
        (["sampler.engin=vllm"], "did you mean 'engine'"),
    ],
)
def test_what_vllm_cannot_do_is_one_sentence_before_models_load(
    overrides: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    assert message in refusal(VLLM, *overrides)


def test_a_run_of_before_there_were_samplers_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    guide = {"guide": {"model": "gpt2"}}
    base = {key: value for key, value in SOUND.items() if key != "guide"}
    before = load_config(base, guide).identity
    assert "sampler" not in before
    assert "sampler" not in before["guide"]
    now = load_config(base, guide, "sampler.engine=vllm", "guide.sampler.engine=vllm").identity
    assert now["sampler"]["engine"] == now["guide"]["sampler"]["engine"] == "vllm"


def test_an_engine_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert "'sampler.engine: vllm' needs vLLM: pip install vllm" in refusal(VLLM)
    guide = {"guide": {"model": "gpt2", "sampler": {"engine": "vllm"}}}
    assert "'guide.sampler.engine: vllm' needs vLLM" in refusal("sampler.engine=builtin", guide)


def test_an_engine_in_several_processes_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    monkeypatch.setattr("rlgf.distributed.count", lambda: 2)
    assert "'engine: vllm' runs in one process, and there are 2" in refusal(VLLM)
    assert list(checks.broken_parts(load_config(SOUND))) == []


def test_a_guide_in_fewer_bits_does_not_go_with_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineConfig, "installed", True)
    letter_gpt(context=64).model.save_pretrained(tmp_path)
    guide = {"model": str(tmp_path), "quantization": "4bit", "sampler": {"engine": "vllm"}}
    assert "are kept in fewer bits: leave 'quantization' out" in refusal({"guide": guide})


@pytest.mark.parametrize(
    ("task", "overrides", "message"),
    [
        (f"{HERE}:Silent", [], "has no method load(split)"),
        (f"{HERE}:NUMBER", [], "is not a class or function"),
        (f"{HERE}:BarePrompts", ["algorithm=offline-dpo"], "learns from pairs"),
        (f"{HERE}:BarePrompts", ["algorithm=dr-po"], "algorithm 'dr-po' needs reference texts"),
        (
            f"{HERE}:BarePrompts",
            ["algorithm.terms={references: {loss: nll, on: references, weight: 0.1}}"],
            "algorithm 'ppo' needs reference texts",
        ),
        (f"{HERE}:BarePrompts", ["evaluation.metrics=[rouge]"], "the metric 'rouge' needs 'references'"),
        (f"{HERE}:BarePrompts", ["algorithm=gail"], "needs a reward that learns beside the policy"),
        (f"{HERE}:BarePrompts", ["reward=discriminator"], "'Discriminator' learns from reference texts"),
    ],
)
def test_data_that_does_not_fit_is_one_sentence_before_models_load(
    task: str, overrides: list[Any], message: str
) -> None:
    # A guide that is asked would be the next thing to fail.
    assert message in refusal(*overrides, task=task)


def test_a_term_without_weight_needs_no_references() -> None:
    source = "algorithm.terms={references: {loss: nll, on: references, weight: 0}}"
    config = load_config(SOUND, source)
    found = checks.Found(BarePrompts(), BarePrompts().load("train"), {}, [])
    assert list(checks.broken_by_data(config, found)) == []


def test_everything_that_is_wrong_is_said_at_once_and_the_first_is_the_error() -> None:
    with pytest.raises(RefusedError) as caught:
        load_config(SOUND, "reward=null", "guide=null", "algorithm=guided-grpo", "rollout.episodes=6")
    assert len(caught.value.sentences) == 3
    assert str(caught.value) == caught.value.sentences[0]
    with pytest.raises(RefusedError) as caught:
        load_config(SOUND, "sed=1", "update.epochs=0", "rollout.top_p=2")
    assert [s.split("'")[1] for s in caught.value.sentences] == ["sed", "rollout.top_p", "update.epochs"]


def test_a_misspelled_key_is_not_also_a_missing_one() -> None:
    source = {key: value for key, value in SOUND.items() if key != "task"}
    with pytest.raises(RefusedError) as caught:
        load_config(source, {"taks": "imdb"})
    assert len(caught.value.sentences) == 1


def test_a_part_made_by_hand_is_not_held_to_the_recipe() -> None:
    config = load_config(SOUND, f"reward={HERE}:Silent", "rollout.max_response_tokens=60")
    assert len(list(checks.broken_parts(config))) == 2
    assert list(checks.broken_parts(config, ["guide", "evaluation"])) == []


def test_configurations_made_in_python_keep_the_same_rules() -> None:
    config = load_config(SOUND)
    with pytest.raises(ValueError, match="needs a guide"):
        Config.model_validate(
            {**config.model_dump(mode="json"), "guide": None, "algorithm": {"base": "ppo++"}}
        )


def test_a_loss_that_reads_the_reference_has_one() -> None:
    row = Algorithm.model_validate(
        {"name": "own", "terms": {"kl": {"loss": "kl"}, "nll": {"loss": "nll"}}, "advantage": None}
    )
    assert row.needs_reference


def test_which_estimators_fit_a_critic_is_true() -> None:
    from rlgf.algorithms import Estimates, Signals

    ones = torch.ones(4, 3)
    scores = (ones, ones.long(), ones)
    signals = Signals(ones, ones[:, 0], ones, ones.bool(), torch.tensor([0, 0, 1, 1]), 1.0, 0.95, *scores)
    for name, estimator in ESTIMATORS.items():
        found = estimator.estimate(signals)
        if isinstance(found, Estimates):
            assert estimator.returns == (found.returns is not None), name


def test_no_rule_is_left_out() -> None:
    rules = {rule.__name__ for rule in (*checks.RULES, *checks.DATA_RULES, *checks.SECTIONS.values())}
    rules |= {rule.__name__ for rule in checks.SHARD_RULES}
    rules |= {rule.__name__ for section in checks.PART_RULES.values() for rule in section}
    takes_config = {
        name
        for module in (checks.settings, checks.parts, checks.data)
        for name, function in vars(module).items()
        if callable(function) and getattr(function, "__module__", "") == module.__name__ and "_" in name
        and next(iter(getattr(function, "__annotations__", {}).values()), "") == "Config"
        and function.__annotations__["return"] == "str | None"
    }  # fmt: skip
    assert takes_config == rules
