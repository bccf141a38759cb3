"""How a command says what its user can mend."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def refuse(sentence: str) -> None:
    """Say on standard error what is wrong."""
    Console(stderr=True).print(Text(f"rlgf: {sentence}", style="bold red"), soft_wrap=True)
