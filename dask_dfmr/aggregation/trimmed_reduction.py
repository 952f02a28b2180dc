"""Trimmed mixture reduction: the paper's baseline, which trims components instead of filtering machines.

In every round the pooled components that are farthest from their centers, of half of the weight, take no part
(trimmed k-barycentres, del Barrio et al. 2019, as TRIM in Zhang, Tan & Chen 2026). It needs no
judgement of machines; but which half is far is decided among the components of all clusters together, so that the
components that are hard to estimate lose most of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.reduction import MAX_ROUNDS, ROUNDING, Centers, move_centers
from dask_dfmr.aggregation.result import Aggregate, AggregationOptions
from dask_dfmr.aggregation.stages.intake import Block, Verdict, finish, join_estimates, pool
from dask_dfmr.mixtures.family import Array, Components, Family

TRIMMED_SHARE = 0.5
"""Of the weight of all pooled components."""


class Trimmed(NamedTuple):
    """Centers, and the weight that was kept of every pooled component."""

    centers: Centers
    kept: Array


def trim(
    blocks: Sequence[Block],
    verdict: Verdict,
    starts: Sequence[Centers | None],
    options: AggregationOptions,
) -> Aggregate:
    """The best trimmed reduction of all machines; left out are those of which no component is kept."""
    block = join_estimates(blocks)
    assert block.stack is not None  # the participants has somebody
    family = verdict.schema.family
    shares = verdict.machine_weights[block.summary.indices]
    pooled = pool([(block.stack, shares)])
    assert pooled is not None
    reduced = [
        reduce_trimmed(family, *pooled, start, options.max_rounds)
        for start in starts
        if start is not None
    ]
    best = min(reduced, key=lambda r: r.centers.objective)
    kept = verdict.decision.kept.copy()
    kept[block.summary.indices] = best.kept.reshape(len(shares), -1).any(axis=1)
    excluded = np.flatnonzero(verdict.decision.kept & ~kept)
    reasons = dict.fromkeys(
        excluded.tolist(), "all of its components are among the farthest half (method 'trim')"
    )
    decision = replace(verdict.decision, kept=kept, reasons=reasons)
    return finish([best.centers], verdict._replace(decision=decision), options)


def reduce_trimmed(
    family: Family, weights: Array, pooled: Components, start: Centers, max_rounds: int = MAX_ROUNDS
) -> Trimmed:
    """All rounds; ``weights`` sum to 1, and the component on the border is kept in part."""
    centers = start
    labels, kept = np.empty(0), np.empty(0)
    for _ in range(max_rounds):
        divergences = family.divergence(pooled, centers.components)
        divergences[divergences < ROUNDING] = 0.0
        last = labels, kept
        labels = divergences.argmin(axis=1)
        costs = divergences.min(axis=1)
        kept = _nearest(weights, costs)
        objective = float(kept @ np.where(kept > 0, costs, 0.0))
        if np.array_equal(labels, last[0]) and np.array_equal(kept, last[1]):
            return Trimmed(centers._replace(objective=objective, converged=True), kept)
        used = kept > 0
        farthest = int(np.where(used, kept * costs, -1.0).argmax())
        centers = move_centers(
            family,
            centers,
            family.pooled_moments(
                kept[used], tuple(p[used] for p in pooled), labels[used], centers.components
            ),
            objective,
            (float(kept[farthest] * costs[farthest]), tuple(p[[farthest]] for p in pooled)),
        )
    return Trimmed(centers, kept)


def _nearest(weights: Array, costs: Array) -> Array:
    """Of the weights, the part that is kept: that of the nearest, up to the share that is not trimmed."""
    order = np.argsort(costs, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    kept: NDArray[np.float64] = np.empty_like(weights)
    kept[order] = np.clip(1.0 - TRIMMED_SHARE - before, 0.0, weights[order])
    return kept
