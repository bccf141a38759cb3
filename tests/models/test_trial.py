"""How a model can be run is found out by trying."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from saved_models import GPT2, loaded, saved
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from conftest import ROTARY
from rlgf.errors import UserError
from rlgf.models.abilities import Abilities, abilities


def test_an_ordinary_model_is_run_in_the_fastest_way(tmp_path: Path) -> None:
    assert abilities(loaded(saved(GPT2LMHeadModel(GPT2Config(**GPT2)), tmp_path)).model) == Abilities()


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    found: PreTrainedModel = copy.deepcopy(request.getfixturevalue(request.param))
    assert abilities(found).plain_head
    return found


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_cap_on_the_logits_shows_however_small_they_are(scale: float) -> None:
    """Gemma 2 caps its logits at 30, which changes nothing that is measured of small ones."""
    model = Gemma2ForCausalLM(Gemma2Config(**ROTARY, head_dim=8)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(scale)
    assert not abilities(model).plain_head
    plain = Gemma2ForCausalLM(Gemma2Config(**ROTARY, head_dim=8, final_logit_softcapping=None)).eval()
    assert abilities(plain).plain_head


def test_the_routers_balancing_loss_costs_no_way_to_run_a_model() -> None:
    """It is asked for in the configurations of many models with experts, and fails where a pass goes on from a cache."""
    model = MixtralForCausalLM(MixtralConfig(**ROTARY, num_local_experts=4, output_router_logits=True))
    assert abilities(model) == Abilities()
    assert model.config.output_router_logits


@pytest.mark.parametrize("kind", [GPT2Model, GPT2ForSequenceClassification])
def test_a_model_without_a_head_that_writes_is_told_how_to_load_it(kind: type[PreTrainedModel]) -> None:
    with pytest.raises(
        UserError, match=rf"\({kind.__name__}\) has no head that writes tokens: load it with Auto"
    ):
        abilities(kind(GPT2Config(**GPT2)).eval())
