"""Estimates -> one mixture, component by component, with the mixing weights profiled out.

Machines whose mixing weights differ honestly (sorted or stratified rows) are far apart as densities,
but their components are not. So no distance here sees a weight but as a number of rows: n_i w_ik
rows stand behind component k of machine i.

1. *Template*: the machine whose components most other machines have too, by a dissimilarity of
   single components that is bounded, so that one broken component cannot outweigh the others.
2. *Matching* of every machine's components to the template's, one to one; then to the centers of
   the next step, until it stands still.
3. For each component a *center*, a *radius* and *kept* machines, as the filter has for whole
   mixtures, on distances in standard errors.
4. *Barycentre* of what is kept, and the *weights* that the kept rows support.

What that gives up: nobody is left out for its weights, so a wrong weight is believed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaincinv

from dask_dfmr.aggregation.medoid import Candidate, best_candidate, row_candidates
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.mixtures.distances import Stack, log_self_products
from dask_dfmr.mixtures.family import Array, Components, Family, Labels, canonical_order, take

ROUNDING = 1e-12
"""Divergences below it, in nats, are rounding: the components are the same."""

LEAST_WEIGHT = 1e-12
"""Weight that a component without rows counts as: its rows are divided by."""

N_TEMPLATES = 256
"""The template only says which component is which: of more machines, so many drawn at random are compared."""

MAX_MATCHINGS = 5
"""From a template of the majority the second matching is the first one again."""

LEVEL = 1e-3
"""Share of honest components beyond what sampling explains, where components hardly overlap."""

LEAST_SCALE = 0.5
"""Squared distances to the center are at least so much of those between two estimates: were the center exact, the
other one's error would be left."""

RANGE_OF_WEIGHTS = (0.05, 0.95)
"""Quantiles, over the machines where it is known, that bound the weight of a component where it is not."""

WEIGHT_TOLERANCE = 1e-12
MAX_WEIGHT_ROUNDS = 1000

BLOCK_FLOATS = 2**21
"""Size of the temporaries of distances from some candidates to all machines, 16 MB."""


class Machines(NamedTuple):
    """Local estimates of m machines with K components each.

    Attributes
    ----------
    family : Family
    stack : Stack
        Weights (m, K), components (m, K, ...).
    n_samples : ndarray of shape (m,)
    parameters : ndarray of shape (m, p)
        Flattened, the last resort of a tie.
    log_self : ndarray of shape (m, K)
        Log <phi, phi> of every component.
    judged : ndarray of bool, shape (m, K)
        Whether enough rows stand behind a component to judge it: as many as it has parameters.
    """

    family: Family
    stack: Stack
    n_samples: Array
    parameters: Array
    log_self: Array
    judged: NDArray[np.bool_]

    @property
    def rows(self) -> Array:
        """Rows behind every component, n_i w_ik, shape (m, K); never none at all."""
        return self.n_samples[:, None] * np.maximum(self.stack.weights, LEAST_WEIGHT)

    @property
    def n_parameters(self) -> int:
        """Parameters of one component."""
        return parameters_of_one(self.family, self.stack)

    def aligned(self, matching: Labels) -> Machines:
        """The same, with the components of each machine in the order of ``matching`` (m, K)."""
        machine = np.arange(len(matching))[:, None]
        stack = Stack(
            self.stack.weights[machine, matching],
            tuple(p[machine, matching] for p in self.stack.components),
        )
        return self._replace(
            stack=stack,
            log_self=self.log_self[machine, matching],
            judged=self.judged[machine, matching],
        )

    def one_of_each(self, machines: list[int]) -> tuple[Components, Array]:
        """The k-th component of the k-th of some machines, for all k; and their self products."""
        index = np.array(machines), np.arange(len(machines))
        return tuple(p[index] for p in self.stack.components), self.log_self[index]

    def component(self, k: int, index: Labels | slice = slice(None)) -> Components:
        """The k-th component of some machines."""
        return tuple(p[index, k] for p in self.stack.components)


def parameters_of_one(family: Family, stack: Stack) -> int:
    """Parameters of one component."""
    return family.n_parameters(1, family.n_features(stack.pooled()))


def as_machines(family: Family, stack: Stack, n_samples: Array, parameters: Array) -> Machines:
    """Estimates with what is computed once of each."""
    singles = Stack(np.ones((stack.weights.size, 1)), tuple(p[:, None] for p in stack.pooled()))
    log_self = log_self_products(family, singles).reshape(stack.weights.shape)
    judged = n_samples[:, None] * stack.weights >= parameters_of_one(family, stack)
    return Machines(family, stack, n_samples, parameters, log_self, judged)


