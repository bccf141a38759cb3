"""A guide that answers from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_toys import ASKED, GOOD, SYSTEM, USER, write
from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.guides import ReplayGuide, ReplayGuideConfig, Request
from rlgf.types import Author, Message


def replay(path: Path, *rows: Any) -> ReplayGuide:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return ReplayGuide(ReplayGuideConfig(file=path))


def test_the_seed_picks_among_the_completions_of_a_prefix(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": text} for text in ("one", "two")]
    guide = replay(tmp_path / "f", *rows, {"prefix": "b", "completion": "end", "finished": True})
    answers = guide.write([Request("a", 5, seed) for seed in range(4)] + [Request("b", 5, 0)])
    assert [answer.text for answer in answers] == ["one", "two", "one", "two", "end"]
    assert [answer.finished for answer in answers] == [False] * 4 + [True]


def test_what_was_not_recorded_is_refused(tmp_path: Path) -> None:
    guide = replay(tmp_path / "f", {"prompt": "a", "completion": "b"})
    with pytest.raises(UserError, match=r"no completion of 'ab'.*can begin texts"):
        guide.write([Request("ab", 5, 0)])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "ab", "answer": "cd"}', ": 'answer' must be an object"),
        ("no JSON", " is not valid JSON"),
        ("[1]", " must hold a JSON object"),
        ('{"completion": "x"}', " must hold the texts 'prompt' and 'completion'"),
        ('{"prompt": 3, "completion": "x"}', " must hold the texts"),
        ('{"prompt": "x"}', " must hold the texts"),
        (
            '{"prefix": "ab", "prompt_length": "1", "messages": [{"role": "user", "content": "a"}], "text": "c"}',
            ": 'prefix' must be a text, and 'prompt_length' a whole number",
        ),
    ],
)
def test_a_line_that_is_no_recording_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^'guide.file' .*, line 2{said}"):
        replay(tmp_path / "f", {"prompt": "a", "completion": "b"}, line)
    with pytest.raises(UserError, match=r"^'guide\.file' .* cannot be read: there is no such file"):
        ReplayGuide(ReplayGuideConfig(file=tmp_path / "none"))


def test_a_finished_run_can_be_the_guide_of_the_next(tmp_path: Path) -> None:
    first = toy_trainer(tmp_path / "first")
    first.train()
    recorded = tmp_path / "first" / "evaluation" / "policy.jsonl"
    guide = ReplayGuide(ReplayGuideConfig(file=recorded))
    second = toy_trainer(
        tmp_path / "second", guide=guide, algorithm={"base": "ppo++", "help": {"probability": 1.0}}
    )
    samples = second.parts.held_out("test")[:4]
    rollout = second.collect(samples, second.row())
    texts = {
        row["prompt"]: row["completion"] for row in map(json.loads, recorded.read_text().splitlines()[1:])
    }
    by_guide = rollout.written_by(Author.GUIDE).sum(dim=1).tolist()
    assert any(by_guide)
    for sample, text, switch in zip(samples, rollout.texts, by_guide, strict=True):
        assert texts[sample.prompt].startswith(text[:switch])


def test_recordings_of_chats_serve_any_policy(tmp_path: Path) -> None:
    rows = [
        {"prompt": ASKED, "completion": [GOOD], "finished": True},
        {"prompt": "<user>why?", "messages": [{"role": "user", "content": "why?"}], "completion": " so"},
    ]
    replay = ReplayGuide(ReplayGuideConfig(file=Path(write(tmp_path / "a.jsonl", *rows))))
    asked = [
        Request("any text", 4, 0, messages=(SYSTEM, USER)),
        Request("another", 4, 0, messages=(Message("user", "why?"),)),
        Request("<user>why?", 4, 0),
    ]
    assert [c.text for c in replay.write(asked)] == [" a joy", " so", " so"]
