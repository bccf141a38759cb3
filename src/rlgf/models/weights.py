"""Which of a model's weights are read from its files, trained and saved: all, or the model is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from rlgf.errors import UserError

REPORTED: Mapping[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Arguments of ``from_pretrained`` that make it say which weights were not in the files, or of another size."""


def check_complete(name: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Refuse a model with weights that no file gave, which were then drawn at random.

    Weights that are tied to others, and those that the model computes itself, need not be in a file.

    Raises:
        UserError: names the weights.
    """
    unfit = sorted(report["mismatched_keys"])
    if unfit:
        key, found, needed = unfit[0]
        raise UserError(
            f"model '{name}': its weight '{key}' has the shape {tuple(found)} in the files, and its config.json asks "
            f"for {tuple(needed)}{_more(unfit)}: the files do not belong together."
        )
    missing = sorted(set(report["missing_keys"]) - set(model._keys_to_ignore_on_save or ()))
    if missing:
        raise UserError(
            f"model '{name}' has no weights for '{missing[0]}'{_more(missing)} of {type(model).__name__}, and "
            "they would be drawn at random: choose a model that was trained to write text, not an encoder or a "
            "classifier."
        )


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def hold_still(model: PreTrainedModel) -> None:
    """Leave out of training whatever is not saved, so that the saved model is the one that was trained.

    Some models compute weights when they are built, such as the sinusoidal positions of Marian, and leave
    them out of their files.
    """
    unsaved = set(model._keys_to_ignore_on_save or ())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in unsaved:
            parameter.requires_grad_(False)
    # RWKV in evaluation mode divides weights by powers of 2, so that half precision does not overflow, and
    # would save them so.
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0
