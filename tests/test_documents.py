"""Documents: links lead somewhere, lines have one width, and reference pages have all there is.

``.ci/run`` builds the site of them, where a link to nowhere is an error too.
"""

from __future__ import annotations

import inspect
import re
import runpy
from functools import cache
from pathlib import Path

import pytest
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

import dask_dfmr
from dask_dfmr import GaussianMixture
from tests.data_makers import make_rows

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "benchmarks/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
COMMAND_LINE = ROOT / "docs" / "reference" / "command-line.md"
REFERENCE = ROOT / "docs" / "reference"
MIGRATION = ROOT / "docs" / "how-to" / "migrate-from-scikit-learn.md"
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_have_one_width(page):
    for line in without_code(page).splitlines():
        is_free = line.startswith(("|", "!", "<", "[", "    ")) or "](http" in line
        assert is_free or len(line) <= LINE_WIDTH, line


def test_the_page_of_the_command_line_is_that_of_the_commands():
    script = runpy.run_path(str(ROOT / "docs" / "write_command_line.py"))
    page = script["command_line_page"]()
    assert page == COMMAND_LINE.read_text(encoding="utf-8"), "run docs/write_command_line.py"


def test_the_api_page_has_every_public_name():
    page = (REFERENCE / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   dask_dfmr\.([\w.]+)$", page, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    in_modules = {"attacks", "metrics"}  # whose own names are listed
    assert {name for name in listed if "." not in name} == set(dask_dfmr.__all__) - in_modules


def test_the_page_of_parameters_is_that_of_the_table():
    script = runpy.run_path(str(ROOT / "docs" / "write_parameters.py"))
    page = (REFERENCE / "parameters.md").read_text(encoding="utf-8")
    assert script["parameters_page"]() == page, "run python docs/write_parameters.py"


class TestMigration:
    """The tables of the page beside scikit-learn's and this package's own names."""

    def table(self, heading):
        """Name -> what the page says of it."""
        section = (
            MIGRATION.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
        )
        return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))

    def check(self, heading, theirs, mine):
        table = self.table(heading)
        for name in theirs | mine:
            expected = {"absent"} if name not in mine else {"new"}
            if name in theirs & mine:
                expected = {"same", "other"}
            assert table.get(name) in expected, f"{name}: {table.get(name)}"
        # The page may name what the scikit-learn of today does not have, or has no longer.
        assert {n for n, how in table.items() if how == "new"} <= mine

    def test_parameters(self):
        theirs, mine = (
            {n: p.default for n, p in inspect.signature(c).parameters.items()}
            for c in (SklearnGaussianMixture, GaussianMixture)
        )
        self.check("Parameters", set(theirs), set(mine))
        same = [name for name, how in self.table("Parameters").items() if how == "same"]
        assert {n: theirs[n] for n in same} == {n: mine[n] for n in same}

    def test_attributes(self):
        documented = GaussianMixture.__doc__.split("Attributes\n")[1].split("See Also")[0]
        mine = set(re.findall(r"\b(\w+_)(?=[ ,].*:)", documented.replace("\n        ", " ")))
        theirs = learned(SklearnGaussianMixture(1).fit(make_rows()))
        self.check("Attributes", theirs | {"feature_names_in_"}, mine)

    def test_methods(self):
        self.check("Methods", methods(SklearnGaussianMixture), methods(GaussianMixture))


def learned(model):
    return {name for name in vars(model) if name.endswith("_")}


def methods(cls):
    return {name for name, _ in inspect.getmembers(cls, callable) if not name.startswith("_")}
