"""Random Gaussian mixtures with a prescribed overlap, for the benchmarks' other populations.

Two components overlap by the probability that Bayes' rule between the two takes a row of the one for a row of the
other. The same with the roles exchanged is added (Melnykov, Chen & Maitra, J. Stat. Softw. 51(12), 2012). The overlap
of a mixture is that of its worst pair. Covariances are scaled until it has the prescribed value.

:func:`paper_population` draws populations of the paper's design, by MixSim's recipe for means and covariances.
:func:`mixsim` draws milder ones, without elongated covariances; it scales the means, and overlaps are plain Monte Carlo
estimates.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import brentq
from scipy.special import gammainc
from scipy.stats import norm, qmc

from dask_dfmr import Mixture

N_DRAWS = 10_000
"""Monte Carlo rows a component: the standard error of an overlap of .1 is about .004."""

N_DIRECTIONS = 2**14
"""Directions over which exact probabilities along rays are averaged: the error of an overlap of .1 is about .0005."""

MOST_DRAWS = 50
"""Number of draws to try: in many columns Wishart covariances separate components however close their means are."""

FARTHEST = 1e10
"""Larger radii are replaced by this one, so that they can be squared."""

MOST_ECCENTRICITY = 0.9
"""MixSim's default for the largest sqrt(1 - smallest / largest eigenvalue)."""

FREEDOM = 10
"""Degrees of freedom of a covariance per column. With MixSim's own n_features + 1, covariances in 30 columns differ so
much that components with the same mean overlap by less than .1."""


def paper_population(
    n_components: int,
    n_features: int,
    overlap: float,
    seed: int,
    weights: np.ndarray | None = None,
) -> Mixture:
    """A population of the paper's design: means uniform in the unit cube, Wishart covariances of bounded eccentricity.

    Parameters
    ----------
    n_components, n_features : int
    overlap : float
        The largest overlap of a pair, by Bayes' rule with the weights.
    seed : int
    weights : ndarray of shape (n_components,), optional
        By default equal, as in the paper's design.

    Raises
    ------
    ValueError
        If no draw has components that overlap so much.
    """
    rng = np.random.default_rng(seed)
    weights = np.full(n_components, 1 / n_components) if weights is None else weights
    directions = spread_directions(n_features)
    for _ in range(MOST_DRAWS):
        means = rng.uniform(size=(n_components, n_features))
        factors = rng.normal(size=(n_components, n_features + 1, n_features))
        covariances = np.array([_bounded(factor.T @ factor) for factor in factors])

        def excess(log_scale: float, means=means, covariances=covariances) -> float:
            misses = misclassification(weights, means, np.exp(log_scale) * covariances, directions)
            return float((misses + misses.T).max()) - overlap

        if excess(-12.0) < 0 < excess(8.0):
            return Mixture(
                weights, means, np.exp(brentq(excess, -12.0, 8.0, xtol=1e-6)) * covariances
            )
    raise ValueError(
        f"no {n_components} components in {n_features} columns overlap by {overlap}; ask for less."
    )


