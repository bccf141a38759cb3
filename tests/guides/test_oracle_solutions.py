"""How mistakes are made: how many, where, and what follows from them."""

from __future__ import annotations

import pytest
from oracle_toys import KINDS, finished, oracle, samples, solved

from rlgf.types import Sample


def test_as_many_letters_are_wrong_as_it_is_told() -> None:
    rows = samples("spell_backward", 300, response="{answer}", min_word_len=10, max_word_len=10)
    texts = finished(oracle(0.2), rows, [""] * len(rows))
    right = [
        a == b
        for row, text in zip(rows, texts, strict=True)
        for a, b in zip(row.references[0], text, strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(0.8, abs=0.03)  # four standard errors are 0.029
    assert solved(rows, texts) == pytest.approx(0.8**10, abs=0.09)


def test_habits_are_of_a_letter_wherever_it_stands() -> None:
    rows = samples("spell_backward", 300, response="{answer}", min_word_len=10, max_word_len=10)
    letters, habits = 0, 0
    for seed in range(10):
        guide = oracle(0.2, seed, habitual=True)
        texts, begun = (finished(guide, rows, [row.references[0][:n] for row in rows]) for n in (0, 3))
        assert [text[3:] for text in texts] == [text[3:] for text in begun]
        said = {
            (a, a == b)
            for row, text in zip(rows, texts, strict=True)
            for a, b in zip(row.references[0], text, strict=True)
        }
        assert len({letter for letter, _ in said}) == len(said), "a letter is always right or always wrong"
        letters += len(said)
        habits += sum(not right for _, right in said)
    assert habits / letters == pytest.approx(0.2, abs=0.1)  # four standard errors, of 260 letters


@pytest.mark.parametrize("dataset", KINDS)
def test_habits_of_steps_repeat(dataset: str) -> None:
    rows = samples(dataset)
    guide = oracle(0.5, habitual=True)
    once = finished(guide, rows, [""] * len(rows))
    assert once != finished(oracle(), rows, [""] * len(rows))
    assert finished(guide, rows[::-1], [""] * len(rows)) == once[::-1]


@pytest.mark.parametrize("errors", [0.5, 1.0])
def test_what_follows_a_mistake_of_its_own_follows_from_it(errors: float) -> None:
    rows = samples("chain_sum", 1, min_terms=5, max_terms=5) * 10
    texts = finished(oracle(errors), rows, [""] * len(rows))
    assert len(set(texts)) > 5, "other requests get other mistakes"
    for text in texts:
        lines = [line.split(" ") for line in text.split("\n")[:-1]]
        assert [line[0] for line in lines[1:]] == [line[4] for line in lines[:-1]], "from its own totals"
        assert text.endswith(f"Answer: {lines[-1][4]}")
        wrong = [eval(" ".join(line[:3])) != int(line[4]) for line in lines]
        assert errors < 1 or all(wrong)


@pytest.mark.parametrize(
    ("begun", "whole"),
    [
        ("5 + 7 = 13", "5 + 7 = 13\n12 - 4 = 8\nAnswer: 8"),
        ("5 + 7 = 13\n13 - ", "5 + 7 = 13\n13 - \n12 - 4 = 8\nAnswer: 8"),
        ("5 + 8", "5 + 8\n5 + 7 = 12\n12 - 4 = 8\nAnswer: 8"),
        ("5 + 7 = 12\n12 - 4 = 8\nAns", "5 + 7 = 12\n12 - 4 = 8\nAnswer: 8"),
        ("5 + 7 = 12\n12 - 4 = 8\nAnswer: 7", "5 + 7 = 12\n12 - 4 = 8\nAnswer: 7"),
    ],
)
def test_wrong_steps_are_made_good_and_a_wrong_answer_is_not(begun: str, whole: str) -> None:
    columns = {
        "dataset": "chain_sum",
        "response_form": "{steps}\nAnswer: {answer}",
        "answer": "8",
        "metadata": {"expression": "5 + 7 - 4"},
    }
    row = Sample("5 + 7 - 4 =", ("5 + 7 = 12\n12 - 4 = 8\nAnswer: 8",), columns)
    assert finished(oracle(), [row], [begun]) == [whole]


def test_a_wrong_list_ends_and_a_wrong_word_is_spelled_on() -> None:
    listed, spelled = samples("number_sorting", 1)[0], samples("spell_backward", 1, response="{answer}")[0]
    assert finished(oracle(), [listed], ["['7777'"]) == ["['7777'"]
    right = spelled.references[0]
    assert finished(oracle(), [spelled], ["??"]) == ["??" + right[2:]]
