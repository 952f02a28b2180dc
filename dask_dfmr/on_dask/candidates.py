"""Several mixtures fitted to, and scored on, the same partitions with two reads of them.

    a few partitions      dfmr_read_pilot -> dfmr_pilot_rows, dfmr_pilot_data
                          -> dfmr_pilot_scale -> dfmr_fit_pilot -> dfmr_shortlist         per candidate
    every partition       dfmr_fit_candidates (reads once, fits all), dfmr_report_candidates
    every candidate       dfmr_aggregate_candidate -> dfmr_reduce_candidate
    the common set        dfmr_measure_partition (the second read)

The rows of a pilot partition stay in memory until it is fitted, unless they are many: so it is not read twice for its
fit. Each candidate's aggregation is one task: there are several of them to fill a cluster with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
from dask.sizeof import sizeof
from numpy.typing import NDArray

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.plan import aggregate_now
from dask_dfmr.aggregation.reasons import OtherRows, Reason, Unreadable
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.local import pilots as pilot
from dask_dfmr.local.estimate import LocalEstimate, without_estimate
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted
from dask_dfmr.mixtures.distances import BLOCK_SIZE, tile_blocks
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.fit import (
    HeldTask,
    active_client,
    fetch,
    hold_each,
    raise_errors_of_tasks,
)
from dask_dfmr.on_dask.partitions import Loader, Partitions, rows_of
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.seeds import PILOT_DRAW, PILOT_ROWS, stream
from dask_dfmr.selection import common_set as selection
from dask_dfmr.selection.climb import Climb
from dask_dfmr.selection.common_set import CommonSet, Judged
from dask_dfmr.selection.criteria import Scores, score_all

logger = logging.getLogger("dask_dfmr")

HELD_BYTES = 2**25
"""A pilot partition of up to 32 MB stays in memory until it is fitted; a larger one is read again for that."""

Message = dict[str, Any]


# -- what tasks do ---------------------------------------------------------------------------------


def read_pilot(
    loader: Loader, partition: int, simplest: FitSettings, *values: Any
) -> tuple[pilot.PilotRows | None, Any]:
    """Training rows of a pilot partition, and all that was read if it is worth keeping; None for what is not."""

    def load() -> tuple[pilot.PilotRows | None, Any]:
        data = loader(*values)
        kept = data if sizeof(data) <= HELD_BYTES else None
        X, _ = rows_of(data, simplest.feature_names)
        X, _, refusal = simplest.problem.finite_rows(X)
        if refusal is not None:
            return None, kept
        X, _ = tasks.split_partition_rows(X, partition, simplest)
        seed = stream(simplest.seed, PILOT_ROWS, partition)
        return pilot.read_pilot(simplest.problem, X, seed), kept

    nothing: tuple[None, None] = (None, None)
    return tasks.guarded(simplest.timeout, load, lambda outcome, reason, n_rows: nothing)


def fit_pilot(
    rows: pilot.PilotRows | None, scale: Any, partition: int, settings: FitSettings
) -> pilot.PilotFit | None:
    """The start that one pilot proposes for one candidate; what was read for the simplest may not do for another."""
    if rows is None:
        return None
    problem = settings.problem
    _, _, refusal = problem.check_rows(rows.rows)
    if refusal is not None or problem.family.degeneracy(problem.family.prior_target(rows.rows)):
        return None
    return tasks.fit_pilot(rows, scale, partition, settings)


def fit_candidates(
    loader: Loader,
    partition: int,
    source: str | None,
    candidates: Sequence[FitSettings],
    shortlists: Sequence[pilot.Shortlist | None],
    data: Any,
    *values: Any,
) -> list[Message]:
    """Load a partition, unless its ``data`` are here, and fit every candidate to its training rows: a message each."""
    shared = candidates[0]

    def load_and_fit() -> list[LocalEstimate]:
        X, names = rows_of(loader(*values) if data is None else data, shared.feature_names)
        finite, n_omitted, refusal = shared.problem.finite_rows(X)
        if refusal is None:
            X, _ = tasks.split_partition_rows(finite, partition, shared)
        found = []
        with single_threaded_blas():
            for settings, shortlist in zip(candidates, shortlists, strict=True):
                fit = partial(tasks.fit_rows, X, names, partition, settings, shortlist)
                found.append(tasks.guarded(None, fit, without_estimate))
        return [replace(e, n_omitted=e.n_omitted + n_omitted) for e in found]

    estimates = tasks.guarded(
        shared.timeout,
        load_and_fit,
        lambda *failure: [without_estimate(*failure)] * len(candidates),
    )
    return [replace(e, partition=partition, source=source).to_arrays() for e in estimates]


def report_candidates(
    messages: Sequence[Sequence[Message]], n: int, first: int
) -> list[list[Message]]:
    """What partitions, numbered from ``first``, say of themselves for each of n candidates, without mixtures."""
    return [
        tasks.report_rows(tasks.as_plain_each(of_partition, n, first + k))
        for k, of_partition in enumerate(messages)
    ]


def plain_candidates(messages: Sequence[Any], n: int) -> list[list[Message]]:
    """All messages, plain ones."""
    return [tasks.as_plain_each(of_partition, n, i) for i, of_partition in enumerate(messages)]


def aggregate_candidate(
    messages: Sequence[Sequence[Message]],
    c: int,
    settings: FitSettings,
    options: AggregationOptions,
) -> AggregationResult | AggregationError:
    """One candidate with its own filter; an error is a result."""
    mine: list[Mapping[str, Any]] = [of_partition[c] for of_partition in messages]
    problem = settings.problem
    try:
        with single_threaded_blas():
            return aggregate_now(mine, options, settings.seed, problem.family, problem)
    except AggregationError as error:
        return AggregationError(str(error), error.reasons)


def reduce_candidate(
    messages: Sequence[Sequence[Message]],
    c: int,
    own: AggregationResult | None,
    common: NDArray[np.bool_],
    refusals: Mapping[int, Reason],
    settings: FitSettings,
    options: AggregationOptions,
) -> AggregationResult | None:
    """One candidate from the common set; None where there is nothing to reduce."""
    if own is None:
        return None
    mine = [of_partition[c] for of_partition in messages]
    with single_threaded_blas():
        return selection.reduce_common(mine, own, common, refusals, options)


# -- parts of the graph ----------------------------------------------------------------------------


def add_pilots(
    g: GraphBuilder, partitions: Partitions, candidates: Sequence[FitSettings], simplest: int
) -> tuple[dict[int, Any], dict[int, Any]]:
    """Rows of the pilots, and the data that stay in memory for their fits; by partition."""
    g.tasks.update(partitions.graph)
    settings = candidates[simplest]
    rows, data = {}, {}
    for i in pilot.draw_pilots(len(partitions), stream(settings.seed, PILOT_DRAW)):
        loader = partitions.loaders[i]
        read = g.add("read_pilot", i, read_pilot, loader, i, settings, *loader.refs)
        rows[i] = g.add("pilot_rows", i, itemgetter(0), read)
        data[i] = g.add("pilot_data", i, itemgetter(1), read)
    return rows, data


def add_pilot_fits(
    g: GraphBuilder, rows: Mapping[int, Any], candidates: Sequence[FitSettings]
) -> dict[tuple[int, int], Any]:
    """What every pilot proposes for every candidate, by candidate and partition."""
    scale = g.add("pilot_scale", 0, pilot.pilot_scale, list(rows.values()))
    return {
        (c, i): g.add("fit_pilot", (c, i), fit_pilot, of_pilot, scale, i, settings)
        for c, settings in enumerate(candidates)
        for i, of_pilot in rows.items()
    }


def add_shortlists(
    g: GraphBuilder, fits: Mapping[tuple[int, int], Any], candidates: Sequence[FitSettings]
) -> list[Any]:
    """Every candidate's starts."""
    shortlists = []
    for c, settings in enumerate(candidates):
        own: list[Any] = [of_pilot for (candidate, _), of_pilot in fits.items() if candidate == c]
        shortlists.append(g.add("shortlist", c, tasks.make_shortlist, own, settings))
    return shortlists


