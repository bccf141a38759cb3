"""What servers say of a text's tokens, in the ways that they write them."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf.guides.reply import NoScoresError, UnusableAnswerError, places, read_scores
from rlgf.objectives.alignment import Piece

# (tokens, text, where they stand)
SPELLED = {
    "plain": (["The", " sky", " is"], "The sky is", [(0, 3), (3, 7), (7, 10)]),
    "a token before the text": (["<s>", "The", " sky"], "The sky", [(0, 3), (3, 7)]),
    "a space that decoding drops": (["x", " y"], " x y", [(0, 2), (2, 4)]),
    # vLLM 0.32 of "a 日本 é" with the tokens of GPT-2.
    "tokens without a character": (["a", "", "", " 日", "本", " é"], "a 日本 é", [(0, 1), (1, 1), (1, 1), (1, 3), (3, 4), (4, 6)]),
    "a first character in parts": (["\ufffd", "", "本", "!"], "日本!", [(0, 1), (1, 2), (2, 3)]),
    "parts as a sign": (["a", " \ufffd", "\ufffd", "b"], "a 日b", [(0, 1), (1, 3), (3, 4)]),
    "parts as bytes": (["a", "bytes:\\xe6", "bytes:\\x97\\xa5", "b"], "a日b", [(0, 1), (1, 2), (2, 3)]),
    "a space among the parts and after them": (["\ufffd", "\ufffd", " \ufffd", "\ufffd", " ", "!"], "日 日 !", [(0, 3), (3, 4), (4, 5)]),
    "a space among bytes": (["bytes:\\xe6", "bytes:\\x20\\xe6", " ", "!"], "日 日 !", [(0, 3), (3, 4), (4, 5)]),
    "parts at the end": (["a", "\ufffd", "\ufffd"], "a日", [(0, 1), (1, 2)]),
}  # fmt: skip


@pytest.mark.parametrize("case", SPELLED)
def test_tokens_say_where_they_stand(case: str) -> None:
    tokens, text, expected = SPELLED[case]
    found = places(tokens, text)
    assert found is not None
    assert [(begin, end) for _, _, begin, end in found] == expected
    inside = [number for first, last, *_ in found for number in range(first, last)]
    assert inside == list(range(inside[0], len(tokens))), "each once, in order"


@pytest.mark.parametrize(
    "tokens", [["The", " sea"], ["The"], [], ["token_id:5", "token_id:6"], ["a", "\ufffd", "z"]]
)
def test_tokens_of_another_text_are_none_of_this_one(tokens: list[str]) -> None:
    assert places(tokens, "The sky is") is None


def reply(tokens: list[Any], logprobs: list[Any], **usage: int) -> dict[str, Any]:
    given = {"tokens": tokens, "token_logprobs": logprobs}
    return {"choices": [{"text": "".join(map(str, tokens)), "logprobs": given}], "usage": usage}


def test_pieces_are_those_of_the_text_after_the_prompt() -> None:
    said = reply(
        ["The", " sky", " is", " up"], [None, -1.0, -2.0, -3.0], prompt_tokens=3, completion_tokens=1
    )
    found = read_scores(said, "The sky", " is")
    assert found.pieces == (Piece(0, 3, -2.0),)
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("", 3, 1)
    # A token of both, and one that nothing stands before.
    assert read_scores(said, "The s", "ky is").pieces == (Piece(2, 5, -2.0),)
    assert read_scores(said, "", "The sky is").pieces == (Piece(3, 7, -1.0), Piece(7, 10, -2.0))
    assert read_scores(reply(["a", "\ufffd", "\ufffd", "\ufffd"], [None, -1, -2, -4], prompt_tokens=3), "a", "日").pieces == (
        Piece(0, 1, -3.0),
    )  # fmt: skip


def test_a_beginning_of_text_that_the_server_puts_before_the_texts_own_is_passed_over() -> None:
    said = reply(["<s>", "<s>", "The", " sky", " up"], [None, -9.0, -1.0, -2.0, -3.0], prompt_tokens=4)
    assert read_scores(said, "<s>The", " sky").pieces == (Piece(0, 4, -2.0),)
    # Nothing is passed over where the text repeats itself, or the token after it repeats it.
    assert read_scores(reply(["a", "a"], [None, -1.0], prompt_tokens=2), "a", "a").pieces == (
        Piece(0, 1, -1.0),
    )
    assert read_scores(reply(["a", "a"], [-1.0, -2.0]), "", "a").pieces == (Piece(0, 1, -1.0),)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"choices": [{"text": "The sky"}]}, "gives no log-probabilities of a prompt"),
        ({"choices": [{"text": "The sky", "logprobs": None}]}, "gives no log-probabilities of a prompt"),
        ({"choices": [{"logprobs": {"content": []}}]}, "gives no list of tokens"),
        (reply(["The", " sky"], [None]), "with one log-probability for each"),
        (reply([" up"], [-1.0]), "do not spell the text"),
        (reply(["The", " sky"], [None, 0.5]), "gives 0.5 as a log-probability"),
        (reply(["The", " sky"], [-1.0, None]), "gives None as a log-probability"),
        (reply(["The", " sky"], [None, float("nan")]), "gives nan as a log-probability"),
    ],
)
def test_a_reply_that_says_nothing_of_the_text_says_why(said: dict[str, Any], why: str) -> None:
    with pytest.raises(NoScoresError, match=why):
        read_scores(said, "The", " sky")


def test_a_reply_with_nothing_in_it_is_asked_for_again() -> None:
    with pytest.raises(UnusableAnswerError):
        read_scores({"choices": [{"finish_reason": "stop"}]}, "The", " sky")
