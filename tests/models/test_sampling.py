"""The sampled distribution against slow Python, and draws from it against exact counts."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest
import scipy.stats
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from rlgf.models.sampling import Sampling, draw, entropy, possible, sampling_logits, token_logprobs

ENDS = (2,)
JUST_UNDER_1 = 1 - 2**-24

SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(top_k=3),
    Sampling(top_p=0.8),
    Sampling(min_tokens=3),
    Sampling(temperature=1.5, top_k=5, top_p=0.7, min_tokens=2),
]


def slow_probabilities(
    logits: list[float], position: int, sampling: Sampling, end_ids: Collection[int]
) -> list[float]:
    """Token by token, from the words of `Sampling`'s docstring."""
    allowed = [i for i in range(len(logits)) if i not in end_ids or position >= sampling.min_tokens]
    weights = {i: math.exp(logits[i] / sampling.temperature) for i in allowed}
    ranked = sorted(allowed, key=lambda i: -weights[i])[: sampling.top_k]
    total = sum(weights[i] for i in ranked)
    kept: list[int] = []
    for i in ranked:
        if sum(weights[j] for j in kept) / total < sampling.top_p:
            kept.append(i)
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(logits))]


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    logits=st.lists(st.integers(-40, 40), min_size=3, max_size=8, unique=True),
    position=st.integers(0, 4),
    temperature=st.floats(0.3, 3),
    top_k=st.none() | st.integers(1, 10),
    top_p=st.just(1.0) | st.floats(0.05, 1),
    min_tokens=st.integers(0, 4),
    end_ids=st.sets(st.integers(0, 2), max_size=2),
)
def test_sampling_logits_equal_slow_python(
    logits: list[int],
    position: int,
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_tokens: int,
    end_ids: set[int],
) -> None:
    numbers = [x / 10 for x in logits]
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_tokens=min_tokens)
    untruncated = slow_probabilities(numbers, position, sampling.model_copy(update={"top_p": 1.0}), end_ids)
    sums = torch.tensor(sorted(untruncated, reverse=True), dtype=torch.float64).cumsum(0)
    assume(top_p == 1 or (sums - top_p).abs().min() > 1e-5)
    warped = sampling_logits(
        torch.tensor([numbers], dtype=torch.float64), torch.tensor([position]), sampling, end_ids
    )
    slow = slow_probabilities(numbers, position, sampling, end_ids)
    assert warped.softmax(dim=-1)[0].tolist() == pytest.approx(slow, abs=1e-5)


def test_order_is_temperature_then_top_k_then_top_p() -> None:
    probabilities = torch.tensor([[0.4, 0.3, 0.2, 0.1]])

    def kept(sampling: Sampling) -> list[int]:
        warped = sampling_logits(probabilities.log(), torch.tensor([0]), sampling, ())
        return warped[0].isfinite().nonzero().flatten().tolist()

    assert kept(Sampling(top_p=0.55)) == [0, 1]
    assert kept(Sampling(top_p=0.55, top_k=2)) == [0]
    assert kept(Sampling(top_p=0.55, temperature=0.25)) == [0]
    assert kept(Sampling(top_p=0.75, temperature=4)) == [0, 1, 2]


def test_the_end_of_text_waits_row_by_row_and_top_k_does_not_count_it() -> None:
    logits = torch.tensor([[0.0, 1.0, 5.0], [0.0, 1.0, 5.0]])
    warped = sampling_logits(logits, torch.tensor([1, 2]), Sampling(min_tokens=2, top_k=1), ENDS)
    assert warped.argmax(dim=-1).tolist() == [1, 2]
    assert warped.isfinite().sum(dim=-1).tolist() == [1, 1]


def test_default_sampling_leaves_the_logits_alone() -> None:
    logits = random_logits(4, 6)
    assert torch.equal(sampling_logits(logits, torch.zeros(4, dtype=torch.long), Sampling(), ENDS), logits)


def test_a_minimum_length_means_nothing_without_an_end_of_text() -> None:
    logits = random_logits(4, 6)
    positions = torch.zeros(4, dtype=torch.long)
    assert torch.equal(sampling_logits(logits, positions, Sampling(min_tokens=3), ()), logits)


def test_the_given_logits_are_not_written_to() -> None:
    logits = random_logits(4, 6)
    before = logits.clone()
    sampling_logits(logits, torch.zeros(4, dtype=torch.long), SAMPLINGS[-1], ENDS)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    "fields", [{"temperature": 0}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}, {"min_tokens": -1}, {"top": 1}]
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(fields)


