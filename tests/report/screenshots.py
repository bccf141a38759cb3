"""Take the pictures of docs/report.md, as the tests open the page.

python tests/report/screenshots.py RUNS FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from chromium import Page, browser_path, opened

from rlgf.report.page import write_report

VIEWS = {
    "report-light": (
        "#run=guided-grpo%2C+seed+0&split=train&author=guide&sort=best&colour=advantages",
        (1280, 860),
        False,
        False,
    ),
    "report-dark": ("", (1280, 860), True, False),
    "report-phone": (
        "#run=guided-grpo%2C+seed+0&split=train&author=guide&sort=best",
        (390, 844),
        False,
        True,
    ),
}


def main() -> None:
    runs, folder = map(Path, sys.argv[1:])
    path = browser_path()
    assert path is not None, "no browser is installed"
    with tempfile.TemporaryDirectory() as profile:
        address = write_report([runs], Path(profile) / "report.html", "imdb").as_uri()
        with opened(path, Path(profile) / "profile") as page:
            for name, (view, (width, height), dark, phone) in VIEWS.items():
                page.show(width, height, dark=dark, phone=phone)
                page.open(address + view)
                take(page, folder / f"{name}.png", samples=bool(view))


def take(page: Page, path: Path, *, samples: bool) -> None:
    if samples:
        page.evaluate("document.getElementById('list').focus()")
        page.press("ArrowDown")
        page.wait("document.querySelector('.card')")
        where = "detail" if page.evaluate("innerWidth") < 700 else "samples"
    else:
        where = "frontier"
    page.evaluate(f"document.getElementById('{where}').scrollIntoView()")
    page.evaluate("new Promise((done) => setTimeout(done, 800))")
    page.screenshot(path)


if __name__ == "__main__":
    main()
