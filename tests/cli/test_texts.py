"""The commands that write texts, or measure those of a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chat_toys import with_template
from rlgf.cli import app, main
from rlgf.cli.texts import generate, score, winrate
from rlgf.demo.review_verdicts import write_verdict_pairs
from rlgf.errors import UserError
from rlgf.evaluation.files import Evaluation, score_file
from rlgf.run.checkpoint import save_policy
from rlgf.strict import NamedConfig
from toys import letter_gpt

FILE = Path(__file__).parents[1] / "data" / "commongen_outputs.jsonl"
PLAIN = [NamedConfig(name=name) for name in ("words", "sari", "distinct")]


def test_the_command_prints_a_table_and_writes_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "scores.jsonl"
    arguments = ["rlgf", "score", str(FILE), "--metrics", "words, sari", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert "sari" in capsys.readouterr().out
    totals, *records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == 50
    assert totals["totals"]["words"] == pytest.approx(sum(r["words"] for r in records) / 50)
    assert records[0]["columns"]["concepts"] == ["use", "tool", "piece", "metal"]
    assert Evaluation(totals["totals"], records) == score_file(output, PLAIN[:2])
    monkeypatch.setattr(sys, "argv", ["rlgf", "score", str(FILE), "--metrics", "sarri"])
    with pytest.raises(SystemExit):
        main()
    assert "did you mean 'sari'" in capsys.readouterr().err


def test_a_metric_without_a_value_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "short.jsonl"
    file.write_text('{"prompt": "a", "completion": "b c"}\n')
    for names, told in (("words,msttr", True), ("words", False)):
        monkeypatch.setattr(sys, "argv", ["rlgf", "score", str(file), "--metrics", names])
        main()
        assert ("No value for these texts: msttr." in capsys.readouterr().out) == told


def test_what_no_command_can_do_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--metrics names none"):
        score(FILE, metrics=" ,")
    save_policy(letter_gpt(), tmp_path / "small")
    with pytest.raises(
        UserError,
        match=r"--max-tokens 9999 leaves no room .* since the context of .*small holds 32 tokens: lower it to 31",
    ):
        generate(str(tmp_path / "small"), ["ab"], max_tokens=9999)
    generate(str(tmp_path / "small"), ["ab"], max_tokens=3)
    with pytest.raises(UserError, match=r"the prompt 'a\\udcff' is not in UTF-8"):
        generate("no such model", ["ab", os.fsdecode(b"a\xff")])


def test_a_text_is_asked_in_the_chat_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, folder = letter_gpt(), str(tmp_path / "small")
    save_policy(policy, tmp_path / "small")
    with pytest.raises(UserError, match=r"--chat asks for a chat template, and .* has none: leave it out"):
        generate(folder, ["a"], max_tokens=6, temperature=0.01, chat=True)
    with_template(policy.tokenizer, "{{ messages[0].content }}b").save_pretrained(folder)
    capsys.readouterr()
    generate(folder, ["ab"], max_tokens=6, temperature=0.01)
    generate(folder, ["a"], max_tokens=6, temperature=0.01, chat=True)
    continued, asked, answered = capsys.readouterr().out.splitlines()
    assert asked == "a"
    assert len(answered) > 1
    assert continued == "ab" + answered


def test_a_file_of_texts_is_not_overwritten_by_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ['{"prompt": "a", "completion": "b c", "references": ["b"], "reward": 3.5}']
    (tmp_path / "texts.jsonl").write_text(rows[0])
    (tmp_path / "link.jsonl").symlink_to("texts.jsonl")
    monkeypatch.chdir(tmp_path)
    for output, more in (
        ("texts.jsonl", []),
        ("link.jsonl", []),
        (str(tmp_path), []),
        ("new.jsonl", ["--references", "new.jsonl"]),
    ):
        (tmp_path / "new.jsonl").write_text(rows[0])
        monkeypatch.setattr(sys, "argv", ["rlgf", "score", "texts.jsonl", "--output", output, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert "give another --output" in capsys.readouterr().err
        assert [(tmp_path / name).read_text() for name in ("texts.jsonl", "new.jsonl")] == rows * 2


def test_the_command_writes_pairs_and_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pairs", str(tmp_path / "pairs")])
    assert done.exit_code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"train.jsonl is there already, and nothing is overwritten"):
        write_verdict_pairs(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["train.jsonl"]
    written = sorted(path.name for path in (tmp_path / "pairs").iterdir())
    assert written == sorted(f"{name}.jsonl" for name in ("train", "validation", "test", "reward", "judge"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be written: Not a directory; set another folder\."):
        write_verdict_pairs(tmp_path / "file")


def test_metrics_and_rewards_take_options_as_in_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text('{"prompt": "p", "completion": "one two"}\n{"prompt": "q", "completion": "one two"}\n')
    b.write_text('{"prompt": "p", "completion": "one two three four"}\n{"prompt": "q", "completion": "x"}\n')
    winrate(a, b, reward="{name: length, options: {target: 2}}")
    assert "1, 1, 0" in capsys.readouterr().out  # a win by the longer text's penalty, and a tie
    own = tmp_path / "own.py"
    own.write_text(
        "class Long:\n"
        "    def __init__(self, least): self.least = least\n"
        "    def __call__(self, completions, **columns):\n"
        "        return {'long': [float(len(text.split()) >= self.least) for text in completions]}\n"
    )
    output = tmp_path / "scores.jsonl"
    score(b, metrics=f"words, {{name: '{own}:Long', options: {{least: 3}}}}", output=output)
    assert json.loads(output.read_text().splitlines()[0])["totals"] == {"words": 2.5, "long": 0.5}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{name: length", r"--reward \{name: length cannot be read: give a name, or with options"),
        ("{nme: length}", r"--reward \{nme: length\}: 'nme' is not a known key: did you mean 'name'"),
        ("{name: length, options: {goal: 2}}", "reward 'length' has no option 'goal'"),
        ("length, sentiment", "--reward names 2 rewards: give one"),
        ("3", "--reward 3 cannot be read"),
    ],
)
def test_a_reward_that_is_not_written_as_in_a_recipe_is_one_sentence(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        winrate(FILE, reward=given)
