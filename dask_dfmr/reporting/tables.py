"""Rows of tables: the components of a mixture, the partitions, and the explanations of excluded ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dask_dfmr.aggregation.reasons import in_short
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.explanation.report import partition_report
from dask_dfmr.explanation.table import explanation_table
from dask_dfmr.local.estimate import LocalEstimate, Outcome
from dask_dfmr.mixtures.family import Array
from dask_dfmr.plotting.found import kept_of, sources_of

MOST_BYTES = 450_000
"""Text of the partition table, at most, so that a page with its pictures stays below 1 MB. 3,000 partitions with paths
of 100 characters take 400 kB."""

LONGEST_TEXT = 240
"""Characters of a source in the table."""

MOST_FINDINGS = 8
"""Excluded partitions that are explained in the page. One takes a tenth of a second with 5 components in 5 columns."""

COLUMNS = {
    "partition": "number",
    "state": "state",
    "source": "source",
    "distance": "distance",
    "p_value": "p-value",
    "n_samples": "rows",
    "rows_outside": "outside",
    "outcome": "local fit",
    "reason": "reason",
}
"""Columns of the partition table and their headings."""


def report_of(found: Any, result: AggregationResult) -> pd.DataFrame:
    """The partition report of an estimator or a selection, or one that is made of the estimates of an aggregate."""
    report = getattr(found, "partition_report_", getattr(found, "partition_report", None))
    if report is not None:
        return report
    n = result.decision.n_estimates
    estimates: Sequence[Any] = [None] * n if result.origin is None else result.origin.estimates
    return partition_report([_row(i, e) for i, e in enumerate(estimates)], result.decision)


def _row(i: int, estimate: Any) -> dict[str, Any]:
    unknown = LocalEstimate(None, 0, Outcome.FAILED).to_arrays() | {"outcome": "fitted"}
    if isinstance(estimate, Mapping):
        try:
            estimate = LocalEstimate.from_arrays(estimate)
        except (ValueError, TypeError, OverflowError):  # malformed, and refused
            estimate = None
    # There is none if it was not kept.
    message = {} if estimate is None else estimate.to_arrays()
    return unknown | {k: v for k, v in message.items() if k in unknown} | {"partition": i}


def partition_rows(found: Any, result: AggregationResult) -> tuple[list[list[Any]], int]:
    """Rows of the partition table, the columns being :data:`COLUMNS`, excluded ones first; and how many were cut off.

    ``distance`` is in the unit of the picture: what sampling explains if that is known, otherwise radii.
    """
    report, decision = report_of(found, result), result.decision
    kept = kept_of(found, decision)
    distances = distances_of(result)
    states = [_state(is_kept, d) for is_kept, d in zip(kept, decision.distance_ratios, strict=True)]
    columns = [
        range(len(report)),
        states,
        [_cut(s) for s in report["source"]],
        [_number(v) for v in distances],
        [_number(v, 2) for v in report["p_value"]],
        [int(v) for v in report["n_samples"]],
        [_number(v) for v in report["rows_outside"]],
        [str(v) for v in report["outcome"]],
        [in_short(v) if isinstance(v, str) else "" for v in report["reason"]],
    ]
    rows = [list(row) for row in zip(*columns, strict=True)]
    far = np.where(np.isfinite(distances), distances, np.inf)
    order = sorted(range(len(rows)), key=lambda i: (bool(kept[i]), -far[i] if not kept[i] else i))
    shown, size = [], 0
    for i in order:
        size += sum(len(str(value)) + 4 for value in rows[i])
        if size > MOST_BYTES:
            break
        shown.append(rows[i])
    return shown, len(rows) - len(shown)


def _state(is_kept: bool, distance: float) -> str:
    if is_kept:
        return "kept"
    return "excluded" if np.isfinite(distance) else "no estimate"


def explanation_rows(found: Any, result: AggregationResult) -> tuple[list[list[Any]], int]:
    """Number, source, cause and finding of some partitions that are not in the mixture; and how many others there are.

    They are the farthest ones, and some of those without an estimate, whose cause is the outcome of the local fit. If
    nothing can be explained, because the estimates were not kept for example, the finding is the reason in the report.
    """
    decision, report = result.decision, report_of(found, result)
    distances, kept = distances_of(result), kept_of(found, decision)
    if result.method == "coat":  # it takes one estimate by definition
        return [], 0
    out = [i for i in np.argsort(-distances, kind="stable").tolist() if not kept[i]]
    far = [i for i in out if np.isfinite(distances[i])]
    lost = [i for i in out if not np.isfinite(distances[i])]
    shown = far[:MOST_FINDINGS] + lost[:MOST_FINDINGS]
    causes = {i: str(report["outcome"].iloc[i]) for i in lost}
    findings = {i: str(report["reason"].iloc[i]) for i in shown}
    if result.origin is not None and decision.components is None:
        table, _ = explanation_table(result, only=shown)
        causes |= table["kind"].to_dict()
        findings |= table["finding"].to_dict()
    sources = sources_of(found, result)
    rows = [[i, _cut(sources[i]), causes.get(i, ""), in_short(findings[i])] for i in shown]
    return rows, len(out) - len(shown)


def distances_of(result: AggregationResult) -> Array:
    """Distances in units of what sampling explains if that is known, otherwise in radii."""
    ratios = result.decision.sampling_ratios
    return result.decision.distance_ratios if ratios is None else ratios


def _cut(text: Any) -> str:
    if not isinstance(text, str):
        return ""
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[: LONGEST_TEXT // 2]}…{text[-LONGEST_TEXT // 2 :]}"


def _number(value: Any, digits: int = 4) -> float | None:
    """A number with some digits, as JSON has it; None for NaN."""
    number = float(value)
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None
