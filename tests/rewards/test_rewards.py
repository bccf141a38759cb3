"""Rewards: what is checked of an answer, how a recipe names one, and the two that are trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlgf.demo import judge, sentiment
from rlgf.demo.imdb import labelled_reviews
from rlgf.demo.judge import train_judge
from rlgf.demo.sentiment import train_sentiment
from rlgf.errors import UserError
from rlgf.registry import resolve
from rlgf.rewards import REWARDS, Judge, Logged, Reward, RewardInput, Sentiment, build_reward, checked_rewards

TEXTS = ["a", "bb", "ccc"]
POSITIVE = "A wonderful, moving film with superb acting. I loved it, one of the best I have seen. "
NEGATIVE = "A terrible, boring waste of time with awful acting. I hated it, the worst I have seen. "


class Returns:
    """A reward that gives a fixed answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> Any:
        return self.answer


def lengths(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
    return [float(len(text)) for text in completions]


def without_columns(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.0] * len(completions)


NO_REWARD = 3


@pytest.mark.parametrize(
    "answer", [[1.0, -2.5, 0.0], [1, True, 0.5], torch.tensor([1.0, 2, 3]), np.array([1, 2, 3])]
)
def test_good_answers_become_float32(answer: Any) -> None:
    found = checked_rewards(Returns(answer), RewardInput(TEXTS, TEXTS, {}))
    assert found.dtype == torch.float32
    assert found.tolist() == [float(value) for value in answer]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            [1.0, 2.0],
            r"the reward 'Returns' returned 2 values for 3 completions: .*one number per completion",
        ),
        ([1.0] * 4, r"returned 4 values for 3"),
        (None, r"returned None for 3 completions"),
        (0.5, r"returned 0\.5 for 3 completions"),
        ([1.0, float("nan"), float("inf")], r"returned nan for completion 1: .*finite"),
        ([1.0, 2.0, float("-inf")], r"returned -inf for completion 2"),
        ([1.0, 2.0, 1e39], r"returned 1e\+39 for completion 2"),
        (["good", 2.0, 3.0], r"returned 'good' for completion 0"),
        (torch.tensor([[1.0, 2.0]] * 3), r"returned \[1\.0, 2\.0\] for completion 0"),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, r"returned \{.*\} for 3 completions"),
        ("abc", r"returned 'abc' for 3 completions"),
        (np.array(["a", "b", "c"]), r"returned 'a' for completion 0"),
        ([1.0, 2.0, 1j], r"returned 1j for completion 2"),
        ([1.0, 2.0, 10**400], r"returned 1000+ for completion 2"),
    ],
)
def test_bad_answers_are_one_sentence(answer: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        checked_rewards(Returns(answer), RewardInput(TEXTS, TEXTS, {}))
    assert "\n" not in str(caught.value)


def test_columns_come_as_keywords() -> None:
    seen = {}

    def reward(
        prompts: list[str], completions: list[str], label: list[str], **rest: list[Any]
    ) -> list[float]:
        seen.update(prompts=prompts, completions=completions, label=label, rest=rest)
        return [1.0, 2.0]

    logged = Logged()
    checked_rewards(reward, RewardInput(["p", "q"], ["c", "d"], {"label": ["x", "y"], "n": [1, 2]}), logged)
    assert seen == {
        "prompts": ["p", "q"],
        "completions": ["c", "d"],
        "label": ["x", "y"],
        "rest": {"n": [1, 2], "log_extra": logged.log_extra, "log_metric": logged.log_metric},
    }


def test_columns_that_a_reward_does_not_take_are_kept_from_it() -> None:
    assert (
        checked_rewards(without_columns, RewardInput(TEXTS, TEXTS, {"label": ["x"] * 3})).tolist()
        == [0.0] * 3
    )


REFERENCES = [("r",), ("s", "t"), ()]


def test_references_come_to_a_reward_that_takes_them() -> None:
    seen: list[Any] = []

    def by_name(prompts: list[str], completions: list[str], references: list[Any]) -> list[float]:
        seen.append(references)
        return [0.0] * 3

    def among_columns(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        seen.append(columns["references"])
        return [0.0] * 3

    for reward in (by_name, among_columns):
        checked_rewards(reward, RewardInput(TEXTS, TEXTS, {}, REFERENCES))
    assert seen == [REFERENCES, REFERENCES]
    own: dict[str, Any] = {"references": ["x", "y", "z"]}
    checked_rewards(among_columns, RewardInput(TEXTS, TEXTS, own, [(), (), ()]))
    assert seen[-1] == ["x", "y", "z"], "a column of that name goes before"


def test_a_reward_that_takes_no_references_works_without_them() -> None:
    assert checked_rewards(without_columns, RewardInput(TEXTS, TEXTS, {}, REFERENCES)).tolist() == [0.0] * 3


def test_a_reward_that_fails_inside_is_not_blamed_on_its_columns() -> None:
    def reward(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        raise TypeError("a bug of its own")

    with pytest.raises(TypeError, match="a bug of its own"):
        checked_rewards(reward, RewardInput(TEXTS, TEXTS, {}))


def test_functions_are_used_as_they_are_and_classes_are_built() -> None:
    function = build_reward(f"{__name__}:lengths", {})
    assert isinstance(function, Reward)
    assert checked_rewards(function, RewardInput(TEXTS, TEXTS, {})).tolist() == [1.0, 2.0, 3.0]
    built = build_reward(f"{__name__}:Returns", {"answer": [4.0]})
    assert built(["x"], ["y"]) == [4.0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sentimnt", {}, r"reward 'sentimnt' is not known: did you mean 'sentiment'\?"),
        ("sentiment", {"treshold": 0.9}, r"no option 'treshold': did you mean 'threshold'\?"),
        ("sentiment", {"threshold": 1.5}, r"option 'threshold' \(it is 1\.5\): .*less than 1"),
        ("sentiment", {"threshold": "high"}, r"option 'threshold' \(it is 'high'\)"),
        ("judge", {"threshold": 0.9}, r"no option 'threshold'"),
        (f"{__name__}:lengths", {"power": 2}, r"is a function, so it takes no options \(given: power\)"),
        (f"{__name__}:Returns", {}, r"needs the option 'answer'"),
        (f"{__name__}:NO_REWARD", {}, r"cannot be called"),
    ],
)
def test_wrong_names_and_options_are_one_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_reward(name, options)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small_sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier with one layer and a sixth of its training, measured on fewer reviews."""
    folder = tmp_path_factory.mktemp("sentiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment, "_HELD_OUT", 100)
        train_sentiment(folder, count=1120, layers=1)
    return folder


@pytest.fixture(scope="module")
def small_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    train_judge(folder, copies=1, reviews=1000)
    return folder


def test_sentiment_learns(small_sentiment: Path) -> None:
    reward = Sentiment(folder=small_sentiment)
    assert reward.report == json.loads((small_sentiment / "report.json").read_text())
    assert reward.report["accuracy"] > 0.6
    assert 0 < reward.report["brier"] < 0.24
    good, bad = reward(["", ""], [POSITIVE, NEGATIVE])
    assert good > 0.5 > bad


def test_sentiment_does_not_depend_on_the_batch(small_sentiment: Path) -> None:
    reward = Sentiment(folder=small_sentiment)
    texts = [" ".join(text.split()[: 5 + 2 * i]) for i, (text, _) in enumerate(labelled_reviews("test")[:40])]
    texts = ["", *texts, POSITIVE * 20]
    alone = [reward([""], [text])[0] for text in texts]
    assert reward([""] * len(texts), texts) == pytest.approx(alone, abs=1e-5)
    assert reward([""] * len(texts), texts[::-1]) == pytest.approx(alone[::-1], abs=1e-5)
    assert len({round(value, 4) for value in alone}) > 30
    assert reward([], []) == []


def test_sentiment_reads_the_prompt_only_when_told_to(small_sentiment: Path) -> None:
    alone, both = (Sentiment(with_prompt=told, folder=small_sentiment) for told in (False, True))
    assert alone([NEGATIVE], [POSITIVE]) == alone([""], [POSITIVE])
    assert both([NEGATIVE], [POSITIVE]) == pytest.approx(alone([""], [NEGATIVE + POSITIVE]))
    assert both([NEGATIVE], [POSITIVE]) != pytest.approx(alone([""], [POSITIVE]))


def test_sentiment_reads_the_end_of_a_long_text(small_sentiment: Path) -> None:
    reward = Sentiment(folder=small_sentiment)
    end = POSITIVE * 12
    assert reward([""], [NEGATIVE * 12 + end]) == pytest.approx(reward([""], [end]), abs=1e-5)


def test_threshold_makes_it_zero_or_one(small_sentiment: Path) -> None:
    texts = [text for text, _ in labelled_reviews("test")[:20]]
    probabilities = Sentiment(folder=small_sentiment)([""] * 20, texts)
    threshold = sorted(probabilities)[9]
    found = Sentiment(threshold=threshold, folder=small_sentiment)([""] * 20, texts)
    assert found == [float(p > threshold) for p in probabilities]
    assert sum(found) == 10


def test_sentiment_training_is_repeatable_and_leaves_the_random_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentiment, "_HELD_OUT", 4)
    for seed, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        train_sentiment(tmp_path / name, count=32, layers=1)
        assert torch.equal(torch.get_rng_state(), state)
    for file in ("model.safetensors", "head.safetensors"):
        first, second = load_file(tmp_path / "a" / file), load_file(tmp_path / "b" / file)
        assert all(torch.equal(first[key], second[key]) for key in first | second)


def test_judge_learns(small_judge: Path) -> None:
    scorer = Judge(folder=small_judge)
    assert scorer.report["accuracy"] > 0.65
    assert 0 < scorer.report["brier"] < 0.24
    good, bad = scorer(["", ""], [POSITIVE, NEGATIVE])
    assert good > 0.5 > bad
    assert scorer([NEGATIVE], [POSITIVE]) == pytest.approx([good])
    assert scorer([], []) == []


def test_a_stored_judge_says_what_the_trained_one_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    original = judge.LogisticRegression.fit

    def fit(self: Any, features: Any, labels: Any) -> Any:
        trained.append((original(self, features, labels), features))
        return self

    monkeypatch.setattr(judge.LogisticRegression, "fit", fit)
    train_judge(tmp_path, copies=1, reviews=200)
    classifier, features = trained[0]
    texts = [text for text, _ in judge.snippets(labelled_reviews("judge")[judge._HELD_OUT :][:200], 1, 0)]
    expected = classifier.predict_proba(features)[:, 1]
    assert Judge(folder=tmp_path)([""] * 200, texts) == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("module", "train", "split"),
    [(sentiment, "train_sentiment", "reward"), (judge, "train_judge", "judge")],
)
def test_each_reads_its_own_split_and_measures_on_unseen_reviews(
    module: Any, train: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    windowed: list[set[str]] = []

    def labelled(name: str) -> Any:
        read.append(name)
        return labelled_reviews(name)[:1200]

    original = module.snippets

    def recorded(reviews: Any, *args: Any, **options: Any) -> Any:
        windowed.append({text for text, _ in reviews})
        return original(reviews, *args, **options)[:64]

    monkeypatch.setattr(module, "labelled_reviews", labelled)
    monkeypatch.setattr(module, "snippets", recorded)
    options = {"count": 64, "layers": 1} if split == "reward" else {"copies": 1}
    getattr(module, train)(tmp_path, **options)
    assert read == [split]
    trained_on, *measured_on = windowed
    assert len(measured_on) == 2
    assert all(not trained_on & texts for texts in measured_on)


def test_trained_once_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLGF_CACHE", str(tmp_path))
    calls: list[tuple[int, int, int]] = []

    def train(folder: Path, count: int, layers: int, seed: int) -> None:
        calls.append((count, layers, seed))

    monkeypatch.setattr(sentiment, "train_sentiment", train)
    first = sentiment.load_or_train(count=8, layers=1)
    assert sentiment.load_or_train(count=8, layers=1) == first
    assert sentiment.load_or_train(count=8, layers=2) != first
    assert calls == [(8, 1, 0), (8, 2, 0)]


def test_rewards_have_their_names() -> None:
    assert {name: resolve(name, REWARDS, "reward") for name in ("sentiment", "judge")} == {
        "sentiment": Sentiment,
        "judge": Judge,
    }
