"""Kept sets of truncated sampling, in whichever of their two forms they are stored."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlgf.kept import KeptTokens, kept_mask


@given(
    vocabulary=st.integers(1, 150),
    length=st.integers(1, 6),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
    extra=st.integers(0, 40),
)
def test_any_sets_come_back_as_they_were(
    vocabulary: int, length: int, density: float, seed: int, extra: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    mask = torch.rand(length, vocabulary, generator=random) < density
    mask[torch.arange(length), torch.randint(vocabulary, (length,), generator=random)] = True
    sets = KeptTokens.of(mask)
    width = vocabulary + extra
    found = sets.mask(length, width)
    assert torch.equal(found[:, :vocabulary], mask)
    assert not found[:, vocabulary:].any()
    assert torch.equal(sets.mask(length - 1, width), found[:-1])
    joined = KeptTokens.join(sets.split([1] * length))
    assert torch.equal(joined.mask(length, width), found)
    over = torch.rand(2 * length, generator=random).argsort() < length
    spread = sets.spread(over).mask(2 * length, width)
    assert torch.equal(spread[over], found)
    assert spread[~over].all()


def test_a_set_takes_4_bytes_an_entry_and_never_much_more_than_a_bit_for_each_of_the_vocabulary() -> None:
    mask = torch.zeros(2, 32_000, dtype=torch.bool)
    mask[0, :50] = True
    mask[1, ::2] = True
    assert KeptTokens.of(mask[:1]).words.nbytes == 200
    assert KeptTokens.of(mask[1:]).words.nbytes == 4_000


def test_responses_without_sets_may_be_anything() -> None:
    mask = torch.tensor([[True, False], [False, True]])
    device = torch.device("cpu")
    assert kept_mask([None, None], 3, 2, device) is None
    found = kept_mask([None, KeptTokens.of(mask)], 3, 2, device)
    assert found is not None
    assert found.tolist() == [[[True, True]] * 3, [[True, False], [False, True], [True, True]]]
