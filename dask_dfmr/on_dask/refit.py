"""The second look at excluded partitions, and fits of some partitions from a given mixture.

The local fit of consistent rows can end in another optimum, and then looks inconsistent. So the rows of the excluded
partitions nearest to the consensus are read once more and held against the global mixture. A partition whose rows do
not contradict it is kept. In the reduction an estimate that is one EM step from the global mixture takes the place of
its first one, unless it is farther from the consensus than fits may be. Such an estimate gives the filter no law: it
lies nearer to the global mixture than any fit, and among fits it would make those of other consistent partitions look
far away. The mathematics is in :mod:`dask_dfmr.refinement.second_look`.

The work is bounded: one test at one mixture, one more read of an excluded partition, and one further aggregation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dask_dfmr.aggregation.plan import aggregate_now
from dask_dfmr.aggregation.reasons import Gained, OtherColumns, is_for_rows
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.local.estimate import FROM_OTHERS, LocalEstimate
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.graph import add_fits
from dask_dfmr.on_dask.placed import place
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import Graph
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.refinement.second_look import RowsOfKept, one_step
from dask_dfmr.seeds import SECOND_LOOK, stream

logger = logging.getLogger("dask_dfmr")

MOST_SHARE, LEAST = 0.1, 2
"""At most this share of the partitions is read again first, or this number if the share is less; then twice as many."""

LEAST_EVIDENCE = 3.0
"""Rows per free parameter below which the rows of a partition are no evidence: the sums of five equal values one
standard deviation away, for example, do not differ from those of five rows of a normal law."""


def refit_excluded(plan: FitPlan, fit: Fit) -> Fit:
    """Keep excluded partitions whose rows do not contradict the global mixture.

    Some are read at a time, the nearest first, and further ones only if one of them is gained. The fit is returned as
    it is if the plan does not ask for the pass, if the estimates were not kept in memory, if the rows would have to be
    regrouped again, if the rule is not ``rho="auto"``, or if no partition is gained.
    """
    if not isinstance(fit.estimates, list):
        return fit
    look = look_at_excluded(plan, fit)
    return fit if look is None else look.result()


def look_at_excluded(plan: FitPlan, fit: Fit, reader: Reader | None = None) -> SecondLook | None:
    """Read excluded partitions and hold their rows against those of the kept ones; None if nothing can be looked at.

    A ``reader`` that there is already has the data on a cluster; without one they are sent there.
    """
    if not plan.refit_excluded or plan.partitions.held:
        return None
    nearest = _excluded_by_distance(plan, fit)
    kept = fit.aggregate.decision.kept
    rows = {i: sampled for i, sampled in fit.row_sample.items() if kept[i]}
    if not (nearest and rows):
        return None
    reader = reader or Reader(plan, nearest, purpose="second look at excluded partitions")
    look = SecondLook(plan, fit, rows, nearest, reader)
    most = max(LEAST, int(MOST_SHARE * len(kept)))
    n_looked, n_gained = 0, -1
    while n_looked < len(nearest) and len(look.gained) > n_gained:
        n_gained = len(look.gained)
        look.at(sorted(nearest[n_looked : n_looked + most]))
        n_looked, most = n_looked + most, 2 * most
    return look


class SecondLook:
    """Looks at some excluded partitions at a time, all held against the same rows at the same mixture."""

    def __init__(
        self,
        plan: FitPlan,
        fit: Fit,
        rows: Mapping[int, Any],
        candidates: Sequence[int],
        reader: Reader,
    ) -> None:
        self.plan, self.fit, self.reader = plan, fit, reader
        self.gained: dict[int, LocalEstimate] = {}
        self.reasons: dict[int, Gained] = {}
        rng = np.random.default_rng(stream(plan.settings.seed, SECOND_LOOK))
        counts = [fit.rows[i]["n_samples"] for i in candidates]
        cut = plan.settings.problem.family.cut
        with single_threaded_blas():
            self.others = RowsOfKept(fit.aggregate.mixture, rows, counts, rng, cut)

    def at(self, indices: Sequence[int]) -> None:
        """Read some partitions, and gain those whose rows do not contradict the global mixture."""
        fit, problem = self.fit, self.plan.settings.problem
        assert fit.estimates is not None
        mixture = fit.aggregate.mixture
        readings = [
            reading
            for reading in self.reader.measure(indices, self.others.mixtures, self.others.wanted)
            if reading.is_measured and reading.n_samples == fit.rows[reading.partition]["n_samples"]
        ]
        n_before = len(self.gained)
        with single_threaded_blas():
            p_values = self.others.hold_against(readings).p_values
            for reading, p_value in zip(readings, p_values, strict=True):
                i = reading.partition
                agrees = p_value >= self.plan.options.false_exclusion_rate
                step = one_step(problem, mixture, reading, fit.estimates[i]) if agrees else None
                if step is not None:
                    shares = self.others.shares_outside(reading)
                    self.gained[i], self.reasons[i] = step, Gained(float(p_value), *shares)
        n_gained = len(self.gained) - n_before
        logger.info("second look: %d of %d partitions do not contradict", n_gained, len(indices))

    def result(self) -> Fit:
        """The fit with all partitions that were gained, whose new estimates are not far away themselves."""
        found = aggregate_with(self.plan, self.fit, gained=self.gained) if self.gained else None
        if found is None or not found.first:
            return self.fit
        reasons = {i: self.reasons[i] for i in found.first}
        return replace(found, reasons={**self.fit.reasons, **reasons})


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


def aggregate_with(
    plan: FitPlan,
    fit: Fit,
    replaced: Mapping[int, LocalEstimate] | None = None,
    gained: Mapping[int, LocalEstimate] | None = None,
) -> Fit | None:
    """The fit with other estimates of some partitions; None if they cannot be aggregated.

    Parameters
    ----------
    plan : FitPlan
    fit : Fit
    replaced : mapping of int to LocalEstimate, optional
        Other fits, judged like all fits.
    gained : mapping of int to LocalEstimate, optional
        Of partitions that are kept whatever the distance of their fits: these take part in the reduction alone. Those
        that are too far away themselves count for nothing.
    """
    assert fit.estimates is not None
    replaced, gained = replaced or {}, gained or {}
    estimates, rows = list(fit.estimates), list(fit.rows)
    for i, estimate in replaced.items():
        estimates[i] = estimate
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
                gained,
            )
    except AggregationError:
        return None
    gained = {i: e for i, e in gained.items() if aggregate.decision.kept[i]}
    first = {i: estimates[i] for i in gained}
    for i, estimate in {**replaced, **gained}.items():
        estimates[i] = estimate
        (rows[i],) = tasks.report_rows([estimate.to_arrays()])
    kept = aggregate.decision.kept
    return replace(fit, aggregate=aggregate, rows=rows, estimates=estimates, kept=kept, first=first)


def _excluded_by_distance(plan: FitPlan, fit: Fit) -> list[int]:
    """Excluded partitions whose rows can decide, by increasing z-score of their estimates."""
    decision = fit.aggregate.decision
    if not plan.options.is_calibrated or decision.z_scores is None:
        return []
    least = LEAST_EVIDENCE * fit.aggregate.mixture.n_parameters
    has_rows = np.array([row["n_samples"] >= least for row in fit.rows])
    far = np.flatnonzero(~decision.kept & np.isfinite(decision.z_scores) & has_rows)
    nearest = far[np.argsort(decision.z_scores[far], kind="stable")]
    return [int(i) for i in nearest if all(map(is_for_rows, decision.reasons_for(int(i))))]
