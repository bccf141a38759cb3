"""Chunks of two tokenizers' tokens: by hand, and against a search over all borders of random cuts."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from rlgf.objectives.advantages import guide_log_ratio
from rlgf.objectives.alignment import LEAST, Piece, as_pieces, chunks

# A text of six characters. (ends of the policy's tokens, borders of the guide's pieces, chunk of each token,
# pieces of each chunk)
CASES = {
    "one tokenizer": ([1, 3, 6], [0, 1, 3, 6], [1, 2, 3], [[0], [1], [2]]),
    "finer": ([1, 3, 6], [0, 3, 6], [1, 1, 2], [[0], [1]]),
    "coarser": ([3, 6], [0, 1, 2, 3, 6], [1, 2], [[0, 1, 2], [3]]),
    "crossing": ([2, 5, 6], [0, 1, 4, 6], [1, 1, 1], [[0, 1, 2]]),
    "the end of the text": ([3, 6, 6], [0, 3, 6], [1, 2, 0], [[0], [1]]),
    "a special token within": ([3, 3, 6], [0, 3, 6], [1, 0, 2], [[0], [1]]),
    "a piece that begins in the prompt": ([1, 2, 4, 6], [2, 4, 6], [0, 0, 1, 2], [[0], [1]]),
    "and ends within a token": ([3, 4, 6], [2, 4, 6], [0, 0, 1], [[1]]),
    "a text that the guide holds a part of": ([2, 4, 6], [0, 2, 4], [1, 2, 0], [[0], [1]]),
    "a character of three tokens": ([None, None, 1, 6], [0, 1, 6], [1, 1, 1, 2], [[0], [1]]),
    "pieces without a character": ([1, 2, 6], [0, 1, 1, 2, 6], [1, 2, 3], [[0], [1, 2], [3]]),
    "half a character at the end": ([2, 5, None], [0, 2, 5, 6], [1, 2, 0], [[0], [1]]),
    "nothing": ([2, 6], [], [0, 0], []),
}


def pieces_of(borders: list[int]) -> list[Piece]:
    cut = itertools.pairwise(borders)
    return [Piece(begin, end, -(2.0**number) / 64) for number, (begin, end) in enumerate(cut)]


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_cut_where_both_see_a_border(case: str) -> None:
    ends, borders, numbers, of = CASES[case]
    pieces = pieces_of(borders)
    found, logprobs = chunks(ends, pieces, [True] * len(ends))
    assert found == numbers
    sums = [sum(pieces[one].logprob for one in group) for group in of]
    assert logprobs == [sums[number - 1] if number else 0.0 for number in numbers]


def test_a_chunk_of_two_authors_is_nobodys() -> None:
    pieces = pieces_of([0, 3, 4, 6])
    assert chunks([1, 3, 4, 6], pieces, [False, True, True, True])[0] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("ends", "end", "numbers"),
    [
        ([1, 3, 3], 3, [1, 2, 3]),
        ([0], 0, [1]),
        ([1, 3, 3], 4, [1, 2, 0]),  # The guide has read more, and it is the end of another text.
        ([1, None, None], 3, [1, 0, 0]),
    ],
)
def test_the_end_of_a_text_that_both_have_read_is_a_chunk(
    ends: list[int | None], end: int, numbers: list[int]
) -> None:
    borders = [0, 1, 3] if len(ends) > 1 else [0]
    pieces = [*pieces_of(borders), Piece(end, end, -7.0)]
    found, logprobs = chunks(ends, pieces, [True] * len(ends), ended=True)
    assert found == numbers
    assert logprobs[-1] == (-7.0 if numbers[-1] else 0.0)
    assert chunks(ends, pieces, [True] * (len(ends) - 1) + [False], ended=True)[0][-1] == 0


def test_what_cannot_be_is_no_more_than_very_improbable() -> None:
    assert chunks([1, 2], [Piece(0, 1, -9999.0), Piece(1, 2, -1.0)], [True, True])[1] == [LEAST, -1.0]


def test_chunks_of_random_cuts_are_the_finest_that_both_allow() -> None:
    draw = random.Random(0)
    for _ in range(300):
        length = draw.randint(1, 12)
        inner = range(1, length)
        ends = [*sorted(draw.sample(inner, draw.randint(0, length - 1))), length]
        borders = [0, *sorted(draw.sample(inner, draw.randint(0, length - 1))), length]
        pieces = pieces_of(borders)
        numbers, logprobs = chunks(ends, pieces, [True] * len(ends))
        common = sorted({0, *ends} & {*borders})
        expected = [sum(border < end for border in common[:-1]) for end in ends]
        assert numbers == expected
        for number, (begin, end) in enumerate(itertools.pairwise(common), 1):
            inside = sum(piece.logprob for piece in pieces if begin <= piece.begin < end)
            assert {value for value, one in zip(logprobs, numbers, strict=True) if one == number} == {inside}


def test_tokens_become_pieces_between_the_ends_that_are_known() -> None:
    found = as_pieces([1, None, 3, 3, None], [-1.0, -2.0, -4.0, -8.0, -16.0])
    assert found == [Piece(0, 1, -1.0), Piece(1, 3, -6.0)]
    assert as_pieces([4], [-1.0], begin=2) == [Piece(2, 4, -1.0)]


def test_each_token_of_a_chunk_gets_all_that_the_guide_and_the_policy_differ_by() -> None:
    chunk = torch.tensor([[1, 1, 2, 0], [1, 2, 0, 0]])
    policy = torch.tensor([[-1.0, -2.0, -3.0, -9.0], [-1.0, -2.0, 0.0, 0.0]])
    guide = torch.tensor([[-2.5, -2.5, -4.0, 0.0], [-1.00001, -1.0, 0.0, 0.0]])
    found = guide_log_ratio(guide, policy, chunk)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
