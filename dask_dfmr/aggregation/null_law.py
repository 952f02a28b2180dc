"""The null law: how large squared distances are if sampling alone explains them.

The squared length of a nearly normal vector has a weighted chi-square law. Its mean and shape come from the model, see
:func:`distance_law`. :func:`settle` corrects them by the distances of the majority, because real rows are no mixture,
and few rows do not have the law of many. The module needs arrays and a family only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.distances import Stack, log_polar_tile, log_self_products
from dask_dfmr.mixtures.family import Array, Family, batches
from dask_dfmr.mixtures.information import Information
from dask_dfmr.mixtures.tails import pearson3_ppf, pearson3_sf

MOST_DRAWS, FEWEST_DRAWS, DRAWN_NUMBERS = 2**11, 2**9, 2**17
"""Errors drawn for the law of a distance: DRAWN_NUMBERS over the number of coordinates, within these bounds. Few
coordinates have the longer tail."""

STEP = 0.01
"""Errors are shrunk to this relative change of the lightest component: the law is that of many rows."""

LEAST_MEAN = 1e-100
"""Mean of the law of distances whose squares are 0 in floating point."""

TRIM = 1e-3
"""Scale and spread are computed without statistics that are exceeded by chance less often than this."""

LEAST_SCALE = 0.9
"""The correction narrows the law by this factor at most, even if estimates agree more closely than sampling allows."""

MAX_SPREAD = 2.5
"""The correction widens the law, relative to its mean, by this factor at most."""

MAX_CORRECTIONS = 6
"""Rounds of the correction, at most. Each decides again which statistics are outliers."""

GRID = (np.arange(400) + 0.5) / 400
"""Probabilities at which moments of a law are summed."""


class Law(NamedTuple):
    """Law of a squared distance per unit of variance: a shifted gamma law with given first three moments.

    Attributes
    ----------
    mean : float
    df : float
        Degrees of freedom: the variance is ``2 mean**2 / df``.
    skew : float
        Skewness relative to that of a chi-square law with ``df`` degrees of freedom.
    """

    mean: float
    df: float
    skew: float = 1.0

    def scaled(self, scale: float, spread: float = 1.0) -> Law:
        """The law with the mean times ``scale`` and the standard deviation over the mean times ``spread``."""
        return Law(self.mean * scale, self.df / spread**2, self.skew)

    def sf(self, values: Array) -> Array:
        """Probability of more than ``values``."""
        return pearson3_sf((values - self.mean) / self._sd, self._skewness)

    def ppf(self, probabilities: Array) -> Array:
        """The values that are exceeded with probability 1 - ``probabilities``, at least 0."""
        z_scores = pearson3_ppf(probabilities, self._skewness)
        return np.maximum(z_scores * self._sd + self.mean, 0.0)

    def z_scores(self, values: Array) -> Array:
        """Standard normal scores of the cube root, which is nearly normal (Wilson & Hilferty 1931).

        They have finite values even if probabilities are 0 in floating point.
        """
        mean, sd = _moments(np.cbrt(self.ppf(GRID)))
        return (np.cbrt(values) - mean) / sd

    def at_z_scores(self, z_scores: Array) -> Array:
        """The inverse of :meth:`z_scores`."""
        mean, sd = _moments(np.cbrt(self.ppf(GRID)))
        return np.maximum(mean + sd * z_scores, 0.0) ** 3

    @property
    def _sd(self) -> float:
        return self.mean * float(np.sqrt(2.0 / self.df))

    @property
    def _skewness(self) -> float:
        """That of the shifted gamma law, which is Pearson's type III."""
        return self.skew * float(np.sqrt(8.0 / self.df))


class Settled(NamedTuple):
    """A law that is corrected by statistics, and the statistics under it.

    Attributes
    ----------
    law : Law
        With the scale and spread of the majority.
    scale, spread : float
        Those of the corrected law relative to the expected one.
    p_values, z_scores : ndarray of shape (n_statistics,)
        Under the corrected law.
    """

    law: Law
    scale: float
    spread: float
    p_values: Array
    z_scores: Array


