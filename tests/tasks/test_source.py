"""Templates that make prompts of columns."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from written_files import load, prompts, refused, written

from rlgf.errors import UserError
from rlgf.tasks import build_task


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_null_in_a_template_is_refused_unless_an_option_says_what_it_is(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '{"q":"Where?","context":"Here."}\n{"q":"Who?","context":null}\n')
    refused(file, "a.jsonl, line 2: 'context' has no value", "'absent'", template="{context}\n{q}")
    assert prompts(file, template="{context}\n{q}", absent="") == ["Here.\nWhere?", "\nWho?"]
    nan = written(tmp_path / "b.jsonl", '{"q": NaN}\n')
    refused(nan, "line 1: 'q' has no value (it is nan)", template="{q}")
    null = written(tmp_path / "c.jsonl", '{"prompt": null}\n')
    refused(null, "line 1: 'prompt' must be a text", "set the option 'absent' to what stands for it")
    assert prompts(null, absent="") == [""]
    nan = written(tmp_path / "d.jsonl", '{"prompt": NaN}\n')
    refused(nan, "line 1: 'prompt' must be a text", "'absent'")
    assert prompts(nan, absent="") == [""]


def test_an_absent_side_of_a_pair_is_not_said_to_be_mended_by_an_option_for_prompts(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '{"prompt": "a", "chosen": "b", "rejected": null}\n')
    options = {"reference_field": "chosen", "rejected_field": "rejected", "absent": ""}
    refused(file, "line 1: 'rejected' must be a text or the messages of a chat (it is None).", **options)


def test_a_long_value_is_cut_in_a_message(tmp_path: Path) -> None:
    row = {"prompt": 5, "references": ["word " * 5000, ""], "list": ["word " * 5000]}
    file = written(tmp_path / "a.jsonl", json.dumps(row) + "\n")
    for options in ({"reference_field": "references"}, {"prompt_field": "list"}, {"template": "{list}"}):
        with pytest.raises(UserError, match=r"line 1: .*'word word .*\.\.\.\)") as caught:
            load(file, **{"reference_field": None, **options})
        assert len(str(caught.value)) < 500


def test_values_in_a_template_are_texts_and_numbers(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '{"n": 4, "x": 1.5, "yes": true, "list": ["a"]}\n')
    assert prompts(file, template="{n} {x} {yes}") == ["4 1.5 true"]
    refused(file, "line 1: 'list' must be a text or a number to stand in a template", template="{list}")


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ('{"question": "{q}"}', "question"),
        ("{}", "{} names no column"),
        ("{q} }", "Single '}'"),
        ("{q", "expected '}'"),
        ("{q:d}", "{q:d} names no column"),
        ("{q!r}", "{q!r} names no column"),
        ("{q.upper}", "{q.upper} names no column"),
        ("{q[0]}", "{q[0]} names no column"),
        ("{ }", "names no column"),
    ],
)  # fmt: skip
def test_braces_that_are_not_fields_are_said(template: str, shown: str) -> None:
    with pytest.raises(UserError) as caught:
        build_task("data", {"train": "q.jsonl", "template": template})
    assert shown in str(caught.value)
    assert "a brace that belongs to the text twice, as {{ or }}" in str(caught.value)


def test_braces_that_are_written_twice_are_text(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '{"q": "{x}", "my column": "y"}\n')
    assert prompts(file, template='{{"question": "{q}"}} {my column}') == ['{"question": "{x}"} y']
    refused(file, "has no field 'r'", "written twice", template="{r}")
    with pytest.raises(UserError, match=r"option 'template'.*twice"):
        build_task("commongen", {"template": "{concepts}}"})
