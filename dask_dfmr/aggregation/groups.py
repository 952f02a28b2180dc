"""Distances -> groups and copies among the estimates.

Two large groups are two populations, or inconsistent estimates that agree with one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.special import gammaln, ndtri

from dask_dfmr.aggregation.null_law import Law
from dask_dfmr.mixtures.family import Array, Labels
from dask_dfmr.mixtures.tails import chi2_ppf

LEAST_GROUP_SHARE = 0.15
"""Smaller groups are left to the filter."""

SEPARATION = 2.0
"""Groups are apart if the mean distance between them is more than this multiple of the mean distances within, and of
what sampling explains."""

LEAST_SEPARATION, CHANCE = 1.2, 2.0
"""Chance alone makes groups whose distance is up to 1 + 1.8 / sqrt(df) times that within, if squared distances have the
law of df degrees of freedom (``benchmarks/chance_groups.py``)."""

CLEAR_MAJORITY = 5 / 8
"""If a smaller share is in the largest group, a few estimates decide which group is the majority."""

MOST_GROUPS_TRIED = 6
"""Largest number of groups into which the tree of the linkage is cut."""

COPY_SHARE = 0.01
"""Copies are nearer than a hundredth of the typical distance, so that the law need not be exact."""

FAMILY_LEVEL, MANY = 0.01, 40
"""Share of consistent sets of estimates in which a family of tests raises any alarm, as far as its law is exact. Of
fewer than so many estimates one weighs more, and the share is smaller in proportion."""

ROW_STEPS = 2.0
"""Distinct values leave steps of so many rows in an estimate: 1 / sqrt(p) rows, if a value has the share p."""

FEWEST_PAIRED = 4
"""Fewer estimates do not show how far pairs scatter."""

NEAREST, FROM_ONE = 1 / 8, 1.25
"""Share of the distances from an estimate below which they count as small ones. Distances from one estimate scatter
less than those of all pairs, as if of so many times the degrees of freedom (1.2 to 1.3 for 20 to 40 normal vectors of 2
to 329 coordinates)."""

MOST_DISTANCE = 1e12
"""Larger distances count as this: linkage sums them."""

ROUNDING = 1e-6
"""Of the logarithm of an expected number."""

MOST_RATIO = 1e6
"""Larger multiples of what sampling explains count as this."""


def rival_groups(distances: Array, expected: float, df: float) -> list[list[int]]:
    """Groups without a clear majority that chance does not explain, however close they are to one another.

    The arguments are those of :func:`groups_of`, and ``df``, the degrees of freedom of the law of squared distances.
    """
    separation = float(np.clip(1.0 + CHANCE / np.sqrt(df), LEAST_SEPARATION, SEPARATION))
    groups = groups_of(distances, expected, separation)
    return [] if has_clear_majority(groups, len(distances)) else groups


def has_clear_majority(groups: Sequence[Sequence[int]], n: int) -> bool:
    """Whether one group has most of ``n`` estimates; true also if there are no groups."""
    return not groups or len(groups[0]) >= CLEAR_MAJORITY * n


def groups_of(distances: Array, expected: float, separation: float = SEPARATION) -> list[list[int]]:
    """Positions of the members of each group, largest first; empty if there are fewer than two groups.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Between estimates, in a unit in which those of consistent ones are alike.
    expected : float
        The distance that sampling explains.
    separation : float
        Multiple of the distances within groups that the distance between groups must exceed.
    """
    n = len(distances)
    finite = np.minimum(distances, MOST_RATIO * expected)
    if n < 4:
        return []
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(squareform(finite, checks=False), method="average")
    for n_groups in range(2, MOST_GROUPS_TRIED + 1):
        labels = fcluster(tree, n_groups, criterion="maxclust")
        large = [np.flatnonzero(labels == g) for g in np.unique(labels)]
        large = [g for g in large if len(g) > LEAST_GROUP_SHARE * n and len(g) >= 2]
        if len(large) >= 2 and _are_apart(finite, large, expected * separation, separation):
            return [g.tolist() for g in sorted(large, key=lambda g: (-len(g), g[0]))]
    return []


def _are_apart(distances: Array, groups: list[Labels], least: float, separation: float) -> bool:
    within = [_mean_within(distances[np.ix_(g, g)]) for g in groups]
    for i, a in enumerate(groups):
        for j, b in enumerate(groups[:i]):
            between = float(distances[np.ix_(a, b)].mean())
            if between <= max(separation * max(within[i], within[j]), least):
                return False
    return True


def _mean_within(distances: Array) -> float:
    n = len(distances)
    return float(distances.sum() / (n * (n - 1)))


def copies_of(distances: Array, law: Law, parameters: Array, n_rows: float) -> list[list[int]]:
    """Positions of the members of each group of copies: estimates that are the same, and not by chance.

    Two estimates are the same if neither their distance nor any of their parameters differs by more than a hundredth of
    what is typical.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Between estimates, in a unit in which those of consistent ones are alike.
    law : Law
        Of squared distances, in any unit.
    parameters : ndarray of shape (n, n_parameters)
    n_rows : float
        Rows of a typical estimate.
    """
    n = len(distances)
    if n < 2:
        return []
    typical = float(np.median(squareform(distances, checks=False)))
    limit = copy_distance(law.df, n, typical)
    differing = np.where(_same(parameters), distances, MOST_DISTANCE)
    np.fill_diagonal(differing, 0.0)
    groups, squares = near_groups(differing, limit), distances**2
    single = one_of_each(n, groups)
    df = min(law.df, observed_df(squares[np.ix_(single, single)]))
    return [g.tolist() for g in beyond_chance(groups, squares, limit**2, df, n_rows)]


def _same(parameters: Array) -> NDArray[np.bool_]:
    """Whether all parameters of two estimates are nearly equal, (n, n), in units of their own scatter."""
    away = parameters - np.median(parameters, axis=0)
    scatter = np.maximum(np.median(np.abs(away), axis=0), np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        away = np.clip(away / scatter, -MOST_RATIO, MOST_RATIO)
    return np.asarray(squareform(pdist(away, "chebyshev")) <= COPY_SHARE)


def copy_distance(df: float, n: int, typical: float, share: float = COPY_SHARE) -> float:
    """Distance below which two of n estimates are copies, from the ``typical`` distance of a pair.

    A law that is fitted to moments is wrong for small distances. The chi-square law of ``df`` degrees of freedom has
    more small values than a weighted sum of squares of the same variance.
    """
    level = np.array([2.0 * family_level(n) / (n * (n - 1)), 0.5])
    low, middle = np.sqrt(chi2_ppf(level, df))
    return typical * min(share, float(low / middle))


def family_level(n: int) -> float:
    """Share of consistent sets of n estimates in which a family of tests may raise any alarm."""
    return FAMILY_LEVEL * min(1.0, n / MANY)


def beyond_chance(
    groups: Sequence[Labels], squares: Array, limit: float, df: float, n_rows: float
) -> list[Labels]:
    """The groups that are copies, because so many independent estimates are hardly ever so near to one another.

    Two estimates of few distinct values may coincide: the values leave steps of about one row in an estimate. And where
    the law of the limit is wrong, the other groups show how often pairs are within it.

    Parameters
    ----------
    groups : sequence of ndarray
        Positions of the members of each.
    squares : ndarray of shape (n, n)
        Squared distances of which none within a group is above ``limit``.
    limit : float
        By the law a pair is within it with probability ``family_level(n)`` over the number of pairs.
    df : float
        In so many ways pairs differ.
    n_rows : float
        Rows of a typical estimate.
    """
    n, level = len(squares), family_level(len(squares))
    n_pairs = n * (n - 1) / 2
    near = [len(group) * (len(group) - 1) / 2 for group in groups]
    coincide = max(COPY_SHARE, min(ROW_STEPS / np.sqrt(n_rows), 1.0)) ** df
    copies = []
    for group, own in zip(groups, near, strict=True):
        extent = squares[np.ix_(group, group)].max() / limit if limit > 0 else 0.0
        chance = max(level, sum(near) - own) / n_pairs * extent ** (df / 2)
        size = len(group)
        log_sets = gammaln(n + 1) - gammaln(size + 1) - gammaln(n - size + 1)
        log_expected = log_sets + (size - 1) * np.log(max(chance, coincide))
        if log_expected <= np.log(level) + ROUNDING:
            copies.append(group)
    return copies


def one_of_each(n: int, groups: Sequence[Labels]) -> Labels:
    """Positions of n estimates without those of all but one of each group."""
    lost = np.concatenate([np.empty(0, dtype=np.intp), *(group[1:] for group in groups)])
    return np.setdiff1d(np.arange(n), lost)


def observed_df(squares: Array) -> float:
    """Degrees of freedom that the majority of pairs of estimates shows; infinite if there are too few.

    Estimates of few distinct values, or of components that hardly vary, lie near a set of few dimensions: their nearest
    pairs are nearer than by the law of all parameters. ``squares`` are squared distances (n, n), in a unit in which
    those of consistent estimates are alike.
    """
    n = len(squares)
    if n < FEWEST_PAIRED:
        return np.inf
    ranked = np.sort(squares, axis=1)
    ranks = np.array([max(1, int(NEAREST * n)), n // 2])
    low, half = np.median(ranked[:, ranks], axis=0)
    # Rank 0 is the estimate itself.
    return df_of_quantiles(float(low), float(half), (ranks - 0.5) / (n - 1)) / FROM_ONE


def df_of_quantiles(low: float, high: float, probabilities: Array) -> float:
    """Degrees of freedom of the chi-square law with this ratio of two quantiles; infinite if they do not differ.

    The cube root is nearly normal with mean 1 - v and variance v = 2 / (9 df) (Wilson & Hilferty 1931).
    """
    if not low < high:
        return np.inf
    ratio, (z_low, z_high) = np.cbrt(low / high), ndtri(probabilities)
    slope, gap = ratio * z_high - z_low, 1.0 - ratio
    sd = (np.sqrt(slope**2 + 4.0 * gap**2) - slope) / (2.0 * gap)
    return float(2.0 / (9.0 * sd**2))


def near_groups(distances: Array, limit: float) -> list[Labels]:
    """Groups whose members all lie within ``limit`` of one another, by complete linkage of (n, n) distances."""
    n = len(distances)
    if n < 2 or limit < 0:
        return []
    from scipy.cluster.hierarchy import fcluster, linkage

    # A pair exactly at the limit, also at 0, belongs together.
    condensed = squareform(np.minimum(distances, MOST_DISTANCE), checks=False)
    labels = fcluster(linkage(condensed, method="complete"), limit, criterion="distance")
    found = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [group for group in found if len(group) > 1]
