"""The center -> which estimates are near it, which are kept, and what the reduction needs of that decision."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.medoid import Candidate, keep_near
from dask_dfmr.aggregation.options import PAPER_RHO, AggregationOptions
from dask_dfmr.aggregation.reasons import listed
from dask_dfmr.aggregation.result import FilterDecision, Note
from dask_dfmr.aggregation.stages.center import CenterCandidate
from dask_dfmr.aggregation.stages.intake import (
    MOST_ROWS,
    Participants,
    Schema,
    spread,
)
from dask_dfmr.exceptions import FilterWarning, PartitionWarning
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.family import Array, Components

DOMINANT_SHARE = 0.2
"""An estimate with a larger share of the kept rows causes a warning: what the filter promises is about shares of
rows."""

SMALL_CENTER = 2.0
"""The reduction does not start at the center if another estimate near it has so many times its rows."""


class Selected(NamedTuple):
    """The decision, and what the reduction needs of it.

    Attributes
    ----------
    schema : Schema
    decision : FilterDecision
    shares : ndarray of shape (n_estimates,)
        Weights of the estimates in the reduction. They sum to 1 over the kept estimates.
    starts : list of int
        Indices of the estimates where reductions start, at most ``n_starts``.
    notes : tuple of Note
    near : ndarray of bool, shape (n_usable,)
        Which usable estimates are near the center.
    numbered : tuple of ndarray or None
        Components whose numbers the reasons use, until the order of the result is known; None if no reason names a
        component.
    """

    schema: Schema
    decision: FilterDecision
    shares: Array
    starts: list[int]
    notes: tuple[Note, ...]
    near: NDArray[np.bool_]
    numbered: Components | None = None


def l2_filter(
    center: CenterCandidate, participants: Participants, options: AggregationOptions
) -> Selected:
    """Radius, distances and the estimates within ``rho`` radii of the center."""
    candidate, errors = center.candidate, 1.0
    if participants.by_precision:
        of_center = np.minimum(candidate.n_samples * np.ones(1), participants.most_rows)
        errors = participants.l2_errors(of_center, participants.n_samples)[0]
    # Reported distances are plain L2 distances, in whatever unit the near ones were determined.
    distances = candidate.distances * errors
    plain = keep_near(_with_distances(candidate, distances), 1.0)
    kept = keep_near(candidate, options.effective_rho).kept
    if options.method == "coat":
        kept = participants.indices == candidate.estimate
    in_units = l2.in_l2_units(distances, participants.log_scale)
    decision = FilterDecision(
        center=candidate.estimate,
        radius=float(l2.in_l2_units(np.array(plain.radius), participants.log_scale)),
        rho="auto" if options.is_calibrated else options.effective_rho,
        distances=spread(in_units, participants, np.nan),
        distance_ratios=spread(plain.distance_ratios, participants, np.nan),
        kept=spread(kept, participants, False),
        refused=participants.refused,
        false_exclusion_rate=options.false_exclusion_rate,
        n_candidates=center.n_candidates,
        n_references=_n_references(participants, options),
    )
    return select(decision, participants, options, keep_near(candidate, PAPER_RHO).kept)


def _with_distances(candidate: Candidate, distances: Array) -> Candidate:
    half = np.partition(distances, len(distances) // 2)[len(distances) // 2]
    return candidate._replace(distances=distances, half_distance=float(half))


def _n_references(participants: Participants, options: AggregationOptions) -> int | None:
    n_references = options.references_among(participants.n_estimates - len(participants.removed))
    return None if n_references is None else min(n_references, len(participants.indices))


def select(
    decision: FilterDecision,
    participants: Participants,
    options: AggregationOptions,
    near: NDArray[np.bool_],
) -> Selected:
    """Shares and starts of the reduction, and warnings, for a decision."""
    n_samples = spread(participants.n_samples, participants, 0.0)
    shares = np.where(decision.kept, n_samples if options.machine_weights == "rows" else 1.0, 0.0)
    shares /= shares.sum()
    by_distance = np.argsort(
        np.where(decision.kept, decision.distance_ratios, np.inf), kind="stable"
    )
    first = _first_start(decision, participants, near)
    starts = [int(i) for i in by_distance[: decision.kept.sum()] if i != first]
    starts = [first, *starts] if decision.kept[first] else starts
    return Selected(
        participants.schema,
        decision,
        shares,
        starts[: options.n_starts],
        tuple(notes_on(decision, participants, options)),
        near,
    )


def _first_start(
    decision: FilterDecision, participants: Participants, near: NDArray[np.bool_]
) -> int:
    """The center, or the largest estimate near it if the center has few rows: few rows may miss components."""
    n_samples = np.where(near & decision.kept[participants.indices], participants.n_samples, 0.0)
    of_center = participants.n_samples[participants.indices == decision.center].max()
    if participants.by_precision and SMALL_CENTER * of_center < n_samples.max():
        return int(participants.indices[n_samples.argmax()])
    return decision.center


# -- warnings --------------------------------------------------------------------------------------


def notes_on(
    decision: FilterDecision, participants: Participants, options: AggregationOptions
) -> list[Note]:
    """Warnings about the estimates that took part: too few of them, claims of many rows, a dominant estimate."""
    found = (
        _note_on_refused(decision, participants),
        _note_on_few(decision, options),
        _note_on_claims(decision, participants, options),
        _note_on_dominance(decision, participants, options),
    )
    return [note for note in found if note is not None]


def _note_on_refused(decision: FilterDecision, participants: Participants) -> Note | None:
    n_usable = decision.n_estimates - len(decision.refused)
    n_given = decision.n_estimates - len(participants.removed)
    if 2 * n_usable >= n_given:
        return None
    text = (
        f"only {n_usable} of {n_given} local estimates are usable: the filter trusts the majority of these alone. "
        "See the reasons in decision.refused or partition_report_."
    )
    return Note(PartitionWarning, text)


def _note_on_few(decision: FilterDecision, options: AggregationOptions) -> Note | None:
    n_usable = decision.n_estimates - len(decision.refused)
    if options.method == "mr" or n_usable not in (2, 3):
        return None
    text = (
        "two estimates cannot outvote each other: nothing is filtered"
        if n_usable == 2
        else "three estimates survive one inconsistent one"
    )
    return Note(FilterWarning, f"{n_usable} usable estimates: {text}. Use more partitions.")


def _note_on_claims(
    decision: FilterDecision, participants: Participants, options: AggregationOptions
) -> Note | None:
    capped = [i for i in participants.capped if decision.kept[i]]
    if not capped or options.machine_weights != "rows":
        return None
    text = (
        f"estimates {listed(capped)} claim more than {MOST_ROWS:g} times the rows of the median one and count for "
        f"{participants.most_rows:.0f} each. If the claims are true, make the partitions more even."
    )
    return Note(FilterWarning, text)


def _note_on_dominance(
    decision: FilterDecision, participants: Participants, options: AggregationOptions
) -> Note | None:
    if options.machine_weights != "rows" or options.method == "coat":
        return None
    n_samples = spread(participants.n_samples, participants, 0.0)
    shares = np.where(decision.kept, n_samples, 0.0) / n_samples[decision.kept].sum()
    heaviest = int(shares.argmax())
    # Of a handful of estimates every share is large: then only more than two average shares count.
    if not shares[heaviest] > max(DOMINANT_SHARE, 2 / decision.kept.sum()):
        return None
    text = (
        f"estimate {heaviest} holds {shares[heaviest]:.0%} of the kept rows, so that it alone determines much of the "
        "result; use machine_weights='equal' or more even partitions."
    )
    return Note(FilterWarning, text)
