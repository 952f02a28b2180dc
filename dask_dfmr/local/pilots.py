"""Pilots: a few partitions are fitted from many starts, and give all partitions a short list of starts.

A local fit that ends in a wrong optimum is a Byzantine failure by accident. With independent starts there can be so
many of them that the correct fits lose the majority. So at most 16 pilot partitions, drawn by seed, are fitted from
many starts. Every partition then starts from the candidate, out of at most four, under which its own rows have the
highest density. One consistent pilot is enough: an inconsistent one takes a place on the list, but does not change the
result.

Candidates are compared on the rows of all pilots. A candidate *covers* a pilot as far as its mean log-density there is
less than about one nat per row below that of the best candidate. The short list is the greedy cover. Candidates of one
population compete for the same rows, so one candidate stands for all of them: the one in the best optimum. A corrupted
pilot is covered only by its own candidate. The short list holds the best fit of each group of pilots, continued over
the rows of the whole group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.comparison import best_first, mean_log_densities
from dask_dfmr.local.em import ComponentCollapsedError, EmResult
from dask_dfmr.local.fit import MAX_MAGNITUDE, LocalProblem
from dask_dfmr.local.penalty import Penalty
from dask_dfmr.local.starts import MAX_START_ROWS, PROJECTIONS, Scale, make_start, subsample
from dask_dfmr.mixtures.family import Array, Components, Rows
from dask_dfmr.mixtures.gaussian import Mixture

Start = tuple[Array, Components]
"""Weights and components of a start."""

N_PILOTS = 16
"""Largest number of pilots."""

MAX_SHORTLIST = 4
"""Largest number of candidates on the short list."""

N_SHORT_RUNS, SHORT_PASSES, N_LONG_RUNS = 5, 5, 1
"""A pilot is fitted from N_SHORT_RUNS starts for SHORT_PASSES passes; the best N_LONG_RUNS of them are continued.
``n_init`` multiplies both numbers of runs."""

N_CONTENDERS = 3
"""Largest number of fits of a group that are continued over the rows of the group."""

CHECK_ROWS = 1000
"""Largest number of rows of a partition on which candidates are compared."""

LEAST_COVER = 0.5
"""A pilot that the candidate of its group covers less than this does not belong to the group."""

LEAST_ADDED_COVER = 0.5
"""A further candidate must add the cover of at least half a pilot."""


class PilotRows(NamedTuple):
    """At most 20,000 rows of a pilot partition, and the scale of its columns."""

    rows: Array
    scale: Scale


class PilotFit(NamedTuple):
    """A candidate start, and the rows of its pilot on which all candidates are compared."""

    start: Start
    check_rows: Array


class Shortlist(NamedTuple):
    """The candidate starts, and for each the number of pilots whose rows have the highest density under it."""

    starts: list[Start]
    support: list[int]


def draw_pilots(n_partitions: int, seed: np.random.SeedSequence) -> list[int]:
    """The sorted indices of at most 16 pilot partitions, drawn by seed."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(n_partitions, min(N_PILOTS, n_partitions), replace=False).tolist())


def read_pilot(problem: LocalProblem, X: Rows, seed: np.random.SeedSequence) -> PilotRows | None:
    """A subsample of the rows of a pilot; None if its rows cannot be fitted (too few rows, NaN, degenerate)."""
    X, _, refusal = problem.check_rows(X)
    if refusal is not None or not problem.can_fit(X):
        return None
    rows = subsample(X, MAX_START_ROWS, np.random.default_rng(seed))
    return PilotRows(rows, problem.scale_of(rows))


def pilot_scale(pilots: Sequence[PilotRows | None]) -> Scale | None:
    """The median scale of the pilots with the most frequent number of columns; None if there is no pilot."""
    scales = [pilot.scale for pilot in pilots if pilot is not None]
    widths = [len(scale.location) for scale in scales]
    usual = max(sorted(set(widths)), key=widths.count, default=0)
    if not scales:
        return None
    return Scale.median([scale for scale in scales if len(scale.location) == usual])


def fit_pilot(
    problem: LocalProblem,
    pilot: PilotRows | None,
    scale: Scale | None,
    seed: np.random.SeedSequence,
) -> PilotFit | None:
    """The best fit of one pilot from several k-means++ starts; None if there is none.

    The scale is that of all pilots. A pilot with another number of columns is not fitted.
    """
    if pilot is None or scale is None or pilot.rows.shape[1] != len(scale.location):
        return None
    rng = np.random.default_rng(seed)
    best = best_of_starts(problem, pilot.rows, scale, rng)
    if best is None:
        return None
    return PilotFit((best.weights, best.components), subsample(pilot.rows, CHECK_ROWS, rng))


