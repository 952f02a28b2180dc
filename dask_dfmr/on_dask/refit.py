"""The second look at excluded partitions, and fits of some partitions from a given mixture.

The local fit of consistent rows can end in another optimum, and then looks inconsistent. So the rows of the excluded
partitions nearest to the consensus are read once more and held against the global mixture. A partition whose rows do
not contradict it gets an estimate that is one EM step from the global mixture, in place of the first one, and all
estimates are aggregated again. The mathematics is in :mod:`dask_dfmr.refinement.second_look`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
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
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import Graph
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.refinement.second_look import FROM_OTHERS, hold_against, one_step, wanted_of
from dask_dfmr.seeds import SECOND_LOOK, stream

logger = logging.getLogger("dask_dfmr")

MOST_SHARE, LEAST = 0.1, 2
"""At most this share of the partitions is read again at a time, or this number if the share is less."""


LEAST_ROWS_PER_PARAMETER = 3.0
"""Rows per free parameter below which the rows of a partition are no evidence: the sums of five equal values one
standard deviation away, for example, do not differ from those of five rows of a normal law."""


def refit_excluded(plan: FitPlan, fit: Fit) -> Fit:
    """Replace the estimates of excluded partitions whose rows do not contradict the global mixture.

    Some are read at a time, the nearest first, and further ones only if one of them is gained. The fit is returned as
    it is if the plan does not ask for the pass, if the estimates were not kept in memory, if the rows would have to be
    regrouped again, if the rule is not ``rho="auto"``, or if no partition is gained.
    """
    if not (plan.refit_excluded and isinstance(fit.estimates, list)) or plan.partitions.held:
        return fit
    examined: set[int] = set()
    while wanted := _excluded_nearest(plan, fit, examined):
        fit, n_gained = _second_look(plan, fit, wanted)
        logger.info("second look: %d of %d partitions do not contradict", n_gained, len(wanted))
        examined |= set(wanted)
        if not n_gained:
            break
    return fit


def _second_look(plan: FitPlan, fit: Fit, indices: Sequence[int]) -> tuple[Fit, int]:
    """The fit with new estimates of some excluded partitions, and how many of these it gains."""
    agreeing = _estimates_of_agreeing(plan, fit, indices)
    found = aggregate_with(plan, fit, agreeing) if agreeing else None
    if found is None:
        return fit, 0
    gained = {i: e for i, e in agreeing.items() if found.aggregate.decision.kept[i]}
    if len(gained) < len(agreeing):  # the other partitions keep their first estimates
        found = aggregate_with(plan, fit, gained) if gained else None
    return (fit, 0) if found is None else (found, len(gained))


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
    by_name = replace(plan.settings, start=fit.aggregate.mixture, given=None)
    found = fit_partitions(replace(plan, settings=by_name), wanted)
    again = {
        i: replace(e, start=FROM_OTHERS) for i, e in zip(wanted, found, strict=True) if e.is_usable
    }
    matched = aggregate_with(plan, fit, again) if again else None
    if matched is None:
        return fit
    # The columns of their sampled rows are in the other order still.
    sample = {i: rows for i, rows in fit.row_sample.items() if i not in again}
    return replace(matched, row_sample=sample)


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
                messages,
                plan.options,
                settings.seed,
                problem.mixture_family,
                problem,
                settings.order,
            )
    except AggregationError:
        return None
    kept = aggregate.decision.kept
    return replace(fit, aggregate=aggregate, rows=rows, estimates=estimates, kept=kept)


def _excluded_nearest(plan: FitPlan, fit: Fit, examined: Set[int]) -> list[int]:
    """Excluded partitions with the smallest z-scores that were not examined yet, ascending in number."""
    decision = fit.aggregate.decision
    if not plan.options.is_calibrated or decision.z_scores is None:
        return []
    is_new = ~np.isin(np.arange(decision.n_estimates), list(examined))
    least = LEAST_ROWS_PER_PARAMETER * fit.aggregate.mixture.n_parameters
    has_rows = np.array([row["n_samples"] >= least for row in fit.rows])
    far = np.flatnonzero(~decision.kept & np.isfinite(decision.z_scores) & is_new & has_rows)
    most = max(LEAST, int(MOST_SHARE * decision.n_estimates))
    nearest = far[np.argsort(decision.z_scores[far], kind="stable")][:most]
    return sorted(int(i) for i in nearest)


def _estimates_of_agreeing(
    plan: FitPlan, fit: Fit, indices: Sequence[int]
) -> dict[int, LocalEstimate]:
    """New estimates of those partitions whose rows do not contradict the global mixture."""
    assert fit.estimates is not None
    mixture, settings = fit.aggregate.mixture, plan.settings
    kept = fit.aggregate.decision.kept
    rows = {i: sampled for i, sampled in fit.row_sample.items() if kept[i]}
    if not rows:
        return {}
    with single_threaded_blas():
        counts = [fit.rows[i]["n_samples"] for i in indices]
        wanted = wanted_of(mixture, rows, counts, settings.problem.family.cut)
    readings = [
        reading
        for reading in Reader(plan, indices, purpose="second look at excluded partitions").measure(
            indices, [mixture], wanted
        )
        if reading.is_measured and reading.n_samples == fit.rows[reading.partition]["n_samples"]
    ]
    if not readings:
        return {}
    rng = np.random.default_rng(stream(settings.seed, SECOND_LOOK))
    with single_threaded_blas():
        p_values = hold_against(mixture, rows, readings, wanted, rng).p_values
        found = {
            r.partition: one_step(settings.problem, mixture, r, fit.estimates[r.partition])
            for r, p_value in zip(readings, p_values, strict=True)
            if p_value >= plan.options.false_exclusion_rate
        }
    return {i: estimate for i, estimate in found.items() if estimate is not None}
