"""The pass that looks for a better optimum: fresh starts on a few kept partitions, and adopting what they find.

The mathematics is in :mod:`dask_dfmr.refinement.optima`. The rows of the partitions drawn are read once and stay where
they were read. Adopting a better optimum fits all partitions again from it, which reads all data once more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_dfmr.aggregation.result import Note
from dask_dfmr.exceptions import OptimumWarning
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.search import Start
from dask_dfmr.local.starts import MAX_START_ROWS
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask import answers, tasks
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.placed import place
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import Graph, HeldTask
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.refinement import optima
from dask_dfmr.seeds import OPTIMUM_DRAW, OPTIMUM_FIT, OPTIMUM_ROWS, stream

logger = logging.getLogger("dask_dfmr")


def check_optimum(plan: FitPlan, fit: Fit) -> Fit:
    """Look for a better optimum than that of a fit, and adopt it as often as ``plan.check_optimum`` allows."""
    most_changes = plan.check_optimum
    if most_changes is None or (most_changes == "auto" and not _is_doubtful(plan, fit)):
        return fit
    allowed = 0 if isinstance(most_changes, str) else int(most_changes)
    groups = _Groups(plan, fit)
    for n_changes in range(allowed + 1):
        found = groups.best_candidate(fit.aggregate.mixture, n_changes)
        if found is None or not found[0].is_better:
            return fit
        comparison, candidate = found
        if n_changes == allowed:
            return _with_warning(fit, _better_optimum(comparison, groups.n_partitions, allowed))
        logger.info(
            "a better optimum was found (%s) and is adopted: all partitions are fitted again",
            _numbers(comparison),
        )
        settings = replace(plan.settings, start=candidate, given=None)
        again = read_first(replace(plan, settings=settings))
        gain = groups.gain_of(again.aggregate.mixture, fit.aggregate.mixture)
        if not gain > 0:
            text = f"fits from a better optimum ({_numbers(comparison)}) led to a mixture that is no better"
            return _with_warning(fit, f"{text} by {-gain:.3g} nats per row; the first one is kept.")
        fit = replace(again, n_optimum_changes=n_changes + 1)
    raise AssertionError("the last round returns")


def _with_warning(fit: Fit, text: str) -> Fit:
    return replace(fit, notes=(*fit.notes, Note(OptimumWarning, text)))


def _is_doubtful(plan: FitPlan, fit: Fit) -> bool:
    """Whether the start may lead to a wrong optimum: it was given, or found by pilots with too few rows."""
    if plan.partitions.held:
        return False  # reading a few sources again would regroup all rows
    if not isinstance(plan.settings.start, str):
        return True
    kept = fit.aggregate.decision.kept
    counts = [row["n_samples"] for row, is_kept in zip(fit.rows, kept, strict=True) if is_kept]
    least = optima.ROWS_PER_PARAMETER * fit.aggregate.mixture.n_parameters
    return plan.settings.needs_pilots and bool(np.median(counts) < least)


def _numbers(comparison: optima.Comparison) -> str:
    return (
        f"{comparison.gain:.3g} +- {comparison.error:.1g} nats per row on {comparison.n_check_rows} rows, "
        f"z = {comparison.z_score:.3g}"
    )


def _better_optimum(comparison: optima.Comparison, n_partitions: int, allowed: int) -> str:
    remedy = (
        f"Raise check_optimum (now {allowed})"
        if allowed
        else "Set check_optimum=1, which fits all partitions again from there"
    )
    return (
        f"there is a better optimum than the one that the partitions share: fits of {n_partitions} kept partitions "
        f"from fresh starts describe each other's rows better by {_numbers(comparison)}. {remedy}, or another start "
        "(init_params, random_state)."
    )


class _Groups:
    """The rows of a few kept partitions, in groups, read once and held for all comparisons."""

    def __init__(self, plan: FitPlan, fit: Fit) -> None:
        self.plan, self.settings, self.problem = plan, plan.settings, plan.settings.problem
        kept = [int(i) for i in np.flatnonzero(fit.aggregate.decision.kept)]
        counts = [fit.rows[i]["n_samples"] for i in kept]
        rng = np.random.default_rng(stream(self.settings.seed, OPTIMUM_DRAW))
        n_parameters = fit.aggregate.mixture.n_parameters
        drawn = optima.draw_groups(kept, counts, n_parameters, rng)
        self.n_features = fit.aggregate.mixture.n_features
        self.held: list[HeldTask] = []
        self.rows = self._read(drawn)
        self.n_partitions = sum(map(len, drawn))

    def _read(self, drawn: list[list[int]]) -> list[Any]:
        """References to the rows of each group; without groups of which nothing could be read."""
        if not any(drawn):
            return []
        scheduler = self.plan.scheduler
        samples, data = self._sample(drawn)

        def join(which: Sequence[int]) -> Graph:
            g = GraphBuilder()
            refs = []
            for k in which:
                alive = [samples[i].argument for i in drawn[k] if samples[i].error is None]
                refs.append(g.add("join_rows", k, _join, alive, self.n_features))
            return g, refs

        self.held = scheduler.hold_each(join, range(len(drawn)))
        data.clear()
        rows = [task.argument for task in self.held]
        g = GraphBuilder()
        sizes = scheduler.fetch(g, [g.add("count_rows", k, _count, r) for k, r in enumerate(rows)])
        return [r for r, size in zip(rows, sizes, strict=True) if size]

    def _sample(self, drawn: list[list[int]]) -> tuple[dict[int, HeldTask], list[Any]]:
        """Some rows of each partition drawn, where they were read; and what holds the data they come from."""
        wanted = [i for group in drawn for i in group]
        scheduler, settings = self.plan.scheduler, self.settings
        partitions, data = place(scheduler, self.plan.partitions.reduced_to(wanted))
        n_rows = -(-MAX_START_ROWS // len(drawn[0]))

        def sample(which: Sequence[int]) -> Graph:
            g = GraphBuilder()
            g.tasks.update(partitions.graph)
            refs = []
            for i in which:
                loader, seed = partitions.loaders[i], stream(settings.seed, OPTIMUM_ROWS, i)
                arguments = (loader, i, settings, n_rows, seed, *loader.refs)
                refs.append(g.add("sample_partition", i, tasks.sample_partition, *arguments))
            return g, refs

        return dict(zip(wanted, scheduler.hold_each(sample, wanted), strict=True)), data

    def best_candidate(
        self, mixture: Mixture, n_changes: int
    ) -> tuple[optima.Comparison, Mixture] | None:
        """The best candidate against a mixture, and as a start for all; None if nothing can be compared."""
        if len(self.rows) < 2:
            return None
        g = GraphBuilder()
        seed, n = self.settings.seed, len(self.rows)
        seeds = [stream(seed, OPTIMUM_FIT, n_changes, k) for k in range(2 * n)]
        candidates: list[Any] = [
            g.add("fresh_start", k, _fresh_start, self.problem, rows, seeds[k])
            for k, rows in enumerate(self.rows)
        ]
        shared = _Point((mixture.weights, mixture.components))
        fits: list[Any] = [
            g.add("fit_group", k, _fit_group, self.problem, rows, shared, candidates, seeds[n + k])
            for k, rows in enumerate(self.rows)
        ]
        family = self.problem.family
        comparison = g.add("compare_optima", 0, optima.compare, family, fits)
        arguments = (self.problem, list(self.rows), candidates, comparison)
        settled = g.add("settle_candidate", 0, _settle, *arguments)
        found, start = self.plan.scheduler.fetch(g, [comparison, settled])
        if found is None or start is None:
            return None
        return found, family.mixture(start[0], start[1], mixture.feature_names)

    def gain_of(self, new: Mixture, old: Mixture) -> float:
        """Mean gain in log-density on the rows of all groups, in nats per row."""
        g = GraphBuilder()
        gain = g.add("gain", 0, optima.gain_of, self.problem.family, new, old, list(self.rows))
        ((mean, _error),) = self.plan.scheduler.fetch(g, [gain])
        return float(mean)


# -- tasks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """A start as one argument of a task."""

    start: Start


def _join(samples: list[Any], n_features: int) -> Array | None:
    checked = [answers.sample(rows, MAX_START_ROWS, n_features) for rows in samples]
    present = [rows for rows in checked if rows is not None]
    return np.concatenate(present) if present else None


def _count(rows: Array | None) -> int:
    return 0 if rows is None else len(rows)


def _fresh_start(problem: LocalProblem, rows: Array, seed: np.random.SeedSequence) -> Start | None:
    with single_threaded_blas():
        return optima.fresh_start(problem, rows, np.random.default_rng(seed))


def _fit_group(
    problem: LocalProblem,
    rows: Array,
    shared: _Point,
    candidates: list[Start | None],
    seed: np.random.SeedSequence,
) -> optima.GroupFits:
    with single_threaded_blas():
        rng = np.random.default_rng(seed)
        return optima.fit_group(problem, rows, shared.start, candidates, rng)


def _settle(
    problem: LocalProblem,
    groups: Sequence[Array],
    candidates: list[Start | None],
    comparison: optima.Comparison | None,
) -> Start | None:
    """The best candidate as a start for all partitions; settled by EM if it is better than the shared optimum."""
    candidate = None if comparison is None else candidates[comparison.candidate]
    if comparison is None or candidate is None or not comparison.is_better:
        return candidate
    with single_threaded_blas():
        return optima.settle_candidate(problem, groups, candidate)
