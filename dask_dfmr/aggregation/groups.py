"""Do the estimates fall into groups? Two large camps are two populations, or bad machines that agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import chi2

from dask_dfmr.aggregation.null_law import Law
from dask_dfmr.mixtures.family import Array, Labels

LEAST_SHARE = 0.15
"""Smaller camps are the filter's business."""

SEPARATION = 2.0
"""So many times the mean distance within two groups, and what sampling explains, is the one between them."""

LEAST_SEPARATION, CHANCE = 1.2, 2.0
"""Chance alone makes groups whose distance is up to 1 + 1.8 / sqrt(df) times that within, where squared distances have
the law of df degrees of freedom (``benchmarks/chance_groups.py``)."""

CLEAR_MAJORITY = 5 / 8
"""Where fewer than so many are in the largest group, which one is the majority is a matter of a few machines."""

MOST_GROUPS = 6

COPY_LEVEL, COPY_SHARE = 0.01, 0.01
"""Copies are nearer than honest pairs in all but this share of sets of machines, and nearer than a hundredth of what
is typical: that needs no law to be exact."""

MOST = 1e12
"""Distances count as no more where linkage sums them."""

FARTHEST = 1e6
"""Distances count as at most so many times what sampling explains."""


def rival_groups(distances: Array, expected: float, df: float) -> list[list[int]]:
    """Groups without a clear majority that chance does not explain, however close to one another.

    As :func:`groups_of`; ``df`` are the degrees of freedom of the law of squared distances.
    """
    separation = float(np.clip(1.0 + CHANCE / np.sqrt(df), LEAST_SEPARATION, SEPARATION))
    groups = groups_of(distances, expected, separation)
    return [] if has_clear_majority(groups, len(distances)) else groups


def has_clear_majority(groups: Sequence[Sequence[int]], n: int) -> bool:
    """Whether, of so many machines, most are in one group; also where there are no groups."""
    return not groups or len(groups[0]) >= CLEAR_MAJORITY * n


def groups_of(distances: Array, expected: float, separation: float = SEPARATION) -> list[list[int]]:
    """Positions of the members of each group; empty if there are not at least two.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Between estimates, in a unit in which honest ones are alike.
    expected : float
        What sampling explains of them.
    separation : float
        Groups lie so many times as far from one another as within.
    """
    n = len(distances)
    finite = np.minimum(distances, FARTHEST * expected)
    if n < 4:
        return []
    tree = linkage(squareform(finite, checks=False), method="average")
    for n_groups in range(2, MOST_GROUPS + 1):
        labels = fcluster(tree, n_groups, criterion="maxclust")
        large = [np.flatnonzero(labels == g) for g in np.unique(labels)]
        large = [g for g in large if len(g) > LEAST_SHARE * n and len(g) >= 2]
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


def copies_of(distances: Array, law: Law) -> list[list[int]]:
    """Positions of those that lie nearer to one another than independent estimates do.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Between estimates, in a unit in which honest ones are alike.
    law : Law
        Of squared distances, in any unit.
    """
    n = len(distances)
    pairs = squareform(distances, checks=False)
    if not pairs.any():
        return [list(range(n))] if n > 1 else []
    return [
        g.tolist() for g in near_groups(distances, copy_distance(law, n, float(np.median(pairs))))
    ]


def copy_distance(law: Law, n: int, typical: float, share: float = COPY_SHARE) -> float:
    """Distance that pairs of n independent estimates keep, nearly always, by the distance that is typical of them.

    A law fitted to moments is wrong about small distances. The chi-square of as many degrees of freedom has more of
    them than a weighted sum of squares with its variance.
    """
    level = np.array([2.0 * COPY_LEVEL / (n * (n - 1)), 0.5])
    low, middle = np.sqrt(chi2.ppf(level, law.df))
    return typical * min(share, float(low / middle))


def near_groups(distances: Array, limit: float) -> list[Labels]:
    """Groups whose members all lie within ``limit`` of one another, (n, n) distances: complete linkage."""
    n = len(distances)
    if n < 2 or limit < 0:
        return []
    # Pairs at the limit exactly, 0 included, belong together.
    condensed = squareform(np.minimum(distances, MOST), checks=False)
    labels = fcluster(linkage(condensed, method="complete"), limit, criterion="distance")
    found = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [group for group in found if len(group) > 1]
