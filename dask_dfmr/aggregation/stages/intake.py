"""The stages between local estimates and a global mixture: arrays in, arrays out, block by block of machines.

    stack_estimates -> admit
    -> l2_tile -> coat_candidate                                                  all pairs, or
    -> { draw_* -> take_estimates, join_estimates -> l2_rows } x 3 -> coat_among    references
    -> coat_min -> l2_filter -> stages of dask_dfmr.aggregation.stages.consensus
    -> offer_start, pick_start -> { assign_block, recenter_round } or reduce_blocks -> finish

    stack_estimates -> admit -> componentwise                     heterogeneity="weights"

:mod:`dask_dfmr.aggregation.plan` runs them in memory and :mod:`dask_dfmr.on_dask.graph` hangs them into a graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr.aggregation.componentwise import ComponentwiseResult, as_machines, filter_components
from dask_dfmr.aggregation.medoid import Candidate, best_candidate, keep_near, row_candidates
from dask_dfmr.aggregation.reduction import (
    Assignment,
    Centers,
    assign,
    in_canonical_order,
    recenter,
    reduce_pooled,
)
from dask_dfmr.aggregation.references import best_medians, draw_references, draw_scouts
from dask_dfmr.aggregation.result import (
    PAPER_RHO,
    Aggregate,
    AggregationOptions,
    ComponentDecision,
    FilterDecision,
    Note,
)
from dask_dfmr.exceptions import (
    AggregationError,
    FilterWarning,
    HeterogeneityWarning,
    PartitionWarning,
)
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.distances import Stack, stack_mixtures
from dask_dfmr.mixtures.family import Array, Components, Family, canonical_order
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.seeds import COMPONENT_DRAW, REFERENCE_DRAW, SCOUT_DRAW, stream

MUCH = 0.25
"""Share of the rows whose components are left out component by component that is worth a warning."""

DOMINANT_SHARE = 0.2
"""A machine with a larger share of the kept rows is worth a warning: the promise is about shares of rows."""

MOST_ROWS = 10.0
"""No machine counts for more than so many times the rows of the median one, whatever it claims. The median is that of
an honest majority; without a limit, one claim would be the whole result."""

SMALL_CENTER = 2.0
"""A center that others near it have so many times the rows of is not where the reduction starts."""


# -- who is there ------------------------------------------------------------------------


class Schema(NamedTuple):
    """What an estimate must be to take part: that of the majority."""

    family: Family
    n_components: int
    n_features: int
    feature_names: tuple[str, ...] | None


class Summary(NamedTuple):
    """Who is there of a block, as small numbers."""

    n_estimates: int
    indices: list[int]
    n_samples: list[int]
    log_self: Array
    refused: dict[int, str]


class Block(NamedTuple):
    """The usable estimates of a block of machines as arrays; ``stack`` is None where there is none."""

    stack: Stack | None
    parameters: Array
    summary: Summary


class Participants(NamedTuple):
    """Who is there of all machines: index among all, rows, the unit of distances, who was refused and why.

    ``n_samples`` are the rows that machines count for, at most ``most_rows``; those that claim more are ``capped``.
    ``by_precision``: distances are divided by sqrt(1 / n_i + 1 / n_j), as machines of unlike size need it. ``removed``
    are those of the refused that somebody took out; nobody is to be warned of them.
    """

    schema: Schema
    n_estimates: int
    indices: NDArray[np.intp]
    n_samples: NDArray[np.float64]
    log_scale: float
    refused: dict[int, str]
    by_precision: bool = False
    removed: frozenset[int] = frozenset()
    most_rows: float = np.inf
    capped: tuple[int, ...] = ()


def describe_estimates(
    messages: Sequence[Mapping[str, Any] | LocalEstimate], family: Family
) -> Counter[Schema]:
    """How many estimates of each schema there are."""
    return Counter(
        _schema_of(e)
        for e in (_read(m, family) for m in messages)
        if isinstance(e, LocalEstimate) and e.is_usable
    )


def agree_on_schema(counts: Sequence[Counter[Schema]]) -> Schema | None:
    """The schema of most estimates; None where no estimate is usable."""
    total: Counter[Schema] = sum(counts, Counter())
    return min(total, key=lambda s: (-total[s], repr(s))) if total else None


def _schema_of(estimate: LocalEstimate) -> Schema:
    m = estimate.mixture
    assert m is not None
    return Schema(m.family, m.n_components, m.n_features, m.feature_names)


def _read(message: Mapping[str, Any] | LocalEstimate, family: Family | None) -> LocalEstimate | str:
    if isinstance(message, LocalEstimate):  # checked when it was made
        return message
    try:
        return LocalEstimate.from_arrays(message, family)
    except (ValueError, TypeError, OverflowError) as error:
        return f"malformed estimate: {error}"


def _refusal(estimate: LocalEstimate | str, schema: Schema | None) -> str | None:
    if isinstance(estimate, str):
        return estimate
    if not estimate.is_usable:
        return (
            f"{estimate.outcome.value}: {estimate.reason}"
            if estimate.reason
            else estimate.outcome.value
        )
    assert schema is not None  # there is a majority: this estimate alone would be one
    mine = _schema_of(estimate)
    for name in ("family", "n_components", "n_features"):
        if getattr(mine, name) != getattr(schema, name):
            return f"{name} is {getattr(mine, name)}, the majority's is {getattr(schema, name)}"
    if (
        mine.feature_names is not None
        and schema.feature_names is not None
        and mine.feature_names != schema.feature_names
    ):
        return f"columns are {list(mine.feature_names)}, the majority's are {list(schema.feature_names)}"
    return None


def stack_estimates(
    messages: Sequence[Mapping[str, Any] | LocalEstimate],
    first: int,
    schema: Schema | None,
) -> Block:
    """Validate the estimates of a block, numbered from ``first``; refuse what does not fit, stack the rest."""
    family = None if schema is None else schema.family
    estimates = dict(enumerate((_read(m, family) for m in messages), start=first))
    refused = {
        i: reason for i, e in estimates.items() if (reason := _refusal(e, schema)) is not None
    }
    usable = {
        i: e for i, e in estimates.items() if i not in refused and isinstance(e, LocalEstimate)
    }
    if not usable or schema is None:
        return Block(None, np.empty((0, 0)), Summary(len(messages), [], [], np.empty(0), refused))
    stack = stack_mixtures(
        [_in_canonical_order(e.mixture) for e in usable.values() if e.mixture is not None]
    )
    parameters = np.hstack([stack.weights] + [p.reshape(len(usable), -1) for p in stack.components])
    log_self = l2.log_self_products(schema.family, stack)
    return Block(
        stack,
        parameters,
        Summary(
            len(messages), list(usable), [e.n_samples for e in usable.values()], log_self, refused
        ),
    )


def _in_canonical_order(mixture: Mixture) -> Mixture:
    """No result may depend on how a machine happened to order its components."""
    order = canonical_order(mixture.family, mixture.weights, mixture.components)
    return mixture if (np.diff(order) > 0).all() else mixture.reordered(order)


def summary_of(block: Block) -> Summary:
    """The small part of a block."""
    return block.summary


def admit(
    summaries: Sequence[Summary],
    schema: Schema | None,
    options: AggregationOptions,
    report: Sequence[list[dict[str, Any]]] = (),
) -> Participants:
    """Who takes part, and the common unit of distances.

    ``report`` is what the machines said of themselves, block by block; an error carries it.

    Raises
    ------
    AggregationError
        If nobody does.
    """
    refused = {i: reason for p in summaries for i, reason in p.refused.items()}
    n_estimates = sum(p.n_estimates for p in summaries)
    indices = [i for p in summaries for i in p.indices]
    if schema is None or not indices:
        examples = "; ".join(f"{i}: {reason}" for i, reason in list(refused.items())[:3])
        raise AggregationError(
            f"none of the {n_estimates} local estimates is usable, so there is nothing to aggregate ({examples}"
            f"{'; ...' if len(refused) > 3 else ''}).",
            refused,
            [row for block in report for row in block],
        )
    log_self = np.concatenate([p.log_self for p in summaries])
    claimed = np.array([n for p in summaries for n in p.n_samples], dtype=np.float64)
    most_rows = row_cap(claimed)
    n_samples = np.minimum(claimed, most_rows)
    return Participants(
        schema,
        n_estimates,
        np.array(indices),
        n_samples,
        float(np.median(log_self)),
        refused,
        # Equal sizes: the factor is the same for all pairs, and without it the bits are the paper's.
        options.is_calibrated and bool(np.ptp(n_samples) > 0),
        most_rows=most_rows,
        capped=tuple(i for i, n in zip(indices, claimed, strict=True) if n > most_rows),
    )


def row_cap(n_samples: Array) -> float:
    """Most rows that a machine can count for, by the rows that usable machines claim."""
    return MOST_ROWS * float(np.sort(n_samples)[(len(n_samples) - 1) // 2])


def rows_of(block: Block, participants: Participants) -> Array:
    """Rows that the machines of a block count for."""
    return np.minimum(np.array(block.summary.n_samples, dtype=np.float64), participants.most_rows)


# -- who is in the middle, who is kept ---------------------------------------------------


def l2_tile(a: Block, b: Block, participants: Participants) -> Array:
    """Distances between the machines of two blocks, in the unit of the participants."""
    mine, theirs = a.summary, b.summary
    if a.stack is None or b.stack is None:
        return np.zeros((len(mine.indices), len(theirs.indices)))
    tile = l2.l2_tile(
        participants.schema.family,
        a.stack,
        b.stack,
        mine.log_self,
        theirs.log_self,
        participants.log_scale,
    )
    if participants.by_precision:
        tile /= pair_errors(rows_of(a, participants), rows_of(b, participants))
    return l2.symmetric_tile(tile) if mine.indices == theirs.indices else tile


def pair_errors(mine: Array, theirs: Array) -> Array:
    """In these units the distances of honest machines are alike, whatever their numbers of rows."""
    squares: Array = np.add.outer(1.0 / mine, 1.0 / theirs)
    return np.sqrt(squares)


def panel(i: int, tiles: Sequence[Array]) -> Array:
    """Rows of the distance matrix: the upper tiles that touch block i, transposed before the diagonal."""
    return np.hstack([tile.T if j < i else tile for j, tile in enumerate(tiles)])


class CenterCandidate(NamedTuple):
    """A candidate for the center, with its parameters: the reduction starts there.

    It is the best of ``n_candidates``.
    """

    candidate: Candidate
    weights: Array
    components: Components
    n_candidates: int


def coat_candidate(block: Block, distances: Array) -> CenterCandidate | None:
    """The best candidate for the center in a block; ``distances`` are its rows of the distance matrix."""
    if block.stack is None:
        return None
    summary = block.summary
    candidates = row_candidates(distances, summary.indices, summary.n_samples, block.parameters)
    best = best_candidate(candidates)
    place = summary.indices.index(best.machine)
    return CenterCandidate(best, *block.stack.one(place), len(candidates))


def coat_min(candidates: Sequence[CenterCandidate | None]) -> CenterCandidate:
    """The best of the candidates."""
    present = {c.candidate.machine: c for c in candidates if c is not None}
    best = present[best_candidate([c.candidate for c in present.values()]).machine]
    return best._replace(n_candidates=sum(c.n_candidates for c in present.values()))


# -- the same for many machines: not all pairs, see dask_dfmr.aggregation.references -----------------


def scouts_of(participants: Participants, seed: np.random.SeedSequence) -> list[int]:
    """Machines drawn at random."""
    rng = np.random.default_rng(stream(seed, SCOUT_DRAW))
    return [int(i) for i in participants.indices[draw_scouts(len(participants.indices), rng)]]


def references_of(
    scout: CenterCandidate,
    participants: Participants,
    n_references: int,
    seed: np.random.SeedSequence,
) -> list[int]:
    """Machines drawn in strata along the distance to the best scout; one may be drawn twice."""
    rng = np.random.default_rng(stream(seed, REFERENCE_DRAW))
    drawn = draw_references(scout.candidate.distances, n_references, rng)
    return [int(i) for i in participants.indices[drawn]]


def candidates_of(
    medians: Sequence[Array], scouts: Sequence[int], participants: Participants
) -> list[int]:
    """Machines of the smallest medians to the references; scouts, whose exact medians are known, are none."""
    excluded = np.searchsorted(participants.indices, scouts)
    return [int(i) for i in participants.indices[best_medians(np.concatenate(medians), excluded)]]


def take_estimates(block: Block, machines: Sequence[int]) -> Block:
    """Those of some machines that are in this block, as a block of their own; one named twice is there twice."""
    summary = block.summary
    place = {machine: i for i, machine in enumerate(summary.indices)}
    taken = [place[machine] for machine in machines if machine in place]
    if block.stack is None or not taken:
        return Block(None, np.empty((0, 0)), Summary(0, [], [], np.empty(0), {}))
    return Block(
        block.stack[np.array(taken)],
        block.parameters[taken],
        Summary(
            len(taken),
            [summary.indices[i] for i in taken],
            [summary.n_samples[i] for i in taken],
            summary.log_self[taken],
            {},
        ),
    )


def join_estimates(blocks: Sequence[Block]) -> Block:
    """Several blocks as one."""
    present = [(block, block.stack) for block in blocks if block.stack is not None]
    if not present:
        return blocks[0]
    summaries = [block.summary for block, _ in present]
    return Block(
        l2.concatenate([stack for _, stack in present]),
        np.concatenate([block.parameters for block, _ in present]),
        Summary(
            sum(p.n_estimates for p in summaries),
            [i for p in summaries for i in p.indices],
            [n for p in summaries for n in p.n_samples],
            np.concatenate([p.log_self for p in summaries]),
            {},
        ),
    )


def l2_rows(chosen: Block, block: Block, participants: Participants) -> Array:
    """Distances from the chosen machines to those of a block, (n_chosen, n_block)."""
    mine, theirs = chosen.summary, block.summary
    rows = np.zeros((len(mine.indices), len(theirs.indices)))
    if chosen.stack is None or block.stack is None:
        return rows
    for a in l2.tile_blocks(len(rows), l2.BLOCK_SIZE):
        for b in l2.tile_blocks(rows.shape[1], l2.BLOCK_SIZE):
            rows[a, b] = l2.l2_tile(
                participants.schema.family,
                chosen.stack[a],
                block.stack[b],
                mine.log_self[a],
                theirs.log_self[b],
                participants.log_scale,
            )
    if participants.by_precision:
        rows /= pair_errors(rows_of(chosen, participants), rows_of(block, participants))
    rows[np.equal.outer(mine.indices, theirs.indices)] = 0.0
    return rows


def reference_medians(references: Block, block: Block, participants: Participants) -> Array:
    """Median distance of each machine of a block to the references."""
    rows = l2_rows(references, block, participants)
    with np.errstate(invalid="ignore"):
        return np.median(rows, axis=0)


def coat_among(chosen: Block, rows: Sequence[Array]) -> CenterCandidate | None:
    """The best of the chosen machines; ``rows`` are their distances to all machines, block by block."""
    return coat_candidate(chosen, np.hstack(rows))


class Verdict(NamedTuple):
    """The decision, and what the reduction needs of it.

    ``machine_weights`` (n_estimates,) sum to 1 over the kept; ``starts`` are the estimates where
    reductions start. ``near`` are those near the center, of the usable ones.
    """

    schema: Schema
    decision: FilterDecision
    machine_weights: Array
    starts: list[int]
    notes: tuple[Note, ...]
    near: NDArray[np.bool_]


def l2_filter(
    center: CenterCandidate, participants: Participants, options: AggregationOptions
) -> Verdict:
    """Radius round the center, kept machines and their weights."""
    errors = 1.0
    if participants.by_precision:
        of_center = np.minimum(center.candidate.n_samples * np.ones(1), participants.most_rows)
        errors = pair_errors(of_center, participants.n_samples)[0]
    near = keep_near(center.candidate, options.effective_rho)
    # Measured in plain distances, whatever the unit in which nearness was judged.
    plain = keep_near(_with_distances(center.candidate, center.candidate.distances * errors), 1.0)
    kept_usable = (
        near.kept if options.method != "coat" else participants.indices == center.candidate.machine
    )
    decision = FilterDecision(
        center=center.candidate.machine,
        radius=float(l2.in_l2_units(np.array(plain.radius), participants.log_scale)),
        rho="auto" if options.is_calibrated else options.effective_rho,
        distances=spread(
            l2.in_l2_units(center.candidate.distances * errors, participants.log_scale),
            participants,
            np.nan,
        ),
        distance_ratios=spread(plain.distance_ratios, participants, np.nan),
        kept=spread(kept_usable, participants, False),
        refused=participants.refused,
        false_exclusion_rate=options.false_exclusion_rate,
        n_candidates=center.n_candidates,
        n_references=_n_references(participants, options),
    )
    return verdict_on(decision, participants, options, keep_near(center.candidate, PAPER_RHO).kept)


def _with_distances(candidate: Candidate, distances: Array) -> Candidate:
    half = np.partition(distances, len(distances) // 2)[len(distances) // 2]
    return candidate._replace(distances=distances, half_distance=float(half))


def verdict_on(
    decision: FilterDecision,
    participants: Participants,
    options: AggregationOptions,
    near: NDArray[np.bool_],
) -> Verdict:
    """What the reduction needs of a decision."""
    n_samples = spread(participants.n_samples, participants, 0.0)
    share = np.where(decision.kept, n_samples if options.machine_weights == "rows" else 1.0, 0.0)
    share /= share.sum()
    nearest = np.argsort(np.where(decision.kept, decision.distance_ratios, np.inf), kind="stable")[
        : decision.kept.sum()
    ]
    first = _first_start(decision, participants, near)
    starts = [int(i) for i in nearest if i != first]
    starts = [first, *starts] if decision.kept[first] else starts
    return Verdict(
        participants.schema,
        decision,
        share,
        starts[: options.n_starts],
        tuple(_notes(decision, participants, options)),
        near,
    )


def _first_start(
    decision: FilterDecision, participants: Participants, near: NDArray[np.bool_]
) -> int:
    """The center, or where that is a small machine, which may know little of the others, the largest one near it."""
    n_samples = np.where(near & decision.kept[participants.indices], participants.n_samples, 0.0)
    of_center = participants.n_samples[participants.indices == decision.center].max()
    if participants.by_precision and SMALL_CENTER * of_center < n_samples.max():
        return int(participants.indices[n_samples.argmax()])
    return decision.center


def _n_references(participants: Participants, options: AggregationOptions) -> int | None:
    n_references = options.references_among(participants.n_estimates - len(participants.removed))
    return None if n_references is None else min(n_references, len(participants.indices))


def spread(values: Any, participants: Participants, fill: Any) -> Any:
    """Values of the usable estimates at their places among all."""
    values = np.asarray(values)
    full = np.full(participants.n_estimates, fill, dtype=values.dtype)
    full[participants.indices] = values
    return full


def _notes(
    decision: FilterDecision, participants: Participants, options: AggregationOptions
) -> list[Note]:
    notes = []
    n_samples = spread(participants.n_samples, participants, 0.0)
    n_usable = decision.n_estimates - len(decision.refused)
    n_given = decision.n_estimates - len(participants.removed)
    if 2 * n_usable < n_given:
        text = (
            f"only {n_usable} of {n_given} local estimates are usable: "
            "the majority that is trusted is a majority of those"
        )
        notes.append(
            Note(
                PartitionWarning,
                f"{text}. See the reasons in decision.refused or partition_report_.",
            )
        )
    if options.method != "mr" and n_usable in (2, 3):
        text = (
            "two estimates cannot outvote each other: nothing is filtered"
            if n_usable == 2
            else "of three estimates one bad one is survived"
        )
        notes.append(
            Note(FilterWarning, f"{n_usable} usable estimates: {text}. Use more partitions.")
        )
    capped = [i for i in participants.capped if decision.kept[i]]
    if capped and options.machine_weights == "rows":
        text = (
            f"estimates {listed(capped)} claim more than {MOST_ROWS:g} times the rows of the median one and count for "
            f"{participants.most_rows:.0f} each"
        )
        notes.append(
            Note(FilterWarning, f"{text}. If the claims are true, make the partitions more even.")
        )
    shares = np.where(decision.kept, n_samples, 0.0) / n_samples[decision.kept].sum()
    heaviest = int(shares.argmax())
    # With a handful of machines everyone's share is large: then only one that outweighs two average
    # ones is news.
    if (
        options.machine_weights == "rows"
        and options.method != "coat"
        and shares[heaviest] > max(DOMINANT_SHARE, 2 / decision.kept.sum())
    ):
        text = (
            f"estimate {heaviest} holds {shares[heaviest]:.0%} of the kept rows, "
            "so that much of the result is its alone"
        )
        notes.append(
            Note(FilterWarning, f"{text}; use machine_weights='equal' or more even partitions.")
        )
    return notes


def listed(indices: Sequence[int], most: int = 10) -> str:
    """Some of them, and that there are more."""
    return ", ".join(map(str, indices[:most])) + (", ..." if len(indices) > most else "")


# -- reduction ---------------------------------------------------------------------------


def offer_start(block: Block, verdict: Verdict, s: int) -> Centers | None:
    """The start number ``s`` of the reduction, if it is in this block."""
    if (
        s >= len(verdict.starts)
        or verdict.starts[s] not in block.summary.indices
        or block.stack is None
    ):
        return None
    return Centers(*block.stack.one(block.summary.indices.index(verdict.starts[s])))


def pick_start(offers: Sequence[Centers | None]) -> Centers | None:
    """The offer of the block that has it; None where there are fewer kept estimates than starts asked for."""
    return next((offer for offer in offers if offer is not None), None)


def assign_block(
    block: Block, verdict: Verdict, centers: Centers | None, previous: Assignment | None
) -> Assignment | None:
    """One round's assignment of the kept components of a block; None where nothing of it is kept."""
    pooled = _pool_kept([block], verdict)
    return (
        None
        if centers is None or pooled is None
        else assign(verdict.schema.family, *pooled, centers, previous)
    )


