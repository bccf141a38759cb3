"""Penn Treebank tokens as the evaluation of COCO captions makes them.

The same Java program with the same settings as pycocoevalcap's `PTBTokenizer`: lower case, without
punctuation. It is started here because that class writes into its own package's folder and prints to the
terminal, and its lines come apart where a text holds a line separator.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rlgf.errors import UserError
from rlgf.metrics.base import References, installed, remembered

_PACKAGE = "pycocoevalcap==1.2"
_tokens: dict[str, str] = {}

Captions = dict[int, list[str]]
"""Tokenized texts by number, as pycocoevalcap takes them."""


def check_java(metric: str) -> None:
    """
    Raises:
        UserError: there is no Java, or no pycocoevalcap.
    """
    installed("pycocoevalcap", metric, _PACKAGE)
    if shutil.which("java") is None:
        raise UserError(
            f"the metric '{metric}' runs a Java program, and there is no 'java' on the PATH: install a Java "
            "runtime (Debian: apt-get install default-jre-headless), or leave the metric out."
        )


def captions(completions: Sequence[str], references: References) -> tuple[Captions, Captions]:
    """References and completions as pycocoevalcap takes them, tokenized in one go."""
    ptb_tokenize([*completions, *(text for texts in references for text in texts)])
    return (
        {i: ptb_tokenize(texts) for i, texts in enumerate(references)},
        {i: ptb_tokenize([text]) for i, text in enumerate(completions)},
    )


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Each text's tokens with spaces between them.

    Raises:
        UserError: the Java program failed.
    """
    return remembered(_tokens, texts, _run)


def _run(texts: Sequence[str]) -> list[str]:
    jar, punctuation = _program()
    settings = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    done = subprocess.run(
        ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", *settings],
        # One line a text, whatever kinds of line ends it has.
        input="\n".join(" ".join(text.split()) for text in texts).encode(errors="replace"),
        capture_output=True,
    )
    lines = done.stdout.decode().split("\n")[: len(texts)]
    if done.returncode != 0 or len(lines) != len(texts):
        said = " ".join(done.stderr.decode(errors="replace").split())[:300]
        raise UserError(f"the tokenizer of pycocoevalcap failed, is this Java 8 or later? It says: {said}.")
    return [" ".join(word for word in line.split() if word not in punctuation) for line in lines]


@cache
def _program() -> tuple[Path, frozenset[str]]:
    module = installed("pycocoevalcap.tokenizer.ptbtokenizer", "ptb", _PACKAGE)
    jar = Path(module.__file__).with_name(module.STANFORD_CORENLP_3_4_1_JAR)
    return jar, frozenset(module.PUNCTUATIONS)
