"""A server that says how probable a text is, over real sockets: what it is sent, what goes wrong, what is kept."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from http_toys import guide

from faulty_server import FAULTS, FaultyServer, letter_scores, serving
from rlgf.errors import UserError
from rlgf.guides import BudgetSpentError, Piece, Request, TextScoringGuide
from rlgf.guides.answer_cache import GuideCache
from rlgf.guides.repeats import check_repeats, difference


def scored(count: int = 4) -> list[Request]:
    return [Request(f"text {i}", 1, seed=0, prompt_length=6, scored=f" goes on {i}") for i in range(count)]


def expected(asked: list[Request]) -> list[list[Piece]]:
    found = []
    for request in asked:
        said = letter_scores(request.prefix + str(request.scored))["token_logprobs"]
        start = len(request.prefix)
        found.append([Piece(i, i + 1, said[start + i]) for i in range(len(str(request.scored)))])
    return found


def test_a_server_is_sent_the_whole_text_and_asked_to_echo_it(server: FaultyServer) -> None:
    judge = guide(server, temperature=0.3, top_p=None, stop=["\n"], extra_body={"add_special_tokens": True})
    assert isinstance(judge, TextScoringGuide)
    assert judge.score(scored(1)) == expected(scored(1))
    (body,) = server.bodies
    assert body == {
        "model": "letters",
        "prompt": "text 0 goes on 0",
        "max_tokens": 1,
        "echo": True,
        "logprobs": 1,
        "temperature": 1.0,
        "add_special_tokens": True,
    }
    used = judge.usage
    assert (used.calls, used.prompt_tokens, used.completion_tokens, used.empty) == (1, 16, 1, 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_survived(fault: str) -> None:
    with serving(FaultyServer(faults=[fault], share=0.5, hang=0.3)) as server:
        judge = guide(server, timeout=0.2 if fault == "hang" else 5.0)  # which a busy machine keeps to
        assert judge.score(scored(8)) == expected(scored(8))
        failed = 0 if fault == "slow" else sum(server.seen.values()) - 8
        assert (judge.usage.calls, judge.usage.retries) == (8, failed)


def test_an_answer_is_kept_apart_from_what_is_written(server: FaultyServer, tmp_path: Path) -> None:
    written = [Request(one.prefix + str(one.scored), 1, seed=0) for one in scored()]
    first = guide(server, tmp_path)
    first.write(written)
    assert first.score(scored()) == expected(scored())
    assert sum(server.seen.values()) == 8
    second = guide(server, tmp_path)
    assert second.score(scored() + scored()) == expected(scored() + scored())
    assert sum(server.seen.values()) == 8
    assert (second.usage.calls, second.usage.cached) == (0, 8)
    # Texts alone are what a replay guide reads.
    lines = tmp_path / "answers.jsonl"
    assert GuideCache(str(tmp_path)).export(lines) == 4
    assert "pieces" not in lines.read_text()


def test_a_text_is_billed_as_a_prompt(server: FaultyServer) -> None:
    judge = guide(server, budget={"calls": 4, "tokens": 1000})
    judge.score(scored())
    with pytest.raises(BudgetSpentError, match="4 calls"):
        judge.score([Request("text", 1, seed=0, scored=" another")])
    tight = guide(server, budget={"tokens": 8})
    # 16 characters are guessed to be 8 tokens, and one is written.
    with pytest.raises(BudgetSpentError):
        tight.score(scored(1))
    with pytest.raises(BudgetSpentError):
        check_repeats(tight, scored(1))
    assert sum(server.seen.values()) == 4
    single = guide(server, budget={"calls": 1})
    with pytest.raises(BudgetSpentError):
        check_repeats(single, scored(2))
    assert single.usage.calls == 1, "what was paid before it ended is booked"


def test_a_token_that_ends_texts_is_sent_with_a_text_that_ends(server: FaultyServer, tmp_path: Path) -> None:
    ending = [replace(one, scores_end=True) for one in scored(2)]
    whole = guide(server, tmp_path, end_token="$")
    found, without = whole.score(ending), whole.score(scored(2))
    said = [letter_scores(one.prefix + str(one.scored) + "$")["token_logprobs"][-2] for one in ending]
    assert without == expected(scored(2))
    assert found == [[*one, Piece(10, 10, last)] for one, last in zip(without, said, strict=True)]
    assert [body["prompt"][-1] for body in server.bodies].count("$") == 2
    assert guide(server, tmp_path / "other").score(ending) == without, "the recipe does not name one"
    with pytest.raises(UserError, match=r"does not take 'guide.end_token' '<end>' for one token"):
        guide(server, end_token="<end>").score(ending)


def changed(**entries: Any) -> Any:
    return lambda text, asked: {**letter_scores(text), **entries}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda text, asked: None, r"gives no log-probabilities of a prompt .*: name a server that scores prompts"),
        (changed(token_logprobs=[-1.0]), "gives no list of tokens with one log-probability for each"),
        (lambda text, asked: letter_scores(text[1:]), "gives tokens that do not spell the text"),
        (lambda text, asked: letter_scores(text) | {"token_logprobs": [0.5] * (len(text) + 1)}, "gives 0.5 as a log"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_say_it_is_refused_in_a_sentence(scores: Any, message: str) -> None:
    with serving(FaultyServer(scores=scores)) as server:
        with pytest.raises(UserError, match=f"^'guide.url' {server.url} {message}"):
            guide(server).score(scored(1))
        assert sum(server.seen.values()) == 1, "asking again is of no use"


def test_a_server_that_knows_no_echo_is_refused_too() -> None:
    said = {"error": {"message": "echo is not supported", "param": "echo"}}
    refused = pytest.raises(UserError, match=r"refuses to say how probable a text is .*echo is not supported")
    with serving(FaultyServer(always=(400, said))) as server, refused:
        guide(server).score(scored(1))


def test_a_text_that_is_too_long_to_score_is_no_fault_of_the_kind_of_server() -> None:
    refused = pytest.raises(
        UserError, match=r"too long for its model .*context holds 5 tokens.*'rollout.max_response_tokens'"
    )
    with serving(FaultyServer(context=5)) as server, refused:
        guide(server).score(scored(1))


def test_scores_that_repeat_pass_and_are_neither_kept_nor_taken_from_the_cache(
    server: FaultyServer, tmp_path: Path
) -> None:
    judge = guide(server, tmp_path)
    judge.score(scored(2))
    check_repeats(judge, scored(2))
    assert sum(server.seen.values()) == judge.usage.calls == 6


def noisy(size: float) -> Any:
    def scores(text: str, asked: int) -> dict[str, Any]:
        said = letter_scores(text)
        draw = random.Random(asked)
        said["token_logprobs"][1:] = [value - size * draw.random() for value in said["token_logprobs"][1:]]
        return said

    return scores


def test_scores_that_do_not_repeat_are_refused() -> None:
    with serving(FaultyServer(scores=noisy(0.01))) as server:
        check_repeats(guide(server), scored(2))
    with (
        serving(FaultyServer(scores=noisy(1.0))) as server,
        pytest.raises(UserError, match=r"^'guide.url' .* differ by 0\.\d+ nats per token .*BATCH_INVARIANT"),
    ):
        check_repeats(guide(server), scored(2))


def test_other_tokens_are_another_answer() -> None:
    one, other = [Piece(0, 2, -1.0), Piece(2, 3, -2.0)], [Piece(0, 1, -1.0), Piece(1, 3, -2.0)]
    assert difference(one, other) is None
    assert difference(one, [Piece(0, 2, -1.5), Piece(2, 3, -2.5)]) == 0.5
    assert difference([], []) == 0.0
