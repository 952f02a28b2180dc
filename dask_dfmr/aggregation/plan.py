"""The method, one line a stage: messages of local estimates -> one global mixture.

The plan is written once, against a builder. :class:`CallNow` calls each stage at once. The builder of
:mod:`dask_dfmr.on_dask.graph` adds each stage as a task to a Dask graph. The arguments of a stage are values with
:class:`CallNow`, and references to the results of earlier stages with the other builder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.order import in_order_of
from dask_dfmr.aggregation.reduction import add_assignments
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.aggregation.stages import (
    center,
    componentwise,
    consensus,
    hardened,
    intake,
    judge,
    keep,
)
from dask_dfmr.aggregation.stages import reduce as reducing
from dask_dfmr.aggregation.stages.intake import Schema
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.starts import GivenStart
from dask_dfmr.mixtures.distances import tile_blocks, upper_tiles
from dask_dfmr.mixtures.family import Family
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, RowCut


class Builder(Protocol):
    """Runs the stages of a plan, now or later."""

    def add(self, stage: str, index: Any, function: Callable[..., Any], *args: Any) -> Any:
        """The result of ``function(*args)``, or a reference to it; ``stage`` and ``index`` name it."""

    def tree(
        self,
        stage: str,
        index: tuple[int, ...],
        function: Callable[..., Any],
        leaves: list[Any],
        split_every: int,
    ) -> Any:
        """The leaves combined by ``function``, ``split_every`` at a time, level by level."""


class CallNow:
    """The builder that calls every stage at once, in this thread."""

    def add(self, stage: str, index: Any, function: Callable[..., Any], *args: Any) -> Any:
        """The result of ``function(*args)``."""
        return function(*args)

    def tree(
        self,
        stage: str,
        index: tuple[int, ...],
        function: Callable[..., Any],
        leaves: list[Any],
        split_every: int,
    ) -> Any:
        """The leaves combined by ``function``, in the same shape as any other builder's: sums have the same bits."""
        while True:
            groups = (leaves[s] for s in tile_blocks(len(leaves), split_every))
            leaves = [function(group) for group in groups]
            if len(leaves) == 1:
                return leaves[0]


@dataclass(frozen=True)
class Setting:
    """How an aggregation computes, whatever the estimates are.

    Attributes
    ----------
    options : AggregationOptions
    seed : SeedSequence
        Of all draws.
    family : Family
        That messages are read as.
    problem : LocalProblem or None
        How the estimates were fitted. None: as by default, see :func:`~.stages.consensus.problem_of`.
    schema : Schema or None
        Shape of the estimates, if it is known before the majority is.
    order : Mixture, GivenStart or None
        The start that the user gave: the components of the result have its order. None: by decreasing weight.
    gained : mapping of int to LocalEstimate
        Estimates that are kept whatever the distance of the fits in the messages, because the rows behind them decide.
        They must not be farther from the consensus themselves than fits may be. The decision goes by the fits, and
        these estimates take their places in the reduction: one that was made from the global mixture is no evidence of
        how far fits lie from it.
    """

    options: AggregationOptions
    seed: np.random.SeedSequence
    family: Family
    problem: LocalProblem | None = None
    schema: Schema | None = None
    order: Mixture | GivenStart | None = None
    gained: Mapping[int, LocalEstimate] = field(default_factory=dict)

    @property
    def cut(self) -> RowCut:
        """That of the local fits; one that only counts rows if it is not known."""
        return COUNTING if self.problem is None else self.problem.family.cut


class Layout(NamedTuple):
    """How the estimates are divided.

    Attributes
    ----------
    slices : list of slice
        Consecutive blocks of estimates.
    split_every : int
        Blocks that one call of a tree combines.
    indices : sequence of int, length n_estimates
        What the estimates are numbered by.
    in_rounds : bool
        Whether each round of a reduction goes block by block. Otherwise one call makes all rounds over all blocks.
    """

    slices: list[slice]
    split_every: int
    indices: Sequence[int]
    in_rounds: bool = False

    @property
    def n_estimates(self) -> int:
        """Number of estimates, refused ones included."""
        return len(self.indices)