def distance_law(family: Family, about: Information, rng: np.random.Generator) -> tuple[Law, float]:
    """Law of n L^2 between a mixture and its estimate from n rows, for large n; L is the log-polar distance.

    The second value is log <f, f> of the mixture.
    """
    n_draws = int(np.clip(DRAWN_NUMBERS // len(about.normal), FEWEST_DRAWS, MOST_DRAWS))
    v = about.errors(rng.standard_normal((n_draws, len(about.normal))))
    lengths = np.linalg.norm(v, axis=1)
    steps = STEP * np.sqrt(about.weights[about.weights > 0].min()) / lengths
    origin = Stack(about.weights[None], tuple(p[None] for p in about.components))
    log_self = log_self_products(family, origin)
    squares = np.empty(n_draws)
    size = max(1, 2**20 // max(p.size for p in about.components))
    for s in batches(n_draws, size):
        near = Stack(*family.displaced(steps[s, None] * v[s], (about.weights, about.components)))
        tile = log_polar_tile(family, origin, near, log_self, log_self_products(family, near))
        squares[s] = (tile[0] / steps[s]) ** 2
    return fitted_law(squares), float(log_self[0])


def fitted_law(draws: Array) -> Law:
    """The law with the moments of draws; of draws that are all equal, a law of one degree of freedom."""
    mean, sd = _moments(draws)
    if sd == 0.0:  # squares of distances may all underflow
        return Law(max(mean, LEAST_MEAN), 1.0)
    df = 2.0 * (mean / sd) ** 2
    skewness = float(np.mean(((draws - mean) / sd) ** 3))
    # A skewness below that of a chi-square law is noise of the draws; one far above it comes from a single draw.
    return Law(mean, df, float(np.clip(skewness / np.sqrt(8.0 / df), 1.0, 3.0)))


def chi_square_law(n_parameters: int) -> Law:
    """Law of the squared length of a white vector."""
    return Law(float(n_parameters), float(n_parameters))


def settle(statistics: Array, law: Law, correcting: NDArray[np.bool_] | None = None) -> Settled:
    """Compare statistics with a law that is corrected by the majority of them.

    Scale and spread of the law become those of the statistics that it does not make outliers, shrunk by their own
    uncertainty: a few statistics, or statistics of few degrees of freedom, change the law little.

    Parameters
    ----------
    statistics : ndarray of shape (n_statistics,)
        Squared distances per unit of variance.
    law : Law
        The expected law.
    correcting : ndarray of bool, shape (n_statistics,), optional
        The statistics that correct the law, by default all.
    """
    used = statistics if correcting is None else statistics[correcting]
    corrected, scale, spread = law, 1.0, 1.0
    if len(used):
        ratio = float(np.median(used)) / float(law.ppf(np.array(0.5)))
        scale = max(_shrunk(ratio, _noise(law, used)), LEAST_SCALE)
        corrected = law.scaled(scale)
    # The moments of the law are summed over the same part as those of the trimmed statistics.
    expected_mean, expected_sd = _moments(np.cbrt(law.ppf(GRID * (1 - TRIM))))
    for _ in range(MAX_CORRECTIONS):
        roots = np.cbrt(used[corrected.sf(used) > TRIM])
        if len(roots) <= max(2, len(used) // 2):
            break
        mean, sd = _moments(roots, ddof=1)
        if mean == 0:  # copies of one another
            scale = LEAST_SCALE
            break
        last = scale, spread
        scale = _shrunk((mean / expected_mean) ** 3, _noise(law, roots))
        widening = sd / mean / (expected_sd / expected_mean)
        spread = min(max(_shrunk(widening, 1 / np.sqrt(2 * len(roots))), 1.0), MAX_SPREAD)
        corrected = law.scaled(max(scale, LEAST_SCALE), spread)
        if np.allclose(last, (scale, spread), rtol=1e-6):
            break
    scale = max(scale, LEAST_SCALE)
    return Settled(
        corrected, scale, spread, corrected.sf(statistics), corrected.z_scores(statistics)
    )


def not_judged(law: Law) -> Settled:
    """A statistic that has nothing to be compared with: it is as expected, and has no score."""
    return Settled(law, 1.0, 1.0, np.ones(1), np.full(1, np.nan))


def _noise(law: Law, statistics: Array) -> float:
    """Standard error of the logarithm of the mean of the statistics."""
    return float(np.sqrt(2.0 / law.df / len(statistics)))


def _shrunk(ratio: float, standard_error: float) -> float:
    """A ratio shrunk towards 1, on a logarithmic scale, by its standard error; 1 if it is no more than noise."""
    if not ratio > 0:
        return 1.0
    log_ratio = np.log(ratio)
    signal = max(log_ratio**2 - standard_error**2, 0.0)
    return float(np.exp(log_ratio * signal / (signal + standard_error**2)))


def _moments(values: Array, ddof: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of values (n_values,), the latter with the divisor n_values - ``ddof``."""
    return float(values.mean()), float(values.std(ddof=ddof))
