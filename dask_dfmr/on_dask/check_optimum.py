"""After the aggregation: whether fresh starts on a few kept partitions find a better optimum, and adopting it.

The mathematics is in :mod:`dask_dfmr.refinement.optima`. The rows of the partitions drawn are read once and stay where they were
read; adopting a better optimum fits all partitions again from it, which is another read of everything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dask_dfmr import checks
from dask_dfmr.aggregation.result import Note
from dask_dfmr.exceptions import OptimumWarning
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.pilots import Start
from dask_dfmr.local.starts import MAX_START_ROWS
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.fit import FitResult, HeldTask, Pipeline, fetch, hold_each, place, run
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.refinement import optima
from dask_dfmr.seeds import OPTIMUM_DRAW, OPTIMUM_FIT, OPTIMUM_ROWS, stream

logger = logging.getLogger("dask_dfmr")


def check_parameter(most_changes: Any) -> None:
    """Raise ValueError unless it is None, "auto" or a number of changes."""
    if most_changes is not None and not (isinstance(most_changes, str) and most_changes == "auto"):
        checks.integer("check_optimum", most_changes, 0, alternative="None, 'auto' or ")


@dataclass(frozen=True)
class SettledFit:
    """A fit whose optimum was questioned: the result to go on with, what to warn of, how often it was adopted anew."""

    result: FitResult
    notes: tuple[Note, ...] = ()
    n_optimum_changes: int = 0
    comparisons: tuple[optima.Comparison, ...] = field(default=())


def settle_optimum(
    pipeline: Pipeline,
    result: FitResult,
    most_changes: int | str | None,
    keep_estimates: bool | str = "auto",
    verbose: int = 0,
) -> SettledFit:
    """Look for a better optimum than that of a fit, and adopt it as often as ``check_optimum`` allows."""
    if most_changes is None or (most_changes == "auto" and not _is_doubtful(pipeline, result)):
        return SettledFit(result)
    allowed = 0 if isinstance(most_changes, str) else int(most_changes)
    question = _Question(pipeline, result, verbose)
    comparisons: list[optima.Comparison] = []
    for n_optimum_changes in range(allowed + 1):
        found = question.ask(result.aggregate.mixture, n_optimum_changes)
        if found is None:
            return SettledFit(result, (), n_optimum_changes, tuple(comparisons))
        comparison, candidate = found
        comparisons.append(comparison)
        if not comparison.is_better:
            return SettledFit(result, (), n_optimum_changes, tuple(comparisons))
        if n_optimum_changes == allowed:
            notes = (Note(OptimumWarning, _warning(comparison, question.n_partitions, allowed)),)
            return SettledFit(result, notes, n_optimum_changes, tuple(comparisons))
        logger.info(
            "a better optimum was found (%s) and is adopted: all partitions are fitted again",
            _numbers(comparison),
        )
        settings = replace(pipeline.settings, start=candidate, given=None)
        again = run(replace(pipeline, settings=settings), keep_estimates, verbose)
        gain, _ = question.gain_of(again.aggregate.mixture, result.aggregate.mixture)
        if not gain > 0:
            text = f"fits from a better optimum ({_numbers(comparison)}) led to a mixture that is no better"
            notes = (
                Note(OptimumWarning, f"{text} by {-gain:.3g} nats per row; the first one is kept."),
            )
            return SettledFit(result, notes, n_optimum_changes, tuple(comparisons))
        result = again
    raise AssertionError("the last round returns")


def _is_doubtful(pipeline: Pipeline, result: FitResult) -> bool:
    """Where all start at one point that was given, or at pilots that have too few rows to know better."""
    if pipeline.partitions.held:
        return False  # a few sources cannot be read again without regrouping all rows
    if not isinstance(pipeline.settings.start, str):
        return True
    kept = result.aggregate.decision.kept
    counts = [row["n_samples"] for row, is_kept in zip(result.rows, kept, strict=True) if is_kept]
    least = optima.ROWS_PER_PARAMETER * result.aggregate.mixture.n_parameters
    return pipeline.settings.needs_pilots and bool(np.median(counts) < least)


def _numbers(comparison: optima.Comparison) -> str:
    return (
        f"{comparison.gain:.3g} +- {comparison.error:.1g} nats per row on {comparison.n_check_rows} rows, "
        f"z = {comparison.z_score:.3g}"
    )


def _warning(comparison: optima.Comparison, n_partitions: int, allowed: int) -> str:
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


class _Question:
    """The rows of a few kept partitions, in groups, read once for all that is asked of them."""

    def __init__(self, pipeline: Pipeline, result: FitResult, verbose: int) -> None:
        self.settings, self.problem = pipeline.settings, pipeline.settings.problem
        kept = [int(i) for i in np.flatnonzero(result.aggregate.decision.kept)]
        counts = [result.rows[i]["n_samples"] for i in kept]
        rng = np.random.default_rng(stream(self.settings.seed, OPTIMUM_DRAW))
        n_parameters = result.aggregate.mixture.n_parameters
        drawn = optima.draw_groups(kept, counts, n_parameters, rng)
        groups = self._read(pipeline, drawn, verbose)
        self.groups = [held for held in groups if held is not None]
        self.n_partitions = sum(map(len, drawn))

    def _read(
        self, pipeline: Pipeline, drawn: list[list[int]], verbose: int
    ) -> list[HeldTask | None]:
        """The rows of each group, where they were read; None for a group of which nothing could be read."""
        wanted = [i for group in drawn for i in group]
        if not wanted:
            return []
        partitions, data = place(pipeline.partitions.reduced_to(wanted))
        n_rows = -(-MAX_START_ROWS // len(drawn[0]))

        def sample(which: Sequence[int]) -> tuple[GraphBuilder, list[Any]]:
            g = GraphBuilder()
            g.tasks.update(partitions.graph)
            refs = []
            for i in which:
                loader, seed = partitions.loaders[i], stream(self.settings.seed, OPTIMUM_ROWS, i)
                arguments = (loader, i, self.settings, n_rows, seed, *loader.refs)
                refs.append(g.add("sample_partition", i, tasks.sample_partition, *arguments))
            return g, refs

        samples = dict(zip(wanted, hold_each(sample, wanted, verbose), strict=True))

        def join(which: Sequence[int]) -> tuple[GraphBuilder, list[Any]]:
            g = GraphBuilder()
            refs = []
            for k in which:
                alive = [samples[i].argument for i in drawn[k] if samples[i].error is None]
                refs.append(g.add("join_rows", k, _join, alive))
            return g, refs

        groups = hold_each(join, range(len(drawn)))
        data.clear()
        g = GraphBuilder()
        sizes = fetch(
            g, [g.add("count_rows", k, _count, held.argument) for k, held in enumerate(groups)]
        )
        return [held if size else None for held, size in zip(groups, sizes, strict=True)]

    def ask(
        self, mixture: Mixture, n_optimum_changes: int
    ) -> tuple[optima.Comparison, Mixture] | None:
        """The best candidate against a mixture, and as a start for all; None where nothing can be compared."""
        if len(self.groups) < 2:
            return None
        g = GraphBuilder()
        seeds = [
            stream(self.settings.seed, OPTIMUM_FIT, n_optimum_changes, k)
            for k in range(2 * len(self.groups))
        ]
        shared = (mixture.weights, mixture.components)
        candidates: list[Any] = [
            g.add("fresh_start", k, _fresh_start, self.problem, held.argument, seed)
            for k, (held, seed) in enumerate(zip(self.groups, seeds, strict=False))
        ]
        fits: list[Any] = [
            g.add(
                "fit_group",
                k,
                _fit_group,
                self.problem,
                held.argument,
                _Point(shared),
                candidates,
                seed,
            )
            for k, (held, seed) in enumerate(
                zip(self.groups, seeds[len(self.groups) :], strict=True)
            )
        ]
        comparison = g.add("compare_optima", 0, optima.compare, self.problem.family, fits)
        rows = [held.argument for held in self.groups]
        settled = g.add("settle_candidate", 0, _settle, self.problem, rows, candidates, comparison)
        found, start = fetch(g, [comparison, settled])
        if found is None or start is None:
            return None
        names = mixture.feature_names
        return found, self.problem.family.mixture(start[0], start[1], names)

    def gain_of(self, new: Mixture, old: Mixture) -> tuple[float, float]:
        """Mean gain in log-density on the rows of all groups, and its error."""
        g = GraphBuilder()
        rows = [held.argument for held in self.groups]
        ((gain, error),) = fetch(g, [g.add("gain", 0, optima.gain_of, new, old, rows)])
        return gain, error


# -- tasks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """A start as one argument of a task."""

    start: Start


def _join(samples: list[Array | None]) -> Array | None:
    present = [rows for rows in samples if rows is not None]
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
    """The winner as a start for everybody, if it is one."""
    candidate = None if comparison is None else candidates[comparison.candidate]
    if comparison is None or candidate is None or not comparison.is_better:
        return candidate
    with single_threaded_blas():
        return optima.settle_candidate(problem, groups, candidate)