def test_truncates_says_whether_the_support_depends_on_the_logits() -> None:
    assert [s.truncates for s in SAMPLINGS] == [False, False, True, True, False, True]


@pytest.mark.parametrize(
    "probabilities",
    [[0.1, 0.25, 0.0, 0.4, 0.25], [0.0, 0.0, 0.5, 0.5, 0.0], [1.0], [0.0, 1.0], [0.05] * 20, [0.9, 0.0, 0.1]],
)
def test_draws_at_even_uniforms_give_exact_frequencies(probabilities: list[float]) -> None:
    n = 1000
    logits = torch.tensor(probabilities).log().expand(n, -1)
    ids, _ = draw(logits, (torch.arange(n) + 0.5) / n)
    counts = torch.bincount(ids, minlength=len(probabilities)).tolist()
    assert counts == [round(n * p) for p in probabilities]


@pytest.mark.parametrize("uniform", [0.0, 2**-24, 0.3, 0.5, JUST_UNDER_1])
@pytest.mark.parametrize("size", [3, 50, 5000])
def test_a_token_of_probability_0_is_never_drawn(uniform: float, size: int) -> None:
    logits = random_logits(40, size)
    impossible = torch.rand(40, size, generator=torch.Generator().manual_seed(1)) < 0.5
    impossible[:, 0] = impossible[:, -1] = True
    impossible[:, size // 2] = False
    ids, logprobs = draw(logits.masked_fill(impossible, -math.inf), torch.full((40,), uniform))
    assert not impossible.gather(1, ids[:, None]).any()
    assert logprobs.isfinite().all()


def test_the_ends_of_the_unit_interval_draw_the_first_and_the_last_possible_token() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 1.0, 0.5, -math.inf]).expand(2, -1)
    ids, _ = draw(logits, torch.tensor([0.0, JUST_UNDER_1]))
    assert ids.tolist() == [1, 4]


def test_uniforms_select_the_interval_that_holds_them() -> None:
    logits = torch.tensor([0.25, 0.25, 0.5]).log().expand(6, -1)
    ids, _ = draw(logits, torch.tensor([0.0, 0.2499, 0.2501, 0.4999, 0.5001, 0.9999]))
    assert ids.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_draw_does_not_depend_on_its_batch() -> None:
    logits = random_logits(30, 11)
    uniforms = torch.rand(30, generator=torch.Generator().manual_seed(2))
    ids, logprobs = draw(logits, uniforms)
    for row in range(30):
        one_id, one_logprob = draw(logits[row : row + 1], uniforms[row : row + 1])
        assert one_id == ids[row]
        assert one_logprob == logprobs[row]


def test_draws_log_prob_is_that_of_the_softmax() -> None:
    logits = random_logits(30, 11)
    ids, logprobs = draw(logits, torch.rand(30, generator=torch.Generator().manual_seed(2)))
    assert len(set(ids.tolist())) > 3
    torch.testing.assert_close(logprobs, logits.log_softmax(dim=-1)[range(30), ids])


def kept_by(logits: Tensor, sampling: Sampling) -> Tensor:
    """What can be drawn at each position of a sequence."""
    positions = torch.arange(logits.shape[1]).expand(logits.shape[:2])
    return sampling_logits(logits, positions, sampling, ENDS).isfinite()


