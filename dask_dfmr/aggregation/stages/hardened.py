"""Stage of ``method="hardened"``: the verdict of :mod:`dask_dfmr.aggregation.stages.consensus` -> that of :mod:`dask_dfmr.aggregation.hardened.filter`.

    l2_tile, ..., judge -> harden -> offer_start, ...

One task sees all usable estimates and all their distances. What the filter by distance says stays in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dask_dfmr.aggregation.hardened.filter import Estimates, Finding, Hardened, Refit, harden
from dask_dfmr.aggregation.reduction import Centers, in_canonical_order
from dask_dfmr.aggregation.result import AggregationOptions, Note
from dask_dfmr.aggregation.stages.consensus import Consensus, heterogeneity_notes
from dask_dfmr.aggregation.stages.intake import (
    Block,
    Participants,
    Verdict,
    join_estimates,
    listed,
    pair_errors,
    panel,
    reduce_blocks,
    spread,
    verdict_on,
)
from dask_dfmr.exceptions import FilterWarning, HeterogeneityWarning, NoMajorityWarning
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.distances import Stack, stack_mixtures, upper_tiles
from dask_dfmr.mixtures.family import Array, Components
from dask_dfmr.mixtures.whitening import match_components

FEWEST_REFITS = 8
"""Of fewer refits nobody can tell how far estimates scatter."""


def harden_verdict(
    verdict: Verdict,
    consensus: Consensus,
    blocks: Sequence[Block],
    tiles: Sequence[Array],
    participants: Participants,
    problem: LocalProblem,
    options: AggregationOptions,
) -> Verdict:
    """Who is kept where estimates may collude; ``tiles`` are those of :func:`upper_tiles`, in its order."""
    block, family = join_estimates(blocks), participants.schema.family
    assert block.stack is not None  # the participants has somebody
    distances = _whole(tiles, len(blocks))
    if not participants.by_precision:
        distances = distances / pair_errors(participants.n_samples, participants.n_samples)
    found = harden(
        Estimates(family, block.stack, participants.n_samples, block.parameters, distances),
        consensus.law,
        None if isinstance(options.rho, str) else float(options.rho),
        options.false_exclusion_rate,
        _refits(problem),
    )
    if found.unusable:
        text = f"method='hardened' does not apply: {found.unusable}"
        note = Note(FilterWarning, f"{text}. Estimates were filtered as by method='dfmr'.")
        return verdict._replace(notes=(*verdict.notes, note))
    center = int(participants.indices[found.center])
    decision = replace(verdict.decision, kept=spread(found.kept, participants, False))
    if found.groups:
        decision = replace(decision, groups=_as_indices(found.groups, participants))
    # That of distances may have been a copy.
    reasons = {int(participants.indices[i]): "left out" for i in found.findings}
    decision = replace(decision, reasons=reasons)
    hardened = verdict_on(decision, participants, options, verdict.near)
    if found.kept[found.center] and not decision.kept[decision.center]:
        others = [i for i in hardened.starts if i != center]
        hardened = hardened._replace(starts=[center, *others][: options.n_starts])
    numbers = _component_numbers(hardened, blocks, block.stack.one(found.center), options)
    words = {
        int(participants.indices[i]): _in_words(finding, numbers, participants)
        for i, finding in found.findings.items()
    }
    return hardened._replace(
        decision=replace(decision, reasons=words),
        notes=_notes(hardened, found, participants, options),
    )


def _whole(tiles: Sequence[Array], n_blocks: int) -> Array:
    """The distance matrix."""
    by_place = dict(zip(upper_tiles(n_blocks), tiles, strict=True))
    rows = [
        panel(i, [by_place[min(i, j), max(i, j)] for j in range(n_blocks)]) for i in range(n_blocks)
    ]
    return np.vstack(rows)


def _refits(problem: LocalProblem) -> Refit:
    """Estimates of rows drawn from a mixture, fitted as the machines fit theirs, from a start at the mixture."""

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
        return stack_mixtures(found) if len(found) >= FEWEST_REFITS else None

    return refit


def _component_numbers(
    verdict: Verdict,
    blocks: Sequence[Block],
    reference: tuple[Array, Components],
    options: AggregationOptions,
) -> list[int]:
    """Which component of the result each one of the reference's is: readers know the result's."""
    start = next(
        block.stack.one(block.summary.indices.index(verdict.starts[0]))
        for block in blocks
        if block.stack is not None and verdict.starts[0] in block.summary.indices
    )
    reduced = reduce_blocks(blocks, verdict, Centers(*start), options)
    assert reduced is not None
    family = verdict.schema.family
    ordered = in_canonical_order(family, reduced)
    order = match_components(family, ordered.components, reference[1])
    return [int(k) for k in np.argsort(order)]


def _as_indices(
    groups: Sequence[Sequence[int]], participants: Participants
) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(participants.indices[i]) for i in group) for group in groups)


def _in_words(finding: Finding, numbers: Sequence[int], participants: Participants) -> str:
    (others,) = _as_indices([finding.others], participants)
    what = finding.what
    if finding.component >= 0:
        what = f"{what} of component {numbers[finding.component]}"
    amount = f"{finding.amount:.3g}"
    if finding.kind == "copy":
        others_too = f" (so are {listed(others[1:])})" if others[1:] else ""
        return (
            f"closer to estimate {others[0]} than sampling allows{others_too}: "
            f"copies count as one, and {others[0]} is it"
        )
    if finding.kind == "distance":
        return f"distance to the center of all votes is {amount} times their radius"
    if finding.kind == "length":
        return (
            f"too far: all parameters together are {amount} times as far off as sampling explains"
        )
    if finding.kind == "part":
        return f"too far: {what}, {amount} times as far off as sampling explains"
    if finding.kind == "group":
        return (
            f"moved together with estimates {listed(others)} along one direction (mostly {what}), "
            f"{amount} standard errors from the others"
        )
    return f"{amount} standard errors off along one direction (mostly {what})"


def _notes(
    verdict: Verdict, found: Hardened, participants: Participants, options: AggregationOptions
) -> tuple[Note, ...]:
    p_values = verdict.decision.p_values
    assert p_values is not None
    explained = (p_values[participants.indices] >= options.false_exclusion_rate).sum()
    is_agreed = not options.is_calibrated or 2 * explained > len(participants.indices)
    notes = [*verdict.notes, *heterogeneity_notes(verdict, participants, is_agreed)]
    if found.misfit:
        text = f"{found.misfit}: good estimates may be left out. See the reasons, and what method='dfmr' keeps"
        notes.append(Note(HeterogeneityWarning, f"{text}."))
    if found.no_majority:
        text = (
            f"{found.no_majority}. The result may be that of bad estimates: see decision.groups and the reasons of "
            "those left out"
        )
        notes.append(Note(NoMajorityWarning, f"{text}."))
    return tuple(notes)
