"""Trying out how a model can be run, against plain passes over one short text at a time."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.errors import UserError
from rlgf.models.abilities import Abilities, computes_in_half, declare, found_by, lean, mixed_precision, takes
from rlgf.models.encoder_decoder import decoder_start, is_encoder_decoder
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.generate import sample_continuations
from rlgf.models.kv_cache import cache_argument, keeps_all
from rlgf.models.parts import under_head
from rlgf.models.sampling import Sampling
from rlgf.models.vocabulary import read_logits
from rlgf.models.weights import rewritten
from rlgf.types import padded

_PROMPTS = (9, 6, 6)
"""Tokens of each text before the written ones: unequal, and the last two are the same text, which is read once; so
a row leaves another also where only texts of one length are run together."""
LIMITS = (2, 4, 3)
"""Tokens that are written: one row leaves the batch before the others."""


@dataclass(frozen=True)
class TrialText:
    """What stands before a response, the beginning of one, and what an encoder reads."""

    before: Int[Tensor, "_"]
    begun: Int[Tensor, "_"]
    prompt: Int[Tensor, "_"] | None

    @property
    def prefix(self) -> Int[Tensor, "_"]:
        return torch.cat([self.before, self.begun])


def trial_texts(model: PreTrainedModel) -> tuple[list[TrialText], Int[Tensor, "_"]]:
    """Texts of unequal length, and what may follow one."""
    ids = _ordinary_ids(model)
    generator = torch.Generator().manual_seed(0)
    drawn = [
        ids[torch.randint(len(ids), (count,), generator=generator)] for count in (*_PROMPTS, max(LIMITS))
    ]
    *prompts, _, more = drawn
    prompts.append(prompts[-1])
    nothing = more[:0]
    if not is_encoder_decoder(model):
        return [TrialText(prompt, nothing, None) for prompt in prompts], more
    start = torch.tensor(decoder_start(model))
    return [
        TrialText(start, prompt[:begun], prompt) for begun, prompt in zip((0, 1, 1), prompts, strict=True)
    ], more


def _ordinary_ids(model: PreTrainedModel) -> Int[Tensor, "N"]:
    """Ids of tokens without a meaning of their own for the model, such as an image's place."""
    embeddings = model.get_input_embeddings()
    assert embeddings is not None, "it has no embeddings of tokens"
    special = {value for name, value in _settings(model.config.to_dict()) if "token" in name}
    weight = embeddings.weight
    assert isinstance(weight, Tensor)
    count = min(len(weight), 1024)
    return torch.tensor([i for i in range(count) if i not in special])


def _settings(config: dict[Any, Any]) -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration and of those within it."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value)
        elif isinstance(value, int):
            yield str(name), value


_EXACT, _ROUNDED = 2e-4, 0.1
"""How far log-probabilities may be off, as a share of their spread over the vocabulary, in float32 and in
lower precision. Rounding is off by 1e-5 and 0.02, a text that is padded wrongly by 0.1 to 1."""
_LARGE = 20.0
"""The spread of logits that are large enough for a cap on them to show: Gemma 2 has one at 30."""
_LEAST = -50.0
"""A log-probability from which on a token is as good as impossible; some models give -inf."""


