"""A guide of one's own, named from a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.guides import OwnGuideConfig
from rlgf.guides.own import own_guide
from toys import FavouringGuide


class Scoring(FavouringGuide):
    def log_distribution(self, tokens: Any) -> Any:
        raise NotImplementedError


class Awaited:
    async def write(self, requests: Any) -> list[Any]:
        return []


class Deaf:
    def write(self) -> list[Any]:
        return []


class Mute:
    """Cannot write."""


def made(favourite: str = "b") -> FavouringGuide:
    return FavouringGuide(favourite, 1.0)


def nothing() -> Mute:
    return Mute()


NUMBER = 5


def config(name: str, **options: Any) -> OwnGuideConfig:
    return OwnGuideConfig(name=f"{__name__}:{name}", options=options)


def test_a_class_or_a_function_makes_it_with_the_options() -> None:
    guide = config("Scoring", favourite="c", probability=0.5).build(None)
    assert isinstance(guide, Scoring)
    assert guide.favourite == "c"
    assert isinstance(config("made").build(None), FavouringGuide)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (config("NUMBER"), "is not a class or function"),
        (config("Mute"), r"has no method 'write\(requests\)'"),
        (config("made", favorite="c"), "has no option 'favorite': did you mean 'favourite'"),
    ],
)
def test_what_makes_no_guide_is_refused_uncalled(named: OwnGuideConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        own_guide(named)


def test_what_a_function_returns_shows_once_it_is_called() -> None:
    own_guide(config("nothing"))
    with pytest.raises(UserError, match=r"has no method 'write\(requests\)'"):
        config("nothing").build(None)
    with pytest.raises(UserError, match="has an async 'write', and nobody awaits it: make it a plain method"):
        config("Awaited").build(None)
    with pytest.raises(
        UserError, match=r"has a 'write' that cannot be called as write\(requests\) \(too many"
    ):
        config("Deaf").build(None)
    assert config("made").may_score
    assert config("Scoring", favourite="c", probability=0.5).may_score
    assert not OwnGuideConfig(
        name="toys:FavouringGuide", options={"favourite": "a", "probability": 1.0}
    ).may_score