def recenter_round(
    verdict: Verdict, centers: Centers | None, total: Assignment | None
) -> Centers | None:
    """One round's new centers."""
    return (
        None
        if centers is None or total is None
        else recenter(verdict.schema.family, centers, total)
    )


def reduce_blocks(
    blocks: Sequence[Block], verdict: Verdict, start: Centers | None, options: AggregationOptions
) -> Centers | None:
    """All rounds in memory."""
    pooled = _pool_kept(blocks, verdict)
    if start is None or pooled is None or options.method == "coat":
        return start
    return reduce_pooled(verdict.schema.family, *pooled, start, options.max_rounds)


def _pool_kept(blocks: Sequence[Block], verdict: Verdict) -> tuple[Array, Components] | None:
    """Weights and parameters of all kept components of some blocks."""
    return pool(
        [
            (block.stack, verdict.machine_weights[block.summary.indices])
            for block in blocks
            if block.stack is not None
        ]
    )


def pool(parts: Sequence[tuple[Stack, Array]]) -> tuple[Array, Components] | None:
    """Weights and parameters of all components of the machines with a share; None where there is none."""
    weights, components = [], []
    for stack, shares in parts:
        if not (shares > 0).any():
            continue
        kept = stack[shares > 0]
        weights.append((shares[shares > 0, None] * kept.weights).ravel())
        components.append(kept.pooled())
    if not weights:
        return None
    return np.concatenate(weights), tuple(
        np.concatenate(parameters) for parameters in zip(*components, strict=True)
    )


