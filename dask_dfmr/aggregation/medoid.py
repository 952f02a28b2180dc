"""Distances -> the center, its radius, and the estimates within so many radii. The module needs arrays only.

The center (COAT, center of attention, in the paper) is the estimate with the smallest median distance to all
estimates, itself included. The radius is the smallest one whose closed ball around the center holds more than half of
the estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.family import Array

TIE = 1e-12
"""Relative difference below which two candidates for the center are tied."""


class Candidate(NamedTuple):
    """A candidate for the center, with the values that decide between candidates, most important first.

    Attributes
    ----------
    median : float
        Median distance to all estimates.
    half_distance : float
        The (m // 2)-th smallest distance: the radius, if this is the center.
    mean : float
        Mean distance.
    n_samples : int
    parameters : ndarray of shape (n_parameters,)
        They decide if everything before is tied.
    estimate : int
        Index of the estimate.
    distances : ndarray of shape (m,)
        To all estimates.
    """

    median: float
    half_distance: float
    mean: float
    n_samples: int
    parameters: Array
    estimate: int
    distances: Array


def row_candidates(
    distances: Array, indices: Sequence[int], n_samples: Sequence[int], parameters: Array
) -> list[Candidate]:
    """Candidates for some rows of the distance matrix.

    Parameters
    ----------
    distances : ndarray of shape (n_rows, n_estimates)
    indices : sequence of int, length n_rows
    n_samples : sequence of int, length n_rows
    parameters : ndarray of shape (n_rows, n_parameters)
    """
    n_estimates = distances.shape[1]
    with np.errstate(invalid="ignore"):
        medians = np.median(distances, axis=1)
    halves = np.partition(distances, n_estimates // 2, axis=1)[:, n_estimates // 2]
    columns = zip(
        medians,
        halves,
        distances.mean(axis=1),
        n_samples,
        parameters,
        indices,
        distances,
        strict=True,
    )
    return [
        Candidate(float(m), float(h), float(a), int(n), p, int(i), row)
        for m, h, a, n, p, i, row in columns
    ]


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """The center among the candidates: the one with the smallest median.

    Ties, within 1e-12 relative, are decided by the smaller (m // 2)-th distance, the smaller mean distance, more
    rows, and at last by the parameters themselves. So the center does not depend on the order of the estimates.
    """
    left = list(candidates)
    for key in ("median", "half_distance", "mean"):
        least = min(getattr(c, key) for c in left)
        left = [c for c in left if getattr(c, key) <= least * (1 + TIE)]
    return min(left, key=lambda c: (-c.n_samples, c.parameters.tolist(), c.estimate))


class Kept(NamedTuple):
    """The estimates near the center.

    Attributes
    ----------
    radius : float
        In the unit of the distances.
    kept : ndarray of bool, shape (m,)
    distance_ratios : ndarray of shape (m,)
        Distances to the center in radii.
    """

    radius: float
    kept: NDArray[np.bool_]
    distance_ratios: Array


def keep_near(center: Candidate, rho: float) -> Kept:
    """Keep the estimates within ``rho`` radii of the center; ``rho = inf`` keeps all."""
    distances = center.distances
    radius = center.half_distance
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(
            distances == 0, 0.0, np.where(distances == radius, 1.0, distances / radius)
        )
    kept = np.ones(len(distances), dtype=bool) if np.isinf(rho) else distances <= rho * radius
    return Kept(radius, kept, ratios)