# -- which component is which --------------------------------------------------------------------


def dissimilarities(
    family: Family, a: Components, b: Components, log_a: Array, log_b: Array
) -> Array:
    """1 - <phi_i, phi_j> / (|phi_i| |phi_j|) of all pairs of components, (n_a, n_b): from 0 to 1.

    Bounded, because in a matching the cost of a component that fits nowhere must not decide where
    the others go.
    """
    log_products = family.log_product_integral(a, b)
    with np.errstate(under="ignore"):
        cosines = np.exp(log_products - 0.5 * (log_a[:, None] + log_b[None]))
    return np.clip(1.0 - cosines, 0.0, 1.0)


def find_template(machines: Machines, drawn: Labels) -> int:
    """The machine among those ``drawn`` whose components most of them have too.

    Its score is the sum over its components of the median dissimilarity to the components of the
    others that are matched to them: a sum of medians, because each component may be broken on
    other machines. One-to-one, because K copies of one good component are no template.
    """
    n_components = machines.judged.shape[1]
    pooled = machines.stack[drawn].pooled()
    log_self, judged = machines.log_self[drawn].ravel(), machines.judged[drawn]
    costs = dissimilarities(machines.family, pooled, pooled, log_self, log_self)
    costs = costs.reshape(len(drawn), n_components, len(drawn), n_components)
    costs = np.where(judged[:, :, None, None] & judged, costs, 1.0)
    matched = np.zeros((len(drawn), n_components, len(drawn)))
    for i in range(len(drawn)):
        for j in range(i + 1, len(drawn)):
            mine, theirs = linear_sum_assignment(costs[i, :, j])
            cost = costs[i, mine, j, theirs]
            matched[i, mine, j] = np.where(judged[j, theirs], cost, np.nan)
            matched[j, theirs, i] = np.where(judged[i, mine], cost, np.nan)
    matched[~judged] = 1.0
    medians = np.nanmedian(matched, axis=2).sum(axis=1)
    means = np.nanmean(matched, axis=2).sum(axis=1)
    scores = [
        Candidate(m, m, a, int(machines.n_samples[i]), machines.parameters[i], int(i), np.empty(0))
        for i, m, a in zip(drawn, medians.tolist(), means.tolist(), strict=True)
    ]
    return best_candidate(scores).machine


def match(machines: Machines, reference: Components, log_reference: Array) -> Labels:
    """Which component of each machine is which of the reference's, shape (m, K): the matching of least dissimilarity.

    A component that cannot be judged fits equally badly everywhere: it gets what the others leave.
    """
    m, n_components = machines.judged.shape
    costs = dissimilarities(
        machines.family,
        reference,
        machines.stack.pooled(),
        log_reference,
        machines.log_self.ravel(),
    )
    costs = costs.reshape(n_components, m, n_components).swapaxes(0, 1)
    costs = np.where(machines.judged[:, None, :], costs, 1.0)
    return np.array([linear_sum_assignment(cost)[1] for cost in costs])


# -- who is kept, component by component ---------------------------------------------------------


class Judgement(NamedTuple):
    """One component on all machines.

    Attributes
    ----------
    center : int
        Position of the machine whose component is in the middle.
    distances : ndarray of shape (m,)
        To the center's, in standard errors; NaN where not judged.
    radius : float
        Distance within which more than half of the judged lie, or should lie for sampling alone.
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

    The square is 2 KL(b || a) / (1/n_a + 1/n_b): near each other, 2 KL is the squared difference of
    the parameters in units of the Fisher information of one row, so two estimates of one component
    from n_a and n_b rows of it have a squared distance that is chi-square with the component's
    parameters. Overlap with other components makes it larger. The divergence takes the direction
    that reduction takes, b with few rows against a center a.
    """
    divergences = family.divergence(b, a).T
    divergences[divergences < ROUNDING] = 0.0
    return np.sqrt(2.0 * divergences / (1.0 / rows_a[:, None] + 1.0 / rows_b[None]))


def judge(
    machines: Machines,
    k: int,
    rho: float,
    n_candidates: int | None,
    rng: np.random.Generator,
    level: float = LEVEL,
) -> Judgement:
    """Center, radius and kept machines of component k of aligned machines."""
    voters = np.flatnonzero(machines.judged[:, k])
    if not len(voters):  # then few rows have to do
        voters = np.arange(len(machines.judged))
    center = _center(machines, k, voters, _draw(voters, n_candidates, rng))
    radius, limit = calibrate(center.half_distance, machines.n_parameters, rho, level)
    distances = np.full(len(machines.judged), np.nan)
    distances[voters] = center.distances
    return Judgement(center.machine, distances, radius, limit, distances <= limit)


