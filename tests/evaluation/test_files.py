"""Files of texts: what is read of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.evaluation.files import read_texts, score_file, summarize
from rlgf.metrics import MetricResult
from rlgf.strict import NamedConfig
from rlgf.types import Sample

PLAIN = [NamedConfig(name=name) for name in ("words", "sari", "distinct")]


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_references_of_another_file_take_the_place_of_the_first(tmp_path: Path) -> None:
    texts = write(tmp_path / "t", {"prompt": "a b", "completion": "a"}, {"prompt": "c", "completion": "d"})
    references = write(
        tmp_path / "r", {"references": "a", "concepts": ["x"]}, {"prompt": "c", "references": ["e", "f"]}
    )
    read = read_texts(texts, references)
    assert read.samples == [Sample("a b", ("a",), {"concepts": ["x"]}), Sample("c", ("e", "f"))]
    assert score_file(texts, PLAIN, references).records[0]["sari"] == pytest.approx(
        1 / 3 * (0 + 1 / 4 + 2 / 4)
    )
    with pytest.raises(UserError, match=r"r has 2 lines for 1 texts"):
        read_texts(write(tmp_path / "t", {"prompt": "a b", "completion": "a"}), references)
    write(tmp_path / "t", {"prompt": "a b", "completion": "a"}, {"prompt": "other", "completion": "d"})
    with pytest.raises(UserError, match=r"r, line 2: its 'prompt' is not that of the text"):
        read_texts(tmp_path / "t", references)
    write(tmp_path / "t", {"prompt": "a", "completion": "a"})
    with pytest.raises(UserError, match=r"r, line 1 has no field 'references'"):
        read_texts(tmp_path / "t", write(tmp_path / "r", {"reference": "a"}))


def test_what_is_logged_takes_no_place_of_a_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log_extra\('prompt', values\) would take the place"):
        summarize([Sample("a")], ["b"], {}, {"prompt": [1]})
    with pytest.raises(UserError, match="a metric returns 'completion', which would take the place"):
        summarize([Sample("a")], ["b"], {"completion": MetricResult(0.0, [0.0])})


GOOD = {"prompt": "a", "completion": "b", "references": ["c"]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, "line 3 must have the text 'completion'. Fields: prompt"),
        ({"completion": "a"}, "line 3 must have the text 'prompt'"),
        ({"prompt": "a", "completion": None}, "line 3: 'completion' must be a text .it is None"),
        (
            GOOD | {"prompt": [{"role": "user", "content": "a"}]},
            "line 3: 'prompt' must be .* under 'messages'",
        ),
        (GOOD | {"references": 3}, "line 3: 'references' must be a text or a list of texts"),
        (GOOD | {"concepts": [1]}, "line 3: 'concepts' must be a text or a list"),
        (GOOD | {"columns": [1]}, "line 3: 'columns' must be a mapping"),
        (GOOD | {"references": []}, r"'sari' needs 'references'.*line 3 has \(\): give --references FILE"),
        (GOOD | {"references": [" "]}, r"'sari' needs 'references'.*line 3"),
        ([1], "line 3 must hold a JSON object"),
        (b"{", "line 3 is not valid JSON"),
        (b'{"prompt": "\xff"}', "line 3 is not in UTF-8"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named(tmp_path: Path, row: Any, said: str) -> None:
    file = write(tmp_path / "f.jsonl", {"totals": {}}, GOOD, row)
    with pytest.raises(UserError, match=rf"f\.jsonl.*{said}|{said}") as caught:
        score_file(file, PLAIN)
    assert "f.jsonl, line 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no texts"):
        score_file(write(tmp_path / "f", {"totals": {}}), PLAIN)
    with pytest.raises(UserError, match="is empty"):
        score_file(write(tmp_path / "f"), PLAIN)
    with pytest.raises(UserError, match="cannot be read"):
        score_file(tmp_path / "none", PLAIN)
