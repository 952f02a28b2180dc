"""How far a fitted mixture is from another one."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from dask_dfmr.families import Array
from dask_dfmr.mixture import Mixture


def mixing_distance(a: Mixture, b: Mixture) -> float:
    """W1 between two mixing distributions: the estimation error that the paper reports.

    Optimal transport between the weights, with the ground cost |mu - mu'| + |Sigma^(1/2) -
    Sigma'^(1/2)|_F between components.

    Parameters
    ----------
    a, b : Mixture
        With the same number of columns; the numbers of components may differ.

    Returns
    -------
    float
        In the units of the data.

    References
    ----------
    Zhang, Tan & Chen, JRSS-B 2026, section 5.
    """
    if a.n_features != b.n_features:
        raise ValueError(
            f"a and b must have the same number of columns; got {a.n_features} and {b.n_features}."
        )
    costs = _ground_costs(a, b)
    n, k = costs.shape
    rows, columns = np.kron(np.eye(n), np.ones(k)), np.kron(np.ones(n), np.eye(k))
    weights_a, weights_b = a.weights / a.weights.sum(), b.weights / b.weights.sum()
    result = linprog(
        costs.ravel(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([weights_a, weights_b]),
        method="highs",
    )
    if not result.success or result.fun is None:
        raise RuntimeError(f"the transport problem was not solved: {result.message}")
    return float(result.fun)


def _ground_costs(a: Mixture, b: Mixture) -> Array:
    means_a, covariances_a = a.full_components
    means_b, covariances_b = b.full_components
    roots_a, roots_b = _roots(covariances_a), _roots(covariances_b)
    location = np.linalg.norm(means_a[:, None] - means_b[None], axis=-1)
    return location + np.linalg.norm(roots_a[:, None] - roots_b[None], axis=(-2, -1))


def _roots(covariances: Array) -> Array:
    """Symmetric square roots, shape (n_components, n_features, n_features)."""
    values, vectors = np.linalg.eigh(covariances)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ np.swapaxes(vectors, -1, -2)
