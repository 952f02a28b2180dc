"""How far estimates are from a global mixture in standard errors: as a whole, in parts, and in whole columns.

The components of an estimate are matched to those of the global mixture. Their difference v, in the coordinates of the
family, is measured by the Fisher information I at the global mixture (:mod:`dask_dfmr.mixtures.information`). Its
squared length n v'I v is Wald's statistic: chi-square for a consistent estimate from n rows. Its scale and spread are
corrected by those of the kept estimates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

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
"""With more columns than this, whole columns are compared by their means and variances alone."""

N_COLUMN_DRAWS = 2**13
"""Rows drawn for the errors of means and covariances of whole columns."""

LEAST_OWN_SHARE = 0.2
"""Least variance of the difference between a kept estimate and the global mixture, as a share of the estimate's own.

An estimate that makes up most of the global mixture would otherwise be compared with itself."""

TINY = 1e-300
"""Weights and errors count as at least this much, so that they can be divided by."""


# -- whole columns, whatever the components ------------------------------------------------------------


@dataclass(frozen=True)
class WholeColumns:
    """Mean and covariance of all columns under the global mixture, and their errors in an estimate.

    A fixed point of EM has the mean and the covariance of its rows, as far as the family can express them. So those
    of an estimate are right in whatever optimum its fit ended.

    Parameters
    ----------
    mean : ndarray of shape (n_features,)
    root : ndarray of shape (n_features, n_features)
        Lower Cholesky factor of the covariance, or of its diagonal.
    error_root : ndarray of shape (n_free, n_free)
        Lower Cholesky factor of the covariance of :meth:`difference`, for one row.
    form : {"full", "diag", "spherical"}
        What is compared of covariances.
    scale, spread : float, default 1.0
        Corrections of the law, as in :class:`StandardErrors`.
    """

    mean: Array
    root: Array
    error_root: Array
    form: str
    scale: float = 1.0
    spread: float = 1.0

    @property
    def n_free(self) -> int:
        """How many numbers are compared."""
        return len(self.error_root)

    def difference(self, mean: Array, covariance: Array) -> Array:
        """Difference of means and of covariances, (n_free,), in coordinates in which the covariance is the identity."""
        with np.errstate(over="ignore", invalid="ignore"):
            # What overflows is infinitely far off, so that it is not refused.
            white = solve_triangular(self.root, covariance, lower=True, check_finite=False)
            white = solve_triangular(self.root, white.T, lower=True, check_finite=False)
            shift = solve_triangular(self.root, mean - self.mean, lower=True, check_finite=False)
            return np.concatenate([shift, self._compared(white - np.eye(len(mean)))])

    def _compared(self, white: Array) -> Array:
        """The entries of a white covariance that ``form`` compares."""
        variances: Array = np.diagonal(white, axis1=-2, axis2=-1)
        if self.form == "spherical":
            return variances.mean(axis=-1, keepdims=True)
        if self.form == "diag":
            return variances
        a, b = np.tril_indices(white.shape[-1])
        return white[..., a, b]

    def residual(self, mixture: Mixture) -> Array:
        """The difference of a mixture, (n_free,), in coordinates that are white for one row."""
        v = self.difference(*whole_moments(mixture))
        v = np.clip(np.nan_to_num(v, nan=MAX_COORDINATE), -MAX_COORDINATE, MAX_COORDINATE)
        return np.asarray(solve_triangular(self.error_root, v, lower=True))

    def p_value(self, statistic: float) -> float:
        """Probability that a consistent estimate has a larger squared difference."""
        law = chi_square_law(self.n_free).scaled(self.scale, self.spread)
        return float(law.sf(np.array(statistic)))


def whole_moments(mixture: Mixture) -> tuple[Array, Array]:
    """Mean (n_features,) and covariance (n_features, n_features) of all columns under a mixture."""
    means, covariances = mixture.full_components
    mean = mixture.weights @ means
    centered = means - mean
    with np.errstate(over="ignore"):
        between = (mixture.weights[:, None] * centered).T @ centered
        return mean, np.einsum("k,kij->ij", mixture.weights, covariances) + between


def column_moments(mixture: Mixture) -> tuple[Array, Array]:
    """Mean and standard deviation of every column under a mixture, both (n_features,)."""
    mean, covariance = whole_moments(mixture)
    return mean, np.sqrt(np.diagonal(covariance))


def _whole_columns_of(mixture: Mixture, rng: np.random.Generator) -> WholeColumns:
    """The moments of a mixture, with errors from rows that are drawn from it."""
    mean, covariance = whole_moments(mixture)
    form = {"tied": "full"}.get(mixture.covariance_type, mixture.covariance_type)
    if form == "full" and mixture.n_features > MOST_COVARIANCES:
        form = "diag"
    if form != "full":
        covariance = np.diag(np.diagonal(covariance))
    root = np.linalg.cholesky(covariance).astype(np.float64)
    columns = WholeColumns(mean, root, np.eye(1), form)
    rows, _ = mixture.family.sample(N_COLUMN_DRAWS, mixture.weights, mixture.components, rng)
    y = solve_triangular(root, (rows - mean).T, lower=True).T
    if form == "full":
        a, b = np.tril_indices(mixture.n_features)
        squares = y[:, a] * y[:, b]
    else:
        squares = y**2 if form == "diag" else (y**2).mean(axis=1, keepdims=True)
    errors = np.atleast_2d(np.cov(np.hstack([y, squares]).T))
    errors += 1e-9 * np.diag(np.diagonal(errors))
    return replace(columns, error_root=np.linalg.cholesky(errors).astype(np.float64))


# -- whole mixtures, and parts of them -----------------------------------------------------------------


class Quantity(NamedTuple):
    """One number of an estimate beside that of the global mixture.

    ``what`` is "weight", "mean", "spread" (a standard deviation) or "correlation". ``columns`` are those that it
    belongs to, none for a weight. ``z`` is the difference in standard errors; that of a spread is logarithmic.
    """

    what: str
    component: int
    columns: tuple[int, ...]
    estimate: float
    reference: float
    z: float


class RowErrors(NamedTuple):
    """Standard errors of the numbers of an estimate from one row.

    ``weights`` (n_components,); ``means`` and ``log_sds``, logarithms of standard deviations, both
    (n_components, n_features); ``correlations`` (n_components, n_features, n_features).
    """

    weights: Array
    means: Array
    log_sds: Array
    correlations: Array


class Part(NamedTuple):
    """Linear functions of a difference, which a change of one weight, component or column leaves alone.

    ``functions`` are their coefficients (n_free, n_coordinates), and ``upper`` is the factor of their covariance. Where
    the information is the identity, ``functions`` is a mask of coordinates and ``upper`` is None.
    """

    functions: Array | NDArray[np.bool_]
    upper: Array | None
    n_free: int

    def statistic(self, v: Array, variance: float) -> float:
        """Squared length of the functions of ``v`` (n_coordinates,), in standard errors."""
        if self.upper is None:
            part = v[self.functions.astype(bool)]
        else:
            part = solve_triangular(self.upper, self.functions @ v, trans="T")
        return float(part @ part) / variance


@dataclass(frozen=True)
class StandardErrors:
    """The global mixture, with the errors of estimates of it; :func:`make_standard_errors` makes one.

    Parameters
    ----------
    mixture : Mixture
        The global mixture, called the reference below.
    about : Information
        Fisher information at the mixture.
    n_samples : float
        Rows behind the mixture.
    columns : WholeColumns
        Moments of whole columns, with their errors.
    scale, spread : float, default 1.0
        By how much squared differences of the kept estimates are larger than the information makes them, and by how
        much more they scatter.
    """

    mixture: Mixture
    about: Information
    n_samples: float
    columns: WholeColumns
    scale: float = 1.0
    spread: float = 1.0

    # -- whole mixtures --

    def aligned(self, mixture: Mixture) -> Mixture:
        """The mixture with its components in the order of the reference's, matched one to one."""
        family = self.mixture.family
        return mixture.reordered(
            match_components(family, self.mixture.components, mixture.components)
        )

    def difference(self, aligned: Mixture, weights: Array | None = None) -> Array:
        """Coordinates (n_coordinates,) of a matched estimate about the reference.

        With ``weights`` (n_components,), they are about the reference with these weights.
        """
        about = self.mixture.weights if weights is None else weights
        origin = (about, self.mixture.components)
        return difference(self.mixture.family, aligned.weights, aligned.components, origin)

    def residual(self, v: Array) -> Array:
        """White coordinates (n_coordinates,) of a difference: their squares add up to v' I v."""
        return self.about.residual(v)

    def variance(self, n_samples: float, is_member: bool = False) -> float:
        """Variance of the difference of an estimate from ``n_samples`` rows, per unit of information.

        The error of a member, an estimate that the reference was made of, is a part of the reference's error.
        """
        own, common = 1.0 / n_samples, 1.0 / self.n_samples
        return max(own - common, LEAST_OWN_SHARE * own) if is_member else own + common

    def statistic(self, mixture: Mixture, n_samples: float, is_member: bool = False) -> float:
        """Squared length of the difference of an estimate, in standard errors."""
        r = self.residual(self.difference(self.aligned(mixture)))
        return float(r @ r) / self.variance(n_samples, is_member)

    def p_value(self, statistic: float, n_free: int) -> float:
        """Probability that ``n_free`` numbers of a consistent estimate have a larger squared difference."""
        law = self.law(n_free)
        return float(law.sf(np.array(statistic)))

    def law(self, n_free: int) -> Law:
        """Law of the squared length of ``n_free`` white coordinates."""
        return chi_square_law(n_free).scaled(self.scale, self.spread)

    def distance(self, mixture: Mixture) -> float:
        """L2 distance between a mixture and the reference, in units of the reference's own norm."""
        family = self.mixture.family
        a, b = stack_mixtures([self.mixture]), stack_mixtures([mixture])
        log_a, log_b = log_self_products(family, a), log_self_products(family, b)
        return float(l2_tile(family, a, b, log_a, log_b, float(log_a[0]))[0, 0])

    # -- single numbers --

    @property
    def n_coordinates(self) -> int:
        """Length of :meth:`difference`: the number of coordinates of the family."""
        return len(self.about.normal)

    @cached_property
    def _gradients(self) -> tuple[Array, Array, Array]:
        """Derivatives of means, variances and covariances in the coordinates, which are the first axis.

        The other axes are (n_components, n_features) for means and variances, and (n_components, n_features,
        n_features) for covariances, which are empty where the family has none.
        """
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

    @cached_property
    def of_one_row(self) -> RowErrors:
        """Standard errors of an estimate from one row."""
        _, covariances = self.mixture.full_components
        variances = np.diagonal(covariances, axis1=-2, axis2=-1)
        sd = np.sqrt(variances)
        correlations = covariances / (sd[:, :, None] * sd[:, None, :])
        if self.n_coordinates > MOST_COORDINATES:
            return self._errors_of_labelled_rows(sd, correlations)
        return self._errors_by_information(variances, correlations)

    def _errors_of_labelled_rows(self, sd: Array, correlations: Array) -> RowErrors:
        """The errors if the component of each row were known: lower bounds, where a matrix would be too large."""
        mixture = self.mixture
        share = np.maximum(mixture.weights, TINY)
        is_tied = mixture.covariance_type == "tied"
        root = np.sqrt(np.ones(mixture.n_components) if is_tied else share)
        columns = mixture.n_features if mixture.covariance_type == "spherical" else 1
        return RowErrors(
            np.sqrt(share * (1 - share)),
            sd / np.sqrt(share)[:, None],
            np.ones_like(sd) / np.sqrt(2.0 * columns) / root[:, None],
            (1 - correlations**2) / root[:, None, None],
        )

    def _errors_by_information(self, variances: Array, correlations: Array) -> RowErrors:
        """The delta method: gradients, whitened by the information."""
        n, k, sd = self.n_coordinates, self.mixture.n_components, np.sqrt(variances)
        means, of_variances, of_covariances = self._gradients
        of_weights = np.zeros((n, k))
        of_weights[:k, :k] = np.diag(np.sqrt(self.mixture.weights))
        of_logs = of_variances / (2.0 * variances)
        parts = [of_weights, means, of_logs]
        if of_covariances.size:
            half = of_logs[:, :, :, None] + of_logs[:, :, None, :]
            scaled = of_covariances / (sd[:, :, None] * sd[:, None, :])
            parts.append(scaled - correlations * half)
        errors = [
            np.linalg.norm(self.about.whiten(part.reshape(n, -1).T), axis=1).reshape(part.shape[1:])
            for part in parts
        ]
        of_correlations = errors[3] if len(errors) > 3 else np.zeros_like(correlations)
        return RowErrors(errors[0], errors[1], errors[2], of_correlations)

    def quantities(self, aligned: Mixture, n_samples: float) -> list[Quantity]:
        """Weights, means, standard deviations and correlations of a matched estimate, the farthest off first."""
        error = np.sqrt(self.variance(n_samples) * max(self.scale, 1.0))
        errors = RowErrors(*(error * e for e in self.of_one_row))
        found = [
            *self._weights(aligned, errors),
            *self._means(aligned, errors),
            *self._shapes(aligned, errors),
        ]
        return sorted(found, key=lambda q: -abs(q.z))

    def _weights(self, aligned: Mixture, errors: RowErrors) -> Iterator[Quantity]:
        k = self.mixture.n_components
        for i in range(k) if k > 1 else ():
            now, then = float(aligned.weights[i]), float(self.mixture.weights[i])
            yield Quantity("weight", i, (), now, then, _over(now - then, errors.weights[i]))

    def _means(self, aligned: Mixture, errors: RowErrors) -> Iterator[Quantity]:
        means, means0 = aligned.full_components[0], self.mixture.full_components[0]
        for i, j in np.ndindex(*means0.shape):
            now, then = float(means[i, j]), float(means0[i, j])
            yield Quantity("mean", i, (j,), now, then, _over(now - then, errors.means[i, j]))

    def _shapes(self, aligned: Mixture, errors: RowErrors) -> Iterator[Quantity]:
        """Standard deviations and correlations; those that several components or columns share once only."""
        covariances, covariances0 = aligned.full_components[1], self.mixture.full_components[1]
        sd, sd0 = (np.sqrt(np.diagonal(c, axis1=-2, axis2=-1)) for c in (covariances, covariances0))
        kind, d = self.mixture.covariance_type, self.mixture.n_features
        for i in range(1 if kind == "tied" else self.mixture.n_components):
            for j in range(1 if kind == "spherical" else d):
                now, then = float(sd[i, j]), float(sd0[i, j])
                z = _over(float(np.log(now / then)), errors.log_sds[i, j])
                yield Quantity("spread", i, () if kind == "spherical" else (j,), now, then, z)
            for a, b in combinations(range(d), 2) if kind in ("full", "tied") else ():
                now = float(covariances[i, a, b] / (sd[i, a] * sd[i, b]))
                then = float(covariances0[i, a, b] / (sd0[i, a] * sd0[i, b]))
                z = _over(now - then, errors.correlations[i, a, b])
                yield Quantity("correlation", i, (a, b), now, then, z)

    # -- parts of mixtures --

    @cached_property
    def parts(self) -> dict[tuple[str, int], Part]:
        """What remains to be compared once a part is set free.

        Keys are ("weights", 0), ("component", k) and ("column", j), for the part that is set free.
        """
        k, d = self.mixture.n_components, self.mixture.n_features
        n = self.n_coordinates
        is_weight = np.arange(n) < k
        owners = self.mixture.family.coordinate_owners(self.mixture.components)
        found: dict[tuple[str, int], Part] = {}
        if k > 1:
            found["weights", 0] = self._part_of_coordinates(~is_weight)
            for i in range(k):
                found["component", i] = self._part_of_coordinates(~is_weight & (owners != i))
        if d > 1 and n <= MOST_COORDINATES and self.mixture.covariance_type != "spherical":
            for j in range(d):
                found["column", j] = self._part_without_column(j)
        return found

    def _part_of_coordinates(self, kept: NDArray[np.bool_]) -> Part:
        if self.about.root is None:
            return Part(kept, None, int(kept.sum()))
        return self._part(np.eye(self.n_coordinates)[kept])

    def _part_without_column(self, j: int) -> Part:
        """Weights, and means and covariances of all columns but one: the marginal mixture of these columns."""
        k, d = self.mixture.n_components, self.mixture.n_features
        n, rest = self.n_coordinates, np.delete(np.arange(d), j)
        # In units of the columns: squares of covariances could overflow.
        sd = column_moments(self.mixture)[1]
        means, variances, covariances = self._gradients
        means, variances = means / sd, variances / sd / sd
        covariances = covariances / sd / sd[:, None] if covariances.size else covariances
        shaped = range(1) if self.mixture.covariance_type == "tied" else range(k)
        functions = [np.eye(n)[: k - 1], means[:, :, rest].reshape(n, -1).T]
        if covariances.size:
            a, b = np.triu_indices(len(rest))
            functions += [covariances[:, i][:, rest[a], rest[b]].T for i in shaped]
        else:
            functions += [variances[:, i][:, rest].T for i in shaped]
        # Each function in units of its own error: otherwise a column in small units would hardly count.
        H = np.concatenate(functions)
        errors = np.linalg.norm(self.about.whiten(H), axis=1)
        return self._part(H / np.maximum(errors, TINY)[:, None])

    def _part(self, H: Array) -> Part:
        A = self.about.whiten(H)
        upper: Array = np.linalg.qr(A.T)[1]
        return Part(H, upper, len(H))


