"""Local estimates -> one global mixture: the method, one line a stage, in memory. The graph is tested against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from dask_dfmr.aggregation.reduction import MAX_ROUNDS
from dask_dfmr.aggregation.result import FALSE_EXCLUSION_RATE, Aggregate, AggregationOptions, Origin
from dask_dfmr.aggregation.stages import consensus as judging
from dask_dfmr.aggregation.stages import intake as stages
from dask_dfmr.aggregation.stages.consensus import Consensus
from dask_dfmr.aggregation.stages.hardened import harden_verdict
from dask_dfmr.aggregation.stages.intake import Block, CenterCandidate, Participants
from dask_dfmr.aggregation.trimmed_reduction import trim
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.distances import tile_blocks, upper_tiles
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.seeds import SeedLike, seed_sequence


def aggregate(
    estimates: Sequence[LocalEstimate | Mapping[str, Any]],
    *,
    method: Literal["dfmr", "mr", "coat", "trim", "hardened"] = "dfmr",
    rho: float | Literal["auto"] = "auto",
    false_exclusion_rate: float = FALSE_EXCLUSION_RATE,
    machine_weights: Literal["rows", "equal"] = "rows",
    n_starts: int = 1,
    max_rounds: int = MAX_ROUNDS,
    n_references: int | Literal["auto"] | None = "auto",
    random_state: SeedLike = None,
    heterogeneity: Literal["weights"] | None = None,
) -> Aggregate:
    """Combine local estimates into one global mixture, leaving out those far from where the majority sits.

    Parameters
    ----------
    estimates : sequence of LocalEstimate or mapping
        A mapping holds the arrays of a mixture and ``n_samples``, as
        :meth:`LocalEstimate.to_arrays` makes it. A malformed one is refused, with its reason in
        ``decision.refused``; so is one whose family or shape differs from the majority's.
    method : {"dfmr", "mr", "coat", "trim", "hardened"}, default "dfmr"
        Distance filtered mixture reduction; mixture reduction of everything, unfiltered; the center
        itself; mixture reduction without the components, of half of the weight, that are farthest
        from their centers (the paper's baseline); or distance filtered mixture reduction with further
        tests against machines that collude or move what L2 distances hardly see: copies count as one,
        and no part of an estimate, and no direction that several move along together, may be farther
        off than sampling explains. Up to 2,000 estimates (``n_references=None`` for more), and not for
        honestly heterogeneous ones: it leaves minorities out. See ``docs/method.md``.
    rho : "auto" or float, default "auto"
        "auto": left out are the estimates whose distance sampling explains with a probability below
        ``false_exclusion_rate``, given their numbers of rows and what the majority shows. A float: kept
        are the estimates within ``rho`` times the radius of the center (1.3 is the paper's). That is
        not a significance level: of clean machines 0 to 35 % lie outside 1.3, most where the mixture
        has few parameters.
    false_exclusion_rate : float, default 0.001
        Share of honest estimates that ``rho="auto"`` leaves out.
    machine_weights : {"rows", "equal"}, default "rows"
        Weight of an estimate in the reduction: its number of rows, or one for all (the paper's).
        Nobody counts for more than ten times the rows of the median estimate, here and wherever
        rows matter: they are a claim.
    n_starts : int, default 1
        Reductions are started at the center, and with more starts also at the kept estimates
        nearest to it; the best one wins.
    max_rounds : int, default 20
        Rounds of a reduction.
    n_references : "auto", int or None, default "auto"
        How many of the estimates, drawn at random, all others are measured against to find
        candidates for the center; the candidates, and everything after, are measured exactly. More
        estimates are safer and slower; the guarantee is in ``docs/method.md``. None measures all
        pairs, and so does a number of estimates that is not above ``n_references``. "auto" measures
        all pairs up to 2,000 estimates, and takes 512 references beyond.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
        Seed of that draw, and of nothing else. None is fresh every time: who sends estimates should
        not know the references.
    heterogeneity : {None, "weights"}, default None
        "weights" filters component by component with the mixing weights profiled out: estimates
        with other weights are kept, and of an estimate with a bad component the good ones. Nobody
        is then left out for its weights, whatever they are. Components are kept within ``rho``
        radii or what sampling explains; ``n_starts`` and ``max_rounds`` have no effect, and
        ``n_references`` is the number of candidates for the centers. See ``docs/method.md``.

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
    HeterogeneityWarning
        If estimates differ by several times what sampling explains, or fall into groups.
    FilterWarning
        If there are too few machines to filter, one holds most of the kept rows, or one claims more
        than ten times the rows of the median one.
    ConvergenceWarning
        If the reduction did not settle.

    References
    ----------
    Zhang, Tan & Chen, Byzantine-tolerant distributed learning of finite mixture models, JRSS-B
    2026, section 3.
    """
    options = AggregationOptions(
        method,
        rho,
        machine_weights,
        n_starts,
        max_rounds,
        n_references,
        false_exclusion_rate,
        heterogeneity,
    )
    seed = seed_sequence(random_state)
    if not estimates:
        raise ValueError("estimates must hold at least one LocalEstimate; got none.")
    family = _family(estimates)
    messages = [_as_message(e) for e in estimates]
    result = aggregate_in_memory(messages, options, seed, family)
    result.warn()
    origin = Origin(list(estimates), options, seed, family=family)
    return replace(result, origin=origin)


def aggregate_in_memory(
    messages: list[Mapping[str, Any]],
    options: AggregationOptions,
    seed: np.random.SeedSequence,
    family: Family,
    problem: LocalProblem | None = None,
) -> Aggregate:
    """The method, one line a stage. The graph computes the same, and is tested against this.

    ``problem`` is how the estimates were fitted, where that is known.
    """
    schema = stages.agree_on_schema([stages.describe_estimates(messages, family)])
    blocks = [
        stages.stack_estimates(messages[s], s.start, schema) for s in tile_blocks(len(messages))
    ]
    participants = stages.admit([block.summary for block in blocks], schema, options)
    if options.heterogeneity == "weights":
        return stages.componentwise(blocks, participants, options, seed)
    problem = judging.problem_of(participants) if problem is None else problem
    measured = measure_blocks(blocks, participants, options, seed, problem)
    return decide(blocks, participants, measured, options)


class Measured(NamedTuple):
    """The center, the consensus and everybody's distance to it: all that a decision needs, whatever ``rho`` is.

    ``tiles`` are all distances, where a method needs them.
    """

    center: CenterCandidate
    consensus: Consensus
    distances: list[Array]
    tiles: list[Array]
    problem: LocalProblem


def measure_blocks(
    blocks: list[Block],
    participants: Participants,
    options: AggregationOptions,
    seed: np.random.SeedSequence,
    problem: LocalProblem,
) -> Measured:
    """Who is in the middle, and how far everybody is from where the majority sits."""
    n_references = options.references_among(sum(b.summary.n_estimates for b in blocks))
    tiles = _tiles(blocks, participants) if n_references is None else {}
    center = (
        _center_of_all_pairs(blocks, tiles)
        if n_references is None
        else _center_by_references(blocks, participants, n_references, seed)
    )
    verdict = stages.l2_filter(center, participants, options)
    chosen = judging.draw_witnesses(verdict, participants, seed)
    witnesses = stages.join_estimates([stages.take_estimates(block, chosen) for block in blocks])
    consensus = judging.form_consensus(witnesses, verdict, participants, problem)
    distances = [judging.consensus_distances(block, consensus, participants) for block in blocks]
    needed = list(tiles.values()) if options.method == "hardened" else []
    return Measured(center, consensus, distances, needed, problem)


def decide(
    blocks: list[Block],
    participants: Participants,
    measured: Measured,
    options: AggregationOptions,
) -> Aggregate:
    """Who is kept, and the reduction of those."""
    verdict = stages.l2_filter(measured.center, participants, options)
    verdict = judging.judge(verdict, measured.consensus, measured.distances, participants, options)
    if options.method == "hardened":
        _, consensus, _, tiles, problem = measured
        verdict = harden_verdict(verdict, consensus, blocks, tiles, participants, problem, options)
    starts = [
        stages.pick_start([stages.offer_start(block, verdict, s) for block in blocks])
        for s in range(options.n_starts)
    ]
    if options.method == "trim":
        return trim(blocks, verdict, starts, options)
    reduced = [stages.reduce_blocks(blocks, verdict, start, options) for start in starts]
    return stages.finish(reduced, verdict, options)


def _tiles(blocks: list[Block], participants: Participants) -> dict[tuple[int, int], Array]:
    return {
        (i, j): stages.l2_tile(blocks[i], blocks[j], participants)
        for i, j in upper_tiles(len(blocks))
    }


def _center_of_all_pairs(
    blocks: list[Block], tiles: dict[tuple[int, int], Array]
) -> CenterCandidate:
    n = len(blocks)
    rows = [stages.panel(i, [tiles[min(i, j), max(i, j)] for j in range(n)]) for i in range(n)]
    return stages.coat_min(
        [stages.coat_candidate(block, row) for block, row in zip(blocks, rows, strict=True)]
    )


def _center_by_references(
    blocks: list[Block], participants: Participants, n_references: int, seed: np.random.SeedSequence
) -> CenterCandidate:
    def take(machines: list[int]) -> Block:
        return stages.join_estimates([stages.take_estimates(block, machines) for block in blocks])

    def best_of(chosen: Block) -> CenterCandidate | None:
        return stages.coat_among(
            chosen, [stages.l2_rows(chosen, block, participants) for block in blocks]
        )

    scouts = stages.scouts_of(participants, seed)
    scout = stages.coat_min([best_of(take(scouts))])
    references = take(stages.references_of(scout, participants, n_references, seed))
    medians = [stages.reference_medians(references, block, participants) for block in blocks]
    candidate = best_of(take(stages.candidates_of(medians, scouts, participants)))
    return stages.coat_min([scout, candidate])


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


def _family(estimates: Sequence[Any]) -> Family:
    """The family that messages are read as: that of the first estimate, Gaussian where all are messages."""
    families = (
        e.mixture.family
        for e in estimates
        if isinstance(e, LocalEstimate) and e.mixture is not None
    )
    return next(families, Gaussian())
