"""The method as one lazy Dask graph, and the only module that builds tasks.

Stages, as they appear on the dashboard (``dask.utils.key_split`` of the keys)::

    a few partitions          dfmr_read_pilot -> dfmr_pilot_scale -> dfmr_fit_pilot -> dfmr_shortlist
    every partition           dfmr_fit_partition (reads and fits), dfmr_report_rows
    columns unknown           dfmr_describe -> dfmr_schema
    who is there              dfmr_stack_estimates -> dfmr_summary -> dfmr_admit
    the center, all pairs     dfmr_l2_tile -> dfmr_coat_candidate -> dfmr_coat_min
    the center, references    { dfmr_draw_estimates -> dfmr_take_estimates -> dfmr_join_estimates
                              -> dfmr_l2_rows or dfmr_reference_medians } x 3
                              -> dfmr_coat_candidate -> dfmr_coat_min
    who is near the center    dfmr_l2_filter
    what sampling explains    dfmr_draw_estimates -> dfmr_take_estimates -> dfmr_join_estimates
                              -> dfmr_consensus -> dfmr_consensus_distances
    who is kept               dfmr_judge
    where reductions start    dfmr_offer_start -> dfmr_pick_start
    reduction at once         dfmr_reduce
    reduction in rounds       { dfmr_assign_block -> dfmr_tree_sum -> dfmr_recenter } x max_rounds
    method="hardened"         dfmr_harden, from dfmr_judge and all dfmr_l2_tile
    method="trim"             dfmr_trim instead of these
    the result                dfmr_finish
    heterogeneity="weights"   dfmr_componentwise, from dfmr_admit to the result

A fit on a cluster adds ``dfmr_lost_partition`` for what died there; one on a local scheduler collects
what it returns in ``dfmr_results`` (and ``dfmr_store`` for estimates kept on disk).

The functions are those of :mod:`dask_dfmr.aggregation.stages.intake`, :mod:`dask_dfmr.aggregation.stages.consensus`, :mod:`dask_dfmr.local.pilots` and
:mod:`dask_dfmr.on_dask.tasks`; no task holds the whole distance matrix or all rows. Each ``add_*`` below
adds one part to a dictionary of tasks and returns references to its results, so that the parts can
be submitted together or one after the other (:mod:`dask_dfmr.on_dask.first_read`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from dask.task_spec import TaskRef

from dask_dfmr.aggregation import trimmed_reduction as trimming
from dask_dfmr.aggregation.reduction import add_assignments
from dask_dfmr.aggregation.result import AggregationOptions
from dask_dfmr.aggregation.stages import consensus as judging
from dask_dfmr.aggregation.stages import hardened as hardening
from dask_dfmr.aggregation.stages import intake as stages
from dask_dfmr.local import pilots as pilot
from dask_dfmr.mixtures.distances import block_size_for, tile_blocks, upper_tiles
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.partitions import Partitions
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY, GraphBuilder
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.seeds import PILOT_DRAW, stream

REDUCE_AT_ONCE = 500
"""Up to so many machines, unless smaller blocks than usual are asked for, one task reduces them all: a round of tasks
costs trips to the scheduler, which are more than its arithmetic."""


# -- parts of the graph --------------------------------------------------------------------------


def add_pilot_reads(
    g: GraphBuilder, partitions: Partitions, settings: FitSettings
) -> dict[int, Any]:
    """The pilots' rows, by partition."""
    g.tasks.update(partitions.graph)
    drawn = pilot.draw_pilots(len(partitions), stream(settings.seed, PILOT_DRAW))
    loaders = partitions.loaders
    return {
        i: g.add("read_pilot", i, tasks.read_pilot, loaders[i], i, settings, *loaders[i].refs)
        for i in drawn
    }


def add_pilot_fits(
    g: GraphBuilder, pilots: dict[int, Any], settings: FitSettings
) -> dict[int, Any]:
    """The candidates of the pilots, by partition, from references to their rows."""
    scale = g.add("pilot_scale", 0, pilot.pilot_scale, list(pilots.values()))
    return {
        i: g.add("fit_pilot", i, tasks.fit_pilot, rows, scale, i, settings)
        for i, rows in pilots.items()
    }


def add_shortlist(g: GraphBuilder, fits: dict[int, Any], settings: FitSettings) -> TaskRef:
    """The starts that all partitions choose from, from references to the pilots' candidates."""
    return g.add("shortlist", 0, tasks.make_shortlist, list(fits.values()), settings)


def add_fits(
    g: GraphBuilder,
    partitions: Partitions,
    settings: FitSettings,
    shortlist: Any,
    only: Sequence[int] | None = None,
) -> list[TaskRef]:
    """One message per partition, or only for some."""
    g.tasks.update(partitions.graph)
    refs = []
    for i in range(len(partitions)) if only is None else only:
        loader, source = partitions.loaders[i], partitions.sources[i]
        arguments = (loader, i, source, settings, shortlist, *loader.refs)
        refs.append(g.add("fit_partition", i, tasks.fit_partition, *arguments))
    return refs


