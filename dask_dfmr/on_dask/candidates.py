"""Several candidate mixtures fitted to, and scored on, the same partitions in two reads.

    a few partitions      dfmr_open_pilot -> dfmr_pilot_rows, dfmr_pilot_data
                          -> dfmr_pilot_scale -> dfmr_fit_pilot -> dfmr_shortlist         per candidate
    every partition       dfmr_fit_candidates (reads once, fits all), dfmr_report_candidates, dfmr_sampled_rows
    every candidate       dfmr_aggregate_candidate -> dfmr_reduce_candidate
    a second look         dfmr_measure_partition (excluded partitions) -> dfmr_aggregate_candidate
    the common set        dfmr_measure_partition (the second read)

The rows of a pilot partition stay in memory until it is fitted, unless they are many, so that it is read once for
both. Each candidate's aggregation is one task, since several candidates are enough tasks for a cluster.
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
from dask_dfmr.aggregation.order import in_order_of
from dask_dfmr.aggregation.plan import aggregate_now
from dask_dfmr.aggregation.reasons import OtherRows, Reason, Unreadable
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.exceptions import AggregationError, OutOfTimeError
from dask_dfmr.local import pilots as pilot
from dask_dfmr.local.comparison import boundary
from dask_dfmr.local.estimate import LocalEstimate, Outcome, without_estimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted
from dask_dfmr.mixtures.distances import BLOCK_SIZE, tile_blocks
from dask_dfmr.mixtures.family import Array, Rows
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.first_read import N_SAMPLED
from dask_dfmr.on_dask.fit_plan import FitPlan
from dask_dfmr.on_dask.partitions import Loader, Partitions, rows_of
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.passing import passes
from dask_dfmr.on_dask.scheduling.scheduler import (
    Graph,
    HeldTask,
    HeldTasks,
    Steps,
    raise_if_all_failed,
)
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.on_dask.unread import as_entry, unread_of, with_reason
from dask_dfmr.seeds import PILOT_DRAW, PILOT_ROWS, stream
from dask_dfmr.selection import common_set as selection
from dask_dfmr.selection.climb import Climb
from dask_dfmr.selection.common_set import CommonSet, Judged
from dask_dfmr.selection.criteria import Scores, score_all

logger = logging.getLogger("dask_dfmr")

HELD_BYTES = 2**25
"""A pilot partition of up to 32 MB stays in memory until it is fitted; a larger one is read again for that."""

Message = dict[str, Any]
"""The message of a local fit, see :meth:`LocalEstimate.to_arrays`."""


# -- what tasks do ---------------------------------------------------------------------------------


def read_pilot(
    loader: Loader, partition: int, simplest: FitSettings, largest: LocalProblem, *values: Any
) -> tuple[pilot.PilotRows | None, Any]:
    """Training rows of a pilot partition, and its data if they are small enough to keep; None for what there is not."""

    def draw(data: Any) -> tuple[pilot.PilotRows | None, Any]:
        kept = data if sizeof(data) <= HELD_BYTES else None
        X, _ = rows_of(data, simplest.feature_names)
        X, _, refusal = simplest.problem.finite_rows(X)
        if refusal is not None:
            return None, kept
        X, _ = tasks.split_partition_rows(X, partition, simplest)
        seed = stream(simplest.seed, PILOT_ROWS, partition)
        return pilot.read_pilot(simplest.problem, X, seed, largest), kept

    nothing: tuple[None, None] = (None, None)
    return tasks.guarded(
        simplest.timeout,
        partial(loader.rows, *values),
        draw,
        lambda outcome, reason, n_rows: nothing,
        simplest.feature_names,
    )


def fit_candidates(
    loader: Loader,
    partition: int,
    source: str | None,
    candidates: Sequence[FitSettings],
    shortlists: Sequence[pilot.Shortlist | None],
    data: Any,
    *values: Any,
) -> list[Message]:
    """Load a partition, unless its ``data`` are given, and fit every candidate to its training rows: a message each.

    The first one has what is no part of an estimate: sampled rows, and what could not be read.
    """
    shared = candidates[0]

    def load() -> Any:
        return loader.rows(*values) if data is None else data

    def fit_all(loaded: Any) -> tuple[list[LocalEstimate], dict[str, Any]]:
        X, names = rows_of(loaded, shared.feature_names)
        finite, n_omitted, refusal = shared.problem.finite_rows(X)
        if refusal is None:
            X, _ = tasks.split_partition_rows(finite, partition, shared)
        found = []
        with single_threaded_blas():
            for settings, shortlist in zip(candidates, shortlists, strict=True):
                found.append(_fit_one(X, names, partition, settings, shortlist))
        unread = unread_of(loaded)
        found = [replace(e, n_omitted=e.n_omitted + n_omitted) for e in found]
        more = as_entry(unread) | ({} if refusal else tasks.sample_of(X, partition, shared))
        return [with_reason(e, unread) for e in found], more

    estimates, more = tasks.guarded(
        shared.timeout,
        load,
        fit_all,
        lambda *failure: ([without_estimate(*failure)] * len(candidates), {}),
        shared.feature_names,
    )
    messages = [replace(e, partition=partition, source=source).to_arrays() for e in estimates]
    return [messages[0] | more, *messages[1:]]


def _fit_one(
    X: Rows,
    names: tuple[str, ...] | None,
    partition: int,
    settings: FitSettings,
    shortlist: pilot.Shortlist | None,
) -> LocalEstimate:
    """The estimate of one candidate; an error of its fit is its outcome, and time out is the outcome of all."""
    try:
        return tasks.fit_rows(X, names, partition, settings, shortlist)
    except OutOfTimeError:
        raise
    except Exception as error:
        if passes(error):
            raise
        return without_estimate(Outcome.FAILED, f"{type(error).__name__}: {error}")


def report_candidates(
    messages: Sequence[Sequence[Message]], n: int, first: int
) -> list[list[Message]]:
    """The report's rows of partitions, numbered from ``first``, for each of n candidates."""
    return [
        [tasks.report_row(message, first + k) for message in tasks.each_of(of_partition, n)]
        for k, of_partition in enumerate(messages)
    ]


