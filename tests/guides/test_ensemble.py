"""Several guides with weights."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from http_toys import guide, requests

from faulty_server import FaultyServer, serving
from rlgf.errors import UserError
from rlgf.guides import BudgetSpentError, EnsembleConfig, EnsembleGuide
from toys import FavouringGuide


def test_an_ensemble_splits_requests_by_weight_and_says_who_wrote() -> None:
    with serving(FaultyServer(letters="ab")) as one, serving(FaultyServer(letters="cd")) as two:
        both = EnsembleGuide({"one": (guide(one), 3.0), "two": (guide(two), 1.0)})
        asked = requests(200)
        both.prefetch(asked)
        answers = both.write(asked)
        for answer in answers:
            assert set(answer.text) <= set("ab" if answer.guide == "one" else "cd")
        assert 0.65 < sum(a.guide == "one" for a in answers) / 200 < 0.85
        accounts = both.accounts
        assert sum(usage.calls for usage in accounts.values()) == 200
        both.restore(accounts)
        assert both.accounts == accounts


def test_the_turns_of_a_dialogue_have_one_guide() -> None:
    both = EnsembleGuide({name: (FavouringGuide(name, 1.0), 1.0) for name in "ab"})
    turns = [
        replace(one, seed=one.seed + 1000 * turn, episode=one.seed)
        for one in requests(20)
        for turn in range(3)
    ]
    wrote = [answer.guide for answer in both.write(turns)]
    assert all(len(set(wrote[first : first + 3])) == 1 for first in range(0, 60, 3))
    assert wrote[::3] == [answer.guide for answer in both.write(turns[::3])]
    assert set(wrote) == {"a", "b"}


def test_the_members_of_an_ensemble_within_another_are_chosen_by_their_own_weights() -> None:
    inner = {name: FavouringGuide(name, 1.0) for name in "ab"}
    within = EnsembleGuide({name: (guide, 1.0) for name, guide in inner.items()})
    both = EnsembleGuide({"in": (within, 1.0), "c": (FavouringGuide("c", 1.0), 1.0)})
    both.write([replace(one, seed=seed) for seed in range(200) for one in requests(1)])
    asked = {name: len(guide.requests) for name, guide in inner.items()}
    assert all(30 < number < 70 for number in asked.values()), asked


def test_servers_are_asked_side_by_side_and_a_second_of_both_counts_once() -> None:
    asked: list[str] = []

    class Waiting(FaultyServer):
        """Answers once the other server is asked too."""

        def fault(self, body: str, attempt: int) -> str | None:
            asked.append(self.url)
            until = time.monotonic() + 20
            while len(set(asked)) < 2 and time.monotonic() < until:
                time.sleep(0.05)
            assert len(set(asked)) == 2
            time.sleep(0.2)
            return None

    with serving(Waiting()) as one, serving(Waiting()) as two:
        inner = EnsembleGuide({"two": (guide(two, timeout=30.0), 1.0), "c": (FavouringGuide("c", 1.0), 1.0)})
        both = EnsembleGuide({"one": (guide(one, timeout=30.0), 1.0), "in": (inner, 1.0)})
        started = time.perf_counter()
        both.write(requests(12))
        passed = time.perf_counter() - started
    busy = {name: usage.busy_seconds for name, usage in both.accounts.items()}
    assert busy.keys() == {"one/letters", "in/two/letters"}
    assert 0.2 < sum(busy.values()) <= passed


def test_what_other_members_were_asked_is_booked_where_one_fails() -> None:
    with serving(FaultyServer(context=5)) as one, serving(FaultyServer()) as two:
        both = EnsembleGuide({"one": (guide(one), 1.0), "two": (guide(two, timeout=20.0), 1.0)})
        with pytest.raises(UserError, match="context holds"):
            both.write(requests(20))
        assert both.accounts["two/letters"].calls == sum(two.answered.values()) > 0


def test_no_member_is_asked_ahead_of_one_whose_budget_is_spent() -> None:
    with serving(FaultyServer()) as one, serving(FaultyServer()) as two:
        both = EnsembleGuide({"one": (guide(one, budget={"calls": 1}), 1.0), "two": (guide(two), 1.0)})
        both.prefetch(requests(20))
        with pytest.raises(BudgetSpentError):
            both.write(requests(20))
        assert not one.seen
        assert not two.seen


def test_the_errors_of_a_member_name_its_settings_as_they_stand_in_the_recipe(tmp_path: Path) -> None:
    def built(server: dict[str, Any]) -> EnsembleGuide:
        there, self_made = (
            {"url": "http://127.0.0.1:1/v1", "model": "letters", "cache": None},
            {"oracle": True},
        )
        inner = {"guides": {"two": there | server, "three": self_made}, "weights": {"two": 1e9}}
        return EnsembleConfig.model_validate(
            {"guides": {"one": self_made, "in": inner}, "weights": {"in": 1e9}}
        ).build(None)

    poor = built({"budget": {"calls": 1}})
    with pytest.raises(
        BudgetSpentError, match=r"'guide.guides.in.guides.two.budget' .*calls.*guides.two.budget.then"
    ):
        poor.write(requests(2))
    poor.close()
    (tmp_path / "cache.db").write_text("no data base")
    with pytest.raises(UserError, match=r"'guide.guides.in.guides.two.cache'"):
        built({"cache": str(tmp_path)})
