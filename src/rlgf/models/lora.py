"""LoRA adapters over one base: the policy's, a critic's, and the base itself as the reference.

Low-rank adaptation (Hu et al., arXiv 2106.09685) through `peft`, which is optional.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlgf import seeding
from rlgf.errors import UserError
from rlgf.loads import loading
from rlgf.models import sharding
from rlgf.models.parts import beside_texts
from rlgf.strict import Strict

_PREFIX = "base_model.model."
"""What `peft` puts before the names of a model's weights."""

_LAYERS = "_rlgf_layers"

POLICY = "default"
"""The policy's adapter; `peft` loads an adapter of this name without being told."""


class LoRAConfig(Strict):
    """The adapter that is trained instead of the model's own weights: ``W + alpha / r * B A``.

    There is no dropout: it would make the probability ratio of an unchanged policy differ from 1.
    """

    r: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    targets: tuple[str, ...] | None = None
    """Names of the layers that get one; default: every linear layer but the head. Where no text passes, as in a vision
    tower, there is none."""

    @property
    def layers(self) -> list[str] | str:
        """The targets as `peft` takes them."""
        return "all-linear" if self.targets is None else list(self.targets)


def check_installed(what: str) -> None:
    """
    Raises:
        UserError: `peft` is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"{what} needs peft: pip install 'rlgf[lora]'.")


class Adapters:
    """The adapters of one model, which are injected into it; the policy's is the one that runs."""

    def __init__(self, model: PreTrainedModel, config: LoRAConfig) -> None:
        """Inject the policy's adapter, which changes nothing before it is trained.

        Raises:
            UserError: `peft` is not installed, or the model has no layers of the given names.
        """
        check_installed("'policy.lora'")
        from peft import LoraConfig, get_peft_model

        self._config = LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            target_modules=config.layers,
            exclude_modules=_within(beside_texts(model)),
            # GPT-2 keeps its matrices the other way round.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )
        self._layers = config.layers
        self._now: str | None = POLICY
        """The adapter that runs."""
        # Before `peft`, which may have put adapters into some of them by the time that it fails.
        there = ", ".join(sorted(_matrices(model)))
        try:
            # What it returns wraps the model; the model itself stays usable, adapter and all.
            with _injecting(POLICY):
                self._peft: Any = get_peft_model(model, self._config, POLICY)
        except ValueError as error:
            raise UserError(f"{_reason(config, error)}: name some of {there}.") from error

    def add(self, name: str) -> None:
        """Inject one more adapter of the same size."""
        with _injecting(name):
            self._peft.add_adapter(name, self._config)
        self._run(POLICY)

    def add_saved(self, folder: Path) -> tuple[str, dict[str, Tensor]]:
        """Inject an adapter that `peft` saved, for another use of the same base.

        Returns:
            The name to run it by, and the weights that were saved with it and belong to no layer of the
            base, such as a head's.
        """
        from peft import PeftConfig, set_peft_model_state_dict

        with loading(f"the adapter {folder}", folder):
            config = PeftConfig.from_pretrained(str(folder))
            weights = load_file(folder / "adapter_model.safetensors")
        # Heads are left to who asked: this model has its own, or none.
        config.task_type = config.modules_to_save = None
        of_layers = {path: weight for path, weight in weights.items() if ".lora_" in path}
        name = f"saved_{len(self._peft.peft_config)}"
        with loading(f"the adapter {folder}", folder):
            with _injecting(name):
                self._peft.add_adapter(name, config)
            set_peft_model_state_dict(self._peft, of_layers, adapter_name=name)
        self._run(POLICY)
        return name, {path: weight for path, weight in weights.items() if path not in of_layers}

    def parameters(self, name: str) -> Sequence[nn.Parameter]:
        return [p for path, p in self._peft.named_parameters() if f".{name}." in path]

    @contextmanager
    def running(self, name: str | None) -> Iterator[None]:
        """Let another adapter than the policy's, or none, be what the model runs with."""
        if name is not None:
            self._run(name)
        self._now = name
        try:
            with self._peft.disable_adapter() if name is None else nullcontext():
                yield
        finally:
            self._now = POLICY
            self._run(POLICY)

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Of a layer's pass that is made now, and of the same pass where the backward pass makes it once more."""
        return nullcontext(), nullcontext() if self._now == POLICY else self.running(self._now)

    def _run(self, name: str) -> None:
        self._peft.set_adapter(name)
        # It takes the others for finished; a gradient may be on its way to them.
        for path, parameter in self._peft.named_parameters():
            if ".lora_" in path:
                parameter.requires_grad_(True)

    @property
    def words(self) -> str:
        """The size of each, as a message says it."""
        where = self._layers if isinstance(self._layers, str) else ", ".join(sorted(self._layers))
        return f"an adapter with r {self._config.r} and alpha {self._config.lora_alpha} in {where}"

    @property
    def settings(self) -> dict[str, Any]:
        """Of the policy's adapter, as `peft` writes them into ``adapter_config.json``."""
        config: Any = self._config
        found: dict[str, Any] = config.to_dict()
        return found

    def weights(self) -> dict[str, Tensor]:
        """The policy's adapter under the names that `peft` saves it by; the tensors are its own."""
        from peft import get_peft_model_state_dict

        found: dict[str, Tensor] = get_peft_model_state_dict(
            self._peft, adapter_name=POLICY, save_embedding_layers=False
        )
        return found

    @staticmethod
    def without(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The base's weights of a model's state, under the names that they have where there is no adapter."""
        return {
            path.replace(".base_layer.", "."): weight
            for path, weight in state.items()
            if ".lora_" not in path
        }

    @staticmethod
    def part_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {path: weight for path, weight in state.items() if ".lora_" in path}

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the policy's adapter as `peft` does.

        Args:
            weights: the model's, where it has not all of them itself.
        """
        options = {} if weights is None else {"state_dict": {f"{_PREFIX}{k}": w for k, w in weights.items()}}
        # No embedding is trained, so none has to be looked for.
        self._peft.save_pretrained(folder, selected_adapters=[POLICY], save_embedding_layers=False, **options)

    def load(self, folder: Path, *, reads: bool = True) -> None:
        """Read the policy's adapter from what `save` wrote.

        Args:
            reads: False in a process that gets its part of it from the main one.
        """
        from peft import set_peft_model_state_dict

        weights = load_file(folder / "adapter_model.safetensors") if reads else {}
        own = self.weights()
        if any(sharding.is_sharded(weight) for weight in own.values()):
            sharding.fill(own, weights)
        else:
            set_peft_model_state_dict(self._peft, weights, adapter_name=POLICY)


@contextmanager
def _injecting(name: str) -> Iterator[None]:
    """The same random first weights for every adapter of this name, whatever was drawn before."""
    with seeding.seeded(seeding.derive(0, "adapter", name)), warnings.catch_warnings():
        # peft 0.21 asks transformers 5.24 by an old name.
        warnings.simplefilter("ignore", category=FutureWarning)
        yield


def _reason(config: LoRAConfig, error: ValueError) -> str:
    """Why `peft` injects no adapter: either there is no such layer, or it is of a kind that takes none."""
    said = f"'policy.lora.targets' ({config.layers})"
    if "not found in the base model" in str(error):
        return f"{said} fits no layer of the model"
    return f"{said} cannot be trained ({str(error).strip().partition('. ')[0]})"


def _within(parts: Sequence[str]) -> str | None:
    """A pattern of the names of all that is in some parts of a model."""
    return rf"({'|'.join(map(re.escape, parts))})\..*" if parts else None


def _matrices(model: PreTrainedModel) -> set[str]:
    """Names of the layers that hold a matrix."""
    return {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if getattr(module, "weight", None) is not None
        and module.weight.dim() == 2
        and not isinstance(module, nn.Embedding)
    }


def adapter_base(source: str, revision: str | None) -> str | None:
    """The name of the model that a folder or hub name holds an adapter of; None where it holds none.

    Raises:
        UserError: it holds one, and `peft` is not installed, or it is of a kind that cannot be merged.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    with loading(f"model '{source}'", source):
        if find_adapter_config_file(source, revision=revision) is None:
            return None
    check_installed(f"the adapter '{source}'")
    from peft import PeftConfig

    with loading(f"the adapter '{source}'", source):
        config = PeftConfig.from_pretrained(source, revision=revision)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UserError(
            f"the adapter '{source}' is of the kind {config.peft_type.value}, which cannot be added to the weights of its base: "
            "give one that can, such as LoRA, DoRA or IA3."
        )
    base = config.base_model_name_or_path
    if not isinstance(base, str) or not base:
        raise UserError(
            f"the adapter '{source}': its adapter_config.json names no 'base_model_name_or_path'."
        )
    return base


def whole_weights(source: str) -> dict[str, int]:
    """Names of the base's weights that an adapter's files hold whole, such as those of a head, and how many rows each has."""
    from peft.utils import load_peft_weights

    with loading(f"the adapter '{source}'", source):
        held = load_peft_weights(source, device="cpu")
    return {path.removeprefix(_PREFIX): len(weight) for path, weight in held.items() if weight.dim()}


def merged(base: PreTrainedModel, source: str, revision: str | None) -> PreTrainedModel:
    """A base with an adapter added to its weights, as if it had been trained whole."""
    from peft import PeftModel

    whole: PreTrainedModel
    with loading(f"the adapter '{source}'", source):
        _make_room(base, source, revision)
        whole = PeftModel.from_pretrained(base, source, revision=revision).merge_and_unload()
    setattr(whole, _LAYERS, [*(layers(base) or [str(base.name_or_path)]), source])
    # It is not its base any more, and no other adapter of that base fits it.
    whole.name_or_path = source
    for weight in whole.parameters():
        if weight.is_floating_point():  # of weights in 4 or 8 bits there are no gradients
            weight.requires_grad_(True)
    return whole


def layers(model: PreTrainedModel) -> list[str]:
    """The names of a model's base and of the adapters that were merged into it, in their order; none where none was."""
    found: list[str] = getattr(model, _LAYERS, [])
    return found


def _make_room(base: PreTrainedModel, source: str, revision: str | None) -> None:
    """Give a base as many embeddings as the adapter's files have, where it was trained with tokens that were added."""
    from peft.utils import load_peft_weights

    embedding: Any = base.get_input_embeddings()
    (name,) = (path for path, module in base.named_modules() if module is embedding)
    for path, weight in load_peft_weights(source, device="cpu", revision=revision).items():
        # All of them are then read from these files, so that none keeps what it is filled with here.
        if f".{name}." in path and path.endswith(".weight") and len(weight) != len(embedding.weight):
            base.resize_token_embeddings(len(weight), mean_resizing=False)
            return
