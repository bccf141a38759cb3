"""Nothing in the library is longer than a reader can hold: files, classes and functions, docstrings not counted."""

from __future__ import annotations

import ast
from pathlib import Path

import rlgf

FILE, CLASS, FUNCTION = 300, 200, 50


def test_nothing_is_too_long() -> None:
    paths = list(Path(rlgf.__file__).parent.rglob("*.py"))
    assert len(paths) > 100
    found = [
        f"{path.name}: {name} has {lines} lines"
        for path in paths
        for name, lines in too_long(path.read_text())
    ]
    assert not found


def too_long(source: str) -> list[tuple[str, int]]:
    tree = ast.parse(source)
    sizes = [("it", len(source.splitlines()) - docstring_lines(tree), FILE)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1 - docstring_lines(node)  # type: ignore[operator]
            sizes.append((node.name, lines, CLASS if isinstance(node, ast.ClassDef) else FUNCTION))
    return [(name, lines) for name, lines, limit in sizes if lines > limit]


def docstring_lines(tree: ast.AST) -> int:
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = [
        node.body[0]
        for node in ast.walk(tree)
        if isinstance(node, owners) and ast.get_docstring(node) is not None
    ]
    return sum(one.end_lineno - one.lineno + 1 for one in docstrings)  # type: ignore[operator]


def test_what_is_too_long_is_found() -> None:
    body = "    x = 1\n" * 50
    assert too_long(f'def f():\n    """Says\n    much."""\n{body[:-10]}') == []
    assert too_long(f"def f():\n{body}") == [("f", 51)]
    assert too_long("x = 1\n" * 301) == [("it", 301)]
