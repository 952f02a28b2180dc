"""Errors of a fitted mixture against a true one."""

from __future__ import annotations

import numpy as np

from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.information import Information, information

LEFT_BY_ROUNDING = 1e-14
"""Weight that is left where two mixtures have the same, by the rounding of their sums."""


def mixing_distance(a: Mixture, b: Mixture) -> float:
    """W1 distance between two mixing distributions: the estimation error that the paper reports.

    It is the cost of optimal transport between the weights. The cost between two components is
    ``|mu - mu'| + |Sigma^(1/2) - Sigma'^(1/2)|_F``.

    Parameters
    ----------
    a, b : Mixture
        With the same number of columns. The numbers of components and the covariance types may differ.

    Returns
    -------
    float
        In the units of the data.

    Raises
    ------
    ValueError
        If the numbers of columns differ.
    RuntimeError
        If the linear program of the transport was not solved.

    References
    ----------
    Zhang, Tan & Chen, JRSS-B 2026, section 5.
    """
    if a.n_features != b.n_features:
        raise ValueError(
            f"a and b must have the same number of columns; got {a.n_features} and {b.n_features}."
        )
    costs = _ground_costs(a, b)
    supply, demand = a.weights / a.weights.sum(), b.weights / b.weights.sum()
    # The cost is a metric, so some optimal plan leaves the weight where it is that both have. What is left of it is
    # then not multiplied by the distance of a component that both have, however far that is.
    for i, j in zip(*np.nonzero(costs == 0), strict=True):
        common = min(supply[i], demand[j])
        supply[i], demand[j] = supply[i] - common, demand[j] - common
    giving, taking = (
        np.flatnonzero(supply > LEFT_BY_ROUNDING),
        np.flatnonzero(demand > LEFT_BY_ROUNDING),
    )
    if not giving.size or not taking.size:
        return 0.0
    moved = float(supply[giving].sum())
    return moved * _transport(costs[np.ix_(giving, taking)], supply[giving], demand[taking])


def _transport(costs: Array, supply: Array, demand: Array) -> float:
    """Least cost of moving a unit of weight from ``supply`` (n,) to ``demand`` (k,) at ``costs`` (n, k)."""
    from scipy.optimize import linprog

    n, k = costs.shape
    unit = float(costs.max())  # the solver takes costs of 1e20 for infinite
    rows, columns = np.kron(np.eye(n), np.ones(k)), np.kron(np.ones(n), np.eye(k))
    result = linprog(
        costs.ravel() / unit,
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([supply / supply.sum(), demand / demand.sum()]),
        method="highs",
    )
    if not result.success or result.fun is None:
        raise RuntimeError(f"the transport problem was not solved: {result.message}")
    return unit * float(result.fun)


def parameter_error(mixture: Mixture, truth: Mixture, about: Information | None = None) -> float:
    """Error of a mixture's parameters, in standard errors of an estimate from one row.

    The components are matched to those of the truth. The difference v is taken in the coordinates of the family about
    the truth, and I is the Fisher information there. The error is sqrt(v' I v). It does not depend on the units of the
    columns, and weighs every direction by the information that rows have about it. For the maximum likelihood estimate
    from n rows, n times its square is a chi-square variable with as many degrees of freedom as there are free
    parameters. It is far less noisy than :func:`mixing_distance`.

    Parameters
    ----------
    mixture, truth : Mixture
        Of one covariance type, with the same numbers of components and columns.
    about : Information, optional
        The result of :func:`truth_information` for the truth; pass it to compare many mixtures with one truth. None:
        it is computed.

    Returns
    -------
    float
        Without unit.

    Raises
    ------
    ValueError
        If the mixtures differ in covariance type, or in the number of components or columns.
    """
    about = truth_information(truth) if about is None else about
    aligned = mixture.align_to(truth)
    v = truth.family.coordinates(
        aligned.weights, aligned.components, (truth.weights, truth.components)
    )
    v = v - about.normal * (about.normal @ v)
    return float(np.linalg.norm(v if about.root is None else v @ about.root))


def truth_information(truth: Mixture) -> Information:
    """The Fisher information of one row at a mixture, from rows drawn from it with a fixed seed."""
    return information(truth.family, truth.weights, truth.components, np.random.default_rng(0))


def _ground_costs(a: Mixture, b: Mixture) -> Array:
    """Transport costs between the components of two mixtures, shape (n_components_a, n_components_b)."""
    means_a, covariances_a = a.full_components
    means_b, covariances_b = b.full_components
    roots_a, roots_b = _roots(covariances_a), _roots(covariances_b)
    location = np.linalg.norm(means_a[:, None] - means_b[None], axis=-1)
    return location + np.linalg.norm(roots_a[:, None] - roots_b[None], axis=(-2, -1))


def _roots(covariances: Array) -> Array:
    """Symmetric square roots, shape (n_components, n_features, n_features)."""
    values, vectors = np.linalg.eigh(covariances)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ np.swapaxes(vectors, -1, -2)
