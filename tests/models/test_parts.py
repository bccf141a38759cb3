"""Models that also see: their texts, their training, and what is saved of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from architectures import small_model, small_tokenizer
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model, processor_files
from rlgf.models.lora import POLICY, Adapters, LoRAConfig
from rlgf.models.parts import beside_texts
from rlgf.run.checkpoint import save_policy

pytestmark = pytest.mark.filterwarnings("ignore")  # of the architectures' own

SEES = {"Gemma3ForConditionalGeneration": "gemma3", "Qwen3_5ForConditionalGeneration": "qwen3_5"}
BESIDE = {"gemma3": ["model.vision_tower", "model.multi_modal_projector"], "qwen3_5": ["model.visual"]}


@pytest.fixture(params=SEES)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a model that sees, and with the settings of its image processor."""
    small_model(request.param, SEES[request.param]).save_pretrained(tmp_path / "start")
    small_tokenizer().save_pretrained(tmp_path / "start")
    (tmp_path / "start" / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ours"}))
    return tmp_path / "start"


@pytest.fixture
def policy(start: Path) -> LanguageModel:
    return load_language_model(ModelConfig(model=str(start)))


def test_what_sees_is_named_and_not_trained(policy: LanguageModel) -> None:
    beside = beside_texts(policy.model)
    assert beside == BESIDE[policy.model.config.model_type]
    trained = {id(weight) for weight in policy.trained}
    for name, weight in policy.model.named_parameters():
        assert (id(weight) in trained) != name.startswith(tuple(beside)), name


def test_all_that_is_trained_has_a_gradient(policy: LanguageModel) -> None:
    ids = torch.arange(3, 19)[None]
    policy.model(input_ids=ids).logits.logsumexp(dim=-1).sum().backward()
    assert all(weight.grad is not None for weight in policy.trained)


@pytest.mark.parametrize("model", ["LlamaForCausalLM llama", "T5ForConditionalGeneration t5"])
def test_of_a_model_for_texts_alone_nothing_stands_beside(model: str) -> None:
    assert beside_texts(small_model(*model.split())) == []


def test_it_is_loaded_and_saved_whole(start: Path, policy: LanguageModel, tmp_path: Path) -> None:
    whole = AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32).state_dict()
    assert policy.model.state_dict().keys() == whole.keys()
    with torch.no_grad():
        for weight in policy.trained:
            weight.add_(0.01)
    save_policy(policy, tmp_path / "saved")
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved", dtype=torch.float32).state_dict()
    for name, weight in policy.model.named_parameters():
        assert torch.equal(saved[name], weight)
        assert torch.equal(saved[name], whole[name]) == (not weight.requires_grad)
    assert "ours" in (tmp_path / "saved" / "preprocessor_config.json").read_text()


def test_its_image_processor_goes_with_a_merged_adapter(policy: LanguageModel, tmp_path: Path) -> None:
    Adapters(policy.model, LoRAConfig(r=2)).save(tmp_path / "adapter")
    small_tokenizer().save_pretrained(tmp_path / "adapter")
    merged = load_language_model(ModelConfig(model=str(tmp_path / "adapter")))
    assert [file.name for file in processor_files(merged.model)] == ["preprocessor_config.json"]


@pytest.mark.parametrize("targets", [None, ("q_proj", "up_proj", "fc1", "linear_fc1")])
def test_adapters_are_trained_where_texts_pass(
    policy: LanguageModel, targets: tuple[str, ...] | None
) -> None:
    model = copy.deepcopy(policy.model)
    adapters = Adapters(model, LoRAConfig(r=2, targets=targets))
    names = [name for name, _ in model.named_parameters() if ".lora_" in name]
    assert names
    assert not [name for name in names if name.startswith(tuple(beside_texts(policy.model)))]
    model(input_ids=torch.arange(3, 19)[None]).logits.logsumexp(dim=-1).sum().backward()
    assert all(weight.grad is not None for weight in adapters.parameters(POLICY))
