"""Another component family in one file: independent Poisson columns, as a user would add it.

phi(x; lambda) = prod_j exp(-lambda_j) lambda_j^x_j / x_j!: an exponential family with mean parameters
E[T] = lambda, so the KL barycenter is the mean of the rates.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp, softmax, xlogy

from dask_dfmr.mixtures.family import EmSums, as_block, em_steps, quantity_of
from dask_dfmr.mixtures.mixture import FiniteMixture, as_floats, check_weights
from dask_dfmr.mixtures.row_cut import RowCut


@dataclass(frozen=True)
class Poisson:
    """Components are ``(rates,)``, shape (n_components, n_features)."""

    name = "poisson"
    cut = RowCut()

    def with_cut(self, cut):
        return self

    def n_parameters(self, n_components, n_features):
        return n_components - 1 + n_components * n_features

    def least_rows(self, n_components, n_features):
        return max(self.n_parameters(n_components, n_features), 2)

    def least_component_rows(self, n_features):
        return 1

    def n_features(self, components):
        return components[0].shape[-1]

    # -- densities --------------------------------------------------------------------------------

    def sample(self, n_samples, weights, components, rng):
        y = np.repeat(np.arange(len(weights)), rng.multinomial(n_samples, weights))
        return rng.poisson(components[0][y]).astype(float), y

    def log_density(self, X, components):
        (rates,) = components
        return X @ np.log(rates).T - rates.sum(axis=1) - gammaln(X + 1).sum(axis=1)[:, None]

    def evaluate(self, X, weights, components, quantity):
        with np.errstate(divide="ignore"):
            log_weights = np.log(weights)
        return quantity_of(self.log_density(as_block(X), components) + log_weights, quantity)

    def log_density_of_each(self, X, components):
        return self.log_density(as_block(X), components)

    def log_peaks(self, components):
        return np.zeros(len(components[0]))

    def log_product_integral(self, a, b, floor=None):
        """Sum over columns of log sum_x exp(-l - m) (l m)^x / x!^2: h = 1/x! does not cancel."""
        rates_a, rates_b = a[0][:, None, :, None], b[0][None, :, :, None]
        largest = np.sqrt(a[0].max() * b[0].max())
        x = np.arange(int(largest + 20 * np.sqrt(largest) + 50))
        series = x * np.log(rates_a * rates_b) - 2 * gammaln(x + 1) - rates_a - rates_b
        return logsumexp(series, axis=-1).sum(axis=-1)

    def log_matched_integral(self, a, b):
        pairs = zip(*a, *b, strict=True)
        return np.array([self.log_product_integral((x[None],), (y[None],))[0, 0] for x, y in pairs])

    # -- reduction --------------------------------------------------------------------------------

    def divergence(self, a, b):
        mine, theirs = a[0][:, None], b[0][None]
        return np.maximum((xlogy(mine, mine / theirs) - mine + theirs).sum(axis=-1), 0.0)

    def place(self, components, positions, source):
        rates = components[0].copy()
        rates[positions] = source[0]
        return (rates,)

    def pooled_moments(self, weights, components, labels, reference):
        mass, first = np.zeros(len(reference[0])), np.zeros_like(reference[0])
        np.add.at(mass, labels, weights)
        np.add.at(first, labels, weights[:, None] * components[0])
        return mass, first

    # -- EM ---------------------------------------------------------------------------------------

    def em_pass(self, X, weights, components):
        X = as_block(X)
        with np.errstate(divide="ignore"):
            joint = self.log_density(X, components) + np.log(weights)
        total = logsumexp(joint, axis=1)
        r = np.exp(joint - total[:, None])
        return EmSums(float(total.sum()), (r.sum(axis=0), r.T @ X))

    def row_totals(self, X):
        return None

    def em_steps(self, X, weights, components, prior, rule, totals=None):
        return em_steps(self, X, weights, components, prior, rule)

    def hard_moments(self, X, labels, reference, totals=None):
        return self.pooled_moments(np.ones(len(X)), (as_block(X),), labels, reference)

    def from_moments(self, moments, reference, prior=None):
        mass, first = moments
        a, target = (0.0, 0.0) if prior is None else (prior.weight, prior.target[0])
        total = (mass + a)[:, None]
        rates = np.divide(first + a * target, total, out=reference[0].copy(), where=total > 0)
        return (rates,)

    def prior_target(self, X):
        return (as_block(X).mean(axis=0),)

    def total_target(self, moments, reference):
        return (moments[1].sum(axis=0) / moments[0].sum(),)

    within_target = total_target

    def degeneracy(self, X, target, floor=0.0):
        empty = np.flatnonzero(target[0] <= 0)
        return f"{{column {empty[0]}}} has no counts" if empty.size else None

    def log_prior(self, components, prior):
        return prior.weight * float((prior.target[0] * np.log(components[0]) - components[0]).sum())

    def is_proper(self, components):
        return bool(np.isfinite(components[0]).all() and (components[0] > 0).all())

    def with_columns(self, components, order, scale, shift):
        if (scale != 1).any() or shift.any():
            return None
        return (components[0][:, order],)

    def start_components(self, X, locations):
        return (np.maximum(locations, 1e-3),)

    # -- geometry ---------------------------------------------------------------------------------

    def as_origin(self, point):
        return point

    def coordinates(self, weights, components, origin):
        w0, (rates0,) = origin
        shift = np.sqrt(w0)[:, None] * (components[0] - rates0) / np.sqrt(rates0)
        return np.concatenate([(weights - w0) / np.sqrt(w0), shift.ravel()])

    def displaced(self, coordinates, origin):
        w0, (rates0,) = origin
        v, shift = np.split(coordinates, [len(w0)], axis=-1)
        shift = shift.reshape(*shift.shape[:-1], *rates0.shape)
        rates = rates0 + shift * np.sqrt(rates0) / np.sqrt(w0)[:, None]
        return w0 + np.sqrt(w0) * v, (rates,)

    def coordinate_owners(self, components):
        n_components, n_features = components[0].shape
        order = np.arange(n_components)
        return np.concatenate([order, np.repeat(order, n_features)])

    def scores(self, X, weights, components):
        (rates,) = components
        r = softmax(self.log_density(X, components) + np.log(weights), axis=1) / np.sqrt(weights)
        white = (X[:, None] - rates) / np.sqrt(rates)
        return np.hstack([r - np.sqrt(weights), (r[:, :, None] * white).reshape(len(X), -1)])

    def score_lengths(self, X, weights, components):
        return np.linalg.norm(self.scores(X, weights, components), axis=1)

    def score_of_moments(self, moments, weights, components):
        mass, first = moments
        (rates,) = components
        white = (first - mass[:, None] * rates) / np.sqrt(rates * weights[:, None])
        return np.concatenate([(mass - weights * mass.sum()) / np.sqrt(weights), white.ravel()])

    def from_coordinates(self, coordinates, origin):
        weights, (rates,) = self.displaced(coordinates, origin)
        if not ((weights > 0).all() and (rates > 0).all()):
            return None
        return weights / weights.sum(), (rates,)

    def sort_keys(self, components):
        return components[0]

    # -- the value --------------------------------------------------------------------------------

    def mixture(self, weights, components, feature_names=None):
        return PoissonMixture(weights, *components, feature_names)

    def mixture_from_arrays(self, parameters):
        return PoissonMixture.from_arrays(parameters)


class PoissonMixture(FiniteMixture):
    """Weights (n_components,) and rates (n_components, n_features)."""

    def __init__(self, weights, rates, feature_names=None):
        self.weights, self.rates = as_floats("weights", weights), as_floats("rates", rates)
        self.feature_names = None if feature_names is None else tuple(feature_names)
        check_weights(self.weights)
        if not (self.rates.ndim == 2 and self.family.is_proper((self.rates,))):
            raise ValueError("rates must be positive")

    @property
    def family(self):
        return Poisson()

    @property
    def components(self):
        return (self.rates,)

    def to_arrays(self):
        return {"weights": self.weights, "rates": self.rates, "feature_names": self.feature_names}

    @classmethod
    def from_arrays(cls, parameters):
        return cls(**parameters)
