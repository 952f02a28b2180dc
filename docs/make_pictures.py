"""Draw the pictures of the how-to pages: ``python docs/make_pictures.py``.

The code blocks of a page run one after the other, in an empty folder. A picture that follows a block is the figure that
the block drew, or the page that it wrote, so that code and picture cannot differ. Pages are opened in Chromium.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path

import matplotlib as mpl

DOCS = Path(__file__).parent
PAGES = ["how-to/look-at-a-fit.md", "how-to/write-a-report.md"]
PART = re.compile(r"^```python\n(?P<code>.*?)^```$|^!\[[^\]]*\]\((?P<image>[^)]+)\)$", re.M | re.S)
"""A block of Python, or a picture in a line of its own."""

WIDTH, HEIGHT = 1000, 1180
"""Of the part of a page that is shown, in pixels."""


def draw(page: Path) -> list[Path]:
    """Run a page and write its pictures; their paths."""
    from matplotlib import pyplot as plt

    names: dict[str, object] = {}
    written = []
    for part in PART.finditer(page.read_text(encoding="utf-8")):
        if part["code"] is not None:
            exec(compile(part["code"], str(page), "exec"), names)
            continue
        path = (page.parent / part["image"]).resolve()
        if plt.get_fignums():
            plt.gcf().savefig(path, dpi=80, pil_kwargs={"optimize": True})
            plt.close("all")
        else:
            take_screenshot(next(Path.cwd().glob("*.html")), path)
        written.append(path)
    return written


def take_screenshot(page: Path, path: Path) -> None:
    """The top of a page, as a desktop shows it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        view.goto(page.as_uri())
        view.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    mpl.use("agg")
    for name in PAGES:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            for path in draw(DOCS / name):
                print(f"wrote {path.relative_to(DOCS)}, {path.stat().st_size / 1000:.0f} kB")
