"""From what a recipe says under ``environment:`` to an environment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from rlgf.environments.base import Environment
from rlgf.strict import Strict
from rlgf.tasks.base import build_from, named_callable

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
        """
        Raises:
            UserError: see `build_environment`.
        """
        assert self.name is not None, "checked with the configuration"
        return build_environment(self.name, self.options)


def named_environment(name: str, options: Mapping[str, Any]) -> Any:
    """The class or function of that name, made sure to be one of an environment's, and not called yet.

    Raises:
        UserError: there is no such environment, or it does not take these options.
    """
    return named_callable(name, options, ENVIRONMENTS, "environment", "f(turns, **kwargs)")


def build_environment(name: str, options: Mapping[str, Any]) -> Environment:
    """The environment of that name: a class is called with a recipe's options, a function is used as it is.

    Raises:
        UserError: see `named_environment`; or an option does not fit.
    """
    found = named_environment(name, options)
    built: Environment = (
        build_from(found, options, f"environment '{name}'") if inspect.isclass(found) else found
    )
    return built
