"""CIDEr-D against pycocoevalcap's and a plain computation."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from outputs import FILE, REFERENCES, TEXTS, metric, of

from rlgf.errors import UserError
from rlgf.metrics import build_metrics
from rlgf.rewards import RewardInput, checked_rewards
from rlgf.strict import NamedConfig
from rlgf.tasks.data import DataTask


def test_cider_d_is_that_of_pycocoevalcap(tokenized: Any) -> None:
    from pycocoevalcap.cider.cider import Cider

    total, values = Cider().compute_score(*tokenized)
    found = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    assert found == pytest.approx(values.tolist(), abs=1e-9)
    assert sum(found) / len(found) == pytest.approx(total, abs=1e-9)


def test_cider_d_equals_a_plain_computation(tokenized: Any) -> None:
    gold, written = tokenized

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def plain(text: str, references: list[str]) -> float:
        total = 0.0
        for n in (1, 2, 3, 4):

            def weights(t: str, n: int = n) -> dict[tuple[str, ...], float]:
                weighed = {}
                for gram, count in grams(t, n).items():
                    df = sum(any(gram in grams(ref, n) for ref in refs) for refs in gold.values())
                    weighed[gram] = count * (math.log(len(gold)) - math.log(max(1, df)))
                return weighed

            mine = weights(text)
            for reference in references:
                theirs = weights(reference)
                norm = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                dot = sum(min(w, theirs.get(g, 0.0)) * theirs.get(g, 0.0) for g, w in mine.items())
                # The library measures lengths in bigrams, which differ as words do.
                gap = grams(text, 2).total() - grams(reference, 2).total()
                total += (dot / norm if norm else 0.0) * math.exp(-(gap**2) / 72) / len(references)
        return 10 * total / 4

    found = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    for i in (0, 3, 22):
        assert found[i] == pytest.approx(plain(written[i][0], gold[i]), abs=1e-9)


def test_cider_d_of_equal_sentences_is_10_and_of_a_single_sample_0() -> None:
    texts = ["A dog runs in the park.", "Two women drink tea at home."]
    assert of("cider_d", texts, [[text] for text in texts])["cider_d"] == pytest.approx([10, 10])
    assert of("cider_d", texts[:1], [texts[:1]])["cider_d"] == [0.0]


def test_cider_d_with_a_corpus_reads_each_text_alone(tmp_path: Path) -> None:
    whole = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    with_corpus = metric("cider_d", corpus=FILE)
    assert with_corpus(TEXTS, REFERENCES)["cider_d"] == pytest.approx(whole, abs=1e-12)
    assert with_corpus(TEXTS[7:8], REFERENCES[7:8])["cider_d"] == pytest.approx(whole[7:8], abs=1e-12)
    # More texts than the corpus has samples.
    small = tmp_path / "small.jsonl"
    small.write_text("".join(json.dumps({"references": refs}) + "\n" for refs in REFERENCES[:3]))
    few = metric("cider_d", corpus=small)
    found = few(TEXTS, REFERENCES)["cider_d"]
    assert found == pytest.approx(
        [few([t], [r])["cider_d"][0] for t, r in zip(TEXTS, REFERENCES, strict=True)]
    )


def test_cider_d_with_a_corpus_is_a_reward_of_references_in_a_column(tmp_path: Path) -> None:
    scored = metric("cider_d", corpus=FILE)

    def reward(prompts: Any, completions: Any, references: Any, **columns: Any) -> Any:
        return scored(completions, references)["cider_d"]

    (tmp_path / "train.jsonl").write_text(FILE.read_text())
    rows = DataTask(train=tmp_path / "train.jsonl", reference_field=None).load("train")[:2]
    columns = {"references": [row.columns["references"] for row in rows]}
    paid = checked_rewards(reward, RewardInput([row.prompt for row in rows], TEXTS[:2], columns))
    whole = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    assert paid.tolist() == pytest.approx(whole[:2], rel=1e-6)


@pytest.mark.parametrize("line", ['{"references": []}', '{"references": "a"}', '{"text": ["a"]}'])
def test_a_corpus_without_references_is_named(tmp_path: Path, line: str) -> None:
    metric("cider_d")
    (tmp_path / "c.jsonl").write_text('{"references": ["a"]}\n' + line + "\n")
    with pytest.raises(UserError, match=r"option 'corpus'.*line 2 must have 'references'"):
        build_metrics([NamedConfig(name="cider_d", options={"corpus": str(tmp_path / "c.jsonl")})])
