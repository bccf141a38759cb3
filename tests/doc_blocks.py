"""The blocks of code of a Markdown page, and how each kind is run or read."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

import typer
import yaml

from rlgf.cli import app
from rlgf.compare.comparison import load_comparison
from rlgf.config import load_config
from rlgf.recipe import Source
from rlgf.reward_models.train import load_reward_recipe

ROOT = Path(__file__).parents[1]
LANGUAGES = ("python", "yaml", "json", "sh", "text")
_FENCE = re.compile(r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?$')
_MARKER = re.compile(r"^<!-- not run: (?P<reason>\S.*) -->$")
_STARTS = ("rlgf ", "pip ", "make ", "python ", "torchrun ", "accelerate ")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str | None
    text: str
    reason: str | None
    """Why it is not run."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Its blocks, in order; one without a language is a shell's where a line begins with a command, else a drawing."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start, found = 0, None
    for number, line in enumerate(lines):
        if found is None and line.startswith("```"):
            start, found = number, _FENCE.match(line)
            assert found is not None, f"{page}, line {number + 1}: {line}"
        elif found is not None and line == "```":
            text = "\n".join(lines[start + 1 : number]) + "\n"
            told = _MARKER.match(lines[start - 1]) if start else None
            commands = any(each.startswith(_STARTS) for each in text.splitlines())
            language = found["language"] or ("sh" if commands else "text")
            reason = told["reason"] if told else None
            yield Block(page, start + 1, language, found["title"], text, reason)
            found = None
    assert found is None, f"{page}: a block that begins in line {start + 1} has no end"


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each line of a shell block, without comments."""
    for line in text.splitlines():
        # Variables may be set for the command.
        words = list(dropwhile(re.compile(r"[A-Z_]+=").match, shlex.split(line, comments=True)))
        if words:
            yield words


def read_command(words: list[str]) -> None:
    """Read a line as its program would, and go no further.

    Raises:
        Exception: the program would refuse it.
    """
    if words[0] in ("torchrun", "accelerate"):
        words = ["rlgf", *words[words.index("-m") + 2 :]]
    if words[0] == "rlgf":
        return read_rlgf(words[1:])
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file() or Path(words[1]).is_file(), words
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(extra.split(",")) <= extras.keys(), words
    else:
        raise AssertionError(f"no reader for the command {words[0]}")
    return None


def read_rlgf(words: list[str]) -> None:
    """Parse the options of a command of ours, and read the recipes that it names."""
    command: Any = typer.main.get_command(app)
    context = None
    try:
        while True:
            context = command.make_context(words[0] if words else "rlgf", list(words), parent=context)
            if not hasattr(command, "commands"):
                break
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    except typer.Exit:  # as --help does
        return
    given = context.params
    if command.name in ("train", "eval", "check", "serve-sampler"):
        load_config(*given["sources"])
    elif command.name == "compare":
        load_comparison(given["recipe"], given["overrides"] or [])
    elif command.name == "reward" and given["sources"]:
        load_reward_recipe(*given["sources"])


def read_json(text: str) -> None:
    for line in text.splitlines():
        json.loads(line)


def read_yaml(block: Block, base: Source) -> None:
    """As a reward model's recipe, as a comparison, as a recipe that is whole, or as a part of one that is laid over another."""
    found = yaml.safe_load(block.text)
    path = Path(block.title or "block.yaml")
    path.write_text(block.text)
    if "kind" in found:
        load_reward_recipe(str(path))
    elif "baseline" in found:
        load_comparison(str(path))
    elif {"task", "policy"} <= found.keys():
        load_config(path)
    else:
        load_config(base, path)
