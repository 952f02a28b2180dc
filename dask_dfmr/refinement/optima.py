"""Whether there is a better optimum than the one that all partitions share.

A shared start makes local estimates agree, whether their optimum is the best one or not. So agreement is no evidence.
Rows of some kept partitions are split into groups. On the rows of each group EM is run from the global mixture, and
from candidates that fresh starts found. Each fit adapts to the rows of its own group, so the fits are compared on the
rows of the *other* groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dask_dfmr.local.comparison import log_densities
from dask_dfmr.local.em import EmResult
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.search import Start, best_of_starts, run_on
from dask_dfmr.local.starts import MAX_START_ROWS, subsample
from dask_dfmr.mixtures.capped_scores import USUAL_QUANTILE
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.gaussian import Mixture

N_GROUPS = 3
"""With three groups, one may contain an inconsistent partition that was kept."""

ROWS_PER_PARAMETER, LEAST_START_ROWS = 10, 2000
"""Rows of a group per free parameter, and in all. With few rows per parameter, optima belong to the rows and not to the
population; with few rows in all, small gains cannot be distinguished from noise."""

MOST_PARTITIONS = 6
"""Partitions of one group at most, if partitions are small."""

MAX_CHECK_ROWS = 5000
"""Rows of one group on which the fits of the others are compared, at most."""

N_SHORT, N_LONG = 10, 3
"""Fresh starts of a group, and how many of them are run to convergence."""

LEAST_Z, LEAST_Z_OF_A_GROUP = 4.0, 2.0
"""Least gain of a better candidate in standard errors: over all groups, and for the fits of two groups."""

LEAST_GAIN_PER_ROW = 2e-3
"""Nats per row: smaller gains are within the tolerance of an EM run."""


class GroupFits(NamedTuple):
    """Fits to the rows of one group: from the shared optimum, and from every candidate; None for one that collapsed.

    ``check_rows`` (n_rows, n_features) are rows of the group, on which the fits of other groups are compared.
    """

    shared: Start | None
    candidates: list[Start | None]
    check_rows: Array


class Comparison(NamedTuple):
    """One candidate compared with the shared optimum, on rows that neither was fitted to.

    ``candidate`` is its position. ``gain`` is its gain in mean log-density, in nats per row, and ``error`` the standard
    error of that. ``group_z`` has the gain in standard errors for the fits of each group, where there are both.
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
        """Whether the gain is large enough that the candidate is another, better optimum."""
        agreeing = sum(z > LEAST_Z_OF_A_GROUP for z in self.group_z)
        return self.gain > LEAST_GAIN_PER_ROW and self.z_score > LEAST_Z and agreeing >= 2


def draw_groups(
    kept: Sequence[int], counts: Sequence[int], n_parameters: int, rng: np.random.Generator
) -> list[list[int]]:
    """Disjoint groups of kept partitions, which have ``counts`` rows; none if there are too few partitions."""
    wanted = min(max(ROWS_PER_PARAMETER * n_parameters, LEAST_START_ROWS), MAX_START_ROWS)
    size = int(np.clip(-(-wanted // max(np.median(counts), 1)), 1, MOST_PARTITIONS))
    n_groups = min(N_GROUPS, len(kept))
    if n_groups < 2:
        return []
    size = min(size, len(kept) // n_groups)
    drawn = rng.choice(np.asarray(kept), n_groups * size, replace=False)
    return [sorted(int(i) for i in group) for group in np.split(drawn, n_groups)]


def fresh_start(problem: LocalProblem, rows: Array, rng: np.random.Generator) -> Start | None:
    """The best optimum of the rows of a group that fresh starts find; None if all runs collapse."""
    best = best_of_starts(problem, rows, problem.scale_of(rows), rng, N_SHORT, N_LONG)
    return None if best is None else (best.weights, best.components)


def fit_group(
    problem: LocalProblem,
    rows: Array,
    shared: Start,
    candidates: Sequence[Start | None],
    rng: np.random.Generator,
) -> GroupFits:
    """Run EM on the rows of one group, from the shared optimum and from all candidates."""
    penalty = problem.penalty_for(rows)
    runs = [None if s is None else run_on(problem, rows, s, penalty) for s in (shared, *candidates)]
    fits = [None if run is None else _point_of(run) for run in runs]
    return GroupFits(fits[0], fits[1:], subsample(rows, MAX_CHECK_ROWS, rng))


def compare(family: Family, fits: Sequence[GroupFits]) -> Comparison | None:
    """The candidate with the largest gain, fits compared on the rows of other groups; None if no candidate has fits."""
    found = []
    for c in range(len(fits[0].candidates)):
        comparison = _compare_one(family, fits, c)
        if comparison is not None:
            found.append(comparison)
    return max(found, key=lambda comparison: comparison.gain, default=None)


def _compare_one(family: Family, fits: Sequence[GroupFits], c: int) -> Comparison | None:
    """Candidate ``c``: its gain on every row is a mean over the fits of all groups but the row's own."""
    by_group: list[list[Array]] = [[] for _ in fits]
    by_row = []
    for j, other in enumerate(fits):
        gains = []
        for i, fit in enumerate(fits):
            candidate = fit.candidates[c]
            if i == j or candidate is None or fit.shared is None:
                continue
            new, old = log_densities(family, [candidate, fit.shared], other.check_rows)
            gain = new - old
            gains.append(gain)
            by_group[i].append(gain)
        if gains:
            by_row.append(np.mean(gains, axis=0))
    if not by_row:
        return None
    mean, error = _mean_and_error(capped_gains(np.concatenate(by_row)))
    group_z = [_z_score(np.concatenate(gains)) for gains in by_group if gains]
    return Comparison(c, mean, error, group_z, sum(map(len, by_row)))


def settle_candidate(problem: LocalProblem, groups: Sequence[Array], candidate: Start) -> Start:
    """The candidate after EM on the rows of all groups together: a start for all partitions."""
    rows = np.concatenate(groups)
    run = run_on(problem, rows, candidate, problem.penalty_for(rows))
    return candidate if run is None else _point_of(run)


def gain_of(
    family: Family, new: Mixture, old: Mixture, groups: Sequence[Array]
) -> tuple[float, float]:
    """Gain in mean log-density of one mixture over another, in nats per row, and its standard error, far rows capped.

    Parameters
    ----------
    family : Family
        That of the fits; if it truncates, bad rows do not decide the gain.
    new, old : Mixture
    groups : sequence of ndarray, each (n_rows, n_features)
    """
    rows = np.concatenate(groups)
    points = [(m.weights, m.components) for m in (new, old)]
    of_new, of_old = log_densities(family, points, rows)
    return _mean_and_error(capped_gains(of_new - of_old))


def capped_gains(gains: Array) -> Array:
    """Gains (n_rows,) of rows, none of which moves their mean by more than its standard error.

    The gain of a row grows with the square of its distance. One far row would decide which optimum is better, and by
    its share of the error it hides the gains of all others. The rule is that of scores, see
    :func:`~dask_dfmr.mixtures.capped_scores.cap_for`: one row alone decides nothing, a few alike do.
    """
    usual = float(np.quantile(np.abs(gains), USUAL_QUANTILE))
    sd = float(gains[np.abs(gains) <= usual].std())
    cap = max(usual, float(np.sqrt(len(gains))) * sd)
    return np.clip(gains, -cap, cap)


def _point_of(run: EmResult) -> Start:
    return run.weights, run.components


def _mean_and_error(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def _z_score(values: Array) -> float:
    mean, error = _mean_and_error(capped_gains(values))
    return mean / error if error > 0 else 0.0
