"""Displays as SVG, drawn without any window or global state."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.plotting.drift_display import DriftDisplay
from dask_dfmr.plotting.mixture_display import MixtureDisplay, most_separated
from dask_dfmr.plotting.partition_display import PartitionDisplay
from dask_dfmr.plotting.selection_display import SelectionDisplay

logger = logging.getLogger("dask_dfmr")

MOST_PAIRED = 3
"""Columns whose pairs are drawn: those in which the components lie farthest apart."""

DPI = 100
"""Of what is drawn as an image inside of a picture."""


class Picture(NamedTuple):
    """A picture as the text of an SVG element, and a sentence below it."""

    svg: str
    caption: str


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def pictures_of(found: Any, result: AggregationResult, X: Any = None) -> list[Picture]:
    """All pictures of a fitted estimator, an aggregate or a selection; of one that fails there is the error alone."""
    drawn: list[Picture] = []
    for draw in (_selection, _partitions, _mixture, _drift):
        try:
            drawn += draw(found, result, X)
        except Exception as error:  # a page without a picture is better than none
            logger.exception("A picture of the report could not be drawn.")
            text = f"A picture is missing, since it could not be drawn: {type(error).__name__}: {error}"
            drawn.append(Picture("", text))
    return drawn


def svg_of(figure: Any, label: str) -> str:
    """A figure as an SVG element whose text is text, with the same bits every time."""
    import matplotlib as mpl

    buffer = io.StringIO()
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": label}
    with mpl.rc_context(options), warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2).strip()


def _figure(width: float, height: float, n_rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(n_rows, 1)


def _partitions(found: Any, result: AggregationResult, X: Any) -> Iterator[Picture]:
    n = result.decision.n_estimates
    figure, ax = _figure(6.4, min(max(0.19 * n + 1.5, 2.6), 6.4))
    PartitionDisplay.from_estimator(found, ax=ax)
    yield Picture(
        svg_of(figure, "partitions"),
        "Distance of each partition to the others. Filled diamonds are excluded.",
    )


def _mixture(found: Any, result: AggregationResult, X: Any) -> Iterator[Picture]:
    columns = most_separated(result.mixture, MOST_PAIRED)
    n = max(len(columns) * (len(columns) - 1) // 2, 1)
    figures = [_figure(5.4, 4.8) for _ in range(n)]
    display = MixtureDisplay.from_estimator(
        result.mixture, X, columns=columns, ax=[ax for _, ax in figures]
    )
    for i, (figure, _) in enumerate(figures):
        if len(columns) == 1:
            caption = "Density of the mixture, and of each component (dashed)."
        else:
            rows = "" if X is None else " The darker, the more rows."
            caption = f"Each line holds {display.coverage:.0%} of the rows of a component.{rows}"
        yield Picture(svg_of(figure, f"mixture {i}"), caption)


def _drift(found: Any, result: AggregationResult, X: Any) -> Iterator[Picture]:
    if result.origin is None or result.decision.n_estimates < 2:
        return
    figure, axes = _figure(6.4, 6.0, 3)
    DriftDisplay.from_estimator(found, ax=axes)
    yield Picture(
        svg_of(figure, "drift"),
        "The component and column whose mean moves most from partition to partition. Triangles lie beyond the axis.",
    )


def _selection(found: Any, result: AggregationResult, X: Any) -> Iterator[Picture]:
    if not hasattr(found, "best_by"):
        return
    figure, ax = _figure(6.4, 4.2)
    SelectionDisplay.from_selection(found, ax=ax)
    yield Picture(
        svg_of(figure, "selection"), "How far candidates are behind the best, by criterion."
    )
