"""A few partitions -> a shortlist of starts for all of them.

A local fit that ends in a wrong optimum is a Byzantine failure by accident, and independent starts
make so many of them that the majority can be lost. So a few pilot partitions, drawn by seed, are
fitted from many starts, and every partition starts from the one of at most four candidates that its
own rows like best. One honest pilot is enough: a bad one costs a place on the list, not the result.

Candidates are compared by what they say about each other's rows. A candidate *covers* a pilot as
far as it loses less than about one nat per row there against the candidate that describes the pilot
best; the shortlist is the greedy cover. The candidates of one population compete for the same rows,
so the one in the best optimum stands for all of them; a broken pilot is covered by its own
candidate only. What is broadcast is each group's best fit, run on over the group's rows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.em import ComponentCollapsedError, EmResult
from dask_dfmr.local.fit import MAX_MAGNITUDE, LocalProblem
from dask_dfmr.local.starts import MAX_START_ROWS, Scale, make_start, subsample
from dask_dfmr.mixtures.family import Array, Components, Family, Prior, Rows
from dask_dfmr.mixtures.gaussian import Mixture

Start = tuple[Array, Components]

N_PILOTS = 16
MAX_SHORTLIST = 4
N_SHORT_RUNS = 5
N_LONG_RUNS = 1
SHORT_PASSES = 5
N_CONTENDERS = 3
LOOSE_TOL = 1e-5
"""Mean gain per row at which a pilot's fit stops: it is a start, not an estimate."""
CHECK_ROWS = 1000
LEAST_COVER = 0.5
"""A pilot covered less than this by the candidate of its group is not in the group."""
LEAST_GAIN = 0.5
"""A further candidate must cover at least half a pilot more."""


class PilotRows(NamedTuple):
    """What is read of a pilot partition: at most 20,000 rows, and the scale of its columns."""

    rows: Array
    scale: Scale


class PilotFit(NamedTuple):
    """A candidate, and the rows of its pilot on which the candidates compare each other."""

    start: Start
    check_rows: Array


class Shortlist(NamedTuple):
    """The candidates, and how many pilots each of them describes best."""

    starts: list[Start]
    support: list[int]


def draw_pilots(n_partitions: int, seed: np.random.SeedSequence) -> list[int]:
    """Which partitions are pilots: at most 16, by seed."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(n_partitions, min(N_PILOTS, n_partitions), replace=False).tolist())


def read_pilot(problem: LocalProblem, X: Rows, seed: np.random.SeedSequence) -> PilotRows | None:
    """A subsample of a partition that is fit to be a pilot; None if it is not (too few rows, NaN, degenerate)."""
    X, _, refusal = problem.check_rows(X)
    if refusal is not None or problem.family.degeneracy(problem.family.prior_target(X)) is not None:
        return None
    rows = subsample(X, MAX_START_ROWS, np.random.default_rng(seed))
    return PilotRows(rows, Scale.of(rows))


def pilot_scale(pilots: Sequence[PilotRows | None]) -> Scale | None:
    """The median location and spread of the pilots that agree with most on the number of columns."""
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
    """The best of several k-means++ starts on the rows of one pilot: many short runs, the best few run on."""
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
    """The best of k-means++ starts on rows: many short runs, the best few run on; None if all collapsed."""
    prior = problem.prior(rows)
    shorts = []
    for _ in range(n_short):
        start = make_start(
            problem.family, rows, problem.n_components, "k-means++", prior, rng, scale=scale
        )
        shorts.append(run_on(problem, rows, start, prior, SHORT_PASSES))
    promising = sorted((r for r in shorts if r is not None), key=lambda r: -r.objective)
    longs = [run_on(problem, rows, (r.weights, r.components), prior) for r in promising[:n_long]]
    return max((r for r in longs if r is not None), key=lambda r: r.objective, default=None)


def make_shortlist(problem: LocalProblem, fits: Sequence[PilotFit | None]) -> Shortlist:
    """At most four candidates that together cover the pilots; empty if no pilot could be fitted."""
    present = [fit for fit in fits if fit is not None]
    if not present:
        return Shortlist([], [])
    scores = _cross_scores(problem, [fit.start for fit in present], present)
    n_features = present[0].check_rows.shape[1]
    n_parameters = problem.family.n_parameters(problem.n_components, n_features)
    # A candidate is ahead on its own rows by about p / n nats for no merit.
    slack = np.array([1.0 + 2.0 * n_parameters / len(fit.check_rows) for fit in present])
    cover = np.clip(1.0 - (scores.max(axis=0) - scores) / slack, 0.0, 1.0)
    chosen = _greedy_cover(cover)
    groups = np.array(chosen)[cover[chosen].argmax(axis=0)]
    # A pilot that no candidate describes belongs to no group, and spoils none.
    members = [
        np.union1d(np.flatnonzero((groups == i) & (cover[i] >= LEAST_COVER)), [i]) for i in chosen
    ]
    starts = [_settle(problem, present, scores, group) for group in members]
    best = _cross_scores(problem, starts, present).argmax(axis=0)
    return Shortlist(starts, np.bincount(best, minlength=len(starts)).tolist())


def _cross_scores(
    problem: LocalProblem, starts: Sequence[Start], pilots: Sequence[PilotFit]
) -> Array:
    """Mean log-density of every pilot's rows under every candidate, shape (n_starts, n_pilots)."""
    return np.array(
        [[mean_log_density(problem.family, s, fit.check_rows) for fit in pilots] for s in starts]
    )


