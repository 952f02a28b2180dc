"""A few partitions -> a shortlist of starts for all of them.

A local fit that ends in a wrong optimum is a Byzantine failure by accident, and independent starts
make so many of them that the majority can be lost. So a few pilot partitions, drawn by seed, are
fitted from many starts, and every partition starts from the one of at most four candidates that its
own rows like best. One honest pilot is enough: a bad one costs a place on the list, not the result.

Candidates are compared by what they say about each other's rows. A candidate *covers* a pilot as
far as it loses less than about one nat per row there against the candidate that describes the pilot
best; the shortlist is the greedy cover. The candidates of one population compete for the same rows,
so the one in the best optimum stands for all of them; a broken pilot is covered by its own
candidate only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dask_dfmr.families import Array, Components, Family, Rows
from dask_dfmr.local_fit import ComponentCollapsedError, LocalProblem
from dask_dfmr.mixture import Mixture
from dask_dfmr.starts import MAX_START_ROWS, Scale, make_start, subsample

N_PILOTS = 16
MAX_SHORTLIST = 4
N_SHORT_RUNS = 5
N_LONG_RUNS = 1
SHORT_PASSES = 5
LOOSE_TOL = 1e-5
"""Mean gain per row at which a pilot's fit stops: it is a start, not an estimate."""
CHECK_ROWS = 1000
LEAST_GAIN = 0.5
"""A further candidate must cover at least half a pilot more."""


class PilotRows(NamedTuple):
    """What is read of a pilot partition: at most 20,000 rows, and the scale of its columns."""

    rows: Array
    scale: Scale


class PilotFit(NamedTuple):
    """A candidate, and the rows of its pilot on which the candidates compare each other."""

    start: tuple[Array, Components]
    check_rows: Array


class Shortlist(NamedTuple):
    """The candidates, and how many pilots each of them describes best."""

    starts: list[tuple[Array, Components]]
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
    return (
        Scale.median([scale for scale in scales if len(scale.location) == usual])
        if scales
        else None
    )


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
    rows, prior = pilot.rows, problem.prior(pilot.rows)
    runs = []
    for _ in range(N_SHORT_RUNS):
        start = make_start(
            problem.family, rows, problem.n_components, "k-means++", prior, rng, scale=scale
        )
        try:
            runs.append(problem.maximise(rows, start, prior, tol=LOOSE_TOL, max_iter=SHORT_PASSES))
        except ComponentCollapsedError:
            continue
    longer = []
    for run in sorted(runs, key=lambda run: -run.objective)[:N_LONG_RUNS]:
        try:
            longer.append(
                problem.maximise(rows, (run.weights, run.components), prior, tol=LOOSE_TOL)
            )
        except ComponentCollapsedError:
            continue
    if not longer:
        return None
    best = max(longer, key=lambda run: run.objective)
    return PilotFit((best.weights, best.components), subsample(rows, CHECK_ROWS, rng))


def make_shortlist(problem: LocalProblem, fits: Sequence[PilotFit | None]) -> Shortlist:
    """At most four candidates that together cover the pilots; empty if no pilot could be fitted."""
    present = [fit for fit in fits if fit is not None]
    if not present:
        return Shortlist([], [])
    scores = np.array(
        [
            [mean_log_density(problem.family, fit.start, other.check_rows) for other in present]
            for fit in present
        ]
    )
    n_parameters = problem.family.n_parameters(problem.n_components, present[0].check_rows.shape[1])
    # A candidate is ahead on its own rows by about p / n nats for no merit.
    slack = np.array([1.0 + 2.0 * n_parameters / len(fit.check_rows) for fit in present])
    cover = np.clip(1.0 - (scores.max(axis=0) - scores) / slack, 0.0, 1.0)
    chosen: list[int] = []
    covered = np.zeros(len(present))
    while len(chosen) < MAX_SHORTLIST:
        gains = np.maximum(cover - covered, 0.0).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] < LEAST_GAIN:
            break
        chosen.append(best)
        covered = np.maximum(covered, cover[best])
    support = np.bincount(scores[chosen].argmax(axis=0), minlength=len(chosen))
    return Shortlist([present[i].start for i in chosen], support.tolist())


def choose_start(
    problem: LocalProblem, X: Rows, shortlist: Shortlist, seed: np.random.SeedSequence
) -> int | None:
    """The candidate that a subsample of these rows likes best; None where there is none of that width."""
    rows = subsample(X, CHECK_ROWS, np.random.default_rng(seed))
    finite = rows[np.isfinite(rows).all(axis=1)]
    usable = [
        i
        for i, (_, components) in enumerate(shortlist.starts)
        if problem.family.n_features(components) == rows.shape[1]
    ]
    if not usable or not len(finite):
        return None
    return max(usable, key=lambda i: mean_log_density(problem.family, shortlist.starts[i], finite))


def mean_log_density(family: Family, start: tuple[Array, Components], rows: Rows) -> float:
    """Mean log-density of the rows, nats per row."""
    log_likelihood, _ = family.em_pass(rows, *start)
    return log_likelihood / len(rows)


def as_mixture(
    problem: LocalProblem, start: tuple[Array, Components], feature_names: Any
) -> Mixture:
    """A candidate as a start of :meth:`LocalProblem.fit`."""
    return problem.mixture_type.from_components(problem.family, *start, feature_names)
