"""Gaussian mixtures: the family :class:`Gaussian` and its mixture value :class:`Mixture`.

The family makes its mixtures and a mixture names its family, so both are in one module. Everything that depends on the
covariance structure is in :mod:`dask_dfmr.mixtures.covariances`.

Components are ``(means, covariances)``: (n_components, d), and (n_components, ...) with the axes (d, d), (d,) or () of
one covariance. Moments are taken about the means of a reference, not about zero, so nothing cancels if the data lie far
from the origin: mass = sum r, first = sum r (x - mu), second = sum r (x - mu)(x - mu)^T, the last one in the shape of
the covariances (its diagonal, or its trace / d). ``tied`` has one second moment, (1, d, d), the sum of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from dask_dfmr import checks
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.covariances import (
    SHAPES,
    VARIANCE_RANGE,
    CovarianceShape,
    as_symmetric,
    check_positive,
    check_shape,
    least_eigenvalue,
)
from dask_dfmr.mixtures.degeneracy import degeneracy
from dask_dfmr.mixtures.family import (
    BLOCK_FLOATS,
    LOG_2PI,
    MAX_SQUARED_LENGTH,
    Array,
    Components,
    EmSteps,
    EmSums,
    Labels,
    Moments,
    Prior,
    Quantity,
    Rows,
    RowTotals,
    StepRule,
    as_block,
    batches,
    em_steps,
    quantity_of,
)
from dask_dfmr.mixtures.known_scatter import (
    KnownScatter,
    hard_moments_of_known,
    known_scatter,
    steps_of_known,
)
from dask_dfmr.mixtures.mixture import FiniteMixture, as_floats, check_weights
from dask_dfmr.mixtures.row_cut import COUNTING, RowCut
from dask_dfmr.mixtures.shared_pass import MAX_WHITE_MEAN, log_densities, shared_pass
from dask_dfmr.reprs import component_table, html_lines, html_table, text_table

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

COVARIANCE_TYPES = tuple(SHAPES)
CovarianceType = Literal["full", "tied", "diag", "spherical"]
"""scikit-learn's names of the covariance structures."""

EM_BLOCK_FLOATS = 2**15
"""Size of each of the two arrays of residuals in an EM pass, 256 kB."""

PAIR_FLOATS = 2**18
"""Size of the temporaries of a kernel over pairs of components, 2 MB."""

MAX_MEAN = 1e145
"""Larger means overflow when they are squared."""

MAX_FROM_CENTER = 2.0**20
"""Distance of a mean from the center of all means, in standard deviations, up to which residuals are computed about
that center. Their error is the rounding of this distance, 2e-10 standard deviations."""

LEAST_COLUMNS_OF_TOTALS = 20
"""From so many columns on, steps with the scatter of all rows take less time than compiled ones without it. Measured
over 5,000 rows, K = 5: 1.6 times as long in 15 columns, as long in 20, .8 times in 30, .4 times in 60, and .2 times in
150. Without compiled code they take less time in all: a quarter in 2 and 10 columns, a sixth in 150."""

LEAST_WEIGHT = 1e-12
"""Smallest weight in coordinates, which divide by the weights."""

ROWS_PER_DETERMINED = 10
"""Rows of a usable fit for each number that a column has to determine. Measured (benchmarks/least_rows.py): with 5 the
held-out log-likelihood hardly falls, but in 30 columns up to 30 % of consistent partitions are excluded; with 10 few
are."""

POOLED_ROWS = 1.0
"""Rows of the pooled covariance in the target of each component, beside its own. Measured on 12 partitions of 60 to 400
rows: 2 d and 1 are alike, but 2 d rows widen the tightest of clusters of very unlike spread. With 0.1 a component of a
few rows shrinks onto them: up to 4 of 12 consistent partitions of 60 rows are excluded, and held-out likelihood falls.
"""

SHARE_OF_ALL_ROWS = 1e-6
"""Share of the covariance between components in the target of the penalty. Measured (benchmarks/penalty.py): with it
clusters of a standard deviation of 4e-5 of their range, 30 rows each, lose nothing against scikit-learn."""

_FIELDS = ("weights", "means", "covariances", "covariance_type", "feature_names")
"""Arguments of :class:`Mixture`; the first three are required."""

