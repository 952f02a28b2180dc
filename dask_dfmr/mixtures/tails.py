"""Tail probabilities and quantiles of the laws that workers need, by the functions of :mod:`scipy.special`.

They equal those of :mod:`scipy.stats`, whose import takes .4 CPU seconds, half of what a worker imports for a fit, and
whose checks of the arguments take longer than the arithmetic. Each has the name that the law has there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, gammainc, gammaincc, gammaincinv, ndtr, ndtri

from dask_dfmr.mixtures.family import Array

NEARLY_NORMAL = 1.6e-5
"""Pearson's type III law of a smaller skewness is normal in floating point; the bound is that of scipy.stats."""


def chi2_ppf(probabilities: Array | float, df: float) -> Array:
    """Quantiles of the chi-square law with ``df`` degrees of freedom."""
    return np.asarray(2.0 * gammaincinv(0.5 * df, probabilities), dtype=np.float64)


def binom_sf(k: ArrayLike, n: ArrayLike, p: float) -> Array:
    """Probability of more than ``k`` successes, an integer, in ``n`` trials of probability ``p``."""
    k, n = np.broadcast_arrays(np.asarray(k, dtype=float), np.asarray(n, dtype=float))
    is_inside = (k >= 0) & (k < n)
    inside = betainc(np.where(is_inside, k + 1.0, 1.0), np.where(is_inside, n - k, 1.0), p)
    return np.where(is_inside, inside, np.where(k < 0, 1.0, 0.0))


def pearson3_sf(z: ArrayLike, skewness: ArrayLike) -> Array:
    """Probability of more than ``z`` under Pearson's type III law of mean 0, variance 1 and this skewness."""
    return _pearson3(z, skewness, is_upper=True)


def pearson3_cdf(z: ArrayLike, skewness: ArrayLike) -> Array:
    """Probability of at most ``z`` under the same law."""
    return _pearson3(z, skewness, is_upper=False)


def _pearson3(z: ArrayLike, skewness: ArrayLike, is_upper: bool) -> Array:
    z, skewness = np.broadcast_arrays(np.asarray(z, float), np.asarray(skewness, float))
    is_normal = np.abs(skewness) < NEARLY_NORMAL
    beta = 2.0 / np.where(is_normal, 1.0, skewness)
    # A law that is skewed to the left is the mirror image of a gamma law.
    is_upper_gamma = (beta > 0) == is_upper
    gamma = np.maximum(beta * (z + beta), 0.0)
    probability = np.where(is_upper_gamma, gammaincc(beta**2, gamma), gammainc(beta**2, gamma))
    return np.where(is_normal, ndtr(-z if is_upper else z), probability)


def pearson3_ppf(probabilities: ArrayLike, skewness: float) -> Array:
    """Quantiles of the same law, of one skewness."""
    q = np.asarray(probabilities, dtype=float)
    if abs(skewness) < NEARLY_NORMAL:
        return np.asarray(ndtri(q))
    beta = 2.0 / skewness
    return np.asarray(gammaincinv(beta**2, q if skewness > 0 else 1.0 - q) / beta - beta)
