"""A scorer reads what its tokenizer or its template makes of a text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlgf.reward_models.scorer import Scorer
from tokenizer_kinds import byte_bpe, encoder_pieces, llama_legacy, word_pieces


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy, encoder_pieces])
def test_a_scorer_reads_what_its_tokenizer_makes_of_a_text(kind: Any) -> None:
    """With a beginning of text where there is one, once, also where the text is cut."""
    scorer = Scorer(None, kind(), 99)
    before, after = scorer.codec.around
    for prompt, completion in [("the film", " was a joy"), ("the mus", "ic"), ("", "a joy"), ("a", "")]:
        (ids,) = scorer.encode([prompt], [completion])
        assert ids == scorer.tokenizer(prompt + completion)["input_ids"]
    (ids,) = replace(scorer, max_tokens=6).encode(["the film was"], [" a joy from the first scene"])
    assert len(ids) == 6
    assert ids[: len(before)] == before
    assert ids[6 - len(after) :] == after
    if before:
        name = scorer.tokenizer.convert_ids_to_tokens(before[0])
        assert scorer.encode([f"{name}the film"], [""])[0].count(before[0]) == 1


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy])
def test_a_completion_cannot_write_a_scorers_special_tokens(kind: Any) -> None:
    scorer = Scorer(None, kind(), 99)
    around = [i for part in scorer.codec.around for i in part]
    names = [scorer.tokenizer.eos_token, *(["[MASK]", "[PAD]"] if kind is word_pieces else [])]
    special = scorer.tokenizer.all_special_ids
    for name in names:
        (ids,) = scorer.encode(["the film"], [f" was{name} a joy"])
        assert [i for i in ids if i in special] == around
        (told,) = scorer.encode([f"the{name} film"], [" was"])
        assert len([i for i in told if i in special]) == len(around) + 1, "a prompt may be a rendered chat"
    end = names[0]
    assert scorer.encode(["the"], [f" film{end} a joy"]) == scorer.encode(["the"], [" film"])
