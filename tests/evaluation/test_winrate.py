"""How often one model's texts are preferred, by a reward and by a judge after a real socket."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import faulty_server
from faulty_server import FaultyServer, serving
from rlgf.cli import main
from rlgf.errors import UserError
from rlgf.evaluation.files import Texts
from rlgf.evaluation.statistics import interval
from rlgf.evaluation.winrate import WinRate, by_judge, by_reward, http_judge, read_pairs, winrate_table
from rlgf.types import Sample

PROMPTS = [f"prompt {i}" for i in range(6)]
LONG, SHORT = "a long text", "short"
MINE = [LONG, LONG, LONG, SHORT, LONG, SHORT]
THEIRS = [SHORT, SHORT, SHORT, LONG, LONG, SHORT]
"""A is longer three times, shorter once, equal twice."""
SCORES = [1.0, 1.0, 1.0, 0.0, 0.5, 0.5]


def write(path: Path, texts: list[str], **more: Any) -> Path:
    rows = [{"prompt": p, "completion": t, **more} for p, t in zip(PROMPTS, texts, strict=False)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(completions: list[str]) -> Texts:
    return Texts([Sample(p, columns={"level": 2}) for p in PROMPTS], completions, PROMPTS)


def judge(server: FaultyServer, folder: Path, **keys: Any) -> Path:
    recipe = folder / "judge.yaml"
    recipe.write_text(
        json.dumps(
            {"url": server.url, "model": "letters", "cache": str(folder / "cache"), "patience": 5, **keys}
        )
    )
    return recipe


def read_question(prompt: str) -> tuple[str, str]:
    found = re.search(r"Text 1:\n(.*)\n\nText 2:\n(.*)\n\nWhich", prompt)
    assert found is not None
    return found[1], found[2]


def prefers_length(prompt: str, *_: Any) -> str:
    first, second = map(len, read_question(prompt))
    return f"Text {0 if first == second else 1 if first > second else 2}."


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., str]) -> FaultyServer:
    monkeypatch.setattr(faulty_server, "answer_to", answer)
    return FaultyServer()


def test_a_reward_prefers_what_it_pays_more() -> None:
    def length(prompts: Any, completions: Any, *, level: list[int], **columns: Any) -> list[float]:
        return [float(len(text) * n) for text, n in zip(completions, level, strict=True)]

    found = by_reward(length, texts(MINE), THEIRS)
    assert found == WinRate(interval(SCORES), wins=3, ties=2, losses=1)
    assert found.rate.mean == pytest.approx(4 / 6)
    # Student's t with 5 degrees of freedom: 2.571; deviations of 1/3 three times, -2/3, -1/6 twice.
    assert found.rate.half_width == pytest.approx(
        2.5706 * ((3 / 9 + 4 / 9 + 2 / 36) / 5 / 6) ** 0.5, rel=1e-4
    )


def test_a_judge_reads_both_orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(answering(monkeypatch, prefers_length)) as server:
        ask = http_judge(judge(server, tmp_path))
        found = by_judge(ask, texts(MINE), THEIRS)
        asked = {body["messages"][-1]["content"] for body in server.bodies}
        again = by_judge(ask, texts(MINE), THEIRS)
        assert len(server.bodies) == len(asked) == 10, "equal texts are one question, and the cache answers"
        assert server.bodies[0]["temperature"] == 0
    assert found == again == WinRate(interval(SCORES), 3, 2, 1, first_rate=0.5, agreement=1.0)
    assert {read_question(q) for q in asked if "prompt 0" in q} == {(LONG, SHORT), (SHORT, LONG)}


def test_a_judge_that_takes_whatever_comes_first_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving(answering(monkeypatch, lambda *_: " 1")) as server:
        found = by_judge(http_judge(judge(server, tmp_path)), texts(MINE), THEIRS)
    assert found == WinRate(interval([0.5] * 6), 0, 6, 0, first_rate=1.0, agreement=0.0)


def test_a_judge_that_leans_to_the_second_loses_a_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It sees a difference only if the better text comes second, and else cannot say."""

    def leaning(prompt: str, *_: Any) -> str:
        first, second = read_question(prompt)
        return "2" if len(second) > len(first) else "0"

    with serving(answering(monkeypatch, leaning)) as server:
        found = by_judge(http_judge(judge(server, tmp_path)), texts(MINE), THEIRS)
    assert found == WinRate(
        interval([0.75] * 3 + [0.25] + [0.5] * 2), 3, 2, 1, first_rate=0.0, agreement=2 / 6
    )