# -- the family ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian family with one covariance structure.

    It implements :class:`dask_dfmr.mixtures.family.Family`. ``components`` are ``(means, covariances)``, both with the
    component axis first, for ``tied`` too.

    Parameters
    ----------
    covariance_type : {"full", "diag", "tied", "spherical"}, default "full"
        As in scikit-learn.
    cut : RowCut
        The family of a mixture counts rows beyond all cuts; that of a fit may also truncate.
    """

    covariance_type: str = "full"
    cut: RowCut = COUNTING

    @property
    def name(self) -> str:
        return f"gaussian-{self.covariance_type}"

    @property
    def _shape(self) -> type[CovarianceShape]:
        return SHAPES[self.covariance_type]

    @property
    def _is_tied(self) -> bool:
        return self.covariance_type == "tied"

    def _distinct(self, covariances: Array) -> Array:
        """The covariances of a mixture without the copies that a tied one has."""
        return covariances[:1] if self._is_tied else covariances

    def with_cut(self, cut: RowCut) -> Gaussian:
        return Gaussian(self.covariance_type, cut)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        n_covariances = 1 if self._is_tied else n_components
        n_numbers = n_covariances * self._shape.n_parameters(n_features)
        return n_components - 1 + n_components * n_features + n_numbers

    def least_rows(self, n_components: int, n_features: int) -> int:
        n_parameters = self.n_parameters(n_components, n_features)
        if self.covariance_type == "full":
            return max(n_parameters, 2)
        # A row gives each column one number. These inform the weights, the means of the column and the covariances.
        of_covariances = {
            "tied": n_features,
            "diag": n_components,
            "spherical": -(-n_components // n_features),
        }[self.covariance_type]
        determined = 2 * n_components - 1 + of_covariances
        return max(min(ROWS_PER_DETERMINED * determined, n_parameters), 2)

    def least_component_rows(self, n_features: int) -> int:
        # As many rows as give a covariance of full rank; a tied one has those of all components.
        return {"full": n_features + 1, "tied": 1, "diag": 2, "spherical": 2}[self.covariance_type]

    def n_features(self, components: Components) -> int:
        return int(components[0].shape[-1])

    # -- densities --------------------------------------------------------------------------------

    def sample(
        self, n_samples: int, weights: Array, components: Components, rng: Any
    ) -> tuple[Array, Labels]:
        counts = rng.multinomial(n_samples, weights / weights.sum())
        y = np.repeat(np.arange(len(weights)), counts)
        means, covariances = components
        white = rng.standard_normal((n_samples, means.shape[-1]))
        return means[y] + self._shape.multiply(self._shape.root(covariances)[y], white), y

    def log_density(self, X: Array, components: Components) -> Array:
        means, covariances = components
        root = self._shape.root(self._distinct(covariances))
        inverse_root = self._shape.inverse_root(root)
        log_norm = np.broadcast_to(self._log_norm(root, means.shape[-1]), len(means))
        if self._is_tied and self._farthest(means, inverse_root) <= MAX_WHITE_MEAN:
            return log_densities(X, means, inverse_root[0], log_norm)
        y = self._white_residuals(X, means, np.broadcast_to(inverse_root, covariances.shape))
        return self._log_density(y, np.empty_like(y), log_norm).T

    def evaluate(
        self, X: Rows, weights: Array, components: Components, quantity: Quantity
    ) -> Array:
        means, covariances = components
        root = self._shape.root(covariances)
        inverse_root = self._shape.inverse_root(root)
        log_norm = self._log_norm(root, means.shape[-1])
        with np.errstate(divide="ignore"):
            log_weights = np.log(weights)
        compiled = engine.compiled()
        if compiled is not None and self._farthest(means, inverse_root) <= MAX_FROM_CENTER:
            scale = self._shape.by_column(inverse_root, means.shape[-1])
            found: Array = compiled.evaluate(X, log_weights, means, scale, log_norm, quantity)
            return found
        shape = (len(X), len(weights)) if quantity == "responsibilities" else (len(X),)
        found = np.empty(shape)
        for batch in batches(len(X), max(256, BLOCK_FLOATS // means.size)):
            y = self._white_residuals(as_block(X[batch]), means, inverse_root)
            joint = self._log_density(y, np.empty_like(y), log_norm).T
            found[batch] = quantity_of(joint + log_weights, quantity)
        return found

    def log_density_of_each(self, X: Rows, components: Components) -> Array:
        if self._is_tied:  # rows are whitened once
            return self.log_density(as_block(X), components)
        means, covariances = components
        root = self._shape.root(covariances)
        inverse_root = self._shape.inverse_root(root)
        log_norm = self._log_norm(root, means.shape[-1])
        found = np.empty((len(X), len(means)))
        for k in range(len(means)):
            one = slice(k, k + 1)
            found[:, k] = self._log_density_of_one(X, means[one], inverse_root[one], log_norm[one])
        return found

    def _log_density_of_one(
        self, X: Rows, means: Array, inverse_root: Array, log_norm: Array
    ) -> Array:
        """Log phi(x) of all rows, shape (n,), from parameters with a component axis of length 1."""
        compiled = engine.compiled()
        if compiled is not None:
            scale = self._shape.by_column(inverse_root, means.shape[-1])
            alone: Array = compiled.evaluate(X, np.zeros(1), means, scale, log_norm, "log_density")
            return alone
        found = np.empty(len(X))
        for batch in batches(len(X), max(256, BLOCK_FLOATS // means.size)):
            y = self._white_residuals(as_block(X[batch]), means, inverse_root)
            found[batch] = self._log_density(y, np.empty_like(y), log_norm)[0]
        return found

    def log_peaks(self, components: Components) -> Array:
        means, covariances = components
        return self._log_norm(self._shape.root(covariances), means.shape[-1])

    def _white_residuals(
        self,
        X: Rows,
        means: Array,
        inverse_root: Array,
        out: Array | None = None,
        are_far: bool | None = None,
    ) -> Array:
        """White residuals (K, d, n). The rows are last, so that the inner loops of NumPy are long.

        ``are_far`` says whether means are farther than :data:`MAX_FROM_CENTER` from the center of all, if it is known.
        """
        if are_far is None:
            are_far = not self._farthest(means, inverse_root) <= MAX_FROM_CENTER
        if are_far:
            return self._residuals_of_each(X, means, inverse_root, out)
        # W (x - mu) is computed as W x - W mu. About the center both terms are as small as the residuals.
        center = means.mean(axis=0)
        columns = np.subtract(X.T, center[:, None], order="C")
        return self._shape.whiten(columns, means - center, inverse_root, out)

    def _farthest(self, means: Array, inverse_root: Array) -> float:
        """Distance of a mean from the center of all, in one white column, at most; inf if it overflows.

        Where it is large, rounding would spoil residuals about the center.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            white = self._shape.multiply(inverse_root, means - means.mean(axis=0))
            farthest = float(np.abs(white).max())
        return np.inf if np.isnan(farthest) else farthest

    def _residuals_of_each(
        self, X: Rows, means: Array, inverse_root: Array, out: Array | None
    ) -> Array:
        """The white residuals, about each mean itself: nothing cancels, and it takes longer."""
        y = np.empty((*means.shape, len(X))) if out is None else out
        origin = np.zeros_like(means[:1])
        for k, mean in enumerate(means):
            columns = np.subtract(X.T, mean[:, None], order="C")
            self._shape.whiten(columns, origin, inverse_root[k : k + 1], y[k : k + 1])
        return y

    def _log_density(self, y: Array, scratch: Array, log_norm: Array) -> Array:
        """Log phi_k(x) of all rows, shape (K, n), from their white residuals."""
        with np.errstate(over="ignore"):
            joint = self._shape.squared_lengths(y, scratch)
        # A row that overflows for every component is equally far from all of them, instead of NaN.
        np.minimum(joint, MAX_SQUARED_LENGTH, out=joint)
        joint *= -0.5
        joint += log_norm[:, None]
        return joint

    def _log_norm(self, root: Array, n_features: int) -> Array:
        """Log-density of each component at its mean, shape (K,)."""
        return -0.5 * (n_features * LOG_2PI + self._shape.log_det(root, n_features))

    def log_product_integral(
        self, a: Components, b: Components, floor: tuple[Array, Array] | None = None
    ) -> Array:
        """Log N(mu_i; nu_j, Sigma_i + Omega_j): the product integral of two Gaussian densities."""
        compiled = engine.compiled()
        with np.errstate(over="ignore"):  # infinitely far apart is -inf
            if compiled is None:
                return self._log_product_integral(a, b)
            n_features = a[0].shape[-1]
            a, b = ((m, self._shape.by_column(c, n_features)) for m, c in (a, b))
            return compiled.log_product_integral(a, b, floor)

    def log_matched_integral(self, a: Components, b: Components) -> Array:
        # N(mu; nu, Sigma + Omega) depends on the difference of the means and the sum of the covariances alone.
        means, covariances = a[0] - b[0], a[1] + b[1]
        nothing = np.zeros_like(means[:1]), np.zeros_like(covariances[:1])
        integrals: Array = self.log_product_integral(nothing, (means, covariances))[0]
        return integrals

    def _log_product_integral(self, a: Components, b: Components) -> Array:
        means_a, covariances_a = a
        means_b, covariances_b = b
        n_features = means_a.shape[-1]
        out = np.empty((len(means_a), len(means_b)))
        floats_a_row = len(means_b) * max(covariances_b[0].size, n_features)
        step = max(1, PAIR_FLOATS // floats_a_row)
        for s in batches(len(means_a), step):
            root = self._shape.root(covariances_a[s, None] + covariances_b[None, :])
            y = self._shape.solve(root, means_a[s, None] - means_b[None, :])
            log_det = self._shape.log_det(root, n_features)
            out[s] = -0.5 * (n_features * LOG_2PI + log_det + np.einsum("ijd,ijd->ij", y, y))
        return out

    # -- mixture reduction ------------------------------------------------------------------------

    def divergence(self, a: Components, b: Components) -> Array:
        """KL(N_i || N_k) = 1/2 { tr(B^-1 A) - d + (mu - nu)^T B^-1 (mu - nu) + log det B - log det A }."""
        with np.errstate(over="ignore"):  # infinitely far apart is inf
            return self._divergence(a, b)

    def _divergence(self, a: Components, b: Components) -> Array:
        means_a, covariances_a = a
        means_b, covariances_b = b
        n_features = means_a.shape[-1]
        root_a, root_b = self._shape.root(covariances_a), self._shape.root(covariances_b)
        inverse_b = self._shape.inverse_root(root_b)
        traces = self._shape.trace_ratio(covariances_a, inverse_b, n_features)
        y = self._white_residuals(means_a, means_b, inverse_b)
        mahalanobis = np.einsum("kdn,kdn->nk", y, y)
        log_dets = (
            self._shape.log_det(root_b, n_features)[None]
            - self._shape.log_det(root_a, n_features)[:, None]
        )
        return np.maximum(0.5 * (traces - n_features + mahalanobis + log_dets), 0.0)

    def pooled_moments(
        self, weights: Array, components: Components, labels: Labels, reference: Components
    ) -> Moments:
        means, covariances = components
        n_components = len(reference[0])
        shift = means - reference[0][labels]
        mass, first = np.zeros(n_components), np.zeros_like(reference[0])
        np.add.at(mass, labels, weights)
        np.add.at(first, labels, weights[:, None] * shift)
        second = np.zeros((n_components, *covariances.shape[1:]))
        np.add.at(
            second, labels, self._shape.times(weights, covariances + self._shape.outer(shift))
        )
        return mass, first, self._of_type(second)

    def _of_type(self, second: Array) -> Array:
        """Second moments (K, ...) of each component, as moments hold them: their sum alone, (1, ...), if tied."""
        return second.sum(axis=0, keepdims=True) if self._is_tied else second

    def place(self, components: Components, positions: Labels, source: Components) -> Components:
        means, covariances = (parameter.copy() for parameter in components)
        means[positions] = source[0]
        if not self._is_tied:
            covariances[positions] = source[1]
        return means, covariances

    # -- EM ---------------------------------------------------------------------------------------

    def em_pass(self, X: Rows, weights: Array, components: Components) -> EmSums:
        means, covariances = components
        n_features = means.shape[-1]
        root = self._shape.root(self._distinct(covariances))
        inverse_root = self._shape.inverse_root(root)
        log_norm = np.broadcast_to(self._log_norm(root, n_features), weights.shape)
        with np.errstate(divide="ignore"):
            log_weights = np.log(weights)  # -inf for a component of weight 0, which has no rows
        cut = (self.cut.numbers(n_features).limit, self.cut.truncates)
        farthest = self._farthest(means, inverse_root)
        if self._is_tied and farthest <= MAX_WHITE_MEAN:
            sums = shared_pass(X, log_weights, means, inverse_root[0], log_norm, cut)
        else:
            sums = self._pass_of_each(
                X, log_weights, means, inverse_root, log_norm, farthest > MAX_FROM_CENTER
            )
        with np.errstate(over="ignore", invalid="ignore"):  # rows far from every component
            mass, first, second = self._undo_cut(sums.moments, n_features)
            return sums._replace(moments=(mass, *self._shape.colour(first, second, root)))

    def row_totals(self, X: Rows) -> RowTotals | None:
        """The :class:`KnownScatter` of the rows, for tied covariances if no row is cut off."""
        is_slow = engine.compiled() is None or X.shape[1] >= LEAST_COLUMNS_OF_TOTALS
        if not (self._is_tied and is_slow) or self.cut.truncates:
            return None
        return known_scatter(X)

    def em_steps(
        self,
        X: Rows,
        weights: Array,
        components: Components,
        prior: Prior,
        rule: StepRule,
        totals: RowTotals | None = None,
    ) -> EmSteps:
        if totals is not None:
            steps = self._steps_of_known(X, (weights, components), prior, rule, totals)
            if steps.n_steps:
                return steps
        compiled = engine.compiled()
        if compiled is not None:
            steps = self._compiled_steps(compiled, X, (weights, components), prior, rule)
            if steps.n_steps:
                return steps
            # Means are too far apart for one center, or there is no step.
            rule = rule._replace(n_most=1)
        return em_steps(self, X, weights, components, prior, rule)

    def _compiled_steps(
        self, compiled: Any, X: Rows, point: tuple[Array, Components], prior: Prior, rule: StepRule
    ) -> EmSteps:
        weights, (means, covariances) = point
        n_components, d = means.shape
        distinct = self._distinct(covariances)
        target = np.broadcast_to(prior.target[0], distinct.shape) if prior.target else distinct
        flat, flat_target = (
            self._shape.by_column(one, d).reshape(len(distinct), -1) for one in (distinct, target)
        )
        limit, *left = self.cut.numbers(d)
        # An int or a float32 of the user would compile the kernel for another type of argument.
        weight, floor = float(prior.weight), float(prior.floor)
        shrinkage = compiled.Shrinkage(
            weight, floor, not prior.target, POOLED_ROWS, SHARE_OF_ALL_ROWS
        )
        farthest = MAX_WHITE_MEAN if self._is_tied else MAX_FROM_CENTER
        bounds = compiled.Bounds(farthest, MAX_MEAN, *VARIANCE_RANGE, least_eigenvalue(d))
        run = compiled.em_steps(
            X,
            self.covariance_type,
            (weights, means, flat),
            flat_target,
            shrinkage,
            (limit, self.cut.truncates, *(left if self.cut.truncates else (1.0, 1.0))),
            bounds,
            tuple(rule),
        )
        found = self._shape.from_flat(run.covariances, d)
        target = self._shape.from_flat(run.target, d)
        if self._is_tied:
            found, target = np.repeat(found, n_components, axis=0), target[0]
        if not prior.target:
            prior = prior._replace(target=(target,))
        return EmSteps(run.weights, (run.means, found), prior, *run.numbers())

    def _steps_of_known(
        self,
        X: Rows,
        point: tuple[Array, Components],
        prior: Prior,
        rule: StepRule,
        totals: RowTotals,
    ) -> EmSteps:
        """Steps with the scatter of all rows; none if they would not be precise."""
        weights, (means, covariances) = point
        steps = steps_of_known(
            X,
            KnownScatter(*totals),
            (weights, means, covariances[0]),
            prior,
            rule,
            SHARE_OF_ALL_ROWS,
        )
        if not (steps.n_steps and self.is_proper(steps.components)):
            return EmSteps(weights, point[1], prior)
        found, covariance = steps.components
        return steps._replace(components=(found, np.repeat(covariance, len(means), axis=0)))

    def _pass_of_each(
        self,
        X: Rows,
        log_weights: Array,
        means: Array,
        inverse_root: Array,
        log_norm: Array,
        are_far: bool,
    ) -> EmSums:
        """The sums over the rows with the moments of the white residuals of each component by itself."""
        n_components, n_features = means.shape
        if self._is_tied:
            inverse_root = np.repeat(inverse_root, n_components, axis=0)
        compiled = engine.compiled()
        if compiled is None or are_far:  # it knows one center
            sums = self._em_pass(X, log_weights, means, inverse_root, log_norm, are_far)
        else:
            scale = self._shape.by_column(inverse_root, n_features)
            cut = (self.cut.numbers(n_features).limit, self.cut.truncates)
            sums = compiled.em_pass(X, log_weights, means, scale, log_norm, cut)
        mass, first, second = sums.moments
        if compiled is not None and not are_far:
            second = self._shape.from_columns(second)
        return sums._replace(moments=(mass, first, self._of_type(second)))

    def _em_pass(
        self,
        X: Rows,
        log_weights: Array,
        means: Array,
        inverse_root: Array,
        log_norm: Array,
        are_far: bool,
    ) -> EmSums:
        """The sums over the rows with the moments of the white residuals inside the cuts, computed by NumPy."""
        n_components, n_features = means.shape
        limit = self.cut.numbers(n_features).limit
        step = min(max(256, EM_BLOCK_FLOATS // (n_components * n_features)), max(len(X), 1))
        y = np.empty((n_components, n_features, step))
        scratch = np.empty_like(y)
        log_likelihood, n_outside = 0.0, 0
        mass, first = np.zeros(n_components), np.zeros_like(means)
        second = self._shape.second(y[:, :, :0], np.zeros((n_components, 0)), scratch[:, :, :0])
        lowest = (log_norm - 0.5 * limit)[:, None]
        for batch in batches(len(X), step):
            block = X[batch]
            n = len(block)
            y, scratch = y[:, :, :n], scratch[:, :, :n]
            self._white_residuals(block, means, inverse_root, y, are_far)
            joint = self._log_density(y, scratch, log_norm)
            is_inside = joint >= lowest
            n_outside += n - int(np.count_nonzero(is_inside.any(axis=0)))
            joint += log_weights[:, None]
            top = joint.max(axis=0)
            joint -= top
            r = np.exp(joint, out=joint)
            total = r.sum(axis=0)
            r /= total
            log_likelihood += float((np.log(total) + top).sum())
            if self.cut.truncates:
                r *= is_inside
            mass += r.sum(axis=1)
            first += np.matmul(y, r[:, :, None])[:, :, 0]
            second += self._shape.second(y, r, scratch)
        return EmSums(log_likelihood, (mass, first, second), n_outside)

    def _undo_cut(self, moments: Moments, n_features: int) -> Moments:
        """Moments of the rows inside the cuts, divided by what the cuts leave of a normal law."""
        if not self.cut.truncates:
            return moments
        mass, first, second = moments
        numbers = self.cut.numbers(n_features)
        return mass / numbers.inside, first / numbers.inside, second / numbers.second

    def hard_moments(
        self,
        X: Rows,
        labels: Labels,
        reference: Components,
        totals: RowTotals | None = None,
    ) -> Moments:
        means, covariances = reference
        n_components = len(means)
        if totals is not None:
            return hard_moments_of_known(X, KnownScatter(*totals), labels, means)
        mass, first = np.zeros(n_components), np.zeros_like(means)
        second = np.zeros_like(covariances)
        for k in range(n_components):
            shift = as_block(X.compress(labels == k, axis=0)) - means[k]
            mass[k] = len(shift)
            first[k] = shift.sum(axis=0)
            second[k] = self._shape.project(shift.T @ shift)
        return mass, first, self._of_type(second)

    def from_moments(
        self, moments: Moments, reference: Components, prior: Prior | None = None
    ) -> Components:
        mass, first, second = moments
        a, target = (
            (0.0, np.zeros_like(second[0])) if prior is None else (prior.weight, prior.target[0])
        )
        shift = _mean_shift(mass, first)
        scatter = self._own_scatter(mass, shift, second)
        rows = mass.sum(keepdims=True) if self._is_tied else mass
        total = rows + 2 * a * len(mass) / len(rows)
        inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
        covariances = self._shape.times(inverse, scatter + 2 * a * len(mass) / len(rows) * target)
        covariances = self._shape.symmetric(covariances)
        if prior is not None and prior.floor:
            covariances = self._shape.add_to_diagonal(covariances, prior.floor)
        if self._is_tied:
            covariances = np.repeat(covariances, len(mass), axis=0)
        return reference[0] + shift, covariances

    def _own_scatter(self, mass: Array, shift: Array, second: Array) -> Array:
        """Second moments about the means, which are ``shift`` from the reference: of each component, or of all."""
        return second - self._of_type(self._shape.times(mass, self._shape.outer(shift)))

    def prior_target(self, X: Rows) -> Components:
        """The sample covariance (ddof 1) in the structure of the family, and the sample mean, in two passes over X."""
        n_samples, n_features = X.shape
        step = max(256, BLOCK_FLOATS // n_features)
        buffer = np.empty((n_features, min(step, n_samples)))

        def about(origin: Array) -> Iterator[Array]:
            for batch in batches(n_samples, step):
                rows = X[batch]
                yield np.subtract(rows.T, origin[:, None], out=buffer[:, : len(rows)])

        # About the first row the sum of a constant column is exactly zero, so its variance is zero too.
        first = as_block(X[:1])[0]
        total = np.zeros(n_features)
        for columns in about(first):
            total += columns.sum(axis=1)
        mean = first + total / n_samples
        scatter = np.zeros((n_features, n_features))
        for columns in about(mean):
            scatter += columns @ columns.T
        return self._shape.project(scatter / max(n_samples - 1, 1)), mean

    def total_target(self, moments: Moments, reference: Components) -> Components:
        means, within, between, n_samples = self._scatter(moments, reference)
        mean = means[0] + moments[0] @ (means - means[0]) / n_samples
        return (within + between) / max(n_samples - 1.0, 1.0), mean

    def within_target(self, moments: Moments, reference: Components) -> Components:
        """The covariance of each component, with one row of the pooled one added; for tied the pooled one.

        The pooled covariance is that within components, and a share of that between them. The share keeps it positive
        definite where a column is constant within every component.
        """
        _, within, between, n_samples = self._scatter(moments, reference)
        pooled = (within + SHARE_OF_ALL_ROWS * between) / n_samples
        if self._is_tied:
            return (pooled,)
        one_row = Prior(POOLED_ROWS / 2, (pooled,))
        return self.from_moments(moments, reference, one_row)[1:]

    def _scatter(
        self, moments: Moments, reference: Components
    ) -> tuple[Array, Array, Array, float]:
        """Means of the components, scatter of all rows about them, their own scatter, and the number of rows."""
        mass, first, second = moments
        n_samples = float(mass.sum())
        shift = _mean_shift(mass, first)
        within = self._own_scatter(mass, shift, second).sum(axis=0)
        means = reference[0] + shift
        # About one of the means, so that nothing cancels far from the origin.
        mean = means[0] + mass @ (means - means[0]) / n_samples
        between = self._shape.times(mass, self._shape.outer(means - mean)).sum(axis=0)
        return means, self._shape.symmetric(within), between, n_samples

    def degeneracy(self, X: Rows, target: Components, floor: float = 0.0) -> str | None:
        covariance, mean = target
        return degeneracy(X, covariance, mean, floor)

    def log_prior(self, components: Components, prior: Prior) -> float:
        """-a sum_k { tr(T_k Sigma_k^-1) + log det Sigma_k }, with one target T or one for each component."""
        if prior.weight == 0:
            return 0.0
        means, covariances = components
        n_features = means.shape[-1]
        root = self._shape.root(self._distinct(covariances))
        target = prior.target[0]
        inverse_root = self._shape.inverse_root(root)
        if target.ndim == covariances.ndim:
            traces = self._shape.own_trace_ratio(target, inverse_root, n_features)
        else:
            traces = self._shape.trace_ratio(target[None], inverse_root, n_features)
        total = float(traces.sum() + self._shape.log_det(root, n_features).sum())
        return -prior.weight * total * (len(means) / len(root))

    def is_proper(self, components: Components) -> bool:
        means, covariances = components
        are_bounded = bool((np.abs(means) <= MAX_MEAN).all())
        return are_bounded and self._shape.is_positive(self._distinct(covariances))

    def with_columns(
        self, components: Components, order: Labels, scale: Array, shift: Array
    ) -> Components | None:
        means, covariances = components
        changed = self._shape.with_columns(covariances, order, scale)
        return None if changed is None else (means[:, order] * scale + shift, changed)

    def start_components(self, X: Array, locations: Array) -> Components:
        variance = self._shape.project(np.diag(X.var(axis=0)))
        return np.asarray(locations, dtype=np.float64), np.repeat(
            variance[None], len(locations), axis=0
        )

    # -- geometry ---------------------------------------------------------------------------------

    def as_origin(self, point: tuple[Array, Components]) -> tuple[Array, Components]:
        return _Origin(point, self)

    def coordinates(
        self, weights: Array, components: Components, origin: tuple[Array, Components]
    ) -> Array:
        """Coordinates about ``origin`` in which the complete-data information per row is the identity.

        Weights (w - w0) / sqrt(w0); means sqrt(w_k) L_k^-1 (mu_k - mu_k0); covariances, with
        A = L_k^-1 Sigma_k L_k^-T - I, as sqrt(w_k / 2) A_ii and sqrt(w_k) A_ij (i < j).
        """
        known = _Origin.of(origin, self)
        means, covariances = components
        inverse_root = known.inverse_root
        v_means = known.root_w[:, None] * self._shape.multiply(inverse_root, means - known.means)
        white = self._shape.whitened(self._distinct(covariances), inverse_root)
        v_covariances = known.covariance_scale * self._shape.pack(white, means.shape[-1])
        v_weights = (weights - known.weights) / known.root_w
        return np.concatenate([v_weights, v_means.ravel(), v_covariances.ravel()])

    def from_coordinates(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components] | None:
        weights, (means, covariances) = self.displaced(coordinates, origin)
        if not (weights >= 0).all() or not self._shape.is_positive(self._distinct(covariances)):
            return None
        return weights / weights.sum(), (means, covariances)

    def displaced(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components]:
        known = _Origin.of(origin, self)
        root, root_w, means0 = known.root, known.root_w, known.means
        n_components, n_features = means0.shape
        leading = coordinates.shape[:-1]
        ends = n_components, n_components * (1 + n_features)
        weights = known.weights + root_w * coordinates[..., : ends[0]]
        v_means = coordinates[..., ends[0] : ends[1]]
        means = means0 + self._shape.multiply(
            root, v_means.reshape(*leading, n_components, n_features) / root_w[:, None]
        )
        n_covariances = 1 if self._is_tied else n_components
        packed = coordinates[..., ends[1] :].reshape(*leading, n_covariances, -1)
        white = self._shape.unpack(packed / known.covariance_scale, n_features)
        covariances = self._shape.symmetric(self._shape.coloured(white, root))
        if self._is_tied:
            covariances = np.repeat(covariances, n_components, axis=len(leading))
        return weights, (means, covariances)

    def coordinate_owners(self, components: Components) -> Labels:
        n_components, n_features = components[0].shape
        order = np.arange(n_components)
        n_shape = self._shape.n_parameters(n_features)
        of_covariances = np.full(n_shape, -1) if self._is_tied else np.repeat(order, n_shape)
        return np.concatenate([order, np.repeat(order, n_features), of_covariances])

    def scores(self, X: Array, weights: Array, components: Components) -> Array:
        """The expected complete-data scores given each row: r - w, r y and r (y y^T - I) in white residuals y.

        If the family truncates, r is 0 beyond the cut, and r and r y y^T are divided as the moments are.
        """
        means, covariances = components
        n_samples, n_features = len(X), means.shape[-1]
        root = self._shape.root(covariances)
        y = self._white_residuals(X, means, self._shape.inverse_root(root))
        log_norm = self._log_norm(root, n_features)
        joint = self._log_density(y, np.empty_like(y), log_norm)
        r, second_factor = self._shares(joint, log_norm, weights, n_features)
        root_w = np.sqrt(np.maximum(weights, LEAST_WEIGHT))
        share = (r / root_w[:, None]).T
        y = np.moveaxis(y, -1, 0)
        packed = self._shape.pack(second_factor * self._shape.outer(y), n_features)
        by_component = r.T if self._is_tied else share
        s_covariances = by_component[:, :, None] * packed
        if self._is_tied:
            s_covariances = s_covariances.sum(axis=1)
        return np.concatenate(
            [
                share - (weights / root_w) * self._total_share(r)[:, None],
                (share[:, :, None] * y).reshape(n_samples, -1),
                s_covariances.reshape(n_samples, -1),
            ],
            axis=1,
        )

    def _shares(
        self, joint: Array, log_norm: Array, weights: Array, n_features: int
    ) -> tuple[Array, float]:
        """Responsibilities (K, n) as they count in a score, and the factor of y y^T, from log phi_k (K, n)."""
        with np.errstate(divide="ignore"):
            r = softmax(joint + np.log(weights)[:, None], axis=0)
        if not self.cut.truncates:
            return r, 1.0
        numbers = self.cut.numbers(n_features)
        r *= (joint >= (log_norm - 0.5 * numbers.limit)[:, None]) / numbers.inside
        return r, numbers.inside / numbers.second

    def _total_share(self, r: Array) -> Array:
        """The sum of the responsibilities (K, n) of each row, exactly 1 unless the family truncates."""
        return r.sum(axis=0) if self.cut.truncates else np.ones(r.shape[1])

    def score_lengths(self, X: Array, weights: Array, components: Components) -> Array:
        """From squared distances m alone: |y|^2 = m and |y y^T - I|^2 / 2 = (m^2 - 2 m + d) / 2.

        They are exact for full covariances. The other structures test fewer directions of y y^T - I, or add them up.
        """
        means, covariances = components
        n_features = means.shape[-1]
        log_norm = self._log_norm(self._shape.root(covariances), n_features)
        joint = self.log_density(X, components)
        r, second_factor = self._shares(joint.T, log_norm, weights, n_features)
        r = r.T
        squares = 2.0 * (log_norm - joint)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = second_factor * squares
            by_shape = np.where(r > 0, 0.5 * (scaled**2 - 2.0 * scaled + n_features), 0.0)
            squares = np.where(r > 0, squares, 0.0)
        root_w = np.sqrt(np.maximum(weights, LEAST_WEIGHT))
        share = r / root_w
        own = (share**2 * squares).sum(axis=1)
        if self._is_tied:
            own += (r * np.sqrt(by_shape)).sum(axis=1) ** 2
        else:
            own += (share**2 * by_shape).sum(axis=1)
        of_weights = share - (weights / root_w) * self._total_share(r.T)[:, None]
        lengths: Array = np.sqrt(own + (of_weights**2).sum(axis=1))
        return lengths

    def score_of_moments(self, moments: Moments, weights: Array, components: Components) -> Array:
        mass, first, second = moments
        means, covariances = components
        n_features = means.shape[-1]
        root_w = np.sqrt(np.maximum(weights, LEAST_WEIGHT))
        inverse_root = self._shape.inverse_root(self._shape.root(self._distinct(covariances)))
        white = self._shape.whitened(second, inverse_root)
        # pack subtracts the identity once, as for one row; the moments are sums of many rows.
        rows = mass.sum(keepdims=True) if self._is_tied else mass
        identity = self._shape.unpack(np.zeros(self._shape.n_parameters(n_features)), n_features)
        packed = self._shape.pack(white - self._shape.times(rows - 1.0, identity), n_features)
        s_covariances = packed / self._covariance_scale(weights)
        s_means = self._shape.multiply(inverse_root, first) / root_w[:, None]
        s_weights = (mass - weights * mass.sum()) / root_w
        return np.concatenate([s_weights, s_means.ravel(), s_covariances.ravel()])

    def _covariance_scale(self, weights: Array) -> Array:
        """Square root of the share of the rows that inform a covariance: those of its component, or all."""
        if self._is_tied:
            return np.ones((1, 1))
        return np.sqrt(np.maximum(weights, LEAST_WEIGHT))[:, None]

    def sort_keys(self, components: Components) -> Array:
        return components[0]

    # -- the mixture value ------------------------------------------------------------------------

    def mixture(
        self, weights: Array, components: Components, feature_names: Sequence[str] | None = None
    ) -> Mixture:
        means, covariances = components
        if self._is_tied:
            covariances = covariances[0]
        return Mixture(weights, means, covariances, self.covariance_type, feature_names)

    def mixture_from_arrays(self, parameters: Mapping[str, Any]) -> Mixture:
        return Mixture.from_arrays(parameters)


class _Origin(tuple[Array, Components]):
    """A point (weights, components) about which others have coordinates; what these have in common is computed once."""

    family: Gaussian

    def __new__(cls, point: tuple[Array, Components], family: Gaussian) -> Self:
        found = super().__new__(cls, point)
        found.family = family
        return found

    @classmethod
    def of(cls, point: tuple[Array, Components], family: Gaussian) -> _Origin:
        return point if isinstance(point, _Origin) else cls(point, family)

    @property
    def weights(self) -> Array:
        return self[0]

    @property
    def means(self) -> Array:
        means: Array = self[1][0]
        return means

    @cached_property
    def root(self) -> Array:
        return self.family._shape.root(self.family._distinct(self[1][1]))

    @cached_property
    def inverse_root(self) -> Array:
        return self.family._shape.inverse_root(self.root)

    @cached_property
    def root_w(self) -> Array:
        return np.sqrt(np.maximum(self.weights, LEAST_WEIGHT))

    @cached_property
    def covariance_scale(self) -> Array:
        return self.family._covariance_scale(self.weights)


def _mean_shift(mass: Array, first: Array) -> Array:
    """The means (n_components, n_features) of moments, about their reference.

    A component without rows keeps its mean, on which the penalised likelihood does not depend.
    """
    return np.divide(first, mass[:, None], out=np.zeros_like(first), where=mass[:, None] > 0)


# -- the mixture value -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Mixture(FiniteMixture):
    """A finite mixture of Gaussians: f(x) = sum_k w_k N(x; mu_k, Sigma_k).

    Parameters
    ----------
    weights : array-like of shape (n_components,)
        Mixing weights: non-negative, sum 1 within 1e-8.
    means : array-like of shape (n_components, n_features)
    covariances : array-like
        (n_components, n_features, n_features) for ``"full"``, (n_components, n_features) for
        ``"diag"``, (n_features, n_features) for ``"tied"``, (n_components,) for ``"spherical"``.
        Symmetric and positive definite.
    covariance_type : {"full", "diag", "tied", "spherical"}, default "full"
        As in scikit-learn.
    feature_names : sequence of str, optional
        Names of the columns, in the order of the means. None: the columns have no names.

    Raises
    ------
    ValueError
        If a shape does not fit, a number is not finite, the weights are negative or do not sum to 1, or a covariance
        is not symmetric and positive definite.

    Notes
    -----
    A mixture is immutable: its arrays are read-only copies in float64. Two mixtures are equal if all their numbers are
    equal in the same order. Use :meth:`align_to` first if the order of the components does not matter.

    Examples
    --------
    >>> m = Mixture([0.3, 0.7], [[0.0], [4.0]], [1.0, 2.0], covariance_type="spherical", feature_names=["speed"])
    >>> m
    Mixture(n_components=2, n_features=1, covariance_type='spherical', feature_names=('speed',))
    >>> m.predict([[-1.0], [5.0]])
    array([0, 1])
    """

    weights: Array
    means: Array
    covariances: Array
    covariance_type: str = "full"
    feature_names: tuple[str, ...] | None = None

    def __init__(
        self,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        covariance_type: str = "full",
        feature_names: Sequence[str] | None = None,
    ) -> None:
        checks.one_of("covariance_type", covariance_type, COVARIANCE_TYPES)
        w, mu = as_floats("weights", weights), as_floats("means", means)
        sigma = as_floats("covariances", covariances)
        names = _checked_names(feature_names)
        _check_shapes(w, mu, names)
        check_shape(sigma, covariance_type, *mu.shape)
        check_weights(w)
        if covariance_type in ("full", "tied"):
            sigma = as_symmetric(sigma)
        if (np.abs(mu) > MAX_MEAN).any():
            raise ValueError(f"means must not exceed {MAX_MEAN:g}; got {np.abs(mu).max():.3g}.")
        check_positive(sigma, covariance_type)
        for name, array in (("weights", w), ("means", mu), ("covariances", sigma)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "covariance_type", covariance_type)
        object.__setattr__(self, "feature_names", names)

    # -- the value --------------------------------------------------------------------------------

    @property
    def family(self) -> Gaussian:
        """The Gaussian family with the covariance type of this mixture."""
        return Gaussian(self.covariance_type)

    @property
    def components(self) -> Components:
        """``(means, covariances)`` with the component axis first in both, for ``tied`` too."""
        if self.covariance_type == "tied":
            return self.means, np.repeat(self.covariances[None], self.n_components, axis=0)
        return self.means, self.covariances

    def __repr__(self) -> str:
        names = "" if self.feature_names is None else f", feature_names={self.feature_names!r}"
        shape = f"n_components={self.n_components}, n_features={self.n_features}"
        return f"Mixture({shape}, covariance_type={self.covariance_type!r}{names})"

    def __str__(self) -> str:
        return f"{self._in_words()}\n{text_table(*self._table(), 'components')}"

    def _repr_html_(self) -> str:
        return html_lines(self._in_words()) + html_table(*self._table(), "components")

    def _in_words(self) -> str:
        k, d = self.n_components, self.n_features
        what = f"{k} component{'s' * (k > 1)} in {d} column{'s' * (d > 1)}"
        return f"Mixture of {what}, covariance_type={self.covariance_type!r}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        parameters = (self.weights, *self.full_components)
        return component_table(*parameters, self.feature_names)

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are equal, in the same order of components."""
        if not isinstance(other, Mixture):
            return NotImplemented
        return (
            self.covariance_type == other.covariance_type
            and self.feature_names == other.feature_names
            and np.array_equal(self.weights, other.weights)
            and np.array_equal(self.means, other.means)
            and np.array_equal(self.covariances, other.covariances)
        )

    def __hash__(self) -> int:
        return hash(
            (
                self.covariance_type,
                self.feature_names,
                # -0.0 equals 0.0, and has other bytes; their sum with 0.0 is 0.0.
                *(
                    (array + 0.0).tobytes()
                    for array in (self.weights, self.means, self.covariances)
                ),
            )
        )

    @property
    def full_components(self) -> tuple[Array, Array]:
        """Means and covariances, the latter as (n_components, n_features, n_features) for every covariance type."""
        means, covariances = self.components
        if self.covariance_type == "spherical":
            covariances = np.repeat(covariances[:, None], self.n_features, axis=1)
        if self.covariance_type in ("diag", "spherical"):
            covariances = covariances[:, :, None] * np.eye(self.n_features)
        return means, covariances

    # -- other views ------------------------------------------------------------------------------

    def marginal(self, columns: Iterable[int | str]) -> Mixture:
        """The mixture of some of the columns.

        Parameters
        ----------
        columns : iterable of int or str
            Positions or feature names, in the order of the columns of the result.

        Raises
        ------
        ValueError
            If ``columns`` is empty, names a column twice, or names one that the mixture does not have.
        """
        index = np.array([self._column_index(c) for c in columns], dtype=np.intp)
        if index.size == 0 or len(set(index.tolist())) < index.size:
            raise ValueError(
                f"columns must name at least one column and each one once; got {index.tolist()}."
            )
        covariances = self.covariances
        if self.covariance_type in ("full", "tied"):
            covariances = covariances[..., index[:, None], index[None, :]]
        elif self.covariance_type == "diag":
            covariances = covariances[:, index]
        names = None if self.feature_names is None else [self.feature_names[i] for i in index]
        return Mixture(self.weights, self.means[:, index], covariances, self.covariance_type, names)

    def _column_index(self, column: int | str) -> int:
        if isinstance(column, str):
            if self.feature_names is None or column not in self.feature_names:
                raise ValueError(
                    f"columns: no column {column!r}; this mixture has {self.feature_names or self.n_features}."
                )
            return self.feature_names.index(column)
        if not 0 <= column < self.n_features:
            raise ValueError(
                f"columns must be positions from 0 to {self.n_features - 1}; got {column}."
            )
        return int(column)

    def to_sklearn(self) -> SklearnGaussianMixture:
        """A fitted :class:`sklearn.mixture.GaussianMixture` with these parameters.

        It counts as converged after 0 iterations, with an unknown lower bound (NaN).
        """
        from sklearn.mixture import GaussianMixture

        model = GaussianMixture(self.n_components, covariance_type=self.covariance_type)
        model.weights_, model.means_, model.covariances_ = (
            self.weights.copy(),
            self.means.copy(),
            self.covariances.copy(),
        )
        model.precisions_cholesky_ = self.precisions_cholesky
        model.precisions_ = self.precisions
        model.n_features_in_ = self.n_features
        if self.feature_names is not None:
            model.feature_names_in_ = np.asarray(self.feature_names, dtype=object)
        model.converged_, model.n_iter_, model.lower_bound_ = True, 0, float("nan")
        return model

    @classmethod
    def from_sklearn(cls, model: SklearnGaussianMixture) -> Self:
        """The mixture of a fitted :class:`sklearn.mixture.GaussianMixture`.

        Raises
        ------
        ValueError
            If the model is not fitted, or its parameters are no mixture.
        """
        if not hasattr(model, "weights_"):
            raise ValueError(
                "model must be a fitted sklearn.mixture.GaussianMixture; this one has no weights_. Call its fit first."
            )
        names = getattr(model, "feature_names_in_", None)
        return cls(model.weights_, model.means_, model.covariances_, model.covariance_type, names)

    @property
    def precisions_cholesky(self) -> Array:
        """Upper triangular P with P P^T = Sigma^-1, in the shape of the covariances, as in scikit-learn."""
        if self.covariance_type in ("diag", "spherical"):
            return 1.0 / np.sqrt(self.covariances)
        identity = np.eye(self.n_features)
        inverse = np.linalg.solve(np.linalg.cholesky(self.covariances), identity)
        return np.ascontiguousarray(np.triu(np.swapaxes(inverse, -1, -2)))

    @property
    def precisions(self) -> Array:
        """Inverse covariances, in the shape of the covariances."""
        if self.covariance_type in ("diag", "spherical"):
            return 1.0 / self.covariances
        factor = self.precisions_cholesky
        return factor @ np.swapaxes(factor, -1, -2)

    # -- messages and files: plain arrays ---------------------------------------------------------

    def to_arrays(self) -> dict[str, Any]:
        """The arguments of the constructor as a dict, as messages between tasks and files hold them."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_arrays`; ``covariance_type`` and ``feature_names`` are optional.

        Raises
        ------
        ValueError
            If a parameter is missing or unknown, or the parameters are no mixture.
        """
        missing, unknown = set(_FIELDS[:3]) - parameters.keys(), parameters.keys() - set(_FIELDS)
        if missing or unknown:
            raise ValueError(
                f"a mixture must have {', '.join(_FIELDS)}; {sorted(missing)} missing, {sorted(unknown)} unknown."
            )
        names = parameters.get("feature_names")
        if names is not None and (
            not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names)
        ):
            raise ValueError(f"feature_names must be a list of str, or None; got {names!r:.200}.")
        return cls(**parameters)


def _checked_names(feature_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(feature_names, str):
        raise ValueError(f"feature_names must be a sequence of names; got {feature_names!r}.")
    return None if feature_names is None else tuple(map(str, feature_names))


def _check_shapes(weights: Array, means: Array, names: tuple[str, ...] | None) -> None:
    """Raise ValueError unless weights, means and names agree in the numbers of components and columns."""
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"weights must have the shape (n_components,); got {weights.shape}.")
    if means.ndim != 2 or len(means) != len(weights) or means.shape[1] == 0:
        raise ValueError(
            f"means must have the shape (n_components = {len(weights)}, n_features); got {means.shape}."
        )
    n_features = means.shape[1]
    if names is not None and (len(names) != n_features or len(set(names)) != n_features):
        raise ValueError(
            f"feature_names must be {n_features} different names, one per column; got {names}."
        )
