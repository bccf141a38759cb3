"""A local guide scores given texts: as its own passes do, in its own tokens, whatever the policy's are."""

from __future__ import annotations

import itertools

import pytest
import torch

from conftest import SENTENCES
from rlgf.guides import LocalGuide, Request
from rlgf.guides.given_text import given_text
from rlgf.models.forward import Tokens
from rlgf.models.sampling import Sampling
from rlgf.objectives.alignment import Piece
from tokenizer_kinds import KINDS, byte_bpe, encoder_pieces, encoder_speaker, llama_legacy, speaker
from toys import letter_gpt, letter_tokenizer


def scored(prompt: str, text: str, **more: object) -> Request:
    return Request(prompt, 1, seed=0, prompt_length=len(prompt), scored=text, **more)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_policys_own_tokens_are_scored_as_the_distribution_says(temperature: float) -> None:
    model = letter_gpt(seed=3)
    guide = LocalGuide(model, letter_tokenizer("abcd"), Sampling(temperature=temperature, top_p=0.5), 16)
    prompts, texts = [[0, 1], [2]], [[3, 2, 1, 4], [0]]
    asked = [
        scored("abcd"[p[0]] + "abcd"[p[-1]] if len(p) == 2 else "c", "dcb" if len(t) > 1 else "a", prompt_ids=tuple(p), scored_ids=tuple(t))
        for p, t in zip(prompts, texts, strict=True)
    ]  # fmt: skip
    found = guide.score(asked)
    for prompt, text, pieces in zip(prompts, texts, found, strict=True):
        ids = [torch.tensor([side]) for side in (prompt, text)]
        said = guide.log_distribution(
            Tokens(ids[0], torch.ones_like(ids[0]).bool(), ids[1], torch.ones_like(ids[1]).bool())
        )
        expected = said[0].gather(1, ids[1][0][:, None]).squeeze(1).tolist()
        letters = len(text) - (text[-1] == 4)
        assert [piece[:2] for piece in pieces] == [(i, i + 1) for i in range(letters)], "but for the end"
        assert [piece.logprob for piece in pieces] == pytest.approx(expected[:letters], abs=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, encoder_pieces], ids=lambda kind: kind.__name__)
def test_pieces_of_any_tokenizer_lie_in_the_text_without_gaps(kind: object) -> None:
    model = encoder_speaker(kind()) if kind is encoder_pieces else speaker(kind())
    guide = LocalGuide(model, byte_bpe(), Sampling())
    texts = [SENTENCES[1].lower(), " was bad", "s 日本 é!"]
    for text, pieces in zip(texts, guide.score([scored("the film", text) for text in texts]), strict=True):
        assert all(one.end == other.begin for one, other in itertools.pairwise(pieces))
        assert all(0 <= piece.begin < piece.end <= len(text) and piece.logprob < 0 for piece in pieces)
    assert pieces or kind is not llama_legacy


def test_a_token_of_prompt_and_text_is_the_prompts() -> None:
    model = speaker(byte_bpe())
    both = model.codec.encode_both("so t", "he was")
    word = model.codec.encode(" the")
    assert len(word) == 1, "or this shows nothing"
    prompt, text = given_text(model, "so t", "he was")
    assert prompt + text.ids == both
    assert prompt[-1:] == word
    assert text.begin == 2
    assert text.ends[-1] == len("he was")
    assert given_text(model, "so", " the was")[1].begin == 0


def test_a_text_longer_than_the_guides_context_is_scored_as_far_as_it_goes() -> None:
    guide = LocalGuide(letter_gpt(), letter_tokenizer("dcba"), Sampling())
    (pieces,) = guide.score([scored("abcd" * 10, "abcd" * 10)])
    assert [piece[:2] for piece in pieces] == [(i, i + 1) for i in range(31)]
    assert guide.score([]) == []


def test_what_steers_a_guide_stands_before_the_text() -> None:
    model, policy = letter_gpt(seed=3), letter_tokenizer("abcd")
    steered = LocalGuide(model, policy, Sampling(), template="bb{text}")
    plain = LocalGuide(model, policy, Sampling())
    ids = {"prompt_ids": (0,), "scored_ids": (1, 2)}
    found = steered.score([scored("a", "bc", **ids)])[0]
    assert found == plain.score([scored("bba", "bc")])[0] != plain.score([scored("a", "bc", **ids)])[0]
    assert isinstance(found[0], Piece)