def sampled_rows(messages: Sequence[Sequence[Message]], n: int, n_most: int) -> list[Any]:
    """The sampled rows of each partition, as :func:`dask_dfmr.on_dask.tasks.sampled_rows` gives them."""
    firsts = [tasks.each_of(of_partition, n)[0] for of_partition in messages]
    return tasks.sampled_rows(firsts, n_most)


def plain_candidates(messages: Sequence[Any], n: int) -> list[list[Message]]:
    """The n messages of each partition, one per candidate, each made plain."""
    return [tasks.as_plain_each(of_partition, n, i) for i, of_partition in enumerate(messages)]


def aggregate_candidate(
    messages: Sequence[Sequence[Message]],
    c: int,
    settings: FitSettings,
    options: AggregationOptions,
    gained: Mapping[int, LocalEstimate] | None = None,
) -> AggregationResult | AggregationError:
    """The aggregate of one candidate by its own filter; an error is returned, not raised."""
    mine: list[Mapping[str, Any]] = [of_partition[c] for of_partition in messages]
    problem = settings.problem
    try:
        with single_threaded_blas():
            return aggregate_now(
                mine,
                options,
                settings.seed,
                problem.mixture_family,
                problem,
                settings.order,
                gained,
            )
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
    gained: Mapping[int, LocalEstimate],
) -> AggregationResult | None:
    """One candidate's aggregate of its estimates in the common set; None if it has none there."""
    if own is None:
        return None
    mine = [
        gained[i].to_arrays() if i in gained else of_partition[c]
        for i, of_partition in enumerate(messages)
    ]
    with single_threaded_blas():
        reduced = selection.reduce_common(mine, own, common, refusals, options)
    return None if reduced is None else in_order_of(reduced, settings.order)


# -- parts of the graph ----------------------------------------------------------------------------


def add_pilots(
    g: GraphBuilder, partitions: Partitions, candidates: Sequence[FitSettings], simplest: int
) -> tuple[dict[int, Any], dict[int, Any]]:
    """Rows of the pilots, and the data that stay in memory for their fits, by partition."""
    g.tasks.update(partitions.graph)
    settings = candidates[simplest]
    largest = max((c.problem for c in candidates), key=lambda problem: problem.n_components)
    rows, data = {}, {}
    for i in pilot.draw_pilots(len(partitions), stream(settings.seed, PILOT_DRAW)):
        loader = partitions.loaders[i]
        read = g.add("open_pilot", i, read_pilot, loader, i, settings, largest, *loader.refs)
        rows[i] = g.add("pilot_rows", i, itemgetter(0), read)
        data[i] = g.add("pilot_data", i, itemgetter(1), read)
    return rows, data


