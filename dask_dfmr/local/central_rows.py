"""Rows that say nothing about where to start, or whether a fit is possible, if a few rows of a partition are bad.

A truncated fit is not moved by rows beyond its cuts, but where it starts decides what lies beyond them. A clustering
seeds on the farthest rows, and one gross value gives a constant column a spread.
"""

from __future__ import annotations

import numpy as np

from dask_dfmr.mixtures.family import Rows, as_block

TAIL, FAR = 0.05, 10.0
"""A value is gross if it lies beyond the TAIL quantiles of its column by more than FAR times the range between them."""

QUANTILE_ROWS = 2000
"""Rows from which the quantiles of columns are computed, at most."""


def without_gross(X: Rows) -> Rows:
    """The rows (n_samples, n_features) without any gross value; all rows if these are not more than half of them.

    A column of which at least 90 % of the values are equal counts as constant: its other values are gross.
    """
    some = as_block(X[:: max(1, len(X) // QUANTILE_ROWS)])
    low, high = np.quantile(some, [TAIL, 1.0 - TAIL], axis=0, method="nearest")
    room = FAR * (high - low)
    is_central = (np.clip(X, low - room, high + room) == X).all(axis=1)
    n_central = int(np.count_nonzero(is_central))
    return X if n_central == len(X) or 2 * n_central <= len(X) else X[is_central]
