"""How far estimates are from a global mixture in standard errors: whole, by parts, and by whole columns.

An estimate's components are matched to the mixture's, and the difference in coordinates is measured by the Fisher
information at the mixture (:mod:`dask_dfmr.mixtures.information`): its squared length n v'I v is chi-square for an honest
estimate of n rows (Wald's statistic), with scale and spread corrected by what the kept estimates show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from dask_dfmr.aggregation.null_law import Law, chi_square_law, settle
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.distances import l2_tile, log_self_products, stack_mixtures
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.information import MOST_COORDINATES, Information, information
from dask_dfmr.mixtures.whitening import MAX_COORDINATE, difference, match_components

MOST_COVARIANCES = 20
"""In more columns whole columns are compared by means and variances alone."""

N_DRAWS = 2**13
"""Rows drawn for the errors of means and covariances of whole columns."""

LEAST_OWN_SHARE = 0.2
"""An estimate that is most of the global mixture is not held to less than this share of its own variance."""


# -- what whole columns show, whatever the components ------------------------------------------------


@dataclass(frozen=True)
class Overall:
    """Means and covariances of whole columns, and the errors that those of rows of the mixture have.

    A fixed point of EM has the mean and the covariance of its rows (what of it the family can express): those of an
    estimate are right in whatever optimum it ended.

    Parameters
    ----------
    mean : ndarray of shape (n_features,)
    root : ndarray of shape (n_features, n_features)
        Lower Cholesky factor of the covariance, or of its diagonal.
    error_root : ndarray
        Lower Cholesky factor of the covariance, over rows, of :meth:`difference`.
    form : {"full", "diag", "spherical"}
        What is compared of covariances.
    scale, spread : float
        As for :class:`StandardErrors`.
    """

    mean: Array
    root: Array
    error_root: Array
    form: str
    scale: float = 1.0
    spread: float = 1.0

    @property
    def n_free(self) -> int:
        """Numbers that are compared."""
        return len(self.error_root)

    def difference(self, mean: Array, covariance: Array) -> Array:
        """White difference of means, and of covariances."""
        with np.errstate(over="ignore", invalid="ignore"):
            white = solve_triangular(self.root, covariance, lower=True)
            white = solve_triangular(self.root, white.T, lower=True)
            shift = solve_triangular(self.root, mean - self.mean, lower=True)
            return np.concatenate([shift, self._shape(white - np.eye(len(mean)))])

    def _shape(self, white: Array) -> Array:
        variances: Array = np.diagonal(white, axis1=-2, axis2=-1)
        if self.form == "spherical":
            return variances.mean(axis=-1, keepdims=True)
        if self.form == "diag":
            return variances
        a, b = np.tril_indices(white.shape[-1])
        return white[..., a, b]

    def residual(self, mixture: Mixture) -> Array:
        """The difference of a mixture in coordinates that are white for one row."""
        v = self.difference(*whole_moments(mixture))
        v = np.clip(np.nan_to_num(v, nan=MAX_COORDINATE), -MAX_COORDINATE, MAX_COORDINATE)
        return np.asarray(solve_triangular(self.error_root, v, lower=True))

    def p_value(self, statistic: float) -> float:
        """Probability that an honest estimate has more."""
        law = chi_square_law(self.n_free).scaled(self.scale, self.spread)
        return float(law.sf(np.array(statistic)))


def whole_moments(mixture: Mixture) -> tuple[Array, Array]:
    """Mean and covariance of all columns together."""
    means, covariances = mixture.full_components
    mean = mixture.weights @ means
    centered = means - mean
    with np.errstate(over="ignore"):
        between = (mixture.weights[:, None] * centered).T @ centered
        return mean, np.einsum("k,kij->ij", mixture.weights, covariances) + between


def column_moments(mixture: Mixture) -> tuple[Array, Array]:
    """Mean and standard deviation of every column."""
    mean, covariance = whole_moments(mixture)
    return mean, np.sqrt(np.diagonal(covariance))


def _overall_of(mixture: Mixture, rng: np.random.Generator) -> Overall:
    mean, covariance = whole_moments(mixture)
    form = {"tied": "full"}.get(mixture.covariance_type, mixture.covariance_type)
    if form == "full" and mixture.n_features > MOST_COVARIANCES:
        form = "diag"
    if form != "full":
        covariance = np.diag(np.diagonal(covariance))
    root = np.linalg.cholesky(covariance).astype(np.float64)
    whole = Overall(mean, root, np.eye(1), form)
    rows, _ = mixture.family.sample(N_DRAWS, mixture.weights, mixture.components, rng)
    y = solve_triangular(root, (rows - mean).T, lower=True).T
    if form == "full":
        a, b = np.tril_indices(mixture.n_features)
        squares = y[:, a] * y[:, b]
    else:
        squares = y**2 if form == "diag" else (y**2).mean(axis=1, keepdims=True)
    errors = np.atleast_2d(np.cov(np.hstack([y, squares]).T))
    errors += 1e-9 * np.diag(np.diagonal(errors))
    return replace(whole, error_root=np.linalg.cholesky(errors).astype(np.float64))


# -- how far an estimate is from the global mixture ----------------------------------------------


class Quantity(NamedTuple):
    """One number of a mixture, and how far an estimate's is from it; ``se`` of the difference."""

    what: str
    component: int
    columns: tuple[int, ...]
    estimate: float
    reference: float
    z: float


