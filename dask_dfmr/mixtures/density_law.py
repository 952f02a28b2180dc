"""The law of log f(Y) for a row Y of the mixture f, as for p-values of rows: P(f(Y) < f(x)).

One component: f(Y) decreases with r^2 = |L^-1 (Y - mu)|^2, which is chi-square distributed, so the law is exact.

Several components: Y = mu_k + r L_k u with probability w_k, with u uniform on the sphere and r chi distributed,
independent of u. Given k and u, the density along the ray is computed at radii that reach every probability::

    components k -> rays (k, u) -> radii r(s), logit P(r < r(s)) = s -> log f -> masses by level -> two tails

Each radius stands for the probability of its stratum of s. So a tail of probability 1e-100 is found from as many radii
as the bulk, where plain draws would need 1e100 rows. Directions come from scrambled Sobol points, and every ray shifts
its strata by an offset of its own. Independent scramblings give the standard error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, gammaincc, gammainccinv, gammaincinv, ndtri
from scipy.stats import qmc

from dask_dfmr.mixtures.family import LOG_2PI, MAX_SQUARED_LENGTH, Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.seeds import stream

N_REPLICATES = 8
"""Independent scramblings. Their scatter gives the standard error, to within a quarter of itself."""

N_RAYS = 2**13
"""Rays of all components and replicates together. For 2 to 10 components that overlap by .2, in 2 to 30 columns, the
stated error is then .5 to 2.5 %, and the law takes .1 to .3 CPU seconds (``benchmarks/outliers.py``)."""

FEWEST_RAYS = 2**3
"""Rays of one component in one replicate, however many components there are."""

N_RADII = 128
"""Radii on a ray. 64 on twice as many rays, and 256 on half as many, have errors that mostly differ by less than a
factor of two, in both directions."""

LOGITS = (-30.0, 690.0)
"""Range of s = logit P(r < r(s)): what lies beyond has a probability below 1e-13 near the center, 1e-299 far out."""

STRETCH = 4.0
"""Radii are equally spaced in arsinh(s / STRETCH): 0.27 apart in s at the median, and 1.3 at p = 1e-8. With 15,
as many radii give 1.7 times the error at p = .999 of two components in two columns."""

N_TABULATED = 2**12
"""Radii that are computed from the inverse of the chi law; the others are interpolated, with an error below 1e-5."""

LOWER_TAIL = (-600.0, -40.0)
"""log p of the lowest level, and of that below which levels are a nat apart; below the lowest, log p has slope 1."""

UPPER_TAIL = -25.0
"""log (1 - p) of the highest level."""

LEVEL_STEP = 0.05
"""Distance of other levels in log p, or in log (1 - p) above the median."""

STATED_TAILS = (1e-8, 1e-2)
"""The standard error is stated for p above the first, and for 1 - p above the second."""


@dataclass(frozen=True)
class ExactLaw:
    """The law of log f(Y) of a single Gaussian, by the incomplete gamma function.

    Attributes
    ----------
    peak : float
        Log-density at the mean, in nats.
    n_features : int
    standard_error : float
        0.
    """

    peak: float
    n_features: int
    standard_error: float = 0.0

    def p_value(self, log_density: Array) -> Array:
        """P(log f(Y) < log_density), of the same shape."""
        half_square = np.maximum(self.peak - np.asarray(log_density), 0.0)
        return np.asarray(gammaincc(self.n_features / 2, half_square))

    def quantile(self, p: float) -> float:
        """The log-density whose p-value is p."""
        return float(self.peak - gammainccinv(self.n_features / 2, p))


@dataclass(frozen=True, eq=False)
class TabulatedLaw:
    """The law of log f(Y) by both of its tails at some levels; their logarithms are linear between levels.

    Attributes
    ----------
    levels : ndarray of shape (n_levels,)
        Log-densities in nats, increasing.
    log_lower, log_upper : ndarray of shape (n_levels,)
        Logarithms of P(log f(Y) < level) and of 1 minus that. The smaller of the two is accurate.
    standard_error : float
        The largest standard error of p relative to the smaller of p and 1 - p, in the range of ``STATED_TAILS``.
    """

    levels: Array
    log_lower: Array
    log_upper: Array
    standard_error: float

    def p_value(self, log_density: Array) -> Array:
        """P(log f(Y) < log_density), of the same shape."""
        level = np.asarray(log_density)
        below = np.minimum(level - self.levels[0], 0.0)
        lower = np.exp(np.interp(level, self.levels, self.log_lower) + below)
        upper = np.exp(np.interp(level, self.levels, self.log_upper, right=-np.inf))
        return np.where(level < self._median, lower, 1.0 - upper)

    def quantile(self, p: float) -> float:
        """The log-density whose p-value is p."""
        if p > np.exp(self.log_lower[0]):
            is_low = p < np.exp(np.interp(self._median, self.levels, self.log_lower))
            if is_low:
                return float(np.interp(np.log(p), self.log_lower, self.levels))
            return float(np.interp(-np.log1p(-p), -self.log_upper, self.levels))
        return float(self.levels[0] + np.log(p) - self.log_lower[0])

    @property
    def _median(self) -> float:
        """The first level at which the lower tail is the greater one."""
        return float(self.levels[np.argmax(self.log_lower >= self.log_upper)])


def density_law(mixture: Mixture, seed: np.random.SeedSequence) -> ExactLaw | TabulatedLaw:
    """The law of log f(Y) for a row Y of the mixture f.

    Parameters
    ----------
    mixture : Mixture
    seed : SeedSequence
        Of the Monte Carlo error; a mixture with one component of positive weight has none.
    """
    positive = np.flatnonzero(mixture.weights > 0)
    means, covariances = mixture.full_components
    components = _Rays.of(mixture.weights[positive], means[positive], covariances[positive])
    if len(positive) == 1:
        return ExactLaw(float(components.log_peaks[0]), mixture.n_features)
    radii = _radii(mixture.n_features)
    streams = [stream(seed, replicate) for replicate in range(N_REPLICATES)]
    return _tabulated([components.draw(radii, np.random.default_rng(one)) for one in streams])


# -- rays ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rays:
    """A mixture as its rays need it: roots L_k of the covariances, their inverses, and log w_k + log phi_k(mu_k)."""

    weights: Array
    means: Array
    roots: Array
    inverse_roots: Array
    log_peaks: Array

    @classmethod
    def of(cls, weights: Array, means: Array, covariances: Array) -> _Rays:
        roots: Array = np.asarray(np.linalg.cholesky(covariances), dtype=np.float64)
        log_dets = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
        log_peaks = np.log(weights) - log_dets - 0.5 * means.shape[1] * LOG_2PI
        inverse_roots: Array = np.asarray(np.linalg.inv(roots), dtype=np.float64)
        return cls(weights, means, roots, inverse_roots, log_peaks)

    def draw(self, table: tuple[Array, Array], rng: np.random.Generator) -> tuple[Array, Array]:
        """Log-densities along rays of all components, and the probability that each stands for; both (n_points,)."""
        n_components, n_features = self.means.shape
        n_pairs = max(FEWEST_RAYS, N_RAYS // (N_REPLICATES * n_components)) // 2
        found = [
            self._along_rays(k, *_directions(n_features, n_pairs, rng), table)
            for k in range(n_components)
        ]
        levels, masses = (np.concatenate(part) for part in zip(*found, strict=True))
        return levels, masses

    def _along_rays(
        self, k: int, directions: Array, offsets: Array, table: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        """Log-densities at the radii of rays from mean k, and their masses, w_k in all.

        The squared distance to component j in its standard deviations is a quadratic function of the radius.
        """
        places, masses = _strata(offsets)
        radii = np.interp(places, *table)
        with np.errstate(over="ignore", invalid="ignore"):
            steps = self.inverse_roots @ (self.roots[k] @ directions.T)  # (n_components, d, n_rays)
            gaps = self.inverse_roots @ (self.means[k] - self.means)[:, :, None]
            squares = (steps**2).sum(axis=1)
            slopes = 2.0 * (steps * gaps).sum(axis=1)
            constants = (gaps**2).sum(axis=(1, 2))
            squared = slopes[:, :, None] * radii  # (n_components, n_rays, N_RADII)
            squared += squares[:, :, None] * radii**2
            squared += constants[:, None, None]
        # A component so far away that its distance overflows, or is no number, counts for nothing.
        np.fmax(np.fmin(squared, MAX_SQUARED_LENGTH, out=squared), 0.0, out=squared)
        level = _logsumexp(self.log_peaks[:, None, None] - 0.5 * squared)
        return level.ravel(), (self.weights[k] / len(radii) * masses).ravel()


def _logsumexp(terms: Array) -> Array:
    """Log sum exp over the first axis of finite terms; SciPy's takes several times as long."""
    top = terms.max(axis=0)
    terms -= top
    return np.asarray(top + np.log(np.exp(terms, out=terms).sum(axis=0)))


