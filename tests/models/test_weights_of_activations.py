"""An activation in one kernel is the same function."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from rlgf.models.weights import fuse


def test_a_fused_model_gives_the_same_logits(tiny_gpt2: PreTrainedModel) -> None:
    fused = copy.deepcopy(tiny_gpt2)
    # Where the model was fused as it was tried out, it is spelled out again.
    for model in (tiny_gpt2, fused):
        assert any(isinstance(one, NewGELUActivation | nn.GELU) for one in model.modules())
    for block in fused.transformer.h:
        block.mlp.act = NewGELUActivation()
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        before = fused(ids).logits
        fuse(fused)
        after = fused(ids).logits
    assert not any(isinstance(one, NewGELUActivation) for one in fused.modules())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
