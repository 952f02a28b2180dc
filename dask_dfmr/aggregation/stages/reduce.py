"""Kept estimates -> one mixture: at once, or in rounds of block-wise tasks.

{ offer_start } -> pick_start -> reduce_blocks -> finish                                          at once
{ offer_start } -> pick_start -> { { assign_block } -> add_assignments -> recenter_round } -> finish
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.reduction import (
    Assignment,
    Centers,
    assign,
    in_canonical_order,
    recenter,
    reduce_pooled,
)
from dask_dfmr.aggregation.result import AggregationResult, FilterDecision, Note
from dask_dfmr.aggregation.stages.intake import Block
from dask_dfmr.aggregation.stages.keep import Selected
from dask_dfmr.mixtures.distances import Stack
from dask_dfmr.mixtures.family import Array, Components
from dask_dfmr.mixtures.whitening import match_components


def offer_start(block: Block, selected: Selected, s: int) -> Centers | None:
    """Start number ``s`` of the reduction if it is in this block, else None."""
    if (
        s >= len(selected.starts)
        or selected.starts[s] not in block.summary.indices
        or block.stack is None
    ):
        return None
    return Centers(*block.stack.one(block.summary.indices.index(selected.starts[s])))


def pick_start(offers: Sequence[Centers | None]) -> Centers | None:
    """The start of the block that has it; None if there are fewer kept estimates than starts."""
    return next((offer for offer in offers if offer is not None), None)


def assign_block(
    block: Block, selected: Selected, centers: Centers | None, previous: Assignment | None
) -> Assignment | None:
    """One round's assignment of the kept components of a block; None if none of the block is kept."""
    pooled = _pool_kept([block], selected)
    if centers is None or pooled is None:
        return None
    return assign(selected.schema.family, *pooled, centers, previous)


def recenter_round(
    selected: Selected, centers: Centers | None, total: Assignment | None
) -> Centers | None:
    """The new centers of one round, from the assignments of all blocks together."""
    if centers is None or total is None:
        return None
    return recenter(selected.schema.family, centers, total)


def reduce_blocks(
    blocks: Sequence[Block], selected: Selected, start: Centers | None, options: AggregationOptions
) -> Centers | None:
    """All rounds of the reduction at once."""
    pooled = _pool_kept(blocks, selected)
    if start is None or pooled is None or options.method == "coat":
        return start
    return reduce_pooled(selected.schema.family, *pooled, start, options.max_rounds)


def _pool_kept(blocks: Sequence[Block], selected: Selected) -> tuple[Array, Components] | None:
    return pool(
        [
            (block.stack, selected.shares[block.summary.indices])
            for block in blocks
            if block.stack is not None
        ]
    )


def pool(parts: Sequence[tuple[Stack, Array]]) -> tuple[Array, Components] | None:
    """Weights and parameters of all components of the estimates with a positive share; None if there are none.

    Parameters
    ----------
    parts : sequence of (Stack, ndarray)
        Estimates, and the share of each, (n_estimates,).
    """
    weights, components = [], []
    for stack, shares in parts:
        if not (shares > 0).any():
            continue
        kept = stack[shares > 0]
        weights.append((shares[shares > 0, None] * kept.weights).ravel())
        components.append(kept.pooled())
    if not weights:
        return None
    return np.concatenate(weights), tuple(
        np.concatenate(parameters) for parameters in zip(*components, strict=True)
    )


def finish(
    reduced: Sequence[Centers | None], selected: Selected, options: AggregationOptions
) -> AggregationResult:
    """The result of the best reduction."""
    best = min((c for c in reduced if c is not None), key=lambda c: c.objective)
    converged, objective = (
        (True, 0.0) if options.method == "coat" else (best.converged, best.objective)
    )
    notes = list(selected.notes)
    if not converged:
        from sklearn.exceptions import ConvergenceWarning

        remedy = "raise max_rounds: aggregate(estimates, max_rounds=100)"
        text = f"the mixture reduction did not settle in {best.n_iter} rounds; {remedy}."
        notes.append(Note(ConvergenceWarning, text))
    schema = selected.schema
    ordered = in_canonical_order(schema.family, best)
    mixture = schema.family.mixture(ordered.weights, ordered.components, schema.feature_names)
    return AggregationResult(
        mixture,
        _numbered_as(ordered.components, selected),
        objective,
        best.n_iter,
        converged,
        options.method,
        tuple(notes),
    )


def _numbered_as(components: Components, selected: Selected) -> FilterDecision:
    """The decision, with reasons that number components as the result does."""
    decision = selected.decision
    if selected.numbered is None:
        return decision
    matched = match_components(selected.schema.family, components, selected.numbered)
    order = [int(k) for k in matched]
    reasons = {i: reason.in_order(order) for i, reason in decision.reasons.items()}
    return replace(decision, reasons=reasons)
