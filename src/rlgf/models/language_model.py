"""A model with its tokenizer: from text to its tokens and back, as that model reads and ends a text."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlgf.errors import UserError
from rlgf.models import lora, sharding, weights
from rlgf.models.abilities import abilities
from rlgf.models.encoder_decoder import decoder_start, is_encoder_decoder
from rlgf.models.lora import Adapters
from rlgf.models.text import Codec
from rlgf.models.vocabulary import restrict, unread


@dataclass(frozen=True)
class LanguageModel:
    """A causal or encoder-decoder model with its tokenizer, on its device, with dropout off."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapters: Adapters | None = None
    """Where adapters are trained and not the model's own weights."""
    without_adapter: bool = False
    """Whether this is what the model is without them."""

    def __post_init__(self) -> None:
        weights.prepare(self.model)
        restrict(self.model, self.tokenizer)

    @contextmanager
    def running(self) -> Iterator[PreTrainedModel]:
        """The model, for passes without gradients; with its adapters off, where this stands for the model without
        them. Where processes share its weights, all enter together."""
        off = self.adapters.running(None) if self.adapters and self.without_adapter else nullcontext()
        with sharding.whole(self.model), off:
            yield self.model

    @property
    def trained(self) -> Sequence[nn.Parameter]:
        if self.adapters is not None:
            return self.adapters.parameters(lora.POLICY)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def end_id(self) -> int:
        """The token that is written where a text is to end, which `load_language_model` makes sure of."""
        end = self.tokenizer.eos_token_id
        assert isinstance(end, int)
        return end

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Every token that ends a text of this model's, ascending.

        They are those that `transformers`' own ``generate`` stops at, and the tokenizer's: a chat model often ends
        its turn in another token than a document. An id that the tokenizer does not have is left out.
        """
        ends = {self.end_id}
        generation = getattr(self.model, "generation_config", None)
        for config in (generation, self.model.config.get_text_config(decoder=True)):
            found = getattr(config, "eos_token_id", None)
            ends.update([found] if isinstance(found, int) else found or [])
        return tuple(sorted(end for end in ends if 0 <= end <= self._largest_id))

    @cached_property
    def _largest_id(self) -> int:
        """No less than the number of tokens less one, and more where ids have holes."""
        return max(self.tokenizer.get_vocab().values())

    @cached_property
    def codec(self) -> Codec:
        return Codec(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        return self.codec.encode(text)

    def encode_prompt(self, text: str, limit: int, cue: str = "") -> list[int]:
        """A prompt as at most ``limit`` tokens, as the model was trained to read it.

        They are those of ``tokenizer(text)``, so a beginning-of-text token stands where the tokenizer puts one,
        once. What the tokenizer puts after a text is for an encoder alone: a causal model goes on from there.

        Args:
            cue: the end of a text that loses the end of what stands before its cue where it is too long;
                without a cue it loses its beginning.
        """
        ids = self.codec.encode_prompt(text)
        room = self.codec.room(limit, ends=is_encoder_decoder(self.model))
        if len(ids) > room and cue:
            first = self.codec.encode_prompt(text.removesuffix(cue))
            last, _ = self.codec.continuation(cue, first, prompt=True)
            ids = first[: max(0, room - len(last))] + last
        return self.as_prompt(ids, limit)

    def as_prompt(self, ids: Sequence[int], limit: int) -> list[int]:
        """The last of a prompt's own tokens that fit, and what the tokenizer puts around them; at least one.

        Raises:
            UserError: the model cannot read one of them.
        """
        foreign = self._unread.intersection(ids)
        if foreign:
            raise UserError(
                f"a prompt holds '{self.tokenizer.convert_ids_to_tokens(min(foreign))}', a token that the model has no "
                "embedding for: leave it out of the prompts."
            )
        # A model cannot start from nothing; end-of-text is what stands before a text in training.
        return self.codec.surround(ids, limit, ends=is_encoder_decoder(self.model)) or [self.end_id]

    @cached_property
    def _unread(self) -> frozenset[int]:
        return unread(self.model, self.tokenizer)

    def prefixes(
        self, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """What `sample_continuations` takes to go on with what has been written after prompts.

        Returns:
            The prefixes, and the encoder's prompts where the model has an encoder.
        """
        if not is_encoder_decoder(self.model):
            return [torch.tensor([*p, *w]) for p, w in zip(prompts, written, strict=True)], None
        start = decoder_start(self.model)
        return [torch.tensor([*start, *ids]) for ids in written], [torch.tensor(list(ids)) for ids in prompts]

    def context(self, prompt: Sequence[int], written: Sequence[int] = ()) -> list[int]:
        """The tokens that a response goes on from: a decoder's text begins anew, a causal model's does not."""
        return list(written) if is_encoder_decoder(self.model) else [*prompt, *written]

    def decode(self, ids: Sequence[int], before: Sequence[int] = ()) -> str:
        """The text of token ids after others, such as a response's after its `context`; see `Codec.decode`."""
        return self.codec.decode(ids, before)

    def continuation(self, text: str, before: Sequence[int]) -> tuple[list[int], bool]:
        ids, altered = self.codec.continuation(text, before)
        if altered and not before and is_encoder_decoder(self.model):
            # The space that would join a text to its prompt: there is nothing before it to be apart from.
            return self.codec.continuation(text.lstrip(" "), before)
        return ids, altered

    def until_end(self, text: str) -> str:
        """A text up to the first token that ends one, where such a token is written out in it."""
        return self.codec.until_end(text, self.end_ids)


class Snapshot:
    """A copy of a language model, with the weights that it had when the copy was made or last brought up to date.

    Weights that are not trained are the model's own, so of a model with an adapter the adapter alone is copied.
    """

    def __init__(self, live: LanguageModel) -> None:
        # Tried out once, and not once more by each copy.
        abilities(live.model)
        trained = {id(parameter) for parameter in live.trained}
        tensors = chain(live.model.parameters(), live.model.buffers())
        shared = {id(tensor): tensor for tensor in tensors if id(tensor) not in trained}
        model = copy.deepcopy(live.model, shared)
        # A tokenizer is not for two threads at once.
        self.language_model = LanguageModel(model, copy.deepcopy(live.tokenizer))
        both = zip(live.model.parameters(), model.parameters(), strict=True)
        self._pairs = [(theirs, own) for theirs, own in both if id(theirs) in trained]
        for _, own in self._pairs:
            own.requires_grad_(False)

    @property
    def weights(self) -> list[torch.Tensor]:
        """The copies."""
        return [own for _, own in self._pairs]

    @torch.no_grad()
    def update(self, share: float = 1.0) -> None:
        """Take over the weights as they are now.

        Args:
            share: of the way to them; less than 1 makes an exponential moving average.
        """
        for theirs, own in self._pairs:
            if share == 1.0:
                own.copy_(theirs)
            else:
                own.lerp_(theirs, share)
