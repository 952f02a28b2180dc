"""Rows that decide where a truncated fit starts, and whether a fit is possible, if a few rows of a partition are bad.

A truncated fit is not moved by rows beyond its cuts, but where it starts decides what lies beyond them. A clustering
seeds on the farthest rows, and one gross value gives a constant column a spread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.starts import Scale, subsample
from dask_dfmr.mixtures.family import Array, Rows, as_block

TAIL, FAR = 0.15, 10.0
"""A value is gross if it lies beyond the TAIL quantiles of its column by more than FAR times the range between them. Up
to 15 % of bad values on one side of a column do not move the quantiles beyond the others. In a normal column FAR is 21
standard deviations from the quantile. Neither is tuned."""

OUTER_TAIL = 0.05
"""Where the TAIL quantiles coincide, these quantiles take their place: a column of which 95 % of the values are equal
counts as constant, and its other values are gross. Not tuned."""

QUANTILE_ROWS = 2000
"""Rows from which the quantiles of columns are computed, at most."""

SET_ASIDE = 0.1
"""Share of the rows that start no component: those with the largest distance to their tenth neighbour. More bad rows
than that take part in a clustering, unless they are gross."""

N_NEIGHBOURS = 10
"""The neighbour whose distance counts: fewer than ten bad rows near one another, among the references, are far from it.
"""

CLUSTERED_ROWS, REFERENCE_ROWS = 5000, 500
"""Rows of a clustering, and rows among which neighbours are sought, at most. From 5,000 rows the choice takes 10 ms of
CPU time in two columns and 22 ms in 30; with a k-d tree the neighbours alone take 6 ms and 43 ms."""


def without_gross(X: Rows) -> Rows:
    """The rows (n_samples, n_features) without any gross value; all rows if these are not more than half of them."""
    some = as_block(X[:: max(1, len(X) // QUANTILE_ROWS)])
    tails = [TAIL, 1.0 - TAIL, OUTER_TAIL, 1.0 - OUTER_TAIL]
    found = np.quantile(some, tails, axis=0, method="nearest")
    low, high = np.where(found[1] > found[0], found[:2], found[2:])
    room = FAR * (high - low)
    is_central = (np.clip(X, low - room, high + room) == X).all(axis=1)
    n_central = int(np.count_nonzero(is_central))
    return X if n_central == len(X) or 2 * n_central <= len(X) else X[is_central]


def rows_to_start_from(X: Rows, rng: np.random.Generator) -> Array:
    """At most 5,000 rows in float64, without gross values and without those whose neighbours are farthest."""
    rows = subsample(without_gross(X), CLUSTERED_ROWS, rng)
    white = Scale.of(rows).apply(rows)
    references = rng.permutation(len(rows))[:REFERENCE_ROWS]
    k = min(N_NEIGHBOURS, len(references) - 1)
    if k < 1:
        return rows
    squares = _squared_distances(white, white[references])
    squares[references, np.arange(len(references))] = np.inf  # no row is its own neighbour
    farthest = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return rows[farthest <= np.quantile(farthest, 1.0 - SET_ASIDE)]


def _squared_distances(a: Array, b: Array) -> NDArray[np.float32]:
    """Squared distances (n_a, n_b) as one product: |a|^2 - 2 a b + |b|^2. In float32 they are sorted faster."""
    of_a, of_b = np.einsum("nd,nd->n", a, a), np.einsum("nd,nd->n", b, b)
    left = np.column_stack([a, of_a, np.ones(len(a))])
    right = np.column_stack([-2.0 * b, np.ones(len(b)), of_b])
    return (left @ right.T).astype(np.float32)
