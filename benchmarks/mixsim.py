"""Random Gaussian mixtures with a prescribed overlap, in the manner of MixSim, for the benchmarks' other populations.

Two components overlap by the probability that a row of the one is taken for a row of the other by
Bayes' rule between the two, plus the same with the roles exchanged (Melnykov, Chen & Maitra, J.
Stat. Softw. 51(12), 2012). A mixture's overlap is that of its worst pair. MixSim computes these
probabilities by numerical integration and scales the covariances until the worst pair has the
overlap asked for; here they are Monte Carlo estimates, on the same normal draws at every
scale, and the means are scaled, which is the same up to the unit.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import brentq

from dask_dfmr import Mixture

N_DRAWS = 10_000
"""Monte Carlo rows a component: the standard error of an overlap of .1 is about .004."""

FREEDOM = 10
"""MixSim's own n_features + 1 degrees of freedom give covariances so unlike each other in 30 columns
that components with the same mean overlap by less than .1."""


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
        Every component is round but for one axis in a random direction, along which it has this
        variance for the others' 1. By default covariances are Wishart with ``FREEDOM * n_features``
        degrees of freedom.
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
    """The largest overlap of a pair of equally heavy components, on standard normal rows that are given."""
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
