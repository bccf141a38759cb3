"""The verifier of a procedural problem: whether an answer is right."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from rlgf.errors import UserError
from rlgf.strict import Strict
from rlgf.tasks.answers import Form
from rlgf.tasks.verifying import verified

_READ = ("dataset", "dataset_options", "response_form", "question", "answer", "metadata")
_LONGEST = 10_000
"""Characters of an answer that a verifier is asked about."""


class Verifier(Strict):
    """The score of a data set's own verifier, for samples of the task `reasoning`.

    Where it is below ``threshold`` the answer has failed and is paid nothing. Verifiers give 0.01 to
    0.05 to any answer, and some a part of 1 for a part of it: a lower threshold pays that too.
    """

    reads_text: ClassVar = True

    threshold: float = Field(default=1.0, gt=0, le=1)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """One number from 0 to 1 a completion; see `Reward`.

        Raises:
            UserError: the samples are not those of the task `reasoning`.
        """
        for name in _READ:
            if any(value is None and name != "answer" for value in columns.get(name, [None])):
                raise UserError(
                    f"the reward 'verifier' reads the column '{name}', which the task 'reasoning' gives: use that task, "
                    "or a reward of your own."
                )
        rows = zip(completions, *(columns[name] for name in _READ), strict=True)
        return [self._score(*row) for row in rows]

    def _score(
        self, text: str, dataset: str, options: Any, form: str, question: str, answer: Any, metadata: Any
    ) -> float:
        found = Form(form).answer(text)
        # Some verifiers evaluate what looks like an expression: no name of Python's own machinery is one.
        if not found or "__" in found or len(found) > _LONGEST:
            return 0.0
        entry = {"question": question, "answer": answer, "metadata": metadata}
        score = verified(found, dataset, options, entry)
        return score if score >= self.threshold else 0.0