def _draw(positions: Labels, n: int | None, rng: np.random.Generator) -> Labels:
    """All positions, or n of them at random."""
    if n is None or n >= len(positions):
        return positions
    return np.sort(rng.choice(positions, n, replace=False))


def _center(machines: Machines, k: int, voters: Labels, candidates: Labels) -> Candidate:
    """The candidate with the smallest median distance to all voters, some candidates at a time."""
    rows, theirs = machines.rows[:, k], machines.component(k, voters)
    floats = len(voters) * machines.family.n_features(theirs)
    step = max(1, BLOCK_FLOATS // floats)
    best: list[Candidate] = []
    for i in range(0, len(candidates), step):
        block = candidates[i : i + step]
        mine = machines.component(k, block)
        distances = distances_in_errors(machines.family, mine, theirs, rows[block], rows[voters])
        n_rows = machines.n_samples[block].astype(int).tolist()
        rest = block.tolist(), n_rows, machines.parameters[block]
        best.append(best_candidate([*best[-1:], *row_candidates(distances, *rest)]))
    return best[-1]


def calibrate(
    half_distance: float, n_parameters: int, rho: float, level: float = LEVEL
) -> tuple[float, float]:
    """Radius and limit of a component whose half of the machines lies within ``half_distance``.

    The radius is that distance, or what it would be for sampling alone if that is more. The limit
    is ``rho`` radii, or the radius times the ratio of two quantiles of the chi distribution, those
    of 1 - ``level`` and 1/2, if that is more. This is the one place where the rule is written.

    Examples
    --------
    That ratio by the number of parameters, for components in 1, 2, 3, 5, 10 and 50 columns:

    >>> [round(calibrate(1e3, q, 1.0)[1] / 1e3, 2) for q in (2, 5, 9, 20, 65, 1325)]
    [3.16, 2.17, 1.83, 1.53, 1.28, 1.06]
    """
    median, extreme = np.sqrt(2.0 * gammaincinv(0.5 * n_parameters, [0.5, 1.0 - level]))
    radius = max(half_distance, float(median * np.sqrt(LEAST_SCALE)))
    return radius, radius * max(rho, float(extreme / median))


# -- weights -------------------------------------------------------------------------------------


def profiled_weights(
    family: Family,
    machines: Machines,
    shares: Array,
    kept: NDArray[np.bool_],
    components: Components,
) -> Array:
    """Mixing weights of the result, averaged over aligned machines with ``shares`` (m,), 0 for those that do not count.

    A component that is kept, or has too few rows to be judged, counts with its own weight. One that
    is too far may still be a part of some component l of the result, as where a machine has too few
    kinds of rows for K components: w phi <= phi_l implies KL(phi || phi_l) <= log(1 / w), and then
    it counts with the nearest such l. What is left is unexplained, and so is what became of the
    components that the machine lacks instead: they share its weight, see :func:`fill_in`.
    """
    weights = machines.stack.weights
    known = kept | ~machines.judged
    mass = np.where(known, weights, 0.0)
    far = np.nonzero(~known)
    divergences = family.divergence(tuple(p[far] for p in machines.stack.components), components)
    nearest = divergences.argmin(axis=1)
    with np.errstate(divide="ignore"):
        is_part = divergences.min(axis=1) <= -np.log(weights[far])
    np.add.at(mass, (far[0][is_part], nearest[is_part]), weights[far][is_part])
    unexplained = np.zeros(len(weights))
    np.add.at(unexplained, far[0][~is_part], weights[far][~is_part])
    # Which of several components that fit nowhere got which place says nothing.
    found = kept.copy()
    found[far[0][is_part], nearest[is_part]] = True
    lost = ~found & (unexplained > 0)[:, None]
    return fill_in(mass, lost, unexplained, shares)


def fill_in(mass: Array, lost: NDArray[np.bool_], unexplained: Array, shares: Array) -> Array:
    """Average of the weights ``mass`` (m, K) over machines, where those of ``lost`` components are not known.

    What is known of them is their sum, ``unexplained`` (m,). The most likely weights, by the EM
    algorithm, split it in proportion of themselves; but each part stays in the range that the
    weight has on nine tenths of the machines where it is known, because what is unexplained need
    not be rows of these components at all.
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
    """Between what nine tenths of these weights lie; between 0 and 1 where there is none."""
    return np.quantile(weights, RANGE_OF_WEIGHTS) if len(weights) else np.array([0.0, 1.0])


# -- the whole -----------------------------------------------------------------------------------


class ComponentwiseResult(NamedTuple):
    """Global mixture and verdicts; K components in the order of the result, m machines.

    Attributes
    ----------
    weights : ndarray of shape (K,)
    components : tuple of ndarray, each (K, ...)
    objective : float
        Mean divergence of the kept components from the result's, in nats.
    template : int
        Position of the machine whose components gave the first matching.
    centers : ndarray of int, shape (K,)
        Positions of the machines in the middle.
    matching : ndarray of int, shape (m, K)
        Which component of each machine is which of the result.
    rows : ndarray of shape (m, K)
        Rows behind it.
    distances : ndarray of shape (m, K)
        To the center of the component, in standard errors; NaN for too few rows.
    radii, limits : ndarray of shape (K,)
    kept : ndarray of bool, shape (m, K)
    least_rows : int
        Rows that it takes to judge a component.
    n_matchings : int
        Rounds of matching and centers.
    settled : bool
        Whether the last one changed no matching.
    """

    weights: Array
    components: Components
    objective: float
    template: int
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
    machines: Machines,
    rho: float,
    machine_weights: Array,
    n_candidates: int | None,
    rng: np.random.Generator,
    level: float = LEVEL,
) -> ComponentwiseResult:
    """Filter and reduce component by component.

    Parameters
    ----------
    machines : Machines
    rho : float
        A component is kept within ``rho`` radii, or within what sampling explains.
    machine_weights : ndarray of shape (m,)
        What a machine counts in the result: its rows, or one for all.
    n_candidates : int or None
        Among so many machines, drawn at random, the centers are chosen; None: among all.
    rng : Generator
        Of the draws, where there are more machines than that.
    level : float
        Share of honest components beyond what sampling explains.

    Raises
    ------
    AggregationError
        If the kept components lie too far apart for floating point.
    """
    everybody = np.arange(len(machines.judged))
    template = find_template(machines, _draw(everybody, N_TEMPLATES, rng))
    again = match(machines, machines.stack.one(template)[1], machines.log_self[template])
    n_matchings, settled = 0, False
    while not settled and n_matchings < MAX_MATCHINGS:
        matching = again
        aligned = machines.aligned(matching)
        verdicts = [
            judge(aligned, k, rho, n_candidates, rng, level) for k in range(matching.shape[1])
        ]
        middle = aligned.one_of_each([v.center for v in verdicts])
        again = match(machines, *middle)
        n_matchings, settled = n_matchings + 1, np.array_equal(again, matching)
    kept = np.column_stack([v.kept for v in verdicts])
    distances = np.column_stack([v.distances for v in verdicts])
    mass = machine_weights[:, None] * np.maximum(aligned.stack.weights, LEAST_WEIGHT)
    components, objective = _barycentres(aligned, mass, kept, middle[0])
    shares = np.where(kept.any(axis=1), machine_weights, 0.0)
    weights = profiled_weights(machines.family, aligned, shares, kept, components)
    order = canonical_order(machines.family, weights, components)
    return ComponentwiseResult(
        weights[order],
        take(components, order),
        objective,
        template,
        np.array([verdicts[k].center for k in order]),
        matching[:, order],
        aligned.n_samples[:, None] * aligned.stack.weights[:, order],
        distances[:, order],
        np.array([verdicts[k].radius for k in order]),
        np.array([verdicts[k].limit for k in order]),
        kept[:, order],
        machines.n_parameters,
        n_matchings,
        settled,
    )


def _barycentres(
    machines: Machines, mass: Array, kept: NDArray[np.bool_], reference: Components
) -> tuple[Components, float]:
    """KL barycentre of the kept components, k by k, and the mean divergence from it."""
    family, where = machines.family, np.nonzero(kept)
    share, labels = mass[where] / mass[where].sum(), where[1]
    pooled = tuple(p[where] for p in machines.stack.components)
    moments = family.pooled_moments(share, pooled, labels, reference)
    components = family.from_moments(moments, reference)
    if not family.is_proper(components):
        raise AggregationError(
            "the kept components have no proper mean: some lie too far from the others for floating point. "
            "Give a finite rho, or look at the distances in the decision."
        )
    objective = 0.0
    for k in range(len(reference[0])):
        mine = labels == k
        center = take(components, np.array([k]))
        divergences = family.divergence(tuple(p[mine] for p in pooled), center)[:, 0]
        objective += float(share[mine] @ divergences)
    return components, objective
