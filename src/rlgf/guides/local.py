"""A guide that runs in this process: any causal model, with any tokenizer."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlgf.chat import ChatTemplate
from rlgf.errors import UserError
from rlgf.guides.base import GuideSettings, Request
from rlgf.guides.given_text import GivenText, given_text
from rlgf.identity import FREE, LATER
from rlgf.models.encoder_decoder import is_encoder_decoder
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, context_of, load_language_model
from rlgf.models.response_scores import text_scores
from rlgf.models.samplers import Beginning, BuiltinSampler, EngineConfig, Sampler, build_sampler
from rlgf.models.sampling import Sampling, log_distribution
from rlgf.models.text import Codec
from rlgf.objectives.alignment import Piece
from rlgf.types import Completion

_TEXT = "{text}"


def _ends_in_text(template: str) -> str:
    if not template.endswith(_TEXT) or template.count(_TEXT) > 1:
        raise ValueError(f"it must end in '{_TEXT}', which the guide goes on from, and hold it once")
    return template


class LocalSettings(GuideSettings):
    """The settings of a guide that runs in this process, after the policy is loaded."""

    @property
    def early(self) -> bool:
        return False

    @property
    def may_score(self) -> bool:
        return True

    @property
    def may_score_texts(self) -> bool:
        return True


class LocalGuideConfig(ModelConfig, LocalSettings):
    """A causal model and how it is decoded; the default is the paper's nucleus sampling."""

    mark: ClassVar[str] = "model"

    sampling: Sampling = Sampling(top_p=0.92)
    template: Annotated[str, AfterValidator(_ends_in_text)] = _TEXT
    """The text that the guide reads. ``{text}`` stands for the prompt and the text so far, and the guide goes on
    from there. Words before it steer the guide, as in ``"A glowing review: {text}"``; the policy never reads them."""
    max_batch_tokens: Annotated[int, FREE] = Field(default=32_768, ge=1)
    sampler: Annotated[EngineConfig, LATER] = EngineConfig()
    """The engine that writes; the default is the model itself."""

    @property
    def steered(self) -> bool:
        """Whether the guide reads more than the policy does."""
        return self.template != _TEXT

    def build(self, start: LanguageModel | None) -> LocalGuide:
        assert start is not None, "it has to see whether the policy's tokenizer is its own"
        model = load_language_model(self)
        sampler = build_sampler(self.sampler, model, "guide", self.max_batch_tokens)
        return LocalGuide(
            model, start.tokenizer, self.sampling, self.max_batch_tokens, sampler, self.template
        )


