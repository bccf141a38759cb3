"""How often and how far somebody else begins a response, and which gate lets them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlgf.algorithms import Algorithm, Gate, RollinLength, algorithm_from
from rlgf.algorithms.catalog import LUFFY
from rlgf.algorithms.script import Script, filled
from rlgf.schedules import Schedule, constant
from rlgf.types import Author


def test_a_gate_opens_between_its_bounds() -> None:
    assert Gate().opens(0.0)
    assert not Gate().opens(0.1)
    assert not Gate().opens(None)
    assert Gate(low=0.2, high=0.6).opens(0.6)
    assert not Gate(low=0.2, high=0.6).opens(0.0)
    assert not Gate(looks_at="record", failures=2).opens(0.0, failures=1)


@pytest.mark.parametrize(
    ("law", "length", "progress", "positions"),
    [
        (RollinLength(), 5, 0.0, [1, 2, 3, 4]),
        (RollinLength(), 2, 0.0, [1]),
        (RollinLength(), 1, 0.0, []),
        (RollinLength(), 0, 0.0, []),
        (RollinLength(high=constant(0.0)), 10, 0.0, []),
        (RollinLength(low=constant(1.0)), 10, 0.0, [9]),
        # 0.07 * 100 is a rounding above 7, 0.29 * 100 one below 29.
        (RollinLength(low=constant(0.07), high=constant(0.07)), 100, 0.0, [7]),
        (RollinLength(low=constant(0.29), high=constant(0.29)), 100, 0.0, [29]),
        (RollinLength(low=Schedule(start=0.8, end=0.0), high=Schedule(start=1.0, end=0.4)), 10, 0.0, [8, 9]),
        (
            RollinLength(low=Schedule(start=0.8, end=0.0), high=Schedule(start=1.0, end=0.4)),
            10,
            1.0,
            [1, 2, 3, 4],
        ),
    ],
)
def test_the_law_is_uniform_between_two_shares_of_a_text(
    law: RollinLength, length: int, progress: float, positions: list[int]
) -> None:
    assert list(law.positions(length, progress)) == positions


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"low": 0.8, "high": 0.2}, "'low' 0.8 must not exceed 'high' 0.2, as it does when 0% of the run"),
        ({"low": 0.5, "high": {"start": 1, "end": 0}}, "'low' 0.5 must not exceed 'high' 0.49, .* when 51%"),
        (
            {"low": {"start": 0, "end": 0.5, "shape": "step", "over": 0.625}, "high": 0.4},
            "must not exceed 'high' 0.4, .* when 63%",
        ),
    ],
)
def test_the_lower_share_of_a_law_exceeds_the_upper_one_at_no_time(
    shares: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        RollinLength.model_validate(shares)
    with pytest.raises(ValidationError, match=r"'low' 0\.8 must not exceed 'high' 0\.5"):
        algorithm_from({"base": "questa", "help": {"length": {"low": 0.8}}})


def test_a_coin_can_take_the_place_of_the_members() -> None:
    changed = algorithm_from({"base": "luffy", "help": {"members": None, "probability": 0.25}})
    assert changed == LUFFY.changed(help={"members": None, "probability": 0.25})
    assert isinstance(changed, Algorithm)
    assert changed.help.members is None


def test_a_template_is_filled_once() -> None:
    assert filled("{hint}|{prompt}", hint="{prompt}", prompt="{hint}{x}") == "{prompt}|{hint}{x}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"script": {"hint": {"author": None}}}, "either 'author' .* or 'column'"),
        ({"script": {"hint": {"column": "x"}}}, "either 'author' .* or 'column'"),
        ({"script": {"hint": {"template": "{prompt}"}}}, "must hold {hint} and {prompt}"),
        ({"script": {"hint": {"author": "policy"}}}, "the policy must be told to write a hint"),
        ({"script": {"hint": {"author": "reference", "ask": "{prompt}"}}}, "leave 'ask' out"),
        ({"help": {"length": {"high": 0.5}}}, "leave 'low', 'high' and 'by' out, or set 'whole: false'"),
        (
            {"help": {"length": {"whole": False, "by": "record"}, "shared": False}},
            "judges help by all texts that had it",
        ),
        ({"help": {"length": {"whole": False, "by": "trial"}}}, "set 'by' to law, record or difficulty"),
        ({"help": {"length": {"whole": False, "by": "trial"}}}, "or give the hint tiers"),
        ({"base": "ghpo", "help": {"length": {"by": "record"}}}, "set 'help.length.by: trial'"),
        ({"base": "ghpo", "help": {"length": {"by": "law"}}}, "are tried one after another"),
        ({"base": "ghpo", "help": {"gate": {"looks_at": "record"}}}, "looks for help where texts failed"),
        ({"base": "ghpo", "help": {"length": {"high": 0.5}}}, "leave 'help.length.low' and 'high' out"),
        ({"base": "ghpo", "script": {"hint": {"author": "guide"}}}, "tiers are of a text that is there"),
        ({"base": "ghpo", "script": {"hint": {"columns": ["x"]}}}, "a hint has one origin"),
        ({"base": "ghpo", "script": {"hint": {"shares": [0.5, 0.25]}}}, "must rise"),
        ({"base": "ghpo", "script": {"hint": {"shares": [0.5, 1.5]}}}, "less than or equal to 1"),
        ({"help": {"success": None}}, "'help.gate' counts successes: set 'help.success'"),
        ({"script": {"rollin": "guide"}}, "leave 'script.rollin' or 'script.hint' out"),
        ({"help": {"probability": 0.0}}, "its hint is never given"),
        ({"advantage": "leave_one_out", "terms": {"kl": None}}, "with the loss 'kl' and 'view: prompt'"),
        ({"kl": {"target": 0.1}}, "leave 'kl.target' out"),
        ({"terms": {"x": {"loss": "nll", "on": "references", "view": "prompt"}}}, "leave its 'view' out"),
    ],
)
def test_a_hint_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from({"base": "hinted-grpo", **changes})


@pytest.mark.parametrize("author", ["gide", "nobody", "environment", 2])
def test_an_author_that_writes_no_text_is_told_who_does(author: object) -> None:
    with pytest.raises(ValueError, match="it must be one of policy, guide, reference, past"):
        Script.model_validate({"rollin": author})
    assert Script.model_validate({"rollin": "Guide"}).rollin is Author.GUIDE
    assert Script.model_validate({"rollin": None}).rollin is None
