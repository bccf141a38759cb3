"""The sentiment classifier learns, is kept, and reads what it is told to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlgf.demo import sentiment
from rlgf.demo.imdb import labelled_reviews
from rlgf.demo.sentiment import train_sentiment
from rlgf.rewards import Sentiment

POSITIVE = "A wonderful, moving film with superb acting. I loved it, one of the best I have seen. "
NEGATIVE = "A terrible, boring waste of time with awful acting. I hated it, the worst I have seen. "


@pytest.fixture(scope="module")
def small_sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier with one layer and a sixth of its training, measured on fewer reviews."""
    folder = tmp_path_factory.mktemp("sentiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment, "_HELD_OUT", 100)
        train_sentiment(folder, count=1120, layers=1)
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


def test_trained_once_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLGF_CACHE", str(tmp_path))
    calls: list[tuple[int, int]] = []

    def train(folder: Path, count: int, layers: int) -> None:
        calls.append((count, layers))

    monkeypatch.setattr(sentiment, "train_sentiment", train)
    first = sentiment.load_or_train(count=8, layers=1)
    assert sentiment.load_or_train(count=8, layers=1) == first
    assert sentiment.load_or_train(count=8, layers=2) != first
    assert calls == [(8, 1), (8, 2)]
