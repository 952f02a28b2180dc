"""Local estimates -> one global mixture: the method, one line a stage, in memory. The graph is tested against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dask_dfmr import stages
from dask_dfmr.decision import Aggregate, AggregationOptions
from dask_dfmr.distances import tile_blocks, upper_tiles
from dask_dfmr.estimates import LocalEstimate
from dask_dfmr.mixture import Mixture
from dask_dfmr.reduction import MAX_ROUNDS


def aggregate(
    estimates: Sequence[LocalEstimate | Mapping[str, Any]],
    *,
    method: Literal["dfmr", "mr", "coat"] = "dfmr",
    rho: float = 1.3,
    machine_weights: Literal["rows", "equal"] = "rows",
    n_starts: int = 1,
    max_rounds: int = MAX_ROUNDS,
) -> Aggregate:
    """Combine local estimates into one global mixture, leaving out those far from where the majority sits.

    Parameters
    ----------
    estimates : sequence of LocalEstimate or mapping
        A mapping holds the arrays of a mixture and ``n_samples``, as
        :meth:`LocalEstimate.to_arrays` makes it. A malformed one is refused, with its reason in
        ``decision.refused``; so is one whose family or shape differs from the majority's.
    method : {"dfmr", "mr", "coat"}, default "dfmr"
        Distance filtered mixture reduction; mixture reduction of everything, unfiltered; or the
        centre itself.
    rho : float, default 1.3
        Kept are the estimates within ``rho`` times the radius of the centre. Not a significance
        level: of clean machines 0 to 35 % lie outside 1.3, most where the mixture has few
        parameters.
    machine_weights : {"rows", "equal"}, default "rows"
        Weight of an estimate in the reduction: its number of rows, or one for all (the paper's).
    n_starts : int, default 1
        Reductions are started at the centre, and with more starts also at the kept estimates
        nearest to it; the best one wins.
    max_rounds : int, default 20
        Rounds of a reduction.

    Returns
    -------
    Aggregate

    Raises
    ------
    ValueError
        If there is no estimate or an option is wrong.
    AggregationError
        If no estimate is usable.

    Warns
    -----
    PartitionWarning
        If estimates were refused and fewer than half are usable.
    FilterWarning
        If there are too few machines to filter, or one holds most of the kept rows.
    ConvergenceWarning
        If the reduction did not settle.

    References
    ----------
    Zhang, Tan & Chen, Byzantine-tolerant distributed learning of finite mixture models, JRSS-B
    2026, section 3.
    """
    options = AggregationOptions(method, rho, machine_weights, n_starts, max_rounds)
    if not estimates:
        raise ValueError("estimates must hold at least one LocalEstimate; got none.")
    result = aggregate_in_memory(
        [_as_message(e) for e in estimates], options, _mixture_type(estimates)
    )
    result.warn()
    return result


def aggregate_in_memory(
    messages: list[Mapping[str, Any]], options: AggregationOptions, mixture_type: type[Mixture]
) -> Aggregate:
    """The method, one line a stage. The graph computes the same, and is tested against this."""
    schema = stages.agree_on_schema([stages.describe_estimates(messages, mixture_type)])
    blocks = [
        stages.stack_estimates(messages[s], s.start, schema, mixture_type)
        for s in tile_blocks(len(messages))
    ]
    roll = stages.call_roll([block.presence for block in blocks], schema)
    n = len(blocks)
    tiles = {(i, j): stages.l2_tile(blocks[i], blocks[j], roll) for i, j in upper_tiles(n)}
    rows = [stages.panel(i, [tiles[min(i, j), max(i, j)] for j in range(n)]) for i in range(n)]
    center = stages.coat_min(
        [stages.coat_candidate(block, row) for block, row in zip(blocks, rows, strict=True)]
    )
    verdict = stages.l2_filter(center, roll, options)
    starts = [
        stages.pick_start([stages.offer_start(block, verdict, s) for block in blocks])
        for s in range(options.n_starts)
    ]
    reduced = [stages.reduce_blocks(blocks, verdict, start, options) for start in starts]
    return stages.finish(reduced, verdict, options, mixture_type)


def _as_message(estimate: Any) -> Mapping[str, Any]:
    if isinstance(estimate, LocalEstimate):
        return estimate.to_arrays()
    if isinstance(estimate, Mapping):
        return estimate
    got = type(estimate).__name__
    raise TypeError(
        f"estimates must be LocalEstimate objects or mappings of arrays; got {got}. "
        "Give a bare mixture a row count: LocalEstimate(mixture, n_samples)."
    )


def _mixture_type(estimates: Sequence[Any]) -> type[Mixture]:
    types = (
        type(e.mixture) for e in estimates if isinstance(e, LocalEstimate) and e.mixture is not None
    )
    return next(types, Mixture)