@pytest.mark.parametrize("answer", ["", "both", "1 or 2", "12", "the first"])
def test_an_answer_that_is_no_choice_is_a_tie_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    with serving(answering(monkeypatch, lambda *_: answer)) as server:
        found = by_judge(http_judge(judge(server, tmp_path)), texts(MINE), THEIRS)
    assert found == WinRate(interval([0.5] * 6), 0, 6, 0, first_rate=None, agreement=None, unclear=12)
    assert [*winrate_table(found).columns[1].cells][2:] == [
        "no choice was made",
        "no two choices were made",
        "12",
    ]


def test_a_judge_agrees_with_itself_where_it_chose_twice() -> None:
    def agreement(one_order: list[str], other_order: list[str]) -> float | None:
        unclear = ["?"] * (len(MINE) - 3)
        answers = [*one_order, *unclear, *other_order, *unclear]
        return by_judge(lambda questions: answers, texts(MINE), THEIRS).agreement

    assert agreement(["1", "1", "?"], ["2", "?", "2"]) == 1.0
    assert agreement(["1", "1", "?"], ["2", "1", "2"]) == 0.5


def test_failures_and_the_budget_are_those_of_a_guide(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faulty_server, "answer_to", prefers_length)
    with serving(FaultyServer(faults=["rate limit", "drop", "half of the JSON"], share=0.4)) as server:
        found = by_judge(http_judge(judge(server, tmp_path, patience=60)), texts(MINE), THEIRS)
        assert found.rate == interval(SCORES)
        assert sum(server.seen.values()) > 10, "something failed"
    with serving(FaultyServer()) as server:
        limited = judge(server, tmp_path, cache=None, budget={"calls": 5})
        with pytest.raises(UserError, match=r"judge\.yaml.*budget is spent.*'budget'") as caught:
            by_judge(http_judge(limited), texts(MINE), THEIRS)
        assert not re.search("update|--resume|unguided", str(caught.value))
        assert not server.bodies, "nothing was sent"
        wrong = judge(server, tmp_path, cache=None, model="other")
        with pytest.raises(UserError, match=r"judge\.yaml: 'url'.*'other'"):
            by_judge(http_judge(wrong), texts(MINE), THEIRS)


def test_a_recipe_that_is_no_judge_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "judge.yaml"
    with pytest.raises(UserError, match=r"there is no judge .*judge\.yaml"):
        http_judge(recipe)
    for text, said in (
        ("[1]", "must be a mapping of keys to values"),
        ("a: [", "is not valid YAML"),
        ("url: http://x/v1", "model"),
        ("{url: http://x/v1, model: m, concurency: 3}", "did you mean 'concurrency'"),
        ("{url: http://x/v1, model: m, template: hello}", "write {text} in it"),
        ("{url: http://x/v1, model: m, budget: {then: unguided}}", "'budget.then: unguided' is for runs"),
        ("{url: http://x/v1, model: m, candidates: 3}", "'candidates' is 3, and a judge answers once"),
    ):
        recipe.write_text(text)
        with pytest.raises(UserError, match=rf"judge\.yaml.*{re.escape(said)}"):
            http_judge(recipe)


def test_files_must_answer_the_same_prompts(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", MINE), write(tmp_path / "b", THEIRS)
    assert read_pairs(a, b)[1] == THEIRS
    with pytest.raises(UserError, match=r"a, line 1 has no reference to compare with"):
        read_pairs(a, None)
    assert read_pairs(write(tmp_path / "c", MINE, references=["r", "s"]), None)[1] == ["r"] * 6
    with pytest.raises(UserError, match=r"a has 6 texts and .*b has 5"):
        read_pairs(a, write(tmp_path / "b", THEIRS[:5]))
    rows = [{"prompt": prompt, "completion": "x"} for prompt in reversed(PROMPTS)]
    (tmp_path / "b").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"b, line 1 answers another prompt"):
        read_pairs(a, tmp_path / "b")


def test_the_command_shows_the_rate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = str(write(tmp_path / "a", MINE)), str(write(tmp_path / "b", THEIRS))
    with serving(answering(monkeypatch, prefers_length)) as server:
        monkeypatch.setattr(sys, "argv", ["rlgf", "winrate", a, b, "--judge", str(judge(server, tmp_path))])
        main()
    shown = capsys.readouterr().out
    assert "0.667 ± 0.428" in shown
    assert "3, 2, 1" in shown
    monkeypatch.setattr(sys, "argv", ["rlgf", "winrate", a, b, "--reward", "toys:share_of_a"])
    main()
    assert "3, 2, 1" in capsys.readouterr().out, "the long text has an a"
    one_of = "exactly one of --reward and --judge"
    for options, refusal in (
        ([], one_of),
        (["--reward", "x", "--judge", "y"], one_of),
        (["--reward", "discriminator"], "made from the policy of a run"),
    ):
        monkeypatch.setattr(sys, "argv", ["rlgf", "winrate", a, b, *options])
        with pytest.raises(SystemExit):
            main()
        assert refusal in capsys.readouterr().err
