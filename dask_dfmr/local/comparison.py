"""Which of several mixtures describes rows best: by their log-densities, which a few bad rows do not decide.

The log-likelihood of all rows is decided by the few that lie far from every component. So if the family truncates, no
log-density counts as less than a floor, which is one and the same for all mixtures that are compared: a row that a
mixture cannot explain costs the same under all of them. Every mixture has a boundary, the log-density below which
few of its own rows fall. The floor is the highest boundary of the mixtures that describe most of the rows. A mixture
that spends a wide component on the bad rows does not lower it, and one that sits tightly elsewhere does not raise it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dask_dfmr.local.em import EmResult, Point
from dask_dfmr.local.starts import thin
from dask_dfmr.mixtures.family import Array, Family, Rows
from dask_dfmr.mixtures.row_cut import rare_log_density

COMMON = 0.05
"""Share of its own rows that may lie below the boundary of a mixture which others are compared with. A lower boundary
lets a mixture win that spends a component on bad rows. With five components in ten columns, overlap .3, and one column
of 10 % of the rows x10, four such mixtures lose to the right one by .01 to .07 nats per row."""

RARITY = 0.01
"""Times the level of the cut: how often rows of a mixture fall below the boundary of its own mean log-density. So rare
that the mean of clean rows hardly changes. Not tuned."""

MOST_OUTSIDE = 1 / 3
"""A mixture that describes rows has no larger share of them beyond all its cuts, or below its boundary."""

COMPARED_ROWS = 2000
"""Rows on which EM runs over the same rows are compared, at most."""

SPURIOUS = 1e3
"""What a spurious optimum loses in a comparison, in nats per row: more than other optima differ by. Without it, ten
components in 30 columns and 6,000 rows a partition (overlap .1) started at components of 20 of 16,000 rows: 9 of 14
consistent partitions were excluded, and W1 was 12 times that from a start at the truth (now 1.01)."""


def boundary(family: Family, point: Point, rate: float = COMMON) -> float:
    """The log-density below which rows of a mixture fall with a probability of at most ``rate``."""
    weights, components = point
    log_peaks = family.log_peaks(components)
    return rare_log_density(weights, log_peaks, family.n_features(components), rate)


def log_densities(family: Family, points: Sequence[Point], rows: Rows) -> Array:
    """Log-density of each row under each mixture, (n_points, n_rows), none below the floor if the family truncates."""
    values = np.array([family.evaluate(rows, *point, "log_density") for point in points])
    if not family.cut.truncates:
        return values
    boundaries = np.array([boundary(family, point) for point in points])
    describes_most = (values < boundaries[:, None]).mean(axis=1) <= MOST_OUTSIDE
    return np.maximum(values, boundaries[describes_most].max()) if describes_most.any() else values


def mean_log_densities(family: Family, points: Sequence[Point], rows: Rows) -> Array:
    """Mean of :func:`log_densities` over the rows, in nats per row, (n_points,)."""
    if not family.cut.truncates:
        return np.array([mean_log_density(family, point, rows) for point in points])
    return log_densities(family, points, rows).mean(axis=1)


def mean_log_densities_each(
    family: Family, points: Sequence[Point], blocks: Sequence[Array]
) -> Array:
    """:func:`mean_log_densities` of several blocks of rows with as many columns, (n_points, n_blocks)."""
    if family.cut.truncates:
        return np.array([mean_log_densities(family, points, rows) for rows in blocks]).T
    # All blocks in one call: a call costs as much as several hundred rows.
    values = log_densities(family, points, np.concatenate(blocks))
    ends = np.cumsum([len(rows) for rows in blocks])
    return np.array([part.mean(axis=1) for part in np.split(values, ends[:-1], axis=1)]).T


def mean_log_density(family: Family, point: Point, rows: Rows) -> float:
    """Mean log-density of all rows under one mixture, in nats per row."""
    return family.em_pass(rows, *point).log_likelihood / len(rows)


def floored_mean(family: Family, point: Point, rows: Rows) -> float:
    """Mean log-density of rows, none below the boundary of the mixture, in nats per row."""
    values = family.evaluate(rows, *point, "log_density")
    floor = boundary(family, point, RARITY * family.cut.level)
    return float(np.maximum(values, floor).mean())


def best_first(family: Family, runs: Sequence[EmResult | None], rows: Rows) -> list[EmResult]:
    """EM runs over the same rows, those with the best objective first; without those that are None.

    If the family truncates there is no objective, and floored log-densities take the place of the log-likelihood.
    """
    present = [run for run in runs if run is not None]
    order = np.argsort(-values_of(family, present, rows), kind="stable")
    return [present[i] for i in order]


def values_of(family: Family, runs: Sequence[EmResult], rows: Rows) -> Array:
    """What EM runs over the same rows are compared by, in nats per row, (n_runs,): their objectives.

    If the family truncates there is none, and floored log-densities take the place of the log-likelihood. A run in
    which a component holds too few rows to be determined by them comes after all others. It sits on a spurious maximum,
    where the likelihood of a handful of rows grows with the density of their component.
    """
    if not runs:
        return np.zeros(0)
    least = family.least_component_rows(rows.shape[1]) / len(rows)
    losses = SPURIOUS * np.array([run.weights.min() < least for run in runs])
    if not family.cut.truncates or len(runs) < 2:
        return np.array([run.objective for run in runs]) / len(rows) - losses
    points = [(run.weights, run.components) for run in runs]
    means = mean_log_densities(family, points, thin(rows, COMPARED_ROWS))
    return means + np.array([run.log_prior for run in runs]) / len(rows) - losses
