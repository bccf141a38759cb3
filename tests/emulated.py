"""A device apart from the CPU, on the CPU: its tensors hold their numbers in others, and cannot be mixed with the CPU's.

As with a GPU, an operation whose arguments lie on two devices is an error, but for copies, single numbers and indices.
PyTorch keeps one place for a device of one's own, which this takes for the whole process.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from rlgf import distributed

NAME = "emulated"
_ATEN = torch.ops.aten
_COPIES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_INDEXED = {
    _ATEN.index.Tensor,
    _ATEN.index_put.default,
    _ATEN.index_put_.default,
    _ATEN._index_put_impl_.default,
}
_READ = ("_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "masked_select", "equal")
"""Operations whose result the program needs at once: on a GPU it waits until all before them is computed."""
READS: list[str] = []
"""Where the device's tensors have been read from the CPU: file and line of `rlgf`, of `transformers`, or of a test."""


class EmulatedTensor(Tensor):
    """A tensor of the emulated device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> EmulatedTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made = EmulatedTensor(self.inner.detach().clone())
            is_parameter = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(made, self.requires_grad) if is_parameter else made
        return memo[id(self)]

    def tolist(self) -> Any:
        _note_read()
        return self.inner.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class EmulatedDevice(TorchDispatchMode):
    """While it is entered, tensors can be made on the device, and `rlgf` computes there."""

    def __enter__(self) -> EmulatedDevice:
        self._replace(distributed.device, lambda: DEVICE)
        return super().__enter__()

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)
        self._replace(distributed.device, self._device)

    def _replace(self, old: Any, new: Any) -> None:
        self._device = old
        for module in [module for name, module in sys.modules.items() if name.startswith("rlgf.")]:
            if getattr(module, "device", None) is old:
                module.device = new

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in given if isinstance(tensor, EmulatedTensor)]
    may_mix = function in _COPIES or (function in _INDEXED and isinstance(args[0], EmulatedTensor))
    if there and not may_mix and any(tensor.dim() for tensor in given if tensor.device.type == "cpu"):
        raise RuntimeError(f"Expected all tensors to be on the same device, and {function} got those of two.")

    if there and _reads(function, args, kwargs):
        _note_read()
    device = kwargs.get("device")
    to_device = bool(there) if device is None else torch.device(device).type == NAME
    plain_args, plain = tree_map_only(EmulatedTensor, lambda tensor: tensor.inner, (args, kwargs))
    if device is not None and to_device:
        plain = plain | {"device": torch.device("cpu")}
    found = function(*plain_args, **plain)
    if not to_device:
        return found
    # What was changed in place is returned as the tensor that was given.
    own = {id(tensor.inner): tensor for tensor in there}
    return tree_map_only(
        Tensor, lambda tensor: own[id(tensor)] if id(tensor) in own else EmulatedTensor(tensor), found
    )


def _reads(function: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    name = function._schema.name.removeprefix("aten::")
    if name in ("index", "index_put_", "_index_put_impl_"):
        return any(isinstance(one, EmulatedTensor) and one.dtype == torch.bool for one in args[1])
    to_cpu = name == "_to_copy" and torch.device(kwargs.get("device") or DEVICE).type == "cpu"
    return name in _READ or to_cpu or (name == "copy_" and not isinstance(args[0], EmulatedTensor))


def _note_read() -> None:
    own = (frame for frame in reversed(traceback.extract_stack()) if "/torch/" not in frame.filename)
    frame = next(frame for frame in own if Path(frame.filename) != Path(__file__))
    READS.append(f"{frame.filename}:{frame.lineno}")


def _backend() -> ModuleType:
    """The module ``torch.emulated``, with the functions that PyTorch asks of a device."""
    stream = SimpleNamespace(synchronize=lambda: None, wait_stream=lambda other: None)
    module = ModuleType(f"torch.{NAME}")
    vars(module).update(
        is_available=lambda: True,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        device_count=lambda: 1,
        current_device=lambda: 0,
        manual_seed_all=lambda seed: None,
        get_rng_state=lambda device=None: torch.zeros(1, dtype=torch.uint8),
        set_rng_state=lambda state, device=None: None,
        current_stream=lambda device=None: stream,
        stream=lambda chosen: contextlib.nullcontext(),
        get_amp_supported_dtype=lambda: [torch.bfloat16],
    )
    return module


_setup_privateuseone_for_python_backend(NAME, backend_module=_backend())
DEVICE = torch.device(NAME, 0)
# Without it each module that shares a parameter would get one of its own.
torch.__future__.set_swap_module_params_on_conversion(True)
_LIBRARY = torch.library.Library("aten", "IMPL")  # registrations last as long as it does
# What `torch.tensor` calls, where nothing else sees it.
for _name in ("empty_strided", "empty.memory_format"):
    _function = getattr(getattr(_ATEN, _name.split(".")[0]), _name.partition(".")[2] or "default")
    _LIBRARY.impl(
        _name,
        lambda *args, of=_function, **kwargs: _run(of, args, kwargs | {"device": DEVICE, "pin_memory": None}),
        "PrivateUse1",
    )
_LIBRARY.impl(
    "_copy_from",
    lambda source, into, blocks=False: _run(_ATEN.copy_.default, (into, source), {}),
    "PrivateUse1",
)
