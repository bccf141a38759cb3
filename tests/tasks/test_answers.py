"""How a response holds an answer, and the steps that lead to one."""

from __future__ import annotations

from typing import Any

from rlgf.tasks import Task, build_task
from rlgf.tasks.answers import STEPS, Form

SMALL = {"train_samples": 30, "validation_samples": 10, "test_samples": 10}


def reasoning(dataset: str, **options: Any) -> Task:
    return build_task("reasoning", {**SMALL, "dataset": dataset, **options})


def test_steps_are_running_totals_and_operations() -> None:
    assert STEPS["chain_sum"]({"expression": "5 - 7 + 12"}) == ["5 - 7 = -2", "-2 + 12 = 10"]
    steps = STEPS["countdown"]({"expression": "6*(98 - 54) - 34"})
    assert steps == ["98 - 54 = 44", "6 * 44 = 264", "264 - 34 = 230"]
    sample = reasoning("chain_sum", response="{steps}\nAnswer: {answer}").load("test")[0]
    assert sample.references[0].endswith(f"= {sample.columns['answer']}\nAnswer: {sample.columns['answer']}")


def test_an_answer_is_found_where_the_form_says() -> None:
    assert Form().answer(" 12 \n") == "12"
    marked = Form("{steps}\nAnswer: {answer}")
    assert marked.answer("1 + 1 = 2\nAnswer: 3\nAnswer: 2") == "2", "the last one counts"
    assert marked.answer("2") is None
    tagged = Form("<answer>{answer}</answer>")
    assert tagged.answer("so <answer> 7 </answer> it is") == "7"
    assert tagged.written("7") == "<answer>7</answer>"
