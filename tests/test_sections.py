"""The sections of a recipe by themselves: defaults, short forms, and what each refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from refused_recipes import BASE
from rlgf.algorithms import Algorithm
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.schedules import Schedule, constant
from rlgf.sections import Sections


def test_a_schedule_is_a_number_or_a_mapping() -> None:
    config = load_config(
        BASE,
        "update.learning_rate=1e-4",
        "algorithm.terms.value.weight={start: 1, end: 0, shape: cosine}",
        {"algorithm": {"terms": {"entropy": {"weight": {"start": 0.01}}}}},
    )
    assert config.update.learning_rate == constant(1e-4), "YAML 1.1 would read 1e-4 as a string"
    assert isinstance(config.algorithm, Algorithm)
    terms = config.algorithm.terms
    assert terms["value"].weight == Schedule(start=1, end=0, shape="cosine")
    assert (terms["entropy"].loss, terms["entropy"].weight) == ("entropy", constant(0.01))


def test_default_folder_is_named_after_the_run() -> None:
    assert load_config(BASE, "name=mine").folder == Path("runs/mine")
    assert load_config(BASE, "output=there").folder == Path("there")


def test_sections_stand_also_where_they_do_not_fit_together() -> None:
    sections = Sections(algorithm="ppo++")
    assert (sections.turns, sections.foreseen, sections.guide) == (1, True, None)
    with pytest.raises(ValueError, match="'task' is missing"):
        Config(algorithm="ppo++")


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"model": "gpt2", "scratch": {"layers": 1}}, "give exactly one of 'model' and 'scratch'"),
        ({"model": "gpt2", "quantization": "4bit"}, "give 'model' and 'lora' with it"),
    ],
)
def test_a_policy_has_one_source_and_is_quantized_under_an_adapter(
    policy: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Sections(policy=policy)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ({"name": "a\0b"}, "character NUL"),
        ({"output": "~/runs"}, "'~' is not expanded"),
        ({"name": "run-${seed}"}, r"'\$\{' stands for nothing in a recipe"),
        ({"output": "${oc.env:HOME}/x"}, r"'\$\{' stands for nothing in a recipe"),
    ],
)
def test_what_becomes_part_of_a_path_can_be_one(field: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Sections(**field)


@pytest.mark.parametrize("name", ["..", ".", "", "/mine", "a/../../b"])
def test_a_name_is_a_folder_below_runs(name: str) -> None:
    with pytest.raises(UserError, match=r"'name'.*becomes a folder below runs/"):
        load_config(BASE, {"name": name})
    assert load_config(BASE, {"name": "a/b"}).folder == Path("runs/a/b")