def _directions(n_features: int, n_pairs: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Unit vectors (2 n_pairs, n_features), each with its opposite, and an offset of the strata for each, in [0, 1)."""
    n_points = 2 ** (n_pairs - 1).bit_length()
    points = qmc.Sobol(n_features + 1, bits=30, seed=rng).random(n_points) + 2.0**-31
    normal = ndtri(points[:, :-1])
    unit = normal / np.linalg.norm(normal, axis=1)[:, None]
    offset = points[:, -1]
    return np.concatenate([unit, -unit]), np.concatenate([offset, (offset + 0.5) % 1.0])


def _ends() -> tuple[float, float]:
    """The range of arsinh(s / STRETCH)."""
    first, last = np.arcsinh(np.array(LOGITS) / STRETCH)
    return float(first), float(last)


def _strata(offsets: Array) -> tuple[Array, Array]:
    """Places arsinh(s / STRETCH) and probabilities of the radii of rays with these offsets, (n_rays, N_RADII)."""
    first, last = _ends()
    width = (last - first) / N_RADII
    places = first + width * (np.arange(N_RADII) + offsets[:, None])
    logits = STRETCH * np.sinh(places)
    return places, expit(logits) * expit(-logits) * STRETCH * np.cosh(places) * width


def _radii(n_features: int) -> tuple[Array, Array]:
    """Equally spaced places, and the radii there."""
    places = np.linspace(*_ends(), N_TABULATED)
    logits = STRETCH * np.sinh(places)
    half_squares = np.where(
        logits < 0,
        gammaincinv(n_features / 2, expit(logits)),
        gammainccinv(n_features / 2, expit(-logits)),
    )
    return places, np.sqrt(2.0 * half_squares)


# -- tails -----------------------------------------------------------------------------------------


def _tabulated(replicates: list[tuple[Array, Array]]) -> TabulatedLaw:
    """The law from log-densities and masses of independent replicates; the first one places the levels."""
    levels = _levels(*replicates[0])
    lower, upper = (np.array(tails) for tails in zip(*_tails(levels, replicates), strict=True))
    with np.errstate(divide="ignore"):
        log_lower, log_upper = np.log(lower.mean(axis=0)), np.log(upper.mean(axis=0))
    smaller = np.where(log_lower < log_upper, lower, upper)
    mean = smaller.mean(axis=0)
    is_stated = (lower.mean(axis=0) >= STATED_TAILS[0]) & (upper.mean(axis=0) >= STATED_TAILS[1])
    errors = smaller.std(axis=0, ddof=1)[is_stated] / mean[is_stated] / np.sqrt(len(replicates))
    return TabulatedLaw(levels, log_lower, log_upper, float(errors.max()))


def _levels(log_density: Array, masses: Array) -> Array:
    """Log-densities at which the tails are tabulated: equally spaced in log p, and above the median in log (1 - p)."""
    order = np.argsort(log_density)
    sorted_levels, sorted_masses = log_density[order], masses[order]
    lower = np.log(np.cumsum(sorted_masses))
    upper = np.log(np.cumsum(sorted_masses[::-1])[::-1])
    half = np.log(0.5)
    far = np.arange(*LOWER_TAIL)
    low = np.interp(
        np.concatenate([far, np.arange(LOWER_TAIL[1], half, LEVEL_STEP)]), lower, sorted_levels
    )
    high = np.interp(-np.arange(half, UPPER_TAIL, -LEVEL_STEP), -upper, sorted_levels)
    return np.unique(np.concatenate([low, high]))


def _tails(levels: Array, replicates: list[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    """P(log f(Y) < level) and 1 minus that by each replicate, (n_levels,) each."""
    for log_density, masses in replicates:
        bins = np.searchsorted(levels, log_density, side="right")
        totals: Array = np.zeros(len(levels) + 1)
        totals += np.bincount(bins, weights=masses, minlength=len(totals))
        yield np.cumsum(totals)[:-1], np.cumsum(totals[::-1])[::-1][1:]