def add_pilot_fits(
    g: GraphBuilder, rows: Mapping[int, Any], candidates: Sequence[FitSettings]
) -> dict[tuple[int, int], Any]:
    """The start that every pilot proposes for every candidate, by candidate and partition."""
    scale = g.add("pilot_scale", 0, tasks.pilot_scale, list(rows.values()))
    return {
        (c, i): g.add("fit_pilot", (c, i), tasks.fit_pilot, of_pilot, scale, i, settings)
        for c, settings in enumerate(candidates)
        for i, of_pilot in rows.items()
    }


def add_shortlists(
    g: GraphBuilder, fits: Mapping[tuple[int, int], Any], candidates: Sequence[FitSettings]
) -> list[Any]:
    """References to the starts of each candidate, one shortlist per candidate."""
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
    shared = g.add("candidates", 0, list, list(candidates))
    starts = g.add("shortlists", 0, list, list(shortlists))
    refs: list[Any] = []
    for i in range(len(partitions)) if only is None else only:
        loader, source = partitions.loaders[i], partitions.sources[i]
        arguments = (loader, i, source, shared, starts, data.get(i), *loader.refs)
        refs.append(g.add("fit_candidates", i, fit_candidates, *arguments))
    return refs


# -- the first read --------------------------------------------------------------------------------


@dataclass(frozen=True)
class CandidateFits:
    """Local estimates of all candidates, which stay where they were computed, and each candidate's own aggregate.

    Attributes
    ----------
    candidates : list of FitSettings
    plan : FitPlan
        What all candidates share.
    messages : list
        Per partition what a task takes for a list with a message for each candidate.
    rows : list of list of dict
        The messages without mixtures: ``rows[c][i]`` is that of partition i about candidate c.
    aggregates : list of AggregationResult or AggregationError
        By each candidate's own filter.
    held : HeldTasks
        What keeps the messages where they are.
    samples : list of ndarray or None
        Some training rows (n_rows, n_features) of each partition that could be fitted.
    gained : list of dict of int to LocalEstimate
        Per candidate, the estimates of a second look, which take the place of local fits.
    """

    candidates: list[FitSettings]
    plan: FitPlan
    messages: list[Any]
    rows: list[list[Message]]
    aggregates: list[AggregationResult | AggregationError]
    held: HeldTasks
    samples: list[Array | None]
    gained: list[dict[int, LocalEstimate]]

    def judged(self, n_features: int) -> Judged:
        """The decisions of the candidates' filters, and the likelihoods of their local fits, as arrays."""
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
        """Every candidate's aggregate of its estimates in the common set; None if it has no estimate there."""
        g = GraphBuilder()
        messages = g.add("messages", 0, plain_candidates, self.messages, len(self.candidates))
        refs = []
        for c, own in enumerate(self.aggregates):
            mine = own if isinstance(own, AggregationResult) else None
            given = (messages, c, mine, common.kept, dict(refusals), self.candidates[c])
            more = (self.plan.options, self.gained[c])
            refs.append(g.add("reduce_candidate", c, reduce_candidate, *given, *more))
        return self.plan.scheduler.fetch(g, refs)


