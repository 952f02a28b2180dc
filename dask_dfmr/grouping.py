"""Do the estimates fall into groups? Two large camps are two populations, or bad machines that agree."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from dask_dfmr.families import Array, Labels

LEAST_SHARE = 0.15
"""Smaller camps are the filter's business."""

SEPARATION = 2.0
"""So many times the mean distance within two groups, and what sampling explains, is the one between them."""

MOST_GROUPS = 6

FARTHEST = 1e6
"""Distances count as at most so many times what sampling explains."""


def groups_of(distances: Array, expected: float) -> list[list[int]]:
    """Positions of the members of each group; empty if there are not at least two.

    Parameters
    ----------
    distances : ndarray of shape (n, n)
        Between estimates, in a unit in which honest ones are alike.
    expected : float
        What sampling explains of them.
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
        if len(large) >= 2 and _are_apart(finite, large, expected):
            return [g.tolist() for g in sorted(large, key=lambda g: (-len(g), g[0]))]
    return []


def _are_apart(distances: Array, groups: list[Labels], expected: float) -> bool:
    within = [_mean_within(distances[np.ix_(g, g)]) for g in groups]
    for i, a in enumerate(groups):
        for j, b in enumerate(groups[:i]):
            between = float(distances[np.ix_(a, b)].mean())
            if between <= SEPARATION * max(within[i], within[j], expected):
                return False
    return True


def _mean_within(distances: Array) -> float:
    n = len(distances)
    return float(distances.sum() / (n * (n - 1)))
