"""What a text says: its concepts, and the propositions of its scene graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rlgf.errors import UserError
from rlgf.metrics.base import References, Values, installed
from rlgf.metrics.parse import check_spacy, parse
from rlgf.metrics.ptb import captions, check_java


class ConceptCoverage:
    """The share of a sample's concepts (the column ``concepts``) that occur in the text (CommonGen's coverage).

    A concept occurs where its lemma or the concept as it is given is among the text's lemmas, in lower
    case; a concept of several words where they stand next to each other.
    """

    needs = ("concepts",)

    def __init__(self) -> None:
        """
        Raises:
            UserError: spaCy or its English model is missing.
        """
        check_spacy("concept_coverage")

    def __call__(self, completions: Sequence[str], concepts: list[list[str]]) -> Values:
        values = []
        for text, wanted in zip(parse(completions), concepts, strict=True):
            forms = zip(wanted, parse(wanted), strict=True)
            hits = [
                _contains(text.lemmas, tuple(concept.lower().split())) or _contains(text.lemmas, form.lemmas)
                for concept, form in forms
            ]
            values.append(sum(hits) / len(hits))
        return {"concept_coverage": values}


class SpiceStandIn:
    """A stand-in for SPICE, and not SPICE: F1 over the propositions of scene graphs that spaCy's parses give.

    As in SPICE (Anderson et al. 2016, arXiv 1607.08822, section 3) a text's propositions are its objects,
    attributes and relations, the references' are the union of theirs, and the value is
    ``2 P R / (P + R)`` with ``P = |T & R| / |T|``, ``R = |T & R| / |R|``. Unlike SPICE it has another
    parser and other rules, and two words match where their lemmas are equal: no synonyms. Its numbers
    cannot be compared with SPICE.
    """

    needs = ("references",)

    def __init__(self) -> None:
        """
        Raises:
            UserError: spaCy or its English model is missing.
        """
        check_spacy("spice_stand_in")

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        parse([*completions, *(text for texts in references for text in texts)])
        values = []
        for text, texts in zip(parse(completions), references, strict=True):
            gold: frozenset[tuple[str, ...]] = frozenset().union(*(p.propositions for p in parse(texts)))
            shared, total = len(text.propositions & gold), len(text.propositions) + len(gold)
            values.append(2 * shared / total if total else 0.0)
        return {"spice_stand_in": values}


class Spice:
    """SPICE of pycocoevalcap over PTB tokens, 0 to 1 (Anderson et al. 2016, arXiv 1607.08822).

    It needs the jars of Stanford CoreNLP 3.6.0, which no Python package holds.
    """

    needs = ("references",)

    def __init__(self) -> None:
        """
        Raises:
            UserError: pycocoevalcap, Java or the jars are missing.
        """
        check_java("spice")
        library = installed("pycocoevalcap.spice.spice", "spice", "pycocoevalcap")
        folder = Path(library.__file__).parent / "lib"
        jars = [folder / f"stanford-corenlp-3.6.0{part}.jar" for part in ("", "-models")]
        if not all(jar.is_file() for jar in jars):
            raise UserError(
                "the metric 'spice' needs the jars of Stanford CoreNLP 3.6.0: fetch them once with "
                "`python -m pycocoevalcap.spice.get_stanford_models`, or use 'spice_stand_in', which is not SPICE."
            )
        self._scorer = library.Spice()

    def __call__(self, completions: Sequence[str], references: References) -> Values:
        _, scores = self._scorer.compute_score(*captions(completions, references))
        values = [float(score["All"]["f"]) for score in scores]
        return {"spice": [value if math.isfinite(value) else 0.0 for value in values]}


def _contains(lemmas: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(lemmas[i : i + len(wanted)] == wanted for i in range(len(lemmas) - len(wanted) + 1))
