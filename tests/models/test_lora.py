"""Adapters over one base: what they change, what they leave, and how they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PromptTuningConfig, get_peft_model
from rich.console import Console
from torch import Tensor
from transformers import GPT2LMHeadModel

from conftest import sharpen
from rlgf.cli.models import merge
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.models.critic import AdapterCritic, build_critic
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.generate import sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model, load_model_config
from rlgf.models.lora import Adapters, LoRAConfig, adapter_base
from rlgf.models.sampling import Sampling
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.loop import TrainingLoop
from rlgf.run.saver import Saver
from rlgf.run.trainer import Trainer
from toys import FavouringGuide, LetterTask, letter_gpt, letter_t5, sentence_of, share_of_a

QUIET = Display(Console(quiet=True))


def tokens() -> Tokens:
    ids = torch.tensor([[0, 1, 2], [3, 2, 1]])
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool), ids, torch.ones_like(ids, dtype=torch.bool))


def logits(model: LanguageModel) -> Tensor:
    with torch.no_grad(), model.running() as running:
        return response_outputs(running, tokens())[0]


def adapted(policy: LanguageModel, **sizes: object) -> LanguageModel:
    return replace(policy, adapters=Adapters(policy.model, LoRAConfig.model_validate(sizes)))


def trained_a_little(policy: LanguageModel, name: str = "default") -> None:
    assert policy.adapters is not None
    with torch.no_grad():
        for parameter in policy.adapters.parameters(name):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("make", [letter_gpt, letter_t5])
def test_an_untrained_adapter_changes_nothing_and_a_trained_one_can_be_left_out(make: object) -> None:
    policy: LanguageModel = make()
    start = logits(policy)
    policy = adapted(policy)
    torch.testing.assert_close(logits(policy), start)
    trained_a_little(policy)
    assert not torch.allclose(logits(policy), start, atol=1e-2)
    torch.testing.assert_close(logits(replace(policy, without_adapter=True)), start)
    # And looking away has not changed what is trained.
    assert all(p.requires_grad for p in policy.trained)
    assert {id(p) for p in policy.trained} == {id(p) for p in policy.model.parameters() if p.requires_grad}


def test_policy_and_critic_have_adapters_of_their_own_over_one_base() -> None:
    policy = letter_gpt()
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    policy = adapted(policy, r=2)
    assert policy.adapters is not None
    critic = build_critic("separate", policy.model, policy.adapters, "critic_policy")
    assert isinstance(critic, AdapterCritic)
    torch.nn.init.normal_(critic.head.weight)
    start, values = logits(policy), critic(tokens(), None)
    trained_a_little(policy, "critic_policy")
    torch.testing.assert_close(logits(policy), start)
    assert not torch.allclose(critic(tokens(), None), values, atol=1e-2)
    critic(tokens(), None).sum().backward()
    assert all(p.grad is not None for p in critic.parameters())
    assert all(p.grad is None for p in policy.adapters.parameters("default"))
    for name, p in policy.model.named_parameters():
        if name.replace(".base_layer", "") in before:
            assert torch.equal(p, before[name.replace(".base_layer", "")])
            assert p.grad is None


def config(tmp_path: Path, **changes: object) -> Config:
    return load_config(
        {
            "task": "toys:LetterTask",
            "policy": {"model": "made by hand", "lora": {"r": 16, "targets": ["c_attn", "c_proj", "c_fc"]}},
            "guide": {"model": "made by hand"},
            "reward": "toys:share_of_a",
            "algorithm": {"base": "d2lols", "kl": {"coefficient": 0.0}},
            "output": str(tmp_path / "run"),
            "rollout": {
                "episodes": 64,
                "max_prompt_tokens": 4,
                "min_response_tokens": 6,
                "max_response_tokens": 6,
            },
            "update": {"minibatch": 32, "epochs": 2, "learning_rate": 2e-2},
            "training": {"updates": 40, "trackers": [], "checkpoint_every": 1000},
            "evaluation": {"every": 1000, "samples": 64, "test_samples": 64},
        },
        changes,
    )


def trainer(config: Config) -> Trainer:
    policy = letter_gpt()
    # The base's own embeddings are not trained, and as they are drawn no state could make a letter likely.
    sharpen(policy.model, 8.0)
    parts = build_parts(
        config, task=LetterTask(), reward=share_of_a, guide=FavouringGuide("a", 0.6), policy=policy
    )
    return Trainer(config, parts, QUIET)


@pytest.mark.long
@pytest.mark.parametrize("critic", ["separate", "head"])
def test_adapters_learn_the_trivial_problem(tmp_path: Path, critic: str) -> None:
    learner = trainer(config(tmp_path, policy={"critic": critic}))
    assert learner.evaluate().totals["kl"] < 1e-6
    totals = learner.train()["policy"]
    assert totals["reward"] > 0.9
    assert totals["kl"] > 0.1  # to the base, which has not moved


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = trainer(config(tmp_path / "whole", training={"updates": 4}))
    whole.train()
    half = trainer(config(tmp_path / "half", training={"updates": 4, "checkpoint_every": 1}))
    TrainingLoop(half, resume=False)
    for _ in range(2):
        half.step()
    Saver(half.config, half.parts, saved=0, goes_on="--resume goes on").save(half.progress)
    resumed = trainer(half.config)
    resumed.train(resume=True)
    for one, other in zip(
        whole.parts.updater.parameters.values(), resumed.parts.updater.parameters.values(), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    weights = whole.config.folder / "policy"
    assert not (weights / "model.safetensors").exists()
    assert (weights / "adapter_model.safetensors").stat().st_size < 60_000


def written(model: object) -> list[int]:
    (result,) = sample_continuations(
        model,
        [torch.tensor([0, 1])],
        torch.tensor([12]),
        torch.rand(1, 12, generator=torch.Generator().manual_seed(0)),
        Sampling(),
        (),
    )
    return result.token_ids.tolist()


def test_a_saved_adapter_loads_with_peft_and_is_merged_on_loading(tmp_path: Path) -> None:
    save_policy(letter_gpt(), tmp_path / "base")
    policy = load_language_model(ModelConfig(model=str(tmp_path / "base")))
    policy = adapted(policy)
    trained_a_little(policy)
    save_policy(policy, tmp_path / "adapter")
    plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        expected = policy.model(ids).logits
        torch.testing.assert_close(plain(ids).logits, expected)
    source = ModelConfig(model=str(tmp_path / "adapter"))
    assert load_model_config(source).model_type == "gpt2"
    merged = load_language_model(source)
    assert not [name for name, _ in merged.model.named_parameters() if "lora" in name]
    assert all(p.requires_grad for p in merged.model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(merged.model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert written(merged.model) == written(policy.model) != written(letter_gpt().model)
    merge(str(tmp_path / "adapter"), tmp_path / "whole")
    again = load_language_model(ModelConfig(model=str(tmp_path / "whole")))
    assert written(again.model) == written(policy.model)


def test_an_adapter_over_an_adapter_names_the_first_as_its_base(tmp_path: Path) -> None:
    save_policy(letter_gpt(), tmp_path / "base")
    source = tmp_path / "base"
    for folder in (tmp_path / "first", tmp_path / "second"):
        policy = adapted(load_language_model(ModelConfig(model=str(source))))
        trained_a_little(policy)
        save_policy(policy, folder)
        source = folder
    again = load_language_model(ModelConfig(model=str(tmp_path / "second")))
    torch.testing.assert_close(logits(again), logits(policy), atol=1e-4, rtol=1e-4)


def test_an_adapter_that_is_no_change_of_weights_is_refused(tmp_path: Path) -> None:
    PromptTuningConfig(base_model_name_or_path="gpt2", num_virtual_tokens=2).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"kind PROMPT_TUNING, which cannot be added .* such as LoRA, DoRA"):
        adapter_base(str(tmp_path), None)


@pytest.mark.parametrize("saved", [None, ["wte"]])
def test_an_adapter_may_have_tokens_of_its_own(saved: list[str] | None, tmp_path: Path) -> None:
    policy, folder = letter_gpt(), tmp_path / "adapter"
    policy.model.save_pretrained(tmp_path / "base")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    policy.tokenizer.add_tokens(["<think>", "</think>"])
    model.resize_token_embeddings(len(policy.tokenizer))
    adapted = get_peft_model(
        model, LoraConfig(target_modules=["c_proj"], modules_to_save=saved, fan_in_fan_out=True)
    )
    adapted.save_pretrained(folder, save_embedding_layers=True)
    policy.tokenizer.save_pretrained(folder)
    loaded = load_language_model(ModelConfig(model=str(folder))).model
    ids = torch.tensor([[1, 2, len(policy.tokenizer) - 1]])
    assert torch.allclose(loaded(ids).logits, adapted.eval()(ids).logits, atol=1e-5)


def test_targets_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"'policy.lora.targets' \(\['q_proj'\]\).*c_attn"):
        adapted(letter_gpt(), targets=("q_proj",))


def test_targets_that_take_no_adapter_are_refused_in_the_words_of_peft() -> None:
    said = sentence_of(lambda: adapted(letter_gpt(), targets=("c_attn", "ln_1")))
    assert said.startswith(
        "'policy.lora.targets' (['c_attn', 'ln_1']) cannot be trained (Target module LayerNorm("
    )
    assert said.endswith(": name some of c_attn, c_fc, c_proj, lm_head.")


def test_another_adapter_runs_only_within() -> None:
    policy = adapted(letter_gpt())
    assert policy.adapters is not None
    policy.adapters.add("other")
    trained_a_little(policy)
    start = logits(policy)

    def fail_within() -> None:
        assert policy.adapters is not None
        with policy.adapters.running("other"):
            assert not torch.allclose(logits(policy), start, atol=1e-2)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_within()
    torch.testing.assert_close(logits(policy), start)
