"""Aggregating again from the local estimates: without some, with another rho, with more; and who was left out, why.

The first time, estimates are read and put in order; distances are measured again only where they are between other
estimates than before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dask_dfmr import checks
from dask_dfmr.aggregation.archive import load_aggregate, save_aggregate
from dask_dfmr.aggregation.plan import decide, measure_blocks
from dask_dfmr.aggregation.reduction import Centers, reduce_pooled
from dask_dfmr.aggregation.result import Aggregate, FilterDecision, Origin
from dask_dfmr.aggregation.stages import consensus as judging
from dask_dfmr.aggregation.stages import intake as stages
from dask_dfmr.aggregation.stages.intake import Block
from dask_dfmr.explanation.causes import explain_estimate
from dask_dfmr.explanation.findings import Finding
from dask_dfmr.explanation.standard_errors import StandardErrors, make_standard_errors
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.distances import tile_blocks
from dask_dfmr.mixtures.family import Family, canonical_order
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.metrics import mixing_distance

REMOVED = "removed"
"""Why an estimate that was taken out is not kept."""

MOST_MEMBERS = 100
"""So many kept estimates show how far honest ones scatter."""

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
)


class ReAggregation:
    """What can be done with an aggregate that still has its estimates."""

    def without(self, last: Aggregate, partitions: Sequence[int] | int) -> Aggregate:
        """:meth:`Aggregate.without`."""
        origin = origin_of(last)
        removed = frozenset(_indices(partitions, len(origin.estimates)))
        return again(last, replace(origin, removed=origin.removed | removed))

    def with_rho(self, last: Aggregate, rho: float | str) -> Aggregate:
        """:meth:`Aggregate.with_rho`."""
        origin = origin_of(last)
        return again(last, replace(origin, options=replace(origin.options, rho=rho)))

    def explain(self, last: Aggregate, which: str) -> pd.DataFrame:
        """:meth:`Aggregate.explain`."""
        return explanation_table(last, which)[0]

    def save(self, last: Aggregate, path: str | os.PathLike[str], estimates: bool) -> None:
        """:meth:`Aggregate.save`."""
        save_aggregate(last, path, estimates)

    def load(self, kind: type[Aggregate], path: str | os.PathLike[str]) -> Aggregate:
        """:meth:`Aggregate.load`."""
        return load_aggregate(path)


def origin_of(aggregate: Aggregate) -> Origin:
    """What it was made of.

    Raises
    ------
    ValueError
        If that was not kept.
    """
    if aggregate.origin is None:
        raise ValueError(
            "this aggregate does not hold the local estimates that it was made of. Fit with keep_estimates=True or "
            "'auto', save with estimates=True, or aggregate(estimates) again."
        )
    return aggregate.origin


def _indices(partitions: Sequence[int] | int, n: int) -> list[int]:
    given: list[Any] = [partitions] if np.isscalar(partitions) else list(partitions)  # type: ignore[arg-type]
    for index in given:
        is_index = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
        if not is_index or not 0 <= index < n:
            raise ValueError(
                f"partitions must be indices from 0 to {n - 1}, a number or a list; got {index!r}. "
                "For a mask use np.flatnonzero(mask)."
            )
    return [int(i) for i in given]


# -- aggregating again -----------------------------------------------------------------------------


def again(last: Aggregate, origin: Origin) -> Aggregate:
    """Aggregate what is left of an origin; components come in the order of the last result's."""
    labels = [i for i in range(len(origin.estimates)) if i not in origin.removed]
    if not labels:
        raise ValueError(
            f"partitions must leave one estimate at least; all {len(origin.estimates)} are named."
        )
    options = origin.options
    estimates = _checked(origin)
    left = [estimates[i] for i in labels]
    schema = stages.agree_on_schema([stages.describe_estimates(left, origin.family)])
    blocks = [
        _relabelled(stages.stack_estimates(left[s], s.start, schema), labels)
        for s in tile_blocks(len(left))
    ]
    participants = stages.admit([block.summary for block in blocks], schema, options)
    participants = participants._replace(
        n_estimates=len(estimates),
        refused=dict(
            sorted((participants.refused | dict.fromkeys(origin.removed, REMOVED)).items())
        ),
        removed=origin.removed,
    )
    if options.heterogeneity == "weights":
        result = stages.componentwise(blocks, participants, options, origin.seed)
    else:
        key = (origin.removed, participants.by_precision, options.n_references, options.method)
        measured = origin.cache.get("measured", (None, None))
        if measured[0] != key:
            problem = origin.problem or judging.problem_of(participants)
            measured = (key, measure_blocks(blocks, participants, options, origin.seed, problem))
            origin.cache["measured"] = measured
        result = decide(blocks, participants, measured[1], options)
    return replace(in_order_of(result, last.mixture), origin=origin)


