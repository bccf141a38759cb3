"""Scoring passes against plain forward passes and against the log-probabilities kept from sampling; a prompt that several responses follow is read once."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from decoding_task import END, SAMPLINGS, TOLERANCE, Task, assert_same
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BartConfig, BartForCausalLM, PreTrainedModel

from conftest import sharpen
from rlgf.models.abilities import abilities, declare
from rlgf.models.critic import build_critic
from rlgf.models.forward import Tokens, base_hidden, length_batches, response_outputs, trunk_of
from rlgf.models.generate import Continuation, sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling, token_logprobs
from rlgf.types import pad


def teacher_forced(
    model: PreTrainedModel, prefixes: list[Tensor], results: list[Continuation], filler: int
) -> tuple[Tokens, Tensor]:
    """One scoring pass over prefixes padded on the left and continuations padded on the right."""
    tokens = Tokens(
        pad(prefixes, filler, left=True),
        pad([torch.ones_like(p, dtype=torch.bool) for p in prefixes], False, left=True),
        pad([c.token_ids for c in results], filler),
        pad([torch.ones_like(c.token_ids, dtype=torch.bool) for c in results], False),
        tuple(c.kept for c in results),
    )
    with torch.no_grad():
        logits, _ = response_outputs(model, tokens)
    return tokens, logits


@pytest.mark.parametrize("filler", [END, 9])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_log_probs_kept_from_sampling_equal_a_scoring_pass(
    any_model: PreTrainedModel, sampling: Sampling, filler: int
) -> None:
    task = Task()
    task.first_positions[:] = 0
    results = task.run(any_model, sampling)
    tokens, logits = teacher_forced(any_model, task.prefixes, results, filler)
    cut = tokens.kept_mask(logits.shape[-1])
    assert (cut is not None) == sampling.truncates
    scored = token_logprobs(logits, tokens.response_ids, sampling, (END,), cut)
    for row, result in enumerate(results):
        kept = scored[row, : len(result.token_ids)]
        torch.testing.assert_close(kept, result.logprobs, atol=TOLERANCE, rtol=0)


def test_a_scoring_pass_equals_plain_forward_passes_row_by_row(any_model: PreTrainedModel) -> None:
    task = Task()
    results = task.run(any_model)
    tokens, logits = teacher_forced(any_model, task.prefixes, results, END)
    assert logits.shape[:2] == tokens.response_ids.shape
    for row, (prefix, result) in enumerate(zip(task.prefixes, results, strict=True)):
        with torch.no_grad():
            plain = any_model(torch.cat([prefix, result.token_ids])[None]).logits[0]
        n = len(result.token_ids)
        torch.testing.assert_close(logits[row, :n], plain[len(prefix) - 1 : -1], atol=TOLERANCE, rtol=1e-4)


def test_a_model_whose_pad_token_is_its_end_of_text(language_model: LanguageModel) -> None:
    """Prompts of real text, one of which holds the end-of-text token itself."""
    model, end_id = language_model.model, language_model.end_id
    assert end_id == language_model.tokenizer.pad_token_id
    texts = ["The film was a joy", "bored", "She plays the part with wit, and"]
    prefixes = [torch.tensor(language_model.encode(text)) for text in texts]
    prefixes.append(torch.cat([torch.tensor([end_id]), prefixes[1], torch.tensor([end_id]), prefixes[0]]))
    limits = torch.tensor([12, 7, 12, 9])
    uniforms = torch.rand(4, 12, generator=torch.Generator().manual_seed(0))
    uniforms[:, 5] = 0.0
    results = sample_continuations(model, prefixes, limits, uniforms, Sampling(), (end_id,))
    alone = [
        sample_continuations(model, [p], limits[i : i + 1], uniforms[i : i + 1], Sampling(), (end_id,))[0]
        for i, p in enumerate(prefixes)
    ]
    assert_same(results, alone)
    assert [c.finished for c in results] == [True] * 4
    assert all(c.token_ids[-1] == end_id for c in results)

    tokens, logits = teacher_forced(model, prefixes, results, end_id)
    scored = token_logprobs(logits, tokens.response_ids, Sampling(), (end_id,))
    for row, result in enumerate(results):
        kept = scored[row, : len(result.token_ids)]
        torch.testing.assert_close(kept, result.logprobs, atol=TOLERANCE, rtol=0)


PROMPTS = [[3, 5, 7, 9, 11, 2, 4], [8, 1, 6], [12, 13, 14, 15, 1, 2, 3, 4, 5, 6]]
OF = [0, 1, 0, 2, 0, 1, 2, 2]


@pytest.fixture(scope="module")
def tiny_bart() -> PreTrainedModel:
    """As `tiny_gpt2`, with a trunk that takes whatever it is given and hands it on."""
    sizes = {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sharpen(
            BartForCausalLM(BartConfig(vocab_size=16, max_position_embeddings=64, **sizes, **ends))
        )


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    found: PreTrainedModel = copy.deepcopy(request.getfixturevalue(request.param))
    assert abilities(found).shared_prompts
    return found


def tokens() -> Tokens:
    random = torch.Generator().manual_seed(0)
    prompts = [torch.tensor(PROMPTS[i]) for i in OF]
    responses = [torch.randint(16, (n,), generator=random) for n in (4, 1, 5, 2, 3, 5, 1, 4)]
    return Tokens(
        pad(prompts, 9, left=True),
        pad([torch.ones_like(one, dtype=torch.bool) for one in prompts], False, left=True),
        pad(responses, 9),
        pad([torch.ones_like(one, dtype=torch.bool) for one in responses], False),
    )


def apart(model: PreTrainedModel) -> PreTrainedModel:
    """A copy that reads every prompt anew."""
    found = copy.deepcopy(model)
    declare(found, replace(abilities(model), shared_prompts=False))
    return found


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_logits_states_and_gradients_are_the_same(model: PreTrainedModel) -> None:
    batch, other = tokens(), apart(model)
    weights = torch.randn(*batch.response_ids.shape, 16, generator=torch.Generator().manual_seed(1))
    outputs = []
    for one in (model, other):
        logits, hidden = response_outputs(one, batch, hidden=True)
        assert hidden is not None
        masked = logits.log_softmax(dim=-1)[batch.response_mask], hidden[batch.response_mask]
        ((masked[0] * weights[batch.response_mask]).sum() + masked[1].square().mean()).backward()
        outputs.append(masked)
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    expected_gradients = gradients(other)
    assert gradients(model).keys() == expected_gradients.keys()
    for name, gradient in gradients(model).items():
        scale = float(expected_gradients[name].abs().max())
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-4 * scale + 1e-5, rtol=0)


def test_values_and_their_gradients_are_the_same(model: PreTrainedModel) -> None:
    batch = tokens()
    critic = build_critic("separate", model)
    with torch.no_grad():
        critic.head.weight.fill_(0.1)
    other = copy.deepcopy(critic)
    declare(other.trunk, replace(abilities(model), shared_prompts=False))
    found, expected = (one(batch, None)[batch.response_mask] for one in (critic, other))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found.square().sum().backward()
    expected.square().sum().backward()
    for name, gradient in gradients(critic).items():
        scale = float(gradients(other)[name].abs().max())
        torch.testing.assert_close(gradient, gradients(other)[name], atol=1e-4 * scale + 1e-5, rtol=0)


@pytest.mark.parametrize("name", ["tiny_gpt2", "tiny_bart"])
def test_the_states_of_a_trunk_are_those_under_the_head(name: str, request: pytest.FixtureRequest) -> None:
    model = copy.deepcopy(request.getfixturevalue(name))
    batch = tokens()
    assert abilities(model).shared_prompts
    _, expected = response_outputs(apart(model), batch, hidden=True)
    assert expected is not None
    found, there = base_hidden(trunk_of(model), batch, ()), batch.response_mask
    torch.testing.assert_close(found[there], expected[there], atol=1e-4, rtol=1e-4)


def test_each_prompt_is_read_once(model: PreTrainedModel) -> None:
    positions: list[int] = []
    embeddings = model.get_input_embeddings()
    assert embeddings is not None
    embeddings.register_forward_pre_hook(lambda _module, args: positions.append(args[0].numel()))
    batch = tokens()
    response_outputs(model, batch)
    assert positions == [len(PROMPTS) * (10 - 1), batch.response_ids.numel()]


@pytest.mark.parametrize(
    ("of", "why"),
    [([0, 1, 2], "no two are equal"), ([1], "there is but one"), ([0, 1, 1, 2], "so little is shared")],
)
def test_one_pass_is_enough_where(of: list[int], why: str, model: PreTrainedModel) -> None:
    prompts = [torch.tensor(PROMPTS[i]) for i in of]
    responses = torch.ones(len(of), 30, dtype=torch.long)
    masks = [torch.ones_like(one, dtype=torch.bool) for one in prompts]
    batch = Tokens(
        pad(prompts, 9, left=True), pad(masks, False, left=True), responses, torch.ones_like(responses).bool()
    )
    assert batch.shared_prompts() is None, why


def test_a_prompt_of_one_token_is_nothing_to_read_first(model: PreTrainedModel) -> None:
    batch = tokens()
    short = replace(batch, prompt_mask=batch.prompt_mask.clone())
    short.prompt_mask[1, :-1] = False
    assert short.shared_prompts() is None
    assert response_outputs(model, short)[0].isfinite().all()


LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 100))
def test_every_row_comes_once_and_no_batch_is_over_its_budget(rows: list[tuple[int, int]], most: int) -> None:
    left, right = (torch.tensor(column) for column in zip(*rows, strict=True))
    batches = [batch.tolist() for batch in length_batches(left, right, most)]
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(len(rows)))
    totals = [sum(rows[row]) for row in order]
    assert totals == sorted(totals, reverse=True)
    for batch in batches:
        widest = max(rows[row][0] for row in batch) + max(rows[row][1] for row in batch)
        assert len(batch) == 1 or len(batch) * widest <= most


def test_as_many_rows_as_fit_are_one_batch() -> None:
    same = torch.full((5,), 4)
    assert [len(batch) for batch in length_batches(same, same, 16)] == [2, 2, 1]
    assert [len(batch) for batch in length_batches(same, same, 10**6)] == [5]
