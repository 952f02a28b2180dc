"""Aggregate the same estimates again: without some of them, or with another ``rho``.

The estimates are read once, and distances are measured again only if other estimates take part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

import numpy as np

from dask_dfmr.aggregation.exclusions import with_exclusion_note
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.order import in_order_of
from dask_dfmr.aggregation.plan import (
    CallNow,
    Layout,
    Setting,
    layout_in_memory,
    plan_decision,
    plan_intake,
    plan_measures,
    plan_result,
)
from dask_dfmr.aggregation.reasons import Removed
from dask_dfmr.aggregation.result import AggregationResult, Origin
from dask_dfmr.aggregation.stages.intake import Block, Participants, row_cap, rows_behind
from dask_dfmr.aggregation.stages.keep import l2_filter
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.family import Family, canonical_order
from dask_dfmr.mixtures.row_cut import COUNTING


def origin_of(result: AggregationResult) -> Origin:
    """The estimates and options that a result was made of.

    Raises
    ------
    ValueError
        If they were not kept.
    """
    if result.origin is None:
        raise ValueError(
            "this aggregate does not hold the local estimates that it was made of. Fit with keep_estimates=True or "
            "'auto', save with estimates=True, aggregate(estimates) again, or give n_samples, the "
            "number of rows, to GaussianMixture.from_mixture."
        )
    return result.origin


def without(
    result: AggregationResult, partitions: Sequence[int | str] | int | str
) -> AggregationResult:
    """The result without some of the estimates, which are given by index or by the name of their source.

    Raises
    ------
    ValueError
        If an index is wrong, a name is that of no source or of several, no estimate would be left, or the estimates
        were not kept.
    AggregationError
        If no usable estimate is left.
    """
    origin = origin_of(result)
    removed = frozenset(_indices(partitions, origin.estimates))
    return again(result, replace(origin, removed=origin.removed | removed))


def with_rho(result: AggregationResult, rho: float | str) -> AggregationResult:
    """The result with another ``rho``.

    Raises
    ------
    ValueError
        If ``rho`` has no allowed value, or the estimates were not kept.
    """
    origin = origin_of(result)
    return again(result, replace(origin, options=replace(origin.options, rho=rho)))


def _indices(partitions: Sequence[int | str] | int | str, estimates: Sequence[Any]) -> list[int]:
    """The indices that are given by numbers or by the names of sources."""
    given: list[Any] = [partitions] if np.isscalar(partitions) else list(partitions)  # type: ignore[arg-type]
    n = len(estimates)
    has_names = any(isinstance(one, str) for one in given)
    sources = [_source_of(e) for e in estimates] if has_names else []
    found: list[int] = []
    for one in given:
        if isinstance(one, str):
            found += _indices_of(one, sources)
            continue
        is_index = isinstance(one, (int, np.integer)) and not isinstance(one, bool)
        if not is_index or not 0 <= one < n:
            raise ValueError(
                f"partitions must be indices from 0 to {n - 1} or names of sources, one or a list; got {one!r}. "
                "For a mask use np.flatnonzero(mask)."
            )
        found.append(int(one))
    return found


def _source_of(estimate: Any) -> str | None:
    source = (
        estimate.source if isinstance(estimate, LocalEstimate) else dict(estimate).get("source")
    )
    return source if isinstance(source, str) else None


def _indices_of(name: str, sources: Sequence[str | None]) -> list[int]:
    """The indices of the source with this name: as the report has it, or else a file, or a value of a column.

    Several partitions may be parts of one file; two files of one name are two sources.
    """
    named = [(i, source) for i, source in enumerate(sources) if source is not None]
    found = [(i, source) for i, source in named if source == name]
    found = found or [(i, source) for i, source in named if _is_called(source, name)]
    different = sorted({source for _, source in found})
    if len(different) == 1:
        return [i for i, _ in found]
    if different:
        raise ValueError(
            f"partitions must be names of one source each; {name!r} is the name of {len(different)}: "
            f"{', '.join(different[:5])}. Give more of the path."
        )
    known = sorted({source for _, source in named})
    near = get_close_matches(name, [*known, *(PurePath(one).name for one in known)], 3)
    first = f"The first sources are {known[:5]}" if known else "No source has a name here"
    hint = f"Similar ones are {near}" if near else first
    raise ValueError(
        f"partitions must be indices from 0 to {len(sources) - 1} or names of sources; no source has the name "
        f"{name!r}. {hint}."
    )


def _is_called(source: str, name: str) -> bool:
    """Whether a source is a file whose path ends with a name, or the rows of one value of a column."""
    path = source.replace("\\", "/")
    return path.endswith("/" + name.replace("\\", "/")) or source.partition("=")[2] in (
        name,
        repr(name),
    )


# -- aggregating again -----------------------------------------------------------------------------


def again(last: AggregationResult, origin: Origin) -> AggregationResult:
    """Aggregate the estimates of an origin that were not removed; components have the order of the last result's.

    Raises
    ------
    ValueError
        If all estimates were removed.
    AggregationError
        If no usable estimate is left.
    """
    labels = [i for i in range(len(origin.estimates)) if i not in origin.removed]
    if not labels:
        raise ValueError(
            f"partitions must leave one estimate at least; all {len(origin.estimates)} are named."
        )
    estimates = read_estimates(origin)
    # A fixed rho asks for distances alone: then the first estimates are reduced too.
    by_rows = [i for i in origin.first if i in labels and origin.options.is_calibrated]
    gained = {i: estimates[i] for i in by_rows}
    setting = Setting(origin.options, origin.seed, origin.family, origin.problem, gained=gained)
    layout = layout_in_memory(len(labels), labels)
    first = {i: _in_order(e, origin.family) for i, e in origin.first.items()}
    left = [first.get(i, estimates[i]) for i in labels]
    blocks, admitted = plan_intake(CallNow(), left, setting, layout)
    participants = _with_removed(admitted, origin)
    if origin.options.method == "componentwise":
        result = plan_result(CallNow(), blocks, participants, setting, layout)
    else:
        result = _decide_again(blocks, participants, origin, setting, layout)
    ordered = with_exclusion_note(in_order_of(result, last.mixture))
    return replace(ordered, origin=origin)


def _with_removed(admitted: Participants, origin: Origin) -> Participants:
    """The participants, with the removed estimates as refused ones."""
    refused = admitted.refused | dict.fromkeys(origin.removed, Removed())
    return admitted._replace(
        n_estimates=len(origin.estimates),
        refused=dict(sorted(refused.items())),
        removed=origin.removed,
    )


def _decide_again(
    blocks: list[Block],
    participants: Participants,
    origin: Origin,
    setting: Setting,
    layout: Layout,
) -> AggregationResult:
    """The decision and the reduction, with the distances of an earlier call if the same estimates took part."""
    options: AggregationOptions = setting.options
    key = (origin.removed, participants.by_precision, options.n_references, options.method)
    last_key, measured = origin.cache.get("measured", (None, None))
    if last_key != key:
        measured = plan_measures(CallNow(), blocks, participants, setting, layout)
        origin.cache["measured"] = (key, measured)
    assert measured is not None
    measured = measured._replace(near=l2_filter(measured.center, participants, options))
    result: AggregationResult = plan_decision(
        CallNow(), blocks, participants, measured, setting, layout
    )
    return result


# -- the estimates of an origin --------------------------------------------------------------------


def read_estimates(origin: Origin) -> list[Any]:
    """The estimates with sorted components; a malformed one stays as it is, because it is refused later.

    They are read once for an origin and those made from it.
    """
    if "estimates" not in origin.cache:
        origin.cache["estimates"] = [_in_order(e, origin.family) for e in origin.estimates]
    estimates: list[Any] = origin.cache["estimates"]
    return estimates


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


def counted_rows(result: AggregationResult, estimates: Sequence[LocalEstimate]) -> list[float]:
    """Rows that some estimates count for in the aggregation."""
    origin = origin_of(result)
    cut = COUNTING if origin.problem is None else origin.problem.family.cut
    usable = [
        rows_behind(e, cut)
        for i, e in enumerate(read_estimates(origin))
        if i not in result.decision.refused
    ]
    most = row_cap(np.array(usable, dtype=np.float64))
    return [min(float(rows_behind(e, cut)), most) for e in estimates]
