"""Teacher-forced passes over prompts with responses: log-probabilities, entropies, hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlgf.kept import KeptTokens, kept_mask
from rlgf.models.abilities import abilities, declare, lean, mixed_precision, takes
from rlgf.models.checkpointing import recomputed, recomputes
from rlgf.models.encoder_decoder import decoder_start, encode, encoded_inputs, is_encoder_decoder
from rlgf.models.kv_cache import cache_argument, keep_rows
from rlgf.models.parts import under_head
from rlgf.models.vocabulary import read_logits
from rlgf.types import Rollout

_OF_RESPONSE = ("response_ids", "response_mask", "given")
_WORTH_SHARING = 0.1
"""The share of a pass's tokens that reading equal prompts once must save: it is two passes instead of one."""


@dataclass(frozen=True)
class Tokens:
    """What a scoring pass reads: prompts padded on the left, responses on the right.

    Columns that are padding in every row are cut off.
    """

    prompt_ids: Int[Tensor, "B P"]
    prompt_mask: Bool[Tensor, "B P"]
    response_ids: Int[Tensor, "B T"]
    response_mask: Bool[Tensor, "B T"]
    kept: tuple[KeptTokens | None, ...] = ()
    """What each token was drawn from, see `Rollout`; empty where nothing was cut off."""
    given: Bool[Tensor, "B T"] | None = None
    """Which response tokens the policy did not draw itself; None where that makes no difference."""
    copied: Tokens | None = None
    """Those that these were copied from to a device: what is decided from them is decided on the CPU, since to read from
    a device is to wait for all that it has yet to compute."""

    @staticmethod
    def of(rollout: Rollout) -> Tokens:
        prompt = max(int(rollout.prompt_mask.sum(dim=1).max()), 1)
        response = max(int(rollout.lengths.max()), 1)
        return Tokens(
            rollout.prompt_ids[:, -prompt:],
            rollout.prompt_mask[:, -prompt:],
            rollout.response_ids[:, :response],
            rollout.response_mask[:, :response],
            rollout.kept,
            ~rollout.drawn[:, :response],
        )

    def cut(self, length: int) -> Tokens:
        """The same without response columns from ``length`` on."""
        return self._with(_OF_RESPONSE, lambda tensor: tensor[:, :length])

    def to(self, device: torch.device) -> Tokens:
        if self.prompt_ids.device == device:
            return self
        names = ("prompt_ids", "prompt_mask", *_OF_RESPONSE)
        return replace(self.near._with(names, lambda tensor: tensor.to(device)), copied=self.near)

    @property
    def near(self) -> Tokens:
        """The same on the CPU, where they were made there."""
        return self.copied or self

    def _with(self, names: Sequence[str], change: Callable[[Tensor], Tensor]) -> Tokens:
        there = {name: getattr(self, name) for name in names}
        changed: dict[str, Any] = {name: change(value) for name, value in there.items() if value is not None}
        return replace(self, copied=None, **changed)

    def kept_mask(self, width: int) -> Bool[Tensor, "B T V"] | None:
        """What each response token was drawn from, over ``width`` logits; None where nothing was cut off."""
        return kept_mask(self.kept, self.response_ids.shape[1], width, self.response_ids.device)

    def model_inputs(self, model: PreTrainedModel, start: Sequence[int] = ()) -> dict[str, Any]:
        """Arguments of a model's forward pass over all but the last response token.

        The last token's own output is never read: the state before it is one position earlier. An
        encoder-decoder model's encoder runs here, once per prompt.

        Args:
            start: what stands before every response of a decoder, see `decoder_start`.
        """
        if is_encoder_decoder(model):
            near = self.near
            prompts = [ids[mask] for ids, mask in zip(near.prompt_ids, near.prompt_mask, strict=True)]
            first = self.response_ids.new_tensor(start).expand(len(prompts), -1)
            # A decoder sees nothing after a token, so padding on the right needs no mask.
            return {
                **encoded_inputs(*encode(model, prompts)),
                "decoder_input_ids": torch.cat([first, self.response_ids[:, :-1]], dim=1),
            }
        ids = torch.cat([self.prompt_ids, self.response_ids[:, :-1]], dim=1)
        mask = torch.cat([self.prompt_mask, self.response_mask[:, :-1]], dim=1)
        return {"input_ids": ids, **masked(model, mask)}

    def shared_prompts(self) -> tuple[Int[Tensor, "U P"], Int[Tensor, "B"]] | None:
        """The different prompts, with -1 at padding, and the number of each row's among them.

        Returns:
            None where reading each of them once would save little.
        """
        near, device = self.near, self.prompt_ids.device
        lengths = near.prompt_mask.sum(dim=1)
        if len(lengths) < 2 or int(lengths.min()) < 2:
            return None
        unique, of = near.prompt_ids.masked_fill(~near.prompt_mask, -1).unique(dim=0, return_inverse=True)
        saved = int((lengths - 1).sum() - ((unique >= 0).sum(dim=1) - 1).sum())
        all_tokens = int(lengths.sum() + near.response_mask.sum())
        return (unique.to(device), of.to(device)) if saved > _WORTH_SHARING * all_tokens else None

    def alike(self, model: PreTrainedModel) -> Iterator[tuple[Int[Tensor, "N"], Tokens]]:
        """The rows that a model can run together, and their tokens without the padding that they all have."""
        lengths = self.near.prompt_mask.sum(dim=1)
        able = abilities(model)
        if able.prompt_padding if is_encoder_decoder(model) else able.padding:
            lengths = lengths.new_full(lengths.shape, int(lengths.max()))
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            copied = None if self.copied is None else self.copied._rows(rows, max(length, 1))
            yield rows, replace(self._rows(rows, max(length, 1)), copied=copied)

    def _rows(self, rows: Int[Tensor, "N"], prompt: int) -> Tokens:
        """Some rows, with so many columns of their prompts."""
        return Tokens(
            self.prompt_ids[rows, -prompt:],
            self.prompt_mask[rows, -prompt:],
            self.response_ids[rows],
            self.response_mask[rows],
        )


