"""The weights of a model in training become those of a vLLM engine in the same process, without the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from rlgf.errors import UserError


@torch.no_grad()
def hand_over(model: PreTrainedModel, engine: Any) -> None:
    """Copy a model's weights into an engine's, in place, under the names that the model's files have.

    The engine's own loader joins what it keeps as one matrix (queries, keys and values) and casts to its precision.
    What it keeps of texts under the old weights is forgotten.

    Args:
        engine: a ``vllm.LLM`` that runs in this process, on a CPU made within `unpacked`.

    Raises:
        UserError: a weight of the engine's has not been set.
    """
    weights = revert_weight_conversion(model, dict(model.state_dict()))

    def load(runner: Any) -> set[str]:
        loaded = runner.load_weights(iter(weights.items()))
        return {name for name, _ in runner.named_parameters()} - set(loaded)

    try:
        (missing,) = engine.apply_model(load)
    except (KeyError, ValueError, AttributeError, AssertionError) as error:
        raise UserError(_refused(model, f"{type(error).__name__}: {error}")) from error
    if missing:
        raise UserError(_refused(model, f"'{min(missing)}' got no weights"))
    engine.reset_prefix_cache()


@contextmanager
def unpacked() -> Iterator[None]:
    """On a CPU an engine made within keeps its matrices as they are.

    Otherwise vLLM turns them, once they are loaded, into oneDNN's own layout and drops the originals, and nothing
    can be written into them any more.
    """
    from vllm import _custom_ops as operations

    packs = getattr(operations, "_supports_onednn", False)
    operations._supports_onednn = False
    try:
        yield
    finally:
        operations._supports_onednn = packs


def _refused(model: PreTrainedModel, why: str) -> str:
    why = " ".join(why.split())[:200].rstrip(".")
    return (
        f"vLLM does not take the weights of a {type(model).__name__} ({why}): set 'engine: builtin' where the recipe "
        "says 'engine: vllm'."
    )
