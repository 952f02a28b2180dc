"""The second look of a selection: partitions that the filters of candidates exclude, whose rows say otherwise.

A fit keeps an excluded partition whose rows do not contradict the global mixture (:mod:`dask_dfmr.on_dask.refit`). In a
selection the rows are held against the mixture of the reference, which describes them best. A partition that agrees is
gained for all candidates: for each whose own filter excludes it, one EM step from the candidate's mixture takes the
place of the local fit, and the filter of the candidate decides again. So the selection judges as the fit does.

The excluded partitions nearest to the consensus are read once more, and those gained a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from dask_dfmr.aggregation.reasons import Gained
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.local.estimate import LocalEstimate, Outcome
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask.candidates import CandidateFits, decide_again
from dask_dfmr.on_dask.fit_plan import Fit
from dask_dfmr.on_dask.refit import look_at_excluded
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.refinement.second_look import one_step


def look_again(
    reader: Reader, fits: CandidateFits, reference: int
) -> tuple[CandidateFits, dict[int, Gained]]:
    """The fits with the partitions that a second look gained, and what it found of each.

    Parameters
    ----------
    reader : Reader
        Of the selection.
    fits : CandidateFits
    reference : int
        The candidate against whose mixture rows are held.
    """
    own = fits.aggregates[reference]
    assert isinstance(own, AggregationResult)
    rows = fits.rows[reference]
    plan = replace(fits.plan, settings=fits.candidates[reference])
    sample = {
        i: drawn
        for i, drawn in enumerate(fits.samples)
        if drawn is not None and drawn.shape[1] == own.mixture.n_features
    }
    fit = Fit.of(own, rows, _estimates(rows, own.mixture), sample)
    look = look_at_excluded(plan, fit, reader)
    if look is None or not look.gained:
        return fits, {}
    steps = _steps(reader, fits, sorted(look.gained))
    return decide_again(fits, steps), look.reasons


def _estimates(rows: Sequence[Mapping[str, Any]], mixture: Mixture) -> list[LocalEstimate]:
    """The estimates of the report's rows; all have the one mixture, which the second look does not use."""
    names = [field.name for field in fields(LocalEstimate) if field.name != "mixture"]
    return [
        LocalEstimate(
            mixture if Outcome(row["outcome"]).is_usable else None,
            **{name: row[name] for name in names},
        )
        for row in rows
    ]


def _steps(
    reader: Reader, fits: CandidateFits, gained: Sequence[int]
) -> list[dict[int, LocalEstimate]]:
    """Per candidate, one EM step from its mixture in those of the partitions that its own filter excludes."""
    found: list[dict[int, LocalEstimate]] = [{} for _ in fits.candidates]
    able = [c for c, a in enumerate(fits.aggregates) if isinstance(a, AggregationResult)]
    mixtures = [fits.aggregates[c].mixture for c in able]  # type: ignore[union-attr]
    cut = fits.candidates[0].problem.family.cut
    readings = reader.measure(gained, mixtures, Wanted(cut=cut))
    with single_threaded_blas():
        for reading in readings:
            for place, c in enumerate(able):
                step = _step(fits, c, mixtures[place], reading, place)
                if step is not None:
                    found[c][reading.partition] = step
    return found


def _step(
    fits: CandidateFits, c: int, mixture: Mixture, reading: PartitionStatistics, place: int
) -> LocalEstimate | None:
    """That of one candidate; None if it needs none, or there is none."""
    i, own = reading.partition, fits.aggregates[c]
    assert isinstance(own, AggregationResult)
    first = _estimates([fits.rows[c][i]], mixture)[0]
    is_needed = first.is_usable and not own.decision.kept[i]
    if not (is_needed and reading.is_measured and reading.n_samples == first.n_samples):
        return None
    measured = replace(reading, measurements=reading.measurements[place : place + 1])
    return one_step(fits.candidates[c].problem, mixture, measured, first)
