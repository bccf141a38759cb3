"""A model as it is used: prepared, perhaps in 4 or 8 bits, and all of its weights read from its files, trained and saved,
or it is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.activations import FastGELUActivation, NewGELUActivation

from rlgf.errors import UserError
from rlgf.models.parts import beside_texts

REPORTED: Mapping[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Arguments of ``from_pretrained`` that make it say which weights were not in the files, or of another size."""


def check_complete(name: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Refuse a model with weights that no file gave, which were then drawn at random.

    Weights that are tied to others, and those that the model computes itself, need not be in a file.

    Raises:
        UserError: names the weights.
    """
    unfit, missing = _unread(model, report)
    if unfit:
        key, found, needed = unfit[0]
        raise UserError(
            f"model '{name}': its weight '{key}' has the shape {tuple(found)} in the files, and its config.json asks "
            f"for {tuple(needed)}{_more(unfit)}: the files do not belong together."
        )
    if missing:
        raise UserError(
            f"model '{name}' has no weights for '{missing[0]}'{_more(missing)} of {type(model).__name__}, and "
            "they would be drawn at random: choose a model that was trained to write text, not an encoder or a "
            "classifier."
        )


def check_scorer(
    name: str,
    model: PreTrainedModel,
    report: Mapping[str, Any],
    *,
    trained: bool,
    later: Collection[str] = (),
) -> None:
    """Refuse a model with one output if weights were drawn at random.

    Args:
        trained: whether those of its head count too.
        later: names of weights that an adapter brings.

    Raises:
        UserError: names the weights.
    """

    def counts(key: str) -> bool:
        # Encoders are trained with a pooler or without one; it belongs to the head then.
        of_trunk = key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key
        return key not in later and (trained or of_trunk)

    unfit, missing = _unread(model, report)
    for key, found, needed in unfit:
        if counts(key):
            raise UserError(
                f"model '{name}': its weight '{key}' has the shape {tuple(found)} in the files, and a reward model, "
                f"which has one output, needs {tuple(needed)}: the files do not belong together, or are another classifier's."
            )
    for key in filter(counts, missing):
        remedy = (
            "so it was never trained to score texts: give a reward model, such as `rlgf reward RECIPE.yaml` trains"
            if trained
            else "and they would be drawn at random: give a folder that holds the whole model"
        )
        raise UserError(f"model '{name}' has no weights for '{key}', {remedy}.")


def _unread(model: PreTrainedModel, report: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """Weights of another shape in the files, as name, shape and shape needed; and names of those not there."""
    missing = set(report["missing_keys"]) - set(model._keys_to_ignore_on_save or ())
    return sorted(report["mismatched_keys"]), sorted(missing)


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def prepare(model: PreTrainedModel) -> None:
    """Make a model one whose passes give the same for the same tokens, and whose saved weights are those trained."""
    without_dropout(model)
    fuse(model)
    without_capacity(model)
    hold_still(model)
    keep_differentiable(model)


def hold_still(model: PreTrainedModel) -> None:
    """Leave out of training whatever is not saved, so that the saved model is the one that was trained.

    Some models compute weights when they are built, such as the sinusoidal positions of Marian, and leave
    them out of their files. What sees or hears is saved as it came.
    """
    for name in beside_texts(model):
        model.get_submodule(name).requires_grad_(False)
    unsaved = set(model._keys_to_ignore_on_save or ())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in unsaved:
            parameter.requires_grad_(False)
    # RWKV in evaluation mode divides weights by powers of 2, so that half precision does not overflow, and
    # would save them so.
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0


# Dropout would make the probability ratio of an unchanged policy differ from 1.
def without_dropout(model: nn.Module) -> None:
    """Put a model in evaluation mode, and let nothing drop out either where its forward pass sets another mode.

    Its configuration, which is saved, stays as it is.
    """
    model.eval()
    for module in model.modules():
        # Layers of their own, such as `nn.Dropout.p`, and rates that attention passes to a function.
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            # Experts of NLLB keep theirs: in evaluation mode they multiply by what it leaves over.
            if isinstance(value, float) and "drop" in name.lower() and name != "moe_token_dropout":
                setattr(module, name, 0.0)


_SPELLED_OUT = (NewGELUActivation, FastGELUActivation)


def fuse(model: PreTrainedModel) -> None:
    """Let GPT-2 and its kin compute ``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`` in one pass over x.

    The function is the same, up to rounding.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, _SPELLED_OUT):
                setattr(module, name, nn.GELU(approximate="tanh"))


_ROOM = 2**31 - 1
"""More tokens than any batch has."""


# With a capacity, what a token gets would depend on those around it.
def without_capacity(model: PreTrainedModel) -> None:
    """Let no expert turn tokens away, as those of Switch Transformers and NLLB do beyond a number of them.

    Padding would fill them too, and a text that is written token by token never does. The configuration changes with
    them, so that the saved model is the one that was trained.
    """
    places: list[Any] = [model.config, *model.modules()]
    for place in places:
        if getattr(place, "expert_capacity", None) is not None:
            place.expert_capacity = _ROOM
        if hasattr(place, "moe_eval_capacity_token_fraction"):
            place.moe_eval_capacity_token_fraction = 1.0


Quantization = Literal["4bit", "8bit"]
"""NormalFloat 4, or 8-bit integers (LLM.int8, arXiv 2208.07339)."""


def quantized(kind: Quantization, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that load a model so, straight onto a device.

    Raises:
        UserError: `bitsandbytes` is not installed, or cannot compute on the device; before anything loads.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"'quantization: {kind}' needs bitsandbytes: pip install 'rlgf[quantization]'.")
    from bitsandbytes import functional

    try:
        functional.quantize_4bit(torch.zeros(64, 64, device=device))
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"'quantization: {kind}' does not work here: this bitsandbytes has no support for the device "
            f"'{device}' ({error}); install a newer one, or leave 'quantization' out."
        ) from error
    if kind == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_differentiable(model: nn.Module) -> None:
    """Keep the layers of a quantized model from being rewritten for inference.

    Where a CPU can multiply in bfloat16 (AVX512-BF16), a 4-bit layer repacks its weights at the first pass without
    gradients. From then on no gradient comes through it to the adapters below, and it computes in bfloat16.
    """
    name = "support_avx512bf16_for_cpu"
    for module in model.modules():
        if hasattr(module, name):
            setattr(module, name, False)


def rewritten(model: nn.Module) -> bool:
    """Whether a model's 4-bit layers were repacked for inference before `keep_differentiable` could keep them."""
    states = (getattr(parameter, "quant_state", None) for parameter in model.parameters())
    return any(getattr(state, "packing_format_for_cpu", False) for state in states)
