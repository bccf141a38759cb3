"""How many passes a batch takes, of what shapes, and that it keeps to its budget of tokens."""

from __future__ import annotations

import pytest
import torch
from decoding_task import END, SAMPLINGS, Task, assert_same, passes
from transformers import PreTrainedModel

from rlgf.models.generate import sample_continuations
from rlgf.models.sampling import Sampling


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