def add_fits(
    g: GraphBuilder,
    partitions: Partitions,
    candidates: Sequence[FitSettings],
    shortlists: Sequence[Any],
    data: Mapping[int, Any],
    only: Sequence[int] | None = None,
) -> list[Any]:
    """A list of messages per partition, or only for some."""
    g.tasks.update(partitions.graph)
    everyone = g.add("candidates", 0, list, list(candidates))
    starts = g.add("shortlists", 0, list, list(shortlists))
    refs: list[Any] = []
    for i in range(len(partitions)) if only is None else only:
        loader, source = partitions.loaders[i], partitions.sources[i]
        arguments = (loader, i, source, everyone, starts, data.get(i), *loader.refs)
        refs.append(g.add("fit_candidates", i, fit_candidates, *arguments))
    return refs


# -- the first read --------------------------------------------------------------------------------


@dataclass(frozen=True)
class CandidateFits:
    """Every candidate's local estimates, which stay where they were computed, and what comes of each by itself.

    Attributes
    ----------
    candidates : list of FitSettings
    messages : list of HeldTask
        Per partition, a list with a message for each candidate.
    rows : list of list of dict
        The same without mixtures: ``rows[c][i]`` is what partition i says of candidate c.
    aggregates : list of AggregationResult or AggregationError
        By each candidate's own filter.
    """

    candidates: list[FitSettings]
    options: AggregationOptions
    messages: list[HeldTask]
    rows: list[list[Message]]
    aggregates: list[AggregationResult | AggregationError]

    def judged(self, n_features: int) -> Judged:
        """What the verdicts and the local fits say, as arrays."""
        problems = [settings.problem for settings in self.candidates]
        shape = (len(self.rows), len(self.messages))
        judged, kept = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for c, aggregate in enumerate(self.aggregates):
            if isinstance(aggregate, AggregationResult):
                judged[c] = True
                judged[c, list(aggregate.decision.refused)] = False
                kept[c] = aggregate.decision.kept
        return Judged(
            np.array([p.family.n_parameters(p.n_components, n_features) for p in problems]),
            np.array([[row["n_samples"] for row in rows] for rows in self.rows], dtype=np.float64),
            np.array([[row["log_likelihood"] for row in rows] for rows in self.rows]),
            judged,
            kept,
        )

    def reduce(
        self, common: CommonSet, refusals: Mapping[int, Reason]
    ) -> list[AggregationResult | None]:
        """Every candidate from its estimates in the common set."""
        g = GraphBuilder()
        arguments = [task.argument for task in self.messages]
        messages = g.add("messages", 0, plain_candidates, arguments, len(self.candidates))
        refs = []
        for c, (own, settings) in enumerate(zip(self.aggregates, self.candidates, strict=True)):
            mine = own if isinstance(own, AggregationResult) else None
            given = (messages, c, mine, common.kept, dict(refusals), settings, self.options)
            refs.append(g.add("reduce_candidate", c, reduce_candidate, *given))
        return fetch(g, refs)


