"""The contract of a component family, and the types of its arrays.

Local fits, distances, reduction, aggregation and refinement use the components of a mixture only through
:class:`Family`. A new family, for example Poisson, is one new module beside :mod:`dask_dfmr.mixtures.gaussian`. It
holds the family and its mixture value, which derives from :class:`dask_dfmr.mixtures.mixture.FiniteMixture`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.row_cut import RowCut

Array = NDArray[np.float64]
"""Numbers in float64."""

Labels = NDArray[np.intp]
"""Positions, for example of the component of each row."""

Rows = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
"""Rows of a partition as they were read, (n_samples, n_features): real numbers of any type."""

Components = tuple[Array, ...]
"""Parameters of components: one array per parameter, each with the component axis first. Stacks of mixtures have
further axes in front of it."""

Moments = tuple[Array, ...]
"""Weighted sums of sufficient statistics per component. They add up over blocks of rows or of pooled components. The
first array is always the mass, shape (n_components,). A statistic of a parameter that all components share may have one
entry, the sum over them."""

RowTotals = tuple[Array, ...]
"""What a family computes of rows once, for many EM steps over them."""

Quantity = Literal["log_density", "label", "responsibilities"]
"""What :meth:`Family.evaluate` computes of each row."""

LOG_2PI = float(np.log(2.0 * np.pi))
"""log(2 pi), of the normalisation of a Gaussian density."""

NOISE = 1e-13
"""Relative rounding of a log-likelihood that is a sum over rows; smaller differences mean nothing."""

LEAST_MASS = 1e-6
"""Rows inside the cuts, fewer than which are none; their number is a sum of responsibilities."""

MAX_SQUARED_LENGTH = 1e300
"""Upper bound of squared distances in standard deviations; larger ones count as this."""

BLOCK_FLOATS = 2**14
"""Size of the temporaries of a kernel over rows, 128 kB. With the settings of Dask's nanny the allocator maps and
unmaps larger ones at every use, which nearly doubles the cost of a pass."""


class EmSums(NamedTuple):
    """Sums over rows under one mixture, which add up over blocks of rows.

    Attributes
    ----------
    log_likelihood : float
        Sum of the log-densities of all rows, in nats.
    moments : tuple of ndarray
        Moments of the rows about the components. If the family truncates, those of the rows inside the cuts, divided
        by what the cuts leave of them (:mod:`~dask_dfmr.mixtures.row_cut`).
    n_outside : int
        Number of rows beyond the cuts of all components; 0 if the family knows no cut.
    """

    log_likelihood: float
    moments: Moments
    n_outside: int = 0

    def __add__(self, other: object) -> EmSums:
        if not isinstance(other, EmSums):
            return NotImplemented
        moments = tuple(a + b for a, b in zip(self.moments, other.moments, strict=True))
        return EmSums(
            self.log_likelihood + other.log_likelihood, moments, self.n_outside + other.n_outside
        )


class Prior(NamedTuple):
    """The penalty on the components of a mixture (Chen & Tan 2009).

    Attributes
    ----------
    weight : float
        The factor a_n of the penalty; 0 is plain maximum likelihood.
    target : tuple of ndarray
        What the penalty shrinks the components towards. For Gaussians the first array holds covariances in the
        structure of the family: one for each component (:meth:`Family.within_target`), or that of all rows for all
        (:meth:`Family.prior_target`). An empty tuple is open: the first of some EM steps sets it to the former.
    floor : float, default 0
        Added to the diagonal of every covariance after the update, as scikit-learn's ``reg_covar``.
    """

    weight: float
    target: Components
    floor: float = 0.0


class StepRule(NamedTuple):
    """When several plain EM steps stop.

    Attributes
    ----------
    n_most : int, default 1
        Largest number of steps.
    objective : float, default -inf
        The penalised log-likelihood before the first step, in nats.
    least_gain : float, default 0
        Steps stop after one that changes it by less, in nats, or by no more than rounding.
    """

    n_most: int = 1
    objective: float = -np.inf
    least_gain: float = 0.0

    def stops(self, gain: float, objective: float, n_terms: int) -> bool:
        """Whether a step with this gain is the last one; the objective is a sum of ``n_terms`` terms."""
        return abs(gain) < self.least_gain or is_rounding(gain, objective, n_terms)


class EmSteps(NamedTuple):
    """What some plain EM steps found.

    Attributes
    ----------
    weights, components : ndarray, tuple of ndarray
        The mixture after them.
    prior : Prior
        The penalty with its target.
    n_steps : int
        Their number. The step after them may have been impossible; if there is none, so was the first one.
    objective, log_likelihood : float
        Sums over all rows in nats, with and without the penalty, before the last step.
    gain : float
        Gain of the objective by the last but one step, in nats.
    has_stopped : bool
        Whether the last step gained too little to go on.
    n_outside_first, n_outside : int
        Rows beyond the cuts of all components before the first step, and before the last one. Steps with
        :data:`RowTotals` do not count them.
    """

    weights: Array
    components: Components
    prior: Prior
    n_steps: int = 0
    objective: float = -np.inf
    log_likelihood: float = -np.inf
    gain: float = np.inf
    has_stopped: bool = False
    n_outside_first: int = 0
    n_outside: int = 0


@runtime_checkable
class Family(Protocol, Hashable):
    """The mathematics of one kind of component: methods that take and return arrays.

    A family is stateless, hashable and picklable. ``weights`` have the shape (n_components,), every array of
    ``components`` (n_components, ...), and ``X`` (n_samples, n_features).
    """

    @property
    def name(self) -> str:
        """Unique name, which files and messages hold."""
        ...

    @property
    def cut(self) -> RowCut:
        """How far from a component a row may be, and whether rows beyond that count in it."""
        ...

    def with_cut(self, cut: RowCut) -> Family:
        """The same family with another cut: the mixtures are the same, and so is the name."""
        ...

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of a mixture, its weights included."""
        ...

    def least_rows(self, n_components: int, n_features: int) -> int:
        """Number of rows below which a fit is of no use: at least 2, and at least ``n_components``."""
        ...

    def least_component_rows(self, n_features: int) -> int:
        """Number of rows below which the likelihood of a single component has no maximum of its own.

        An optimum with a lighter component is spurious: a penalty alone keeps its likelihood finite.
        """
        ...

    def n_features(self, components: Components) -> int:
        """Number of columns that the components describe."""
        ...

    # -- densities --------------------------------------------------------------------------------

    def sample(
        self, n_samples: int, weights: Array, components: Components, rng: Any
    ) -> tuple[Array, Labels]:
        """Rows (n_samples, n_features) grouped by component, and the component of each row (n_samples,).

        ``rng`` is a Generator or a RandomState.
        """
        ...

    def log_density(self, X: Array, components: Components) -> Array:
        """Log phi_k(x) in nats, shape (n_samples, n_components); callers pass blocks of rows."""
        ...

    def evaluate(
        self, X: Rows, weights: Array, components: Components, quantity: Quantity
    ) -> Array:
        """A quantity of each finite row under the mixture.

        Log-density in nats, (n_samples,); most probable component, the first of equals, as floats (n_samples,); or
        the responsibilities (n_samples, n_components). The value of a row depends on this row alone.
        """
        ...

    def log_density_of_each(self, X: Rows, components: Components) -> Array:
        """Log-densities of finite rows under each component alone, as :meth:`evaluate` of a mixture of one has them.

        Shape (n_samples, n_components). A component is not computed about the others, however far away they are.
        """
        ...

    def log_peaks(self, components: Components) -> Array:
        """Upper bounds of the log-density of each component in nats, shape (n_components,)."""
        ...

    def log_product_integral(
        self, a: Components, b: Components, floor: tuple[Array, Array] | None = None
    ) -> Array:
        """Log <phi_i, phi_j>, the integral of the product of two densities, for all pairs, shape (n_a, n_b).

        Pairs below ``floor[0][i] + floor[1][j]`` are negligible. The result may be -inf for them if that saves work.
        """
        ...

    def log_matched_integral(self, a: Components, b: Components) -> Array:
        """Log <phi_i, phi_i>, the same of the i-th density of either set alone, shape (n,) for two sets of n."""
        ...

    # -- mixture reduction ------------------------------------------------------------------------

    def divergence(self, a: Components, b: Components) -> Array:
        """KL(phi_i || phi_k) of all pairs in nats, shape (n_a, n_b)."""
        ...

    def pooled_moments(
        self, weights: Array, components: Components, labels: Labels, reference: Components
    ) -> Moments:
        """Moments about ``reference`` of weighted components, component i assigned to center ``labels[i]``."""
        ...

    def place(self, components: Components, positions: Labels, source: Components) -> Components:
        """A copy of the components in which the single component ``source`` replaces those at ``positions``.

        Parameters that all components share, such as a tied covariance, do not change.
        """
        ...

    # -- EM ---------------------------------------------------------------------------------------

    def em_pass(self, X: Rows, weights: Array, components: Components) -> EmSums:
        """One E step over all rows; the moments are those about ``components``."""
        ...

    def row_totals(self, X: Rows) -> RowTotals | None:
        """What many :meth:`em_steps` over the same rows have in common; None if they gain nothing by it."""
        ...

    def em_steps(
        self,
        X: Rows,
        weights: Array,
        components: Components,
        prior: Prior,
        rule: StepRule,
        totals: RowTotals | None = None,
    ) -> EmSteps:
        """Some plain EM steps over all rows; :func:`em_steps` makes them from the other methods.

        ``totals`` are the :meth:`row_totals` of the rows.
        """
        ...

    def hard_moments(
        self,
        X: Rows,
        labels: Labels,
        reference: Components,
        totals: RowTotals | None = None,
    ) -> Moments:
        """Moments about ``reference`` of rows that belong to one component each, as in a clustering.

        ``totals`` are the :meth:`row_totals` of the rows.
        """
        ...

    def from_moments(
        self, moments: Moments, reference: Components, prior: Prior | None = None
    ) -> Components:
        """Components with these moments about ``reference``: the KL barycenter, or with a prior the M step."""
        ...

    def prior_target(self, X: Rows) -> Components:
        """Statistics of all rows: the target of the paper's penalty, and an input of :meth:`degeneracy`."""
        ...

    def total_target(self, moments: Moments, reference: Components) -> Components:
        """The :meth:`prior_target` of all rows, up to rounding, from their moments about ``reference``."""
        ...

    def within_target(self, moments: Moments, reference: Components) -> Components:
        """A target of the penalty that describes rows within components, from moments of all rows.

        It is proper wherever :meth:`total_target` is.
        """
        ...

    def degeneracy(self, X: Rows, target: Components, floor: float = 0.0) -> str | None:
        """Why no component can be fitted to rows with this prior target, and what to do; None if one can be fitted.

        ``floor`` is that of the prior. The text has a placeholder ``{column i}`` for every column that it names.
        """
        ...

    def log_prior(self, components: Components, prior: Prior) -> float:
        """The term that the penalty adds to the total log-likelihood, in nats."""
        ...

    def is_proper(self, components: Components) -> bool:
        """Whether all components are densities that floating point can represent."""
        ...

    def with_columns(
        self, components: Components, order: Labels, scale: Array, shift: Array
    ) -> Components | None:
        """Components of the rows ``scale * x[order] + shift``; None if the family has no such components.

        ``order``, ``scale`` and ``shift`` have the shape (n_features,).
        """
        ...

    def start_components(self, X: Array, locations: Array) -> Components:
        """Components at ``locations`` (n_components, n_features): the reference of the first :meth:`hard_moments`."""
        ...

    # -- geometry ---------------------------------------------------------------------------------

    def as_origin(self, point: tuple[Array, Components]) -> tuple[Array, Components]:
        """A point as an origin of coordinates, about which many others are placed: it may hold what they share."""
        ...

    def coordinates(
        self, weights: Array, components: Components, origin: tuple[Array, Components]
    ) -> Array:
        """Affine coordinates (n_coordinates,) about ``origin``.

        The complete-data information per row at the origin is the identity in them.
        """
        ...

    def from_coordinates(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components] | None:
        """The inverse of :meth:`coordinates`; None if the coordinates lie outside the parameter space."""
        ...

    def displaced(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components]:
        """The inverse of :meth:`coordinates` for a stack (..., n_coordinates), without a check, for small steps."""
        ...

    def coordinate_owners(self, components: Components) -> Labels:
        """The component of each coordinate, shape (n_coordinates,); -1 for a coordinate that all components share."""
        ...

    def scores(self, X: Array, weights: Array, components: Components) -> Array:
        """Gradient of each row's log-density in the coordinates about the mixture, (n_samples, n_coordinates).

        The part for the weights is orthogonal to the direction in which their sum changes. If the family truncates,
        the estimating function of the row instead, whose mean over rows of the mixture is zero too.
        """
        ...

    def score_lengths(self, X: Array, weights: Array, components: Components) -> Array:
        """Euclidean length of each row's :meth:`scores`, or an upper bound of it that costs less, (n_samples,)."""
        ...

    def score_of_moments(self, moments: Moments, weights: Array, components: Components) -> Array:
        """Sum of the :meth:`scores` of all rows, from the moments that :meth:`em_pass` returns for them."""
        ...

    def sort_keys(self, components: Components) -> Array:
        """Numbers (n_components, n_keys) that order components of equal weight."""
        ...

    # -- the mixture value ------------------------------------------------------------------------

    def mixture(
        self, weights: Array, components: Components, feature_names: Sequence[str] | None = None
    ) -> Any:
        """The mixture value with these weights and components.

        Raises
        ------
        ValueError
            If they are no mixture of this family.
        """
        ...

    def mixture_from_arrays(self, parameters: Mapping[str, Any]) -> Any:
        """The mixture value that a message or a file describes; the inverse of its ``to_arrays``.

        Raises
        ------
        ValueError
            If the parameters are no mixture of this family.
        """
        ...


