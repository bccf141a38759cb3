"""The texts that a model finds most probable: greedy decoding and beam search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from rlgf.errors import UserError
from rlgf.models.abilities import abilities, many_passes, takes
from rlgf.models.generate import Continuation, decoding_batches
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers.base import Beginning, BuiltinSampler
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import writable
from rlgf.types import padded


class BeamSampler:
    """Writes the most probable token at each step, or the best text of a beam search by `transformers`.

    A finished text counts with its mean log-probability per token.
    """

    largest_gap: float | None = None

    def __init__(self, language_model: LanguageModel, beams: int, max_batch_tokens: int = 32_768) -> None:
        """
        Args:
            beams: how many texts are kept for each prompt; 1 is greedy decoding, which every model can do.
            max_batch_tokens: rows times beams times positions of one decoding batch.

        Raises:
            UserError: `transformers` cannot search with the model.
        """
        model = language_model.model
        # What counts positions from another number, as RoBERTa does, is given them from 0 there.
        if beams > 1 and not (model.can_generate() and abilities(model).first_position in (0, None)):
            raise UserError(
                f"'evaluation.beams' is {beams}, and the beam search of transformers cannot be used with "
                f"{type(model).__name__}: set it to 1, which is greedy decoding."
            )
        self.language_model = language_model
        self.beams = beams
        self.max_batch_tokens = max_batch_tokens

    def write(
        self, beginnings: Sequence[Beginning], sampling: Sampling, *, keep_sets: bool = False
    ) -> list[Continuation]:
        """See `Sampler.write`: of ``sampling`` only the minimum length counts, and each token's log-probability is 0,
        since nothing is drawn."""
        if self.beams == 1:
            greedy = Sampling(top_k=1, min_tokens=sampling.min_tokens)
            return BuiltinSampler(self.language_model, "search", self.max_batch_tokens).write(
                beginnings, greedy
            )
        prefixes, prompts = self.language_model.prefixes(
            [one.prompt for one in beginnings], [one.written for one in beginnings]
        )
        alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for i, one in enumerate(beginnings):
            # The generate of transformers has one limit for a batch; a decoder's beginnings are not padded.
            started = 0 if prompts is None else len(prefixes[i])
            alike[one.limit, max(0, sampling.min_tokens - one.position), started].append(i)
        found: dict[int, Continuation] = {}
        for (limit, least, _), chosen in alike.items():
            read = None if prompts is None else [prompts[i] for i in chosen]
            written = self._written([prefixes[i] for i in chosen], read, limit, min(least, limit))
            found |= dict(zip(chosen, written, strict=True))
        return [found[i] for i in range(len(beginnings))]

    def _written(
        self, prefixes: list[Tensor], prompts: list[Tensor] | None, limit: int, least: int
    ) -> list[Continuation]:
        """What follows each prefix, from ``least`` to ``limit`` tokens."""
        model = self.language_model.model
        generate = cast("Callable[..., Tensor]", model.generate)
        lengths = torch.tensor([len(prefix) for prefix in prefixes])
        limits = torch.full_like(lengths, limit)
        found: dict[int, Continuation] = {}
        for rows in decoding_batches(
            model, lengths, limits, prompts, max(1, self.max_batch_tokens // self.beams)
        ):
            chosen = rows.tolist()
            read = [(prefixes if prompts is None else prompts)[i] for i in chosen]
            ids, mask = (one.to(model.device) for one in padded(read, self._pad_id, left=prompts is None))
            inputs = {"input_ids": ids, "attention_mask": mask.long()}
            if prompts is not None:
                inputs["decoder_input_ids"] = torch.stack([prefixes[i] for i in chosen]).to(model.device)
            first = inputs.get("decoder_input_ids", ids)
            more = {"output_router_logits": False} if takes(model, "output_router_logits") else {}
            settings = self._settings(limit, least, first)
            with torch.no_grad(), many_passes(model), _plain_settings(model):
                output = generate(
                    **inputs,
                    **more,
                    generation_config=settings,
                    logits_processor=LogitsProcessorList([self._writable]),
                    # Weights are gathered meanwhile (`sharding.whole`), and processes search for unequal times.
                    synced_gpus=False,
                )
            for i, row in zip(chosen, output[:, first.shape[1] :].cpu(), strict=True):
                found[i] = self._ended(row)
        return [found[i] for i in range(len(prefixes))]

    @property
    def _pad_id(self) -> int:
        pad = self.language_model.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else self.language_model.end_id

    def _settings(self, limit: int, least: int, first: Int[Tensor, "N T"]) -> GenerationConfig:
        return GenerationConfig(
            num_beams=self.beams,
            do_sample=False,
            max_new_tokens=limit,
            min_new_tokens=least or None,
            eos_token_id=list(self.language_model.end_ids),
            pad_token_id=self._pad_id,
            decoder_start_token_id=int(first[0, 0]),
            use_cache=abilities(self.language_model.model).cache,
        )

    def _writable(self, _ids: Int[Tensor, "N T"], scores: Float[Tensor, "N W"]) -> Float[Tensor, "N W"]:
        """The log-probabilities of the tokens that the model may write, where its head has others too."""
        kept = writable(self.language_model.model)
        if kept is None:
            return scores
        among = torch.tensor(kept, device=scores.device)
        return torch.full_like(scores, float("-inf")).index_copy(
            1, among, scores[:, among].log_softmax(dim=-1)
        )

    def _ended(self, ids: Int[Tensor, "T"]) -> Continuation:
        """A row up to the first token that ends its text."""
        ends = torch.isin(ids, torch.tensor(self.language_model.end_ids)).nonzero()
        finished = len(ends) > 0
        kept = ids[: int(ends[0]) + 1] if finished else ids
        return Continuation(kept, torch.zeros(len(kept)), finished)


@contextmanager
def _plain_settings(model: PreTrainedModel) -> Iterator[None]:
    """Without the model's own defaults: its penalties of repetition would decode another distribution than is trained."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