class LocalGuide:
    """A frozen causal model.

    Where its tokenizer is the policy's, token ids pass both ways and nothing is tokenized twice;
    otherwise text does. It reads a chat through its own chat template, where it has one.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        policy_tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        max_batch_tokens: int = 32_768,
        sampler: Sampler | None = None,
        template: str = _TEXT,
    ) -> None:
        """
        Args:
            max_batch_tokens: rows times positions of one decoding batch.
            sampler: where its tokens come from; default: the model itself.
            template: see `LocalGuideConfig`.
        """
        self.language_model = language_model
        self.sampling = sampling
        self.max_batch_tokens = max_batch_tokens
        self.sampler: Sampler = sampler or BuiltinSampler(language_model, "guide", max_batch_tokens)
        self.policy_codec = Codec(policy_tokenizer)
        self.shares_tokenizer = language_model.tokenizer.get_vocab() == policy_tokenizer.get_vocab()
        self._steering = template.removesuffix(_TEXT)
        self._template = guide_template(language_model.tokenizer, str(language_model.model.name_or_path))

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end its texts, in its own vocabulary."""
        return self.language_model.end_ids

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`. A prefix that is too long for the model loses its beginning."""
        if not requests:
            return []
        # Tokens of another vocabulary hold more or less text; the rest is cut after the splice.
        factor = 1.0 if self.shares_tokenizer else 1.5
        limits = [math.ceil(request.max_new_tokens * factor) for request in requests]
        read = [self._read(request, limit) for request, limit in zip(requests, limits, strict=True)]
        beginnings = [
            Beginning(prompt, written, limit, request.seed)
            for request, limit, (prompt, written) in zip(requests, limits, read, strict=True)
        ]
        with self.language_model.running():
            continuations = self.sampler.write(beginnings, self.sampling)
        return [
            Completion(
                text=self.language_model.decode(c.token_ids.tolist(), self.language_model.context(*before)),
                finished=c.finished,
                token_ids=tuple(c.token_ids.tolist()) if self.shares_tokenizer else None,
                sampled=len(c.token_ids),
            )
            for c, before in zip(continuations, read, strict=True)
        ]

    @torch.no_grad()
    def log_distribution(self, tokens: Tokens) -> Float[Tensor, "B T V"]:
        """See `ScoringGuide.log_distribution`.

        Raises:
            UserError: the model's vocabulary is not the policy's.
        """
        self.check_vocabulary()
        with self.language_model.running() as model:
            logits, _ = response_outputs(model, tokens.to(model.device))
        untruncated = Sampling(temperature=self.sampling.temperature)
        return log_distribution(logits, untruncated, ()).to(tokens.response_ids.device)

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        """See `TextScoringGuide.score`; at the guide's temperature.

        Tokens of the policy are scored as they are where they are the guide's too, other texts as the guide's tokenizer
        cuts them.
        """
        read = [self._given(request) for request in requests]
        with self.language_model.running() as model:
            texts = [(prompt, text.ids) for prompt, text in read]
            found = text_scores(model, texts, self.sampling.temperature, self.max_batch_tokens)
        return [text.pieces(logprobs) for (_, text), logprobs in zip(read, found, strict=True)]

    def _given(self, request: Request) -> tuple[list[int], GivenText]:
        """The prompt, without its beginning where it is too long for the model, and the text to score after it."""
        assert request.scored is not None, "asked for in the request"
        model, told = self.language_model, self._prompt(request)
        if self.shares_tokenizer and request.prompt_ids is not None and request.scored_ids:
            same = told == request.prompt
            prompt = self.policy_codec.inner(request.prompt_ids) if same else model.codec.encode_prompt(told)
            before = model.context(request.prompt_ids)
            # The end is that of the policy's, which may not be the only one.
            ids, end = list(request.scored_ids), request.scored_ids[-1]
            text = GivenText.of(
                model.codec, ids[: -1 if request.scores_end else None], before, request.scored
            )
        else:
            (prompt, text), end = given_text(model, told, request.scored), model.end_id
        if request.scores_end:
            text = text.with_end(len(request.scored), end)
        encodes = is_encoder_decoder(model.model)
        room = context_of(model.model.config, encoder=encodes) or sys.maxsize
        if not encodes:
            text = text.cut(room - 1)
            room = max(room - len(text.ids), 1)
        return model.as_prompt(prompt, room), text

    def check_vocabulary(self) -> None:
        """Refuse to score tokens of another vocabulary.

        Raises:
            UserError: names the field and what would be right.
        """
        if not self.shares_tokenizer:
            raise UserError(
                "'guide.model' has another vocabulary than the policy, and distillation compares their "
                "probabilities token by token: choose a guide with the policy's tokenizer, or an algorithm "
                "without the loss 'distillation'."
            )

    def _read(self, request: Request, limit: int) -> tuple[list[int], list[int]]:
        """The prompt, without its beginning where it is too long for the model, and what stands after it."""
        language_model, written = self.language_model, list(request.written_ids)
        codec, model = language_model.codec, language_model.model
        room = context_of(model.config, encoder=is_encoder_decoder(model)) or sys.maxsize
        told = self._prompt(request)
        if self.shares_tokenizer and request.prompt_ids is not None:
            # What the policy reads, which may be cut, in between what this model's tokenizer puts around it.
            same = told == request.prompt
            prompt = self.policy_codec.inner(request.prompt_ids) if same else codec.encode_prompt(told)
            # Its own template has written the turns that are over.
            written = written if same else written[request.told_tokens :]
        elif is_encoder_decoder(model):
            prompt, written = codec.encode_prompt(told), codec.encode(request.written)
        else:
            prompt, written = codec.encode_both(told, request.written), []
        if not is_encoder_decoder(model):
            room = max(room - limit - len(written), 1)
        return language_model.as_prompt(prompt, room), written

    def _prompt(self, request: Request) -> str:
        """The prompt's text: of a chat what the guide's own template, which may refuse it, makes of it, where it has one."""
        if not request.messages:
            return self._steering + request.prompt
        if self._template.there:
            columns = {} if request.sample is None else request.sample.columns
            return self._template.prompt(request.messages, columns)
        if not self.shares_tokenizer:
            warnings.warn(
                f"{self._template.owner} has no chat template, so it reads chats as the policy's template writes them: "
                "name a guide that was trained on chats if that is not meant.",
                stacklevel=2,
            )
        return request.prompt


def guide_template(tokenizer: PreTrainedTokenizerBase, name: str) -> ChatTemplate:
    """The chat template that a local guide of that name reads messages through."""
    return ChatTemplate(tokenizer, f"the guide '{name}'", "choose another 'guide.model'")
