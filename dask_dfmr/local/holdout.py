"""Rows that no fit sees, drawn from every machine's own."""

from __future__ import annotations

import numpy as np

from dask_dfmr.mixtures.family import Rows


def split_rows(X: Rows, share: float, seed: np.random.SeedSequence) -> tuple[Rows, Rows]:
    """Rows to fit, and rows held out, both in their order.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    share : float
        Share of the rows held out, rounded; at least one of two rows or more, unless it is 0.
    seed : SeedSequence
        The same seed and number of rows: the same rows.
    """
    if share == 0 or len(X) < 2:
        return X, X[:0]
    n_held_out = max(1, round(share * len(X)))
    is_held_out = np.zeros(len(X), dtype=bool)
    is_held_out[np.random.default_rng(seed).permutation(len(X))[:n_held_out]] = True
    return X[~is_held_out], X[is_held_out]
