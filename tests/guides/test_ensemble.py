"""Several guides with weights."""

from __future__ import annotations

from dataclasses import replace

from http_toys import guide, requests

from faulty_server import FaultyServer, serving
from rlgf.guides import EnsembleGuide
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
