"""How a response holds an answer, and the steps that lead to one."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Form:
    """A response as a template of ``{answer}`` and, before it, ``{steps}``.

    Raises:
        ValueError: it holds no answer, steps after it, or no text between the two.
    """

    template: str = "{answer}"

    def __post_init__(self) -> None:
        before, answer, after = self.template.partition("{answer}")
        if not answer or "{answer}" in after or "{steps}" in after or before.count("{steps}") > 1:
            raise ValueError("it must hold {answer} once, and {steps} before it or not at all")
        if self.has_steps and not self.mark.strip():
            raise ValueError(
                "between {steps} and {answer} must stand what tells them apart, as in '{steps}\\nAnswer: {answer}'"
            )

    @property
    def has_steps(self) -> bool:
        return "{steps}" in self.template

    @property
    def head(self) -> str:
        """What stands before the steps."""
        return self.template.partition("{steps}")[0] if self.has_steps else ""

    @property
    def mark(self) -> str:
        """What stands before the answer."""
        return self.template.partition("{answer}")[0].rpartition("{steps}")[2]

    @property
    def end(self) -> str:
        """What stands after the answer."""
        return self.template.partition("{answer}")[2]

    def written(self, answer: str, steps: str = "") -> str:
        """The response with an answer."""
        return (self.head + steps if self.has_steps else "") + self.mark + answer + self.end

    def answer(self, response: str) -> str | None:
        """What stands after the last mark and before the next end, without spaces around it; None without a mark.

        Spaces and line breaks at the borders of mark and end need not be there.
        """
        mark, end = self.mark.strip(), self.end.strip()
        if mark and mark not in response:
            return None
        rest = response.rpartition(mark)[2] if mark else response
        return (rest.partition(end)[0] if end else rest).strip()


def chain_sum_steps(metadata: Mapping[str, Any]) -> list[str]:
    """The running totals of a chain sum, one a line: ``12 + 7 = 19``."""
    first, *parts = metadata["expression"].split()
    total, lines = int(first), []
    for operator, term in zip(parts[::2], parts[1::2], strict=True):
        before, total = total, total + (int(term) if operator == "+" else -int(term))
        lines.append(f"{before} {operator} {term} = {total}")
    return lines


def countdown_steps(metadata: Mapping[str, Any]) -> list[str]:
    """The operations of a countdown solution, one a line: ``98 - 54 = 44``."""
    lines: list[str] = []
    evaluated(metadata["expression"], lines.append)
    return lines


def evaluated(expression: str, tell: Callable[[str], object] = lambda line: None) -> float:
    """The value of an expression of numbers, ``+ - * / **`` and parentheses.

    Args:
        tell: told each operation in turn, as ``98 - 54 = 44``.

    Raises:
        ValueError: it is not such an expression, or has no value that is a number.
    """

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            left, right = value(node.left), value(node.right)
            sign, result = _OPERATIONS[type(node.op)]
            found = result(left, right)
            if isinstance(found, complex) or not math.isfinite(found):
                raise ValueError(f"{left} {sign} {right} is not a number")
            tell(f"{number(left)} {sign} {number(right)} = {number(found)}")
            return found
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return float(node.value)  # type: ignore[arg-type]
        raise ValueError(f"{ast.unparse(node)} is not made of numbers")

    try:
        return value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ArithmeticError) as error:
        raise ValueError(str(error)) from error


_OPERATIONS: Mapping[type[ast.operator], tuple[str, Callable[[float, float], float]]] = {
    ast.Add: ("+", lambda a, b: a + b),
    ast.Sub: ("-", lambda a, b: a - b),
    ast.Mult: ("*", lambda a, b: a * b),
    ast.Div: ("/", lambda a, b: a / b),
    ast.Pow: ("**", lambda a, b: a**b),
}


def number(value: float) -> str:
    """A number as a solution writes it."""
    return str(int(value)) if value == int(value) else f"{value:.6g}"


STEPS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "chain_sum": chain_sum_steps,
    "countdown": countdown_steps,
}
"""The data sets whose solutions can be written step by step, each line a step."""
