"""Texts that cannot steer a terminal, and numbers for people."""

from __future__ import annotations

import pytest

from rlgf.terminal import number, printable, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 100%.", "plain words, 100%."),
        ("naïve café Ελληνικά 日本語 🙂", "naïve café Ελληνικά 日本語 🙂"),
        ("one\n two\t\tthree", "one two three"),
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\x00b\x08c\x7f", r"a\x00b\x08c\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202edcba", r"abc\u202edcba"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("a\u034fb\u3164c\uffa0", r"a\u034fb\u3164c\uffa0"),
        ("half \ud83d", r"half \ud83d"),
        ("[bold]not markup[/bold] :smile:", "[bold]not markup[/bold] :smile:"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_every_control_character_is_made_harmless() -> None:
    for code in [*range(0x20), *range(0x7F, 0xA0)]:
        shown = printable(f"a{chr(code)}b")
        assert shown.isprintable()
        assert shown != "ab"


def test_a_text_keeps_its_lines_and_spaces() -> None:
    assert visible("a  b\n\tc\x1b") == "a  b\n\\tc\\x1b"
    assert visible("a\tb", kept="\t") == "a\tb"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.512345, "0.5123"),
        (2.0, "2"),
        (-1.5e-7, "-1.5e-07"),
        (999.96, "1000"),
        (12345.6, "12,346"),
        (3e6, "3,000,000"),
    ],
)
def test_large_numbers_have_no_power_of_ten(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_number_may_have_fewer_digits() -> None:
    assert [number(value, 2) for value in (0.2743, 9.96, 24.6, 240.4)] == ["0.27", "10", "25", "240"]