def layout_in_memory(n_estimates: int, indices: Sequence[int] | None = None) -> Layout:
    """Blocks of the usual size, which every stage combines at once; by default numbered from 0."""
    slices = tile_blocks(n_estimates)
    return Layout(slices, max(2, len(slices)), range(n_estimates) if indices is None else indices)


class Measured(NamedTuple):
    """The values that a decision needs, whatever ``rho`` is.

    Attributes
    ----------
    center : CenterCandidate
    near : Selected
        The decision by distances to the center.
    consensus : Consensus
    distances : list of ndarray
        Distances of all estimates to the consensus, block by block.
    tiles : list of ndarray
        Distances of all pairs, in the order of :func:`~dask_dfmr.mixtures.distances.upper_tiles`; empty unless the
        method needs them.
    problem : LocalProblem
    """

    center: Any
    near: Any
    consensus: Any
    distances: list[Any]
    tiles: list[Any]
    problem: Any


# -- the plan --------------------------------------------------------------------------------------


def aggregate_now(
    messages: Sequence[Mapping[str, Any] | LocalEstimate],
    options: AggregationOptions,
    seed: np.random.SeedSequence,
    family: Family,
    problem: LocalProblem | None = None,
    order: Mixture | GivenStart | None = None,
    gained: Mapping[int, LocalEstimate] | None = None,
) -> AggregationResult:
    """Aggregate in this thread.

    Parameters
    ----------
    messages : sequence of mapping or LocalEstimate
        At least one.
    options : AggregationOptions
    seed : SeedSequence
    family : Family
        That messages are read as.
    problem : LocalProblem or None
        How the estimates were fitted, if that is known.
    order : Mixture, GivenStart or None
    gained : mapping of int to LocalEstimate, or None
        Both as in :class:`Setting`.

    Raises
    ------
    AggregationError
        If no estimate is usable.
    """
    setting = Setting(options, seed, family, problem, order=order, gained=gained or {})
    result: AggregationResult = plan_aggregation(
        CallNow(), messages, setting, layout_in_memory(len(messages))
    )
    return result


def plan_aggregation(
    builder: Builder,
    messages: Sequence[Any],
    setting: Setting,
    layout: Layout,
    report: Sequence[Any] = (),
) -> Any:
    """The :class:`AggregationResult` of all messages; an error carries the rows of the ``report``."""
    blocks, participants = plan_intake(builder, messages, setting, layout, report)
    return plan_result(builder, blocks, participants, setting, layout)


def plan_result(
    builder: Builder, blocks: list[Any], participants: Any, setting: Setting, layout: Layout
) -> Any:
    """The :class:`AggregationResult` of the participants."""
    if setting.options.method == "componentwise":
        arguments = (blocks, participants, setting.options, setting.seed)
        result = builder.add("componentwise", 0, componentwise.componentwise, *arguments)
        return _in_order(builder, result, setting)
    measured = plan_measures(builder, blocks, participants, setting, layout)
    return plan_decision(builder, blocks, participants, measured, setting, layout)


def plan_intake(
    builder: Builder,
    messages: Sequence[Any],
    setting: Setting,
    layout: Layout,
    report: Sequence[Any] = (),
) -> tuple[list[Any], Any]:
    """Blocks of estimates, and the participants."""
    add, schema, cut = builder.add, setting.schema, setting.cut
    groups = [list(messages[s]) for s in layout.slices]
    if schema is None:
        counts = [
            add("describe", b, intake.describe_estimates, group, setting.family)
            for b, group in enumerate(groups)
        ]
        schema = add("schema", 0, intake.agree_on_schema, counts)
    blocks = [
        add("stack_estimates", b, intake.stack_estimates, group, layout.indices[s], schema, cut)
        for b, (s, group) in enumerate(zip(layout.slices, groups, strict=True))
    ]
    summaries = [add("summary", b, intake.summary_of, block) for b, block in enumerate(blocks)]
    arguments = (summaries, schema, setting.options, list(report), frozenset(setting.gained))
    participants = add("admit", 0, intake.admit, *arguments)
    return blocks, participants


