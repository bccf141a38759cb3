"""Nothing in the library and its tests is longer than a reader can hold: files, classes and functions, docstrings not counted."""

from __future__ import annotations

import ast
from pathlib import Path

import rlgf

FILE, CLASS, FUNCTION = 300, 200, 50


def test_nothing_is_too_long() -> None:
    places = [Path(rlgf.__file__).parent, Path(__file__).parent]
    paths = [path for place in places for path in place.rglob("*.py")]
    assert len(paths) > 400
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
            lines = lines_of(node) - docstring_lines(node)
            sizes.append((node.name, lines, CLASS if isinstance(node, ast.ClassDef) else FUNCTION))
    return [(name, lines) for name, lines, limit in sizes if lines > limit]


def docstring_lines(tree: ast.AST) -> int:
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = [
        node.body[0]
        for node in ast.walk(tree)
        if isinstance(node, owners) and ast.get_docstring(node) is not None
    ]
    return sum(lines_of(one) for one in docstrings)


def lines_of(node: ast.stmt) -> int:
    assert node.end_lineno is not None, "parsed, so it has an end"
    return node.end_lineno - node.lineno + 1


def test_what_is_too_long_is_found() -> None:
    body = "    x = 1\n" * 50
    assert too_long(f'def f():\n    """Says\n    much."""\n{body[:-10]}') == []
    assert too_long(f"def f():\n{body}") == [("f", 51)]
    assert too_long("x = 1\n" * 301) == [("it", 301)]