@dataclass(frozen=True)
class StandardErrors:
    """The global mixture with the errors that estimates of it have.

    Parameters
    ----------
    mixture : Mixture
    about : Information
        At the mixture.
    n_samples : float
        Rows behind the mixture.
    overall : Overall
        Errors of what whole columns show.
    scale, spread : float
        How much larger squared differences of the majority are than the information says, and how much wider they
        scatter.
    """

    mixture: Mixture
    about: Information
    n_samples: float
    overall: Overall
    scale: float = 1.0
    spread: float = 1.0

    # -- whole mixtures --

    def aligned(self, mixture: Mixture) -> Mixture:
        """With its components matched to the reference's."""
        family = self.mixture.family
        return mixture.reordered(
            match_components(family, self.mixture.components, mixture.components)
        )

    def difference(self, aligned: Mixture, weights: Array | None = None) -> Array:
        """Coordinates of a matched estimate about the reference, or about the reference with other weights."""
        about = self.mixture.weights if weights is None else weights
        origin = (about, self.mixture.components)
        return difference(self.mixture.family, aligned.weights, aligned.components, origin)

    def residual(self, v: Array) -> Array:
        """White coordinates of a difference: their squares add up to v' I v."""
        return self.about.residual(v)

    def variance(self, n_samples: float, is_member: bool = False) -> float:
        """Of the difference, per unit of information; a member has a part in the mixture itself."""
        own, common = 1.0 / n_samples, 1.0 / self.n_samples
        return max(own - common, LEAST_OWN_SHARE * own) if is_member else own + common

    def statistic(self, mixture: Mixture, n_samples: float, is_member: bool = False) -> float:
        """Squared difference of an estimate in standard errors."""
        r = self.residual(self.difference(self.aligned(mixture)))
        return float(r @ r) / self.variance(n_samples, is_member)

    def p_value(self, statistic: float, n_free: int) -> float:
        """Probability that an honest estimate has more, of so many free numbers."""
        law = self.law(n_free)
        return float(law.sf(np.array(statistic)))

    def law(self, n_free: int) -> Law:
        """Law of the squared length of so many white coordinates."""
        return chi_square_law(n_free).scaled(self.scale, self.spread)

    def distance(self, mixture: Mixture) -> float:
        """L2 distance, in units of the reference's own norm."""
        family = self.mixture.family
        a, b = stack_mixtures([self.mixture]), stack_mixtures([mixture])
        log_a, log_b = log_self_products(family, a), log_self_products(family, b)
        return float(l2_tile(family, a, b, log_a, log_b, float(log_a[0]))[0, 0])

    # -- parts of mixtures --

    @cached_property
    def n_coordinates(self) -> int:
        """Of a difference."""
        return len(self.about.normal)

    @cached_property
    def _owners(self) -> NDArray[np.intp]:
        return self.mixture.family.coordinate_owners(self.mixture.components)

    @cached_property
    def _gradients(self) -> tuple[Array, Array, Array]:
        """Of means (K, d), variances (K, d) and, where there are any, covariances (K, d, d); by coordinate."""
        family, origin = self.mixture.family, (self.mixture.weights, self.mixture.components)
        eye = np.eye(self.n_coordinates)
        _, (means, covariances) = family.displaced(eye, origin)
        _, (means0, covariances0) = family.displaced(np.zeros(self.n_coordinates), origin)
        means, covariances = means - means0, covariances - covariances0
        kind, d = self.mixture.covariance_type, self.mixture.n_features
        if kind == "spherical":
            return means, np.repeat(covariances[..., None], d, axis=-1), np.zeros((0,))
        if kind == "diag":
            return means, covariances, np.zeros((0,))
        return means, np.diagonal(covariances, axis1=-2, axis2=-1), covariances

    def _standard_errors(self) -> tuple[Array, Array, Array, Array]:
        """Of one row: weights (K,), means (K, d), log standard deviations (K, d), correlations (K, d, d)."""
        mixture = self.mixture
        k, d = mixture.n_components, mixture.n_features
        _, covariances = mixture.full_components
        variances = np.diagonal(covariances, axis1=-2, axis2=-1)
        sd = np.sqrt(variances)
        correlations = covariances / (sd[:, :, None] * sd[:, None, :])
        share = np.maximum(mixture.weights, 1e-300)
        if self.n_coordinates > MOST_COORDINATES:
            # As if one knew which component each row is from.
            root = np.sqrt(np.ones(k) if mixture.covariance_type == "tied" else share)
            columns = d if mixture.covariance_type == "spherical" else 1
            return (
                np.sqrt(share * (1 - share)),
                sd / np.sqrt(share)[:, None],
                np.ones((k, d)) / np.sqrt(2.0 * columns) / root[:, None],
                (1 - correlations**2) / root[:, None, None],
            )
        means, of_variances, of_covariances = self._gradients
        of_weights = np.zeros((self.n_coordinates, k))
        of_weights[:k, :k] = np.diag(np.sqrt(mixture.weights))
        of_logs = of_variances / (2.0 * variances)
        parts = [of_weights, means, of_logs]
        if of_covariances.size:
            half = of_logs[:, :, :, None] + of_logs[:, :, None, :]
            scaled = of_covariances / (sd[:, :, None] * sd[:, None, :])
            parts.append(scaled - correlations * half)
        n = self.n_coordinates
        errors = [
            np.linalg.norm(self.about.whiten(part.reshape(n, -1).T), axis=1).reshape(part.shape[1:])
            for part in parts
        ]
        return (
            errors[0],
            errors[1],
            errors[2],
            errors[3] if len(errors) > 3 else np.zeros((k, d, d)),
        )

    @cached_property
    def standard_errors(self) -> tuple[Array, Array, Array, Array]:
        """Of weights, means, logarithms of standard deviations, and correlations, for one row."""
        return self._standard_errors()

    def quantities(self, aligned: Mixture, n_samples: float) -> list[Quantity]:
        """Every number of a matched estimate that is of interest, worst first."""
        error = np.sqrt(self.variance(n_samples) * max(self.scale, 1.0))
        se_weights, se_means, se_logs, se_correlations = (error * e for e in self.standard_errors)
        k, d = self.mixture.n_components, self.mixture.n_features
        kind = self.mixture.covariance_type
        (means, covariances), (means0, covariances0) = (
            m.full_components for m in (aligned, self.mixture)
        )
        found = []

        def add(
            what: str, i: int, columns: tuple[int, ...], now: float, then: float, z: float
        ) -> None:
            found.append(Quantity(what, i, columns, now, then, z))

        components = range(k)
        for i in components if k > 1 else ():
            now, then = float(aligned.weights[i]), float(self.mixture.weights[i])
            add("weight", i, (), now, then, _over(now - then, se_weights[i]))
        sd, sd0 = (np.sqrt(np.diagonal(c, axis1=-2, axis2=-1)) for c in (covariances, covariances0))
        for i in components:
            for j in range(d):
                now, then = float(means[i, j]), float(means0[i, j])
                add("mean", i, (j,), now, then, _over(now - then, se_means[i, j]))
        shaped = components if kind != "tied" else range(1)
        for i in shaped:
            for j in range(d if kind != "spherical" else 1):
                now, then = float(sd[i, j]), float(sd0[i, j])
                z = _over(float(np.log(now / then)), se_logs[i, j])
                add("spread", i, (j,) if kind != "spherical" else (), now, then, z)
            for a, b in combinations(range(d), 2) if kind in ("full", "tied") else ():
                now = float(covariances[i, a, b] / (sd[i, a] * sd[i, b]))
                then = float(covariances0[i, a, b] / (sd0[i, a] * sd0[i, b]))
                z = _over(now - then, se_correlations[i, a, b])
                add("correlation", i, (a, b), now, then, z)
        return sorted(found, key=lambda q: -abs(q.z))

    @cached_property
    def parts(self) -> dict[tuple[str, int], Part]:
        """What remains to be compared once something is set free: weights, a component, a column."""
        k, d = self.mixture.n_components, self.mixture.n_features
        n = self.n_coordinates
        is_weight = np.arange(n) < k
        found: dict[tuple[str, int], Part] = {}
        if k > 1:
            found["weights", 0] = self._part_of_coordinates(~is_weight)
            for i in range(k):
                found["component", i] = self._part_of_coordinates(~is_weight & (self._owners != i))
        if d > 1 and n <= MOST_COORDINATES and self.mixture.covariance_type != "spherical":
            for j in range(d):
                found["column", j] = self._part_without_column(j)
        return found

    def _part_of_coordinates(self, kept: NDArray[np.bool_]) -> Part:
        if self.about.root is None:
            return Part(kept, None, int(kept.sum()))
        return self._part(np.eye(self.n_coordinates)[kept])

    def _part_without_column(self, j: int) -> Part:
        """Weights, and the means and covariances of all columns but one: the marginal mixture of those."""
        k, d = self.mixture.n_components, self.mixture.n_features
        n, rest = self.n_coordinates, np.delete(np.arange(d), j)
        means, variances, covariances = self._gradients
        stem = range(1) if self.mixture.covariance_type == "tied" else range(k)
        rows = [np.eye(n)[: k - 1], means[:, :, rest].reshape(n, -1).T]
        if covariances.size:
            a, b = np.triu_indices(len(rest))
            rows += [covariances[:, i][:, rest[a], rest[b]].T for i in stem]
        else:
            rows += [variances[:, i][:, rest].T for i in stem]
        # Every row in units of its own error: a column in small units is no smaller.
        H = np.concatenate(rows)
        errors = np.linalg.norm(self.about.whiten(H), axis=1)
        return self._part(H / np.maximum(errors, 1e-300)[:, None])

    def _part(self, H: Array) -> Part:
        A = self.about.whiten(H)
        upper: Array = np.linalg.qr(A.T)[1]
        return Part(H, upper, len(H))


