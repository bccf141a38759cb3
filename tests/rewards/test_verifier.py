"""The reward `verifier`, and rewards of one's own that read what a verifier reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlgf.errors import UserError
from rlgf.rewards import RewardInput, build_reward, checked_rewards
from rlgf.tasks import build_task
from rlgf.types import Sample

SMALL = {"train_samples": 20, "validation_samples": 1, "test_samples": 1}


def samples(dataset: str, **options: object) -> list[Sample]:
    return list(build_task("reasoning", {**SMALL, "dataset": dataset, **options}).load("train"))


def paid(rows: list[Sample], texts: list[str], reward: str = "verifier", **options: float) -> list[float]:
    columns = {name: [row.columns[name] for row in rows] for name in rows[0].columns}
    given = RewardInput([row.prompt for row in rows], texts, columns, [row.references for row in rows])
    return checked_rewards(build_reward(reward, options), given).tolist()


@pytest.mark.parametrize(
    "dataset", ["countdown", "chain_sum", "number_sorting", "spell_backward", "word_sorting"]
)
def test_references_are_right_and_what_fails_is_paid_nothing(dataset: str) -> None:
    rows = samples(dataset)
    assert paid(rows, [row.references[0] for row in rows]) == [1.0] * len(rows)
    wrong = [row.references[0][:-2] + "?" for row in rows]
    assert paid(rows, wrong) == [0.0] * len(rows)
    assert paid(rows, [""] * len(rows)) == [0.0] * len(rows)


def test_any_right_answer_is_paid_and_not_the_reference_alone() -> None:
    (row, *_) = samples("countdown")
    other = f"0 + {row.references[0]}".replace("0 + ", "+", 1)
    assert other not in row.references
    assert paid([row], [other]) == [1.0]


def test_a_lower_threshold_pays_a_part() -> None:
    rows = samples("spell_backward", min_word_len=10, max_word_len=10)
    halves = [row.references[0][:5] + "?" * 5 for row in rows]
    assert paid(rows, halves) == [0.0] * len(rows)
    assert paid(rows, halves, threshold=0.4) == pytest.approx([0.5] * len(rows))
    assert set(paid(rows, halves, threshold=0.6)) == {0.0}


def test_nothing_is_evaluated_that_could_run() -> None:
    marker = Path("run-by-a-verifier")
    text = f"__import__('pathlib').Path('{marker}').touch()"
    assert paid(samples("countdown")[:1], [text]) == [0.0]
    assert not marker.exists()


def test_other_data_is_refused() -> None:
    with pytest.raises(UserError, match="the reward 'verifier' reads the column 'dataset'"):
        checked_rewards(build_reward("verifier", {}), RewardInput(["a"], ["b"]))


def test_a_verifier_of_ones_own_reads_the_metadata(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def spelled(completions, metadata, answer, question, **kwargs):\n"
        "    rows = zip(completions, metadata, answer, question)\n"
        "    return [float(c[::-1] == m['word'] and c == a and m['word'] in q) for c, m, a, q in rows]\n"
    )
    rows = samples("spell_backward")
    texts = [row.references[0] for row in rows]
    assert paid(rows, [*texts[:-1], "x"], f"{tmp_path}/mine.py:spelled") == [1.0] * (len(rows) - 1) + [0.0]