def fit_all(
    partitions: Partitions,
    candidates: list[FitSettings],
    options: AggregationOptions,
    simplest: int,
    verbose: int = 0,
) -> CandidateFits:
    """Fit every candidate to every partition, on whatever scheduler is active."""
    run = _fit_locally if active_client() is None else _fit_on_cluster
    logger.info("fitting %d candidates to %d partitions", len(candidates), len(partitions))
    return run(partitions, candidates, options, simplest, verbose)


def _fit_locally(
    partitions: Partitions,
    candidates: list[FitSettings],
    options: AggregationOptions,
    simplest: int,
    verbose: int,
) -> CandidateFits:
    """As one graph: whatever partitions have upstream is computed once."""
    g = GraphBuilder()
    shortlists: list[Any] = [None] * len(candidates)
    data: dict[int, Any] = {}
    if candidates[0].needs_pilots:
        rows, data = add_pilots(g, partitions, candidates, simplest)
        shortlists = add_shortlists(g, add_pilot_fits(g, rows, candidates), candidates)
    refs = add_fits(g, partitions, candidates, shortlists, data)
    more = _add_aggregations(g, refs, candidates, options)
    found = fetch(g, [*refs, *more], verbose)
    messages = [HeldTask(message) for message in found[: len(refs)]]
    return _as_fits(candidates, options, messages, found[len(refs) :])


