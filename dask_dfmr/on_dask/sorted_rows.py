"""Rows sorted by their source, so that the rows of every source can be taken out; arrays only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_dfmr.mixtures.family import Rows


class Problem(NamedTuple):
    """Why a partition could not be read, after its name, and whether it has other columns than it should."""

    text: str
    is_of_columns: bool


@dataclass(frozen=True)
class SortedRows:
    """Rows in the order of their sources; rows of one source in their first order.

    Attributes
    ----------
    rows : ndarray of shape (n_samples, n_features), or path of a file that holds its bytes
    sources : ndarray of int, shape (n_sources_here,)
        The sources that have rows here, ascending.
    bounds : ndarray of int, shape (n_sources_here + 1,)
        The first row of each source, and after them the number of rows.
    n_features : int
    dtype : str
    errors : mapping of int to Problem
        Partitions whose rows should be here and are not, and why.
    """

    rows: Any
    sources: np.ndarray[Any, np.dtype[np.intp]]
    bounds: np.ndarray[Any, np.dtype[np.intp]]
    n_features: int
    dtype: str
    errors: Mapping[int, Problem] = field(default_factory=dict)

    @classmethod
    def of(
        cls, rows: Rows, sources: Any, errors: Mapping[int, Problem] | None = None
    ) -> SortedRows:
        """Sort rows by source; ``sources`` has that of each row."""
        order = np.argsort(sources, kind="stable")
        present, counts = np.unique(sources, return_counts=True)
        return cls(
            np.ascontiguousarray(rows[order]),
            present,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.intp),
            rows.shape[1],
            rows.dtype.str,
            errors or {},
        )

    @classmethod
    def failed(cls, partition: int, problem: Problem) -> SortedRows:
        """In place of the rows of a partition that could not be read."""
        return cls.of(np.empty((0, 0)), np.empty(0, np.intp), {partition: problem})

    def stored(self, path: Path) -> SortedRows:
        """The same with the rows in a file, of which :meth:`of_source` reads what it needs."""
        self.rows.tofile(path)
        return SortedRows(
            str(path), self.sources, self.bounds, self.n_features, self.dtype, self.errors
        )

    def of_source(self, source: int) -> Rows | None:
        """The rows of one source; None if it has none here."""
        place = int(np.searchsorted(self.sources, source))
        if place == len(self.sources) or self.sources[place] != source:
            return None
        start, stop = (int(bound) for bound in self.bounds[place : place + 2])
        if not isinstance(self.rows, str):
            return self.rows[start:stop]
        dtype, d = np.dtype(self.dtype), self.n_features
        count, offset = (stop - start) * d, start * d * dtype.itemsize
        return np.fromfile(self.rows, dtype, count, offset=offset).reshape(-1, d)

    def of_bucket(self, bucket: int, n_buckets: int) -> SortedRows:
        """The rows of every ``n_buckets``-th source; in memory."""
        sources = np.repeat(self.sources, np.diff(self.bounds))
        chosen = sources % n_buckets == bucket
        return SortedRows.of(self.rows[chosen], sources[chosen], self.errors)


def merge(pieces: Sequence[SortedRows]) -> SortedRows:
    """Several pieces as one; rows of one source stay in the order of the pieces."""
    errors = {partition: text for piece in pieces for partition, text in piece.errors.items()}
    filled = [piece for piece in pieces if len(piece.sources)]
    if not filled:
        return SortedRows.of(np.empty((0, 0)), np.empty(0, np.intp), errors)
    sources = np.concatenate([np.repeat(p.sources, np.diff(p.bounds)) for p in filled])
    return SortedRows.of(np.concatenate([piece.rows for piece in filled]), sources, errors)