def add_aggregation(
    g: GraphBuilder,
    messages: Sequence[Any],
    settings: FitSettings,
    n_features: int | None,
    options: AggregationOptions,
    split_every: int = SPLIT_EVERY,
    block_size: int | None = None,
) -> tuple[TaskRef, list[TaskRef]]:
    """From references to messages to the :class:`Aggregate`; also the report's rows, block by block."""
    slices = tile_blocks(len(messages), block_size)
    groups = [list(messages[s]) for s in slices]
    reports = [
        g.add("report_rows", b, tasks.report_rows, group, s.start)
        for b, (s, group) in enumerate(zip(slices, groups, strict=True))
    ]

    if n_features is None:
        counts: list[Any] = [
            g.add(
                "describe", b, _of_plain, stages.describe_estimates, group, settings.problem.family
            )
            for b, group in enumerate(groups)
        ]
        schema: Any = g.add("schema", 0, stages.agree_on_schema, counts)
    else:
        schema = stages.Schema(
            settings.problem.family,
            settings.problem.n_components,
            n_features,
            settings.feature_names,
        )

    blocks: list[Any] = [
        g.add(
            "stack_estimates",
            b,
            _of_plain,
            stages.stack_estimates,
            group,
            s.start,
            schema,
        )
        for b, (s, group) in enumerate(zip(slices, groups, strict=True))
    ]
    summaries: list[Any] = [
        g.add("summary", b, stages.summary_of, block) for b, block in enumerate(blocks)
    ]
    participants = g.add("admit", 0, stages.admit, summaries, schema, options, list(reports))
    if options.heterogeneity == "weights":
        arguments = (blocks, participants, options, settings.seed)
        return g.add("componentwise", 0, _serial, stages.componentwise, *arguments), reports
    n_references = options.references_among(len(messages))
    tiles = _add_tiles(g, blocks, participants) if n_references is None else {}
    center = (
        _add_center_of_all_pairs(g, blocks, tiles, split_every)
        if n_references is None
        else _add_center_by_references(g, blocks, participants, n_references, settings.seed)
    )
    near = g.add("l2_filter", 0, stages.l2_filter, center, participants, options)
    verdict, consensus = _add_judgement(g, blocks, near, participants, settings, options)
    if options.method == "hardened":
        of_all = list(tiles.values())
        hardened = (verdict, consensus, blocks, of_all, participants, settings.problem, options)
        verdict = g.add("harden", 0, _serial, hardening.harden_verdict, *hardened)
    if options.method == "trim":
        starts: list[Any] = [_add_start(g, s, blocks, verdict) for s in range(options.n_starts)]
        trimmed = (trimming.trim, blocks, verdict, starts, options)
        return g.add("trim", 0, _serial, *trimmed), reports
    usual = block_size is None or block_size >= block_size_for(len(messages))
    at_once = len(blocks) == 1 or (usual and len(messages) <= REDUCE_AT_ONCE)
    reduced: list[Any] = [
        _add_reduction(g, s, blocks, verdict, options)
        if at_once or options.method == "coat"
        else _add_rounds(g, s, blocks, verdict, options, split_every)
        for s in range(options.n_starts)
    ]
    return g.add("finish", 0, stages.finish, reduced, verdict, options), reports


def _add_tiles(
    g: GraphBuilder, blocks: list[Any], participants: TaskRef
) -> dict[tuple[int, int], Any]:
    """Tiles of the distance matrix."""
    return {
        (i, j): g.add(
            "l2_tile", (i, j), _serial, stages.l2_tile, blocks[i], blocks[j], participants
        )
        for i, j in upper_tiles(len(blocks))
    }


def _add_center_of_all_pairs(
    g: GraphBuilder, blocks: list[Any], tiles: dict[tuple[int, int], Any], split_every: int
) -> TaskRef:
    """The best candidate of each row of tiles -> COAT."""
    n = len(blocks)
    candidates = []
    for i, block in enumerate(blocks):
        row: list[Any] = [tiles[min(i, j), max(i, j)] for j in range(n)]
        candidates.append(g.add("coat_candidate", i, _coat_candidate, block, i, row))
    center: TaskRef = g.tree("coat_min", (), stages.coat_min, candidates, split_every)
    return center


