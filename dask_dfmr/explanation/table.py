"""The table of :meth:`Aggregate.explain`: one row per unusual estimate, with the finding and its numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dask_dfmr import checks
from dask_dfmr.aggregation.reduction import Centers, reduce_pooled
from dask_dfmr.aggregation.rerun import counted_rows, origin_of, read_estimates
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.explanation.causes import explain_estimate
from dask_dfmr.explanation.findings import SOME_ROWS, Finding
from dask_dfmr.explanation.rows_outside import OutsideRows, rows_outside_of
from dask_dfmr.explanation.standard_errors import StandardErrors, make_standard_errors
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.metrics import mixing_distance

MOST_MEMBERS = 100
"""Kept estimates, at most, whose differences correct the standard errors."""

EXPLANATION_COLUMNS = (
    "partition",
    "source",
    "n_samples",
    "p_value",
    "sampling_ratio",
    "kind",
    "finding",
    "worst_component",
    "worst_column",
    "z",
    "w1_with",
    "rows_outside",
    "outside",
)
"""Columns of the table, in their order."""


def standard_errors_of(aggregate: AggregationResult) -> StandardErrors:
    """The global mixture with the standard errors of estimates, corrected by the kept ones.

    Raises
    ------
    ValueError
        If the estimates were not kept.
    """
    origin = origin_of(aggregate)
    kept = [int(i) for i in np.flatnonzero(aggregate.decision.kept)]
    estimates = [e for i in kept if isinstance(e := read_estimates(origin)[i], LocalEstimate)]
    n_samples = sum(counted_rows(aggregate, estimates))
    # Evenly spaced, so that neighbouring partitions, which may be alike, do not prevail.
    step = max(1, -(-len(estimates) // MOST_MEMBERS))
    members = [] if aggregate.decision.components is not None else estimates[::step]
    return make_standard_errors(aggregate.mixture, n_samples, members)


def explained_estimates(
    aggregate: AggregationResult, which: str = "excluded"
) -> dict[int, LocalEstimate]:
    """The usable estimates to explain, by index.

    ``which`` is "excluded", "unusual" (also kept ones of which more rows belong nowhere than of the others), or "all".

    Raises
    ------
    ValueError
        If ``which`` is none of these, or the estimates were not kept.
    """
    checks.one_of("which", which, ("unusual", "excluded", "all"))
    decision, reference = aggregate.decision, aggregate.mixture
    is_chosen = ~decision.kept
    if which == "unusual":
        is_chosen = is_chosen | (outside_of(aggregate).p_values < decision.false_exclusion_rate)
    shape = (reference.covariance_type, reference.n_components, reference.n_features)
    found = {}
    for i, e in enumerate(read_estimates(origin_of(aggregate))):
        if not isinstance(e, LocalEstimate) or e.mixture is None:
            continue
        m = e.mixture
        if (m.covariance_type, m.n_components, m.n_features) != shape or i in decision.refused:
            continue
        if which == "all" or is_chosen[i]:
            found[i] = e
    return found


def with_estimate(aggregate: AggregationResult, estimate: LocalEstimate) -> Mixture | None:
    """The global mixture with one more estimate in it; None if its numbers would overflow.

    Moments of components add up, so that the reduction of the global mixture and the estimate is that of all estimates.
    It is exact if no component of the other estimates would be assigned to another center.
    """
    mixture, origin = aggregate.mixture, origin_of(aggregate)
    m = estimate.mixture
    assert m is not None
    kept = [e for i, e in enumerate(read_estimates(origin)) if aggregate.decision.kept[i]]
    rows = [1.0] * (len(kept) + 1)
    if origin.options.machine_weights == "rows":
        rows = counted_rows(aggregate, [*kept, estimate])
    share = rows[-1] / sum(rows)
    weights = np.concatenate([(1 - share) * mixture.weights, share * m.weights])
    pooled = tuple(
        np.concatenate(pair) for pair in zip(mixture.components, m.components, strict=True)
    )
    start = Centers(mixture.weights, mixture.components)
    try:
        reduced = reduce_pooled(mixture.family, weights, pooled, start)
    except AggregationError:
        return None
    return mixture.family.mixture(reduced.weights, reduced.components, mixture.feature_names)


def explanation_table(
    aggregate: AggregationResult, which: str = "excluded", only: Collection[int] | None = None
) -> tuple[pd.DataFrame, dict[int, Finding]]:
    """The table, with one row per estimate and their indices as index, and the findings by index.

    ``only`` are the indices of those that are explained, by default all that ``which`` chooses.
    """
    chosen = explained_estimates(aggregate, which)
    if only is not None:
        chosen = {i: e for i, e in chosen.items() if i in only}
    findings, outside = _findings(aggregate, chosen), outside_of(aggregate)
    level = aggregate.decision.false_exclusion_rate
    rows = []
    for i, e in chosen.items():
        text = outside.in_words(i, level)
        row = _row(aggregate, i, e, findings[i]) | {"rows_outside": outside.shares[i]}
        kind, words = kind_and_words(findings[i], text)
        rows.append(row | {"kind": kind, "finding": words, "outside": text})
    table = pd.DataFrame(rows, columns=list(EXPLANATION_COLUMNS))
    return table.set_index("partition", drop=False).rename_axis(None), findings


def kind_and_words(finding: Finding, outside: str) -> tuple[str, str]:
    """The cause as a key and in words: if the estimate agrees, the rows outside, if they are too many."""
    if finding.kind == "nothing" and outside:
        return SOME_ROWS, outside
    return finding.kind, finding.text


def outside_of(aggregate: AggregationResult) -> OutsideRows:
    """The shares of rows that belong nowhere, by estimate, compared with those of the kept ones."""
    rows = [
        {"n_outside": e.n_outside, "n_samples": e.n_samples}
        if isinstance(e, LocalEstimate)
        else {"n_outside": None, "n_samples": 0}
        for e in read_estimates(origin_of(aggregate))
    ]
    return rows_outside_of(rows, aggregate.decision.kept)


def _findings(
    aggregate: AggregationResult, chosen: Mapping[int, LocalEstimate], thorough: bool = True
) -> dict[int, Finding]:
    if not chosen:
        return {}
    errors = standard_errors_of(aggregate)
    return {i: explain_estimate(e, errors, thorough) for i, e in chosen.items()}


def _row(
    aggregate: AggregationResult, i: int, estimate: LocalEstimate, finding: Finding
) -> dict[str, Any]:
    decision, mixture = aggregate.decision, aggregate.mixture
    w1 = 0.0
    if not decision.kept[i]:
        changed = with_estimate(aggregate, estimate)
        w1 = np.inf if changed is None else mixing_distance(mixture, changed)
    return {
        "partition": i,
        "source": estimate.source,
        "n_samples": estimate.n_samples,
        "p_value": np.nan if decision.p_values is None else decision.p_values[i],
        "sampling_ratio": np.nan
        if decision.sampling_ratios is None
        else decision.sampling_ratios[i],
        "worst_component": finding.component,
        "worst_column": column_name(mixture, finding.column),
        "z": finding.z,
        "w1_with": w1,
    }


def column_name(mixture: Mixture, column: int | None) -> Any:
    """The name of a column, or its number if columns have no names; None for None."""
    if column is None or mixture.feature_names is None:
        return column
    return mixture.feature_names[column]


def short_findings(aggregate: AggregationResult, most: int) -> dict[int, str]:
    """Findings in words for the partition report; none if more than ``most`` estimates were excluded."""
    if aggregate.origin is None:
        return {}
    chosen = explained_estimates(aggregate)
    if len(chosen) > most:
        return {}
    findings = _findings(aggregate, chosen, thorough=False)
    return {i: finding.text for i, finding in findings.items()}