def finish(
    reduced: Sequence[Centers | None],
    verdict: Verdict,
    options: AggregationOptions,
) -> Aggregate:
    """The best reduction as the result."""
    best = min((c for c in reduced if c is not None), key=lambda c: c.objective)
    converged, objective = (
        (True, 0.0) if options.method == "coat" else (best.converged, best.objective)
    )
    notes = list(verdict.notes)
    if not converged:
        notes.append(
            Note(
                ConvergenceWarning,
                f"the mixture reduction did not settle in {best.n_iter} rounds; raise max_rounds.",
            )
        )
    schema = verdict.schema
    ordered = in_canonical_order(schema.family, best)
    mixture = schema.family.mixture(ordered.weights, ordered.components, schema.feature_names)
    return Aggregate(
        mixture, verdict.decision, objective, best.n_iter, converged, options.method, tuple(notes)
    )


# -- component by component, see dask_dfmr.aggregation.componentwise ---------------------------------

FEWEST_JUDGES = 4
"""A component that fewer estimates judge is worth a warning: of three, one bad one is survived."""


def componentwise(
    blocks: Sequence[Block],
    participants: Participants,
    options: AggregationOptions,
    seed: np.random.SeedSequence,
) -> Aggregate:
    """Filter and reduction of all machines with the mixing weights profiled out."""
    block, schema = join_estimates(blocks), participants.schema
    assert block.stack is not None  # the participants has somebody
    found = filter_components(
        as_machines(schema.family, block.stack, participants.n_samples, block.parameters),
        options.effective_rho,
        participants.n_samples
        if options.machine_weights == "rows"
        else np.ones_like(participants.n_samples),
        options.references_among(participants.n_estimates - len(participants.removed)),
        np.random.default_rng(stream(seed, COMPONENT_DRAW)),
        options.false_exclusion_rate,
    )
    decision = _component_decision(found, participants, options)
    notes = _notes(decision, participants, options)
    mixture = schema.family.mixture(found.weights, found.components, schema.feature_names)
    return Aggregate(
        mixture,
        decision,
        found.objective,
        found.n_matchings,
        found.settled,
        options.method,
        (*notes, *_notes_on_judges(found)),
    )


