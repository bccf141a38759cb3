"""From what runs have written to the page: what it holds, and what cannot get out of it."""

from __future__ import annotations

import base64
import gzip
import html.parser
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_toys import HOSTILE, run_folder, sample, write_lines
from typer.testing import CliRunner

from resume_script import toy_trainer
from rlgf.algorithms import ALGORITHMS
from rlgf.cli import app
from rlgf.errors import UserError
from rlgf.report.charts import curve, frontiers, sections
from rlgf.report.groups import grouped
from rlgf.report.page import embedded, page_model, render
from rlgf.report.runs import find_runs, read_run
from rlgf.report.samples import thinned
from rlgf.report.told import drawing, told_algorithm
from rlgf.report.write import write_report


class Reader(html.parser.HTMLParser):
    """What a browser would see: elements with their attributes, and the text of scripts by their class or id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, list[str]] = {}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append((tag, found))
        self._in = str(found.get("class") or found.get("id") or tag) if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.data.setdefault(self._in, []).append(data)


def lines(reader: Reader, name: str) -> list[str]:
    return gzip.decompress(base64.b64decode("".join(reader.data[name]))).decode().split("\n")


def unpacked(reader: Reader) -> list[dict[str, Any]]:
    """The samples of a page, their tokens cut out of the text as the page does it, in units of 16 bits."""
    found = []
    for line in lines(reader, "samples"):
        head, rest = map(json.loads, line.split("\t"))
        text = "".join(part for _, _, part in head["parts"]).encode("utf-16-le", errors="surrogatepass")
        ends = [2 * end for end in itertools.accumulate(rest["cuts"])]
        tokens = [
            text[i:j].decode("utf-16-le", errors="surrogatepass")
            for i, j in zip([0, *ends], ends, strict=False)
        ]
        found.append({**head, **rest, "tokens": tokens})
    return found


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


def test_every_json_survives_being_embedded() -> None:
    for text in [*HOSTILE, "a \U0001f642 b"]:
        found = embedded(json.dumps(text))
        assert json.loads(found) == text
        assert not {*"<>&"} & {*found}


def test_seeds_are_one_curve_with_the_interval_of_their_mean(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        run_folder(tmp_path / "ppo++" / f"seed-{seed}", seed=seed)
    run_folder(tmp_path / "ppo" / "seed-0", algorithm="ppo", finished=False, updates=3)
    groups = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    assert [group.name for group in groups] == ["ppo", "ppo++"]
    assert list(groups[1].labels) == ["ppo++, seed 0", "ppo++, seed 1", "ppo++, seed 2"]
    found = curve(groups[1], "validation/reward")
    assert found is not None
    assert found["x"] == [0, 1, 2, 3, 4]
    assert found["mean"][0] == pytest.approx(0.11)
    # t(0.975, 2) * 0.01 / sqrt(3), of a table
    assert found["high"][0] - found["mean"][0] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3)
    assert "mean" not in (curve(groups[0], "validation/reward") or {})
    assert curve(groups[0], "nothing") is None
    paths = frontiers(groups)[0]["paths"]
    assert [path["label"] for path in paths] == ["ppo", "ppo++, seed 0", "ppo++, seed 1", "ppo++, seed 2"]
    assert paths[1]["x"] == [0.0, 0.1, 0.2, 0.3, 0.4]
    model = page_model(groups, {}, "both")
    assert [run["state"] for run in model["runs"]] == [
        "3 of 3 updates done",
        "finished",
        "finished",
        "finished",
    ]
    assert model["going"].startswith("1 of 4 runs")


def test_two_seeds_have_a_mean_and_no_interval(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_folder(tmp_path / f"seed-{seed}", seed=seed)
    (group,) = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    found = curve(group, "reward")
    assert found is not None
    assert set(found["low"]) == {None}


def test_whatever_was_logged_is_drawn(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    write_lines(
        folder / "metrics.jsonl", [{"update": 1, "own_metric": 3.0, "seconds": 2.0, "algorithm": "ppo"}]
    )
    groups = grouped([read_run(folder)])
    assert [(s["title"], [c["title"] for c in s["charts"]]) for s in sections(groups)] == [
        ("All other metrics", ["own_metric"])
    ]


def test_a_run_that_goes_on_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", [sample(1, 0, ["a"]), sample(1, 0, ["b"])], finished=False)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"update": 5, "re')
    run = read_run(folder)
    assert run.updates == 4
    # An evaluation that was interrupted is written again, and the later line counts.
    assert [s["tokens"] for s in run.samples] == [["b"]]
    assert write_report([folder]).is_file()


def test_warnings_stand_on_the_page_once(tmp_path: Path) -> None:
    page = write_report([run_folder(tmp_path / "a", updates=30, rise=0.0)]).read_text()
    assert page.count("docs/warnings.md#reward-flat") == 1
    assert "update 10: The reward has stood at its lowest, 0.1," in page.replace("</strong>, ", "")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "samples.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(UserError, match=r"samples.jsonl, line 2, is not JSON"):
        read_run(folder)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="holds no run"):
        find_runs([tmp_path])


def test_summaries_alone_say_that_samples_are_missing(tmp_path: Path) -> None:
    (tmp_path / "imdb.json").write_text(
        json.dumps([{"setting": "dense", "who": "ppo", "seeds": 5, "reward": 0.8}])
    )
    page = write_report([tmp_path]).read_text()
    assert "its runs, with their curves and samples, are not" in page
    assert "<td>dense</td>" in page
    assert "There are no samples" in page


def test_a_run_without_samples_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    (folder / "samples.jsonl").unlink()
    assert "training.samples_kept" in write_report([folder]).read_text()


def test_where_there_are_too_many_updates_are_left_out_evenly() -> None:
    samples = [sample(update, i, ["a"]) for update in range(1, 101) for i in range(2)]
    kept = thinned(samples, 50)
    updates = sorted({s["update"] for s in kept})
    assert len(kept) <= 50
    assert updates[0] == 1
    assert updates[-1] == 100
    assert all(sum(s["update"] == update for s in kept) == 2 for update in updates)
    assert thinned(samples, 200) == samples


def test_where_two_updates_are_too_many_each_split_keeps_its_first_texts() -> None:
    samples = [
        sample(update, i, ["a"], split=split)
        for update in (0, 5, 9)
        for split in ("train", "validation", "test")
        for i in range(20)
    ]
    kept = [(s["update"], s["split"], s["episode"]) for s in thinned(samples, 13)]
    assert kept[:3] == [(0, "train", 0), (0, "train", 1), (0, "train", 2)], "the odd one is the first's"
    rest = [(u, s) for u in (0, 9) for s in ("train", "validation", "test")][1:]
    assert kept[3:] == [(update, split, i) for update, split in rest for i in range(2)]


def test_a_page_of_limited_size_leaves_out_samples_and_then_points(tmp_path: Path) -> None:
    rng = random.Random(0)
    for seed in (0, 1):
        texts = [sample(u, i, [f"{rng.random()}" for _ in range(8)]) for u in range(1, 401) for i in range(4)]
        run_folder(tmp_path / f"seed-{seed}", texts, seed=seed, updates=400, rise=rng.random())
    groups = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    whole = render(groups, {}, "both")

    def read(most: int) -> tuple[Reader, list[int]]:
        page = render(groups, {}, "both", most)
        assert len(page.encode()) < most
        reader = Reader(page)
        chart = next(c for line in lines(reader, "charts") if (c := json.loads(line))["metric"] == "reward")
        return reader, chart["curves"][0]["lines"][0]["x"]

    reader, points = read(len(whole) - 100_000)
    assert points == list(range(1, 401))
    assert {s["update"] for s in unpacked(reader)} >= {1, 400}
    assert 400 < len(unpacked(reader)) < 3200
    # Room for styles, scripts and tables, for a few texts, and not for the curves.
    styles = len(render([], {}, "none"))
    reader, points = read(styles + 20_000)
    assert points[:2] in ([1, 3], [1, 6], [1, 11], [1, 21])
    assert points[-1] == 400
    assert {s["run"] for s in unpacked(reader)} == {0, 1}


def test_a_warning_of_several_seeds_stands_once(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        run_folder(tmp_path / f"seed-{seed}", seed=seed, updates=30, rise=0.0 if seed else 0.1)
    (group,) = grouped([read_run(folder) for folder in find_runs([tmp_path])])
    found = {sentence[-30:]: (who, when) for who, when, sentence in page_model([group], {}, "")["warnings"]}
    assert found["See docs/warnings.md#reward-flat."[-30:]] == (f"{group.name}, 2 runs of 3", "update 10")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_told_and_drawn(name: str) -> None:
    config: dict[str, Any] = {"algorithm": ALGORITHMS[name].model_dump(mode="json"), "rollout": {}}
    told = told_algorithm(config)
    assert told is not None
    assert len(told["rows"]) == len(ALGORITHMS[name].rows)
    for row, drawn in zip(ALGORITHMS[name].rows, told["rows"], strict=True):
        authors = {part["author"] for line in drawn["drawing"]["lines"] for part in line["segments"]}
        writers = {row.script.rollin, row.script.rollout} - {None}
        assert authors == {author.name.lower() for author in writers}
        hints = [line["label"] for line in drawn["drawing"]["lines"] if "hint" in line["label"]]
        assert len(hints) == row.script.hinted
        assert len(drawn["drawing"]["reads"]) == len(row.terms)


def test_what_may_have_no_help_is_drawn_without_it_too() -> None:
    lines = {name: len(drawing(row.rows[0])["lines"]) for name, row in ALGORITHMS.items()}
    assert {name for name, count in lines.items() if count == 1 and ALGORITHMS[name].rows[0].help.ever} == {
        "dr-po",
        "reverse-curriculum",
        "questa",
        "uft",
        "opsd",
        "sdft",
    }


def test_ppo_plus_plus_learns_from_the_rollout_and_aggrevated_from_the_rollin() -> None:
    spans = {
        name: drawing(ALGORITHMS[name].rows[0])["reads"][0]["span"] for name in ("ppo++", "aggrevated", "ppo")
    }
    assert spans == {"ppo++": "rollout", "aggrevated": "rollin", "ppo": "whole"}


def test_own_code_is_not_executed_to_describe_a_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('executed')\n")
    loss = {"policy": {"loss": f"{tmp_path}/own.py:loss"}}
    folder = run_folder(tmp_path / "a", algorithm={"name": "mine", "terms": loss})
    page = write_report([folder]).read_text()
    assert "own.py:loss" in page
    assert "did not execute" in page
