"""What the documentation shows runs, or is read as the library reads it; what it quotes is there."""

from __future__ import annotations

import ast
import copy
import json
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from typer.testing import CliRunner

import rlgf
from doc_blocks import LANGUAGES, ROOT, Block, blocks_of, commands_of, read_command, read_json, read_yaml
from rlgf.algorithms import ALGORITHMS
from rlgf.cli import app
from rlgf.guides.base import Usage
from rlgf.models.language_model import LanguageModel
from rlgf.models.scratch import ScratchConfig, build_scratch
from rlgf.run.checkpoint import save_policy
from rlgf.run.trainer import Trainer
from training_toys import build

TUTORIAL = ROOT / "docs/tutorial.md"
API = (ROOT / "docs/api.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if page != TUTORIAL and any(blocks_of(page))]
BASE = {
    "name": "base",
    "task": "imdb",
    "policy": {"model": "gpt2"},
    "guide": {"model": "gpt2"},
    "reward": "sentiment",
    "algorithm": "ppo",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; modules that a page writes are found in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLGF_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def desk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages take for granted: a checkout, a recipe, data, models by the names that they use; runs are short."""
    for name in ("recipes", "examples", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    sizes = ScratchConfig(vocabulary=258, layers=1, heads=2, width=16, context=128)
    for name in ("gpt2", "gpt2-large"):
        save_policy(LanguageModel(*build_scratch(sizes, ["The film was a joy."])), folder / name)
    rows = [{"prompt": "The film was", "references": " a joy.", "answer": "joy", "label": "good"}]
    for name in ("train", "validation", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    (folder / "my.yaml").write_text(json.dumps(BASE))
    train = Trainer.train

    def short(self: Trainer, *, resume: bool = False) -> dict[str, dict[str, float]]:
        training = self.config.training.model_copy(update={"updates": 1, "trackers": ()})
        self.config = self.config.model_copy(update={"training": training})
        return train(self, resume=resume)

    monkeypatch.setattr(Trainer, "train", short)
    return folder


def run_python(block: Block, names: dict[str, Any], text: str | None = None) -> None:
    text = block.text if text is None else text
    if block.title is not None:
        Path(block.title).write_text(text)
    exec(compile(text, str(block), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{block}: {block.language}"
    for line in page.read_text().splitlines():
        assert not line.startswith("<!-- not run") or re.fullmatch(r"<!-- not run: \S.* -->", line), line


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_or_are_read(page: Path, desk: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(page):
        if block.reason is not None:
            continue
        try:
            if block.language == "python":
                run_python(block, names)
            elif block.language == "yaml":
                read_yaml(block, BASE)
            elif block.language == "json":
                read_json(block.text)
            elif block.language == "sh":
                for words in commands_of(block.text):
                    read_command(words)
        except Exception as error:
            error.add_note(str(block))
            raise


@contextmanager
def background(command: list[str], port: int) -> Iterator[None]:
    """A program that serves a port while the block runs."""
    process = subprocess.Popen(command)
    try:
        for _ in range(200):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.mark.long
def test_the_tutorial_runs_from_its_first_block_to_its_last(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, said = free_port(), dict[str, str]()
    blocks = [block for block in blocks_of(TUTORIAL) if block.reason is None]
    for block in blocks:
        if block.title is not None:
            Path(block.title).write_text(block.text.replace("8765", str(port)))
    assert "python server.py &" in TUTORIAL.read_text()
    with background([sys.executable, "server.py"], port):
        for block in blocks:
            if block.language == "python":
                run_python(block, {"__name__": "page"}, block.text.replace("8765", str(port)))
            for words in commands_of(block.text) if block.language == "sh" else ():
                if words[0] == "rlgf":
                    if "name=alone" in words:
                        words.append("training.updates=6")  # it would learn little more
                    done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
                    assert done.exit_code == 0, done.output
                    said[" ".join(words[1:3])] = done.output
    alone, guided = (
        json.loads((folder / "runs" / name / "summary.json").read_text())["totals"]["policy"]["reward"]
        for name in ("alone", "polite")
    )
    assert guided > 0.9
    assert alone < 0.5
    assert "Thanks" in said["generate runs/polite/policy"]
    assert (folder / "report.html").stat().st_size > 100_000
    assert "Thanks" in capsys.readouterr().out


@pytest.mark.long
def test_the_notebook_runs(folder: Path) -> None:
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    for cell in notebook.cells:
        assert cell.cell_type != "code" or not cell.outputs, "kept without what it wrote"
        cell.source = cell.source.replace('"updates": 30', '"updates": 2')
    # All cells twice: a reader goes back, and begins again in the same folder.
    again = copy.deepcopy(notebook.cells)
    for cell in again:
        cell.id += "-again"
    notebook.cells += again
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert (folder / "runs/notebook/policy/model.safetensors").is_file()


def test_every_public_name_has_a_place() -> None:
    shown = set(re.findall(r"^::: rlgf[\w.]*\.(\w+)$", API, re.MULTILINE))
    assert shown == set(rlgf.__all__)


def test_every_public_name_says_what_it_is() -> None:
    named = {name: getattr(rlgf, name) for name in rlgf.__all__ if name != "ALGORITHMS"}
    assert [name for name, found in named.items() if not found.__doc__] == []


def test_all_that_a_trainer_has_is_on_its_page() -> None:
    found = re.search(r"::: rlgf\.run\.trainer\.Trainer\n.*?members: \[(.*?)\]", API, re.DOTALL)
    assert found is not None
    assert set(found[1].split(", ")) == {name for name in dir(rlgf.Trainer) if not name.startswith("_")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_teaches_to_import_is_public(page: Path) -> None:
    """Else a name that no page explains, and that may move, would be one that programs rely on."""
    taught = re.findall(r"^ *from (rlgf[\w.]*) import ([\w, ]+)", page.read_text(), re.MULTILINE)
    assert [module for module, _ in taught if module != "rlgf"] == []
    names = {name.strip() for _, line in taught for name in line.split(",")}
    assert names <= set(rlgf.__all__)


def texts_of_source() -> str:
    """Every text that the library may say, with … for what is put into it."""

    def text_of(node: ast.AST) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(
                text_of(value) if isinstance(value, ast.Constant) else "…" for value in node.values
            )
        if isinstance(node, ast.BinOp):
            return text_of(node.left) + text_of(node.right)
        return "…"

    found = []
    for path in (ROOT / "src/rlgf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                found.append(text_of(node))
    return "\n".join(found)


def test_errors_are_quoted_as_they_are_said() -> None:
    quoted = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert len(quoted) > 40
    said = texts_of_source()
    assert [text for text in quoted if text not in said] == []


def test_the_site_leads_to_every_page() -> None:
    listed = re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


def test_the_layers_of_the_architecture_are_those_that_lint_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if "layers" in contract)
    heights = {name: height for height, layer in enumerate(layers) for name in layer.split(" : ")}
    table = (ROOT / "docs/architecture.md").read_text().split("## The life")[0]
    named = [
        name for row in re.findall(r"^\| (`.+?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)
    ]
    packages = {path.parent.name for path in (ROOT / "src/rlgf").glob("*/__init__.py")}
    assert packages <= set(named) <= heights.keys()
    drawn = [heights[name] for name in named if name in packages]
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_what_an_update_logs_is_explained(name: str) -> None:
    keys = re.findall(r"`([^`]+)`", (ROOT / "docs/logs.md").read_text())
    patterns = [re.compile(re.sub("NAME|TERM", "[a-z]+", re.escape(key))) for key in keys]
    logged = build(name).step()
    assert [key for key in logged if not any(pattern.fullmatch(key) for pattern in patterns)] == []


def test_what_a_guide_is_asked_is_explained() -> None:
    page = (ROOT / "docs/logs.md").read_text()
    assert [name for name in vars(Usage()) if f"`guide_{name}`" not in page] == []
