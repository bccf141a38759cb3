"""Texts that branch off from states: where from, what they are worth, and that they are counted and foreseen."""

from __future__ import annotations

import dialogues
import pytest
from torch import Tensor

from rlgf.algorithms.base_rows import VINE_PPO
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.plan import update_asks
from rlgf.rollout.state_values import branch_points
from rlgf.types import Author, Rollout, Sample
from toys import FavouringGuide, letter_gpt, share_of_a

P, G, E = Author.POLICY, Author.GUIDE, Author.ENVIRONMENT
SAMPLES = [Sample("abca"[: 1 + i % 4]) for i in range(6)]
CONFIG = RolloutConfig(max_prompt_tokens=4, max_response_tokens=6, min_response_tokens=6)


def pay(rollout: Rollout) -> Tensor:
    return Tensor(share_of_a(rollout.prompts, list(rollout.texts)))


@pytest.mark.parametrize(
    ("authors", "every", "points"),
    [
        ([P] * 5, 2, [0, 2, 4]),
        ([P] * 4, 4, [0]),
        ([G, G, P, P, P], 2, [2, 4]),
        ([P, P, P, G, G], 2, [0, 2, 3]),
        ([P, P, G], 2, [0, 2]),
        ([G, G], 1, []),
        ([], 1, []),
    ],
)
def test_states_are_those_before_the_policys_tokens_and_where_another_goes_on(
    authors: list[Author], every: int, points: list[int]
) -> None:
    assert branch_points(authors, every) == points


@pytest.mark.parametrize(
    ("authors", "starts", "every", "points"),
    [
        ([P, E, P, P, E, P], [0, 2, 5], 1, [0, 2, 5]),
        ([P, E, P, P, E, P], [0, 2, 5], 2, [0, 5]),
        ([G, E, P, P, E, P], [0, 2, 5], 1, [2, 5]),
        ([P, E, P, P, E, G], [0, 2, 5], 1, [0, 2, 5]),
        ([P, E, G, G, E, G], [0, 2, 5], 1, [0, 2]),
        ([G, E, G], [0, 2], 1, []),
    ],
)
def test_states_of_a_dialogue_are_where_turns_begin(
    authors: list[Author], starts: list[int], every: int, points: list[int]
) -> None:
    assert branch_points(authors, every, starts) == points


@pytest.mark.parametrize("guided", [False, True])
def test_branches_are_counted_and_foreseen(guided: bool) -> None:
    """Where all texts are as long as they may be, a plan foresees exactly what is written."""
    branches = {"every": 2, "texts": 3}
    row = VINE_PPO.changed(branches=branches)
    if guided:
        row = row.changed(script={"rollin": "guide"}, help={"probability": 0.5})
    maker = Collector(letter_gpt(), FavouringGuide("a", 0.5), CONFIG, seed=0)
    rollout = maker.collect(SAMPLES, row, rewards=pay)
    assert rollout.branch_values is not None
    begun = rollout.written_by(G).sum(dim=1).tolist()
    assert any(begun) == guided
    own = sum(6 - switch for switch in begun)
    more = sum(3 * (6 - point) for switch in begun for point in range(switch, 6, 2))
    assert maker.sampled[P] == own + more
    asks = update_asks(row, CONFIG, len(SAMPLES), 0, 0.0, seed=0)
    asked = [ask for ask in asks if ask.author is P]
    assert sum(ask.limit for ask in asked) == own + more + sum(begun)
    assert len({ask.seed for ask in asked}) == len(asked)


def test_each_branch_goes_on_from_its_own_beginning() -> None:
    """And the reward judges whole texts, of which nothing else is learned."""
    seen: list[list[str]] = []

    def watched(rollout: Rollout) -> Tensor:
        seen.append(list(rollout.texts))
        return pay(rollout)

    row = VINE_PPO.changed(branches={"every": 3, "texts": 4})
    rollout = Collector(letter_gpt(), None, CONFIG, seed=0).collect(SAMPLES, row, rewards=watched)
    (texts,) = seen
    assert len(rollout) == len(SAMPLES)
    states = [(text, point) for text in rollout.texts for point in (0, 3)]
    groups = [texts[first : first + 4] for first in range(0, len(texts), 4)]
    values = rollout.branch_values
    assert values is not None
    found = values[~values.isnan()].tolist()
    for (text, point), group, value in zip(states, groups, found, strict=True):
        assert all(branch[:point] == text[:point] for branch in group)
        assert value == pytest.approx(sum(branch.count("a") for branch in group) / 4 / 6)
    assert any(len(set(group)) > 1 for group in groups)


@pytest.mark.parametrize("script", ["alone", "after the guide", "before the guide"])
def test_dialogues_branch_off_where_turns_begin(script: str) -> None:
    """Each from the turns and replies before it, with the environment's answers, to an end of its own."""
    rows = {
        "alone": {},
        "after the guide": {"script": {"rollin": "guide"}, "help": {"probability": 1.0}},
        "before the guide": {
            "script": {"rollin": "policy", "rollout": "guide"},
            "help": {"probability": 1.0},
            "terms": {"policy": {"on": "rollin"}, "kl": {"on": "rollin"}},
        },
    }
    row = VINE_PPO.changed(branches={"every": 1, "texts": 3}, **rows[script])
    seen: list[Rollout] = []

    def watched(rollout: Rollout) -> Tensor:
        seen.append(rollout)
        return pay(rollout)

    policy = letter_gpt()
    maker = dialogues.collector(policy, dialogues.Echo(stop="b"), FavouringGuide("b", 0.7))
    rollout = maker.collect(dialogues.SAMPLES, row, rewards=watched)
    (branches,), values = seen, rollout.branch_values
    assert values is not None
    assert rollout.dialogues is not None
    assert branches.dialogues is not None
    place = 0
    for number, whole in enumerate(rollout.dialogues):
        authors = [author for author, _ in dialogues.runs(rollout, number)[::2]]
        own = [turn for turn, author in enumerate(authors) if author is P]
        states = [*own, *([own[-1] + 1] if own and own[-1] + 1 < len(authors) else [])]
        at = ~values[number].isnan()
        assert int(at.sum()) == len(states)
        for turn, value in zip(states, values[number][at].tolist(), strict=True):
            group = branches.dialogues[place : place + 3]
            assert all(branch[: 2 * turn] == whole[: 2 * turn] for branch in group)
            texts = branches.texts[place : place + 3]
            assert value == pytest.approx(sum(share_of_a([], list(texts))) / 3)
            place += 3
    assert place == len(branches)
    assert max(len(dialogue) for dialogue in branches.dialogues) > 1
    assert len({tuple(branches.texts[i : i + 3]) for i in range(0, place, 3)}) > 1
    # No author is asked for more than was foreseen.
    asks = update_asks(row, maker.config, len(dialogues.SAMPLES), 0, 0.0, seed=0, turns=dialogues.TURNS)
    for author in (P, G):
        assert maker.sampled[author] <= sum(ask.limit for ask in asks if ask.author is author)
