"""The page in a real browser: it opens from disk, every control works, it stays fast, and nothing in a text runs.

Skipped where there is no Chromium.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import NAMES, Page, browser_path, opened
from report_toys import HOSTILE, run_folder, sample

from rlgf.report.page import write_report

pytestmark = pytest.mark.skipif(
    browser_path() is None, reason=f"no browser is installed (looked for {', '.join(NAMES)})"
)
WORDS = [
    "the",
    "film",
    "was",
    "a",
    "joy",
    "from",
    "its",
    "first",
    "scene",
    "to",
    "last",
    "and",
    "she",
    "plays",
    "with",
    "wit",
]
MOST = 10_000


# Tasks that keep the page from reacting, in milliseconds, from here on.
WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((e) => longTasks.push(Math.round(e.duration))))
  .observe({ type: "longtask", buffered: true });
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = browser_path()
    assert path is not None
    with opened(path, tmp_path_factory.mktemp("profile")) as found:
        found.show(1280, 900)
        yield found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two runs of eight samples in each of four updates; the same prompts in all."""
    root = tmp_path_factory.mktemp("small")
    for seed in (0, 1):
        texts = [
            sample(update, i, [*WORDS[:4], f" {seed}-{update}-{i}", ""])
            for update in range(1, 5)
            for i in range(8)
        ]
        run_folder(root / f"seed-{seed}", texts, seed=seed)
    return write_report([root]).as_uri()


def problems(page: Page) -> list[Any]:
    """What the console says, what was thrown, and every request but that of the page itself."""
    named = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
    page.evaluate("1")
    found = [event for event in page.events if event.get("method") in named]
    for event in page.events:
        if event.get("method") == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if not url.startswith(("file:", "data:")):
                found.append(url)
    return found


def count(page: Page) -> str:
    return str(page.evaluate("document.getElementById('count').textContent"))


def choose(page: Page, name: str, value: str) -> None:
    """As a reader does: the field takes a value and says so."""
    page.evaluate(
        f"(() => {{ const f = document.getElementById('controls').elements['{name}']; f.value = '{value}';"
        " f.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def test_controls_work_and_the_page_asks_for_nothing(page: Page, small: str) -> None:
    page.open(small)
    assert count(page) == "64 of 64 samples"
    choose(page, "author", "alone")
    page.wait("document.getElementById('count').textContent.startsWith('0 of')")
    choose(page, "author", "guide")
    choose(page, "outcome", "ended")
    page.wait("document.getElementById('count').textContent.startsWith('32 of')")
    choose(page, "sort", "best")
    page.evaluate("document.querySelector('[name=q]').focus()")
    page.type("1-3-")
    page.wait("document.getElementById('count').textContent.startsWith('4 of')")
    page.evaluate("document.getElementById('list').focus()")
    page.press("ArrowDown")
    page.wait("document.querySelectorAll('.card').length === 2")
    assert page.evaluate("document.querySelector('.card.chosen').textContent").count("1-3-6") == 1
    page.press("End")
    page.wait("document.querySelector('.card.chosen').textContent.includes('1-3-0')")
    choose(page, "view", "prompt")
    # Two runs, four updates, two members.
    page.wait("document.querySelectorAll('.card').length === 16")
    choose(page, "colour", "advantages")
    page.wait("document.querySelectorAll('.card .by-number .u4').length > 0")
    address = page.evaluate("location.href")
    page.evaluate("document.querySelector('.card .text').focus()")
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('.card .readout').textContent").startswith(
        "token 1 of 6 · guide"
    )
    page.open(address)
    assert page.evaluate("document.querySelectorAll('.card').length") == 16
    assert (
        page.evaluate("document.querySelector('.row[aria-selected=true]').textContent").count("update 3") == 1
    )
    assert page.evaluate("document.querySelector('[name=outcome]').value") == "ended"
    page.click("#controls [type=reset]")
    page.wait("document.getElementById('count').textContent.startsWith('64 of')")
    assert problems(page) == []


def test_a_hint_is_shown_and_an_environment_helps_nobody(page: Page, tmp_path: Path) -> None:
    """What an environment answers is in every dialogue; those without a helper are the policy's alone."""
    turns: dict[str, Any] = {"prompt": "sum", "authors": [["policy", 1], ["environment", 1]]}
    samples = [
        sample(1, 0, ["2+2", "4"], **turns),
        sample(1, 1, ["2+2", "4"], prompt="sum", hint="add <b>both</b>\u202e"),
    ]
    page.open(write_report([run_folder(tmp_path / "a", samples)]).as_uri() + "#author=alone")
    assert count(page) == "1 of 2 samples"
    page.evaluate("document.getElementById('list').focus()")
    page.press("ArrowDown")
    page.wait("document.querySelectorAll('.card').length === 2")
    hints = "[...document.querySelectorAll('.card .hint')].map((hint) => hint.textContent)"
    assert page.evaluate(hints) == [r"Hint in the prompt: add <b>both</b>\u202e"]
    assert problems(page) == []


def test_a_click_opens_what_is_under_it(page: Page, small: str) -> None:
    page.open(small)
    page.click("#list")
    page.wait("document.querySelector('.card.chosen')")
    assert problems(page) == []


