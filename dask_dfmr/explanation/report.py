"""What happened to each partition, as a table and as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dask_dfmr.aggregation.result import FilterDecision
from dask_dfmr.local.estimate import Outcome

COLUMNS = (
    "partition",
    "source",
    "n_samples",
    "outcome",
    "n_iter",
    "log_likelihood",
    "distance",
    "distance_ratio",
    "expected_distance",
    "z_score",
    "p_value",
    "kept",
    "reason",
    "n_omitted",
    "start",
)


_JUDGED = {
    "distance": "distances",
    "distance_ratio": "distance_ratios",
    "expected_distance": "expected_distances",
    "z_score": "z_scores",
    "p_value": "p_values",
    "kept": "kept",
}
"""Columns that come from the decision, and its attributes."""


def partition_report(
    rows: Sequence[Mapping[str, Any]], decision: FilterDecision | None
) -> pd.DataFrame:
    """One row per partition.

    Parameters
    ----------
    rows : sequence of mapping
        What each partition said of itself (:func:`dask_dfmr.on_dask.tasks.report_rows`), in the order of
        the partitions.
    decision : FilterDecision or None
        None where there was nothing to decide.
    """
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in _JUDGED])
    n = len(table)
    for column, attribute in _JUDGED.items():
        values = getattr(decision, attribute, None)
        table[column] = np.full(n, np.nan) if values is None else values
    table["kept"] = np.zeros(n, dtype=bool) if decision is None else decision.kept
    verdicts = [""] * n if decision is None else [decision.reason(i) for i in range(n)]
    # What a partition says of itself is more exact than that it was refused for it.
    table["reason"] = [
        own or verdict for own, verdict in zip(table["reason"], verdicts, strict=True)
    ]
    table = table[list(COLUMNS)]
    if decision is not None and decision.groups:
        # Of many partitions only some were compared: the others have no group.
        number_of = {i: number for number, group in enumerate(decision.groups) for i in group}
        numbers = pd.Series([number_of.get(i) for i in range(n)], dtype="Int64")
        table.insert(COLUMNS.index("kept"), "group", numbers)
    if decision is not None and decision.components is not None:
        components_kept = decision.components.kept.sum(axis=1)
        table.insert(list(table.columns).index("kept") + 1, "components_kept", components_kept)
    return table


def failures(report: pd.DataFrame) -> pd.DataFrame:
    """The partitions that have no estimate."""
    return report[[not Outcome(outcome).is_usable for outcome in report["outcome"]]]


def describe_failures(report: pd.DataFrame, most: int = 3) -> str:
    """One sentence: how many partitions have no estimate, how many rows they hold, and the first reasons."""
    failed = failures(report)
    first = failed.head(most)
    columns = (first["partition"], first["source"], first["outcome"], first["reason"])
    examples = "; ".join(
        f"partition {partition}{_named(source)}: {outcome}, {str(reason).rstrip('.')}"
        for partition, source, outcome, reason in zip(*columns, strict=True)
    )
    more = f"; and {len(failed) - most} more" if len(failed) > most else ""
    rows = failed["n_samples"].sum()
    return f"{len(failed)} of {len(report)} partitions ({rows} rows read) could not be used: {examples}{more}"


def _named(source: Any) -> str:
    return f" ({source})" if isinstance(source, str) and source else ""


def describe_verdict(report: pd.DataFrame, decision: FilterDecision) -> str:
    """One sentence: who was kept, which partitions lie too far out, and where the fits started."""
    far = report[~report["kept"] & report["distance"].notna()]
    names = ", ".join(
        f"{row.partition} (x{row.distance_ratio:.2f})" for row in far.head(10).itertuples()
    )
    why = "" if decision.reasons else " as too far from the center"
    excluded = f"; left out{why}: {names}{', ...' if len(far) > 10 else ''}" if len(far) else ""
    camps = report["start"][report["start"].str.startswith("pilot")].value_counts()
    starts = ", ".join(f"{n} from {name}" for name, n in camps.items())
    # Two large camps mean two optima, or two populations.
    excluded += f"; starts: {starts}" if len(camps) > 1 else ""
    kept = int(decision.kept.sum())
    rows = report["n_samples"].to_numpy()
    share = rows[decision.kept].sum() / max(rows.sum(), 1)
    return (
        f"{kept} of {len(report)} partitions kept ({share:.1%} of the rows read), "
        f"center is partition {decision.center}{_found(decision)}{_in_part(decision)}{excluded}"
    )


def _in_part(decision: FilterDecision) -> str:
    """How many kept partitions lost components."""
    if decision.components is None:
        return ""
    kept = decision.components.kept[decision.kept]
    in_part = int((~kept.all(axis=1)).sum())
    return f"; {in_part} of them without some of their components ({int((~kept).sum())} in all)"


def _found(decision: FilterDecision) -> str:
    """How the center was found, where not all pairs were measured."""
    if decision.n_references is None:
        return ""
    return f" (best of {decision.n_candidates} candidates, found with {decision.n_references} references)"
