"""Would the filter exclude what is plainly wrong? Canaries are copies of the consensus with a known change.

A law that is wide enough explains everything: few rows per parameter, or partitions that differ much, make it so. A
filter that keeps all estimates then looks like one that found nothing. So each fit asks whether three kinds of canaries
would be excluded at its own level: a density at infinity, one column ten times too large, two columns swapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dask_dfmr.mixtures.distances import Stack, log_polar_tile, log_self_products
from dask_dfmr.mixtures.family import Array, Components, Family, Labels

FACTOR = 10.0
"""The canary of a wrong unit: one column is multiplied by this."""

FAR_SDS = 1e3
"""The canary at infinity: all columns are moved by this many standard deviations."""

MOST_COLUMNS = 16
"""Columns that get a canary of their own, at most; they are spread evenly."""

VISIBLE, N_DRAWN = 0.25, 2**12
"""An exchange of columns is visible if it changes the Gaussian density with the moments of all rows by more nats a row
than this, after a transformation that bounds the influence of tails: if columns differ by half a standard deviation in
their means, or by a factor of 1.6 in their spread. The moments are those of so many rows drawn from the consensus. They
hardly depend on which of several optima a fit ended in: of two columns alike, the components of a fit may differ."""

RIDGE = 1e-9
"""Added to all variances: columns whose spread is far below the largest count as alike."""


class Canary(NamedTuple):
    """A changed copy of the consensus.

    Attributes
    ----------
    change : {"infinity", "unit", "swap"}
    columns : tuple of int
        The columns that are changed; none for "infinity".
    distance : float
        Log-polar distance to the consensus.
    """

    change: str
    columns: tuple[int, ...]
    distance: float


def canaries(family: Family, weights: Array, components: Components) -> tuple[Canary, ...]:
    """All canaries of the consensus that its family can represent and that change its density visibly."""
    rows, _ = family.sample(N_DRAWN, weights, components, np.random.default_rng(0))
    names, changed = [], []
    for change, columns, order, scale, shift in _changes(rows):
        found = family.with_columns(components, order, scale, shift)
        if found is not None and family.is_proper(found):
            names.append((change, columns))
            changed.append(found)
    if not changed:
        return ()
    stack = Stack(
        np.repeat(weights[None], len(changed), axis=0),
        tuple(np.array(p) for p in zip(*changed, strict=True)),
    )
    origin = Stack(weights[None], tuple(p[None] for p in components))
    log_self = [log_self_products(family, s) for s in (origin, stack)]
    distances = log_polar_tile(family, origin, stack, *log_self)[0]
    return tuple(
        Canary(change, columns, float(distance))
        for (change, columns), distance in zip(names, distances, strict=True)
    )


def _changes(rows: Array) -> Iterator[tuple[str, tuple[int, ...], Labels, Array, Array]]:
    """Name, columns, and order, scale and shift of each change: x becomes scale * x[order] + shift."""
    d = rows.shape[1]
    same, ones, zeros = np.arange(d), np.ones(d), np.zeros(d)
    yield "infinity", (), same, ones, FAR_SDS * rows.std(axis=0)
    chosen = np.unique(np.linspace(0, d - 1, min(d, MOST_COLUMNS)).round().astype(np.intp))
    for j in map(int, chosen):
        yield "unit", (j,), same, np.where(same == j, FACTOR, 1.0), zeros
    moments = _bounded_moments(rows)
    # Each chosen column is exchanged with the next one; of two columns there is one exchange only.
    for j in map(int, chosen[: d - 1] if d == 2 else chosen):
        order = same.copy()
        order[[j, (j + 1) % d]] = order[[(j + 1) % d, j]]
        if _is_visible(*moments, order):
            yield "swap", (j, (j + 1) % d), order, ones, zeros


def _bounded_moments(rows: Array) -> tuple[Array, Array]:
    """Mean (d,) and covariance (d, d) of rows whose tails are bounded."""
    quartiles = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
    width = max(float((quartiles[2] - quartiles[0]).max()), np.finfo(float).tiny)
    # One transformation of all columns, so that it does not itself tell them apart.
    rows = np.arcsinh((rows - np.median(quartiles[1])) / width)
    mean = rows.mean(axis=0)
    return mean, np.atleast_2d(np.cov(rows, rowvar=False)) + RIDGE * np.eye(len(mean))


def _is_visible(mean: Array, covariance: Array, order: Labels) -> bool:
    """Whether the Gaussian with these moments differs visibly from that of the columns in another order."""
    apart = mean[order] - mean
    solved = np.linalg.solve(covariance[np.ix_(order, order)], np.column_stack([covariance, apart]))
    # The determinants are equal, so that they cancel in the divergence.
    divergence = 0.5 * (np.trace(solved[:, :-1]) - len(mean) + apart @ solved[:, -1])
    return bool(divergence > VISIBLE)