def _over(difference: float, error: Any) -> float:
    return float(difference / error) if error > 0 else 0.0


def make_standard_errors(
    mixture: Mixture,
    n_samples: float,
    members: Sequence[LocalEstimate] = (),
) -> StandardErrors:
    """The standard errors of estimates of a global mixture.

    Parameters
    ----------
    mixture : Mixture
    n_samples : float
        Rows behind the mixture.
    members : sequence of LocalEstimate, default ()
        Some of the estimates that the mixture was made of. Their differences correct scale and spread; without any,
        the law is that of the information alone.
    """
    # A fixed seed: the draws are of the global mixture, and the result must be the same at every call.
    rng = np.random.default_rng(0)
    about = information(mixture.family, mixture.weights, mixture.components, rng)
    plain = StandardErrors(mixture, about, n_samples, _whole_columns_of(mixture, rng))
    present = [(e.mixture, e.n_samples) for e in members if e.mixture is not None]
    if not present:
        return plain
    statistics, of_columns = [], []
    for m, n in present:
        statistics.append(plain.statistic(m, n, True))
        r = plain.columns.residual(m)
        of_columns.append(float(r @ r) / plain.variance(n, True))
    settled = settle(np.array(statistics), chi_square_law(mixture.n_parameters))
    whole = settle(np.array(of_columns), chi_square_law(plain.columns.n_free))
    columns = replace(plain.columns, scale=whole.scale, spread=whole.spread)
    return replace(plain, columns=columns, scale=settled.scale, spread=settled.spread)
