"""Local estimates -> one global mixture: the method in named stages, and ``aggregate``, which runs them in memory.

The stages take and return arrays and know no Dask. ``aggregate`` calls them in a loop over blocks
of machines, and :mod:`dask_dfmr.graph` hangs the same functions into a graph:

    stack_estimates -> call_roll -> l2_tile -> coat_candidate -> coat_min -> l2_filter -> reduction
    rounds -> finish
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr import checks
from dask_dfmr import distances as l2
from dask_dfmr.distances import Stack, stack_mixtures, tile_blocks
from dask_dfmr.estimates import LocalEstimate
from dask_dfmr.exceptions import AggregationError, FilterWarning, PartitionWarning
from dask_dfmr.families import Array, Components, Family, canonical_order
from dask_dfmr.filtering import Candidate, best_candidate, keep_near, row_candidates
from dask_dfmr.mixture import Mixture
from dask_dfmr.reduction import (
    MAX_ROUNDS,
    Assignment,
    Centers,
    assign,
    in_canonical_order,
    recentre,
    reduce_pooled,
)

METHODS = ("dfmr", "mr", "coat")
MACHINE_WEIGHTS = ("rows", "equal")
DOMINANT_SHARE = 0.2
"""A machine with a larger share of the kept rows is worth a warning: the promise is about shares of rows."""


# -- values --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class FilterDecision:
    """Who was kept, and why the others were not.

    Attributes
    ----------
    center : int
        Index of the estimate in the middle (COAT).
    radius : float
        L2 distance from the centre within which more than half of the usable estimates lie.
    rho : float
        Estimates within ``rho * radius`` are kept.
    distances : ndarray of shape (n_estimates,)
        L2 distance of each estimate to the centre; NaN for a refused one. In many columns or small
        units the numbers may leave the range of floating point (0 or inf); ``distance_ratios``
        never depend on the unit.
    distance_ratios : ndarray of shape (n_estimates,)
        Distances in units of the radius; NaN for a refused one.
    kept : ndarray of bool, shape (n_estimates,)
        Estimates that went into the global mixture.
    refused : dict of int to str
        Estimates that took no part, with the reason.
    """

    center: int
    radius: float
    rho: float
    distances: Array
    distance_ratios: Array
    kept: NDArray[np.bool_]
    refused: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.kept)
        if not (self.distances.shape == self.distance_ratios.shape == self.kept.shape == (n,)):
            raise ValueError(
                f"distances, distance_ratios and kept must have one entry per estimate; got {self.distances.shape}, "
                f"{self.distance_ratios.shape} and {self.kept.shape}."
            )
        if not (0 <= self.center < n and self.kept[self.center]):
            raise ValueError(
                f"center must be the index of a kept estimate, 0 to {n - 1}; got {self.center}."
            )
        for array in (self.distances, self.distance_ratios, self.kept):
            array.setflags(write=False)

    @property
    def n_estimates(self) -> int:
        """Number of estimates judged or refused."""
        return len(self.kept)

    def reason(self, index: int) -> str:
        """Why this estimate was left out, in words; empty if it was kept."""
        if self.kept[index]:
            return ""
        if index in self.refused:
            return self.refused[index]
        ratio = self.distance_ratios[index]
        if np.isfinite(self.rho) and ratio > self.rho:
            return f"distance to the centre is {ratio:.3g} times the radius (rho = {self.rho:g})"
        return "only the centre itself is kept (method 'coat')"

    def __repr__(self) -> str:
        return (
            f"FilterDecision(kept {self.kept.sum()} of {self.n_estimates}, "
            f"refused {len(self.refused)}, center={self.center}, "
            f"radius={self.radius:.6g}, rho={self.rho:g})"
        )


class Note(NamedTuple):
    """Something the user should be warned of, as a value: in a graph, warnings would be lost on the workers."""

    category: type[Warning]
    message: str


@dataclass(frozen=True, eq=False, repr=False)
class Aggregate:
    """The global mixture and how it came about.

    Attributes
    ----------
    mixture : Mixture
        Components by decreasing weight.
    decision : FilterDecision
    objective : float
        Composite transportation divergence of the reduction, in nats (0 for ``method="coat"``).
    n_iter : int
        Rounds of the reduction.
    converged : bool
        Whether no assignment changed in the last round.
    method : str
    notes : tuple of Note
        What was worth a warning.
    """

    mixture: Mixture
    decision: FilterDecision
    objective: float
    n_iter: int
    converged: bool
    method: str = "dfmr"
    notes: tuple[Note, ...] = ()

    def __repr__(self) -> str:
        how = (
            f"method={self.method!r}, objective={self.objective:.6g}, "
            f"n_iter={self.n_iter}, converged={self.converged}"
        )
        return f"Aggregate({self.mixture!r}, {self.decision!r}, {how})"

    def warn(self, stacklevel: int = 2) -> None:
        """Issue the notes as warnings."""
        for note in self.notes:
            warnings.warn(note.message, note.category, stacklevel=stacklevel + 1)


@dataclass(frozen=True)
class AggregationOptions:
    """What the user can choose about an aggregation; checked on construction."""

    method: str = "dfmr"
    rho: float = 1.3
    machine_weights: str = "rows"
    n_starts: int = 1
    max_rounds: int = MAX_ROUNDS

    def __post_init__(self) -> None:
        checks.one_of("method", self.method, METHODS)
        checks.one_of("machine_weights", self.machine_weights, MACHINE_WEIGHTS)
        checks.integer("n_starts", self.n_starts, 1)
        checks.integer("max_rounds", self.max_rounds, 1)
        is_number = isinstance(self.rho, (int, float, np.number)) and not isinstance(self.rho, bool)
        if not is_number or not self.rho >= 1:
            raise ValueError(
                f"rho must be a number of at least 1 (1.3 by default, inf keeps all); got {self.rho!r}."
            )

    @property
    def effective_rho(self) -> float:
        """Plain mixture reduction is the filter that keeps all."""
        return float("inf") if self.method == "mr" else float(self.rho)


# -- the method in memory ------------------------------------------------------------------------


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
    schema = agree_on_schema([describe_estimates(messages, mixture_type)])
    blocks = [
        stack_estimates(messages[s], s.start, schema, mixture_type)
        for s in tile_blocks(len(messages))
    ]
    roll = call_roll([block.presence for block in blocks], schema)
    tiles = {(i, j): l2_tile(blocks[i], blocks[j], roll) for i, j in l2.upper_tiles(len(blocks))}
    panels = [
        panel(i, [tiles[min(i, j), max(i, j)] for j in range(len(blocks))])
        for i in range(len(blocks))
    ]
    center = coat_min(
        [coat_candidate(block, row) for block, row in zip(blocks, panels, strict=True)]
    )
    verdict = l2_filter(center, roll, options)
    starts = [
        pick_start([offer_start(block, verdict, s) for block in blocks])
        for s in range(options.n_starts)
    ]
    reduced = [reduce_blocks(blocks, verdict, start, options) for start in starts]
    return finish(reduced, verdict, options, mixture_type)


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


# -- stages: who is there ------------------------------------------------------------------------


class Schema(NamedTuple):
    """What an estimate must be to take part: that of the majority."""

    family: Family
    n_components: int
    n_features: int
    feature_names: tuple[str, ...] | None


class Presence(NamedTuple):
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
    presence: Presence


class Roll(NamedTuple):
    """Who is there of all machines: index among all, rows, the unit of distances, who was refused and why."""

    schema: Schema
    n_estimates: int
    indices: NDArray[np.intp]
    n_samples: NDArray[np.float64]
    log_scale: float
    refused: dict[int, str]


def describe_estimates(
    messages: Sequence[Mapping[str, Any]], mixture_type: type[Mixture] = Mixture
) -> Counter[Schema]:
    """How many estimates of each schema there are."""
    return Counter(
        _schema_of(e)
        for e in (_read(m, mixture_type) for m in messages)
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


def _read(message: Mapping[str, Any], mixture_type: type[Mixture]) -> LocalEstimate | str:
    try:
        return LocalEstimate.from_arrays(message, mixture_type)
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
    messages: Sequence[Mapping[str, Any]],
    first: int,
    schema: Schema | None,
    mixture_type: type[Mixture],
) -> Block:
    """Validate the estimates of a block, numbered from ``first``; refuse what does not fit, stack the rest."""
    estimates = dict(enumerate((_read(m, mixture_type) for m in messages), start=first))
    refused = {
        i: reason for i, e in estimates.items() if (reason := _refusal(e, schema)) is not None
    }
    usable = {
        i: e for i, e in estimates.items() if i not in refused and isinstance(e, LocalEstimate)
    }
    if not usable or schema is None:
        return Block(None, np.empty((0, 0)), Presence(len(messages), [], [], np.empty(0), refused))
    stack = stack_mixtures(
        [_in_canonical_order(e.mixture) for e in usable.values() if e.mixture is not None]
    )
    parameters = np.hstack([stack.weights] + [p.reshape(len(usable), -1) for p in stack.components])
    log_self = l2.log_self_products(schema.family, stack)
    return Block(
        stack,
        parameters,
        Presence(
            len(messages), list(usable), [e.n_samples for e in usable.values()], log_self, refused
        ),
    )


def _in_canonical_order(mixture: Mixture) -> Mixture:
    """No result may depend on how a machine happened to order its components."""
    return mixture.reordered(canonical_order(mixture.family, mixture.weights, mixture.components))


def presence_of(block: Block) -> Presence:
    """The small part of a block."""
    return block.presence


def call_roll(
    presences: Sequence[Presence],
    schema: Schema | None,
    report: Sequence[list[dict[str, Any]]] = (),
) -> Roll:
    """Who takes part, and the common unit of distances.

    ``report`` is what the machines said of themselves, block by block; an error carries it.

    Raises
    ------
    AggregationError
        If nobody does.
    """
    refused = {i: reason for p in presences for i, reason in p.refused.items()}
    n_estimates = sum(p.n_estimates for p in presences)
    indices = [i for p in presences for i in p.indices]
    if schema is None or not indices:
        examples = "; ".join(f"{i}: {reason}" for i, reason in list(refused.items())[:3])
        raise AggregationError(
            f"none of the {n_estimates} local estimates is usable, so there is nothing to aggregate ({examples}"
            f"{'; ...' if len(refused) > 3 else ''}).",
            refused,
            [row for block in report for row in block],
        )
    log_self = np.concatenate([p.log_self for p in presences])
    n_samples = np.array([n for p in presences for n in p.n_samples], dtype=np.float64)
    return Roll(
        schema, n_estimates, np.array(indices), n_samples, float(np.median(log_self)), refused
    )


# -- stages: who is in the middle, who is kept ---------------------------------------------------


def l2_tile(a: Block, b: Block, roll: Roll) -> Array:
    """Distances between the machines of two blocks, in the unit of the roll."""
    mine, theirs = a.presence, b.presence
    if a.stack is None or b.stack is None:
        return np.zeros((len(mine.indices), len(theirs.indices)))
    tile = l2.l2_tile(
        roll.schema.family, a.stack, b.stack, mine.log_self, theirs.log_self, roll.log_scale
    )
    return l2.symmetric_tile(tile) if mine.indices == theirs.indices else tile


def panel(i: int, tiles: Sequence[Array]) -> Array:
    """Rows of the distance matrix: the upper tiles that touch block i, transposed before the diagonal."""
    return np.hstack([tile.T if j < i else tile for j, tile in enumerate(tiles)])


class CenterCandidate(NamedTuple):
    """A candidate for the centre, with its parameters: the reduction starts there."""

    candidate: Candidate
    weights: Array
    components: Components


def coat_candidate(block: Block, distances: Array) -> CenterCandidate | None:
    """The best candidate for the centre in a block; ``distances`` are its rows of the distance matrix."""
    if block.stack is None:
        return None
    presence = block.presence
    best = best_candidate(
        row_candidates(distances, presence.indices, presence.n_samples, block.parameters)
    )
    return CenterCandidate(best, *block.stack.one(presence.indices.index(best.machine)))


def coat_min(candidates: Sequence[CenterCandidate | None]) -> CenterCandidate:
    """The best of the candidates."""
    present = {c.candidate.machine: c for c in candidates if c is not None}
    return present[best_candidate([c.candidate for c in present.values()]).machine]


class Verdict(NamedTuple):
    """The decision, and what the reduction needs of it.

    ``machine_weights`` (n_estimates,) sum to 1 over the kept; ``starts`` are the estimates where
    reductions start.
    """

    schema: Schema
    decision: FilterDecision
    machine_weights: Array
    starts: list[int]
    notes: tuple[Note, ...]


def l2_filter(center: CenterCandidate, roll: Roll, options: AggregationOptions) -> Verdict:
    """Radius round the centre, kept machines and their weights."""
    near = keep_near(center.candidate, options.effective_rho)
    kept_usable = (
        near.kept if options.method != "coat" else roll.indices == center.candidate.machine
    )
    decision = FilterDecision(
        center=center.candidate.machine,
        radius=float(l2.in_l2_units(np.array(near.radius), roll.log_scale)),
        rho=options.effective_rho,
        distances=_spread(l2.in_l2_units(center.candidate.distances, roll.log_scale), roll, np.nan),
        distance_ratios=_spread(near.distance_ratios, roll, np.nan),
        kept=_spread(kept_usable, roll, False),
        refused=roll.refused,
    )
    n_samples = _spread(roll.n_samples, roll, 0.0)
    share = np.where(decision.kept, n_samples if options.machine_weights == "rows" else 1.0, 0.0)
    share /= share.sum()
    nearest = np.argsort(np.where(decision.kept, decision.distance_ratios, np.inf), kind="stable")[
        : decision.kept.sum()
    ]
    starts = [decision.center, *(int(i) for i in nearest if i != decision.center)]
    return Verdict(
        roll.schema,
        decision,
        share,
        starts[: options.n_starts],
        tuple(_notes(decision, n_samples, options)),
    )


def _spread(values: Any, roll: Roll, fill: Any) -> Any:
    """Values of the usable estimates at their places among all."""
    values = np.asarray(values)
    full = np.full(roll.n_estimates, fill, dtype=values.dtype)
    full[roll.indices] = values
    return full


def _notes(decision: FilterDecision, n_samples: Array, options: AggregationOptions) -> list[Note]:
    notes = []
    n_usable = decision.n_estimates - len(decision.refused)
    if 2 * n_usable < decision.n_estimates:
        text = (
            f"only {n_usable} of {decision.n_estimates} local estimates are usable: "
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


# -- stages: reduction ---------------------------------------------------------------------------


def offer_start(block: Block, verdict: Verdict, s: int) -> Centers | None:
    """The start number ``s`` of the reduction, if it is in this block."""
    if (
        s >= len(verdict.starts)
        or verdict.starts[s] not in block.presence.indices
        or block.stack is None
    ):
        return None
    return Centers(*block.stack.one(block.presence.indices.index(verdict.starts[s])))


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


def recentre_round(
    verdict: Verdict, centers: Centers | None, total: Assignment | None
) -> Centers | None:
    """One round's new centres."""
    return (
        None
        if centers is None or total is None
        else recentre(verdict.schema.family, centers, total)
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
    weights, components = [], []
    for block in blocks:
        shares = verdict.machine_weights[block.presence.indices]
        if block.stack is None or not (shares > 0).any():
            continue
        kept = block.stack[shares > 0]
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
    mixture_type: type[Mixture],
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
    mixture = mixture_type.from_components(
        schema.family, ordered.weights, ordered.components, schema.feature_names
    )
    return Aggregate(
        mixture, verdict.decision, objective, best.n_iter, converged, options.method, tuple(notes)
    )