def test_charts_are_drawn_and_can_be_read_without_seeing_them(page: Page, small: str) -> None:
    page.open(small)
    page.evaluate("document.getElementById('reward').scrollIntoView()")
    page.wait("document.querySelectorAll('#reward canvas').length > 0")
    label = "document.querySelector('#reward .plot').getAttribute('aria-label')"
    assert page.evaluate(label).startswith("Validation reward: ")
    page.click("#reward .chart summary")
    page.wait("document.querySelectorAll('#reward .chart table tr').length === 11")
    page.evaluate("document.getElementById('frontier').scrollIntoView()")
    page.wait("document.querySelectorAll('#frontier canvas').length > 0")
    assert problems(page) == []


def test_hostile_texts_are_shown_and_do_not_run(page: Page, tmp_path: Path) -> None:
    tokens = [*HOSTILE, "end"]
    samples = [sample(1, i, tokens, prompt=HOSTILE[i % 4], reference=HOSTILE[0]) for i in range(4)]
    page.open(write_report([run_folder(tmp_path / "a", samples)]).as_uri())
    page.evaluate("document.getElementById('list').focus()")
    page.press("ArrowDown")
    page.wait("document.querySelector('.card .text')")
    shown = page.evaluate("document.querySelector('.card .text').textContent")
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    assert (
        r"\x1b[31mred\x07 \x00 \u202eright to left\u202c \u2066isolated\u2069 \u200b\ufeff\u3164 \ud800"
        in shown
    )
    assert page.evaluate("window.ran === undefined")
    assert page.evaluate("document.querySelectorAll('#samples img, #samples script').length") == 0
    assert problems(page) == []


def test_a_script_that_got_in_would_not_run(page: Page, small: str) -> None:
    """The policy of the page lets its own scripts run and no others."""
    page.open(small)
    page.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); const i = document.createElement('img'); i.src = 'https://example.org/x.png';"
        " document.body.append(i); })()"
    )
    assert page.evaluate("window.ran === undefined")
    page.wait("true")
    blocked = [e for e in page.events if "Content Security Policy" in str(e)]
    assert len(blocked) >= 2


@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="it takes times: make test-browser")
def test_ten_thousand_samples_scroll_without_a_long_task(page: Page, tmp_path: Path) -> None:
    draw = random.Random(0)
    samples = [
        sample(
            update, i, [" " + draw.choice(WORDS) for _ in range(48)], prompt=f"prompt {draw.randrange(500)}"
        )
        for update in range(1, 626)
        for i in range(16)
    ]
    assert len(samples) == MOST
    path = write_report([run_folder(tmp_path / "a", samples, updates=625)])
    page.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
    # Whatever else runs on this machine can make a task long too; what the page does itself does so each time.
    assert any(read_all(page, path) <= 100 for _ in range(3))
    assert problems(page) == []


def read_all(page: Page, path: Path) -> float:
    """Open the page, scroll, sort, search and compare; how long the longest task took, in milliseconds."""
    page.open(path.as_uri())
    assert count(page) == "10,000 of 10,000 samples"
    page.evaluate("document.getElementById('list').scrollIntoView()")
    page.evaluate(
        "new Promise((done) => { let n = 0; const step = () => { list.scrollTop += n % 20 === 0 ? 80000 : 700;"
        " ++n < 100 ? requestAnimationFrame(step) : done(); }; step(); })"
    )
    assert page.evaluate("document.querySelectorAll('.row').length") < 40
    for name, value in (("sort", "best"), ("q", "joy film"), ("q", ""), ("colour", "kl"), ("view", "prompt")):
        choose(page, name, value)
        page.evaluate("new Promise((done) => setTimeout(done, 250))")
    page.evaluate("document.getElementById('list').focus()")
    page.press("End")
    page.wait("document.querySelectorAll('.card').length > 10")
    page.evaluate("new Promise((done) => setTimeout(done, 250))")
    return float(page.evaluate("Math.max(0, ...longTasks)"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_have_contrast(page: Page, small: str, dark: bool) -> None:
    """At least 4.5 to 1 between a text and what is behind it (WCAG 2.2, 1.4.3)."""
    page.show(1280, 900, dark=dark)
    page.open(small + "#colour=advantages")
    ratios = page.evaluate(
        """(() => {
          const root = getComputedStyle(document.documentElement);
          const rgb = (name) => { const c = root.getPropertyValue(name).trim().slice(1);
            return [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16) / 255); };
          const light = (name) => { const [r, g, b] = rgb(name).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
          const backs = ["paper", "panel", "note", "policy", "guide", "reference", "past", ...[1, 2, 3, 4].flatMap((n) => ["up" + n, "down" + n])];
          return [...backs.map((b) => [b, ratio("--ink", "--" + b)]), ["dim", ratio("--dim", "--paper")], ["dim", ratio("--dim", "--panel")],
            ["focus", ratio("--focus", "--paper")], ...[0, 1, 2, 3, 4, 5, 6, 7].map((n) => ["g" + n, ratio("--g" + n, "--panel")])];
        })()"""
    )
    page.show(1280, 900)
    assert [(name, value) for name, value in ratios if value < 4.5] == []


def test_a_phone_needs_no_sideways_scrolling(page: Page, small: str) -> None:
    page.show(360, 740, phone=True)
    page.open(small)
    width = page.evaluate("document.documentElement.scrollWidth")
    page.show(1280, 900)
    assert width <= 360