def plan_measures(
    builder: Builder, blocks: list[Any], participants: Any, setting: Setting, layout: Layout
) -> Measured:
    """The center, the consensus near it, and the distances of all estimates to both."""
    add, options, seed = builder.add, setting.options, setting.seed
    problem = setting.problem or add("problem", 0, consensus.problem_of, participants)
    n_references = options.references_among(layout.n_estimates)
    tiles: list[Any] = []
    if n_references is None:
        middle, tiles = _center_of_all_pairs(builder, blocks, participants, layout)
    else:
        middle = _center_by_references(builder, blocks, participants, n_references, seed)
    near = add("l2_filter", 0, keep.l2_filter, middle, participants, options)
    _, sample = _take(builder, "sample", blocks, consensus.draw_sample, near, participants, seed)
    formed = add("consensus", 0, consensus.form_consensus, sample, near, participants, problem)
    distances = [
        add("consensus_distances", b, consensus.consensus_distances, block, formed, participants)
        for b, block in enumerate(blocks)
    ]
    needed = tiles if options.method == "hardened" else []
    return Measured(middle, near, formed, distances, needed, problem)


def plan_decision(
    builder: Builder,
    blocks: list[Any],
    participants: Any,
    measured: Measured,
    setting: Setting,
    layout: Layout,
) -> Any:
    """Which estimates are kept, and the reduction of these: the :class:`AggregationResult`."""
    add, options = builder.add, setting.options
    _, near, formed, distances, tiles, problem = measured
    reduced = blocks
    if setting.gained:
        steps = add("gained", 0, intake.gained_block, participants, setting.gained, setting.cut)
        theirs = add(
            "gained_distances", 0, consensus.consensus_distances, steps, formed, participants
        )
        known = (participants, steps, theirs, formed, distances, options)
        participants = add("admit_gained", 0, judge.admit_gained, *known)
        left = [
            add("without_gained", b, intake.without_gained, block, participants)
            for b, block in enumerate(blocks)
        ]
        reduced = [*left, add("only_gained", 0, intake.only_gained, steps, participants)]
    selected = add("judge", 0, judge.judge, near, formed, distances, participants, options)
    if options.method == "hardened":
        arguments = (selected, formed, blocks, tiles, participants, problem, options)
        selected = add("harden", 0, hardened.harden_selection, *arguments)
    return plan_reduction(builder, reduced, selected, setting, layout)


def plan_reduction(
    builder: Builder, blocks: list[Any], selected: Any, setting: Setting, layout: Layout
) -> Any:
    """The reduction of the kept estimates, the best of all starts: the :class:`AggregationResult`."""
    options = setting.options
    reduce = _in_rounds if layout.in_rounds and options.method != "coat" else _at_once
    reduced = [
        reduce(builder, s, blocks, selected, setting, layout) for s in range(options.n_starts)
    ]
    result = builder.add("finish", 0, reducing.finish, reduced, selected, options)
    return _in_order(builder, result, setting)


def _in_order(builder: Builder, result: Any, setting: Setting) -> Any:
    """The result in the order of the start that was given, if one was."""
    if setting.order is None:
        return result
    return builder.add("in_order", 0, in_order_of, result, setting.order)


# -- parts of it -----------------------------------------------------------------------------------


