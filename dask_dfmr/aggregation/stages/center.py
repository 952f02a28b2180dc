"""Blocks -> L2 distances -> the center: the estimate with the smallest median distance to all estimates.

    { l2_tile } -> { coat_candidate } -> coat_min                                            all pairs
    scouts_of -> l2_rows -> coat_among                                                       references
    -> references_of -> reference_medians -> candidates_of -> l2_rows -> coat_among -> coat_min

:mod:`dask_dfmr.aggregation.references` derives why references suffice for many estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dask_dfmr.aggregation.medoid import Candidate, best_candidate, row_candidates
from dask_dfmr.aggregation.references import best_medians, draw_references, draw_scouts
from dask_dfmr.aggregation.stages.intake import Block, Participants, rows_of
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.family import Array, Components
from dask_dfmr.seeds import REFERENCE_DRAW, SCOUT_DRAW, stream


class CenterCandidate(NamedTuple):
    """A candidate for the center with its parameters, from which the reduction starts.

    ``n_candidates`` is the number of candidates that were compared for it.
    """

    candidate: Candidate
    weights: Array
    components: Components
    n_candidates: int


# -- all pairs -------------------------------------------------------------------------------------


def l2_tile(a: Block, b: Block, participants: Participants) -> Array:
    """Distances between the estimates of two blocks, (n_a, n_b), in the unit of the participants."""
    if a.stack is None or b.stack is None:
        return np.zeros((len(a.summary.indices), len(b.summary.indices)))
    tile = l2.l2_tile(
        participants.schema.family,
        a.stack,
        b.stack,
        a.summary.log_self,
        b.summary.log_self,
        participants.log_scale,
    )
    if participants.by_precision:
        tile /= participants.l2_errors(rows_of(a, participants), rows_of(b, participants))
    return l2.symmetric_tile(tile) if a.summary.indices == b.summary.indices else tile


def panel(i: int, tiles: Sequence[Array]) -> Array:
    """The rows of block i in the distance matrix, from the upper tiles that touch it."""
    return np.hstack([tile.T if j < i else tile for j, tile in enumerate(tiles)])


def coat_candidate(block: Block, i: int, tiles: Sequence[Array]) -> CenterCandidate | None:
    """The best candidate for the center in block i; ``tiles`` are the upper tiles that touch it."""
    return _best_in(block, panel(i, tiles))


def _best_in(block: Block, distances: Array) -> CenterCandidate | None:
    """The best candidate of a block, by its rows of the distance matrix."""
    if block.stack is None:
        return None
    summary = block.summary
    candidates = row_candidates(distances, summary.indices, summary.n_samples, block.parameters)
    best = best_candidate(candidates)
    place = summary.indices.index(best.estimate)
    return CenterCandidate(best, *block.stack.one(place), len(candidates))


def coat_min(candidates: Sequence[CenterCandidate | None]) -> CenterCandidate:
    """The best of the candidates of several blocks."""
    present = {c.candidate.estimate: c for c in candidates if c is not None}
    best = present[best_candidate([c.candidate for c in present.values()]).estimate]
    return best._replace(n_candidates=sum(c.n_candidates for c in present.values()))


# -- references ------------------------------------------------------------------------------------


def scouts_of(participants: Participants, seed: np.random.SeedSequence) -> list[int]:
    """Indices of estimates drawn at random, to be measured against all."""
    rng = np.random.default_rng(stream(seed, SCOUT_DRAW))
    return [int(i) for i in participants.indices[draw_scouts(len(participants.indices), rng)]]


def references_of(
    scout: CenterCandidate,
    participants: Participants,
    n_references: int,
    seed: np.random.SeedSequence,
) -> list[int]:
    """Indices drawn in strata along the distance to the best scout; an index may be drawn twice."""
    rng = np.random.default_rng(stream(seed, REFERENCE_DRAW))
    drawn = draw_references(scout.candidate.distances, n_references, rng)
    return [int(i) for i in participants.indices[drawn]]


def candidates_of(
    medians: Sequence[Array], scouts: Sequence[int], participants: Participants
) -> list[int]:
    """Indices of the smallest median distances to the references, without the scouts.

    The exact medians of the scouts are known already.
    """
    excluded = np.searchsorted(participants.indices, scouts)
    return [int(i) for i in participants.indices[best_medians(np.concatenate(medians), excluded)]]


def l2_rows(chosen: Block, block: Block, participants: Participants) -> Array:
    """Distances from the chosen estimates to those of a block, (n_chosen, n_block)."""
    a, b = chosen.summary, block.summary
    rows = np.zeros((len(a.indices), len(b.indices)))
    if chosen.stack is None or block.stack is None:
        return rows
    for s in l2.tile_blocks(len(rows), l2.BLOCK_SIZE):
        for t in l2.tile_blocks(rows.shape[1], l2.BLOCK_SIZE):
            rows[s, t] = l2.l2_tile(
                participants.schema.family,
                chosen.stack[s],
                block.stack[t],
                a.log_self[s],
                b.log_self[t],
                participants.log_scale,
            )
    if participants.by_precision:
        rows /= participants.l2_errors(rows_of(chosen, participants), rows_of(block, participants))
    rows[np.equal.outer(a.indices, b.indices)] = 0.0
    return rows


def reference_medians(references: Block, block: Block, participants: Participants) -> Array:
    """Median distance of each estimate of a block to the references, (n_block,)."""
    rows = l2_rows(references, block, participants)
    with np.errstate(invalid="ignore"):
        return np.median(rows, axis=0)


def coat_among(chosen: Block, rows: Sequence[Array]) -> CenterCandidate | None:
    """The best of the chosen estimates; ``rows`` are their distances to all estimates, block by block."""
    return _best_in(chosen, np.hstack(rows))