def _fit_on_cluster(
    partitions: Partitions,
    candidates: list[FitSettings],
    options: AggregationOptions,
    simplest: int,
    verbose: int,
) -> CandidateFits:
    """In steps, so that what dies becomes the outcome of its partition."""
    shortlists: list[Any] = [None] * len(candidates)
    data: dict[int, HeldTask] = {}
    if candidates[0].needs_pilots:
        shortlists, data = _find_shortlists(partitions, candidates, simplest, verbose)

    def fit(which: Sequence[int]) -> tuple[GraphBuilder, list[Any]]:
        g = GraphBuilder()
        # One that is tried again, alone, is read again: its data may be what cannot be had.
        at_hand = {i: task.argument for i, task in data.items() if len(which) == len(partitions)}
        return g, add_fits(g, partitions, candidates, shortlists, at_hand, which)

    messages = hold_each(fit, range(len(partitions)), verbose)
    for i, task in enumerate(messages):
        if task.error is not None:
            lost = tasks.lost_partition(i, partitions.sources[i], task.error)
            messages[i] = HeldTask([lost] * len(candidates))
    g = GraphBuilder()
    refs = [task.argument for task in messages]
    found = fetch(g, _add_aggregations(g, refs, candidates, options))
    return _as_fits(candidates, options, messages, found)


def _find_shortlists(
    partitions: Partitions, candidates: list[FitSettings], simplest: int, verbose: int
) -> tuple[list[Any], dict[int, HeldTask]]:
    """Every candidate's starts, brought here before any fit, and the pilots' data; who kills workers is no pilot."""
    drawn = list(add_pilots(GraphBuilder(), partitions, candidates, simplest)[0])

    def read(places: Sequence[int]) -> tuple[GraphBuilder, list[Any]]:
        g = GraphBuilder()
        rows, data = add_pilots(g, partitions, candidates, simplest)
        refs = [*rows.values(), *data.values()]
        return g, [refs[k] for k in places]

    held = hold_each(read, range(2 * len(drawn)), verbose)
    held_rows = dict(zip(drawn, held[: len(drawn)], strict=True))
    held_data = dict(zip(drawn, held[len(drawn) :], strict=True))
    rows = {i: None if task.error else task.argument for i, task in held_rows.items()}
    places = [(c, i) for c in range(len(candidates)) for i in drawn]

    def fit(which: Sequence[int]) -> tuple[GraphBuilder, list[Any]]:
        g = GraphBuilder()
        fits = add_pilot_fits(g, rows, candidates)
        return g, [fits[places[k]] for k in which]

    fits = dict(zip(places, hold_each(fit, range(len(places))), strict=True))
    raise_errors_of_tasks(fits.values())
    alive = {place: None if task.error else task.argument for place, task in fits.items()}
    g = GraphBuilder()
    shortlists = fetch(g, add_shortlists(g, alive, candidates))
    return shortlists, {i: task for i, task in held_data.items() if task.error is None}


def _add_aggregations(
    g: GraphBuilder,
    refs: Sequence[Any],
    candidates: Sequence[FitSettings],
    options: AggregationOptions,
) -> list[Any]:
    """Reports by blocks of partitions, then an aggregate per candidate."""
    blocks = tile_blocks(len(refs), BLOCK_SIZE)
    reports = [
        g.add("report_candidates", b, report_candidates, list(refs[s]), len(candidates), s.start)
        for b, s in enumerate(blocks)
    ]
    messages = g.add("messages", 0, plain_candidates, list(refs), len(candidates))
    aggregates = [
        g.add("aggregate_candidate", c, aggregate_candidate, messages, c, settings, options)
        for c, settings in enumerate(candidates)
    ]
    return [*reports, *aggregates]


