"""Encoder-decoder models against plain forward passes of `transformers`, one row at a time, without padding.

Three ways of counting positions: T5 (relative), BART (learned, counted from the first column) and two
BERTs (learned, given). Log-probabilities agree to 1e-4 in float32; tokens agree exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from decoding_task import without_cache
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from conftest import sharpen
from rlgf.models.critic import build_critic
from rlgf.models.encoder_decoder import decoder_start
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.generate import Continuation, sample_continuations
from rlgf.models.sampling import Sampling, draw, sampling_logits, token_logprobs
from rlgf.types import pad

END = 1
TOLERANCE = 1e-4
LIMIT = 12
TOKENS: dict[str, Any] = {
    "vocab_size": 16,
    "pad_token_id": 0,
    "eos_token_id": END,
    "decoder_start_token_id": 0,
}


def tiny_t5() -> PreTrainedModel:
    """Another number of layers in the decoder than in the encoder."""
    config = T5Config(**TOKENS, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=2)
    return T5ForConditionalGeneration(config)


def tiny_bart() -> PreTrainedModel:
    config = BartConfig(
        **TOKENS,
        bos_token_id=2,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
    )
    model = BartForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 2
    model.generation_config.forced_eos_token_id = None
    return model


def tiny_berts() -> PreTrainedModel:
    """Of different widths, so that what the encoder says is projected."""
    sizes: dict[str, Any] = {
        "vocab_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    encoder = BertModel(BertConfig(**sizes, hidden_size=24), add_pooling_layer=False)
    decoder = BertLMHeadModel(BertConfig(**sizes, hidden_size=32, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 0, END, 0
    return model


@pytest.fixture(params=[tiny_t5, tiny_bart, tiny_berts], ids=["t5", "bart", "berts"], scope="module")
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    make: Callable[[], PreTrainedModel] = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sharpen(make().eval(), 3.0)


class Task:
    """Ragged prompts, some alike, and ragged beginnings of the response, with ragged limits."""

    def __init__(self, rows: int = 12, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 9, (rows,), generator=random).tolist()
        self.prompts = [torch.randint(16, (n,), generator=random) for n in lengths]
        self.prompts[4:6] = [self.prompts[0], self.prompts[0]]
        written = torch.randint(0, 4, (rows,), generator=random).tolist()
        self.written = [torch.randint(2, 16, (n,), generator=random) for n in written]
        self.limits = torch.randint(1, LIMIT + 1, (rows,), generator=random)
        self.uniforms = torch.rand(rows, LIMIT, generator=random)

    def prefix(self, model: PreTrainedModel, row: int) -> Tensor:
        return torch.cat([torch.tensor(decoder_start(model)), self.written[row]])

    def run(
        self, model: PreTrainedModel, rows: list[int] | None = None, **options: Any
    ) -> list[Continuation]:
        rows = list(range(len(self.prompts))) if rows is None else rows
        return sample_continuations(
            model,
            [self.prefix(model, i) for i in rows],
            self.limits[rows],
            self.uniforms[rows],
            options.pop("sampling", Sampling()),
            (END,),
            prompts=[self.prompts[i] for i in rows],
            **options,
        )

    def slowly(self, model: PreTrainedModel, row: int) -> Continuation:
        text, logprobs = self.prefix(model, row), []
        for step in range(int(self.limits[row])):
            with torch.no_grad():
                logits = model(input_ids=self.prompts[row][None], decoder_input_ids=text[None]).logits[:, -1]
            warped = sampling_logits(logits, torch.tensor([step]), Sampling(), (END,))
            token, logprob = draw(warped, self.uniforms[row, step : step + 1])
            text = torch.cat([text, token])
            logprobs.append(logprob.item())
            if token == END:
                break
        ids = text[len(self.prefix(model, row)) :]
        return Continuation(ids, torch.tensor(logprobs), bool(ids[-1] == END))


def assert_same(actual: list[Continuation], expected: list[Continuation]) -> None:
    assert [c.token_ids.tolist() for c in actual] == [c.token_ids.tolist() for c in expected]
    assert [c.finished for c in actual] == [c.finished for c in expected]
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=TOLERANCE, rtol=0)


@contextmanager
def encoded_rows(model: PreTrainedModel) -> Iterator[list[int]]:
    """How many prompts each pass of the encoder reads."""
    seen: list[int] = []
    encoder: Any = model.get_encoder()
    handle = encoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()


def test_what_stands_before_a_response() -> None:
    assert decoder_start(tiny_t5()) == [0]
    assert decoder_start(tiny_bart()) == [0, 2]
    assert decoder_start(tiny_berts()) == [0]


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_batch_equals_plain_forward_passes_row_by_row(model: PreTrainedModel, use_cache: bool) -> None:
    task = Task()
    slow = [task.slowly(model, row) for row in range(len(task.prompts))]
    assert any(c.finished for c in slow)
    assert len({t for c in slow for t in c.token_ids.tolist()}) > 8
    with nullcontext() if use_cache else without_cache(model):
        assert_same(task.run(model), slow)


def test_neither_order_nor_companions_nor_budget_change_the_texts(model: PreTrainedModel) -> None:
    task = Task()
    whole = task.run(model)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    assert_same(task.run(model, order), [whole[i] for i in order])
    assert_same(task.run(model, [3]), [whole[3]])
    assert_same(task.run(model, max_batch_tokens=40), whole)


def test_greedy_decoding_equals_generate(model: PreTrainedModel) -> None:
    task = Task()
    task.written = [torch.tensor([], dtype=torch.long)] * 12
    task.limits[:] = LIMIT
    for row, result in enumerate(task.run(model, sampling=Sampling(top_k=1))):
        start = torch.tensor(decoder_start(model))
        config = copy.deepcopy(model.generation_config)
        config.forced_bos_token_id = None  # it stands in `start` already
        generated = model.generate(
            task.prompts[row][None],
            attention_mask=torch.ones_like(task.prompts[row])[None],
            decoder_input_ids=start[None],
            generation_config=config,
            do_sample=False,
            max_new_tokens=LIMIT,
            eos_token_id=END,
            pad_token_id=0,
            use_cache=False,  # transformers cannot size T5's where the decoder has more layers
        )
        assert result.token_ids.tolist() == generated[0, len(start) :].tolist()


def test_the_encoder_reads_a_prompt_once(model: PreTrainedModel) -> None:
    task = Task()
    task.written = [torch.tensor([3])] * 12
    with encoded_rows(model) as seen:
        task.run(model)
    assert seen == [10]  # of 12 rows three share a prompt


def tokens_of(prompts: list[Tensor], responses: list[Tensor], filler: int, extra: int) -> Tokens:
    """With ``extra`` further columns of padding on either side."""
    wide = [*prompts, torch.zeros(max(map(len, prompts)) + extra, dtype=torch.long)]
    long = [*responses, torch.zeros(max(map(len, responses)) + extra, dtype=torch.long)]

    def masks(rows: list[Tensor]) -> list[Tensor]:
        return [torch.ones(len(row), dtype=torch.bool) for row in rows]

    return Tokens(
        pad(wide, filler, left=True)[:-1],
        pad(masks(wide), False, left=True)[:-1],
        pad(long, filler)[:-1],
        pad(masks(long), False)[:-1],
    )


@pytest.mark.parametrize(("filler", "extra"), [(0, 0), (END, 0), (9, 3)])
def test_scores_equal_plain_forward_passes_for_every_padding_and_order(
    model: PreTrainedModel, filler: int, extra: int
) -> None:
    task = Task()
    responses = [c.token_ids for c in task.run(model)]
    plain = []
    for prompt, response in zip(task.prompts, responses, strict=True):
        ids = torch.cat([torch.tensor(decoder_start(model)), response[:-1]])
        with torch.no_grad():
            output = model(input_ids=prompt[None], decoder_input_ids=ids[None], output_hidden_states=True)
        logprobs = output.logits[0, -len(response) :].log_softmax(dim=-1)
        hidden = output.decoder_hidden_states[-1][0, -len(response) :]
        plain.append((logprobs.gather(-1, response[:, None])[:, 0], hidden))
    for order in (list(range(12)), [7, 0, 11, 4, 5, 2]):
        tokens = tokens_of([task.prompts[i] for i in order], [responses[i] for i in order], filler, extra)
        with torch.no_grad():
            logits, hidden = response_outputs(model, tokens, hidden=True)
        scored = token_logprobs(logits, tokens.response_ids, Sampling(), (END,))
        assert hidden is not None
        for row, i in enumerate(order):
            n = len(responses[i])
            torch.testing.assert_close(scored[row, :n], plain[i][0], atol=TOLERANCE, rtol=0)
            torch.testing.assert_close(hidden[row, :n], plain[i][1], atol=TOLERANCE, rtol=1e-4)


def test_log_probs_kept_from_sampling_equal_a_scoring_pass(model: PreTrainedModel) -> None:
    task = Task()
    task.written = [torch.tensor([], dtype=torch.long)] * 12
    results = task.run(model)
    tokens = tokens_of(task.prompts, [c.token_ids for c in results], 9, 2)
    with torch.no_grad():
        logits, _ = response_outputs(model, tokens)
    scored = token_logprobs(logits, tokens.response_ids, Sampling(), (END,))
    for row, result in enumerate(results):
        torch.testing.assert_close(
            scored[row, : len(result.token_ids)], result.logprobs, atol=TOLERANCE, rtol=0
        )


@pytest.mark.parametrize("kind", ["head", "separate"])
def test_a_critic_values_the_states_of_the_decoder(model: PreTrainedModel, kind: str) -> None:
    task = Task()
    responses = [c.token_ids for c in task.run(model)]
    tokens = tokens_of(task.prompts, responses, 0, 1)
    critic = build_critic(kind, model)
    with torch.no_grad():
        torch.nn.init.normal_(critic.head.weight)  # both kinds have one
        _, hidden = response_outputs(model, tokens, hidden=True)
        values = critic(tokens, hidden)
        expected = (hidden @ critic.head.weight.T)[..., 0]
    assert values.shape == tokens.response_ids.shape
    torch.testing.assert_close(
        values[tokens.response_mask], expected[tokens.response_mask], atol=1e-3, rtol=1e-4
    )
