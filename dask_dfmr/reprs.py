"""Tables for a terminal and for a notebook, from cells of text; what comes from data is escaped in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

MOST_LINES = 20
"""Rows of a table in a notebook or a terminal. The rest is counted in a last line."""

MOST_COLUMNS_SHOWN = 5
"""Columns of the data in a terminal, so that a line has at most about 120 characters."""

LONGEST_CELL = 24
"""Characters of a cell in a terminal, so that five columns fit into one line of 120."""


def component_table(
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    covariances: NDArray[np.float64],
    names: Sequence[str] | None,
    most_columns: int = MOST_COLUMNS_SHOWN,
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text: of each component its number, weight, and mean ± standard deviation by column.

    Parameters
    ----------
    weights : ndarray of shape (n_components,)
    means : ndarray of shape (n_components, n_features)
    covariances : ndarray of shape (n_components, n_features, n_features)
    names : sequence of str or None
        Of the columns.
    most_columns : int, default 5
        Columns of the data, at most. A last heading says how many more there are.
    """
    n_components, n_features = means.shape
    spreads = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
    shown = range(min(n_features, most_columns))
    headings = [f"column {j}" if names is None else names[j] for j in shown]
    rows = [
        [
            str(k),
            f"{weights[k]:.4g}",
            *(f"{means[k, j]:.4g} ± {spreads[k, j]:.3g}" for j in shown),
        ]
        for k in range(n_components)
    ]
    headings = ["component", "weight", *headings]
    if len(shown) < n_features:
        headings.append(f"and {n_features - len(shown)} more")
        rows = [[*row, "…"] for row in rows]
    return headings, rows


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], what: str = "rows") -> str:
    """A table in lines of text: the first column left, the others right aligned."""
    cells = [[_cut(c) for c in row] for row in (headings, *rows[:MOST_LINES])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            c.ljust(w) if j == 0 else c.rjust(w)
            for j, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([*lines, *_rest(rows, what)])


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]], what: str = "rows") -> str:
    """A table in HTML, without a style of its own, so that it looks like those of the notebook."""
    head = "".join(f"<th>{escape(h)}</th>" for h in headings)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in rows[:MOST_LINES]
    )
    rest = "".join(f"<p>{escape(line)}</p>" for line in _rest(rows, what))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def html_lines(*lines: str) -> str:
    """Lines of text as a paragraph of HTML."""
    return f"<p>{'<br>'.join(escape(line) for line in lines if line)}</p>"


def _rest(rows: Sequence[Sequence[str]], what: str) -> list[str]:
    return [f"and {len(rows) - MOST_LINES} more {what}"] if len(rows) > MOST_LINES else []


def _cut(cell: str) -> str:
    text = " ".join(cell.split())
    if len(text) <= LONGEST_CELL:
        return text
    half = (LONGEST_CELL - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