def _checked(origin: Origin) -> list[Any]:
    """The estimates, components in canonical order; what is malformed stays as it is and will be refused."""
    if "estimates" not in origin.cache:
        origin.cache["estimates"] = [_in_order(e, origin.family) for e in origin.estimates]
    checked: list[Any] = origin.cache["estimates"]
    return checked


def _in_order(estimate: Any, family: Family) -> Any:
    if not isinstance(estimate, LocalEstimate):
        try:
            estimate = LocalEstimate.from_arrays(estimate, family)
        except (ValueError, TypeError, OverflowError):
            return estimate
    m = estimate.mixture
    if m is None:
        return estimate
    return replace(
        estimate, mixture=m.reordered(canonical_order(m.family, m.weights, m.components))
    )


def _relabelled(block: Block, labels: Sequence[int]) -> Block:
    """With estimates numbered as they were before others were removed."""
    summary = block.summary
    return block._replace(
        summary=summary._replace(
            indices=[labels[i] for i in summary.indices],
            refused={labels[i]: reason for i, reason in summary.refused.items()},
        )
    )


def in_order_of(aggregate: Aggregate, reference: Mixture) -> Aggregate:
    """The same with its components in the order of a mixture of the same shape."""
    mixture = aggregate.mixture
    mine = (mixture.covariance_type, mixture.n_components, mixture.n_features)
    if mine != (reference.covariance_type, reference.n_components, reference.n_features):
        return aggregate
    aligned = mixture.align_to(reference)
    return replace(
        aggregate, mixture=aligned, decision=_columns_like(aggregate.decision, mixture, aligned)
    )


def _columns_like(decision: FilterDecision, before: Mixture, after: Mixture) -> FilterDecision:
    """A decision in the new order of the components: its columns, and the numbers in its reasons."""
    keys = [(w, *m) for w, m in zip(before.weights, before.means.tolist(), strict=True)]
    order = [keys.index((w, *m)) for w, m in zip(after.weights, after.means.tolist(), strict=True)]
    reasons = {i: _renumbered(reason, order) for i, reason in decision.reasons.items()}
    decision = replace(decision, reasons=reasons)
    components = decision.components
    if components is None:
        return decision
    columns = {
        name: getattr(components, name)[:, order]
        for name in ("kept", "matching", "n_rows", "distance_ratios")
    }
    vectors = {name: getattr(components, name)[order] for name in ("radii", "limits", "centers")}
    return replace(decision, components=replace(components, **columns, **vectors))


def _renumbered(reason: str, order: Sequence[int]) -> str:
    """A reason in words that names components by their numbers, which were others before."""
    return re.sub(
        r"\bcomponent (\d+)", lambda match: f"component {order.index(int(match[1]))}", reason
    )


# -- the audit -------------------------------------------------------------------------------------


