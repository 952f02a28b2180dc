"""Distances -> groups and copies among the estimates.

Two large groups are two populations, or inconsistent estimates that agree with one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import chi2

from dask_dfmr.aggregation.null_law import Law
from dask_dfmr.mixtures.family import Array, Labels

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

COPY_LEVEL, COPY_SHARE = 0.01, 0.01
"""Copies are nearer than consistent pairs are, in all but this share of sets of estimates. They are also nearer than a
hundredth of the typical distance, so that the law need not be exact."""

MOST_DISTANCE = 1e12
"""Larger distances count as this: linkage sums them."""

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


def copies_of(distances: Array, law: Law) -> list[list[int]]:
    """Positions of the members of each group of copies: estimates nearer to one another than independent ones are.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Between estimates, in a unit in which those of consistent ones are alike.
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
    """Distance below which two of n estimates are copies, from the ``typical`` distance of a pair.

    A law that is fitted to moments is wrong for small distances. The chi-square law of as many degrees of freedom has
    more small values than a weighted sum of squares of the same variance.
    """
    level = np.array([2.0 * COPY_LEVEL / (n * (n - 1)), 0.5])
    low, middle = np.sqrt(chi2.ppf(level, law.df))
    return typical * min(share, float(low / middle))


def near_groups(distances: Array, limit: float) -> list[Labels]:
    """Groups whose members all lie within ``limit`` of one another, by complete linkage of (n, n) distances."""
    n = len(distances)
    if n < 2 or limit < 0:
        return []
    # A pair exactly at the limit, also at 0, belongs together.
    condensed = squareform(np.minimum(distances, MOST_DISTANCE), checks=False)
    labels = fcluster(linkage(condensed, method="complete"), limit, criterion="distance")
    found = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [group for group in found if len(group) > 1]