def spread_directions(n_features: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (N_DIRECTIONS, n_features) that fill the sphere evenly."""
    points = qmc.Sobol(n_features, seed=seed).random(N_DIRECTIONS)
    normal = norm.ppf(np.clip(points, 1e-12, 1 - 1e-12))
    return normal / np.linalg.norm(normal, axis=1)[:, None]


def _bounded(covariance: np.ndarray) -> np.ndarray:
    """The covariance with its small eigenvalues moved towards the largest, so that the eccentricity is allowed."""
    values, vectors = np.linalg.eigh(covariance)
    share = MOST_ECCENTRICITY**2 / (1 - values[0] / values[-1])
    if share < 1:
        values = values[-1] - share * (values[-1] - values)
    return (vectors * values) @ vectors.T


def misclassification(
    weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, directions: np.ndarray
) -> np.ndarray:
    """omega_{j|i}, shape (n_components, n_components): probability that Bayes' rule takes a row of i for one of j.

    The rows of component i are averaged over ``directions`` (n_directions, n_features) and their opposites. Along a ray
    the log-ratio of the two densities is a quadratic function of the radius. The radius is chi-distributed, so that the
    probability along the ray is exact.
    """
    n_components, n_features = means.shape
    factors = np.linalg.cholesky(covariances)
    log_dets = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    omega = np.zeros((n_components, n_components))
    for i in range(n_components):
        for j in set(range(n_components)) - {i}:
            shift = solve_triangular(factors[j], means[i] - means[j], lower=True)
            ratio = solve_triangular(factors[j], factors[i], lower=True)
            rays = directions @ ratio.T
            constant = np.log(weights[j] / weights[i]) + log_dets[i] - log_dets[j]
            constant -= 0.5 * shift @ shift
            square = 0.5 - 0.5 * (rays**2).sum(axis=1)
            linear = -rays @ shift
            both = [_share_above(square, side * linear, constant, n_features) for side in (1, -1)]
            omega[i, j] = np.mean(both)
    return omega


def _share_above(
    square: np.ndarray, linear: np.ndarray, constant: float, n_features: int
) -> np.ndarray:
    """P(square r^2 + linear r + constant > 0) for r chi-distributed with ``n_features`` degrees of freedom."""
    square = np.where(square == 0, -1e-300, square)  # a straight line is a very flat parabola
    discriminant = linear**2 - 4 * square * constant
    has_roots = discriminant >= 0
    half = -0.5 * (linear + np.copysign(np.sqrt(np.maximum(discriminant, 0)), linear))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        roots = np.sort([half / square, constant / half], axis=0)
    # NaN: the two roots are 0.
    low, high = gammainc(n_features / 2, np.clip(np.nan_to_num(roots), 0, FARTHEST) ** 2 / 2)
    between = np.where(has_roots, high - low, 0.0)
    return np.where(square > 0, 1.0 - between, between)


def mixsim(
    n_components: int, n_features: int, overlap: float, seed: int, elongation: float | None = None
) -> Mixture:
    """A random mixture with full covariances whose worst pair has the given overlap.

    Parameters
    ----------
    n_components, n_features : int
    overlap : float
        The largest overlap of a pair.
    seed : int
    elongation : float, optional
        Variance of every component along one random axis; along the others it is 1. By default covariances are
        Wishart with ``FREEDOM * n_features`` degrees of freedom.
    """
    rng = np.random.default_rng(seed)
    means = rng.uniform(size=(n_components, n_features))
    covariances = np.array(
        [_random_covariance(rng, n_features, elongation) for _ in range(n_components)]
    )
    weights = np.full(n_components, 1 / n_components)
    normal = rng.normal(size=(N_DRAWS, n_features))

    def excess(log_scale: float) -> float:
        return worst_overlap(np.exp(log_scale) * means, covariances, normal) - overlap

    scale = np.exp(brentq(excess, -3.0, 8.0, xtol=1e-4))
    return Mixture(weights, scale * means, covariances)


def worst_overlap(means: np.ndarray, covariances: np.ndarray, normal: np.ndarray) -> float:
    """The largest overlap of a pair of equally heavy components, estimated from standard ``normal`` rows."""
    factors = np.linalg.cholesky(covariances)
    log_dets = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    own = -0.5 * np.square(normal).sum(axis=1)
    misses = np.zeros((len(means), len(means)))
    for i, (mean, factor) in enumerate(zip(means, factors, strict=True)):
        rows = mean + normal @ factor.T
        for j in range(len(means)):
            white = solve_triangular(factors[j], (rows - means[j]).T, lower=True)
            other = -0.5 * np.square(white).sum(axis=0) - log_dets[j]
            misses[i, j] = np.mean(other > own - log_dets[i]) if i != j else 0.0
    return float((misses + misses.T).max())


def _random_covariance(
    rng: np.random.Generator, n_features: int, elongation: float | None
) -> np.ndarray:
    if elongation is None:
        factor = rng.normal(size=(int(FREEDOM * n_features), n_features))
        return factor.T @ factor / len(factor)
    axis = rng.normal(size=n_features)
    axis /= np.linalg.norm(axis)
    return np.eye(n_features) + (elongation - 1) * np.outer(axis, axis)
