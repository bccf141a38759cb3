"""The held-out judge: another kind of sentiment classifier, trained on text that nothing else reads.

A policy that earns reward by a weakness of the sentiment classifier, instead of by writing positively,
gains little from a judge that shares neither its texts nor its features. So it belongs in evaluation,
never in training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rlgf.cachedir import cached_folder
from rlgf.demo.imdb import Review, labelled_reviews, snippets

_HELD_OUT = 1000
"""Reviews of the `judge` split that accuracy is measured on and that are not trained on."""


class Judge:
    """The probability that a completion comes from a positive film review, by words and word pairs.

    TF-IDF of single words and pairs, and logistic regression. The prompt is not read.
    """

    reads_text = True

    def __init__(self, folder: Path | None = None) -> None:
        """The one that `train_judge` wrote into a folder; by default it is trained at the first use, then kept."""
        folder = folder or cached_folder("judge-v1", train_judge)
        self.report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        with np.load(folder / "weights.npz", allow_pickle=False) as weights:
            self._weights = weights["weights"]
            self._bias = float(weights["bias"])
            self._vectorizer = _vectorizer({word: i for i, word in enumerate(words)})
            self._vectorizer.idf_ = weights["idf"]

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """One number in [0, 1] a completion; see `Reward`."""
        if not completions:
            return []
        logits = self._vectorizer.transform(completions) @ self._weights + self._bias
        probabilities: list[float] = (1 / (1 + np.exp(-logits))).tolist()
        return probabilities


def train_judge(folder: Path, copies: int = 5, reviews: int | None = None) -> dict[str, Any]:
    """Train the judge on snippets of the `judge` split and write it to a folder: no pickles.

    Args:
        copies: snippets a review.
        reviews: how many reviews to train on; default: all that are not held out.

    Returns:
        Measured on reviews that were not trained on: accuracy and Brier score on snippets of
        30 to 110 words and of 40 words; and the training snippets and seconds.
    """
    start = time.perf_counter()
    split = labelled_reviews("judge")
    examples = snippets(split[_HELD_OUT:][:reviews], copies, seed=0)
    vectorizer = _vectorizer(None)
    features = vectorizer.fit_transform([text for text, _ in examples])
    classifier = LogisticRegression(C=1.0, max_iter=200).fit(features, _labels(examples))
    words = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    (folder / "vocabulary.json").write_text(json.dumps(words), encoding="utf-8")
    np.savez(
        folder / "weights.npz",
        idf=vectorizer.idf_,
        weights=classifier.coef_[0],
        bias=classifier.intercept_[0],
    )
    report = {"snippets": len(examples), "seconds": round(time.perf_counter() - start, 1)}
    (folder / "report.json").write_text(json.dumps(report))
    judge = Judge(folder)
    for name, lengths in (("", (30, 110)), ("_40_words", (40, 40))):
        held_out = snippets(split[:_HELD_OUT], 2, 0, lengths)
        found = np.array(judge([], [text for text, _ in held_out]))
        labels = _labels(held_out)
        report[f"accuracy{name}"] = round(float(((found > 0.5) == (labels > 0.5)).mean()), 4)
        report[f"brier{name}"] = round(float(((found - labels) ** 2).mean()), 4)
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    return report


def _vectorizer(vocabulary: dict[str, int] | None) -> Any:
    return TfidfVectorizer(
        ngram_range=(1, 2),
        min_df=3 if vocabulary is None else 1,
        max_features=50_000 if vocabulary is None else None,
        sublinear_tf=True,
        vocabulary=vocabulary,
    )


def _labels(examples: Sequence[Review]) -> NDArray[np.float64]:
    return np.array([float(label == "positive") for _, label in examples])
