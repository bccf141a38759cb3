"""A model's weights spread over all processes, layer by layer: FSDP2, as `accelerate launch` is told.

Each process keeps a share of every weight, of its gradient and of the optimizer's moments. There are two ways to run
such a model:

- With gradients (`run`): a layer's weights are gathered when it runs and let go after it, and its gradient is summed
  over the processes. All processes make the same passes at the same time.
- Without (`whole`): all weights are gathered once, and each process makes any number of passes until they are let go.

A model that is not sharded runs as it is in both.

Where one process loads a model for all (`from_main`), so that a machine holds it once, the others get a hollow one: the
same modules, whose parameters have a shape and no storage (device ``meta``). `shard` then gives each process its share
of one weight after another.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from rlgf import distributed
from rlgf.errors import UserError
from rlgf.models import launcher
from rlgf.models.abilities import abilities, computes_in_half, declare
from rlgf.states import digest

_ATTRIBUTE = "_rlgf_root"
_T = TypeVar("_T")


class _Root(nn.Module):
    """A module around a model. Whatever runs the model is one pass of this module, which gathers the weights that are in
    no layer until it ends: also where the trunk runs alone, and the head after it in pieces."""

    def __init__(self, model: nn.Module, *, reshard: bool) -> None:
        """
        Args:
            reshard: whether a layer's weights are let go between its forward and its backward pass.
        """
        super().__init__()
        self.model = model
        self.reshard_layers = reshard
        self.entered = 0
        """How many blocks of `whole` are around."""

    def forward(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return function(*arguments)

    @property
    def units(self) -> Sequence[FSDPModule]:
        """The modules that are gathered one at a time: each layer, and the rest."""
        return [module for module in self.modules() if isinstance(module, FSDPModule)]


def is_whole(module: nn.Module) -> bool:
    """Whether each process has all of a module's weights."""
    return _root(module) is None


def shard(module: nn.Module, what: str, *, from_main: bool = False) -> None:
    """Spread the weights of a model or a critic over all processes, in place; called by all of them.

    Args:
        what: how a message calls it.
        from_main: whether only the main process has its weights; it is hollow in the others.

    Raises:
        UserError: it cannot run texts of unequal length together.
    """
    for model in (module, *module.children()):
        # A critic's trunk is its child; what a model is made of, such as an encoder, is not run by itself.
        if isinstance(model, PreTrainedModel):
            _fit_for_steps(model, what)
            break
    plugin = FullyShardedDataParallelPlugin()
    options: dict[str, Any] = {"mesh": distributed.mesh(launcher.sharing()), "mp_policy": _precision()}
    # Detached, since a parameter's data moves to the GPU when it is shared out, all at once.
    whole_weights = {name: one.detach() for name, one in module.named_parameters()} if from_main else {}
    for layer in _layers(module, plugin.transformer_cls_names_to_wrap):
        fully_shard(layer, **options, reshard_after_forward=plugin.reshard_after_forward)
    root = _Root(module, reshard=plugin.reshard_after_forward)
    fully_shard(root, **options)
    for unit in root.units:
        # Each loss is divided by the tokens of all processes, so that gradients are sums and not means.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    if from_main:
        if not distributed.is_main():
            # Shares that are tied stay so: sharded tensors are given their storage in place.
            materialize(root, distributed.device())
        fill(dict(module.named_parameters()), whole_weights)
    # Not as an attribute of a module, whose part it would become.
    module.__dict__[_ATTRIBUTE] = root
    # Whichever unit runs first takes itself for the root.
    run(module, lambda: None)
    _let_go(root)


def shard_all(modules: Mapping[str, nn.Module], *, from_main: bool) -> None:
    """Spread the trained modules, and the reference, over all processes; one module may have several names.

    Args:
        from_main: see `shard`.

    Raises:
        UserError: see `shard`, or the processes loaded different weights.
    """
    for name, module in modules.items():
        if is_whole(module):
            if not from_main:
                found = digest(module.state_dict())[:16]
                distributed.same(
                    f"weights of {name}",
                    found.__str__,
                    "give each process the same files under 'policy.model'",
                )
            shard(module, name, from_main=from_main)


def run(module: nn.Module, function: Callable[..., _T], *arguments: Any) -> _T:
    """``function(*arguments)``, which makes one pass of a module with gradients; called by all processes together.

    Of a module that is sharded, what it returns are tensors, or tuples or dictionaries of them.
    """
    root = _root(module)
    if root is None:
        return function(*arguments)
    with warnings.catch_warnings():
        # Nothing is added in place to what a pass returns.
        warnings.filterwarnings("ignore", message=".*returned a view tensor")
        found: _T = root(function, *arguments)
    return found


@contextmanager
def whole(*modules: nn.Module) -> Iterator[None]:
    """All weights of these modules are there, for any passes without gradients; entered by all processes together."""
    with ExitStack() as stack:
        for module in modules:
            root = _root(module)
            if root is not None:
                stack.enter_context(_gathered(root))
        yield


