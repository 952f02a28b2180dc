"""Rows that decide where a truncated fit starts, and whether a fit is possible, if a few rows of a partition are bad.

A truncated fit is not moved by rows beyond its cuts, but where it starts decides what lies beyond them. A clustering
seeds on the farthest rows, and one gross value gives a constant column a spread.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from dask_dfmr.local.starts import Scale, subsample
from dask_dfmr.mixtures.family import Array, Rows, as_block

TAIL, FAR = 0.15, 10.0
"""A value is gross if it lies beyond the TAIL quantiles of its column by more than FAR times the range between them."""

OUTER_TAIL = 0.05
"""Where the TAIL quantiles coincide, these quantiles take their place: a column of which 95 % of the values are equal
counts as constant, and its other values are gross."""

QUANTILE_ROWS = 2000
"""Rows from which the quantiles of columns are computed, at most."""

SET_ASIDE = 0.1
"""Share of the rows that start no component: those with the largest distance to their tenth neighbour."""

N_NEIGHBOURS = 10

CLUSTERED_ROWS, REFERENCE_ROWS = 5000, 500
"""Rows of a clustering, and rows among which neighbours are sought, at most. On 5,000 rows this takes 5 ms in two
columns and 80 ms in 30, where one pass of EM over 20,000 rows takes 5 ms and 60 ms."""


def without_gross(X: Rows) -> Rows:
    """The rows (n_samples, n_features) without any gross value; all rows if these are not more than half of them."""
    some = as_block(X[:: max(1, len(X) // QUANTILE_ROWS)])
    inner = np.quantile(some, [TAIL, 1.0 - TAIL], axis=0, method="nearest")
    outer = np.quantile(some, [OUTER_TAIL, 1.0 - OUTER_TAIL], axis=0, method="nearest")
    low, high = np.where(inner[1] > inner[0], inner, outer)
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
    # A reference is its own nearest one.
    near = np.asarray(cKDTree(white[references]).query(white, k=[k, k + 1])[0])
    distances = near[:, 0]
    distances[references] = near[references, 1]
    return rows[distances <= np.quantile(distances, 1.0 - SET_ASIDE)]