def _component_decision(
    found: ComponentwiseResult, participants: Participants, options: AggregationOptions
) -> FilterDecision:
    with np.errstate(invalid="ignore"):
        ratios = found.distances / found.radii
    judged = ~np.isnan(ratios)
    worst = np.where(judged, ratios, -np.inf).argmax(axis=1)
    machine = np.arange(len(worst))
    n_candidates = options.references_among(participants.n_estimates - len(participants.removed))
    n_usable = len(participants.indices)
    components = ComponentDecision(
        kept=_spread_rows(found.kept, participants, False),
        matching=_spread_rows(found.matching, participants, -1),
        n_rows=_spread_rows(found.rows, participants, 0.0),
        distance_ratios=_spread_rows(ratios, participants, np.nan),
        radii=found.radii,
        limits=found.limits / found.radii,
        centers=participants.indices[found.centers],
        least_rows=found.least_rows,
    )
    return FilterDecision(
        center=int(components.centers[0]),
        radius=float(found.radii.max()),
        rho="auto" if options.is_calibrated else options.effective_rho,
        distances=spread(found.distances[machine, worst], participants, np.nan),
        distance_ratios=spread(ratios[machine, worst], participants, np.nan),
        kept=np.asarray(components.kept.any(axis=1)),
        refused=participants.refused,
        false_exclusion_rate=options.false_exclusion_rate,
        n_candidates=n_usable if n_candidates is None else min(n_candidates, n_usable),
        components=components,
    )


