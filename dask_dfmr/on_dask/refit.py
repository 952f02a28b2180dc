"""The pass that fits excluded partitions once more, and fits of some partitions from a given mixture.

The local fit of consistent rows can end in a wrong optimum, and then looks inconsistent. So the excluded partitions
nearest to the consensus are fitted once more, from the global mixture. If the new fit is no worse than the first one
and is kept by the filter, it takes the place of the first one, and all estimates are aggregated again. Inconsistent
rows reach an inconsistent optimum from that start, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dask_dfmr.aggregation.plan import aggregate_now
from dask_dfmr.aggregation.reasons import OtherColumns
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.graph import add_fits
from dask_dfmr.on_dask.placed import place
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import Graph
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

logger = logging.getLogger("dask_dfmr")

MOST_SHARE, LEAST = 0.1, 2
"""At most this share of the partitions is refitted, or this number if the share is less: it reads them again."""

REFIT_START = "mixture of the others"
"""Start of a fit that replaced the first one, as the report shows it."""


def refit_excluded(plan: FitPlan, fit: Fit) -> Fit:
    """Replace estimates of excluded partitions whose first fit ended in a wrong optimum.

    The fit is returned as it is if the plan does not ask for the pass, if the estimates were not kept in memory, if the
    rows would have to be regrouped again, if the rule is not ``rho="auto"``, or if no partition is gained.
    """
    wanted = _excluded_nearest(plan, fit) if plan.refit_excluded else []
    if not wanted or not isinstance(fit.estimates, list) or plan.partitions.held:
        return fit
    again = _fit_again(plan, wanted, fit)
    better = {i: e for i, e in again.items() if _is_no_worse(e, fit.estimates[i])}
    if not better:
        return fit
    found = aggregate_with(plan, fit, better)
    if found is None:
        return fit
    gained = {i: e for i, e in better.items() if found.aggregate.decision.kept[i]}
    if len(gained) < len(better):  # the other partitions keep their first estimates
        found = aggregate_with(plan, fit, gained) if gained else None
    if found is None:
        return fit
    logger.info("refit: %d of %d partitions were in another optimum", len(gained), len(wanted))
    return found


def match_columns(plan: FitPlan, fit: Fit) -> Fit:
    """Fit again, by name, partitions whose columns came in another order than those of most.

    Names that are known before the read are matched then. Those of Delayed frames are not: each was fitted in its own
    order, and estimates in another order than most were refused. The fits start from the global mixture. If estimates
    were not kept in memory, nothing is read again, and the partitions stay refused.
    """
    names = fit.aggregate.mixture.feature_names
    wanted = [
        i
        for i, reason in fit.aggregate.decision.refused.items()
        if isinstance(reason, OtherColumns) and set(reason.own) == set(names or ())
    ]
    if not wanted or not isinstance(fit.estimates, list):
        return fit
    again = _fit_again(plan, wanted, fit)
    return (aggregate_with(plan, fit, again) if again else None) or fit


def fit_partitions(plan: FitPlan, indices: Sequence[int] | None = None) -> list[LocalEstimate]:
    """Fit partitions, by default all, from the mixture that the plan starts from; nothing is aggregated.

    An error in a partition becomes the outcome of its own estimate.
    """
    scheduler, settings = plan.scheduler, plan.settings
    chosen = list(range(len(plan.partitions)) if indices is None else indices)
    partitions, _data = place(scheduler, plan.partitions.reduced_to(chosen))

    def fit(which: Sequence[int]) -> Graph:
        g = GraphBuilder()
        return g, add_fits(g, partitions, settings, None, which)

    held = dict(zip(chosen, scheduler.hold_each(fit, chosen), strict=True))
    g = GraphBuilder()
    alive = [i for i, task in held.items() if task.error is None]
    refs = [g.add("message", i, tasks.as_plain, held[i].argument, i) for i in alive]
    messages = dict(zip(alive, scheduler.fetch(g, refs), strict=True))
    for i, task in held.items():
        if task.error is not None:
            messages[i] = tasks.lost_partition(i, partitions.sources[i], task.error)
    return [tasks.estimate_of(messages[i], settings.problem.family, i) for i in chosen]


def aggregate_with(plan: FitPlan, fit: Fit, replaced: Mapping[int, LocalEstimate]) -> Fit | None:
    """The fit with some estimates in place of the first ones; None if they cannot be aggregated."""
    assert fit.estimates is not None
    estimates, rows = list(fit.estimates), list(fit.rows)
    for i, estimate in replaced.items():
        estimates[i] = estimate
        (rows[i],) = tasks.report_rows([estimate.to_arrays()])
    messages: list[Mapping[str, Any]] = [estimate.to_arrays() for estimate in estimates]
    settings = plan.settings
    problem = settings.problem
    try:
        with single_threaded_blas():
            aggregate = aggregate_now(
                messages, plan.options, settings.seed, problem.family, problem, settings.order
            )
    except AggregationError:
        return None
    kept = aggregate.decision.kept
    return replace(fit, aggregate=aggregate, rows=rows, estimates=estimates, kept=kept)


def _excluded_nearest(plan: FitPlan, fit: Fit) -> list[int]:
    """Excluded partitions with the smallest z-scores, ascending in number."""
    decision = fit.aggregate.decision
    if not plan.options.is_calibrated or decision.z_scores is None:
        return []
    far = np.flatnonzero(~decision.kept & np.isfinite(decision.z_scores))
    most = max(LEAST, int(MOST_SHARE * decision.n_estimates))
    nearest = far[np.argsort(decision.z_scores[far], kind="stable")][:most]
    return sorted(int(i) for i in nearest)


def _fit_again(plan: FitPlan, indices: Sequence[int], fit: Fit) -> dict[int, LocalEstimate]:
    """Usable fits of some partitions that start at the global mixture."""
    settings = replace(plan.settings, start=fit.aggregate.mixture, given=None)
    found = fit_partitions(replace(plan, settings=settings), indices)
    estimates = dict(zip(indices, found, strict=True))
    return {i: replace(e, start=REFIT_START) for i, e in estimates.items() if e.is_usable}


def _is_no_worse(again: LocalEstimate, first: LocalEstimate) -> bool:
    """Whether a fit describes its rows as well as the first one did, up to what chance explains.

    A wrong optimum of few rows can exceed a better one by about one nat per parameter by chance.
    """
    assert again.mixture is not None
    gain = again.n_samples * (again.log_likelihood - first.log_likelihood)
    return again.n_samples == first.n_samples and gain >= -again.mixture.n_parameters
