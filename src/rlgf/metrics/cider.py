"""CIDEr-D: n-grams shared with the references, each weighed by how rare it is among references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlgf.errors import UserError
from rlgf.metrics.base import References, Values, installed
from rlgf.metrics.ptb import captions, check_java, ptb_tokenize
from rlgf.tasks.jsonfiles import JsonLines

_CHUNK = 1000


class CiderD:
    """CIDEr-D of pycocoevalcap over PTB tokens, 0 to 10 (Vedantam et al. 2015, arXiv 1411.5726, section 8).

    An n-gram weighs ``log N - log df``, df the number of the N samples in whose references it stands. By
    default these are the samples that are evaluated, as in the literature: a text's value then depends on
    which other samples are scored with it, and with a single sample all weights and values are 0. With
    ``corpus`` they are those of a file, and a text's value depends on itself alone: use this as a reward or
    on small sets. Values under different document frequencies cannot be compared.
    """

    needs = ("references",)

    def __init__(self, corpus: str | Path | None = None) -> None:
        """
        Args:
            corpus: JSON lines with ``references``, a list of texts; may be packed with gzip.

        Raises:
            UserError: pycocoevalcap or Java is missing, or the corpus cannot be read.
        """
        check_java("cider_d")
        self._library = installed("pycocoevalcap.cider.cider_scorer", "cider_d", "pycocoevalcap")
        self._corpus = None if corpus is None else self._frequencies(_read(Path(corpus)))

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        gold, written = captions(completions, references)
        frequencies, samples = self._corpus or self._frequencies(list(gold.values()))
        chunk = min(samples, _CHUNK)
        values: list[float] = []
        for start in range(0, len(written), chunk):
            scorer = self._library.CiderScorer()
            scorer.document_frequency = frequencies
            rows = range(start, min(start + chunk, len(written)))
            scorer.ctest = [self._library.cook_test(written[i][0]) for i in rows]
            # The scorer takes N for the length of this list, and reads no more of it than there are texts.
            scorer.crefs = [self._library.cook_refs(gold[i]) for i in rows] + [None] * (samples - len(rows))
            values += [float(value) for value in scorer.compute_cider()]
        return {"cider_d": values}

    def _frequencies(self, references: Sequence[Sequence[str]]) -> tuple[Counter[tuple[str, ...]], int]:
        """In how many samples' references each n-gram stands, and the number of samples."""
        counts: Counter[tuple[str, ...]] = Counter()
        for texts in references:
            counts.update({gram for cooked in self._library.cook_refs(texts) for gram in cooked})
        return counts, len(references)


def _read(corpus: Path) -> list[list[str]]:
    rows = JsonLines(corpus)
    read = []
    for number in range(len(rows)):
        texts = rows[number].get("references")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"the metric 'cider_d', option 'corpus': {rows.place(number)} must have 'references', a list of texts."
            )
        read.append(texts)
    # All in one go: starting the tokenizer costs more than running it.
    tokens = iter(ptb_tokenize([text for texts in read for text in texts]))
    return [[next(tokens) for _ in texts] for texts in read]
