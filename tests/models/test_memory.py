"""How large models are, beside real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from told_runs import RECIPE

from architectures import small_model, small_tokenizer
from rlgf.config import load_config
from rlgf.models.language_model import LanguageModel
from rlgf.models.lora import POLICY
from rlgf.models.memory import count, device_bytes, logits_bytes, policy_sizes, shape
from rlgf.models.response_scores import MOST_LOGITS
from rlgf.run.build import build_parts
from toys import FavouringGuide, letter_gpt, letter_t5


def letters_that_see() -> LanguageModel:
    return LanguageModel(small_model("Gemma3ForConditionalGeneration", "gemma3"), small_tokenizer())


def test_what_no_text_passes_through_keeps_no_activations() -> None:
    model = letters_that_see().model
    seen = shape(model)
    model.model.vision_tower = model.model.multi_modal_projector = torch.nn.Identity()
    assert shape(model).response == seen.response


@pytest.mark.parametrize("critic", ["separate", "head"])
@pytest.mark.parametrize("lora", [None, {"r": 2}])
@pytest.mark.parametrize("make", [letter_gpt, letter_t5, letters_that_see])
@pytest.mark.filterwarnings("ignore")  # of the architectures' own
def test_parameters_are_those_of_the_real_models(make: Any, lora: Any, critic: str, tmp_path: Path) -> None:
    made = make()
    made.model.config.save_pretrained(tmp_path / "bare")
    made.model.save_pretrained(tmp_path / "whole")
    made.tokenizer.save_pretrained(tmp_path / "whole")
    policy = {"critic": critic, "lora": lora}
    recipe = {**RECIPE, "policy": {**policy, "model": str(tmp_path / "whole")}, "algorithm": "lols"}
    config = load_config(recipe)
    parts = build_parts(config, guide=FavouringGuide("a", 0.6))
    # From a folder without weights.
    bare = load_config({**recipe, "policy": {**policy, "model": str(tmp_path / "bare")}})
    sizes, shape = policy_sizes(bare.policy.source, bare.policy.lora, critic, ["guide", "policy"])
    by_name = {part.name: part.trained or part.parameters for part in sizes}
    trained = parts.updater.parameters
    moved = sum(part.trained for part in sizes)
    assert moved == sum(count(parameters) for parameters in trained.values())
    assert moved == count(parts.updater.trained)
    assert sum(part.gradients + part.moments for part in sizes) == 12 * moved
    for name in ("guide", "policy"):
        assert by_name[f"critic of the {name}"] == count(trained[f"critic {name}"])
    assert sizes[0].parameters == count(made.model.parameters())
    assert shape.vocabulary == len(made.model.get_output_embeddings().weight)
    if lora is None:
        assert by_name["reference (frozen start)"] == sizes[0].parameters
    else:
        assert parts.policy.adapters is not None
        assert by_name["policy's adapter"] == count(parts.policy.adapters.parameters(POLICY))


def test_a_model_from_scratch_is_counted_with_all_of_its_vocabulary() -> None:
    config = load_config(RECIPE)
    parts = build_parts(config, guide=FavouringGuide("a", 0.6))
    (said, *_), _ = policy_sizes(config.policy.source, None, "head", [])
    missing = 300 - len(parts.policy.tokenizer)
    assert said.parameters == count(parts.policy.model.parameters()) + 32 * missing


def test_the_largest_micro_batch_is_bounded_by_its_tokens_and_by_the_minibatch() -> None:
    assert logits_bytes(10, 4, 6, budget=35, rows=8) == 3 * 6 * 10 * 4
    assert logits_bytes(10, 4, 6, budget=1000, rows=8) == 8 * 6 * 10 * 4
    assert logits_bytes(10, 4, 6, budget=5, rows=8) == 1 * 6 * 10 * 4
    assert logits_bytes(50_000, 512, 512, budget=16_384, rows=64) == MOST_LOGITS * 4, (
        "more are made in pieces"
    )


def test_the_memory_of_this_machine_is_some() -> None:
    assert device_bytes() > 2**28