def _center_of_all_pairs(
    builder: Builder, blocks: list[Any], participants: Any, layout: Layout
) -> tuple[Any, list[Any]]:
    """The center, and the upper tiles of the distance matrix."""
    n, add = len(blocks), builder.add
    tiles = {
        (i, j): add("l2_tile", (i, j), center.l2_tile, blocks[i], blocks[j], participants)
        for i, j in upper_tiles(n)
    }
    rows = [[tiles[min(i, j), max(i, j)] for j in range(n)] for i in range(n)]
    candidates = [
        add("coat_candidate", i, center.coat_candidate, block, i, row)
        for i, (block, row) in enumerate(zip(blocks, rows, strict=True))
    ]
    middle = builder.tree("coat_min", (), center.coat_min, candidates, layout.split_every)
    return middle, list(tiles.values())


def _center_by_references(
    builder: Builder,
    blocks: list[Any],
    participants: Any,
    n_references: int,
    seed: np.random.SeedSequence,
) -> Any:
    """Scouts -> references -> candidates -> the center, each measured against all estimates."""
    add = builder.add

    def measure(stage: str, which: str, function: Callable[..., Any], chosen: Any) -> list[Any]:
        return [
            add(stage, (which, b), function, chosen, block, participants)
            for b, block in enumerate(blocks)
        ]

    def best_of(which: str, chosen: Any) -> Any:
        rows = measure("l2_rows", which, center.l2_rows, chosen)
        return add("coat_candidate", which, center.coat_among, chosen, rows)

    scouts, chosen = _take(builder, "scouts", blocks, center.scouts_of, participants, seed)
    scout = add("coat_min", "scouts", center.coat_min, [best_of("scouts", chosen)])
    arguments = (scout, participants, n_references, seed)
    _, chosen = _take(builder, "references", blocks, center.references_of, *arguments)
    medians = measure("reference_medians", "references", center.reference_medians, chosen)
    _, chosen = _take(
        builder, "candidates", blocks, center.candidates_of, medians, scouts, participants
    )
    return add("coat_min", "all", center.coat_min, [scout, best_of("candidates", chosen)])


def _take(
    builder: Builder, which: str, blocks: list[Any], draw: Callable[..., Any], *args: Any
) -> tuple[Any, Any]:
    """Indices of some estimates, drawn by ``draw(*args)``, and these estimates as one block."""
    indices = builder.add("draw_estimates", which, draw, *args)
    taken = [
        builder.add("take_estimates", (which, b), intake.take_estimates, block, indices)
        for b, block in enumerate(blocks)
    ]
    return indices, builder.add("join_estimates", which, intake.join_estimates, taken)


def _start(builder: Builder, s: int, blocks: list[Any], selected: Any) -> Any:
    """The start of reduction number ``s``."""
    offers = [
        builder.add("offer_start", (s, b), reducing.offer_start, block, selected, s)
        for b, block in enumerate(blocks)
    ]
    return builder.add("pick_start", s, reducing.pick_start, offers)


def _at_once(
    builder: Builder, s: int, blocks: list[Any], selected: Any, setting: Setting, layout: Layout
) -> Any:
    """Reduction number ``s`` at once."""
    start = _start(builder, s, blocks, selected)
    arguments = (blocks, selected, start, setting.options)
    return builder.add("reduce", s, reducing.reduce_blocks, *arguments)


def _in_rounds(
    builder: Builder, s: int, blocks: list[Any], selected: Any, setting: Setting, layout: Layout
) -> Any:
    """Reduction number ``s`` round by round. Once no assignment changes, later rounds pass the centers on."""
    add, assign_block = builder.add, reducing.assign_block
    centers = _start(builder, s, blocks, selected)
    previous: list[Any] = [None] * len(blocks)
    for r in range(setting.options.max_rounds):
        previous = [
            add("assign_block", (s, r, b), assign_block, block, selected, centers, before)
            for b, (block, before) in enumerate(zip(blocks, previous, strict=True))
        ]
        total = builder.tree("tree_sum", (s, r), add_assignments, previous, layout.split_every)
        centers = add("recenter", (s, r), reducing.recenter_round, selected, centers, total)
    return centers
