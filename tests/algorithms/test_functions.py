"""A rule of one's own says how long help is, from the run and from what the prompt earned before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import kstest
from visits import LIMIT, SUCCESS, begun, collect

from rlgf.algorithms import Algorithm, algorithm_from, functions
from rlgf.algorithms.functions import misfit, parameters
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.preview.words import row_words
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.record import PromptHistory, PromptRecord
from rlgf.types import Author, Rollout
from toys import letter_gpt

RULES = """
def constant(length, *, tokens: int = 3):
    return tokens

def anywhere(length, where):
    return int(where * length)

def fading(length, visits):
    return length // (visits + 2)

def hardest(length, rate):
    return 0 if rate is None else round((1 - rate) * (length - 1))

def late(length, progress):
    return int(progress * (length - 1))

def too_long(length):
    return length

def a_share(length):
    return 0.5

def of_what(length, weather):
    return 0
"""


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return letter_gpt()


@pytest.fixture
def row(tmp_path: Path) -> Callable[..., Algorithm]:
    (tmp_path / "own.py").write_text(RULES)

    def made(rule: str, base: str = "guided-grpo", **help: Any) -> Algorithm:
        length = {"by": f"{tmp_path}/own.py:{rule}", **help.pop("length", {})}
        found = algorithm_from(
            {"base": base, "help": {"probability": 1.0, "success": SUCCESS, "length": length, **help}}
        )
        assert isinstance(found, Algorithm)
        return found

    return made


Row = Callable[..., Algorithm]


def test_a_roll_in_is_as_long_as_the_rule_says(policy: LanguageModel, row: Row) -> None:
    constant = row("constant", length={"options": {"tokens": 5}})
    assert set(begun(collect(policy, constant), constant)) == {5}
    assert set(begun(collect(policy, row("constant")), row("constant"))) == {3}


def test_a_rule_may_draw(policy: LanguageModel, row: Row) -> None:
    anywhere = row("anywhere", base="ppo++")
    lengths = begun(collect(policy, anywhere, samples=400), anywhere)
    assert kstest([(length + 0.5) / LIMIT for length in lengths], "uniform").pvalue > 0.01


def test_a_rule_may_read_how_often_a_prompt_has_come(policy: LanguageModel, row: Row) -> None:
    record = PromptRecord({i: PromptHistory(visits=i % 3) for i in range(40)})
    rollout = collect(policy, row("fading"), record=record)
    visits = [i % 3 for i in range(40) for _ in range(4)]
    begins = rollout.written_by(Author.GUIDE).sum(dim=1).tolist()
    assert begins == [LIMIT // (v + 2) for v in visits]


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_a_rule_may_read_what_a_gate_has_seen(policy: LanguageModel, row: Row, rate: float) -> None:
    hardest = row("hardest", gate={"high": 1.0})

    def own(rollout: Rollout) -> torch.Tensor:
        return (torch.arange(len(rollout)) % 4 < 4 * rate).float()

    rollout = collect(policy, hardest, own, samples=3)
    assert set(rollout.written_by(Author.GUIDE).sum(dim=1).tolist()) == {round((1 - rate) * (LIMIT - 1))}


def test_help_is_foreseen_where_a_rule_does_not_look_back(row: Row) -> None:
    assert row("late").help.foreseen
    assert not row("fading").help.foreseen


@pytest.mark.parametrize(
    ("rule", "gave"), [("too_long", f"{LIMIT} for a text of {LIMIT} tokens"), ("a_share", "gave 0.5")]
)
def test_a_length_that_is_none_is_refused(policy: LanguageModel, row: Row, rule: str, gave: str) -> None:
    with pytest.raises(UserError, match=gave):
        collect(policy, row(rule))


def test_rules_that_cannot_be_called_are_refused(row: Row, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs 'weather', which is neither an input"):
        row("of_what")
    with pytest.raises(ValidationError, match="has no option 'n' "):
        row("constant", length={"options": {"n": 1}})
    with pytest.raises(ValidationError, match=r"counts successes: set 'help.success'"):
        row("fading", success=None)
    with pytest.raises(ValidationError, match=r"leave 'help.length.low' and 'high' out"):
        row("constant", length={"low": 0.5})
    with pytest.raises(ValidationError, match="those of a function of your own, and 'by' is 'law'"):
        algorithm_from({"base": "ppo++", "help": {"length": {"options": {"a": 1}}}})
    with pytest.raises(UserError, match="'reckord' is not known: did you mean 'record'"):
        algorithm_from({"base": "ppo++", "help": {"length": {"by": "reckord"}}})
    with pytest.raises(UserError, match="has no 'missing'"):
        row("missing")


def test_a_rule_is_in_the_words_of_check_and_in_the_identity_of_a_run(row: Row, tmp_path: Path) -> None:
    words = " ".join(row_words(row("fading"), RolloutConfig()).values())
    assert f"its length is chosen by {tmp_path}/own.py:fading" in words
    assert row("late").model_dump(mode="json")["help"]["length"]["by"].endswith("own.py:late")
    (tmp_path / "recipe.yaml").write_text(
        f"algorithm: {{base: ppo++, help: {{length: {{by: '{tmp_path}/own.py:late'}}}}}}"
    )
    assert load_config("recipes/imdb.yaml", str(tmp_path / "recipe.yaml")).algorithm.rows[0].help.foreseen


def test_what_a_rule_may_read_of_a_prompt_is_what_is_remembered() -> None:
    assert set(PromptHistory._fields) >= functions.OF_PROMPT


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
        (loss, {"clip": "wide"}, "the option 'clip' of the term 'policy' is 'wide': it must be a number"),
    ],
)  # fmt: skip
def test_a_fault_is_named(function: Any, options: dict[str, Any], message: str) -> None:
    found = fault(function, **options)
    assert found is not None
    assert message in found
