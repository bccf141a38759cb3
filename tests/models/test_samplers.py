"""What every sampler must do, whichever engine is behind it; vLLM's run where it is installed (`make test-vllm`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from conftest import sharpen
from engines import NEEDS_VLLM, desk_of, serving
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import Beginning, Sampler, SamplerConfig, bring_weights, build_sampler
from rlgf.models.sampling import Sampling, sampling_logits
from toys import letter_tokenizer

LETTERS = "abcdefghijk"
END = len(LETTERS)
ROWS = 16
"""Of the head: more than there are tokens, as where a vocabulary is padded."""
TOLERANCE = 1e-4
"""In nats, between an engine's log-probabilities in float32 and those of a pass of the model."""


def tiny_model(seed: int = 0, letters: str = LETTERS) -> LanguageModel:
    """A Llama with random weights over letters, with heads as wide as vLLM's smallest on a CPU."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=ROWS,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=64,
                bos_token_id=len(letters),
                eos_token_id=len(letters),
                pad_token_id=len(letters),
            )
        )
    return LanguageModel(sharpen(model, 2.0), letter_tokenizer(letters))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model()


SAMPLERS = [
    "builtin",
    pytest.param("vllm", marks=NEEDS_VLLM),
    "builtin behind a server",
    pytest.param("vllm behind a server", marks=NEEDS_VLLM),
]


@pytest.fixture(scope="module", params=SAMPLERS)
def sampler(request: pytest.FixtureRequest, model: LanguageModel) -> Iterator[Sampler]:
    engine, _, behind = request.param.partition(" ")
    config = SamplerConfig(engine=engine, cache_gib=0.05)
    if not behind:
        yield build_sampler(config, model, "policy", max_batch_tokens=4096)
        return
    # Other weights, until it is brought the model's.
    with serving(desk_of(tiny_model(2), engine)) as url:
        served = build_sampler(config.model_copy(update={"server": url}), model, "policy", 4096, 64)
        bring_weights(served)
        yield served


def beginnings(count: int, limit: int = 12, written: Sequence[int] = ()) -> list[Beginning]:
    """Prompts of one to three letters, each with a seed of its own."""
    return [
        Beginning([i % END, (3 * i) % END, 1][: 1 + i % 3], list(written), limit, seed=i)
        for i in range(count)
    ]


def expected_logprobs(
    model: LanguageModel, one: Beginning, found: Continuation, sampling: Sampling
) -> Tensor:
    """Of the tokens that were written, by one pass over the whole text."""
    before, ids = [*one.prompt, *one.written], found.token_ids.tolist()
    with torch.no_grad():
        logits = model.model(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1, : END + 1]
    positions = one.position + torch.arange(len(ids))
    logits = sampling_logits(logits, positions, sampling.untruncated, (END,))
    return logits.log_softmax(-1)[torch.arange(len(ids)), found.token_ids]


def test_it_is_a_sampler(sampler: Sampler) -> None:
    assert isinstance(sampler, Sampler)


def test_texts_stop_at_their_first_end_or_their_limit(sampler: Sampler) -> None:
    asked = [Beginning([i % END], [], 1 + i % 9, seed=i) for i in range(64)]
    found = sampler.write(asked, Sampling())
    for one, text in zip(asked, found, strict=True):
        ids = text.token_ids.tolist()
        assert END not in ids[:-1]
        assert text.finished == (ids[-1] == END)
        assert text.finished or len(ids) == one.limit
    assert {text.finished for text in found} == {True, False}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, min_tokens=6)])
def test_log_probabilities_are_those_of_the_distribution_that_was_drawn_from(
    model: LanguageModel, sampler: Sampler, sampling: Sampling
) -> None:
    asked = beginnings(24)
    for one, text in zip(asked, sampler.write(asked, sampling), strict=True):
        expected = expected_logprobs(model, one, text, sampling)
        torch.testing.assert_close(text.logprobs, expected, atol=TOLERANCE, rtol=0)


def test_the_minimum_length_counts_from_the_response(sampler: Sampler) -> None:
    """Two tokens are there already, so an end may come three later."""
    asked = [Beginning([i % END], [1, 2], 12, seed=i, position=2) for i in range(64)]
    lengths = [len(text.token_ids) for text in sampler.write(asked, Sampling(min_tokens=5))]
    assert min(lengths) == 4


def test_a_text_goes_on_from_what_is_written(model: LanguageModel, sampler: Sampler) -> None:
    asked = beginnings(12, written=[4, 7, 2])
    for one, text in zip(asked, sampler.write(asked, Sampling()), strict=True):
        expected = expected_logprobs(model, one, text, Sampling())
        torch.testing.assert_close(text.logprobs, expected, atol=TOLERANCE, rtol=0)


def test_a_text_depends_on_its_own_seed_alone(sampler: Sampler) -> None:
    asked = beginnings(12)
    together = [text.token_ids.tolist() for text in sampler.write(asked, Sampling())]
    backwards = [text.token_ids.tolist() for text in sampler.write(asked[::-1], Sampling())][::-1]
    alone = [sampler.write([one], Sampling())[0].token_ids.tolist() for one in asked]
    assert together == backwards == alone
    others = [Beginning(one.prompt, one.written, one.limit, one.seed + 100) for one in asked]
    assert [text.token_ids.tolist() for text in sampler.write(others, Sampling())] != together


def test_the_most_probable_tokens_are_those_of_the_model(model: LanguageModel, sampler: Sampler) -> None:
    asked = beginnings(12)
    for one, text in zip(asked, sampler.write(asked, Sampling(top_k=1)), strict=True):
        ids = list(one.prompt)
        for token in text.token_ids.tolist():
            with torch.no_grad():
                logits = model.model(torch.tensor([ids])).logits[0, -1, : END + 1]
            assert token == int(logits.argmax())
            ids.append(token)


def test_tokens_come_as_often_as_they_are_likely_and_none_from_the_padding(
    model: LanguageModel, sampler: Sampler
) -> None:
    """3,000 first tokens: no share is off by more than five standard errors."""
    count = 3000
    found = sampler.write([Beginning([2, 5], [], 1, seed=i) for i in range(count)], Sampling())
    shares = torch.bincount(torch.cat([text.token_ids for text in found]), minlength=ROWS) / count
    with torch.no_grad():
        expected = model.model(torch.tensor([[2, 5]])).logits[0, -1, : END + 1].softmax(-1)
    assert not shares[END + 1 :].any()
    errors = (expected * (1 - expected) / count).sqrt()
    assert ((shares[: END + 1] - expected).abs() < 5 * errors).all()


def test_it_follows_the_weights(model: LanguageModel, sampler: Sampler) -> None:
    """As an optimizer changes them: in place, between two calls."""
    asked, before = beginnings(12), copy.deepcopy(model.model.state_dict())
    first = [text.token_ids.tolist() for text in sampler.write(asked, Sampling())]
    try:
        with torch.no_grad():
            for parameter, other in zip(
                model.model.parameters(), tiny_model(1).model.parameters(), strict=True
            ):
                parameter.copy_(other)
        bring_weights(sampler)
        after = sampler.write(asked, Sampling())
        for one, text in zip(asked, after, strict=True):
            expected = expected_logprobs(model, one, text, Sampling())
            torch.testing.assert_close(text.logprobs, expected, atol=TOLERANCE, rtol=0)
        assert [text.token_ids.tolist() for text in after] != first
    finally:
        model.model.load_state_dict(before)
        bring_weights(sampler)
    assert [text.token_ids.tolist() for text in sampler.write(asked, Sampling())] == first
