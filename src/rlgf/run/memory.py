"""What a run needs in memory, estimated from its recipe before anything loads: the formulas of docs/scaling.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import psutil

from rlgf import distributed
from rlgf.config import Config
from rlgf.distributed import device
from rlgf.errors import UserError
from rlgf.guides.config import keeps_average, members
from rlgf.guides.local import LocalGuideConfig
from rlgf.models import launcher
from rlgf.models.abilities import computes_in_half
from rlgf.models.loading import ModelConfig
from rlgf.models.memory import Shape, Size, device_bytes, frozen_size, logits_bytes, policy_sizes
from rlgf.models.response_scores import MOST_PIECE
from rlgf.models.scratch import ScratchConfig

_FLOAT, _HALF = 4, 2
_LOGITS_ALIVE = 4
"""Logits, their softmax, and the gradients of both."""
_DRAWN_ALIVE = 3
"""The logits of a step, their float32 and the cumulative distribution."""

_WRITTEN = 2
"""Copies that `torch.distributed.checkpoint` makes of what it writes."""
_SHARE_OF_MEMORY = 0.25


@dataclass(frozen=True)
class Launch:
    """How many processes a launcher starts, as its environment says."""

    processes: int = 1
    together: int = 1
    """How many of them are on one machine."""
    sharing: int = 1
    """Over how many of them the weights are spread (FSDP2); 1 where each holds all."""

    @staticmethod
    def found() -> Launch:
        """
        Raises:
            UserError: the launcher asks for what this library does not do.
        """
        processes = distributed.launched()
        return Launch(processes, distributed.together(), launcher.sharing() if launcher.asked() else 1)

    @property
    def shares(self) -> bool:
        """Whether they share the weights."""
        return self.sharing > 1

    @property
    def words(self) -> str:
        if self.processes == 1:
            return "one process"
        if not self.shares:
            how = "each of which holds all weights (DDP)"
        elif self.sharing == self.processes:
            how = "which share the weights (FSDP2)"
        else:
            how = f"of which {self.sharing} at a time share the weights (FSDP2 with copies)"
        return f"each of {self.processes} processes, {how}"

    def share(self, size: int) -> int:
        """One process's share."""
        return math.ceil(size / self.sharing)


