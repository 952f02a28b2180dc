"""The start of a local fit: a clustering of rows by one of scikit-learn's names, or values given by the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from dask_dfmr.local.centers import kmeans_plusplus
from dask_dfmr.local.penalty import Penalty
from dask_dfmr.local.projections import projected_labels
from dask_dfmr.mixtures.family import Array, Components, Family, Labels, Rows, as_block

_AnyRows = TypeVar("_AnyRows", Array, Rows)

MAX_SPREADS = 1e8
"""Bound of distances from the median in a clustering, in spreads, so that their squares do not overflow."""

MAX_START_ROWS = 20_000
"""Largest number of rows in a clustering, which has to find only the basin of an optimum."""


@dataclass(frozen=True)
class GivenStart:
    """The parts of a start that the user gave as ``weights_init``, ``means_init`` and ``precisions_init``.

    If only means are given, every row belongs to the nearest one, and weights and covariances follow from those rows.

    Attributes
    ----------
    weights : ndarray of shape (n_components,), or None
    means : ndarray of shape (n_components, n_features), or None
    shapes : tuple of ndarray, or None
        The parameters after the means, for Gaussians the covariances, each with the component axis first.
    """

    weights: Array | None = None
    means: Array | None = None
    shapes: Components | None = None


@dataclass(frozen=True)
class Scale:
    """Location and spread (n_features,) of the columns; a clustering is made in columns of equal spread."""

    location: Array
    spread: Array

    @classmethod
    def of(cls, X: Array) -> Scale:
        """Median and interquartile range, or the standard deviation where the quartiles coincide."""
        low, middle, high = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
        spread = np.where(high > low, (high - low) / 1.349, X.std(axis=0))
        return cls(middle, np.where(spread > 0, spread, 1.0))

    @classmethod
    def median(cls, scales: list[Scale]) -> Scale:
        """The median of several scales, which one scale in a wrong unit changes little."""
        return cls(
            np.median([s.location for s in scales], axis=0),
            np.median([s.spread for s in scales], axis=0),
        )

    def apply(self, X: Array) -> Array:
        """Rows (n_samples, n_features) about the location, in units of the spread."""
        Z = X - self.location
        Z /= self.spread
        return np.clip(Z, -MAX_SPREADS, MAX_SPREADS, out=Z)


def subsample(X: Rows, n_rows: int, rng: np.random.Generator) -> Array:
    """A random subset of ``n_rows`` rows in float64 and in their order; all rows if there are no more."""
    if len(X) > n_rows:
        X = X[np.sort(rng.choice(len(X), n_rows, replace=False))]
    return as_block(X)


def thin(rows: Rows, n_rows: int) -> Array:
    """At most ``n_rows`` rows, the same at every call. They are drawn, since the order of rows may have a period."""
    return subsample(rows, n_rows, np.random.default_rng(0))


def _nearest(Z: Array, centers: Array) -> Labels:
    return ((Z**2).sum(1)[:, None] - Z @ (2 * centers).T + (centers**2).sum(1)).argmin(axis=1)


def _kmeans_plusplus(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    return _nearest(Z, kmeans_plusplus(Z, n_components, int(rng.integers(2**31))))


def _kmeans(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    if len(np.unique(Z, axis=0)) < n_components:  # scikit-learn's k-means would warn
        return _kmeans_plusplus(Z, n_components, rng)
    from sklearn.cluster import KMeans

    model = KMeans(n_components, n_init=1, random_state=int(rng.integers(2**31)))
    # Its import may just have loaded OpenMP, whose threads the caller could not limit before.
    with threadpool_limits(limits=1, user_api="openmp"):
        return np.asarray(model.fit(Z).labels_, dtype=np.intp)


def _random_from_data(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    return _nearest(Z, Z[rng.choice(len(Z), n_components, replace=False)])


def _random(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    return rng.integers(n_components, size=len(Z))


def _projections(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    labels = projected_labels(Z, n_components, rng)
    return _kmeans_plusplus(Z, n_components, rng) if labels is None else labels


StartName = Literal["k-means++", "kmeans", "random", "random_from_data"]

NAMED_STARTS: dict[str, Callable[[Array, int, np.random.Generator], Labels]] = {
    "k-means++": _kmeans_plusplus,
    "kmeans": _kmeans,
    "random": _random,
    "random_from_data": _random_from_data,
}
"""Clusterings by scikit-learn's names: (rows, n_components, rng) -> the component of each row."""

PROJECTIONS = "projections"
"""The name of one more clustering, of the search for starts (:mod:`dask_dfmr.local.projections`)."""

CLUSTERINGS = NAMED_STARTS | {PROJECTIONS: _projections}
"""All clusterings of :func:`make_start`."""


def make_start(
    family: Family,
    X: Array,
    n_components: int,
    name: str,
    penalty: Penalty,
    rng: np.random.Generator,
    scale: Scale | None = None,
    given: GivenStart | None = None,
) -> tuple[Array, Components]:
    """Weights and components from a clustering of rows, with the given parts in place of the computed ones.

    Parameters
    ----------
    family : Family
    X : ndarray of shape (n_samples, n_features)
        At most :data:`MAX_START_ROWS` rows.
    n_components : int
    name : str
        A key of :data:`CLUSTERINGS`.
    penalty : Penalty
    rng : Generator
    scale : Scale, optional
        None: that of X.
    given : GivenStart, optional

    Returns
    -------
    weights : ndarray of shape (n_components,)
    components : tuple of ndarray
    """
    scale = Scale.of(X) if scale is None else scale
    given = GivenStart() if given is None else given
    Z = scale.apply(X)
    if given.means is None:
        labels = CLUSTERINGS[name](Z, n_components, rng)
        locations = np.repeat(X.mean(axis=0)[None], n_components, axis=0)
    else:
        labels = _nearest(Z, scale.apply(given.means))
        locations = given.means
    weights, components = start_from_labels(family, X, labels, locations, penalty)
    if given.means is not None:
        components = (given.means, *components[1:])
    if given.shapes is not None:
        components = (components[0], *given.shapes)
    return (weights if given.weights is None else given.weights), components


def start_from_labels(
    family: Family, X: Array, labels: Labels, locations: Array, penalty: Penalty
) -> tuple[Array, Components]:
    """Weights and components of the clusters that labels (n_samples,) make of rows, about locations of components."""
    reference = family.start_components(X, locations)
    moments = family.hard_moments(X, labels, reference, penalty.totals_of(X))
    prior = penalty.prior(moments, reference)
    # A stronger penalty than in the fit keeps a component with few rows from starting as a point.
    strong = prior._replace(weight=max(prior.weight, family.n_features(reference)))
    components = family.from_moments(moments, reference, strong)
    return (moments[0] + 1.0) / (moments[0] + 1.0).sum(), components