def em_steps(
    family: Family,
    X: Rows,
    weights: Array,
    components: Components,
    prior: Prior,
    rule: StepRule,
    totals: RowTotals | None = None,
) -> EmSteps:
    """Some plain EM steps over all rows, from the passes and M steps of a family, without the totals.

    They end before a step that gives no proper components.
    """
    steps = EmSteps(weights, components, prior, objective=rule.objective)
    n_terms = len(X) * family.n_features(components)
    for _ in range(rule.n_most):
        weights, components, prior = steps.weights, steps.components, steps.prior
        sums = family.em_pass(X, weights, components)
        if sums.moments[0].sum() <= LEAST_MASS:
            break
        if not prior.target:
            prior = prior._replace(target=family.within_target(sums.moments, components))
        mapped = em_step(family, sums.moments, components, prior, len(X))
        if mapped is None:
            break
        objective = sums.log_likelihood + family.log_prior(components, prior)
        gain = objective - steps.objective
        first = steps.n_outside_first if steps.n_steps else sums.n_outside
        steps = EmSteps(
            *mapped,
            prior,
            steps.n_steps + 1,
            objective,
            sums.log_likelihood,
            gain,
            rule.stops(gain, objective, n_terms),
            first,
            sums.n_outside,
        )
        if steps.has_stopped:
            break
    return steps


