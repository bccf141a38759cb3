"""The judge learns, is kept, and reads other reviews than the reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlgf.demo import judge, sentiment
from rlgf.demo.imdb import labelled_reviews
from rlgf.demo.judge import train_judge
from rlgf.rewards import Judge

POSITIVE = "A wonderful, moving film with superb acting. I loved it, one of the best I have seen. "
NEGATIVE = "A terrible, boring waste of time with awful acting. I hated it, the worst I have seen. "


@pytest.fixture(scope="module")
def small_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    train_judge(folder, copies=1, reviews=1000)
    return folder


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