@found_by
def try_out(model: PreTrainedModel) -> Abilities:
    """Find the fastest way to run a model that gives the log-probabilities of plain passes, and keep it.

    A plain pass reads one text, without padding, cache or positions, as everybody runs a model. The trial
    takes some thirty passes over a few tokens.

    Raises:
        UserError: there is no such way, or plain passes themselves disagree.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            able = _Trial(model).run()
    except BaseException:
        declare(model, None)
        raise
    finally:
        model.train(training)
    declare(model, able)
    return able


def check_trainable(model: PreTrainedModel) -> None:
    """Try out whether gradients flow back to a model's weights; it has none afterwards.

    Raises:
        UserError: its backward pass fails, as Reformer's does where dropout is off, or gradients would stop halfway.
    """
    if rewritten(model):
        raise _refusal(
            model,
            "was run before it came here, which rewrote its 4-bit weights for inference, and no gradient comes "
            "through them: give it as it was loaded",
        )
    texts, more = trial_texts(model)
    prompt = (texts[0].before if texts[0].prompt is None else texts[0].prompt)[None]
    tokens = Tokens(prompt, torch.ones_like(prompt).bool(), more[None], torch.ones_like(more).bool()[None])
    try:
        logits, _ = response_outputs(model, tokens.to(model.device))
        logits.float().logsumexp(dim=-1).sum().backward()
    except (AssertionError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _refusal(model, f"cannot be trained ({_first_line(error)})") from error
    finally:
        model.zero_grad()


class _Trial:
    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        exact = model.device.type == "cpu" and not computes_in_half(model.device)
        self.precise = exact and model.dtype == torch.float32

    def run(self) -> Abilities:
        self._check_plain()
        failure: Exception | None = None
        for able in self._ways():
            declare(self.model, able)
            try:
                if self._agrees():
                    return self._sharing(able)
            except Exception as error:
                failure = error
        raise _refusal(
            self.model,
            "gives other log-probabilities where it writes a text than where it reads it"
            + (f" ({_first_line(failure)})" if failure is not None else ""),
        )

    def _check_plain(self) -> None:
        """
        Raises:
            UserError: plain passes fail, disagree with each other, or know of tokens that are still to come.
        """
        try:
            self.texts, self.more = trial_texts(self.model)
            text = self.texts[0]
            whole = torch.cat([text.prefix, self.more])
            half = len(whole) // 2
            first, second = self._plain(text, whole), self._plain(text, whole)
            before = self._plain(text, whole[:half])
        except UserError:
            raise
        except Exception as error:
            raise _refusal(self.model, f"cannot be run on text alone ({_first_line(error)})") from error
        if first.isnan().any():
            raise _refusal(
                self.model, "gives numbers that are not finite: its weights are damaged or too large"
            )
        if not self._equal(second, first):
            raise _refusal(self.model, "gives other log-probabilities each time that it reads the same text")
        if not self._equal(before, first[:half]):
            raise _refusal(
                self.model,
                "sees the tokens that follow, as encoders do, so it cannot write text token by token: choose a "
                "causal or an encoder-decoder model",
            )

    def _sharing(self, able: Abilities) -> Abilities:
        """The same, with a plain head and with shared prompts where that works too."""
        able = replace(able, plain_head=self._has_plain_head())
        if not able.cache or is_encoder_decoder(self.model) or not keeps_all(self.model):
            return able
        try:
            declare(self.model, replace(able, shared_prompts=True))
            return replace(able, shared_prompts=self._agrees())
        except Exception:
            return able

    def _has_plain_head(self) -> bool:
        """Whether logits are the head's of the last hidden states, for large ones too: some models cap them."""
        tokens = self._tokens([torch.cat([text.begun, self.more]) for text in self.texts])
        logits, _ = response_outputs(self.model, tokens)
        louder = _LARGE / float(logits[logits.isfinite()].std().clamp(min=1e-12))

        def enlarge(_module: object, _args: object, output: Any) -> None:
            output[0].mul_(louder)

        handle = under_head(self.model).register_forward_hook(enlarge)
        try:
            logits, hidden = response_outputs(self.model, tokens, hidden=True)
            with mixed_precision(self.model.device):
                found = read_logits(self.model, self.model.get_output_embeddings()(hidden))
        except (TypeError, RuntimeError):  # there is no head, or it does not take the states as they are
            return False
        finally:
            handle.remove()
        found, logits = (one.float().nan_to_num(neginf=0.0) for one in (found, logits))
        return self._small((found - logits).square().mean(dim=-1).sqrt().flatten() / _LARGE)

    def _ways(self) -> Iterator[Abilities]:
        """Ways to run the model, the fastest first."""
        encoders = (True, False) if is_encoder_decoder(self.model) else (True,)
        caches = (False,) if cache_argument(self.model) is None else (True, False)
        first = self._first_position()
        for cache, step_mask, prompts, padding in itertools.product(
            caches, (True, False), encoders, (True, False)
        ):
            if step_mask or (cache and prompts):
                yield Abilities(padding, prompts, cache, step_mask, False, False, first)

    def _first_position(self) -> int | None:
        """The position at which a text begins for the model, where it can be told."""
        if is_encoder_decoder(self.model):
            decoder = inspect.signature(self.model.get_decoder().forward).parameters
            name, told = "decoder_position_ids", "position_ids" in decoder
        else:
            name, told = "position_ids", takes(self.model, "position_ids")
        text, whole = self.texts[0], torch.cat([self.texts[0].prefix, self.more])
        plain = self._plain(text, whole)
        padding = getattr(self.model.config.get_text_config(decoder=True), "pad_token_id", None)
        # RoBERTa and its kin count from after the number of their padding token.
        for first in (0, None if padding is None else padding + 1):
            if told and first is not None:
                positions = torch.arange(len(whole), device=self.model.device)[None] + first
                try:
                    if self._equal(self._plain(text, whole, **{name: positions}), plain):
                        return first
                except Exception:
                    # It wants several positions for each token, say, and counts better itself.
                    continue
        return None

    def _agrees(self) -> bool:
        """Whether writing and reading in the way that is declared give what plain passes give."""
        results = sample_continuations(
            self.model,
            [text.prefix for text in self.texts],
            torch.tensor(LIMITS),
            torch.linspace(0.05, 0.95, len(LIMITS) * max(LIMITS)).view(len(LIMITS), -1),
            Sampling(),
            (),
            prompts=[text.prompt for text in self.texts if text.prompt is not None] or None,
        )
        written = [torch.cat([text.begun, r.token_ids]) for text, r in zip(self.texts, results, strict=True)]
        read, _ = response_outputs(self.model, self._tokens(written))
        for row, (text, result) in enumerate(zip(self.texts, results, strict=True)):
            ids = result.token_ids
            plain = self._plain(text, torch.cat([text.prefix, ids]))[len(text.before) - 1 : -1]
            if not self._equal(_logprobs(read[row, : len(plain)]), plain):
                return False
            plain = plain[len(text.begun) :]
            chosen = plain.gather(-1, ids.to(plain.device)[:, None])[:, 0]
            off = (result.logprobs.to(plain.device).clamp(min=_LEAST) - chosen).abs()
            if not self._small(off / _spread(plain)):
                return False
        return True

    def _tokens(self, written: Sequence[Tensor]) -> Tokens:
        prompts = [text.before if text.prompt is None else text.prompt for text in self.texts]
        # What stands in the padding must not matter, and a padding token's own embedding may be 0.
        before = padded(prompts, int(self.more[0]), left=True)
        return Tokens(*before, *padded(written, 0)).to(self.model.device)

    def _plain(self, text: TrialText, ids: Int[Tensor, "L"], **more: Any) -> Float[Tensor, "L V"]:
        """Log-probabilities after each of ``ids`` from a plain pass over them."""
        device = self.model.device
        given = {"input_ids": ids}
        if text.prompt is not None:
            given = {"input_ids": text.prompt, "decoder_input_ids": ids}
        more |= lean(self.model, use_cache=False)
        with mixed_precision(device):
            output = self.model(**{name: value[None].to(device) for name, value in given.items()}, **more)
        return _logprobs(read_logits(self.model, output.logits)[0])

    def _equal(self, one: Float[Tensor, "L V"], other: Float[Tensor, "L V"]) -> bool:
        return self._small((one - other).square().mean(dim=-1).sqrt() / _spread(other))

    def _small(self, off: Float[Tensor, "L"]) -> bool:
        """Whether shares of the spread are within rounding; NaN is not."""
        if self.precise:
            return bool((off < _EXACT).all())
        # One token whose experts are chosen by a hair may be far off.
        return bool(off.median() < _ROUNDED)


def _logprobs(logits: Float[Tensor, "L V"]) -> Float[Tensor, "L V"]:
    return logits.float().log_softmax(dim=-1).clamp(min=_LEAST)


def _spread(logprobs: Float[Tensor, "L V"]) -> Float[Tensor, "L"]:
    return logprobs.std(dim=-1).clamp(min=1e-12)


def _refusal(model: PreTrainedModel, reason: str) -> UserError:
    name = model.config.name_or_path
    if model.get_output_embeddings() is None:
        reason = "has no head that writes tokens: load it with AutoModelForCausalLM, ...Seq2SeqLM or ...ImageTextToText"
    return UserError(f"model{f' {name!r}' if name else ''} ({type(model).__name__}) {reason}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
