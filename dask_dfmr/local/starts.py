"""The start of a local fit: a clustering of rows by one of scikit-learn's names, or values given by the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
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
        spread = (high - low) / 1.349
        if not (spread > 0).all():
            spread = np.where(high > low, spread, X.std(axis=0))
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
    return (
        subsample(rows, n_rows, np.random.default_rng(0)) if len(rows) > n_rows else as_block(rows)
    )


class Points:
    """Rows (n_samples, n_features) that are clustered, in columns of equal spread, and terms of their distances."""

    def __init__(self, rows: Array) -> None:
        self.rows = rows
        self._squares, self._doubled = (rows**2).sum(1)[:, None], 2 * rows

    def nearest(self, centers: Array) -> Labels:
        """The nearest center (n_centers, n_features) of each row."""
        distances = self._doubled @ centers.T
        np.subtract(self._squares, distances, out=distances)
        distances += (centers**2).sum(1)
        return distances.argmin(axis=1)


def _kmeans_plusplus(points: Points, n_components: int, rng: np.random.Generator) -> Labels:
    return points.nearest(kmeans_plusplus(points.rows, n_components, int(rng.integers(2**31))))


def _kmeans(points: Points, n_components: int, rng: np.random.Generator) -> Labels:
    if len(np.unique(points.rows, axis=0)) < n_components:  # scikit-learn's k-means would warn
        return _kmeans_plusplus(points, n_components, rng)
    from sklearn.cluster import KMeans

    model = KMeans(n_components, n_init=1, random_state=int(rng.integers(2**31)))
    # Its import may just have loaded OpenMP, whose threads the caller could not limit before.
    with threadpool_limits(limits=1, user_api="openmp"):
        return np.asarray(model.fit(points.rows).labels_, dtype=np.intp)


def _random_from_data(points: Points, n_components: int, rng: np.random.Generator) -> Labels:
    chosen = rng.choice(len(points.rows), n_components, replace=False)
    return points.nearest(points.rows[chosen])


def _random(points: Points, n_components: int, rng: np.random.Generator) -> Labels:
    return rng.integers(n_components, size=len(points.rows))


def _projections(points: Points, n_components: int, rng: np.random.Generator) -> Labels:
    labels = projected_labels(points.rows, n_components, rng)
    return _kmeans_plusplus(points, n_components, rng) if labels is None else labels


StartName = Literal["k-means++", "kmeans", "random", "random_from_data"]

NAMED_STARTS: dict[str, Callable[[Points, int, np.random.Generator], Labels]] = {
    "k-means++": _kmeans_plusplus,
    "kmeans": _kmeans,
    "random": _random,
    "random_from_data": _random_from_data,
}
"""Clusterings by scikit-learn's names: (points, n_components, rng) -> the component of each row."""

PROJECTIONS = "projections"
"""The name of one more clustering, of the search for starts (:mod:`dask_dfmr.local.projections`)."""

CLUSTERINGS = NAMED_STARTS | {PROJECTIONS: _projections}
"""All clusterings of :class:`Clusterings`."""


class Clusterings:
    """Starts from clusterings of some rows. What all of them have in common is computed once.

    Parameters
    ----------
    family : Family
    rows : ndarray of shape (n_samples, n_features)
        At most :data:`MAX_START_ROWS` rows.
    n_components : int
    penalty : Penalty
    scale : Scale, optional
        None: that of the rows.
    """

    def __init__(
        self,
        family: Family,
        rows: Array,
        n_components: int,
        penalty: Penalty,
        scale: Scale | None = None,
    ) -> None:
        self.family, self.rows, self.n_components, self.penalty = (
            family,
            rows,
            n_components,
            penalty,
        )
        self.scale = Scale.of(rows) if scale is None else scale

    def start(
        self, name: str, rng: np.random.Generator, given: GivenStart | None = None
    ) -> tuple[Array, Components]:
        """Weights and components from a clustering, with the given parts in place of the computed ones.

        Parameters
        ----------
        name : str
            A key of :data:`CLUSTERINGS`.
        rng : Generator
        given : GivenStart, optional

        Returns
        -------
        weights : ndarray of shape (n_components,)
        components : tuple of ndarray
        """
        if given is None or given.means is None:
            labels = CLUSTERINGS[name](self._points, self.n_components, rng)
            weights, components = self.of_labels(labels)
        else:
            labels = self._points.nearest(self.scale.apply(given.means))
            reference = self.family.start_components(self.rows, given.means)
            weights, components = self._about(reference, labels)
            components = (given.means, *components[1:])
        if given is not None:
            weights = weights if given.weights is None else given.weights
            components = components if given.shapes is None else (components[0], *given.shapes)
        return weights, components

    def of_labels(self, labels: Labels) -> tuple[Array, Components]:
        """Weights and components of the clusters that labels (n_samples,) make of the rows."""
        return self._about(self._at_center, labels)

    def _about(self, reference: Components, labels: Labels) -> tuple[Array, Components]:
        totals = self.penalty.totals_of(self.rows)
        moments = self.family.hard_moments(self.rows, labels, reference, totals)
        prior = self.penalty.prior(moments, reference)
        # A stronger penalty than in the fit keeps a component with few rows from starting as a point.
        strong = prior._replace(weight=max(prior.weight, self.family.n_features(reference)))
        components = self.family.from_moments(moments, reference, strong)
        return (moments[0] + 1.0) / (moments[0] + 1.0).sum(), components

    @cached_property
    def _points(self) -> Points:
        return Points(self.scale.apply(self.rows))

    @cached_property
    def _at_center(self) -> Components:
        """Components about the mean of the rows, about which moments are taken."""
        center = self.rows.mean(axis=0)
        return self.family.start_components(
            self.rows, np.repeat(center[None], self.n_components, axis=0)
        )