def em_step(
    family: Family, moments: Moments, components: Components, prior: Prior, n_samples: int
) -> tuple[Array, Components] | None:
    """The mixture after an M step from moments about ``components``; None if it is improper, or no row counts."""
    mass = moments[0]
    if mass.sum() <= LEAST_MASS:
        return None
    mapped = family.from_moments(moments, components, prior)
    if not family.is_proper(mapped):
        return None
    # The mass of rows that are cut off is that of no component.
    return mass / (mass.sum() if family.cut.truncates else n_samples), mapped


def is_rounding(gain: float, objective: float, n_terms: int) -> bool:
    """Whether a gain cannot be told from none: it is below the rounding of the objective, a sum of ``n_terms`` terms.

    The sum may be near 0 while the terms are not: log-densities of d columns are sums of d terms.
    """
    return abs(gain) <= NOISE * (abs(objective) + n_terms)


def quantity_of(log_joint: Array, quantity: Quantity) -> Array:
    """The quantity of each row, from log w_k + log phi_k(x) of a block of rows, (n_samples, n_components)."""
    if quantity == "label":
        return log_joint.argmax(axis=1).astype(np.float64)
    top = log_joint.max(axis=1)
    np.copyto(top, 0.0, where=~np.isfinite(top))  # no component has the row
    shares = np.exp(log_joint - top[:, None])
    total = shares.sum(axis=1)
    if quantity == "responsibilities":
        shares /= total[:, None]
        return shares
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(total) + top)


def canonical_order(family: Family, weights: Array, components: Components) -> Labels:
    """The order of the components in a result: by decreasing weight, then by the sort keys of the family."""
    keys = family.sort_keys(components)
    return np.lexsort((*keys.T[::-1], -weights))


def take(components: Components, index: Labels) -> Components:
    """The components at the positions ``index``, in that order."""
    return tuple(parameter[index] for parameter in components)


def as_block(rows: Rows) -> Array:
    """A block of rows in float64 and C order, so that sums over it do not depend on the memory layout of the rows."""
    return np.ascontiguousarray(rows, dtype=np.float64)


def batches(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of 0 .. n, each of at most ``size``; none if n is 0.

    scikit-learn's ``gen_batches`` refuses n = 0, and its check of the arguments costs as much as a pass over a small
    partition.
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
