"""Messages of estimates -> blocks of arrays, and the participants: which estimates are usable, and in which unit.

    describe_estimates -> agree_on_schema -> stack_estimates -> summary_of -> admit

Later stages take single estimates out of the blocks with :func:`take_estimates` and :func:`join_estimates`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.reasons import (
    Malformed,
    NoEstimate,
    OtherColumns,
    OtherSchema,
    Reason,
    in_short,
)
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.local.estimate import FROM_OTHERS, LocalEstimate, Outcome
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.distances import Stack, stack_mixtures
from dask_dfmr.mixtures.family import Array, Family, canonical_order
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, RowCut

MOST_ROWS = 10.0
"""An estimate counts for at most so many times the rows of the median estimate. Row counts are claims: the median is
that of a consistent majority, but without a limit a single claim could determine the whole result."""


CHANCE_OUTSIDE = 3.0
"""Standard deviations of the number of rows outside that chance explains. So estimates from equally many rows count for
equally many unless some of these are bad."""

LEAST_SHARE_OF_MEDIAN = 0.5
"""An estimate counts for at least this share of the rows of the median estimate where L2 distances are compared."""


class Schema(NamedTuple):
    """Family and shape that an estimate must have to take part: those of the majority."""

    family: Family
    n_components: int
    n_features: int
    feature_names: tuple[str, ...] | None


class Summary(NamedTuple):
    """The small values of a block.

    Attributes
    ----------
    n_estimates : int
        Estimates in the block, refused ones included.
    indices : list of int
        Indices of the usable estimates among all estimates.
    n_samples : list of int
        Rows behind each usable estimate, by its claims: see :func:`rows_behind`.
    log_self : ndarray of shape (n_usable,)
        Log <f, f> of each usable estimate.
    refused : dict of int to Reason
        Indices of the refused estimates, with the reasons.
    one_step : tuple of int
        Indices of the usable estimates that are one step from a global mixture.
    """

    n_estimates: int
    indices: list[int]
    n_samples: list[int]
    log_self: Array
    refused: dict[int, Reason]
    one_step: tuple[int, ...] = ()


class Block(NamedTuple):
    """The usable estimates of a block as arrays.

    Attributes
    ----------
    stack : Stack or None
        None if no estimate of the block is usable.
    parameters : ndarray of shape (n_usable, n_parameters)
        All parameters of each estimate in one row.
    summary : Summary
    """

    stack: Stack | None
    parameters: Array
    summary: Summary


class Participants(NamedTuple):
    """The usable estimates of all blocks, and the unit of their distances.

    Attributes
    ----------
    schema : Schema
    n_estimates : int
        All estimates, refused ones included.
    indices : ndarray of int, shape (n_usable,)
        Indices of the usable estimates among all.
    n_samples : ndarray of shape (n_usable,)
        Rows that each counts for: at most ``most_rows``.
    log_scale : float
        Median of log <f, f>. Distances are in units of exp(log_scale / 2).
    refused : dict of int to Reason
    by_precision : bool
        Whether distances are divided by :meth:`l2_errors`. Estimates from different numbers of rows need that.
    removed : frozenset of int
        Refused estimates that the caller removed; no warning counts them.
    most_rows : float
    capped : tuple of int
        Indices of estimates that claim more than ``most_rows`` rows.
    gained : frozenset of int
        Indices of estimates that are kept whatever the distance of their fits, because the rows behind them decide.
    one_step : frozenset of int
        Indices of estimates in the place of fits that are no fits, but one EM step from a global mixture.
    """

    schema: Schema
    n_estimates: int
    indices: NDArray[np.intp]
    n_samples: NDArray[np.float64]
    log_scale: float
    refused: dict[int, Reason]
    by_precision: bool = False
    removed: frozenset[int] = frozenset()
    most_rows: float = np.inf
    capped: tuple[int, ...] = ()
    gained: frozenset[int] = frozenset()
    one_step: frozenset[int] = frozenset()

    @property
    def is_gained(self) -> NDArray[np.bool_]:
        """Which usable estimates are gained, (n_usable,)."""
        return np.isin(self.indices, sorted(self.gained))

    def l2_errors(self, rows_a: Array, rows_b: Array) -> Array:
        """The unit of L2 distances between estimates from so many rows, (n_a, n_b), if sizes differ.

        L2 distances are bounded: far away, an estimate from few rows has small distances in units of its own error,
        and would seem near to all. So no estimate counts for less than half the rows of the median one.
        """
        least = LEAST_SHARE_OF_MEDIAN * self.most_rows / MOST_ROWS
        return pair_errors(np.maximum(rows_a, least), np.maximum(rows_b, least))


# -- the schema ------------------------------------------------------------------------------------


def describe_estimates(
    messages: Sequence[Mapping[str, Any] | LocalEstimate], family: Family
) -> Counter[Schema]:
    """Count the usable estimates of each schema."""
    return Counter(
        _schema_of(e)
        for e in (_read(m, family) for m in messages)
        if isinstance(e, LocalEstimate) and e.is_usable
    )


def agree_on_schema(counts: Sequence[Counter[Schema]]) -> Schema | None:
    """The schema of most estimates; None if no estimate is usable."""
    total: Counter[Schema] = sum(counts, Counter())
    return min(total, key=lambda s: (-total[s], repr(s))) if total else None


def _schema_of(estimate: LocalEstimate) -> Schema:
    m = estimate.mixture
    assert m is not None
    return Schema(m.family, m.n_components, m.n_features, m.feature_names)


def _read(
    message: Mapping[str, Any] | LocalEstimate, family: Family | None
) -> LocalEstimate | Malformed:
    if isinstance(message, LocalEstimate):  # it was checked when it was made
        return message
    try:
        return LocalEstimate.from_arrays(message, family)
    except (ValueError, TypeError, OverflowError) as error:
        return Malformed(str(error))


def _refusal(estimate: LocalEstimate | Malformed, schema: Schema | None) -> Reason | None:
    if isinstance(estimate, Malformed):
        return estimate
    if not estimate.is_usable:
        return NoEstimate(estimate.outcome.value, estimate.reason)
    assert schema is not None  # there is a majority: this estimate alone would be one
    own = _schema_of(estimate)
    # Names say more than their number, and come first.
    if (
        own.feature_names is not None
        and schema.feature_names is not None
        and own.feature_names != schema.feature_names
    ):
        return OtherColumns(own.feature_names, schema.feature_names)
    for name in ("family", "n_components", "n_features"):
        if getattr(own, name) != getattr(schema, name):
            return OtherSchema(name, str(getattr(own, name)), str(getattr(schema, name)))
    return None


# -- blocks ----------------------------------------------------------------------------------------


def stack_estimates(
    messages: Sequence[Mapping[str, Any] | LocalEstimate],
    indices: Sequence[int],
    schema: Schema | None,
    cut: RowCut = COUNTING,
) -> Block:
    """Validate the estimates of a block, refuse those that do not fit the schema, and stack the rest.

    ``cut`` is that of the local fits.
    """
    family = None if schema is None else schema.family
    estimates = {i: _read(m, family) for i, m in zip(indices, messages, strict=True)}
    refused = {
        i: reason for i, e in estimates.items() if (reason := _refusal(e, schema)) is not None
    }
    usable = {
        i: e for i, e in estimates.items() if i not in refused and isinstance(e, LocalEstimate)
    }
    if not usable or schema is None:
        return _empty_block(len(messages), refused)
    stack = stack_mixtures(
        [_in_canonical_order(e.mixture) for e in usable.values() if e.mixture is not None]
    )
    parameters = np.hstack([stack.weights] + [p.reshape(len(usable), -1) for p in stack.components])
    n_samples = [rows_behind(e, cut) for e in usable.values()]
    log_self = l2.log_self_products(schema.family, stack)
    one_step = tuple(i for i, e in usable.items() if e.start == FROM_OTHERS and e.n_iter == 1)
    summary = Summary(len(messages), list(usable), n_samples, log_self, refused, one_step)
    return Block(stack, parameters, summary)


def rows_behind(estimate: LocalEstimate, cut: RowCut) -> int:
    """Rows that an estimate rests on: those of its fit, if it truncates without the rows outside that are too many.

    A truncated fit takes account of the share of a mixture that is beyond the cuts. What more is outside belongs to no
    component. It counts beyond chance only, and nothing is known of estimates that do not say how many there are.
    """
    n_samples = estimate.n_samples
    if not cut.truncates or estimate.n_outside is None:
        return n_samples
    expected = cut.level * n_samples
    excess = estimate.n_outside - expected - CHANCE_OUTSIDE * np.sqrt(expected * (1.0 - cut.level))
    return max(n_samples - max(int(excess), 0), 1)


def _empty_block(n_estimates: int, refused: dict[int, Reason]) -> Block:
    return Block(None, np.empty((0, 0)), Summary(n_estimates, [], [], np.empty(0), refused))


def _in_canonical_order(mixture: Mixture) -> Mixture:
    """The mixture with sorted components, so that no result depends on the order in which they came."""
    order = canonical_order(mixture.family, mixture.weights, mixture.components)
    return mixture if (np.diff(order) > 0).all() else mixture.reordered(order)


def summary_of(block: Block) -> Summary:
    """The small values of a block."""
    return block.summary


def take_estimates(block: Block, indices: Sequence[int]) -> Block:
    """The estimates of a block that are among ``indices``, as a block; an index given twice is taken twice."""
    summary = block.summary
    place = {index: i for i, index in enumerate(summary.indices)}
    taken = [place[index] for index in indices if index in place]
    if block.stack is None or not taken:
        return _empty_block(0, {})
    own = [summary.indices[i] for i in taken]
    n_samples = [summary.n_samples[i] for i in taken]
    return Block(
        block.stack[np.array(taken)],
        block.parameters[taken],
        Summary(len(taken), own, n_samples, summary.log_self[taken], {}),
    )


def gained_block(
    participants: Participants, gained: Mapping[int, LocalEstimate], cut: RowCut
) -> Block:
    """The estimates of gained partitions that are not their fits, as a block."""
    return stack_estimates(list(gained.values()), list(gained), participants.schema, cut)


def only_gained(block: Block, participants: Participants) -> Block:
    """The estimates of a block that are gained, as a block."""
    return take_estimates(block, sorted(participants.gained))


def without_gained(block: Block, participants: Participants) -> Block:
    """The estimates of a block that are not gained, as a block."""
    return take_estimates(block, [i for i in block.summary.indices if i not in participants.gained])


def join_estimates(blocks: Sequence[Block]) -> Block:
    """The usable estimates of several blocks as one block."""
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


# -- participants ----------------------------------------------------------------------------------


def admit(
    summaries: Sequence[Summary],
    schema: Schema | None,
    options: AggregationOptions,
    report: Sequence[list[dict[str, Any]]] = (),
    gained: frozenset[int] = frozenset(),
) -> Participants:
    """The participants of all blocks, and the common unit of distances.

    Parameters
    ----------
    summaries : sequence of Summary
    schema : Schema or None
    options : AggregationOptions
    report : sequence of list of dict
        The rows of the report, block by block. An error carries them.
    gained : frozenset of int
        As in :class:`Participants`.

    Raises
    ------
    AggregationError
        If no estimate is usable.
    """
    refused = {i: reason for p in summaries for i, reason in p.refused.items()}
    n_estimates = sum(p.n_estimates for p in summaries)
    indices = [i for p in summaries for i in p.indices]
    if schema is None or not indices:
        raise _nothing_to_aggregate(n_estimates, refused, report)
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
        # With equal sizes the factor is the same for all pairs. Without it the bits are the paper's.
        options.is_calibrated and bool(np.ptp(n_samples) > 0),
        most_rows=most_rows,
        capped=tuple(i for i, n in zip(indices, claimed, strict=True) if n > most_rows),
        gained=gained,
        one_step=frozenset(i for p in summaries for i in p.one_step),
    )


def _way_out(refused: dict[int, Reason], report: Sequence[list[dict[str, Any]]]) -> str:
    """What to do if no source has a row; else the reasons say it."""
    too_few = Outcome.TOO_FEW_ROWS.value
    if not all(isinstance(r, NoEstimate) and r.outcome == too_few for r in refused.values()):
        return ""
    counts = [row["n_samples"] for block in report for row in block]
    if not counts or any(counts):
        return ""
    return " X has no rows: check the files, or the filter before the fit."


def _nothing_to_aggregate(
    n_estimates: int, refused: dict[int, Reason], report: Sequence[list[dict[str, Any]]]
) -> AggregationError:
    # Reasons are often the same everywhere: each is given once, with the first estimate that has it.
    first: dict[str, int] = {}
    for i, reason in refused.items():
        first.setdefault(str(reason), i)
    examples = "; ".join(f"{i}: {in_short(reason)}" for reason, i in list(first.items())[:3])
    return AggregationError(
        f"none of the {n_estimates} local estimates is usable, so there is nothing to aggregate ({examples}"
        f"{'; ...' if len(refused) > min(len(first), 3) else ''}).{_way_out(refused, report)}",
        {i: str(reason) for i, reason in refused.items()},
        [row for block in report for row in block],
    )


def row_cap(n_samples: Array) -> float:
    """Most rows that an estimate can count for, from the rows that the usable estimates claim."""
    return MOST_ROWS * float(np.sort(n_samples)[(len(n_samples) - 1) // 2])


def rows_of(block: Block, participants: Participants) -> Array:
    """Rows that the estimates of a block count for, (n_usable,)."""
    return np.minimum(np.array(block.summary.n_samples, dtype=np.float64), participants.most_rows)


def pair_errors(rows_a: Array, rows_b: Array) -> Array:
    """Sqrt(1 / n_a + 1 / n_b) for all pairs, (n_a, n_b): in this unit distances of consistent estimates are alike."""
    squares: Array = np.add.outer(1.0 / rows_a, 1.0 / rows_b)
    return np.sqrt(squares)


def spread(values: Any, participants: Participants, fill: Any) -> Any:
    """An array over all estimates, with ``values`` for the usable ones and ``fill`` for the others."""
    values = np.asarray(values)
    full = np.full(participants.n_estimates, fill, dtype=values.dtype)
    full[participants.indices] = values
    return full
