"""A careless solver copies what a hint tells it, and slips in the rest; pairs set a careless solution against a right one."""

from __future__ import annotations

import pytest

from rlgf.demo.careless import CarelessPairs, CarelessReader
from rlgf.guides import Request
from rlgf.tasks.reasoning import ReasoningTask
from rlgf.types import Sample

COLUMNS = {"response_form": "{answer}", "dataset": "spell_backward", "answer": "olleh", "metadata": {}}
HELLO = Sample("hello>", ("olleh",), COLUMNS)


def request(prompt: str, written: str = "", seed: int = 0) -> Request:
    return Request(prompt + written, 10, seed, prompt_length=len(prompt), sample=HELLO)


@pytest.mark.parametrize(
    ("prompt", "written", "text"),
    [
        ("hello>", "", "pmmfi"),
        ("olleh|hello>", "", "olleh"),
        ("oll|hello>", "", "ollfi"),
        ("oll|hello>", "pm", "lfi"),
    ],
)
def test_letters_of_the_hint_are_right_and_others_are_not(prompt: str, written: str, text: str) -> None:
    assert CarelessReader(errors=1.0, misread=0.0).write([request(prompt, written)])[0].text == text


def test_chances_of_a_slip_are_those_of_its_place() -> None:
    reader = CarelessReader(errors=0.75, misread=0.1)
    texts = [answer.text for answer in reader.write([request("oll|hello>", seed=n) for n in range(1000)])]
    right = [sum(text[i] == "olleh"[i] for text in texts) / len(texts) for i in range(5)]
    assert right == pytest.approx([0.9, 0.9, 0.9, 0.25, 0.25], abs=0.05)
    assert reader.write([request("oll|hello>", seed=7)])[0].text == texts[7]


def test_pairs_are_the_problems_of_reasoning_with_a_careless_solution() -> None:
    options = {"train_samples": 300, "min_word_len": 10, "max_word_len": 10, "prompt": "{word}>"}
    pairs = CarelessPairs("spell_backward", errors=0.1, **options)
    for split in ("train", "test"):
        plain = ReasoningTask("spell_backward", **options).load(split)
        assert [(s.prompt, s.references, s.columns) for s in pairs.load(split)] == [
            (s.prompt, s.references, s.columns) for s in plain
        ]
    wrong = [
        sum(a != b for a, b in zip(str(s.rejected), s.references[0], strict=True))
        for s in pairs.load("train")
    ]
    assert min(wrong) == 1
    # Of ten letters each is wrong with a chance of 0.1, and where none is, one is made so.
    assert sum(wrong) / len(wrong) == pytest.approx(10 * 0.1 + 0.9**10, abs=0.15)
    assert [s.rejected for s in pairs.load("train")] == [
        s.rejected for s in CarelessPairs("spell_backward", errors=0.1, **options).load("train")
    ]