def masked(model: PreTrainedModel, mask: Bool[Tensor, "B L"]) -> dict[str, Any]:
    """The arguments of a causal model's forward pass that say where its texts begin, as far as it knows them."""
    inputs: dict[str, Any] = {}
    if takes(model, "attention_mask"):
        inputs["attention_mask"] = mask.long()
    first = abilities(model).first_position
    if first is not None and takes(model, "position_ids"):
        inputs["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0) + first
    return inputs


def response_outputs(
    model: PreTrainedModel, tokens: Tokens, *, hidden: bool = False
) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B T D"] | None]:
    """Logits at response positions alone, and the last hidden states there where asked for.

    Entry ``[:, t]`` belongs to the state before response token t.
    """
    length = tokens.response_ids.shape[1]
    # A decoder's few columns before the response cost nothing; a causal model's are the whole prompt.
    keep = (
        {"logits_to_keep": length} if takes(model, "logits_to_keep") and not is_encoder_decoder(model) else {}
    )

    def run(alike: Tokens) -> tuple[Tensor, ...]:
        with mixed_precision(model.device), recomputed(model):
            inputs = _inputs(model, alike, decoder_start(model))
            with _last_states(model) as states:
                output = model(**inputs, **keep)
        logits = read_logits(model, output.logits[:, -length:])
        return (logits, states[0][:, -length:]) if hidden else (logits,)

    found = _by_likeness(model, tokens, run)
    return found[0], found[1] if hidden else None


def trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """A model without its head; one that has no such part is its own."""
    able = abilities(model)  # which the trunk, that cannot find them out, knows from then on
    trunk: Any = model.base_model
    if not takes(trunk, "input_ids"):
        # The decoders of BART's kin, without their encoders, stand in a wrapper that does not say what it takes.
        trunk = under_head(model)
        declare(trunk, able)
    assert isinstance(trunk, PreTrainedModel)
    return trunk


def base_hidden(trunk: PreTrainedModel, tokens: Tokens, start: Sequence[int]) -> Float[Tensor, "B T D"]:
    """The last hidden states of a trunk at response positions; ``start`` as `decoder_start` of its model."""
    length = tokens.response_ids.shape[1]

    def run(alike: Tokens) -> tuple[Tensor]:
        with mixed_precision(trunk.device), recomputed(trunk):
            inputs = _inputs(trunk, alike, start)
            with _last_states(trunk) as states:
                trunk(**inputs)
        return (states[0][:, -length:],)

    return _by_likeness(trunk, tokens, run)[0]


def _inputs(model: PreTrainedModel, tokens: Tokens, start: Sequence[int]) -> dict[str, Any]:
    """The arguments of one pass over prompts and responses, of which those that the prompts share are read first."""
    # A layer that is computed a second time would write into the cache a second time.
    shares = abilities(model).shared_prompts and not recomputes(model)
    shared = tokens.shared_prompts() if shares else None
    if shared is None:
        return {**tokens.model_inputs(model, start), **lean(model, use_cache=False)}
    prompts, of = shared
    name, cache = cache_argument(model), DynamicCache(config=model.config.get_text_config(decoder=True))
    assert name is not None, "a model without a cache cannot share prompts"
    # The state after a prompt's last token is the first that is read, so that token goes with the response.
    before = prompts[:, :-1]
    trunk_of(model)(
        input_ids=before.clamp(min=0), **masked(model, before >= 0), use_cache=True, **{name: cache}
    )
    keep_rows(cache, of)
    mask = torch.cat([tokens.prompt_mask, tokens.response_mask[:, :-1]], dim=1)
    told = masked(model, mask)
    if "position_ids" in told:
        told["position_ids"] = told["position_ids"][:, before.shape[1] :]
    ids = torch.cat([tokens.prompt_ids[:, -1:], tokens.response_ids[:, :-1]], dim=1)
    return {"input_ids": ids, **told, **lean(model, use_cache=True), name: cache}


def _by_likeness(
    model: PreTrainedModel, tokens: Tokens, run: Callable[[Tokens], tuple[Tensor, ...]]
) -> list[Tensor]:
    """What ``run`` says of every row, run with rows that the model can read together."""
    rows, found = zip(*((rows, run(alike)) for rows, alike in tokens.alike(model)), strict=True)
    if len(found) == 1:
        return list(found[0])
    back = torch.cat(rows).argsort()
    return [torch.cat(parts)[back] for parts in zip(*found, strict=True)]


@contextmanager
def _last_states(model: PreTrainedModel) -> Iterator[list[Float[Tensor, "B L D"]]]:
    states: list[Tensor] = []
    handle = under_head(model).register_forward_hook(lambda _module, _args, output: states.append(output[0]))
    try:
        yield states
    finally:
        handle.remove()


def length_batches(
    left: Int[Tensor, "N"], right: Int[Tensor, "N"], max_tokens: int
) -> Iterator[Int[Tensor, "_"]]:
    """Yield row indices in order of falling length, as many as fit.

    The left parts (prompts, padded on the left) and right parts (responses, padded on the right) of a
    batch line up, so a batch takes ``rows * (longest left + longest right)`` tokens, at most
    ``max_tokens``; a single row that is longer than that makes a batch of its own. The longest come
    first, so that a budget that is too large for memory fails at once.
    """
    rows: list[int] = []
    longest = (0, 0)
    lefts, rights = left.tolist(), right.tolist()
    for row in torch.argsort(left + right, descending=True, stable=True).tolist():
        widened = max(longest[0], lefts[row]), max(longest[1], rights[row])
        if rows and (len(rows) + 1) * sum(widened) > max_tokens:
            yield torch.tensor(rows)
            rows, widened = [], (lefts[row], rights[row])
        rows.append(row)
        longest = widened
    if rows:
        yield torch.tensor(rows)
