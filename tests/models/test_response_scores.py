"""A vocabulary in pieces gives the scores and gradients of the whole, and never makes all logits at once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from rlgf.kept import KeptTokens
from rlgf.models import response_scores as module
from rlgf.models.abilities import abilities
from rlgf.models.critic import build_critic
from rlgf.models.forward import Tokens
from rlgf.models.response_scores import response_scores, score_logprobs, score_values
from rlgf.models.sampling import Sampling
from rlgf.types import pad
from toys import letter_gpt, written

ENDS = (0, 3)
SAMPLINGS = [Sampling(), Sampling(temperature=0.7, min_tokens=2), Sampling(top_k=5, min_tokens=1)]


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    found: PreTrainedModel = copy.deepcopy(request.getfixturevalue(request.param))
    assert abilities(found).plain_head
    return found


def tokens(truncated: bool) -> Tokens:
    random = torch.Generator().manual_seed(0)
    prompts = [torch.randint(16, (n,), generator=random) for n in (3, 7, 2, 7)]
    responses = [torch.randint(4, 16, (n,), generator=random) for n in (5, 1, 9, 4)]
    kept: tuple[KeptTokens | None, ...] = ()
    if truncated:
        sets = []
        for response in responses:
            mask = torch.rand(len(response), 16, generator=random) < 0.4
            mask[torch.arange(len(response)), response] = True
            sets.append(KeptTokens.of(mask))
        kept = (*sets[:3], None)
    mask = pad([torch.ones_like(one, dtype=torch.bool) for one in responses], False)
    return Tokens(
        pad(prompts, 9, left=True),
        pad([torch.ones_like(one, dtype=torch.bool) for one in prompts], False, left=True),
        pad(responses, 9),
        mask,
        kept,
        mask & (torch.rand(mask.shape, generator=random) < 0.3),
    )


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def cut(positions: int) -> None:
        monkeypatch.setattr(module, "MOST_LOGITS", 0)
        monkeypatch.setattr(module, "MOST_PIECE", 16 * positions)

    return cut


@pytest.mark.parametrize("positions", [1, 4, 100])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_pieces_are_the_whole(
    model: PreTrainedModel, sampling: Sampling, positions: int, in_pieces: Callable[[int], None]
) -> None:
    batch = tokens(sampling.truncates)
    found = []
    for _ in range(2):
        scores = response_scores(model, batch, sampling, ENDS, with_entropy=True, hidden=True)
        assert scores.entropy is not None
        assert scores.hidden is not None
        read = [one[batch.response_mask] for one in (scores.logprobs, scores.entropy, scores.hidden)]
        weights = torch.linspace(-1, 1, len(read[0]))
        ((read[0] + 0.5 * read[1]) @ weights + read[2].square().mean()).backward()
        found.append(
            [one.detach() for one in read]
            + [p.grad.clone() for p in model.parameters() if p.grad is not None]
        )
        model.zero_grad()
        in_pieces(positions)
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, atol=1e-5 * float(whole.abs().max()) + 1e-6, rtol=1e-4)


def test_the_head_never_makes_all_logits(model: PreTrainedModel, in_pieces: Callable[[int], None]) -> None:
    batch = tokens(False)
    seen: list[int] = []
    head = model.get_output_embeddings()
    assert head is not None
    head.register_forward_hook(lambda _module, _args, output: seen.append(output[..., 0].numel()))
    in_pieces(4)
    scores = response_scores(model, batch, Sampling(), ENDS, with_entropy=True)
    scores.logprobs.sum().backward()
    length = int(batch.response_mask.sum())
    assert max(seen) == 4
    assert sum(seen) == 2 * length, "each piece once, and once more for its gradient"


def test_without_a_gradient_pieces_are_never_larger(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = tokens(False)
    whole = response_scores(model, batch, Sampling(), ENDS).logprobs
    monkeypatch.setattr(module, "MOST_PIECE", 16 * 4)
    seen: list[int] = []
    head = model.get_output_embeddings()
    assert head is not None
    head.register_forward_hook(lambda _module, _args, output: seen.append(output[..., 0].numel()))
    with torch.no_grad():
        pieces = response_scores(model, batch, Sampling(), ENDS).logprobs
    torch.testing.assert_close(pieces, (whole * batch.response_mask).detach(), atol=1e-5, rtol=1e-4)
    assert max(seen) == 4
    assert sum(seen) == int(batch.response_mask.sum())


POLICY = letter_gpt()
ROLLOUT = written("cda", "b", "", "dddd", "ab", prompts=["ab", "d", "abcd"])


def test_log_probabilities_are_those_of_each_text_alone() -> None:
    scores = score_logprobs(POLICY.model, ROLLOUT, Sampling(), [4], 10**6)
    assert scores[~ROLLOUT.response_mask].eq(0).all()
    for row, (prompt, length) in enumerate(zip(ROLLOUT.prompts, ROLLOUT.lengths.tolist(), strict=True)):
        before = torch.tensor(["abcd".index(letter) for letter in prompt])
        after = ROLLOUT.response_ids[row, :length]
        with torch.no_grad():
            logits = POLICY.model(torch.cat([before, after])[None]).logits[0, len(before) - 1 : -1]
        alone = logits.log_softmax(dim=-1).gather(1, after[:, None]).squeeze(1)
        torch.testing.assert_close(scores[row, :length], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["separate", "head"])
def test_neither_scores_nor_values_depend_on_where_batches_are_cut(kind: str) -> None:
    critic = build_critic(kind, POLICY.model)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += 0.02
    most = [score_values(critic, POLICY.model, ROLLOUT, tokens) for tokens in (1, 12, 10**6)]
    assert most[0].abs().sum() > 0
    assert most[0][~ROLLOUT.response_mask].eq(0).all()
    for other in most[1:]:
        torch.testing.assert_close(other, most[0], atol=1e-5, rtol=1e-5)
