"""How far a fitted mixture is from another one."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.information import Information, information


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


def parameter_error(mixture: Mixture, truth: Mixture, about: Information | None = None) -> float:
    """How far a mixture's parameters are from the truth, in standard errors of an estimate from one row.

    Components are matched to the truth's, the difference is taken in :meth:`Family.coordinates` about
    the truth and whitened by the Fisher information there: sqrt(v' I v). It does not depend on the
    units of the columns, every direction counts by what rows can tell of it, and unlike
    :func:`mixing_distance` its square is, for the maximum likelihood estimate from n rows, n^-1 times a
    chi-square with as many degrees of freedom as there are free parameters: it is far less noisy.

    Parameters
    ----------
    mixture, truth : Mixture
        Of one covariance type, with the same numbers of components and columns.
    about : Information, optional
        :func:`truth_information` of the truth, to measure many mixtures against one truth.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the mixtures differ in shape or covariance type.
    """
    about = truth_information(truth) if about is None else about
    aligned = mixture.align_to(truth)
    v = truth.family.coordinates(
        aligned.weights, aligned.components, (truth.weights, truth.components)
    )
    v = v - about.normal * (about.normal @ v)
    return float(np.linalg.norm(v if about.root is None else v @ about.root))


def truth_information(truth: Mixture) -> Information:
    """The Fisher information per row at a mixture, from rows drawn from it with a fixed seed."""
    return information(truth.family, truth.weights, truth.components, np.random.default_rng(0))


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
