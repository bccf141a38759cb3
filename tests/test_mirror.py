"""The tests of a module are found where the module is: those of `rlgf.a.b` in `tests/a/test_b.py`.

A second file about the same module adds words: `tests/a/test_b_in_runs.py`. What spans modules stands in
`tests/properties`; tests of recipes, docs and examples, and of modules of no package, beside this file.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import rlgf

TESTS = Path(__file__).parent
SOURCE = Path(rlgf.__file__).parent
SPANNING = {"properties", "gpu"}
ELSEWHERE = {
    "__main__": "a call of the command line",
    "algorithms.base_rows": "rows of the catalog: test_catalog.py",
    "algorithms.imitation_rows": "the same",
    "algorithms.reference_rows": "the same",
    "preview.form": "layout, shown by preview/test_report.py",
    "checks.rule": "a type and a short helper of checks/test_settings.py and test_parts.py",
    "demo.models": "packaged models: reward_models/test_train.py and models/samplers/test_vllm.py",
    "guides.repeats": "a server's self-test, in guides/test_http_scores.py",
    "models.samplers.base": "the contract of models/test_samplers.py",
    "models.samplers.desk": "answers for models/samplers/test_server.py",
    "models.samplers.wire": "what travels in models/samplers/test_server.py",
    "run.models": "what run/test_build.py, run/test_start.py and models/test_sharding_hollow.py build",
    "strict": "the base of what recipes have sections of: test_recipe.py",
}
"""Modules without a test file of their own, each with the reason."""


def modules() -> set[str]:
    """Those with code, without `rlgf.` before them; of a package's `__init__` only what defines something."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        *folders, name = path.relative_to(SOURCE).with_suffix("").parts
        if name != "__init__":
            found.add(".".join([*folders, name]))
        elif folders and any(isinstance(node, ast.FunctionDef) for node in ast.parse(path.read_text()).body):
            found.add(".".join(folders))
    return found


def file_of(module: str) -> Path:
    """The test file of a module; that of a package may stand in its folder."""
    path = TESTS.joinpath(*module.split("."))
    inside = path / f"test_{path.name}.py"
    return inside if inside.exists() else path.with_name(f"test_{path.name}.py")


def test_every_module_has_a_test_file_or_a_reason() -> None:
    without = {module for module in modules() if not file_of(module).exists()}
    assert without == ELSEWHERE.keys(), "write its test file, or say in ELSEWHERE where it is tested"


def test_every_test_file_of_a_package_begins_with_the_name_of_a_module() -> None:
    files = [file for file in TESTS.glob("*/**/test_*.py") if not SPANNING & set(file.parts)]
    assert len(files) > 150
    known = {file_of(module) for module in modules()}
    for file in files:
        words = file.stem.split("_")
        starts = ["_".join(words[:count]) for count in range(2, len(words) + 1)]
        assert known & {file.with_name(f"{start}.py") for start in starts}, file


@pytest.mark.parametrize("name", rlgf.__all__)
def test_a_public_name_is_imported_where_its_module_is_tested(name: str) -> None:
    module = rlgf._HOME[name]
    # Packages pass on what is theirs to give; a table of them does not say where it is from.
    home = getattr(getattr(importlib.import_module(module), name), "__module__", "rlgf.algorithms.catalog")
    file = file_of(home.removeprefix("rlgf."))
    imported = [
        alias.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rlgf")
        for alias in node.names
    ]
    assert name in imported, file