@dataclass(frozen=True)
class Estimate:
    """Bytes that one process needs."""

    config: Config
    launch: Launch
    shared: Sequence[Size]
    """Policy, reference and critics."""
    others: Sequence[Size]
    """Models that every process holds as a whole, such as a local guide."""
    shape: Shape

    @property
    def weights(self) -> int:
        return sum(self.launch.share(size.bytes) for size in self.shared) + self._whole

    @property
    def gradients(self) -> int:
        return sum(self.launch.share(size.gradients) for size in self.shared)

    @property
    def moments(self) -> int:
        return sum(self.launch.share(size.moments) for size in self.shared)

    @property
    def copies(self) -> int:
        """Copies of the policy's trained weights: for sampling ahead, and a guide that follows it."""
        trained = sum(size.bytes for size in self.shared if size.trained and size.name.startswith("policy"))
        guide = self.config.guide
        return trained * (self.config.training.async_steps + (guide is not None and keeps_average(guide)))

    @property
    def loading(self) -> int:
        """Weights while models load, in the main process: where processes share them it loads them whole, in the
        machine's memory also where it has a GPU."""
        if self.launch.shares and device().type == "cuda":
            return self.weights
        return sum(size.bytes for size in self.shared) + self._whole

    @cached_property
    def phases(self) -> Mapping[str, Mapping[str, int]]:
        """Bytes of each part, by what a run does; a part that it does not need is missing."""
        engines = {"vLLM": self._engines}
        rest = {
            "weights": self.weights,
            "copies of the policy's weights": self.copies,
            "moments of AdamW": self.moments,
            # On a GPU it lets go of them when it has written.
            **(engines if device().type == "cpu" else {}),
        }
        # Texts of the next update are written meanwhile.
        ahead = {"sampling ahead": sum(self._writing().values()) if self.config.training.async_steps else 0}
        phases = {
            "writing": {**rest, **engines, **self._writing()},
            "scoring": {**rest, **ahead, **self._scoring()},
            "learning": {**rest, **ahead, **self._learning()},
            "saving": {**rest, **ahead, "what is written": self._saving},
        }
        if self.launch.shares:
            phases = {"loading": {"weights": self.loading}, **phases}
        return {
            phase: {part: size for part, size in parts.items() if size} for phase, parts in phases.items()
        }

    @property
    def peak(self) -> int:
        return max(sum(parts.values()) for parts in self.phases.values())

    def least(self, *, trains: bool = True, adam: bool = True) -> int:
        """What the run cannot do without, whatever texts it meets; AdamW (``adam``) has two moments of each weight."""
        # The main process alone loads what is shared, so its machine needs room for that once.
        loading = self.loading // self.launch.together if self.launch.shares else self.loading
        learning = self.weights + self.copies + self.gradients + (self.moments if adam else 0)
        return max(loading, self.weights, learning if trains else 0)

    def refusal(self, needed: int) -> str | None:
        """A sentence where bytes that are needed are not there."""
        there, where = _there(self.launch)
        if needed <= there:
            return None
        return (
            f"{where} {memory(there)} of memory for {self.launch.words}, and the run needs at least {memory(needed)} "
            "for its models and their training alone, so it cannot fit here: train an adapter ('policy.lora'), a critic "
            "on the policy's trunk ('policy.critic: head') or a smaller model, or share the weights among more "
            "processes (docs/scaling.md)."
        )

    @property
    def _whole(self) -> int:
        return sum(size.bytes for size in self.others)

    @property
    def _saving(self) -> int:
        """Copies of moments and critics that writing a checkpoint makes; on a CPU, where they go from a GPU too."""
        if device().type == "cuda":
            return 0
        critics = sum(size.bytes for size in self.shared if size.name.startswith("critic"))
        # The policy is put together in one process before that.
        together = self.shared[0].bytes if self.launch.shares else 0
        return max(_WRITTEN * (self.moments + self.launch.share(critics)), together)

    @property
    def _each(self) -> int:
        """Bytes of a number that a pass computes."""
        return _HALF if computes_in_half(device()) else _FLOAT

    def _gathered(self, *names: str) -> int:
        """Weights that are gathered for passes without gradients, of parts whose names begin so."""
        if not self.launch.shares:
            return 0
        return self._each * sum(size.parameters for size in self.shared if size.name.startswith(names))

    def _gathered_to_learn(self) -> int:
        """Weights that are gathered in a pass with gradients: those of a layer, or all of the largest model."""
        if not self.launch.shares:
            return 0
        largest = max(size.parameters for size in self.shared if size.trained or size.name == "policy")
        return self._each * (largest if launcher.keeps_layers() else self.shape.gathered_layer)

    def _cast(self, *, frozen: bool = True) -> int:
        """Copies of weights in half precision during a pass of the largest model: autocast keeps those of weights that
        are trained, and others where a text is written or a pass has gradients."""
        if self._each == _FLOAT or self.launch.shares:
            return 0
        return _HALF * max((size.parameters for size in self.shared if size.trained or frozen), default=0)

    def _writing(self) -> dict[str, int]:
        rollout, evaluation = self.config.rollout, self.config.evaluation
        if self.config.sampler.server is not None:
            return {"gathered weights": self._gathered("policy")}
        texts = max(rollout.episodes, evaluation.samples, evaluation.test_samples)
        rows = self._rows(rollout.max_batch_tokens, texts)
        tokens = rows * (self._prompt + rollout.max_response_tokens)
        return {
            "gathered weights": self._gathered("policy"),
            "weights in bfloat16": self._cast(),
            "keys and values": self._each * self.shape.cache * tokens,
            "activations": self._each * self.shape.prompt.widest * rows * self._prompt,
            "logits": _DRAWN_ALIVE * _FLOAT * rows * self.shape.vocabulary,
        }

    def _scoring(self) -> dict[str, int]:
        rollout, shape = self.config.rollout, self.shape
        rows = self._rows(rollout.max_batch_tokens, rollout.episodes)
        prompts, responses = rows * self._prompt, rows * rollout.max_response_tokens
        return {
            "gathered weights": self._gathered("policy", "reference", "critic"),
            "weights in bfloat16": self._cast(frozen=False),
            "activations": self._each * (shape.prompt.widest * prompts + shape.response.widest * responses),
            "logits": _LOGITS_ALIVE * _FLOAT * min(MOST_PIECE, responses * shape.vocabulary),
        }

    def _learning(self) -> dict[str, int]:
        rollout, update, shape = self.config.rollout, self.config.update, self.shape
        prompt, response = self._prompt, rollout.max_response_tokens
        rows = self._rows(update.max_micro_tokens, update.minibatch)
        kept = [
            stack.kept(rows * tokens, prompt + response, checkpointing=update.gradient_checkpointing)
            for stack, tokens in ((shape.prompt, prompt), (shape.response, response))
        ]
        trained = sum(size.bytes for size in self.shared if size.trained)
        undo = trained + self.moments
        copies = device().type == "cpu" and not self.launch.shares and leaves_room(undo)
        return {
            "gradients": self.gradients,
            "copy to go back to": undo if copies else 0,
            "gathered weights": self._gathered_to_learn(),
            "weights in bfloat16": self._cast(),
            "activations": self._each * sum(kept),
            "logits": _LOGITS_ALIVE
            * logits_bytes(shape.vocabulary, prompt, response, update.max_micro_tokens, rows),
        }

    @property
    def _engines(self) -> int:
        """The weights and caches of vLLM, for the policy and for a guide; on a CPU it also packs the weights."""
        weights = {size.name: size.bytes for size in self.others}
        weights["policy"] = self._each * self.shared[0].parameters
        of_guides = {who: m.sampler for who, m in models(self.config) if isinstance(m, LocalGuideConfig)}
        engines = {"policy": self.config.sampler, **of_guides}
        copies = 2 if device().type == "cpu" else 1
        return sum(
            copies * weights[who] + round(engine.cache_gib * 2**30)
            for who, engine in engines.items()
            if engine.here and who in weights
        )

    @property
    def _prompt(self) -> int:
        """Tokens of the longest prompt, hints with it."""
        return self.config.rollout.room(self.config.algorithm)[0]

    def _rows(self, budget: int, texts: int) -> int:
        """Texts of one pass, at most: as many as fit, of those that one process has."""
        rollout = self.config.rollout
        fitting = budget // (self._prompt + rollout.max_response_tokens)
        return max(1, min(fitting, math.ceil(texts / self.launch.processes)))


