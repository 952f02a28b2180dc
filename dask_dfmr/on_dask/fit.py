"""A whole fit: the passes over the data, in order."""

from __future__ import annotations

from dataclasses import replace

from dask_dfmr.aggregation.result import Origin
from dask_dfmr.explanation.flat_columns import note_on_flat_columns
from dask_dfmr.on_dask.check_optimum import check_optimum
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.refine import refine
from dask_dfmr.on_dask.refit import match_columns, refit_excluded


def run_fit(plan: FitPlan) -> Fit:
    """Compute a fit: the first pass over the data, and the later ones that the plan asks for.

    Raises
    ------
    AggregationError
        If no estimate is usable; its ``report`` says why for each partition.
    RefinementError
        If no kept partition could be read again.
    ClusterError
        If the scheduler is gone, or workers keep dying under the aggregation.
    """
    with plan.scheduler.session():
        fit = read_first(plan)
        # The names of Delayed frames are known only now. Later passes match the columns of each by name.
        names = fit.aggregate.mixture.feature_names
        plan = replace(plan, settings=replace(plan.settings, feature_names=names))
        for later_pass in (match_columns, check_optimum, refit_excluded, with_origin, refine):
            fit = later_pass(plan, fit)
        note = note_on_flat_columns(fit.rows, fit.kept, fit.aggregate.mixture)
        return fit if note is None else replace(fit, notes=(*fit.notes, note))


def with_origin(plan: FitPlan, fit: Fit) -> Fit:
    """The fit with an aggregate that can be aggregated again from its estimates, if they were kept."""
    if fit.estimates is None:
        return fit
    settings = plan.settings
    problem = settings.problem
    family, first = problem.mixture_family, fit.first
    origin = Origin(fit.estimates, plan.options, settings.seed, problem, family, first=first)
    return replace(fit, aggregate=replace(fit.aggregate, origin=origin))
