"""From what a recipe says under `guide:` to a guide."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from rlgf.errors import UserError
from rlgf.guides import (
    EnsembleConfig,
    GuideConfig,
    GuideSettings,
    HTTPGuideConfig,
    LocalGuideConfig,
    OwnGuideConfig,
    ReplayGuide,
    ReplayGuideConfig,
    Request,
    scoring_guide,
)
from rlgf.guides.config import KINDS, fit_for, kind_of, kinds, members
from rlgf.guides.itself import SelfGuideConfig
from rlgf.guides.oracle import OracleGuideConfig
from toys import FavouringGuide, letter_gpt

URL = {"url": "http://127.0.0.1:1/v1", "model": "x"}
OWN = {"name": "toys:FavouringGuide", "options": {"favourite": "a", "probability": 0.5}}
SECTIONS: dict[str, tuple[dict[str, Any], type[GuideSettings]]] = {
    "url": (URL, HTTPGuideConfig),
    "file": ({"file": "texts.jsonl"}, ReplayGuideConfig),
    "guides": ({"guides": {"one": {"model": "x"}, "two": URL}}, EnsembleConfig),
    "oracle": ({"oracle": True}, OracleGuideConfig),
    "name": (OWN, OwnGuideConfig),
    "self": ({"self": True}, SelfGuideConfig),
    "model": ({"model": "x"}, LocalGuideConfig),
}


def read(section: Any) -> GuideSettings:
    found: GuideSettings = TypeAdapter(GuideConfig).validate_python(section)
    return found


@pytest.mark.parametrize("key", KINDS)
def test_one_key_tells_the_kind(key: str) -> None:
    assert key in SECTIONS, "each kind has an example above"
    section, settings = SECTIONS[key]
    found = read(section)
    assert type(found) is kind_of(section) is settings
    assert found.mark == key
    assert settings in kinds()


def test_what_is_no_guide_names_the_keys() -> None:
    for text, key in (("gpt2", "model"), ("guide.py:Mine", "name"), ("http://host/v1", "url")):
        said = f"one of the keys {', '.join(KINDS)}, such as {{{key}: {text}}}"
        with pytest.raises(ValidationError, match=re.escape(said)):
            read(text)


def test_another_kind_of_guide_leaves_the_settings_of_the_first_behind() -> None:
    old = {"model": "x", "top_p": 0.5, "template": "Well: {text}", "dtype": "float32"}
    assert fit_for(old, {"top_p": 0.9}) == old
    assert "dtype" not in fit_for(old, URL)
    assert fit_for(old, URL)["top_p"] == 0.5


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_any_kind_of_guide_can_take_the_place_of_any_other(old: str, new: str) -> None:
    section, settings = SECTIONS[new]
    found = read({**fit_for(SECTIONS[old][0], section), **section})
    # Of a server, 'model' is the name that it is asked for.
    assert type(found) is (HTTPGuideConfig if (old, new) == ("url", "model") else settings)


def test_members_are_told_by_where_they_run() -> None:
    ensemble = read({"guides": {"one": {"model": "x"}, "two": URL, "three": OWN}})
    assert [member.model for member in members(ensemble, LocalGuideConfig)] == ["x"]
    assert [member.url for member in members(ensemble, HTTPGuideConfig)] == [URL["url"]]
    assert [member.name for member in members(ensemble, OwnGuideConfig)] == [OWN["name"]]
    assert members(None, OwnGuideConfig) == []


def test_a_guide_is_built_from_its_section(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    guide = read({"file": str(file)}).build(None)
    assert isinstance(guide, ReplayGuide)
    assert guide.write([Request("a", 4, 0)])[0].text == "b"
    assert isinstance(read(OWN).build(None), FavouringGuide)


def test_who_has_no_probabilities_is_known_and_refused() -> None:
    assert not read(URL).may_score
    assert not read(OWN).may_score
    assert read({"model": "x"}).may_score
    with pytest.raises(UserError, match=r"FavouringGuide has no method 'log_distribution\(tokens\)'"):
        scoring_guide(FavouringGuide("a", 0.5), letter_gpt())
