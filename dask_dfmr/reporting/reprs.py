"""A result in a terminal and in a notebook: the verdict, numbers of the fit, and the mixture."""

from __future__ import annotations

from typing import Any

from dask_dfmr.plotting.found import result_of
from dask_dfmr.reporting.tables import report_of
from dask_dfmr.reporting.verdict import verdict_of
from dask_dfmr.reprs import html_lines


def in_text(found: Any) -> str:
    """Lines of text."""
    return "\n".join([*_lines(found), str(result_of(found).mixture)])


def in_html(found: Any) -> str:
    """The same as HTML."""
    return html_lines(*_lines(found)) + result_of(found).mixture._repr_html_()


def _lines(found: Any) -> list[str]:
    result = result_of(found)
    report = report_of(found, result)
    n_rows = int(report["n_samples"].sum())
    outcomes = report["outcome"].value_counts(sort=True)
    fits = ", ".join(f"{n:,} {outcome}" for outcome, n in outcomes.items())
    lines = [verdict_of(found).sentence, f"Local fits: {fits}; {n_rows:,} rows"]
    if not result.converged:
        lines.append(f"The reduction did not converge in {result.n_iter} rounds")
    return lines
