"""Overlap with references: BLEU, ROUGE, METEOR and CIDEr-D of the libraries that papers report."""

from __future__ import annotations

import random
import subprocess
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

from rlgf.errors import UserError
from rlgf.metrics.base import MetricResult, References, Values, installed
from rlgf.metrics.ptb import captions, check_java, ptb_tokenize
from rlgf.tasks.jsonfiles import JsonLines
from rlgf.tasks.rows import placed

_SELF_BLEU_TEXTS = 100


class Bleu:
    """BLEU-1 to BLEU-4 of pycocoevalcap over PTB tokens, 0 to 1, as CommonGen results report them.

    Papineni et al. 2002. Totals are of the corpus, closest reference length; a text's own value is its
    unsmoothed sentence BLEU.
    """

    needs = ("references",)

    def __init__(self) -> None:
        """
        Raises:
            UserError: pycocoevalcap or Java is missing.
        """
        check_java("bleu")
        self._scorer = installed("pycocoevalcap.bleu.bleu", "bleu", "pycocoevalcap").Bleu(4)

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        totals, of_text = self._scorer.compute_score(*captions(completions, references), verbose=0)
        return {
            f"bleu_{n}": MetricResult(float(total), [float(value) for value in values])
            for n, (total, values) in enumerate(zip(totals, of_text, strict=True), start=1)
        }


class Sacrebleu:
    """BLEU of sacreBLEU (Post 2018, arXiv 1804.08771) with its own tokenizer (13a), 0 to 100.

    The total is of the corpus; a text's own value is sentence BLEU over the orders it is long enough for.
    """

    needs = ("references",)

    def __init__(self) -> None:
        """
        Raises:
            UserError: sacrebleu is missing.
        """
        self._library = installed("sacrebleu", "sacrebleu", "sacrebleu")

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        # The library wants the first references of all texts, then the second ones, None where there is none.
        streams = [list(stream) for stream in zip_longest(*references)]
        pairs = zip(completions, references, strict=True)
        total = self._library.corpus_bleu(list(completions), streams).score
        values = [self._library.sentence_bleu(t, list(refs)).score for t, refs in pairs]
        return {"sacrebleu": MetricResult(total, values)}


class SelfBleu:
    """Self-BLEU: how much texts resemble each other, 0 to 100 (Zhu et al. 2018, arXiv 1802.01886).

    The mean of sacreBLEU's sentence BLEU of a text with all the others as its references. Of more than 100
    texts, 100 are drawn, always the same: the time grows with the square of their number, and so does
    the value grow with it, so compare sets of one size. Nothing is reported of a single text.
    """

    def __init__(self) -> None:
        """
        Raises:
            UserError: sacrebleu is missing.
        """
        self._library = installed("sacrebleu", "self_bleu", "sacrebleu")

    def __call__(self, completions: Sequence[str]) -> Values:
        texts = list(completions)
        if len(texts) > _SELF_BLEU_TEXTS:
            texts = random.Random(0).sample(texts, _SELF_BLEU_TEXTS)
        if len(texts) < 2:
            return {}
        others = ([*texts[:i], *texts[i + 1 :]] for i in range(len(texts)))
        scores = [
            self._library.sentence_bleu(text, rest).score for text, rest in zip(texts, others, strict=True)
        ]
        return {"self_bleu": sum(scores) / len(scores)}


class Rouge:
    """ROUGE-1, -2, -L and -Lsum F1 of rouge-score, 0 to 1: the best of a text's references for each.

    Lin 2004. Without stemming; for Lsum sentences are lines, and words are of the letters a to z and digits, as in that
    library: texts in other scripts score 0.
    """

    needs = ("references",)

    def __init__(self) -> None:
        """
        Raises:
            UserError: rouge-score is missing.
        """
        library = installed("rouge_score.rouge_scorer", "rouge", "rouge-score")
        self._names = {
            "rouge1": "rouge_1",
            "rouge2": "rouge_2",
            "rougeL": "rouge_l",
            "rougeLsum": "rouge_lsum",
        }
        self._scorer = library.RougeScorer(list(self._names))

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        pairs = zip(completions, references, strict=True)
        scores = [self._scorer.score_multi(list(refs), text) for text, refs in pairs]
        return {ours: [float(s[name].fmeasure) for s in scores] for name, ours in self._names.items()}


class Meteor:
    """METEOR 1.5 of pycocoevalcap over PTB tokens, 0 to 1 (Denkowski and Lavie 2014).

    One Java process serves all texts and stays until the metric goes: it takes several seconds to start
    (it reads its paraphrases while models load) and up to 2 GB of memory. The total is of the corpus.
    """

    needs = ("references",)

    def __init__(self) -> None:
        """
        Raises:
            UserError: pycocoevalcap or Java is missing.
        """
        check_java("meteor")
        self._scorer = installed("pycocoevalcap.meteor.meteor", "meteor", "pycocoevalcap").Meteor()
        weakref.finalize(self, _end, self._scorer.meteor_p)

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        # Bars part the fields of its input: in PTB tokens they stand apart, so none can be taken for one.
        try:
            total, of_text = self._scorer.compute_score(*captions(completions, references))
        except (OSError, ValueError) as error:
            # The library fails with its lock held, and would wait for it forever when it goes.
            self._scorer.lock.release()
            raise UserError(
                "the metric 'meteor': its Java process has ended; see that it can have 2 GB of memory, and start again."
            ) from error
        return {"meteor": MetricResult(float(total), [float(value) for value in of_text])}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # bytes for a process that had ended
                pipe.close()


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
        self._library = installed("pycocoevalcap.cider.cider_scorer", "cider_d", "pycocoevalcap")
        check_java("cider_d")
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
    read = []
    for row, place in placed(JsonLines(corpus)):
        texts = row.get("references")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"the metric 'cider_d', option 'corpus': {place} must have 'references', a list of texts."
            )
        read.append(texts)
    # All in one go: starting the tokenizer costs more than running it.
    tokens = iter(ptb_tokenize([text for texts in read for text in texts]))
    return [[next(tokens) for _ in texts] for texts in read]
