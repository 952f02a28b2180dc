"""Draw the pictures of the how-to pages: ``python docs/make_pictures.py``.

The code blocks of a page run one after the other. A picture that follows a block is the figure that the block drew, so
that code and picture cannot differ.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl

DOCS = Path(__file__).parent
PAGES = ["how-to/look-at-a-fit.md"]
PART = re.compile(r"^```python\n(?P<code>.*?)^```$|^!\[[^\]]*\]\((?P<image>[^)]+)\)$", re.M | re.S)
"""A block of Python, or a picture in a line of its own."""


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
        plt.gcf().savefig(path, dpi=80, pil_kwargs={"optimize": True})
        plt.close("all")
        written.append(path)
    return written


if __name__ == "__main__":
    mpl.use("agg")
    for name in PAGES:
        for path in draw(DOCS / name):
            print(f"wrote {path.relative_to(DOCS)}, {path.stat().st_size / 1000:.0f} kB")
