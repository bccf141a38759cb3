"""Values as people type them who think in Python, or to whom quotes are the shell's: each is told what to write."""

from __future__ import annotations

import pytest

from refused_recipes import BASE, refusal


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollout.top_k=None", "'rollout.top_k' (it is 'None'): it must be a whole number, or null."),
        ("seed=None", "'seed' (it is 'None'): it must be a whole number."),
        (
            "name=7",
            "'name' (it is 7): it must be a text: put it in quotes, on a command line as in name=\"'7'\".",
        ),
        ("policy.model={a}: b", "goes into quotes of its own, as in name='\"a: b\"'."),
    ],
)
def test_a_value_that_is_nearly_right_is_told_how_it_is_written(override: str, said: str) -> None:
    assert said in refusal(BASE, override)