def _as_fits(
    candidates: list[FitSettings],
    options: AggregationOptions,
    messages: list[HeldTask],
    found: Sequence[Any],
) -> CandidateFits:
    n_reports = len(found) - len(candidates)
    by_partition = [rows for block in found[:n_reports] for rows in block]
    by_candidate = [list(rows) for rows in zip(*by_partition, strict=True)]
    return CandidateFits(candidates, options, messages, by_candidate, list(found[n_reports:]))


# -- the second read -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """What the common set says of mixtures.

    Attributes
    ----------
    mixtures : list of Mixture
        As they were scored, after further passes if any were asked for.
    scores : Scores or None
        None where no partition could be read again.
    used : list of int
        Partitions whose rows were scored.
    lost : dict of int to Reason
        Those that could not be read again, or have other rows now.
    """

    mixtures: list[Mixture]
    scores: Scores | None
    used: list[int]
    lost: dict[int, Reason]


def climb_and_score(
    reader: Reader,
    candidates: Sequence[FitSettings],
    mixtures: Sequence[Mixture],
    common: Mapping[int, int],
    n_passes: int,
) -> Scored:
    """Make EM passes for all mixtures together, then score them all in one more read.

    Parameters
    ----------
    reader : Reader
    candidates : sequence of FitSettings
        Of the mixtures.
    mixtures : sequence of Mixture
    common : mapping of int to int
        Partitions, and how many training rows each had in the first read.
    n_passes : int
        Every one of them is a read.
    """
    mixtures, rows_before = list(mixtures), dict(common)
    lost: dict[int, Reason] = {}
    climbs: list[Climb] = []
    for _ in range(n_passes):
        wanted = Wanted(targets=not climbs)
        points = [climb.point for climb in climbs] or mixtures
        held = reader.hold(list(rows_before), points, wanted)
        readings = held.numbers()
        gone = _forget_lost(readings, rows_before, lost)
        if not rows_before:
            break
        if gone and climbs:
            # What the objective of fewer rows was is known nowhere: the climb starts again where it is.
            mixtures, climbs = [climb.result for climb in climbs], []
            continue
        left = [k for k, r in enumerate(readings) if r.partition in rows_before]
        if not climbs:
            present = [readings[k] for k in left]
            climbs = [
                Climb(settings.problem, mixture, present, c)
                for c, (settings, mixture) in enumerate(zip(candidates, mixtures, strict=True))
            ]
        for climb, total in zip(climbs, held.total(left), strict=True):
            climb.take(total)
    mixtures = [climb.result for climb in climbs] or mixtures
    wanted = Wanted(moments=False, densities=True)
    readings = reader.measure(list(rows_before), mixtures, wanted) if rows_before else []
    _forget_lost(readings, rows_before, lost)
    present = [r for r in readings if r.partition in rows_before]
    if not present:
        return Scored(mixtures, None, [], lost)
    scores = score_all(present, [mixture.n_parameters for mixture in mixtures])
    return Scored(mixtures, scores, [r.partition for r in present], lost)


def _forget_lost(
    readings: Sequence[PartitionStatistics], rows_before: dict[int, int], lost: dict[int, Reason]
) -> bool:
    """Partitions that cannot be read this time, or are not what they were, take no further part."""
    found: dict[int, Reason] = {}
    for r in readings:
        before = rows_before[r.partition]
        if not r.is_measured:
            found[r.partition] = Unreadable(r.reason)
        elif r.n_samples != before:
            found[r.partition] = OtherRows(r.n_samples, before)
    for i in found:
        del rows_before[i]
    lost.update(found)
    return bool(found)