def is_sharded(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """This process's share of a tensor; of one that is not sharded all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def put_together(tensor: Tensor) -> Tensor:
    """The whole of a tensor; called by all processes together."""
    if not isinstance(tensor, DTensor):
        return tensor
    with distributed.in_touch():
        found: Tensor = tensor.full_tensor()
    return found


def joint_state(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors of a state, on the CPU of the main process; called by all processes together.

    Args:
        own: with parameters themselves, as ``state_dict(keep_vars=True)`` gives, so that tied ones stay tied.

    Returns:
        Nothing in the other processes.
    """
    found: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, tensor in own.items():
        if id(tensor) not in seen:
            one = put_together(tensor.detach())
            seen[id(tensor)] = one.cpu() if distributed.is_main() else one.new_empty(0)
        found[name] = seen[id(tensor)]
    return found if distributed.is_main() else {}


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model the weights of a state, which the main process alone needs to have where it is sharded."""
    if is_whole(model):
        model.load_state_dict(state)
    else:
        fill(model.state_dict(), state)


def fill(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Copy the main process's state into tensors of which each process has a share; called by all together.

    Args:
        given: read in the main process alone.

    Raises:
        FailedElsewhereError: that one could not read it.
    """
    distributed.gathered(None)
    with torch.no_grad():
        for name, tensor in own.items():
            if not isinstance(tensor, DTensor):
                continue  # a buffer, which no training changes
            source = given[name] if distributed.is_main() else torch.empty(tensor.shape)
            source = source.to(tensor.device, tensor.dtype)
            with distributed.in_touch():
                tensor.copy_(distribute_tensor(source, tensor.device_mesh, tensor.placements))


def _root(module: nn.Module) -> _Root | None:
    found: _Root | None = module.__dict__.get(_ATTRIBUTE)
    return found


@contextmanager
def _gathered(root: _Root) -> Iterator[None]:
    root.entered += 1
    try:
        if root.entered == 1:
            # Who has failed says so here, and not in the middle of what only all can do.
            distributed.gathered(None)
            with distributed.in_touch():
                for unit in root.units:
                    unit.set_reshard_after_forward(False, recurse=False)
                    unit.unshard()
        yield
    finally:
        root.entered -= 1
        if not root.entered:
            _let_go(root)


def _let_go(root: _Root) -> None:
    for unit in root.units:
        unit.reshard()
        # The rest is wanted again at once, by the backward pass.
        unit.set_reshard_after_forward(root.reshard_layers and not isinstance(unit, _Root), recurse=False)


def _precision() -> MixedPrecisionPolicy:
    """Weights are kept in float32, and computed with as passes are; gradients are summed in float32."""
    if not computes_in_half(distributed.device()):
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def _layers(module: nn.Module, names: Iterable[str] | None) -> list[nn.Module]:
    """The layers that are gathered one at a time: those that the launcher names, or the model's own blocks."""
    if not names:
        names = {
            name
            for part in module.modules()
            if isinstance(part, PreTrainedModel)
            for name in part._no_split_modules or ()
        }
    return [part for part in module.modules() if type(part).__name__ in names]


def _fit_for_steps(model: PreTrainedModel, what: str) -> None:
    able = abilities(model)
    if not (able.padding and able.prompt_padding):
        raise UserError(
            f"{what} ({type(model).__name__}) reads texts of unequal length one after another, and processes that share "
            "its weights must make equal passes: start it without FSDP, or choose another model."
        )
    # Reading equal prompts once takes a second pass, in the process that has such prompts alone.
    declare(model, replace(able, shared_prompts=False))


def from_main(build: Callable[[], _T], modules: Callable[[_T], list[nn.Module]]) -> _T:
    """What the main process builds, and in the others the same with hollow modules; called by all together.

    All that is not a parameter comes along: buffers, configurations, what was found out about a model, and which
    weights are tied.

    Args:
        build: called in the main process alone.
        modules: those in what it builds.

    Raises:
        FailedElsewhereError: the main process could not build it.
    """
    if not distributed.is_main():
        found: _T = distributed.gathered(None)[0]
        return found
    built = build()
    distributed.gathered(_emptied(built, modules(built)))
    return built


def is_hollow(module: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in module.parameters())


def materialize(module: nn.Module, where: torch.device) -> None:
    """Give the shares of a hollow module a storage, with any numbers in it; its buffers keep theirs."""
    buffers: Mapping[str, Tensor] = dict(module.named_buffers())
    module.to_empty(device=where)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


def _emptied(built: _T, modules: list[nn.Module]) -> _T:
    """A copy without the storage of parameters, which is not copied on the way either."""
    memo: dict[int, object] = {}
    for module in modules:
        for parameter in module.parameters():
            shape = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = nn.Parameter(shape, requires_grad=parameter.requires_grad)
    return copy.deepcopy(built, memo)
