"""Documents: links lead somewhere, lines have one width, and the API page is that of the docstrings."""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "benchmarks/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
API = ROOT / "docs" / "reference" / "api.md"
COMMAND_LINE = ROOT / "docs" / "reference" / "command-line.md"
LINE_WIDTH = 120

FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\]\\]|\\.)*\]\(([^)\s]+)\)", re.DOTALL)


def without_code(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+\s+(.*)$", without_code(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(without_code(page)):
        if re.match(r"\w+:", target):
            continue
        place, _, anchor = target.partition("#")
        linked = (page.parent / place).resolve() if place else page
        assert linked.exists(), f"{target} is not there"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{target} has no such heading"


@pytest.mark.parametrize("page", [p for p in PAGES if p != API], ids=name_of)
def test_lines_have_one_width(page):
    for line in without_code(page).splitlines():
        is_free = line.startswith(("|", "!", "<", "[", "    ")) or "](http" in line
        assert is_free or len(line) <= LINE_WIDTH, line


def test_the_api_page_is_that_of_the_docstrings():
    script = runpy.run_path(str(ROOT / "docs" / "write_api.py"))
    assert script["api_page"]() == API.read_text(encoding="utf-8"), "run python docs/write_api.py"


def test_the_page_of_the_command_line_is_that_of_the_commands():
    script = runpy.run_path(str(ROOT / "docs" / "write_command_line.py"))
    page = script["command_line_page"]()
    assert page == COMMAND_LINE.read_text(encoding="utf-8"), "run docs/write_command_line.py"
