"""``method="hardened"``: which estimates are kept if several may collude, in one task.

    judge -> harden_selection -> offer_start, ...

The task holds all usable estimates and all their distances. The p-values of :mod:`~.stages.judge` stay in the
decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dask_dfmr.aggregation.hardened.filter import Estimates, Hardened, Refit, harden
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.reasons import is_for_rows
from dask_dfmr.aggregation.result import Note
from dask_dfmr.aggregation.stages.center import panel
from dask_dfmr.aggregation.stages.consensus import Consensus
from dask_dfmr.aggregation.stages.intake import (
    Block,
    Participants,
    join_estimates,
    pair_errors,
    spread,
)
from dask_dfmr.aggregation.stages.judge import heterogeneity_notes
from dask_dfmr.aggregation.stages.keep import Selected, select
from dask_dfmr.exceptions import FilterWarning, HeterogeneityWarning, NoMajorityWarning
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.distances import Stack, stack_mixtures, upper_tiles
from dask_dfmr.mixtures.family import Array, Components

FEWEST_HARDENED_REFITS = 8
"""Fewer refits do not show how far estimates scatter."""


def harden_selection(
    selected: Selected,
    consensus: Consensus,
    blocks: Sequence[Block],
    tiles: Sequence[Array],
    participants: Participants,
    problem: LocalProblem,
    options: AggregationOptions,
) -> Selected:
    """Replace the decision by that of the hardened filter, if it applies.

    Parameters
    ----------
    selected : Selected
        The decision by p-values under the null law.
    consensus : Consensus
    blocks : sequence of Block
    tiles : sequence of ndarray
        Distances of all pairs, in the order of :func:`~dask_dfmr.mixtures.distances.upper_tiles`.
    participants : Participants
    problem : LocalProblem
        How the estimates were fitted.
    options : AggregationOptions
    """
    block, family = join_estimates(blocks), participants.schema.family.with_cut(problem.family.cut)
    assert block.stack is not None  # there are participants
    indices, rows = participants.indices, participants.n_samples
    distances = _whole(tiles, len(blocks))
    if participants.by_precision:
        distances = distances * participants.l2_errors(rows, rows)
    distances = distances / pair_errors(rows, rows)
    law = consensus.law.scaled(np.exp(consensus.log_norm - participants.log_scale))
    found = harden(
        Estimates(family, indices, block.stack, rows, block.parameters, distances),
        law,
        None if isinstance(options.rho, str) else float(options.rho),
        options.false_exclusion_rate,
        _refits(problem),
    )
    if found.unusable:
        text = f"method='hardened' does not apply: {found.unusable}. Estimates were filtered as by method='dfmr'."
        return selected._replace(notes=(*selected.notes, Note(FilterWarning, text)))
    # The reasons number components as the center of the filter does, until the result is there.
    numbered = block.stack.one(found.center)[1]
    return _as_hardened(selected, found, consensus, participants, options)._replace(
        numbered=numbered
    )


def _as_hardened(
    selected: Selected,
    found: Hardened,
    consensus: Consensus,
    participants: Participants,
    options: AggregationOptions,
) -> Selected:
    """The selection with the decision of the filter, and with its warnings."""
    against_rows = {i for i, reason in found.reasons.items() if not is_for_rows(reason)}
    gained = np.isin(participants.indices, sorted(participants.gained - against_rows))
    kept = spread(found.kept | gained, participants, False)
    decision = replace(selected.decision, kept=kept, reasons=found.reasons)
    if found.groups:
        decision = replace(decision, groups=found.groups)
    hardened = select(decision, participants, options, selected.near)
    if found.kept[found.center] and not decision.kept[decision.center]:
        # The center by distances may be an excluded copy.
        center = int(participants.indices[found.center])
        others = [i for i in hardened.starts if i != center]
        hardened = hardened._replace(starts=[center, *others][: options.n_starts])
    return hardened._replace(notes=_notes(hardened, found, consensus, participants, options))


def _whole(tiles: Sequence[Array], n_blocks: int) -> Array:
    """The distance matrix from its upper tiles."""
    by_place = dict(zip(upper_tiles(n_blocks), tiles, strict=True))
    rows = [
        panel(i, [by_place[min(i, j), max(i, j)] for j in range(n_blocks)]) for i in range(n_blocks)
    ]
    return np.vstack(rows)


def _refits(problem: LocalProblem) -> Refit:
    """A function that fits rows drawn from a mixture as local fits do, from a start at the mixture."""

    def refit(weights: Array, components: Components, n_rows: int, n_refits: int) -> Stack | None:
        family = problem.family
        start = problem.family.mixture(weights, components)
        rng = np.random.default_rng(0)
        found = []
        for _ in range(n_refits):
            rows, _ = family.sample(n_rows, weights, components, rng)
            mixture = problem.fit(rows, start).mixture
            if mixture is not None:
                found.append(mixture)
        return stack_mixtures(found) if len(found) >= FEWEST_HARDENED_REFITS else None

    return refit


def _notes(
    selected: Selected,
    found: Hardened,
    consensus: Consensus,
    participants: Participants,
    options: AggregationOptions,
) -> tuple[Note, ...]:
    p_values = selected.decision.p_values
    assert p_values is not None
    explained = (p_values[participants.indices] >= options.false_exclusion_rate).sum()
    is_agreed = not options.is_calibrated or 2 * explained > len(participants.indices)
    notes = [*selected.notes, *heterogeneity_notes(selected, consensus, participants, is_agreed)]
    if found.misfit:
        text = (
            f"{found.misfit}: consistent estimates may be excluded, and inconsistent ones kept. See the reasons, and "
            "what method='dfmr' keeps."
        )
        notes.append(Note(HeterogeneityWarning, text))
    if found.no_majority:
        text = (
            f"{found.no_majority}. The result may be that of inconsistent estimates: see decision.groups and the "
            "reasons of the excluded ones."
        )
        notes.append(Note(NoMajorityWarning, text))
    return tuple(notes)
