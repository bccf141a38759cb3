"""The guide `oracle`: a program that begins and finishes solutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from resume_script import toy_trainer
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.guides import Request, build_guide
from rlgf.guides.oracle import OracleGuide, OracleGuideConfig
from rlgf.rewards import RewardInput, build_reward, checked_rewards
from rlgf.tasks import build_task
from rlgf.types import Author, Sample

KINDS: dict[str, dict[str, Any]] = {
    "chain_sum": {"response": "{steps}\nAnswer: {answer}"},
    "countdown": {"response": "{steps}\n= {answer}"},
    "number_sorting": {},
    "spell_backward": {"response": "<answer>{answer}</answer>"},
    "word_sorting": {},
}


def samples(dataset: str, count: int = 20, **options: Any) -> list[Sample]:
    sizes = {"train_samples": count, "validation_samples": 1, "test_samples": 1}
    return list(
        build_task("reasoning", {**sizes, "dataset": dataset, **KINDS[dataset], **options}).load("train")
    )


def oracle(errors: float = 0.0, seed: int = 0, *, habitual: bool = False) -> OracleGuide:
    return OracleGuide(OracleGuideConfig(oracle=True, errors=errors, seed=seed, habitual=habitual))


def finished(guide: OracleGuide, rows: list[Sample], written: list[str]) -> list[str]:
    """The whole responses."""
    requests = [
        Request(row.prompt + begun, 99, seed=i, prompt_length=len(row.prompt), sample=row)
        for i, (row, begun) in enumerate(zip(rows, written, strict=True))
    ]
    return [begun + part.text for begun, part in zip(written, guide.write(requests), strict=True)]


def solved(rows: list[Sample], texts: list[str]) -> float:
    columns = {name: [row.columns[name] for row in rows] for name in rows[0].columns}
    given = RewardInput([row.prompt for row in rows], texts, columns)
    return float(checked_rewards(build_reward("verifier", {}), given).mean())


@pytest.mark.parametrize("dataset", KINDS)
def test_without_mistakes_it_finishes_every_beginning_of_the_reference(dataset: str) -> None:
    for row in samples(dataset, 3):
        reference = row.references[0]
        begun = [reference[:length] for length in range(len(reference) + 1)]
        assert finished(oracle(), [row] * len(begun), begun) == [reference] * len(begun)


@pytest.mark.parametrize("dataset", KINDS)
def test_where_every_step_is_wrong_nothing_is_solved(dataset: str) -> None:
    rows = samples(dataset)
    assert solved(rows, finished(oracle(1.0), rows, [""] * len(rows))) == 0.0


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


def test_mistakes_repeat_and_depend_on_the_request_alone() -> None:
    rows = samples("spell_backward")
    once = finished(oracle(0.3), rows, [""] * len(rows))
    assert finished(oracle(0.3), rows, [""] * len(rows)) == once
    assert finished(oracle(0.3), rows[:1], [""]) == once[:1]
    assert finished(oracle(0.3, seed=1), rows, [""] * len(rows)) != once


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


def test_it_serves_any_task_with_references_and_refuses_one_without() -> None:
    assert finished(oracle(), [Sample("a", ("the film", "the cat"))], ["the c"]) == ["the cat"]
    with pytest.raises(UserError, match="'oracle' has no solution of 'a'"):
        finished(oracle(), [Sample("a")], [""])


def test_a_recipe_names_it_in_one_word() -> None:
    recipe = {"task": "t", "policy": {"model": "m"}, "reward": "verifier"}
    config = load_config({**recipe, "guide": "oracle"})
    assert isinstance(build_guide(config.guide), OracleGuide)
    assert (
        load_config({**recipe, "guide": {"oracle": True, "errors": 0.1}}).guide.label == "oracle, errors 0.1"
    )
    with pytest.raises(UserError, match="errors"):
        load_config({**recipe, "guide": {"oracle": True, "errors": 2}})


def test_a_run_rolls_in_with_it(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, guide=oracle(), algorithm={"base": "ppo++", "help": {"probability": 1.0}})
    rollout = trainer.collect(trainer.parts.train[:4], trainer.row())
    begun = rollout.written_by(Author.GUIDE)
    assert begun.any(dim=1).all()
    for row, text, length in zip(rollout.samples, rollout.texts, begun.sum(dim=1).tolist(), strict=True):
        assert text[:length] == row.references[0][:length]
    assert torch.equal(begun, begun.cummin(dim=1).values), "a roll-in comes first"
