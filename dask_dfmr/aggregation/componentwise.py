"""Estimates -> one mixture, component by component, with the mixing weights profiled out.

Estimates from sorted or stratified rows have different mixing weights. They are far apart as densities, but their
components are not. So no distance here depends on a weight, except as a number of rows: n_i w_ik rows stand behind
component k of estimate i.

1. *Template*: the estimate whose components most other estimates have too. The dissimilarity of single components is
   bounded, so that one inconsistent component cannot outweigh the others.
2. *Matching* of the components of every estimate to those of the template, one to one; then to the centers of step 3,
   until the matching stays the same.
3. For each component a *center*, a *radius* and the *kept* estimates, as the filter has for whole mixtures, from
   distances in standard errors.
4. *Barycenter* of the kept components, and the *weights* that the kept rows support.

The price: no estimate is excluded for its weights, so a wrong weight is not detected.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.medoid import Candidate, best_candidate, row_candidates
from dask_dfmr.aggregation.reduction import SAME_COMPONENT
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.mixtures.assignment import assignment
from dask_dfmr.mixtures.distances import Stack, log_self_products
from dask_dfmr.mixtures.family import (
    Array,
    Components,
    Family,
    Labels,
    batches,
    canonical_order,
    take,
)
from dask_dfmr.mixtures.tails import chi2_ppf

LEAST_WEIGHT = 1e-12
"""Weight that stands for 0: distances divide by the rows of a component."""

N_TEMPLATES = 256
"""The template decides only which component is which. Of more estimates, so many are drawn at random and compared."""

MAX_MATCHINGS = 5
"""With a template of the majority, the second matching is the same as the first one."""

COMPONENT_LEVEL = 1e-3
"""Share of consistent components beyond what sampling explains, if components hardly overlap."""

LEAST_CENTER_SCALE = 0.5
"""Squared distances to the center are at least this share of those between two estimates: with an exact center, the
error of the other estimate is left."""

RANGE_OF_WEIGHTS = (0.05, 0.95)
"""Quantiles, over the estimates whose weight of a component is known, that bound the weights that are not."""

WEIGHT_TOLERANCE, MAX_WEIGHT_ROUNDS = 1e-12, 1000
"""The EM algorithm for unknown weights ends when no weight changes by more than the first, or after so many rounds."""

DISTANCE_FLOATS = 2**21
"""Size of the temporary arrays of distances from some candidates to all estimates, 16 MB."""


class ComponentEstimates(NamedTuple):
    """The m local estimates with K components each, and what is computed once for each component.

    Attributes
    ----------
    family : Family
    stack : Stack
        Weights (m, K), components (m, K, ...).
    n_samples : ndarray of shape (m,)
    parameters : ndarray of shape (m, p)
        All parameters of each estimate in one row; they decide ties at last.
    log_self : ndarray of shape (m, K)
        Log <phi, phi> of every component.
    judged : ndarray of bool, shape (m, K)
        Whether enough rows stand behind a component to compare it: as many as it has parameters.
    """

    family: Family
    stack: Stack
    n_samples: Array
    parameters: Array
    log_self: Array
    judged: NDArray[np.bool_]

    @property
    def rows(self) -> Array:
        """Rows behind every component, n_i w_ik, shape (m, K); always more than 0."""
        return self.n_samples[:, None] * np.maximum(self.stack.weights, LEAST_WEIGHT)

    @property
    def n_parameters(self) -> int:
        """Number of parameters of one component."""
        return parameters_of_one(self.family, self.stack)

    def aligned(self, matching: Labels) -> ComponentEstimates:
        """The estimates with the components of each in the order of ``matching`` (m, K)."""
        estimate = np.arange(len(matching))[:, None]
        stack = Stack(
            self.stack.weights[estimate, matching],
            tuple(p[estimate, matching] for p in self.stack.components),
        )
        return self._replace(
            stack=stack,
            log_self=self.log_self[estimate, matching],
            judged=self.judged[estimate, matching],
        )

    def one_of_each(self, positions: list[int]) -> tuple[Components, Array]:
        """For each k the k-th component of the estimate at the k-th position; and their log <phi, phi>."""
        index = np.array(positions), np.arange(len(positions))
        return tuple(p[index] for p in self.stack.components), self.log_self[index]

    def component(self, k: int, index: Labels | slice = slice(None)) -> Components:
        """The k-th component of some estimates."""
        return tuple(p[index, k] for p in self.stack.components)


def parameters_of_one(family: Family, stack: Stack) -> int:
    """Number of parameters of one component."""
    return family.n_parameters(1, family.n_features(stack.pooled()))


def component_estimates(
    family: Family, stack: Stack, n_samples: Array, parameters: Array
) -> ComponentEstimates:
    """Estimates (m, K, ...) from ``n_samples`` (m,) rows, with what is computed once for each component."""
    singles = Stack(np.ones((stack.weights.size, 1)), tuple(p[:, None] for p in stack.pooled()))
    log_self = log_self_products(family, singles).reshape(stack.weights.shape)
    judged = n_samples[:, None] * stack.weights >= parameters_of_one(family, stack)
    return ComponentEstimates(family, stack, n_samples, parameters, log_self, judged)


# -- which component is which --------------------------------------------------------------------


def dissimilarities(
    family: Family, a: Components, b: Components, log_a: Array, log_b: Array
) -> Array:
    """1 - <phi_i, phi_j> / (|phi_i| |phi_j|) of all pairs of components, (n_a, n_b): from 0 to 1.

    It is bounded because the cost of a component that fits nowhere must not decide how the others are matched.
    """
    log_products = family.log_product_integral(a, b)
    with np.errstate(under="ignore"):
        cosines = np.exp(log_products - 0.5 * (log_a[:, None] + log_b[None]))
    return np.clip(1.0 - cosines, 0.0, 1.0)


def find_template(estimates: ComponentEstimates, drawn: Labels) -> int:
    """Position of the estimate, among those ``drawn``, whose components most of them have too.

    Its score is the sum, over its components, of the median dissimilarity to the matched components of the others. It
    is a sum of medians because each component may be inconsistent in other estimates. The matching is one to one
    because K copies of one consistent component are no template.
    """
    n_components = estimates.judged.shape[1]
    pooled = estimates.stack[drawn].pooled()
    log_self, judged = estimates.log_self[drawn].ravel(), estimates.judged[drawn]
    costs = dissimilarities(estimates.family, pooled, pooled, log_self, log_self)
    costs = costs.reshape(len(drawn), n_components, len(drawn), n_components)
    costs = np.where(judged[:, :, None, None] & judged, costs, 1.0)
    matched = np.zeros((len(drawn), n_components, len(drawn)))
    every = np.arange(n_components)
    for i in range(len(drawn)):
        for j in range(i + 1, len(drawn)):
            of_j = assignment(costs[i, :, j])
            cost = costs[i, every, j, of_j]
            matched[i, :, j] = np.where(judged[j, of_j], cost, np.nan)
            matched[j, of_j, i] = np.where(judged[i], cost, np.nan)
    matched[~judged] = 1.0
    medians = np.nanmedian(matched, axis=2).sum(axis=1)
    means = np.nanmean(matched, axis=2).sum(axis=1)
    scores = [
        Candidate(
            m, m, a, int(estimates.n_samples[i]), estimates.parameters[i], int(i), np.empty(0)
        )
        for i, m, a in zip(drawn, medians.tolist(), means.tolist(), strict=True)
    ]
    return best_candidate(scores).estimate


def match(estimates: ComponentEstimates, reference: Components, log_reference: Array) -> Labels:
    """Which component of each estimate is which of the reference's, (m, K): the matching of least dissimilarity.

    A component with too few rows fits equally badly everywhere: it gets what the others leave.
    """
    m, n_components = estimates.judged.shape
    costs = dissimilarities(
        estimates.family,
        reference,
        estimates.stack.pooled(),
        log_reference,
        estimates.log_self.ravel(),
    )
    costs = costs.reshape(n_components, m, n_components).swapaxes(0, 1)
    costs = np.where(estimates.judged[:, None, :], costs, 1.0)
    return np.array([assignment(cost) for cost in costs])


# -- center, radius and kept estimates, component by component -------------------------------------


class ComponentFilter(NamedTuple):
    """The decision on one component of all estimates.

    Attributes
    ----------
    center : int
        Position of the estimate whose component is the center.
    distances : ndarray of shape (m,)
        To the center, in standard errors; NaN if there are too few rows.
    radius : float
        Distance within which more than half of the compared components lie, or would lie by sampling alone.
    limit : float
        Distance up to which components are kept.
    kept : ndarray of bool, shape (m,)
    """

    center: int
    distances: Array
    radius: float
    limit: float
    kept: NDArray[np.bool_]


def distances_in_errors(
    family: Family, a: Components, b: Components, rows_a: Array, rows_b: Array
) -> Array:
    """Distances from components a to components b in standard errors of their difference, (n_a, n_b).

    The square is 2 KL(b || a) / (1/n_a + 1/n_b). For close components, 2 KL is the squared difference of the
    parameters in units of the Fisher information of one row. So the squared distance of two estimates of one component,
    from n_a and n_b rows of it, is chi-square with as many degrees of freedom as the component has parameters.
    Overlap with other components makes it larger. The divergence has the direction of the reduction: b, with few rows,
    against a center a.
    """
    divergences = family.divergence(b, a).T
    divergences[divergences < SAME_COMPONENT] = 0.0
    return np.sqrt(2.0 * divergences / (1.0 / rows_a[:, None] + 1.0 / rows_b[None]))


def filter_component(
    estimates: ComponentEstimates,
    k: int,
    rho: float,
    n_candidates: int | None,
    rng: np.random.Generator,
    level: float = COMPONENT_LEVEL,
) -> ComponentFilter:
    """Center, radius and kept estimates for component k of aligned estimates."""
    voters = np.flatnonzero(estimates.judged[:, k])
    if not len(voters):  # then components with few rows are compared
        voters = np.arange(len(estimates.judged))
    center = _center(estimates, k, voters, _draw(voters, n_candidates, rng))
    radius, limit = calibrate(center.half_distance, estimates.n_parameters, rho, level)
    distances = np.full(len(estimates.judged), np.nan)
    distances[voters] = center.distances
    return ComponentFilter(center.estimate, distances, radius, limit, distances <= limit)


def _draw(positions: Labels, n: int | None, rng: np.random.Generator) -> Labels:
    """All positions, or n of them drawn at random, in order."""
    if n is None or n >= len(positions):
        return positions
    return np.sort(rng.choice(positions, n, replace=False))


def _center(estimates: ComponentEstimates, k: int, voters: Labels, candidates: Labels) -> Candidate:
    """The candidate with the smallest median distance to all voters, some candidates at a time."""
    rows, of_voters = estimates.rows[:, k], estimates.component(k, voters)
    floats = len(voters) * estimates.family.n_features(of_voters)
    step = max(1, DISTANCE_FLOATS // floats)
    best: list[Candidate] = []
    for s in batches(len(candidates), step):
        block = candidates[s]
        distances = distances_in_errors(
            estimates.family, estimates.component(k, block), of_voters, rows[block], rows[voters]
        )
        n_rows = estimates.n_samples[block].astype(int).tolist()
        rest = block.tolist(), n_rows, estimates.parameters[block]
        best.append(best_candidate([*best[-1:], *row_candidates(distances, *rest)]))
    return best[-1]


def calibrate(
    half_distance: float, n_parameters: int, rho: float, level: float = COMPONENT_LEVEL
) -> tuple[float, float]:
    """Radius and limit of a component, if half of the estimates lie within ``half_distance`` of its center.

    The radius is that distance, or what it would be by sampling alone if that is more. The limit is ``rho`` radii, or
    the radius times the ratio of two quantiles of the chi distribution, those of 1 - ``level`` and 1/2, if that is
    more. The rule is written only here.

    Examples
    --------
    That ratio by the number of parameters, for components in 1, 2, 3, 5, 10 and 50 columns:

    >>> [round(calibrate(1e3, q, 1.0)[1] / 1e3, 2) for q in (2, 5, 9, 20, 65, 1325)]
    [3.16, 2.17, 1.83, 1.53, 1.28, 1.06]
    """
    median, extreme = np.sqrt(chi2_ppf(np.array([0.5, 1.0 - level]), n_parameters))
    radius = max(half_distance, float(median * np.sqrt(LEAST_CENTER_SCALE)))
    return radius, radius * max(rho, float(extreme / median))


# -- weights -------------------------------------------------------------------------------------


def profiled_weights(
    family: Family,
    estimates: ComponentEstimates,
    shares: Array,
    kept: NDArray[np.bool_],
    components: Components,
) -> Array:
    """Mixing weights of the result, averaged over aligned estimates with ``shares`` (m,); a share of 0 does not count.

    A component that is kept, or has too few rows to be compared, counts with its own weight. A component that is too
    far may still be part of some component l of the result, if the rows of an estimate have too few kinds for K
    components: w phi <= phi_l implies KL(phi || phi_l) <= log(1 / w), and then it counts for the nearest such l. The
    weight of the other components is unexplained. The components of the result that the estimate lacks share that
    weight, see :func:`fill_in`.
    """
    weights = estimates.stack.weights
    known = kept | ~estimates.judged
    mass = np.where(known, weights, 0.0)
    far = np.nonzero(~known)
    divergences = family.divergence(tuple(p[far] for p in estimates.stack.components), components)
    nearest = divergences.argmin(axis=1)
    with np.errstate(divide="ignore"):
        is_part = divergences.min(axis=1) <= -np.log(weights[far])
    np.add.at(mass, (far[0][is_part], nearest[is_part]), weights[far][is_part])
    unexplained = np.zeros(len(weights))
    np.add.at(unexplained, far[0][~is_part], weights[far][~is_part])
    # The places of several components that fit nowhere mean nothing.
    found = kept.copy()
    found[far[0][is_part], nearest[is_part]] = True
    lost = ~found & (unexplained > 0)[:, None]
    return fill_in(mass, lost, unexplained, shares)


def fill_in(mass: Array, lost: NDArray[np.bool_], unexplained: Array, shares: Array) -> Array:
    """Average of the weights ``mass`` (m, K) over the estimates, if those of ``lost`` components are not known.

    Only their sum is known, ``unexplained`` (m,). The most likely weights, by the EM algorithm, split it in proportion
    to themselves. But each part stays in the range that the weight has in nine tenths of the estimates for which it is
    known, because the unexplained rows may belong to none of these components.
    """
    counted = shares > 0
    mass, lost, unexplained = mass[counted], lost[counted], unexplained[counted]
    shares = shares[counted] / shares[counted].sum()
    known = shares @ np.where(lost, 0.0, mass)
    if not lost.any():
        return known / known.sum()
    low, high = np.array([_range(m[~gone]) for m, gone in zip(mass.T, lost.T, strict=True)]).T
    weights = np.full(mass.shape[1], 1.0 / mass.shape[1])
    for _ in range(MAX_WEIGHT_ROUNDS):
        among = np.where(lost, np.maximum(weights, LEAST_WEIGHT), 0.0)
        total = np.maximum(among.sum(axis=1), LEAST_WEIGHT)
        split = np.clip(among * (unexplained / total)[:, None], low, high)
        previous, weights = weights, known + shares @ np.where(lost, split, 0.0)
        weights /= weights.sum()
        if np.abs(weights - previous).max() <= WEIGHT_TOLERANCE:
            break
    return weights


def _range(weights: Array) -> Array:
    """The range of nine tenths of these weights; 0 to 1 if there are none."""
    return np.quantile(weights, RANGE_OF_WEIGHTS) if len(weights) else np.array([0.0, 1.0])


# -- the whole -----------------------------------------------------------------------------------


class ComponentwiseResult(NamedTuple):
    """The global mixture and the decisions on m estimates; the K components have the order of the result.

    Attributes
    ----------
    weights : ndarray of shape (K,)
    components : tuple of ndarray, each (K, ...)
    objective : float
        Mean divergence of the kept components from the result's, in nats.
    centers : ndarray of int, shape (K,)
        Positions of the estimates whose components are the centers.
    matching : ndarray of int, shape (m, K)
        Which component of each estimate is which of the result.
    rows : ndarray of shape (m, K)
        Rows behind each component.
    distances : ndarray of shape (m, K)
        To the center of the component, in standard errors; NaN if there are too few rows.
    radii, limits : ndarray of shape (K,)
    kept : ndarray of bool, shape (m, K)
    least_rows : int
        Rows needed to compare a component.
    n_matchings : int
        Rounds of matching and centers.
    settled : bool
        Whether the last one changed no matching.
    """

    weights: Array
    components: Components
    objective: float
    centers: Labels
    matching: Labels
    rows: Array
    distances: Array
    radii: Array
    limits: Array
    kept: NDArray[np.bool_]
    least_rows: int
    n_matchings: int
    settled: bool


def filter_components(
    estimates: ComponentEstimates,
    rho: float,
    machine_weights: Array,
    n_candidates: int | None,
    rng: np.random.Generator,
    level: float = COMPONENT_LEVEL,
) -> ComponentwiseResult:
    """Filter and reduce component by component.

    Parameters
    ----------
    estimates : ComponentEstimates
    rho : float
        A component is kept within ``rho`` radii, or within what sampling explains.
    machine_weights : ndarray of shape (m,)
        What an estimate counts in the result: its rows, or the same for all.
    n_candidates : int or None
        The centers are chosen among so many estimates, drawn at random; None: among all.
    rng : Generator
        Of the draws, if there are more estimates than that.
    level : float
        Share of consistent components beyond what sampling explains.

    Raises
    ------
    AggregationError
        If the kept components lie too far apart for floating point.
    """
    drawn = _draw(np.arange(len(estimates.judged)), N_TEMPLATES, rng)
    template = find_template(estimates, drawn)
    again = match(estimates, estimates.stack.one(template)[1], estimates.log_self[template])
    n_matchings, settled = 0, False
    while not settled and n_matchings < MAX_MATCHINGS:
        matching = again
        aligned = estimates.aligned(matching)
        filters = [
            filter_component(aligned, k, rho, n_candidates, rng, level)
            for k in range(matching.shape[1])
        ]
        middle = aligned.one_of_each([f.center for f in filters])
        again = match(estimates, *middle)
        n_matchings, settled = n_matchings + 1, np.array_equal(again, matching)
    kept = np.column_stack([f.kept for f in filters])
    distances = np.column_stack([f.distances for f in filters])
    mass = machine_weights[:, None] * np.maximum(aligned.stack.weights, LEAST_WEIGHT)
    components, objective = _barycenters(aligned, mass, kept, middle[0])
    shares = np.where(kept.any(axis=1), machine_weights, 0.0)
    weights = profiled_weights(estimates.family, aligned, shares, kept, components)
    order = canonical_order(estimates.family, weights, components)
    return ComponentwiseResult(
        weights[order],
        take(components, order),
        objective,
        np.array([filters[k].center for k in order]),
        matching[:, order],
        aligned.n_samples[:, None] * aligned.stack.weights[:, order],
        distances[:, order],
        np.array([filters[k].radius for k in order]),
        np.array([filters[k].limit for k in order]),
        kept[:, order],
        estimates.n_parameters,
        n_matchings,
        settled,
    )


def _barycenters(
    estimates: ComponentEstimates, mass: Array, kept: NDArray[np.bool_], reference: Components
) -> tuple[Components, float]:
    """KL barycenter of the kept components, k by k, and the mean divergence from it."""
    family, where = estimates.family, np.nonzero(kept)
    share, labels = mass[where] / mass[where].sum(), where[1]
    pooled = tuple(p[where] for p in estimates.stack.components)
    moments = family.pooled_moments(share, pooled, labels, reference)
    components = family.from_moments(moments, reference)
    if not family.is_proper(components):
        raise AggregationError(
            "the kept components have no proper mean: some lie too far from the others for floating point. "
            "Give a finite rho, or rho='auto'."
        )
    objective = 0.0
    for k in range(len(reference[0])):
        mine = labels == k
        center = take(components, np.array([k]))
        divergences = family.divergence(tuple(p[mine] for p in pooled), center)[:, 0]
        objective += float(share[mine] @ divergences)
    return components, objective