class Part(NamedTuple):
    """Linear functions of a difference, with the factor of their covariance; a mask of coordinates where that is 1."""

    functions: Array | NDArray[np.bool_]
    upper: Array | None
    n_free: int

    def statistic(self, v: Array, variance: float) -> float:
        if self.upper is None:
            part = v[self.functions.astype(bool)]
        else:
            part = solve_triangular(self.upper, self.functions @ v, trans="T")
        return float(part @ part) / variance


def _over(difference: float, error: float) -> float:
    return float(difference / error) if error > 0 else 0.0


def make_standard_errors(
    mixture: Mixture,
    n_samples: float,
    members: Sequence[LocalEstimate] = (),
) -> StandardErrors:
    """The global mixture as what estimates are measured by.

    Parameters
    ----------
    mixture : Mixture
    n_samples : float
        Rows behind it.
    members : sequence of LocalEstimate
        Some of those that it was made of: what they show corrects scale and spread.
    """
    # What sampling explains is no secret, and the same whoever asks.
    rng = np.random.default_rng(0)
    about = information(mixture.family, mixture.weights, mixture.components, rng)
    plain = StandardErrors(mixture, about, n_samples, _overall_of(mixture, rng))
    present = [(e.mixture, e.n_samples) for e in members if e.mixture is not None]
    if not present:
        return plain
    statistics, whole = [], []
    for m, n in present:
        statistics.append(plain.statistic(m, n, True))
        r = plain.overall.residual(m)
        whole.append(float(r @ r) / plain.variance(n, True))
    settled = settle(np.array(statistics), chi_square_law(mixture.n_parameters))
    of_columns = settle(np.array(whole), chi_square_law(plain.overall.n_free))
    overall = replace(plain.overall, scale=of_columns.scale, spread=of_columns.spread)
    return replace(plain, overall=overall, scale=settled.scale, spread=settled.spread)
