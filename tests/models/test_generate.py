"""Decoding in batches against a plain forward pass over one row at a time, without padding or cache."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from decoding_task import END, LIMIT, SAMPLINGS, Task, assert_same, without_cache
from transformers import PreTrainedModel

from rlgf.models.generate import sample_continuations
from rlgf.models.sampling import Sampling


def test_the_task_covers_what_it_should(tiny_gpt2: PreTrainedModel) -> None:
    task = Task()
    results = task.run(tiny_gpt2)
    assert any(c.finished for c in results)
    assert not all(c.finished for c in results)
    assert len({len(c.token_ids) for c in results}) > 5
    assert any(END in prefix for prefix in task.prefixes)
    assert len({t for c in results for t in c.token_ids.tolist()}) > 10


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_batch_equals_plain_forward_passes_row_by_row(
    any_model: PreTrainedModel, sampling: Sampling
) -> None:
    task = Task()
    slow = [task.slowly(any_model, row, sampling, (END,)) for row in range(len(task.prefixes))]
    assert_same(task.run(any_model, sampling), slow)
    with without_cache(any_model):
        assert_same(task.run(any_model, sampling), slow)


def test_without_an_end_of_text_every_row_runs_to_its_limit(any_model: PreTrainedModel) -> None:
    task = Task()
    results = task.run(any_model, end_ids=())
    assert_same(results, [task.slowly(any_model, row, Sampling(), ()) for row in range(len(task.prefixes))])
    assert [len(c.token_ids) for c in results] == task.limits.tolist()
    assert not any(c.finished for c in results)
    assert any(END in c.token_ids for c in results)


@pytest.mark.parametrize("max_batch_tokens", [1, 40, 75, 200])
def test_the_token_budget_does_not_change_the_texts(
    any_model: PreTrainedModel, max_batch_tokens: int
) -> None:
    task = Task()
    assert_same(task.run(any_model, max_batch_tokens=max_batch_tokens), task.run(any_model))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_change_the_texts(any_model: PreTrainedModel, seed: int) -> None:
    task = Task()
    straight = task.run(any_model)
    order = torch.randperm(len(straight), generator=torch.Generator().manual_seed(seed)).tolist()
    assert_same(task.run(any_model, rows=order), [straight[i] for i in order])


@pytest.mark.parametrize("rows", [[3], [0, 13], [5, 1, 9, 2, 7]])
def test_companions_do_not_change_a_rows_text(any_model: PreTrainedModel, rows: list[int]) -> None:
    task = Task()
    together = task.run(any_model)
    assert_same(task.run(any_model, rows=rows), [together[i] for i in rows])


@pytest.mark.parametrize("ending", [[0, 1, 2, 3, 4], [1], [0, 2, 4], [5]])
@pytest.mark.parametrize("step", [0, 3])
def test_rows_that_end_early_leave_the_others_alone(
    any_model: PreTrainedModel, ending: list[int], step: int
) -> None:
    """A uniform number of 0 draws token 0, the end of the text."""
    task = Task(rows=6, seed=4)
    task.limits[:] = 10
    task.first_positions[:] = 0
    sampling = Sampling(min_tokens=step)
    task.uniforms = task.uniforms * 0.5 + 0.5
    task.uniforms[ending, step] = 0.0
    results = task.run(any_model, sampling)
    for row, result in enumerate(results):
        assert_same([result], task.run(any_model, sampling, rows=[row]))
        if row in ending:
            assert len(result.token_ids) == step + 1
            assert result.finished
        else:
            assert len(result.token_ids) > step + 1


def test_an_end_of_text_at_the_limit_counts_as_finished(tiny_gpt2: PreTrainedModel) -> None:
    task = Task(rows=2)
    task.limits[:] = 1
    task.uniforms[0], task.uniforms[1] = 0.0, 0.999
    first, second = task.run(tiny_gpt2)
    assert (first.token_ids.tolist(), first.finished) == ([END], True)
    assert len(second.token_ids) == 1
    assert not second.finished


@pytest.mark.parametrize("minimum", [0, 1, 4, 50])
def test_the_minimum_length_counts_from_the_first_position(tiny_gpt2: PreTrainedModel, minimum: int) -> None:
    """Uniform numbers of 0 draw token 0, the end, as soon as it is allowed, and token 1 before."""
    task = Task(rows=6)
    task.limits[:] = 8
    task.first_positions = torch.arange(6)
    task.uniforms[:] = 0.0
    for first, result in enumerate(task.run(tiny_gpt2, Sampling(min_tokens=minimum))):
        wait = max(minimum - first, 0)
        assert result.token_ids.tolist() == ([1] * wait + [END])[:8]
        assert result.finished == (wait < 8)


def test_first_positions_are_0_where_none_are_given(tiny_gpt2: PreTrainedModel) -> None:
    (result,) = sample_continuations(
        tiny_gpt2,
        [torch.tensor([5, 6])],
        torch.tensor([9]),
        torch.zeros(1, 9),
        Sampling(min_tokens=3),
        (END,),
    )
    assert result.token_ids.tolist() == [1, 1, 1, END]


def test_greedy_decoding_equals_generate(any_model: PreTrainedModel) -> None:
    task = Task()
    task.limits[:] = LIMIT
    for row, result in enumerate(task.run(any_model, Sampling(top_k=1))):
        prefix = task.prefixes[row]
        generated = any_model.generate(
            prefix[None],
            attention_mask=torch.ones_like(prefix)[None],
            do_sample=False,
            max_new_tokens=LIMIT,
            eos_token_id=END,
            pad_token_id=END,
        )
        assert result.token_ids.tolist() == generated[0, len(prefix) :].tolist()
        assert not result.logprobs.any()


def test_nothing_is_remembered_between_calls(tiny_gpt2: PreTrainedModel) -> None:
    task, other = Task(), Task(seed=1)
    first = task.run(tiny_gpt2)
    other.run(tiny_gpt2)
    assert_same(task.run(tiny_gpt2), first)


def test_decoding_builds_no_graph_and_draws_no_global_randomness(tiny_gpt2: PreTrainedModel) -> None:
    state = torch.get_rng_state()
    grad_enabled = []
    handle = tiny_gpt2.register_forward_pre_hook(lambda *_: grad_enabled.append(torch.is_grad_enabled()))
    Task().run(tiny_gpt2)
    handle.remove()
    assert grad_enabled
    assert not any(grad_enabled)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_unequal_limits_fit_the_context_that_each_of_them_fits(tiny_gpt2: PreTrainedModel) -> None:
    context = 64
    prefixes = [torch.ones(60, dtype=torch.long)] + [torch.ones(4, dtype=torch.long)] * 5
    limits = context - torch.tensor([len(p) for p in prefixes])
    results = sample_continuations(tiny_gpt2, prefixes, limits, torch.full((6, 60), 0.5), Sampling(), ())
    assert [len(c.token_ids) for c in results] == limits.tolist()


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_row_may_fill_the_context(tiny_gpt2: PreTrainedModel, use_cache: bool) -> None:
    prefixes = [torch.ones(30, dtype=torch.long)] * 2
    limits = torch.tensor([34, 34])
    uniforms = torch.full((2, 34), 0.5)
    with nullcontext() if use_cache else without_cache(tiny_gpt2):
        results = sample_continuations(tiny_gpt2, prefixes, limits, uniforms, Sampling(), ())
    assert [len(c.token_ids) for c in results] == [34, 34]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(min_tokens=7)])
def test_any_of_several_ends_ends_a_row(any_model: PreTrainedModel, sampling: Sampling) -> None:
    task, ends = Task(), (END, 5, 11)
    slow = [task.slowly(any_model, row, sampling, ends) for row in range(len(task.prefixes))]
    assert_same(task.run(any_model, sampling, end_ids=ends), slow)
    assert len({int(c.token_ids[-1]) for c in slow if c.finished}) > 1