def best_of_starts(
    problem: LocalProblem,
    rows: Array,
    scale: Scale,
    rng: np.random.Generator,
    n_short: int = N_SHORT_RUNS,
    n_long: int = N_LONG_RUNS,
) -> EmResult | None:
    """The best EM run on rows from ``n_short`` k-means++ starts, of which the best ``n_long`` are continued.

    Both numbers are multiplied by the ``n_init`` of the problem. The first starts are those of ``n_init=1``. One more
    start divides the rows along the directions in which they are least normal. The result is None if a component
    collapsed in all runs.
    """
    penalty = problem.penalty_for(rows)
    # All rows of a plain fit, which are at most as many as a clustering takes.
    clustered = problem.start_rows(rows, rng) if problem.family.cut.truncates else rows
    shorts = []
    for name in ["k-means++"] * (problem.n_init * n_short) + [PROJECTIONS]:
        start = make_start(
            problem.family, clustered, problem.n_components, name, penalty, rng, scale=scale
        )
        shorts.append(run_on(problem, rows, start, penalty, SHORT_PASSES))
    best = best_first(problem.family, shorts, rows)[: problem.n_init * n_long]
    longs = [run_on(problem, rows, (r.weights, r.components), penalty) for r in best]
    return next(iter(best_first(problem.family, longs, rows)), None)


def make_shortlist(problem: LocalProblem, fits: Sequence[PilotFit | None]) -> Shortlist:
    """At most four candidates that together cover the pilots; none if no pilot could be fitted."""
    present = [fit for fit in fits if fit is not None]
    if not present:
        return Shortlist([], [])
    scores = _cross_scores(problem, [fit.start for fit in present], present)
    n_features = present[0].check_rows.shape[1]
    n_parameters = problem.family.n_parameters(problem.n_components, n_features)
    # On the rows to which it was fitted, a candidate is better by about p / n nats than on new rows.
    slack = np.array([1.0 + 2.0 * n_parameters / len(fit.check_rows) for fit in present])
    cover = np.clip(1.0 - (scores.max(axis=0) - scores) / slack, 0.0, 1.0)
    chosen = _greedy_cover(cover)
    groups = np.array(chosen)[cover[chosen].argmax(axis=0)]
    # A pilot that no candidate covers belongs to no group.
    members = [
        np.union1d(np.flatnonzero((groups == i) & (cover[i] >= LEAST_COVER)), [i]) for i in chosen
    ]
    starts = [_settle(problem, present, scores, group) for group in members]
    best = _cross_scores(problem, starts, present).argmax(axis=0)
    return Shortlist(starts, np.bincount(best, minlength=len(starts)).tolist())


def _cross_scores(
    problem: LocalProblem, starts: Sequence[Start], pilots: Sequence[PilotFit]
) -> Array:
    """Mean log-density of each pilot's rows under each candidate, in nats per row, shape (n_starts, n_pilots)."""
    columns = [mean_log_densities(problem.family, starts, fit.check_rows) for fit in pilots]
    return np.array(columns).T


def _greedy_cover(cover: Array) -> list[int]:
    """Candidates that one after the other add most to the cover (n_candidates, n_pilots) of the pilots."""
    chosen: list[int] = []
    covered = np.zeros(cover.shape[1])
    while len(chosen) < MAX_SHORTLIST:
        gains = np.maximum(cover - covered, 0.0).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] < LEAST_ADDED_COVER:
            break
        chosen.append(best)
        covered = np.maximum(covered, cover[best])
    return chosen


def _settle(
    problem: LocalProblem, pilots: Sequence[PilotFit], scores: Array, members: NDArray[np.intp]
) -> Start:
    """The candidate of a group of pilots: their best fits, continued over the pooled rows of the group.

    The optimum of a small pilot may belong to its few rows alone. The pooled rows lead to the common optimum.
    """
    if len(members) == 1:
        return pilots[members[0]].start
    own = scores[np.ix_(members, members)]
    others = np.where(np.eye(len(members), dtype=bool), 0.0, own).sum(axis=1)
    ranked = members[np.argsort(-others, kind="stable")][:N_CONTENDERS]
    rows = np.concatenate([pilots[i].check_rows for i in members])
    penalty = problem.penalty_for(rows)
    runs = [run_on(problem, rows, pilots[i].start, penalty) for i in ranked]
    best = next(iter(best_first(problem.family, runs, rows)), None)
    return pilots[ranked[0]].start if best is None else (best.weights, best.components)


def run_on(
    problem: LocalProblem, rows: Rows, start: Start, penalty: Penalty, max_iter: int | None = None
) -> EmResult | None:
    """An EM run with a loose stopping rule; None if a component collapsed."""
    try:
        return problem.search(rows, start, penalty, max_iter)
    except ComponentCollapsedError:
        return None


def choose_start(
    problem: LocalProblem, X: Rows, shortlist: Shortlist, seed: np.random.SeedSequence
) -> int | None:
    """The index of the candidate under which a subsample of the rows has the highest mean density.

    The result is None if no candidate has the number of columns of the rows, or no sampled row is finite.
    """
    rows = subsample(X, CHECK_ROWS, np.random.default_rng(seed))
    rows = rows[(np.abs(rows) <= MAX_MAGNITUDE).all(axis=1)]  # excludes NaN too
    usable = [
        i
        for i, (_, components) in enumerate(shortlist.starts)
        if problem.family.n_features(components) == rows.shape[1]
    ]
    if not usable or not len(rows):
        return None
    starts = [shortlist.starts[i] for i in usable]
    return usable[int(mean_log_densities(problem.family, starts, rows).argmax())]


def as_mixture(problem: LocalProblem, start: Start, feature_names: Any) -> Mixture:
    """A candidate as a mixture, for :meth:`LocalProblem.fit`."""
    return problem.family.mixture(*start, feature_names)
