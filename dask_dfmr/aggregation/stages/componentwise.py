"""``method="componentwise"``: blocks -> filter and reduction component by component, in one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_dfmr.aggregation.componentwise import (
    ComponentwiseResult,
    component_estimates,
    filter_components,
)
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.result import AggregationResult, ComponentDecision, FilterDecision, Note
from dask_dfmr.aggregation.stages.intake import Block, Participants, join_estimates, spread
from dask_dfmr.aggregation.stages.keep import notes_on
from dask_dfmr.exceptions import FilterWarning, HeterogeneityWarning
from dask_dfmr.seeds import COMPONENT_DRAW, stream

MUCH = 0.25
"""A larger share of excluded weight, among the components of all estimates, causes a warning."""

FEWEST_JUDGED = 4
"""A component that fewer estimates have enough rows of causes a warning: three survive one inconsistent one."""


def componentwise(
    blocks: Sequence[Block],
    participants: Participants,
    options: AggregationOptions,
    seed: np.random.SeedSequence,
) -> AggregationResult:
    """Filter and reduce all estimates component by component, with the mixing weights profiled out."""
    block, schema = join_estimates(blocks), participants.schema
    assert block.stack is not None  # there are participants
    rows = participants.n_samples
    found = filter_components(
        component_estimates(schema.family, block.stack, rows, block.parameters),
        options.effective_rho,
        rows if options.machine_weights == "rows" else np.ones_like(rows),
        _n_candidates(participants, options),
        np.random.default_rng(stream(seed, COMPONENT_DRAW)),
        options.false_exclusion_rate,
    )
    decision = _decision(found, participants, options)
    notes = (*notes_on(decision, participants, options), *_notes_on_components(found))
    mixture = schema.family.mixture(found.weights, found.components, schema.feature_names)
    return AggregationResult(
        mixture,
        decision,
        found.objective,
        found.n_matchings,
        found.settled,
        options.method,
        notes,
    )


def _n_candidates(participants: Participants, options: AggregationOptions) -> int | None:
    return options.references_among(participants.n_estimates - len(participants.removed))


def _decision(
    found: ComponentwiseResult, participants: Participants, options: AggregationOptions
) -> FilterDecision:
    with np.errstate(invalid="ignore"):
        ratios = found.distances / found.radii
    worst = np.where(np.isnan(ratios), -np.inf, ratios).argmax(axis=1)
    estimate = np.arange(len(worst))
    n_candidates, n_usable = _n_candidates(participants, options), len(participants.indices)
    components = _component_decision(found, ratios, participants)
    return FilterDecision(
        center=int(components.centers[0]),
        radius=float(found.radii.max()),
        rho="auto" if options.is_calibrated else options.effective_rho,
        distances=spread(found.distances[estimate, worst], participants, np.nan),
        distance_ratios=spread(ratios[estimate, worst], participants, np.nan),
        kept=np.asarray(components.kept.any(axis=1)),
        refused=participants.refused,
        false_exclusion_rate=options.false_exclusion_rate,
        n_candidates=n_usable if n_candidates is None else min(n_candidates, n_usable),
        components=components,
    )


def _component_decision(
    found: ComponentwiseResult, ratios: Any, participants: Participants
) -> ComponentDecision:
    def rows(values: Any, fill: Any) -> Any:
        columns = [spread(column, participants, fill) for column in values.T]
        return np.column_stack(columns)

    return ComponentDecision(
        kept=rows(found.kept, False),
        matching=rows(found.matching, -1),
        n_rows=rows(found.rows, 0.0),
        distance_ratios=rows(ratios, np.nan),
        radii=found.radii,
        limits=found.limits / found.radii,
        centers=participants.indices[found.centers],
        least_rows=found.least_rows,
    )


def _notes_on_components(found: ComponentwiseResult) -> list[Note]:
    """Warnings of components with few rows, of much excluded weight, and of a matching that did not settle."""
    judged = ~np.isnan(found.distances) & (found.rows >= found.least_rows)
    few = [int(k) for k in np.flatnonzero(judged.sum(axis=0) < min(FEWEST_JUDGED, len(judged)))]
    notes = [
        Note(
            FilterWarning,
            f"component {k}: {judged[:, k].sum()} of {len(judged)} estimates have the {found.least_rows} rows of it "
            "that a comparison needs, too few to outvote an inconsistent one. Use larger partitions or fewer "
            "components.",
        )
        for k in few
    ]
    excluded = found.rows[judged & ~found.kept].sum() / found.rows.sum()
    if excluded > MUCH:
        text = (
            f"components with {excluded:.0%} of the weight of all are excluded: more than proportions differ. "
            "See kept_components and components_kept in the report."
        )
        notes.append(Note(HeterogeneityWarning, text))
    if not found.settled:
        from sklearn.exceptions import ConvergenceWarning

        text = (
            f"which component is which did not settle in {found.n_matchings} rounds; components overlap much: use "
            "fewer of them."
        )
        notes.append(Note(ConvergenceWarning, text))
    return notes