def standard_errors_of(aggregate: Aggregate) -> StandardErrors:
    """The global mixture with the errors of estimates, as the kept ones show them."""
    origin = origin_of(aggregate)
    kept = [int(i) for i in np.flatnonzero(aggregate.decision.kept)]
    estimates = [e for i in kept if isinstance(e := _checked(origin)[i], LocalEstimate)]
    n_samples = sum(_rows(aggregate, estimates))
    # Evenly spread over all of them, so that no file's neighbours decide.
    step = max(1, -(-len(estimates) // MOST_MEMBERS))
    members = [] if aggregate.decision.components is not None else estimates[::step]
    return make_standard_errors(aggregate.mixture, n_samples, members)


def _rows(aggregate: Aggregate, estimates: Sequence[LocalEstimate]) -> list[float]:
    """Rows that some estimates count for, as in the aggregation."""
    usable = [
        e.n_samples
        for i, e in enumerate(_checked(origin_of(aggregate)))
        if i not in aggregate.decision.refused
    ]
    most = stages.row_cap(np.array(usable, dtype=np.float64))
    return [min(float(e.n_samples), most) for e in estimates]


def explained_estimates(aggregate: Aggregate, which: str = "excluded") -> dict[int, LocalEstimate]:
    """The estimates that an audit is about, by index.

    Raises
    ------
    ValueError
        If ``which`` is no choice, or the estimates were not kept.
    """
    checks.one_of("which", which, ("excluded", "all"))
    decision, reference = aggregate.decision, aggregate.mixture
    shape = (reference.covariance_type, reference.n_components, reference.n_features)
    found = {}
    for i, e in enumerate(_checked(origin_of(aggregate))):
        if not isinstance(e, LocalEstimate) or e.mixture is None:
            continue
        m = e.mixture
        if (m.covariance_type, m.n_components, m.n_features) != shape or i in decision.refused:
            continue
        if which == "all" or not decision.kept[i]:
            found[i] = e
    return found


def with_estimate(aggregate: Aggregate, estimate: LocalEstimate) -> Mixture:
    """What the mixture would be with one more estimate in it.

    Moments of components add up, so the mixture stands for all that it was made of: exact as long as none of those
    components would change its place.
    """
    mixture, origin = aggregate.mixture, origin_of(aggregate)
    m = estimate.mixture
    assert m is not None
    kept = [e for i, e in enumerate(_checked(origin)) if aggregate.decision.kept[i]]
    rows = [1.0] * (len(kept) + 1)
    if origin.options.machine_weights == "rows":
        rows = _rows(aggregate, [*kept, estimate])
    share = rows[-1] / sum(rows)
    weights = np.concatenate([(1 - share) * mixture.weights, share * m.weights])
    pooled = tuple(
        np.concatenate(pair) for pair in zip(mixture.components, m.components, strict=True)
    )
    start = Centers(mixture.weights, mixture.components)
    reduced = reduce_pooled(mixture.family, weights, pooled, start)
    return mixture.family.mixture(reduced.weights, reduced.components, mixture.feature_names)


def explanation_table(
    aggregate: Aggregate, which: str = "excluded"
) -> tuple[pd.DataFrame, dict[int, Finding]]:
    """One row per estimate, and the findings behind them."""
    chosen = explained_estimates(aggregate, which)
    yardstick = standard_errors_of(aggregate) if chosen else None
    findings = {
        i: explain_estimate(e, yardstick) for i, e in chosen.items() if yardstick is not None
    }
    rows = [_row(aggregate, i, e, findings[i]) for i, e in chosen.items()]
    table = pd.DataFrame(rows, columns=list(EXPLANATION_COLUMNS))
    return table.set_index("partition", drop=False).rename_axis(None), findings


def _row(aggregate: Aggregate, i: int, estimate: LocalEstimate, finding: Finding) -> dict[str, Any]:
    decision, mixture = aggregate.decision, aggregate.mixture
    w1 = 0.0
    if not decision.kept[i]:
        w1 = mixing_distance(mixture, with_estimate(aggregate, estimate))
    return {
        "partition": i,
        "source": estimate.source,
        "n_samples": estimate.n_samples,
        "p_value": np.nan if decision.p_values is None else decision.p_values[i],
        "sampling_ratio": np.nan
        if decision.sampling_ratios is None
        else decision.sampling_ratios[i],
        "kind": finding.kind,
        "finding": finding.text,
        "worst_component": finding.component,
        "worst_column": column_name(mixture, finding.column),
        "z": finding.z,
        "w1_with": w1,
    }


def column_name(mixture: Mixture, column: int | None) -> Any:
    """Its name, or its number where columns have none."""
    if column is None or mixture.feature_names is None:
        return column
    return mixture.feature_names[column]


def short_findings(aggregate: Aggregate, most: int) -> dict[int, str]:
    """Findings in words for the report, where at most so many estimates were left out."""
    if aggregate.origin is None:
        return {}
    chosen = explained_estimates(aggregate)
    if not chosen or len(chosen) > most:
        return {}
    yardstick = standard_errors_of(aggregate)
    return {i: explain_estimate(e, yardstick, thorough=False).text for i, e in chosen.items()}