def _add_judgement(
    g: GraphBuilder,
    blocks: list[Any],
    near: TaskRef,
    participants: TaskRef,
    settings: FitSettings,
    options: AggregationOptions,
) -> tuple[TaskRef, TaskRef]:
    """Who is near the center -> their consensus -> what sampling explains of everybody's distance to it.

    The verdict, and the consensus.
    """
    machines = g.add(
        "draw_estimates", "witnesses", judging.draw_witnesses, near, participants, settings.seed
    )
    taken: list[Any] = [
        g.add("take_estimates", ("witnesses", b), stages.take_estimates, block, machines)
        for b, block in enumerate(blocks)
    ]
    witnesses = g.add("join_estimates", "witnesses", stages.join_estimates, taken)
    arguments = (witnesses, near, participants, settings.problem)
    consensus = g.add("consensus", 0, _serial, judging.form_consensus, *arguments)
    distances: list[Any] = [
        g.add(
            "consensus_distances",
            b,
            _serial,
            judging.consensus_distances,
            block,
            consensus,
            participants,
        )
        for b, block in enumerate(blocks)
    ]
    verdict = g.add("judge", 0, judging.judge, near, consensus, distances, participants, options)
    return verdict, consensus


def _add_center_by_references(
    g: GraphBuilder,
    blocks: list[Any],
    participants: TaskRef,
    n_references: int,
    seed: np.random.SeedSequence,
) -> TaskRef:
    """Scouts -> references -> candidates -> COAT, each measured against all machines."""

    def draw(which: str, function: Callable[..., Any], *args: Any) -> tuple[TaskRef, TaskRef]:
        machines = g.add("draw_estimates", which, function, *args)
        taken: list[Any] = [
            g.add("take_estimates", (which, b), stages.take_estimates, block, machines)
            for b, block in enumerate(blocks)
        ]
        return machines, g.add("join_estimates", which, stages.join_estimates, taken)

    def measure(stage: str, which: str, function: Callable[..., Any], chosen: TaskRef) -> list[Any]:
        return [
            g.add(stage, (which, b), _serial, function, chosen, block, participants)
            for b, block in enumerate(blocks)
        ]

    def best_of(which: str, chosen: TaskRef) -> TaskRef:
        rows = measure("l2_rows", which, stages.l2_rows, chosen)
        return g.add("coat_candidate", which, stages.coat_among, chosen, rows)

    machines, chosen = draw("scouts", stages.scouts_of, participants, seed)
    scout = g.add("coat_min", "scouts", stages.coat_min, [best_of("scouts", chosen)])
    _, chosen = draw("references", stages.references_of, scout, participants, n_references, seed)
    medians = measure("reference_medians", "references", stages.reference_medians, chosen)
    _, chosen = draw("candidates", stages.candidates_of, medians, machines, participants)
    return g.add("coat_min", "all", stages.coat_min, [scout, best_of("candidates", chosen)])


def _add_start(g: GraphBuilder, s: int, blocks: list[Any], verdict: TaskRef) -> TaskRef:
    """Where reduction ``s`` starts."""
    offers: list[Any] = [
        g.add("offer_start", (s, b), stages.offer_start, block, verdict, s)
        for b, block in enumerate(blocks)
    ]
    return g.add("pick_start", s, stages.pick_start, offers)


def _add_reduction(
    g: GraphBuilder, s: int, blocks: list[Any], verdict: TaskRef, options: AggregationOptions
) -> TaskRef:
    """Reduction ``s`` in one task."""
    start = _add_start(g, s, blocks, verdict)
    return g.add("reduce", s, _serial, stages.reduce_blocks, blocks, verdict, start, options)


def _add_rounds(
    g: GraphBuilder,
    s: int,
    blocks: list[Any],
    verdict: TaskRef,
    options: AggregationOptions,
    split_every: int,
) -> TaskRef:
    """Reduction ``s`` round by round; once the assignments stand still, the rest passes the result through."""
    centers = _add_start(g, s, blocks, verdict)
    previous: list[Any] = [None] * len(blocks)
    for r in range(options.max_rounds):
        previous = [
            g.add(
                "assign_block",
                (s, r, b),
                _serial,
                stages.assign_block,
                block,
                verdict,
                centers,
                previous[b],
            )
            for b, block in enumerate(blocks)
        ]
        total = g.tree("tree_sum", (s, r), add_assignments, previous, split_every)
        centers = g.add("recenter", (s, r), stages.recenter_round, verdict, centers, total)
    return centers


def _serial(function: Callable[..., Any], *args: Any) -> Any:
    """Call a stage that uses BLAS."""
    with single_threaded_blas():
        return function(*args)


def _of_plain(function: Callable[..., Any], messages: Sequence[Any], *args: Any) -> Any:
    """The same for a stage that reads messages of machines, whatever they sent."""
    return _serial(function, [tasks.as_plain(message) for message in messages], *args)


def _coat_candidate(block: stages.Block, i: int, tiles: list[Any]) -> stages.CenterCandidate | None:
    return stages.coat_candidate(block, stages.panel(i, tiles))