def draw_sequence(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw each position as decoding does."""
    uniforms = torch.rand(logits.shape[:2], generator=torch.Generator().manual_seed(3))
    drawn = []
    for t in range(logits.shape[1]):
        positions = torch.full((logits.shape[0],), t)
        drawn.append(draw(sampling_logits(logits[:, t], positions, sampling, ENDS), uniforms[:, t]))
    ids, logprobs = zip(*drawn, strict=True)
    return torch.stack(ids, dim=1), torch.stack(logprobs, dim=1)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_token_logprobs_equal_those_of_sampling(sampling: Sampling) -> None:
    logits = random_logits(12, 6, 9)
    ids, logprobs = draw_sequence(logits, sampling)
    torch.testing.assert_close(
        token_logprobs(logits, ids, sampling, ENDS, kept_by(logits, sampling)), logprobs
    )


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.7), Sampling(top_p=0.9)], ids=str)
def test_token_logprobs_equal_those_of_sampling_in_bfloat16(sampling: Sampling) -> None:
    logits = random_logits(12, 6, 300).bfloat16()
    ids, logprobs = draw_sequence(logits, sampling)
    torch.testing.assert_close(
        token_logprobs(logits, ids, sampling, ENDS, kept_by(logits, sampling)), logprobs
    )


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_token_logprobs_are_those_of_the_slow_distribution(sampling: Sampling) -> None:
    logits = random_logits(2, 5, 7)
    for token in range(7):
        kept = kept_by(logits, sampling)
        actual = token_logprobs(logits, torch.full((2, 5), token), sampling, ENDS, kept).exp()
        for row in range(2):
            for t in range(5):
                slow = slow_probabilities(logits[row, t].tolist(), t, sampling, ENDS)
                assert actual[row, t].item() == pytest.approx(slow[token], abs=1e-6)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_entropy_equals_scipys(sampling: Sampling) -> None:
    logits = random_logits(3, 5, 7)
    actual = entropy(logits, sampling, ENDS, kept_by(logits, sampling))
    for row in range(3):
        for t in range(5):
            slow = slow_probabilities(logits[row, t].tolist(), t, sampling, ENDS)
            assert actual[row, t].item() == pytest.approx(scipy.stats.entropy(slow), abs=1e-5)


def test_entropy_is_log_v_for_even_logits_and_0_for_one_token() -> None:
    assert entropy(torch.zeros(1, 1, 8), Sampling(), ENDS).item() == pytest.approx(math.log(8))
    logits, greedy = random_logits(2, 3, 8), Sampling(top_k=1)
    assert entropy(logits, greedy, ENDS, kept_by(logits, greedy)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("sampling", [*SAMPLINGS, Sampling(top_k=1)], ids=str)
def test_the_gradient_of_entropy_is_finite_and_right_with_impossible_tokens(sampling: Sampling) -> None:
    logits = random_logits(3, 5, 7)
    logits[:, :, 0] = -math.inf
    logits.requires_grad_()
    value = entropy(logits, sampling, ENDS, kept_by(logits.detach(), sampling))
    (actual,) = torch.autograd.grad(value.sum(), logits)

    positions = torch.arange(5).expand(3, 5)
    logprobs = sampling_logits(logits.detach(), positions, sampling, ENDS).log_softmax(dim=-1)
    probabilities = logprobs.exp()
    shifted = torch.where(probabilities > 0, logprobs, 0.0) + value.detach()[..., None]
    torch.testing.assert_close(actual, -probabilities * shifted / sampling.temperature, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_the_gradient_of_token_logprobs_is_finite(sampling: Sampling) -> None:
    logits = random_logits(3, 5, 7)
    ids, _ = draw_sequence(logits, sampling)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(
        token_logprobs(logits, ids, sampling, ENDS, kept_by(logits.detach(), sampling)).sum(), logits
    )
    assert gradient.isfinite().all()
    assert gradient.sum(dim=-1).abs().max() < 1e-5


def test_a_token_keeps_the_set_that_it_was_drawn_from() -> None:
    """Later weights would cut it off themselves, and its probability is defined all the same."""
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    kept = kept_by(logits, Sampling(top_k=2))
    later = torch.tensor([[[0.0, 0.5, 4.0, 4.0]]])
    found = token_logprobs(later, torch.tensor([[0]]), Sampling(top_k=2), ENDS, kept).item()
    assert found == pytest.approx(-math.log1p(math.exp(0.5)))


def test_the_minimum_length_does_not_wait_for_a_gpu() -> None:
    """Whoever looks at a number of a tensor that is not there is told so."""
    with FakeTensorMode():
        logits, positions = torch.empty(4, 9, device="cuda"), torch.empty(4, dtype=torch.long, device="cuda")
        ends = torch.empty(2, dtype=torch.long, device="cuda")
        assert sampling_logits(logits, positions, Sampling(min_tokens=3), ends).shape == (4, 9)


def test_a_token_without_probability_is_never_drawn() -> None:
    """Where rounding makes the cumulative sum step up at one, as a sum that is added up in pieces may."""
    logits = torch.tensor([[0.0, 1.0, -math.inf, -200.0, 0.5]]).expand(5, -1)
    assert possible(torch.arange(5)[:, None], logits).squeeze(1).tolist() == [0, 1, 1, 1, 4]
