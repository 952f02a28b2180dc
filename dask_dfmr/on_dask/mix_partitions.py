"""Partitions of sorted rows -> partitions that are samples of all rows."""

from __future__ import annotations

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

from dask_dfmr import checks
from dask_dfmr.on_dask.partitions import delayed_parts, is_frame
from dask_dfmr.seeds import SeedLike, seed_sequence, stream

MAX_PIECES = 32
"""Pieces of each partition by default, at most. The number of tasks is partitions times pieces."""

_ORDER, _ROWS = 101, 102
"""First number of the spawn key of each stream; far from those of a fit, which may have the same seed."""


def mix_partitions(
    X: dd.DataFrame, random_state: SeedLike = None, n_pieces: int | None = None
) -> dd.DataFrame:
    """Mix partitions, so that sorted rows do not make them differ.

    Every partition is cut at random into ``n_pieces`` pieces of equal size. Every new partition takes one piece from
    each of ``n_pieces`` different old partitions, so that each row occurs exactly once.

    **Mixing spreads wrong rows, too.** The rows of a broken file are then in ``n_pieces`` partitions, a few in each,
    and cannot be excluded any more (of 20 files already with 4 pieces). Mix rows that are sorted by time or place and
    trusted. If rows come from sources that may be wrong, fit with ``source=`` instead.

    Parameters
    ----------
    X : dask DataFrame
    random_state : int, RandomState, Generator or None, default None
        Same partitions, same seed: same partitions, on every scheduler.
    n_pieces : int, optional
        How many old partitions every new one is made of, at most the number of partitions. By default all of them up
        to 32, beyond that 32. With few pieces the new partitions still differ if the old ones did. The number of tasks
        is partitions times pieces. Mixing twice with 32 makes a new partition of up to 1,024 old ones.

    Returns
    -------
    dask DataFrame
        Lazy, with as many partitions as X, rows in random order, their index kept, divisions unknown. All rows move
        once, and are in memory together. Call ``persist()`` on it before a fit on a cluster, which uses the partitions
        twice.

    Raises
    ------
    TypeError
        If X is not a dask DataFrame.
    ValueError
        If ``n_pieces`` is not an integer from 1 to the number of partitions.

    Examples
    --------
    >>> import dask.dataframe as dd, pandas as pd
    >>> X = dd.from_pandas(pd.DataFrame({"x": range(12)}), npartitions=3)     # sorted
    >>> mixed = mix_partitions(X, random_state=0)
    >>> [sorted(part.compute().tolist()) for part in mixed.x.partitions]
    [[1, 7, 8, 11], [0, 2, 4, 10], [3, 5, 6, 9]]
    """
    if not is_frame(X):
        raise TypeError(
            f"X must be a dask DataFrame; got a {type(X).__name__}. Rows in memory can be shuffled as they are."
        )
    parts = delayed_parts(X)
    n = len(parts)
    pieces = min(n, MAX_PIECES) if n_pieces is None else n_pieces
    checks.integer("n_pieces", pieces, 1, alternative="None or ")
    if pieces > n:
        raise ValueError(f"n_pieces must be at most the number of partitions, {n}; got {n_pieces}.")
    seed = seed_sequence(random_state)
    cuts = [
        dask.delayed(_cut, nout=pieces)(part, stream(seed, _ROWS, i), pieces)
        for i, part in enumerate(parts)
    ]
    # Old partitions in a ring in random order: a new one takes a piece of each of its next neighbours.
    ring = np.random.default_rng(stream(seed, _ORDER)).permutation(n).tolist()
    mixed = [
        dask.delayed(_join)(
            [cuts[ring[(j + k) % n]][k] for k in range(pieces)], stream(seed, _ROWS, n + j)
        )
        for j in range(n)
    ]
    return dd.from_delayed(mixed, meta=X._meta, verify_meta=False, prefix="mix-partitions")


def _cut(frame: pd.DataFrame, seed: np.random.SeedSequence, n_pieces: int) -> list[pd.DataFrame]:
    """Rows in random order, in pieces; the first ones may be larger by a row."""
    order = np.random.default_rng(seed).permutation(len(frame))
    return [frame.iloc[places] for places in np.array_split(order, n_pieces)]


def _join(pieces: list[pd.DataFrame], seed: np.random.SeedSequence) -> pd.DataFrame:
    frame = pd.concat(pieces)
    return frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
