"""A second look at partitions that the filter left out: bad rows, or good ones whose fit ended in another optimum.

Local fits of good rows can end in a wrong optimum, and look like bad ones. So those that lie least far out are fitted
once more, from the global mixture. If that fit is no worse and agrees with the others, it takes the place of the first
one, and all estimates are aggregated again. Bad rows come to a bad optimum from there, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dask_dfmr.aggregation.plan import aggregate_now
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.explain_rows import fit_partitions
from dask_dfmr.on_dask.fit import FitResult, Pipeline
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

logger = logging.getLogger("dask_dfmr")

MOST_SHARE, LEAST = 0.1, 2
"""At most this share of the partitions, and this number where that is less, get a second look: it reads them again."""

FROM_THE_OTHERS = "mixture of the others"
"""Start of a fit that replaced the first one, as the report shows it."""


def look_again(pipeline: Pipeline, result: FitResult, verbose: int = 0) -> FitResult:
    """The result with the partitions that were left out for a wrong optimum only.

    It is the result that came where estimates were not kept in memory, rows would have to be regrouped again, another
    rule than ``rho="auto"`` decided, or nobody can be won back.
    """
    wanted = _left_out_least_far(pipeline, result)
    if not wanted or not isinstance(result.estimates, list) or pipeline.partitions.held:
        return result
    again = _fit_again(pipeline, wanted, result, verbose)
    better = {
        i: estimate for i, estimate in again.items() if _is_no_worse(estimate, result.estimates[i])
    }
    if not better:
        return result
    taken = _aggregate_with(pipeline, result, better)
    if taken is None:
        return result
    won = {i: e for i, e in better.items() if taken.aggregate.decision.kept[i]}
    if len(won) < len(better):  # the others stay as they were
        taken = _aggregate_with(pipeline, result, won) if won else None
    if taken is None:
        return result
    logger.info("second look: %d of %d partitions were in another optimum", len(won), len(wanted))
    return taken


def _left_out_least_far(pipeline: Pipeline, result: FitResult) -> list[int]:
    decision = result.aggregate.decision
    if not pipeline.options.is_calibrated or decision.z_scores is None:
        return []
    far = np.flatnonzero(~decision.kept & np.isfinite(decision.z_scores))
    most = max(LEAST, int(MOST_SHARE * decision.n_estimates))
    nearest = far[np.argsort(decision.z_scores[far], kind="stable")][:most]
    return sorted(int(i) for i in nearest)


def _fit_again(
    pipeline: Pipeline, indices: Sequence[int], result: FitResult, verbose: int
) -> dict[int, LocalEstimate]:
    """Fits of some partitions that start at the global mixture; those that failed are left out."""
    settings = replace(pipeline.settings, start=result.aggregate.mixture, given=None)
    found = fit_partitions(replace(pipeline, settings=settings), indices, verbose)
    estimates = dict(zip(indices, found, strict=True))
    return {i: replace(e, start=FROM_THE_OTHERS) for i, e in estimates.items() if e.is_usable}


def _is_no_worse(again: LocalEstimate, first: LocalEstimate) -> bool:
    """Whether a fit describes its rows as well as the first one did, but for what that may owe to chance.

    An optimum of few rows is ahead of a better one by up to about one nat per parameter for no merit.
    """
    assert again.mixture is not None
    gain = again.n_samples * (again.log_likelihood - first.log_likelihood)
    return again.n_samples == first.n_samples and gain >= -again.mixture.n_parameters


def _aggregate_with(
    pipeline: Pipeline, result: FitResult, replaced: Mapping[int, LocalEstimate]
) -> FitResult | None:
    """The result with some estimates in place of the first ones; None where that cannot be aggregated."""
    assert result.estimates is not None
    estimates = list(result.estimates)
    rows = list(result.rows)
    for i, estimate in replaced.items():
        estimates[i] = estimate
        (rows[i],) = tasks.report_rows([estimate.to_arrays()])
    problem = pipeline.settings.problem
    try:
        with single_threaded_blas():
            aggregate = aggregate_now(
                [estimate.to_arrays() for estimate in estimates],
                pipeline.options,
                pipeline.settings.seed,
                problem.family,
                problem,
            )
    except AggregationError:
        return None
    return FitResult(aggregate, rows, estimates)
