"""What a component family must offer, and the families there are.

Local fit, distances, reduction, aggregation and graph are written against :class:`Family` and see a
component only through it. A new family is one more module of this package beside
:mod:`dask_dfmr.mixtures.gaussian`, with a mixture value of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]
Rows = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]

Components = tuple[Array, ...]
"""Parameters of components, one array per parameter, every one with the component axis first (stacks of
mixtures put further axes in front of it)."""

Moments = tuple[Array, ...]
"""Weighted sums of sufficient statistics per component: arrays that add up over blocks of rows or of pooled
components. The first one is always the mass, ``(n_components,)``."""


LOG_2PI = float(np.log(2.0 * np.pi))

FARTHEST = 1e300
"""Squared distances beyond it, in standard deviations, count as this."""

BLOCK_FLOATS = 2**14
"""Size of the temporaries of a kernel over rows, 128 kB. Larger ones are mapped and unmapped at every use by
the allocator as Dask's nanny sets it, which nearly doubles the cost of a pass there."""


class Prior(NamedTuple):
    """A penalty a_n on the components of a mixture (Chen & Tan 2009): its weight and what the penalty pulls towards.

    Attributes
    ----------
    weight : float
        a_n; 0 is plain maximum likelihood.
    target : tuple of ndarray
        Location-free statistics of the rows that the penalty pulls every component towards (for
        Gaussians: the sample covariance, in the structure of the family).
    floor : float, default 0
        Added to the diagonal of every covariance after the update: scikit-learn's ``reg_covar``.
    """

    weight: float
    target: Components
    floor: float = 0.0


@runtime_checkable
class Family(Protocol, Hashable):
    """The mathematics of one kind of component. Stateless, hashable, picklable; arrays in, arrays out.

    Shapes: ``weights`` (n_components,), every array of ``components`` (n_components, ...), ``X``
    (n_samples, n_features).
    """

    @property
    def name(self) -> str:
        """Unique name, as written to files and messages."""
        ...

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Free parameters of a mixture, its weights included."""
        ...

    def n_features(self, components: Components) -> int:
        """Number of columns that the components describe."""
        ...

    # -- densities --------------------------------------------------------------------------------
    def sample(
        self, n_samples: int, weights: Array, components: Components, rng: Any
    ) -> tuple[Array, Labels]:
        """Rows (n_samples, n_features) grouped by component, and the component of each; any of NumPy's generators."""
        ...

    def log_density(self, X: Array, components: Components) -> Array:
        """Log phi_k(x), shape (n_samples, n_components); callers pass blocks of rows."""
        ...

    def log_product_integral(
        self, a: Components, b: Components, floor: tuple[Array, Array] | None = None
    ) -> Array:
        """Log <phi_i, phi_j> of all pairs, shape (n_a, n_b).

        Pairs below ``floor[0][i] + floor[1][j]`` are negligible: they may come as -inf where that saves work.
        """
        ...

    # -- what mixture reduction needs -------------------------------------------------------------
    def divergence(self, a: Components, b: Components) -> Array:
        """KL(phi_i || phi_k) of all pairs, shape (n_a, n_b)."""
        ...

    def pooled_moments(
        self, weights: Array, components: Components, labels: Labels, reference: Components
    ) -> Moments:
        """Moments of components assigned to the centers ``reference``: pieces that add up over blocks."""
        ...

    def place(self, components: Components, positions: Labels, source: Components) -> Components:
        """A copy of the components with those at ``positions`` moved to the single component ``source``.

        What components share, like a tied covariance, stays theirs.
        """
        ...

    # -- what the EM algorithm needs --------------------------------------------------------------
    def em_pass(self, X: Rows, weights: Array, components: Components) -> tuple[float, Moments]:
        """One E step over all rows: total log-likelihood, and the moments about ``components``."""
        ...

    def hard_moments(self, X: Rows, labels: Labels, reference: Components) -> Moments:
        """Moments of rows that belong to one component each (a start from a clustering)."""
        ...

    def from_moments(
        self, moments: Moments, reference: Components, prior: Prior | None = None
    ) -> Components:
        """Components with these moments about ``reference``: KL barycentre, or with a prior the M step."""
        ...

    def prior_target(self, X: Rows) -> Components:
        """Statistics of all rows that the penalty pulls towards, and the check on degenerate rows starts from."""
        ...

    def pooled_target(self, counts: Array, targets: Components) -> Components:
        """The prior target of all rows together, from those of disjoint sets of ``counts`` (n_sets,) rows.

        Every array of ``targets`` has the sets in front.
        """
        ...

    def degeneracy(self, target: Components) -> str | None:
        """Why such rows cannot bear a component, in words with ``{column i}`` placeholders; None if they can."""
        ...

    def log_prior(self, components: Components, prior: Prior) -> float:
        """What the penalty adds to the log-likelihood."""
        ...

    def is_proper(self, components: Components) -> bool:
        """Whether all components are finite densities."""
        ...

    def start_components(self, X: Array, locations: Array) -> Components:
        """Components at ``locations`` (n_components, n_features), the reference of a first ``hard_moments``."""
        ...

    # -- geometry ---------------------------------------------------------------------------------
    def coordinates(
        self, weights: Array, components: Components, origin: tuple[Array, Components]
    ) -> Array:
        """Affine coordinates around ``origin`` in which the complete-data information per row is the identity."""
        ...

    def from_coordinates(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components] | None:
        """The inverse; None where the coordinates leave the parameter space."""
        ...

    def displaced(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components]:
        """The inverse for a stack of coordinates (..., n_coordinates), unchecked: for small steps."""
        ...

    def coordinate_owners(self, components: Components) -> Labels:
        """The component that each coordinate belongs to, (n_coordinates,); -1 for one that all share."""
        ...

    def scores(self, X: Array, weights: Array, components: Components) -> Array:
        """Gradient of every row's log-density in the coordinates about the mixture itself, (n_samples, n_coordinates).

        The weights' coordinates are orthogonal to the direction in which they cease to sum to 1.
        """
        ...

    def score_of_moments(self, moments: Moments, weights: Array, components: Components) -> Array:
        """Sum of the scores of all rows, from their moments about the components (:meth:`em_pass`)."""
        ...

    def sort_keys(self, components: Components) -> Array:
        """Numbers (n_components, n_keys) that order components of equal weight."""
        ...

    # -- the value --------------------------------------------------------------------------------
    def mixture(
        self, weights: Array, components: Components, feature_names: Sequence[str] | None = None
    ) -> Any:
        """The mixture value with these weights (n_components,) and components, checked."""
        ...

    def mixture_from_arrays(self, parameters: Mapping[str, Any]) -> Any:
        """The mixture value that a message or a file describes: the inverse of its ``to_arrays``.

        Raises
        ------
        ValueError
            If the parameters are no such mixture.
        """
        ...


def canonical_order(family: Family, weights: Array, components: Components) -> Labels:
    """Order of the components in a result: by decreasing weight, ties by the keys of the family."""
    keys = family.sort_keys(components)
    return np.lexsort((*keys.T[::-1], -weights))


def take(components: Components, index: Labels) -> Components:
    """The components at these positions."""
    return tuple(parameter[index] for parameter in components)


def as_block(rows: Rows) -> Array:
    """A block of rows in float64 and row order, so that sums over it do not depend on the layout of its source."""
    return np.ascontiguousarray(rows, dtype=np.float64)