def fit_all(plan: FitPlan, candidates: list[FitSettings], simplest: int) -> CandidateFits:
    """Fit every candidate to every partition, and aggregate each candidate with its own filter.

    On a cluster the steps are computed one by one, so that a partition whose task dies is an outcome. On a local
    scheduler they are one graph, and whatever partitions have upstream is computed once.

    Parameters
    ----------
    plan : FitPlan
        What all candidates share; its settings are not used.
    candidates : list of FitSettings
    simplest : int
        The candidate with the fewest parameters: pilots are read for it.
    """
    logger.info("fitting %d candidates to %d partitions", len(candidates), len(plan.partitions))
    partitions, steps = plan.partitions, plan.scheduler.in_steps()
    n_sampled = -(-N_SAMPLED // len(partitions))
    candidates = [replace(settings, n_sampled=n_sampled) for settings in candidates]
    shortlists: list[Any] = [None] * len(candidates)
    data: dict[int, HeldTask] = {}
    if candidates[0].needs_pilots:
        shortlists, data = _find_shortlists(steps, partitions, candidates, simplest)

    def fit(which: Sequence[int]) -> Graph:
        g = GraphBuilder()
        # A partition that is tried again, alone, is read again: its data may be what cannot be had.
        is_first = len(which) == len(partitions)
        at_hand = {i: task.argument for i, task in data.items()} if is_first else {}
        return g, add_fits(g, partitions, candidates, shortlists, at_hand, which)

    held = HeldTasks(steps, fit, range(len(partitions)))

    def aggregate() -> Graph:
        g = GraphBuilder()
        messages = _messages(held, partitions, len(candidates))
        return g, _add_aggregations(g, messages, candidates, plan.options)

    found = steps.conclude(aggregate, held, keep=True)
    n_blocks = (len(found) - len(candidates)) // 2
    by_partition, samples = (
        [one for block in blocks for one in block]
        for blocks in (found[:n_blocks], found[n_blocks : 2 * n_blocks])
    )
    by_candidate = [list(rows) for rows in zip(*by_partition, strict=True)]
    messages = _messages(held, partitions, len(candidates))
    aggregates = list(found[2 * n_blocks :])
    nothing: list[dict[int, LocalEstimate]] = [{} for _ in candidates]
    return CandidateFits(
        candidates, plan, messages, by_candidate, aggregates, held, samples, nothing
    )


def decide_again(
    fits: CandidateFits, gained: Sequence[Mapping[int, LocalEstimate]]
) -> CandidateFits:
    """The fits after the filter of every candidate decided again, with its estimates of partitions that were gained.

    Those that are too far from the consensus themselves count for nothing.
    """
    g = GraphBuilder()
    messages = g.add("messages", 0, plain_candidates, fits.messages, len(fits.candidates))
    changed = [c for c, own in enumerate(gained) if own]
    refs = [
        g.add(
            "aggregate_candidate",
            c,
            aggregate_candidate,
            *(messages, c, fits.candidates[c], fits.plan.options, dict(gained[c])),
        )
        for c in changed
    ]
    aggregates, rows, kept = list(fits.aggregates), list(fits.rows), list(fits.gained)
    for c, aggregate in zip(changed, fits.plan.scheduler.fetch(g, refs), strict=True):
        if isinstance(aggregate, AggregationError):
            continue
        aggregates[c] = aggregate
        kept[c] = {i: e for i, e in gained[c].items() if aggregate.decision.kept[i]}
        rows[c] = [
            row | tasks.report_row(kept[c][i].to_arrays()) if i in kept[c] else row
            for i, row in enumerate(rows[c])
        ]
    return replace(fits, aggregates=aggregates, rows=rows, gained=kept)


def _messages(held: HeldTasks, partitions: Partitions, n_candidates: int) -> list[Any]:
    """What a task takes for the messages of each partition, those included whose tasks have no result."""
    return [
        task.argument
        if task.error is None
        else [tasks.lost_partition(i, partitions.sources[i], task.error)] * n_candidates
        for i, task in enumerate(held.tasks)
    ]


def _find_shortlists(
    steps: Steps, partitions: Partitions, candidates: list[FitSettings], simplest: int
) -> tuple[list[Any], dict[int, HeldTask]]:
    """Every candidate's starts, and the data of pilots.

    On a cluster the starts are brought here before any fit. A pilot that kills its workers is ignored.
    """
    drawn = list(add_pilots(GraphBuilder(), partitions, candidates, simplest)[0])

    def read(places: Sequence[int]) -> Graph:
        g = GraphBuilder()
        rows, data = add_pilots(g, partitions, candidates, simplest)
        refs = [*rows.values(), *data.values()]
        return g, [refs[k] for k in places]

    held = steps.hold_each(read, range(2 * len(drawn)))
    held_rows = dict(zip(drawn, held[: len(drawn)], strict=True))
    held_data = dict(zip(drawn, held[len(drawn) :], strict=True))
    rows = {i: None if task.error else task.argument for i, task in held_rows.items()}
    places = [(c, i) for c in range(len(candidates)) for i in drawn]

    def fit(which: Sequence[int]) -> Graph:
        g = GraphBuilder()
        fits = add_pilot_fits(g, rows, candidates)
        return g, [fits[places[k]] for k in which]

    fits = dict(zip(places, steps.hold_each(fit, range(len(places))), strict=True))
    raise_if_all_failed(list(fits.values()))
    alive = {place: None if task.error else task.argument for place, task in fits.items()}
    g = GraphBuilder()
    shortlists = steps.bring(g, add_shortlists(g, alive, candidates))
    return shortlists, {i: task for i, task in held_data.items() if task.error is None}


def _add_aggregations(
    g: GraphBuilder,
    messages: Sequence[Any],
    candidates: Sequence[FitSettings],
    options: AggregationOptions,
) -> list[Any]:
    """Reports and sampled rows by blocks of partitions, then an aggregate per candidate."""
    blocks = tile_blocks(len(messages), BLOCK_SIZE)
    n = len(candidates)
    reports = [
        g.add("report_candidates", b, report_candidates, list(messages[s]), n, s.start)
        for b, s in enumerate(blocks)
    ]
    n_most = candidates[0].n_sampled
    samples = [
        g.add("sampled_rows", b, sampled_rows, list(messages[s]), n, n_most)
        for b, s in enumerate(blocks)
    ]
    plain = g.add("messages", 0, plain_candidates, list(messages), n)
    aggregates = [
        g.add("aggregate_candidate", c, aggregate_candidate, plain, c, settings, options)
        for c, settings in enumerate(candidates)
    ]
    return [*reports, *samples, *aggregates]


# -- the second read -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Scores of mixtures on the rows of the common set.

    Attributes
    ----------
    mixtures : list of Mixture
        As they were scored: after the EM passes, if there were any.
    scores : Scores or None
        None if no partition could be read again.
    used : list of int
        Partitions whose rows were scored.
    lost : dict of int to Reason
        Partitions that could not be read again, or have another number of rows now, and why.
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
        The candidate of each mixture.
    mixtures : sequence of Mixture
    common : mapping of int to int
        The partitions of the common set, and the number of training rows of each in the first read.
    n_passes : int
        EM passes; each of them reads the common set once.
    """
    rows_before, lost = dict(common), dict[int, Reason]()
    mixtures = _climb(reader, candidates, list(mixtures), rows_before, lost, n_passes)
    floor = _common_floor(candidates, mixtures)
    wanted = Wanted(moments=False, entropy=True, log_floor=floor)
    readings = reader.measure(list(rows_before), mixtures, wanted) if rows_before else []
    _forget_lost(readings, rows_before, lost)
    present = [r for r in readings if r.partition in rows_before]
    if not present:
        return Scored(mixtures, None, [], lost)
    scores = score_all(present, [mixture.n_parameters for mixture in mixtures])
    return Scored(mixtures, scores, [r.partition for r in present], lost)


def _common_floor(candidates: Sequence[FitSettings], mixtures: Sequence[Mixture]) -> float | None:
    """The highest boundary of all candidates, below which no log-density counts; None if no family truncates."""
    families = [settings.problem.family for settings in candidates]
    if not families[0].cut.truncates:
        return None
    points = [(m.weights, m.components) for m in mixtures]
    return max(boundary(f, point) for f, point in zip(families, points, strict=True))


def _climb(
    reader: Reader,
    candidates: Sequence[FitSettings],
    mixtures: list[Mixture],
    rows_before: dict[int, int],
    lost: dict[int, Reason],
    n_passes: int,
) -> list[Mixture]:
    """The mixtures after EM passes; partitions that are lost on the way leave ``rows_before`` for ``lost``."""
    climbs: list[Climb] = []
    for _ in range(n_passes):
        points = [climb.point for climb in climbs] or mixtures
        cut = candidates[0].problem.family.cut
        held = reader.hold(list(rows_before), points, Wanted(cut=cut))
        readings = held.numbers()
        gone = _forget_lost(readings, rows_before, lost)
        if not rows_before:
            break
        if gone and climbs:
            # The objective of the remaining rows before this pass is unknown: the climb starts again from here.
            mixtures, climbs = [climb.result for climb in climbs], []
            continue
        left = [k for k, r in enumerate(readings) if r.partition in rows_before]
        if not climbs:
            n_samples = sum(readings[k].n_samples for k in left)
            climbs = [
                Climb(settings.problem, mixture, n_samples)
                for settings, mixture in zip(candidates, mixtures, strict=True)
            ]
        for climb, total in zip(climbs, held.total(left), strict=True):
            climb.take(total)
    return [climb.result for climb in climbs] or mixtures


def _forget_lost(
    readings: Sequence[PartitionStatistics], rows_before: dict[int, int], lost: dict[int, Reason]
) -> bool:
    """Move partitions that cannot be read this time, or have changed, from ``rows_before`` to ``lost``; whether any."""
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
