"""Tokens of the Penn Treebank, against pycocoevalcap's."""

from __future__ import annotations

from typing import Any

from outputs import REFERENCES, TEXTS


def test_tokens_are_those_of_pycocoevalcap_and_lines_stay_apart(tokenized: Any) -> None:
    from rlgf.metrics.ptb import ptb_tokenize

    gold, written = tokenized
    assert ptb_tokenize(TEXTS) == [written[i][0] for i in range(len(TEXTS))]
    assert [ptb_tokenize(refs) for refs in REFERENCES] == [gold[i] for i in range(len(TEXTS))]
    odd = ["A\nman's\u2028dog\x85 isn't \x1c here.", "", "Caf\u00e9", "...", "\ud800x", ""]
    tokens = ptb_tokenize(odd)
    assert tokens[:4] == ["a man 's dog is n't here", "", "caf\u00e9", ""]
    assert tokens[5] == ""
