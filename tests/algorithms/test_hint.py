"""What a hint may be, and how a template is filled."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlgf.algorithms import algorithm_from
from rlgf.algorithms.hint import filled


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
        ({"help": {"length": {"by": "record"}}}, "searches how long the beginning of a response has to be"),
        ({"help": {"length": {"by": "trial"}}}, "set 'by' to law or difficulty"),
        ({"help": {"length": {"by": "trial"}}}, "or give the hint tiers"),
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