def models(config: Config) -> Iterator[tuple[str, ModelConfig | ScratchConfig]]:
    """Every model that a run of the recipe loads for itself, by who it is."""
    yield "policy", config.policy.source
    guides = members(config.guide, LocalGuideConfig)
    for number, guide in enumerate(guides):
        yield f"guide {number + 1}" if len(guides) > 1 else "guide", guide
    if config.evaluation.reference is not None:
        yield "evaluation's reference", config.evaluation.reference
    if config.evaluation.language_model is not None:
        yield "evaluation's language model", config.evaluation.language_model


def estimated(config: Config, missing: Sequence[str] = ()) -> Estimate:
    """The estimate of a run, without those of `models` who are ``missing``.

    Raises:
        UserError: there is no such model, or the launcher asks for what this library does not do.
    """
    names = sorted({str(row.critic) for row in config.algorithm.rows} - {"None"})
    policy = config.policy
    parts, shape = policy_sizes(policy.source, policy.lora, policy.critic, names)
    others = [
        frozen_size(who, model)
        for who, model in models(config)
        if isinstance(model, ModelConfig) and who != "policy" and who not in missing
    ]
    return Estimate(config, Launch.found(), parts, others, shape)


def require_room(config: Config, *, trains: bool = True, adam: bool = True) -> None:
    """Refuse a run that certainly cannot fit into the memory of its device.

    Raises:
        UserError: says how much there is and how much is needed.
    """
    try:
        found = estimated(config)
    except UserError:
        return  # of a model that cannot be had its loading says more
    said = found.refusal(found.least(trains=trains, adam=adam))
    if said is not None:
        raise UserError(said)


def memory(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


def _there(launch: Launch) -> tuple[int, str]:
    """The memory that one process may take, and where it is."""
    if device().type == "cuda":
        return device_bytes(), "each GPU has" if launch.processes > 1 else "the GPU has"
    return device_bytes() // launch.together, "this machine has"


def leaves_room(size: int) -> bool:
    """Whether copies of so many bytes are made, by each process of the machine."""
    return size * distributed.together() <= _SHARE_OF_MEMORY * int(psutil.virtual_memory().available)
