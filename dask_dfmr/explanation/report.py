"""The partition report: one row per partition, and sentences for the log and for warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.exclusions import Exclusion, exclusion_note, main_reason
from dask_dfmr.aggregation.reasons import (
    Malformed,
    OtherColumns,
    OtherSchema,
    Reason,
    in_short,
    is_lost,
)
from dask_dfmr.aggregation.result import FilterDecision, Note
from dask_dfmr.explanation.rows_outside import rows_outside_of
from dask_dfmr.local.estimate import Outcome

if TYPE_CHECKING:
    import pandas as pd

REPORT_COLUMNS = (
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
    "rows_outside",
    "rows_outside_expected",
    "rows_outside_p_value",
    "start",
)
"""Columns that every partition report has, in their order."""

_OF_DECISION = {
    "distance": "distances",
    "distance_ratio": "distance_ratios",
    "expected_distance": "expected_distances",
    "z_score": "z_scores",
    "p_value": "p_values",
    "kept": "kept",
}
"""Columns that the decision gives, and its attributes; the partitions give the others."""

_OF_OUTSIDE = {
    "rows_outside": "shares",
    "rows_outside_expected": "expected",
    "rows_outside_p_value": "p_values",
}
"""Columns about rows that belong nowhere, and the attributes of :class:`OutsideRows`."""

_OF_PARTITIONS = [n for n in REPORT_COLUMNS if n not in _OF_DECISION and n not in _OF_OUTSIDE]
"""Columns that the partitions give."""


def partition_report(
    rows: Sequence[Mapping[str, Any]], decision: FilterDecision | None
) -> pd.DataFrame:
    """The report as a table.

    Parameters
    ----------
    rows : sequence of mapping
        The local fit of each partition without its mixture, in the order of the partitions.
    decision : FilterDecision or None
        None if no estimate was usable: nothing is kept then, and distances are NaN.

    Returns
    -------
    pandas.DataFrame
        One row per partition. After ``kept`` it has the column ``components_kept`` if components were filtered one by
        one; before it the column ``group`` if estimates fall into groups.
    """
    import pandas as pd

    n = len(rows)
    outcomes, reasons = _outcomes_and_reasons(rows, decision)
    # One table of whole columns: to set one column after the other would take most of the time of a small fit.
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in _OF_PARTITIONS}
    columns |= {"outcome": outcomes, "reason": reasons}
    for column, attribute in _OF_DECISION.items():
        values = getattr(decision, attribute, None)
        columns[column] = np.full(n, np.nan) if values is None else values
    columns["kept"] = np.zeros(n, dtype=bool) if decision is None else decision.kept
    outside = rows_outside_of(rows, columns["kept"])
    columns |= {column: getattr(outside, attribute) for column, attribute in _OF_OUTSIDE.items()}
    table = pd.DataFrame({name: columns[name] for name in REPORT_COLUMNS})
    if decision is not None and decision.groups:
        # If there are many partitions, only some were compared. The others have no group.
        number_of = {i: number for number, group in enumerate(decision.groups) for i in group}
        numbers = pd.Series([number_of.get(i) for i in range(n)], dtype="Int64")
        table.insert(REPORT_COLUMNS.index("kept"), "group", numbers)
    if decision is not None and decision.components is not None:
        components_kept = decision.components.kept.sum(axis=1)
        table.insert(list(table.columns).index("kept") + 1, "components_kept", components_kept)
    return table


def _outcomes_and_reasons(
    rows: Sequence[Mapping[str, Any]], decision: FilterDecision | None
) -> tuple[list[str], list[str]]:
    """The outcome of each partition, and why its fit failed or was excluded."""
    outcomes = [row["outcome"] for row in rows]
    if decision is None:
        return outcomes, [_joined(Outcome(row["outcome"]), row["reason"], "") for row in rows]
    for i, refusal in decision.refused.items():
        outcomes[i] = _outcome_of(refusal, outcomes[i])
    reasons = [
        _joined(Outcome(outcome), row["reason"], decision.reason(i))
        for i, (outcome, row) in enumerate(zip(outcomes, rows, strict=True))
    ]
    return outcomes, reasons


def _outcome_of(refusal: Reason, own: str) -> str:
    """The outcome of a refused estimate: a fit that cannot be combined with the others' is of no use, however good."""
    if isinstance(refusal, (OtherColumns, OtherSchema)):
        return Outcome.BAD_COLUMNS.value
    return Outcome.FAILED.value if isinstance(refusal, Malformed) else own


def _joined(outcome: Outcome, of_fit: str, of_decision: str) -> str:
    """The reasons of a local fit and of the decision.

    A refusal follows from the reason of the local fit, which is more detailed. An estimate has both.
    """
    if not outcome.is_usable:
        return of_fit or of_decision
    return "; ".join(reason for reason in (of_fit, of_decision) if reason)


def failures(report: pd.DataFrame) -> pd.DataFrame:
    """The rows of a report whose partitions have no estimate, and did not join a refinement either."""
    return report[have_failed(report)]


