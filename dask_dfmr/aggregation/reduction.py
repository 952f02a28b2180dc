"""Mixture reduction: pooled components -> one mixture of n_components (Zhang & Chen 2022, MR).

The reduction minimizes the composite transportation divergence sum_i w_i KL(phi_i || phi_k(i)) by majorize-minimize,
in rounds of ``assign`` (every pooled component to its nearest center) and ``recenter`` (every center to the KL
barycenter of its components). Both take blocks of pooled components. Assignments of blocks add up, so the same rounds
run in memory and as a tree of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from dask_dfmr.exceptions import AggregationError
from dask_dfmr.mixtures.family import (
    Array,
    Components,
    Family,
    Labels,
    Moments,
    canonical_order,
    take,
)

SAME_COMPONENT = 1e-12
"""Divergences below this, in nats, are rounding: the components are the same."""

MAX_ROUNDS = 20
"""A reduction from the center takes one to six rounds."""


class Centers(NamedTuple):
    """The reduced mixture after ``n_iter`` rounds.

    ``objective`` is the divergence in nats; ``converged`` says whether the last round changed no assignment.
    """

    weights: Array
    components: Components
    objective: float = float("inf")
    n_iter: int = 0
    converged: bool = False


class Assignment(NamedTuple):
    """The contribution of a block of pooled components to a round; all fields but ``labels`` add up over blocks.

    Attributes
    ----------
    moments : tuple of ndarray
        Moments of the components of each center.
    objective : float
        In nats.
    changed : bool
        Whether an assignment differs from the last round's.
    farthest : (float, tuple of ndarray)
        Weight times divergence, and parameters, of the pooled component with the largest such product. An empty center
        moves there.
    labels : ndarray of int, shape (n_pooled,), or None
        Center of each pooled component; None for several blocks together.
    """

    moments: Moments
    objective: float
    changed: bool
    farthest: tuple[float, Components]
    labels: Labels | None


def assign(
    family: Family,
    weights: Array,
    pooled: Components,
    centers: Centers,
    previous: Assignment | None,
) -> Assignment:
    """Assign pooled components, (n_pooled, ...), to their nearest centers."""
    if previous is not None and centers.converged:
        return previous
    divergences = family.divergence(pooled, centers.components)
    divergences[divergences < SAME_COMPONENT] = 0.0
    labels = divergences.argmin(axis=1)
    costs = weights * divergences[np.arange(len(labels)), labels]
    changed = (
        previous is None or previous.labels is None or not np.array_equal(labels, previous.labels)
    )
    top = int(costs.argmax())
    return Assignment(
        family.pooled_moments(weights, pooled, labels, centers.components),
        float(costs.sum()),
        changed,
        (float(costs[top]), take(pooled, np.array([top]))),
        labels,
    )


def add_assignments(assignments: Sequence[Assignment | None]) -> Assignment | None:
    """The contribution of several blocks together; None stands for a block of which nothing is kept."""
    present = [a for a in assignments if a is not None]
    return reduce(_add, present) if present else None


def _add(a: Assignment, b: Assignment) -> Assignment:
    moments = tuple(x + y for x, y in zip(a.moments, b.moments, strict=True))
    farthest = max(a.farthest, b.farthest, key=lambda f: f[0])
    return Assignment(moments, a.objective + b.objective, a.changed or b.changed, farthest, None)


def recenter(family: Family, centers: Centers, total: Assignment) -> Centers:
    """Move every center to the barycenter of its components, or stop if no assignment changed."""
    if centers.converged:
        return centers
    if not total.changed:
        return centers._replace(objective=total.objective, converged=True)
    return move_centers(family, centers, total.moments, total.objective, total.farthest)


def move_centers(
    family: Family,
    centers: Centers,
    moments: Moments,
    objective: float,
    farthest: tuple[float, Components],
) -> Centers:
    """Move every center to the barycenter of its components, and an empty one to the farthest component.

    Raises
    ------
    AggregationError
        If the result is no proper mixture.
    """
    mass = moments[0]
    components = family.from_moments(moments, centers.components)
    moved = Centers(mass / mass.sum(), components, objective, centers.n_iter + 1)
    empty = np.flatnonzero(mass == 0)
    if empty.size:
        moved = _reseed(family, moved, empty, farthest)
    if not family.is_proper(moved.components):
        raise AggregationError(
            "the reduction of the kept estimates is no proper mixture. Either covariances are nearly singular: fit "
            "with penalty='auto' or reg_covar > 0. Or some estimates lie too far from the others for floating point: "
            "method='dfmr' with rho='auto' excludes them."
        )
    return moved


def _reseed(
    family: Family, centers: Centers, empty: Labels, farthest: tuple[float, Components]
) -> Centers:
    """Move empty centers to the farthest component; if all divergences are 0, split the heaviest center instead."""
    cost, source = farthest
    if cost > 0:
        # Several empty centers move to the same place. The first one wins all ties; the others move in later rounds.
        components = family.place(centers.components, empty, source)
        return centers._replace(components=components)
    weights, components = centers.weights.copy(), centers.components
    for k in empty:
        heaviest = int(weights.argmax())
        weights[[k, heaviest]] = weights[heaviest] / 2
        components = family.place(components, np.array([k]), take(components, np.array([heaviest])))
    return Centers(weights, components, 0.0, centers.n_iter, True)


def reduce_pooled(
    family: Family, weights: Array, pooled: Components, start: Centers, max_rounds: int = MAX_ROUNDS
) -> Centers:
    """All rounds of a reduction of pooled components, (n_pooled, ...), with ``weights`` (n_pooled,)."""
    centers, assignment = start, None
    for _ in range(max_rounds):
        assignment = assign(family, weights, pooled, centers, assignment)
        centers = recenter(family, centers, assignment)
        if centers.converged:
            break
    return centers


def in_canonical_order(family: Family, centers: Centers) -> Centers:
    """The centers by decreasing weight."""
    order = canonical_order(family, centers.weights, centers.components)
    return centers._replace(
        weights=centers.weights[order], components=take(centers.components, order)
    )
