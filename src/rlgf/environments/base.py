"""What an environment is: anything that answers an author's turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pydantic import Field

from rlgf.calls import awaited, call, own
from rlgf.errors import UserError
from rlgf.jsontext import is_unicode
from rlgf.registry import instance_of, named_callable
from rlgf.strict import Strict
from rlgf.types import Messages, Sample


@runtime_checkable
class Environment(Protocol):
    """A function that answers each turn of a dialogue, such as a tool, a game or a user.

    It is called by keyword, with what it takes of these: ``turns``, the author's turns so far, the one to answer last;
    ``replies``, its own answers to those before; ``prompt``, ``references`` and the sample's further columns. It must
    answer the same where it is asked the same, as a resumed run does: a game replays its turns. It may be a coroutine
    function. Before models load it is asked once, with a text of the data for a turn.

    A turn ends in the token that ends a text. It also ends after the text that an attribute ``stop`` of the
    environment holds, where it has one: a tool then answers in the middle of a text, which goes on after the answer.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> str | None:
        """The text that follows the last turn as it stands, with its own spaces and line breaks; None where the
        dialogue is over. In a chat it is the content of the user's next message."""


def stop_of(environment: Environment) -> str:
    """The text that ends a turn, beside the end of the text; empty where there is none."""
    return str(getattr(environment, "stop", "") or "")


def reply_to(environment: Environment, sample: Sample, dialogue: Messages) -> str | None:
    """An environment's answer to the last turn of a dialogue.

    Args:
        dialogue: turns of the assistant and replies of the user, one after the other; a turn is the last.

    Raises:
        UserError: it answered something else than a text or None, or takes what is not given.
    """
    known: Mapping[str, Any] = {
        # It may change what it is given, and lists of a column are those of the data.
        **{name: own(value) for name, value in sample.columns.items()},
        "turns": _said("assistant", dialogue),
        "replies": _said("user", dialogue),
        "prompt": sample.prompt,
        "references": list(sample.references),
    }
    (answer,) = awaited([call(environment, known, ("turns",), "the environment")])
    if answer is not None and not isinstance(answer, str):
        raise UserError(
            "the environment must answer a turn with a text, or with None where the dialogue is over (it answered "
            f"{answer!r})."
        )
    if answer is not None and not is_unicode(answer):
        raise UserError(
            "the environment answered with half of a surrogate pair, which is not a character: put U+FFFD in its place."
        )
    return answer


def _said(role: str, dialogue: Messages) -> Sequence[str]:
    return [message.content for message in dialogue if message.role == role]


ENVIRONMENTS: Mapping[str, str] = {
    "calculator": "rlgf.environments.calculator:Calculator",
}
"""Where each environment is, by name."""


class EnvironmentConfig(Strict):
    """Who answers the turns of a dialogue: one of ours, or your own as `module:attribute` or `file.py:attribute`.

    In a recipe the bare name is short for one without options.
    """

    name: str | None = None
    options: dict[str, Any] = {}
    turns: int = Field(default=8, ge=2)
    """How many turns a dialogue may have; the last one is not answered."""

    def build(self) -> Environment:
        """The environment: a class is made with the options, a function is used as it is.

        Raises:
            UserError: see `named_environment`; or an option does not fit.
        """
        assert self.name is not None, "checked with the configuration"
        found = named_environment(self.name, self.options)
        built: Environment = instance_of(found, self.options, f"environment '{self.name}'")
        return built


def named_environment(name: str, options: Mapping[str, Any]) -> Any:
    """The class or function that an environment's name stands for. It is not called.

    Raises:
        UserError: there is no such environment, or it does not take these options.
    """
    return named_callable(name, options, ENVIRONMENTS, "environment", "f(turns, **kwargs)")
