"""The page: facts, tables and pictures in the template, written to one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.plotting.found import result_of
from dask_dfmr.reporting.facts import parameters_of, provenance_of
from dask_dfmr.reporting.pictures import has_matplotlib, pictures_of
from dask_dfmr.reporting.tables import COLUMNS, explanation_rows, partition_rows
from dask_dfmr.reporting.verdict import verdict_of
from dask_dfmr.reprs import component_table
from dask_dfmr.untrusted import replacing

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_FEATURES = 40
"""Columns of the data in the table of the components."""

PAGE_ROWS = 50
"""Rows of the partition table at a time, and in print."""

MOST_CANDIDATES = 200
"""Rows of the table of a selection."""


def write_report(
    found: Any, path: str | os.PathLike[str], X: Any = None, title: str | None = None
) -> None:
    """Write a page about a fitted estimator, an aggregate or a selection.

    Parameters
    ----------
    found : GaussianMixture, Aggregate or Selection
    path : str or path
    X : as for :meth:`GaussianMixture.fit`, optional
        Rows to count behind the ellipses.
    title : str, optional

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    content = report_page(found, X, title).encode()
    with replacing(path) as file:
        file.write(content)


def report_page(found: Any, X: Any = None, title: str | None = None) -> str:
    """The page as text."""
    result = result_of(found)
    verdict = verdict_of(found)
    rows, n_cut = partition_rows(found, result)
    mixture = result.mixture
    parameters = (mixture.weights, *mixture.full_components, mixture.feature_names)
    headings, components = component_table(*parameters, MOST_FEATURES)
    explanations, n_unexplained = explanation_rows(found, result)
    script, style = _text("report.js"), _text("report.css")
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title or "Report of a robust mixture",
            verdict=verdict,
            counts=_counts(rows, n_cut),
            notes=[(_in_words(note.category.__name__), note.message) for note in result.notes],
            columns=COLUMNS,
            rows=rows,
            n_cut=n_cut,
            page_rows=PAGE_ROWS,
            headings=headings,
            components=components,
            explanations=explanations,
            n_unexplained=n_unexplained,
            candidates=_candidates(found),
            pictures=pictures_of(found, result, X) if has_matplotlib() else None,
            parameters=parameters_of(found, result),
            facts=provenance_of(found, result),
            unit=_unit(result),
            script=script,
            style=style,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dask_dfmr.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    return environment


@cache
def _text(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _counts(rows: list[list[Any]], n_cut: int) -> dict[str, int]:
    """Partitions by their state; those that the table lacks are kept, because it has the excluded ones first."""
    states = [row[list(COLUMNS).index("state")] for row in rows]
    counts = {state: states.count(state) for state in ("kept", "excluded", "no estimate")}
    return counts | {"kept": counts["kept"] + n_cut}


def _candidates(found: Any) -> tuple[list[str], list[list[Any]], int] | None:
    """Headings, rows and the selected row of the table of a selection; None of another result."""
    if not hasattr(found, "best_by"):
        return None
    table = found.table.head(MOST_CANDIDATES)
    return [_in_words(c) for c in table.columns], table.to_numpy(dtype=object).tolist(), found.best


def _unit(result: AggregationResult) -> str:
    if result.decision.sampling_ratios is None:
        return "Distance to the center, in radii"
    return "Distance to the others, in units of what sampling explains"


def _in_words(name: str) -> str:
    """A name of the code in words: ``n_components`` and ``ExclusionWarning``."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name)
    return words.replace("_", " ").removesuffix(" warning").strip()


def _shown(value: Any) -> str:
    """A value of a table: numbers with six digits, nothing for a missing one."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return str(value)
