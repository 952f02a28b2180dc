"""Where a local fit starts: a named clustering of the rows, or what the user gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

from dask_dfmr.mixtures.family import Array, Components, Family, Labels, Prior, Rows, as_block

FARTHEST = 1e8
"""Distances from the median beyond it, in spreads, count as this in a clustering."""

MAX_START_ROWS = 20_000
"""A clustering is made on at most so many rows of a partition: it only has to find the basin."""


@dataclass(frozen=True)
class GivenStart:
    """What the user fixed of a start: ``weights_init``, ``means_init``, ``precisions_init`` of the estimator.

    Means given alone attract the rows nearest to them; weights and covariances follow from those
    rows. ``shapes`` are the parameters after the means (for Gaussians the covariances), with the
    component axis first.
    """

    weights: Array | None = None
    means: Array | None = None
    shapes: Components | None = None


@dataclass(frozen=True)
class Scale:
    """Location and spread of each column: clusterings are made in columns of equal spread."""

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
        """The median of several scales: one from a broken unit moves it little."""
        return cls(
            np.median([s.location for s in scales], axis=0),
            np.median([s.spread for s in scales], axis=0),
        )

    def apply(self, X: Array) -> Array:
        """Rows in units of the spread."""
        # An outlier is far away, but not so far that its square overflows in a clustering.
        return np.clip((X - self.location) / self.spread, -FARTHEST, FARTHEST)


def subsample(X: Rows, n_rows: int, rng: np.random.Generator) -> Array:
    """At most ``n_rows`` rows, in float64; all of them, in their order, where there are no more."""
    if len(X) > n_rows:
        X = X[np.sort(rng.choice(len(X), n_rows, replace=False))]
    return as_block(X)


def _nearest(Z: Array, centers: Array) -> Labels:
    return ((Z**2).sum(1)[:, None] - 2 * Z @ centers.T + (centers**2).sum(1)).argmin(axis=1)


def _kmeans_plusplus(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    centers, _ = kmeans_plusplus(Z, n_components, random_state=int(rng.integers(2**31)))
    return _nearest(Z, centers)


def _kmeans(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    if len(np.unique(Z, axis=0)) < n_components:  # scikit-learn's k-means warns of that
        return _kmeans_plusplus(Z, n_components, rng)
    return np.asarray(
        KMeans(n_components, n_init=1, random_state=int(rng.integers(2**31))).fit(Z).labels_,
        dtype=np.intp,
    )


def _random_from_data(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    return _nearest(Z, Z[rng.choice(len(Z), n_components, replace=False)])


def _random(Z: Array, n_components: int, rng: np.random.Generator) -> Labels:
    return rng.integers(n_components, size=len(Z))


NAMED_STARTS: dict[str, Callable[[Array, int, np.random.Generator], Labels]] = {
    "k-means++": _kmeans_plusplus,
    "kmeans": _kmeans,
    "random": _random,
    "random_from_data": _random_from_data,
}


def make_start(
    family: Family,
    X: Array,
    n_components: int,
    name: str,
    prior: Prior,
    rng: np.random.Generator,
    scale: Scale | None = None,
    given: GivenStart | None = None,
) -> tuple[Array, Components]:
    """Weights and components from a clustering of the rows X, overridden by what is given."""
    scale = Scale.of(X) if scale is None else scale
    given = GivenStart() if given is None else given
    Z = scale.apply(X)
    if given.means is None:
        labels = NAMED_STARTS[name](Z, n_components, rng)
        locations = np.repeat(X.mean(axis=0)[None], n_components, axis=0)
    else:
        labels = _nearest(Z, scale.apply(given.means))
        locations = given.means
    reference = family.start_components(X, locations)
    moments = family.hard_moments(X, labels, reference)
    # Every component gets a little of the whole: one that attracted few rows must not start as a
    # point.
    components = family.from_moments(
        moments, reference, prior._replace(weight=max(prior.weight, family.n_features(reference)))
    )
    weights = (moments[0] + 1.0) / (moments[0] + 1.0).sum()
    if given.means is not None:
        components = (given.means, *components[1:])
    if given.shapes is not None:
        components = (components[0], *given.shapes)
    return (weights if given.weights is None else given.weights), components