def _greedy_cover(cover: Array) -> list[int]:
    """Candidates, one after the other, that add most to what is covered; cover (n_candidates, n_pilots)."""
    chosen: list[int] = []
    covered = np.zeros(cover.shape[1])
    while len(chosen) < MAX_SHORTLIST:
        gains = np.maximum(cover - covered, 0.0).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] < LEAST_GAIN:
            break
        chosen.append(best)
        covered = np.maximum(covered, cover[best])
    return chosen


def _settle(
    problem: LocalProblem, pilots: Sequence[PilotFit], scores: Array, members: NDArray[np.intp]
) -> Start:
    """The candidate of a group of pilots: their best fits, run on over the rows of all of them together.

    On small partitions every pilot's own optimum is one of its own few rows. Pooled, they find the common one.
    """
    if len(members) == 1:
        return pilots[members[0]].start
    own = scores[np.ix_(members, members)]
    others = np.where(np.eye(len(members), dtype=bool), 0.0, own).sum(axis=1)
    ranked = members[np.argsort(-others, kind="stable")][:N_CONTENDERS]
    rows = np.concatenate([pilots[i].check_rows for i in members])
    prior = problem.prior(rows)
    runs = [run_on(problem, rows, pilots[i].start, prior) for i in ranked]
    best = max((run for run in runs if run is not None), key=lambda r: r.objective, default=None)
    return pilots[ranked[0]].start if best is None else (best.weights, best.components)


def run_on(
    problem: LocalProblem, rows: Rows, start: Start, prior: Prior, max_iter: int | None = None
) -> EmResult | None:
    """A loose EM run; None if a component collapsed."""
    try:
        return problem.maximise(rows, start, prior, tol=LOOSE_TOL, max_iter=max_iter)
    except ComponentCollapsedError:
        return None


def choose_start(
    problem: LocalProblem, X: Rows, shortlist: Shortlist, seed: np.random.SeedSequence
) -> int | None:
    """The candidate that a subsample of these rows likes best; None where there is none of that width."""
    rows = subsample(X, CHECK_ROWS, np.random.default_rng(seed))
    rows = rows[(np.abs(rows) <= MAX_MAGNITUDE).all(axis=1)]  # no say for NaN either
    usable = [
        i
        for i, (_, components) in enumerate(shortlist.starts)
        if problem.family.n_features(components) == rows.shape[1]
    ]
    if not usable or not len(rows):
        return None
    return max(usable, key=lambda i: mean_log_density(problem.family, shortlist.starts[i], rows))


def mean_log_density(family: Family, start: Start, rows: Rows) -> float:
    """Mean log-density of the rows, nats per row."""
    log_likelihood, _ = family.em_pass(rows, *start)
    return log_likelihood / len(rows)


def as_mixture(problem: LocalProblem, start: Start, feature_names: Any) -> Mixture:
    """A candidate as a start of :meth:`LocalProblem.fit`."""
    return problem.family.mixture(*start, feature_names)
