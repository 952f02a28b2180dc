"""Is there a better optimum than the one that all partitions share? Fits of some rows from fresh starts may know one.

A shared start makes local estimates agree, whether the optimum they agree on is the best one or not: agreement is no
evidence. Rows of some kept partitions are split into groups. On each group the global mixture is run on to the group's
own optimum, and so are candidates found from fresh starts; both fit their own rows alike, so what is compared is how
they describe the rows of the *other* groups. Knows no Dask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from dask_dfmr.local.em import EmResult
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.pilots import Start, best_of_starts, run_on
from dask_dfmr.local.starts import MAX_START_ROWS, Scale, subsample
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.gaussian import Mixture

N_GROUPS = 3
"""Of three groups one may be spoilt by a bad partition that was kept."""

ROWS_PER_PARAMETER, LEAST_ROWS = 10, 2000
"""A group should have so many rows per free parameter, since with few rows every optimum is one of its own rows; and
so many in all, to tell small gains from noise."""

MOST_PARTITIONS = 6
"""Of one group, where partitions are small."""

MAX_CHECK_ROWS = 5000
"""Of one group, on which the others' fits are compared."""

N_SHORT, N_LONG = 10, 3
"""Fresh starts of a group, and how many of them are run on."""

LEAST_Z, LEAST_Z_OF_A_GROUP = 4.0, 2.0
"""A candidate must be better by so many standard errors over all groups, and on two of them by the second number."""

LEAST_GAIN = 2e-3
"""Nats per row: less is within what a loose EM run leaves."""


class GroupFits(NamedTuple):
    """What a group found: the shared optimum run on over its rows, candidates likewise, and rows for the others' fits.

    None stands for a run that collapsed.
    """

    shared: Start | None
    candidates: list[Start | None]
    check_rows: Array


class Comparison(NamedTuple):
    """The best candidate against the shared optimum, on rows that neither was fitted to.

    ``gain`` is in nats per row, ``error`` its standard error, ``group_z`` (n_groups,) the gain in its standard errors
    for the fits of each group. ``candidate`` is its position.
    """

    candidate: int
    gain: float
    error: float
    group_z: list[float]
    n_check_rows: int

    @property
    def z_score(self) -> float:
        """The gain in standard errors."""
        return self.gain / self.error if self.error > 0 else 0.0

    @property
    def is_better(self) -> bool:
        """Whether the candidate is another optimum, and a better one."""
        agreeing = sum(z > LEAST_Z_OF_A_GROUP for z in self.group_z)
        return self.gain > LEAST_GAIN and self.z_score > LEAST_Z and agreeing >= 2


def draw_groups(
    kept: Sequence[int], counts: Sequence[int], n_parameters: int, rng: np.random.Generator
) -> list[list[int]]:
    """Disjoint groups of kept partitions with ``counts`` rows each; none if there are too few partitions."""
    wanted = min(max(ROWS_PER_PARAMETER * n_parameters, LEAST_ROWS), MAX_START_ROWS)
    size = int(np.clip(-(-wanted // max(np.median(counts), 1)), 1, MOST_PARTITIONS))
    n_groups = min(N_GROUPS, len(kept))
    if n_groups < 2:
        return []
    size = min(size, len(kept) // n_groups)
    drawn = rng.choice(np.asarray(kept), n_groups * size, replace=False)
    return [sorted(int(i) for i in group) for group in np.split(drawn, n_groups)]


def fresh_start(problem: LocalProblem, rows: Array, rng: np.random.Generator) -> Start | None:
    """The best optimum of a group's rows that fresh starts find."""
    best = best_of_starts(problem, rows, Scale.of(rows), rng, N_SHORT, N_LONG)
    return None if best is None else (best.weights, best.components)


def fit_group(
    problem: LocalProblem,
    rows: Array,
    shared: Start,
    candidates: Sequence[Start | None],
    rng: np.random.Generator,
) -> GroupFits:
    """Run the shared optimum and all candidates on over the rows of one group."""
    prior = problem.prior(rows)
    runs = [None if s is None else run_on(problem, rows, s, prior) for s in (shared, *candidates)]
    fits = [None if run is None else _point_of(run) for run in runs]
    return GroupFits(fits[0], fits[1:], subsample(rows, MAX_CHECK_ROWS, rng))


def compare(family: Family, fits: Sequence[GroupFits]) -> Comparison | None:
    """The best candidate, each group's fits compared on the rows of the other groups; None where there is none."""
    found = []
    for c in range(len(fits[0].candidates)):
        comparison = _compare_one(family, fits, c)
        if comparison is not None:
            found.append(comparison)
    return max(found, key=lambda comparison: comparison.gain, default=None)


def _compare_one(family: Family, fits: Sequence[GroupFits], c: int) -> Comparison | None:
    """Gains of candidate ``c`` on every row, by the fits of all groups but the row's own."""
    by_group: list[list[Array]] = [[] for _ in fits]
    by_row = []
    for j, other in enumerate(fits):
        gains = []
        for i, fit in enumerate(fits):
            candidate = fit.candidates[c]
            if i == j or candidate is None or fit.shared is None:
                continue
            gain = log_density(family, candidate, other.check_rows)
            gain -= log_density(family, fit.shared, other.check_rows)
            gains.append(gain)
            by_group[i].append(gain)
        if gains:
            by_row.append(np.mean(gains, axis=0))
    if not by_row:
        return None
    mean, error = _mean_and_error(np.concatenate(by_row))
    group_z = [_z_score(np.concatenate(gains)) for gains in by_group if gains]
    return Comparison(c, mean, error, group_z, sum(map(len, by_row)))


def settle_candidate(problem: LocalProblem, groups: Sequence[Array], candidate: Start) -> Start:
    """The candidate run on over the rows of all groups together: a start for everybody."""
    rows = np.concatenate(groups)
    run = run_on(problem, rows, candidate, problem.prior(rows))
    return candidate if run is None else _point_of(run)


def gain_of(new: Mixture, old: Mixture, groups: Sequence[Array]) -> tuple[float, float]:
    """Mean gain in log-density of one mixture over another on the rows of all groups, nats per row; standard error."""
    rows = np.concatenate(groups)
    gains = log_density(new.family, (new.weights, new.components), rows)
    gains -= log_density(old.family, (old.weights, old.components), rows)
    return _mean_and_error(gains)


def log_density(family: Family, start: Start, rows: Array) -> Array:
    """Of each row, (n_samples,)."""
    weights, components = start
    with np.errstate(divide="ignore"):
        return logsumexp(family.log_density(rows, components) + np.log(weights), axis=1)


def _point_of(run: EmResult) -> Start:
    return run.weights, run.components


def _mean_and_error(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def _z_score(values: Array) -> float:
    mean, error = _mean_and_error(values)
    return mean / error if error > 0 else 0.0
