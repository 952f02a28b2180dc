"""Axes to draw on, colors and markers that differ in gray too, and names that fit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_dfmr.mixtures.family import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT: dict[str, Any] = {"marker": "o", "mfc": "white", "mec": "#0072B2", "color": "#0072B2"}
EXCLUDED: dict[str, Any] = {"marker": "D", "mfc": "#D55E00", "mec": "#D55E00", "color": "#D55E00"}
"""Blue and vermilion of Okabe and Ito's palette, which differ for all kinds of color vision. In gray they are alike, so
that an open circle differs from a filled diamond."""

INK, FAINT = "#333333", "#767676"
"""Lines of what sampling explains, and remarks: both have enough contrast on white."""

LINES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#E69F00", (0, (5, 1)), "v"),
    ("#56B4E9", (0, (3, 1, 1, 1)), "P"),
    ("#000000", (0, (1, 1)), "X"),
)
"""Color, dashes and marker of one line after another: they differ in gray by the last two."""

LONGEST_NAME = 26
"""Characters of a name in a picture. Longer names took more than a third of a figure of usual width."""

LINE_HEIGHT = 1.2
"""From one label to the next, in sizes of the font, so that small labels do not touch."""

MOST_VECTORS = 500
"""With more points, they are drawn as one image inside of a vector file. 3,000 points in four pictures took 1.3 MB."""


def axes_for(
    who: str, ax: Any, n: int = 1, size: tuple[float, float] = (6.4, 4.8), n_columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """The axes to draw on: the given ones, or those of a new figure.

    Parameters
    ----------
    who : str
        The display, for messages.
    ax : matplotlib Axes, sequence of Axes, or None
    n : int, default 1
        How many are needed.
    size : pair of float
        Width and height of a new figure, in inches.
    n_columns : int, default 1
        Columns of axes in a new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If another number of axes is given.
    """
    if ax is None:
        try:
            from matplotlib import pyplot as plt
        except ImportError as error:
            raise ImportError(
                f"{who}.plot needs matplotlib, which is not installed: pip install 'dask-dfmr[plots]'."
            ) from error
        n_rows = math.ceil(n / n_columns)
        figure, grid = plt.subplots(
            n_rows, n_columns, figsize=size, layout="constrained", squeeze=False
        )
        for unused in grid.flat[n:]:
            unused.remove()
        return figure, list(grid.flat[:n])
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) != n:
        raise ValueError(
            f"ax must be {n} Axes for this {who}; got {len(given)}. Make them: fig, ax = plt.subplots(1, {n})."
        )
    return given[0].figure, given


def literal(text: Any) -> str:
    """A text that matplotlib shows as it is: no formula, however many dollars it has."""
    return str(text).replace("$", r"\$")


def shortened(name: Any, width: int = LONGEST_NAME) -> str:
    """A name in one line of at most ``width`` characters, a longer one without its middle."""
    text = _in_one_line(name)
    if len(text) <= width:
        return text
    front = (width - 1) // 2
    return f"{text[:front]}…{text[len(text) - (width - 1 - front) :]}"


def short_sources(names: Sequence[Any], width: int = LONGEST_NAME) -> list[str]:
    """Names of sources, shortened: paths by their end, and others so that they differ if that can be."""
    texts = [_in_one_line(name) for name in names]
    short = [_end_of_path(text, width) for text in texts]
    alike: dict[str, set[str]] = {}
    for text, cut in zip(texts, short, strict=True):
        alike.setdefault(cut, set()).add(text)
    return [
        cut if len(alike[cut]) == 1 else _where_it_differs(text, alike[cut], width)
        for text, cut in zip(texts, short, strict=True)
    ]


def _in_one_line(name: Any) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(name)).strip()


def _end_of_path(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    tail = re.split(r"[/\\]", text)[-1]
    return shortened(tail or text, width)


def _where_it_differs(text: str, others: Iterable[str], width: int) -> str:
    """The part of a text from the word in which it differs from others."""
    columns = enumerate(zip(*others, strict=False))
    start = next((i for i, characters in columns if len(set(characters)) > 1), len(text))
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    start = max(min(start, len(text) - width + 1), 0)
    cut = text[start : start + width - 2]
    return f"…{cut}…" if start + len(cut) < len(text) else f"…{cut}"


def spaced(places: Array, priorities: Array, gap: float, most: int) -> list[int]:
    """Which labels are shown: those of highest priority, at most ``most``, no two nearer than ``gap``."""
    shown: list[int] = []
    for i in np.argsort(-priorities, kind="stable").tolist():
        if len(shown) == most:
            break
        if all(abs(places[i] - places[j]) >= gap for j in shown):
            shown.append(i)
    return shown


def lines_in(ax: Axes) -> float:
    """How many lines of small text have room in the height of axes, about."""
    from matplotlib import rcParams

    height = 72.0 * float(ax.get_position().height * ax.figure.get_figheight())  # type: ignore[union-attr]
    return height / (LINE_HEIGHT * float(rcParams["font.size"]))


def tidy(ax: Axes) -> None:
    """No frame where nothing is read off."""
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax: Axes) -> None:
    """A legend without a frame."""
    ax.legend(frameon=False, fontsize="small")


def legend_above(ax: Axes) -> None:
    """A legend in one line above the axes."""
    ax.legend(
        frameon=False,
        fontsize="small",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=6,
        borderpad=0.2,
        borderaxespad=0.1,
        columnspacing=1.1,
        handletextpad=0.3,
        handlelength=1.4,
    )


def whole_numbers(ax: Axes) -> None:
    """Ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def column_names(names: Sequence[str] | None, n: int) -> list[str]:
    """Names of columns, or their numbers in words."""
    return [f"column {j}" for j in range(n)] if names is None else list(names)
