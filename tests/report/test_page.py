"""The page: what it holds, and what cannot get out of it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from page_reader import Reader, lines, unpacked
from report_toys import HOSTILE, run_folder, sample
from typer.testing import CliRunner

from resume_script import toy_trainer
from rlgf.cli import app
from rlgf.report.groups import Group, grouped
from rlgf.report.page import page_model, render, write_report
from rlgf.report.runs import find_runs, read_run
from rlgf.terminal import visible


def test_hostile_text_stays_inside_its_block(tmp_path: Path) -> None:
    tokens = [*HOSTILE, "end"]
    samples = [
        sample(1, i, tokens, prompt=HOSTILE[0], reference=HOSTILE[1], guide=HOSTILE[2]) for i in range(3)
    ]
    folder = run_folder(tmp_path / "a", samples)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"name": HOSTILE[0], "reward": {"name": HOSTILE[1]}, "task": {"name": "\u202eksat\x1b[2J"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    page = write_report([folder]).read_text(encoding="utf-8")
    reader = Reader(page)
    back = unpacked(reader)
    assert all(s["tokens"] == tokens for s in back)
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in reader.tags)
    assert (
        len([tag for tag, _ in reader.tags if tag == "script"])
        == page.count("</script>")
        == 1 + 1 + 1 + 1 + 6
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", page)
    assert r"\u202eksat\x1b[2J" in page


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = write_report([run_folder(tmp_path / "a", [sample(1, 0, ["a"])])]).read_text()
    for tag, attributes in Reader(page).tags:
        assert "src" not in attributes
        if "href" in attributes:
            assert str(attributes["href"]).startswith(("#", "data:")), (tag, attributes)
    assert "default-src 'none'; script-src 'sha256-" in page


def test_every_name_survives_being_embedded(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "a", []))
    for text in [*HOSTILE, "a \U0001f642 b"]:
        found = "".join(Reader(render([Group(text, [run], [text])], "title")).data["names"])
        assert json.loads(found) == {"groups": [visible(text)], "runs": [visible(text)]}
        assert not {*"<>&"} & {*found}


@pytest.mark.parametrize(
    ("guide", "algorithm", "shown"),
    [
        ({"oracle": True, "errors": 0.1}, "ppo++", "oracle, errors 0.1"),
        ({"self": True}, "ppo++", "self"),
        ({"file": "texts.jsonl"}, "ppo++", "texts.jsonl"),
        ({"guides": {"a": {"model": "one"}, "b": {"oracle": True}}}, "ppo++", "one, oracle"),
        ({"name": "own.py:Guide"}, "ppo++", "own.py:Guide"),
        ({"model": "better", "of another version": 1}, "ppo++", "better"),
        ({"model": "better"}, "ppo", "none"),
        (None, "ppo++", "given in Python"),
        (None, "ppo", "none"),
        ({"model": "better"}, {"terms": {"policy": {"loss": "own.py:loss"}}}, "better"),
    ],
)
def test_the_guide_is_named_where_one_is_asked(
    tmp_path: Path, guide: dict[str, Any] | None, algorithm: Any, shown: str
) -> None:
    folder = run_folder(tmp_path / "a", algorithm=algorithm)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"guide": guide}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (listed,) = page_model(grouped([read_run(folder)]), "")["runs"]
    assert listed["guide"] == shown


def test_warnings_stand_on_the_page_once(tmp_path: Path) -> None:
    page = write_report([run_folder(tmp_path / "a", updates=30, rise=0.0)]).read_text()
    assert page.count("docs/warnings.md#reward-flat") == 1
    assert "update 10: The reward has stood at its lowest, 0.1," in page.replace("</strong>, ", "")


@pytest.mark.long
def test_a_page_of_limited_size_leaves_out_samples_and_then_points(tmp_path: Path) -> None:
    rng = random.Random(0)
    for seed in (0, 1):
        texts = [sample(u, i, [f"{rng.random()}" for _ in range(8)]) for u in range(1, 401) for i in range(4)]
        run_folder(tmp_path / f"seed-{seed}", texts, seed=seed, updates=400, rise=rng.random())
    groups = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    whole = render(groups, "both")

    def read(most: int) -> tuple[Reader, list[int]]:
        page = render(groups, "both", most)
        assert len(page.encode()) < most
        reader = Reader(page)
        chart = next(c for line in lines(reader, "charts") if (c := json.loads(line))["metric"] == "reward")
        return reader, chart["curves"][0]["lines"][0]["x"]

    reader, points = read(len(whole) - 100_000)
    assert points == list(range(1, 401))
    assert {s["update"] for s in unpacked(reader)} >= {1, 400}
    assert 400 < len(unpacked(reader)) < 3200
    # Room for styles, scripts and tables, for a few texts, and not for the curves.
    styles = len(render([], "none"))
    reader, points = read(styles + 20_000)
    assert points[:2] in ([1, 3], [1, 6], [1, 11], [1, 21])
    assert points[-1] == 400
    assert {s["run"] for s in unpacked(reader)} == {0, 1}


def test_a_warning_of_several_seeds_stands_once(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        run_folder(tmp_path / f"seed-{seed}", seed=seed, updates=30, rise=0.0 if seed else 0.1)
    (group,) = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    found = {sentence[-30:]: (who, when) for who, when, sentence in page_model([group], "")["warnings"]}
    assert found["See docs/warnings.md#reward-flat."[-30:]] == (f"{group.name}, 2 runs of 3", "update 10")


def test_a_real_run_becomes_a_page_with_all_its_samples(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "run", algorithm="ppo++").train()
    result = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "run" / "report.html").read_text()
    reader = Reader(page)
    written = unpacked(reader)
    kept = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [s["tokens"] for s in written if s["split"] != "test"] == [s["tokens"] for s in kept]
    prompts = [json.loads(line) for line in lines(reader, "prompts")]
    assert [prompts[s["p"]] for s in written if s["split"] != "test"] == [s["prompt"] for s in kept]
    assert sum(s["split"] == "test" for s in written) == 8
    titles = [json.loads(line)["title"] for line in lines(reader, "charts")]
    assert {"Validation reward", "Clip fraction", "Explained variance", "Reward with help", "Writing"} <= {
        *titles
    }
    assert "the guide begins, the policy goes on" in page


def test_a_run_without_samples_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "samples.jsonl").unlink()
    assert "training.samples_kept" in write_report([folder]).read_text()


def test_own_code_is_not_executed_to_describe_a_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('executed')\n")
    loss = {"policy": {"loss": f"{tmp_path}/own.py:loss"}}
    folder = run_folder(tmp_path / "a", algorithm={"name": "mine", "terms": loss})
    page = write_report([folder]).read_text()
    assert "own.py:loss" in page
    assert "did not execute" in page
