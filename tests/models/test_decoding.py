"""Decoding in batches against a plain forward pass over one row at a time, without padding or cache.

Log-probabilities agree to 1e-4 in float32; tokens agree exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.models.abilities import abilities
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.generate import Continuation, sample_continuations
from rlgf.models.kv_cache import cache_argument
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling, draw, sampling_logits, token_logprobs
from rlgf.types import pad

END = 0
TOLERANCE = 1e-4
LIMIT = 20

SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.3, min_tokens=6),
    Sampling(temperature=0.8, top_k=7, top_p=0.9, min_tokens=3),
]


@pytest.fixture(params=["tiny_gpt2", "tiny_llama", "tiny_mistral"])
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    model: PreTrainedModel = request.getfixturevalue(request.param)
    return model


class Task:
    """Ragged prefixes, which hold the end-of-text token too, with ragged limits."""

    def __init__(self, rows: int = 14, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 12, (rows,), generator=random).tolist()
        self.prefixes = [torch.randint(16, (n,), generator=random) for n in lengths]
        self.limits = torch.randint(1, LIMIT + 1, (rows,), generator=random)
        self.first_positions = torch.randint(0, 5, (rows,), generator=random)
        self.uniforms = torch.rand(rows, LIMIT, generator=random)

    def run(
        self,
        model: PreTrainedModel,
        sampling: Sampling | None = None,
        rows: list[int] | None = None,
        end_ids: Collection[int] = (END,),
        max_batch_tokens: int = 32_768,
        use_cache: bool = True,
    ) -> list[Continuation]:
        rows = list(range(len(self.prefixes))) if rows is None else rows
        return sample_continuations(
            model,
            [self.prefixes[i] for i in rows],
            self.limits[rows],
            self.uniforms[rows],
            sampling or Sampling(),
            end_ids,
            first_positions=self.first_positions[rows],
            max_batch_tokens=max_batch_tokens,
            use_cache=use_cache,
            keep_sets=True,
        )

    def slowly(
        self, model: PreTrainedModel, row: int, sampling: Sampling, end_ids: Collection[int]
    ) -> Continuation:
        """The whole text through a plain forward pass for every token."""
        text, logprobs = self.prefixes[row], []
        first = int(self.first_positions[row])
        for step in range(int(self.limits[row])):
            with torch.no_grad():
                logits = model(text[None]).logits[:, -1]
            warped = sampling_logits(logits, torch.tensor([first + step]), sampling, end_ids)
            token, logprob = draw(warped, self.uniforms[row, step : step + 1])
            text = torch.cat([text, token])
            logprobs.append(logprob.item())
            if token in end_ids:
                break
        ids = text[len(self.prefixes[row]) :]
        return Continuation(ids, torch.tensor(logprobs), int(ids[-1]) in end_ids)


def assert_same(actual: list[Continuation], expected: list[Continuation]) -> None:
    assert [c.token_ids.tolist() for c in actual] == [c.token_ids.tolist() for c in expected]
    assert [c.finished for c in actual] == [c.finished for c in expected]
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=TOLERANCE, rtol=0)


@contextmanager
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int, int]]]:
    """Rows, new positions and attended positions of each forward pass."""
    abilities(model)  # the trial runs passes of its own
    seen: list[tuple[int, int, int]] = []

    def record(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        rows, width = kwargs["input_ids"].shape
        cache = kwargs[cache_argument(model) or ""]
        seen.append((rows, width, width + (cache.get_seq_length() if cache is not None else 0)))

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


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
    assert_same(task.run(any_model, sampling, use_cache=False), slow)


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


def test_rows_that_have_ended_leave_the_batch(tiny_gpt2: PreTrainedModel) -> None:
    task = Task(rows=8, seed=1)
    task.limits = torch.tensor([1, 1, 1, 1, 1, 4, 4, 9])
    with passes(tiny_gpt2) as seen:
        task.run(tiny_gpt2, end_ids=())
    assert [rows for rows, _, _ in seen[-8:]] == [3, 3, 3, 1, 1, 1, 1, 1]


def test_each_text_is_read_once_then_one_token_a_step(tiny_gpt2: PreTrainedModel) -> None:
    task = Task(rows=4)
    task.limits[:] = 5
    with passes(tiny_gpt2) as seen:
        task.run(tiny_gpt2, end_ids=())
    assert sum(rows * width for rows, width, _ in seen[:-4]) == sum(len(p) for p in task.prefixes)
    assert [width for _, width, _ in seen[-4:]] == [1] * 4


def test_texts_are_read_in_pieces_of_like_length(tiny_gpt2: PreTrainedModel) -> None:
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 60, (100,), generator=random)
    prefixes = [torch.randint(16, (n,), generator=random) for n in lengths.tolist()]
    with passes(tiny_gpt2) as seen:
        ones, half = torch.ones(100, dtype=torch.long), torch.full((100, 1), 0.5)
        sample_continuations(tiny_gpt2, prefixes, ones, half, Sampling(), ())
    read = sum(rows * width for rows, width, _ in seen)
    assert len(seen) <= 12
    assert 1 - int(lengths.sum()) / read < 0.08


def test_padding_is_a_small_share_of_all_that_is_run(tiny_gpt2: PreTrainedModel) -> None:
    """Texts of one length, begun by somebody else up to somewhere, as in PPO++."""
    random = torch.Generator().manual_seed(0)
    begun = torch.randint(0, 24, (112,), generator=random)
    prefixes = [torch.randint(16, (16 + n,), generator=random) for n in begun.tolist()]
    with passes(tiny_gpt2) as seen:
        written = sample_continuations(
            tiny_gpt2, prefixes, 48 - begun, torch.rand(112, 48, generator=random), Sampling(), (END,)
        )
    needed = sum(len(p) + len(c.token_ids) - 1 for p, c in zip(prefixes, written, strict=True))
    assert 1 - needed / sum(rows * width for rows, width, _ in seen) < 0.05


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_texts_that_begin_alike_are_read_once_and_go_on_apart(
    any_model: PreTrainedModel, sampling: Sampling
) -> None:
    task = Task()
    task.prefixes = [task.prefixes[i // 4] for i in range(len(task.prefixes))]
    slow = [task.slowly(any_model, row, sampling, (END,)) for row in range(len(task.prefixes))]
    with passes(any_model) as seen:
        found = task.run(any_model, sampling)
    assert_same(found, slow)
    assert len({tuple(c.token_ids.tolist()) for c in found}) > len(found) // 2
    first = next(i for i, (_, width, _) in enumerate(seen) if width == 1)
    assert sum(rows for rows, _, _ in seen[:first]) == 4


def test_a_batch_without_padding_of_equal_prefixes(any_model: PreTrainedModel) -> None:
    task = Task(rows=5)
    task.prefixes = [torch.randint(16, (6,), generator=torch.Generator().manual_seed(i)) for i in range(5)]
    slow = [task.slowly(any_model, row, Sampling(), (END,)) for row in range(5)]
    assert_same(task.run(any_model), slow)


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
    results = sample_continuations(tiny_gpt2, prefixes, limits, uniforms, Sampling(), (), use_cache=use_cache)
    assert [len(c.token_ids) for c in results] == [34, 34]


def test_a_decoding_batch_keeps_to_its_token_budget(tiny_gpt2: PreTrainedModel) -> None:
    prefixes = [torch.ones(n, dtype=torch.long) for n in (28, 2, 2, 2, 2)]
    limits = torch.tensor([2, 28, 28, 28, 28])
    with passes(tiny_gpt2) as seen:
        sample_continuations(
            tiny_gpt2, prefixes, limits, torch.full((5, 28), 0.5), Sampling(), (), max_batch_tokens=150
        )
    assert max(rows * attended for rows, _, attended in seen) <= 150


def test_equal_rows_keep_to_the_token_budget(tiny_gpt2: PreTrainedModel) -> None:
    prefixes = [torch.ones(10, dtype=torch.long)] * 9
    with passes(tiny_gpt2) as seen:
        sample_continuations(
            tiny_gpt2,
            prefixes,
            torch.full((9,), 5),
            torch.full((9, 5), 0.5),
            Sampling(),
            (),
            max_batch_tokens=60,
        )
    assert [rows for rows, width, _ in seen if width == 1] == [4] * 4 + [4] * 4 + [1] * 4
    assert max(rows * attended for rows, _, attended in seen) <= 60


def test_a_row_over_the_token_budget_is_decoded_alone(tiny_gpt2: PreTrainedModel) -> None:
    with passes(tiny_gpt2) as seen:
        Task(rows=3).run(tiny_gpt2, max_batch_tokens=1)
    assert {rows for rows, _, _ in seen} == {1}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(min_tokens=7)])
def test_any_of_several_ends_ends_a_row(any_model: PreTrainedModel, sampling: Sampling) -> None:
    task, ends = Task(), (END, 5, 11)
    slow = [task.slowly(any_model, row, sampling, ends) for row in range(len(task.prefixes))]
    assert_same(task.run(any_model, sampling, end_ids=ends), slow)
    assert len({int(c.token_ids[-1]) for c in slow if c.finished}) > 1