def have_failed(report: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each partition is one of the :func:`failures`."""
    has_none = np.array([not Outcome(outcome).is_usable for outcome in report["outcome"]], bool)
    return has_none & ~report["kept"].to_numpy(bool)


def have_outcome(report: pd.DataFrame, outcome: Outcome) -> NDArray[np.bool_]:
    """Whether each partition has this outcome; pandas would compare its strings in .1 ms, however few."""
    return np.asarray(report["outcome"].to_numpy(object) == outcome.value)


def describe_failures(report: pd.DataFrame, most: int = 3) -> str:
    """A sentence: how many partitions have no estimate, how many rows they hold, and the first ``most`` reasons."""
    failed = failures(report)
    first = failed.head(most)
    columns = (first["partition"], first["source"], first["outcome"], first["reason"])
    examples = "; ".join(
        f"partition {partition}{_named(source)}: {outcome}, {in_short(str(reason).rstrip('.'))}"
        for partition, source, outcome, reason in zip(*columns, strict=True)
    )
    more = f"; and {len(failed) - most} more" if len(failed) > most else ""
    rows = failed["n_samples"].sum()
    return f"{len(failed)} of {len(report)} partitions ({rows} rows read) could not be used: {examples}{more}"


def describe_exclusions(
    report: pd.DataFrame,
    decision: FilterDecision,
    later: Mapping[int, Reason],
    by_source: bool,
    is_explained: bool,
) -> Note | None:
    """A warning of the partitions that have an estimate and were excluded; None if there are none.

    Parameters
    ----------
    report : pandas.DataFrame
        The final one.
    decision : FilterDecision
    later : mapping of int to Reason
        Why partitions were excluded after the decision. Those that could not be read again have a warning of their own.
    by_source : bool
        Whether the names of sources stand in the list; otherwise numbers.
    is_explained : bool
        Whether the estimates were kept, so that ``explain()`` has more.
    """
    is_kept = report["kept"].to_numpy(bool) & decision.kept
    if decision.components is None and is_kept.all():
        return None
    failed, excluded = set(failures(report).index), []
    columns = (report["source"], report["kept"], report["reason"])
    for i, (source, is_kept, text) in enumerate(zip(*columns, strict=True)):
        reason = main_reason(decision, i)
        if not is_kept:
            reason = later.get(i) or reason
        elif not decision.kept[i]:
            continue  # it joined a refinement
        if reason is None or i in failed or is_lost(reason):
            continue
        name = str(source) if by_source else str(i)
        example = name if by_source else f"{i}{_named(source)}"
        excluded.append(Exclusion(name, example, type(reason), text or str(reason), is_kept))
        is_explained = is_explained and not decision.kept[i]
    where = f"see partition_report_{' and explain()' if is_explained else ''}; warn_excluded=False silences this"
    return exclusion_note(excluded, len(report), "partitions", where)


def _named(source: Any) -> str:
    return f" ({source})" if isinstance(source, str) and source else ""


def describe_decision(report: pd.DataFrame, decision: FilterDecision) -> str:
    """A sentence: how many partitions were kept, which were excluded, and where the fits started."""
    is_far = ~report["kept"].to_numpy(bool) & ~np.isnan(report["distance"].to_numpy(float))
    far, ratios = np.flatnonzero(is_far), report["distance_ratio"].to_numpy(float)
    partitions = report["partition"].to_numpy()
    names = ", ".join(f"{partitions[i]} (x{ratios[i]:.2f})" for i in far[:10])
    why = "" if decision.reasons else " as too far from the center"
    excluded = f"; excluded{why}: {names}{', ...' if len(far) > 10 else ''}" if len(far) else ""
    pilots = Counter(name for name in report["start"] if str(name).startswith("pilot"))
    starts = ", ".join(f"{n} from {name}" for name, n in pilots.most_common())
    # Two starts with many fits each mean two optima, or two populations.
    excluded += f"; starts: {starts}" if len(pilots) > 1 else ""
    kept = int(decision.kept.sum())
    rows = report["n_samples"].to_numpy()
    share = rows[decision.kept].sum() / max(rows.sum(), 1)
    return (
        f"{kept} of {len(report)} partitions kept ({share:.1%} of the rows read), "
        f"center is partition {decision.center}{_found(decision)}{_in_part(decision)}{excluded}"
    )


def _in_part(decision: FilterDecision) -> str:
    """How many kept partitions have excluded components."""
    if decision.components is None:
        return ""
    kept = decision.components.kept[decision.kept]
    in_part = int((~kept.all(axis=1)).sum())
    return f"; {in_part} of them without some of their components ({int((~kept).sum())} in all)"


def _found(decision: FilterDecision) -> str:
    """How the center was found, if not all pairs of estimates were measured."""
    if decision.n_references is None:
        return ""
    return f" (best of {decision.n_candidates} candidates, found with {decision.n_references} references)"