def _spread_rows(values: Any, participants: Participants, fill: Any) -> Any:
    """The same for arrays with a row per usable estimate."""
    return np.column_stack([spread(column, participants, fill) for column in values.T])


def _notes_on_judges(found: ComponentwiseResult) -> list[Note]:
    """Components of which too few estimates have enough rows, and a matching that does not settle."""
    judged = ~np.isnan(found.distances) & (found.rows >= found.least_rows)
    few = [int(k) for k in np.flatnonzero(judged.sum(axis=0) < min(FEWEST_JUDGES, len(judged)))]
    notes = [
        Note(
            FilterWarning,
            f"component {k}: {judged[:, k].sum()} of {len(judged)} estimates have the {found.least_rows} rows of it "
            "that judging takes, too few to outvote a bad one. Use larger partitions or fewer components.",
        )
        for k in few
    ]
    lost = found.rows[judged & ~found.kept].sum() / found.rows.sum()
    if lost > MUCH:
        text = f"the rows behind {lost:.0%} of the components' weight are left out: more than proportions differ"
        notes.append(
            Note(
                HeterogeneityWarning,
                f"{text}. See kept_components and components_kept in the report.",
            )
        )
    if not found.settled:
        text = f"which component is which did not settle in {found.n_matchings} rounds"
        notes.append(
            Note(ConvergenceWarning, f"{text}; components overlap much: use fewer of them.")
        )
    return notes
