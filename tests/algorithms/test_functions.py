"""Whether a function can be called as a row says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlgf.algorithms.functions import misfit, parameters


def loss(logprobs: Any, mask: Any, *, clip: float = 0.2) -> Any: ...


def needy(logprobs: Any, scale: float) -> Any: ...


class Loss:
    """Not a function."""


def fault(function: Any, **options: Any) -> str | None:
    return misfit(function, options, "the loss 'x'", "the term 'policy'", {"logprobs", "mask"})


def test_what_a_function_reads_is_named_by_its_parameters() -> None:
    assert parameters(loss) == {"logprobs", "mask", "clip"}


def test_inputs_and_options_that_fit_are_no_fault() -> None:
    assert fault(loss) is None
    assert fault(loss, clip=0.1) is None
    assert fault(needy, scale=2.0) is None


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (Loss, {}, "the loss 'x' of the term 'policy' must be a function"),
        (5, {}, "must be a function"),
        (torch.relu, {}, "does not say what it reads"),
        (loss, {"clp": 0.1}, "has no option 'clp' (it has 'clip')"),
        (needy, {}, "needs 'scale', which is neither an input (logprobs, mask) nor among its 'options'"),
        (loss, {"clip": "wide"}, "the option 'clip' of the term 'policy' is 'wide': Input should be a valid number"),
    ],
)  # fmt: skip
def test_a_fault_is_named(function: Any, options: dict[str, Any], message: str) -> None:
    found = fault(function, **options)
    assert found is not None
    assert message in found
