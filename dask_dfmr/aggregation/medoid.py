"""Distances -> who is in the middle, how far the majority reaches, who is kept. Knows arrays only.

COAT, the center of attention, is the machine with the smallest median distance to all machines
(itself included). The radius is the smallest one whose closed ball round the center holds more than
half of the machines. Kept is what lies within rho radii.
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
    """A machine that may be the center, with what decides between candidates, most important first.

    ``distances`` is its row, to every machine; ``parameters`` its flattened parameters, the last
    resort of a tie.
    """

    median: float
    half_distance: float
    mean: float
    n_samples: int
    parameters: Array
    machine: int
    distances: Array


def row_candidates(
    distances: Array, indices: Sequence[int], n_samples: Sequence[int], parameters: Array
) -> list[Candidate]:
    """Candidates for some rows (n_rows, n_sources) of the distance matrix; parameters (n_rows, n_parameters)."""
    n_sources = distances.shape[1]
    with np.errstate(invalid="ignore"):
        medians = np.median(distances, axis=1)
    halves = np.partition(distances, n_sources // 2, axis=1)[:, n_sources // 2]
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
    """COAT among the candidates.

    The smallest median; ties (within 1e-12 relative) by the smaller (m // 2)-th distance, the
    smaller mean distance, more rows, and last the parameters themselves: so the center does not
    depend on the order of the machines.
    """
    left = list(candidates)
    for key in ("median", "half_distance", "mean"):
        least = min(getattr(c, key) for c in left)
        left = [c for c in left if getattr(c, key) <= least * (1 + TIE)]
    return min(left, key=lambda c: (-c.n_samples, c.parameters.tolist(), c.machine))


class Kept(NamedTuple):
    """The verdict over all machines that took part, in the units of their distances."""

    radius: float
    kept: NDArray[np.bool_]
    distance_ratios: Array


def keep_near(center: Candidate, rho: float) -> Kept:
    """Keep the machines within rho radii of the center; rho = inf keeps all."""
    distances = center.distances
    radius = center.half_distance
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(
            distances == 0, 0.0, np.where(distances == radius, 1.0, distances / radius)
        )
    kept = np.ones(len(distances), dtype=bool) if np.isinf(rho) else distances <= rho * radius
    return Kept(radius, kept, ratios)
