"""Corrupts the rows of some partitions of a collection, lazily."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
from dask.delayed import Delayed
from numpy.typing import NDArray

from dask_dfmr.attacks.adversary import check_rate, n_bad
from dask_dfmr.attacks.catalogue import Attack, find
from dask_dfmr.attacks.on_rows import corrupt_rows
from dask_dfmr.on_dask.partitions import delayed_parts
from dask_dfmr.seeds import ATTACKED, SeedLike, seed_sequence, stream


class CorruptedPartitions(NamedTuple):
    """A collection of which some partitions are bad: ``data``, and ``is_bad`` of shape (n_partitions,)."""

    data: Any
    is_bad: NDArray[np.bool_]


def corrupt_partitions(
    X: Any,
    attack: str | Attack,
    rate: float,
    random_state: SeedLike = None,
    *,
    strength: float | None = None,
    columns: Sequence[Hashable] | None = None,
) -> CorruptedPartitions:
    """Corrupt the rows of some partitions. Nothing is read or computed here.

    Parameters
    ----------
    X : dask DataFrame, dask Array, list of Delayed, or list of pandas DataFrames or arrays
        Every partition (chunk of rows, entry) is a source. A dask Array must have one chunk of columns.
    attack : str or Attack
        A name in ``ATTACKS`` of the kind "rows".
    rate : float
        Share of bad partitions: floor(rate * n_partitions) of them are drawn.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
    strength, columns
        As for :func:`corrupt_rows`.

    Returns
    -------
    CorruptedPartitions
        ``(data, is_bad)``; ``data`` is of the type of ``X``. Good partitions are the same objects.

    Raises
    ------
    TypeError
        If ``X`` has another type.
    ValueError
        If there is no such attack, the rate is out of range, or a dask Array has several chunks of columns.
    """
    found = find(attack, ("rows",))
    check_rate(rate)
    seed = seed_sequence(random_state)
    parts = partitions_of(X)
    n = len(parts)
    is_bad = np.zeros(n, dtype=bool)
    order = np.random.default_rng(stream(seed, ATTACKED)).permutation(n)
    is_bad[order[: n_bad(rate, n)]] = True
    options: dict[str, Any] = {"strength": strength, "columns": columns, "random_state": seed}

    def corrupted(part: Any, i: int) -> Any:
        arguments = (part, found)
        if isinstance(part, Delayed):
            return dask.delayed(corrupt_rows, pure=True)(*arguments, partition=i, **options)
        return corrupt_rows(*arguments, partition=i, **options)

    if isinstance(X, dd.DataFrame):
        parts = [corrupted(p, i) if is_bad[i] else p for i, p in enumerate(parts)]
        # Corrupted rows keep their index, or the first part of it, so that the divisions hold.
        return CorruptedPartitions(
            dd.from_delayed(parts, meta=X._meta, divisions=X.divisions, verify_meta=False), is_bad
        )
    if isinstance(X, da.Array):
        return CorruptedPartitions(_array(X, parts, corrupted, is_bad), is_bad)
    return CorruptedPartitions(
        [corrupted(p, i) if is_bad[i] else p for i, p in enumerate(parts)], is_bad
    )


def some_partitions(X: Any, chosen: NDArray[np.bool_]) -> Any:
    """Some partitions of a collection that :func:`corrupt_partitions` takes, as a collection of the same type."""
    if chosen.all():
        return X
    index = np.flatnonzero(chosen).tolist()
    if isinstance(X, da.Array):
        return da.concatenate([X.blocks[i] for i in index], axis=0, allow_unknown_chunksizes=True)
    parts = partitions_of(X)
    if isinstance(X, dd.DataFrame):
        return dd.from_delayed([parts[i] for i in index], meta=X._meta, verify_meta=False)
    return [parts[i] for i in index]


def partitions_of(X: Any) -> Sequence[Any]:
    """The partitions of a collection, in the number that the user chose: lazy ones as Delayed objects.

    Raises
    ------
    TypeError, ValueError
        As for :func:`corrupt_partitions`.
    """
    if isinstance(X, dd.DataFrame):
        return delayed_parts(X)
    if isinstance(X, da.Array):
        if X.ndim != 2 or X.numblocks[1] != 1:
            raise ValueError(
                f"X must have two axes and one chunk of columns; got {X.numblocks} chunks. Use X.rechunk({{1: -1}})."
            )
        return delayed_parts(X)
    if isinstance(X, Sequence) and not isinstance(X, (str, bytes)) and len(X):
        return X
    raise TypeError(
        "X must be a dask DataFrame, a dask Array, or a list of Delayed, frames or arrays, one per source; "
        f"got {type(X).__name__}."
    )


def _array(
    X: da.Array, blocks: Sequence[Any], corrupted: Any, is_bad: NDArray[np.bool_]
) -> da.Array:
    """The array with bad chunks of unknown length, since an attack may remove rows."""
    pieces = []
    for i, bad in enumerate(is_bad):
        if not bad:
            pieces.append(X.blocks[i])
            continue
        shape = (np.nan, X.shape[1])
        pieces.append(da.from_delayed(corrupted(blocks[i], i), shape=shape, meta=X._meta))
    return da.concatenate(pieces, axis=0, allow_unknown_chunksizes=True)
