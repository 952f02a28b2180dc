"""Rows sorted by the machine that they belong to, so that every machine's own can be taken out (knows arrays only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dask_dfmr.mixtures.family import Rows


@dataclass(frozen=True)
class SortedRows:
    """Rows in the order of their machines; rows of one machine in the order in which they came.

    Attributes
    ----------
    rows : ndarray of shape (n_samples, n_features), or path of a file that holds its bytes
    machines : ndarray of int, shape (n_machines_here,)
        The machines that have rows here, ascending.
    bounds : ndarray of int, shape (n_machines_here + 1,)
        Where the rows of each begin; last, where those of the last one end.
    n_features : int
    dtype : str
    errors : mapping of int to str
        Partitions whose rows should be here and are not, and why.
    """

    rows: Any
    machines: np.ndarray[Any, np.dtype[np.intp]]
    bounds: np.ndarray[Any, np.dtype[np.intp]]
    n_features: int
    dtype: str
    errors: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Rows, machines: Any, errors: Mapping[int, str] | None = None) -> SortedRows:
        """Sort rows by ``source``, the machine of each."""
        order = np.argsort(machines, kind="stable")
        present, counts = np.unique(machines, return_counts=True)
        return cls(
            np.ascontiguousarray(rows[order]),
            present,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.intp),
            rows.shape[1],
            rows.dtype.str,
            errors or {},
        )

    @classmethod
    def failed(cls, partition: int, reason: str) -> SortedRows:
        """What stands for the rows of a partition that could not be had."""
        return cls.of(np.empty((0, 0)), np.empty(0, np.intp), {partition: reason})

    def stored(self, path: Path) -> SortedRows:
        """The same with the rows in a file, of which :meth:`of_machine` reads what it needs."""
        self.rows.tofile(path)
        return SortedRows(
            str(path), self.machines, self.bounds, self.n_features, self.dtype, self.errors
        )

    def of_machine(self, machine: int) -> Rows | None:
        """The rows of one machine; None if it has none here."""
        place = int(np.searchsorted(self.machines, machine))
        if place == len(self.machines) or self.machines[place] != machine:
            return None
        start, stop = (int(bound) for bound in self.bounds[place : place + 2])
        if not isinstance(self.rows, str):
            return self.rows[start:stop]
        dtype, d = np.dtype(self.dtype), self.n_features
        count, offset = (stop - start) * d, start * d * dtype.itemsize
        return np.fromfile(self.rows, dtype, count, offset=offset).reshape(-1, d)

    def of_bucket(self, bucket: int, n_buckets: int) -> SortedRows:
        """What belongs to every ``n_buckets``-th machine; in memory."""
        machines = np.repeat(self.machines, np.diff(self.bounds))
        chosen = machines % n_buckets == bucket
        return SortedRows.of(self.rows[chosen], machines[chosen], self.errors)


def merge(pieces: Sequence[SortedRows]) -> SortedRows:
    """Several pieces as one; rows of one machine stay in the order of the pieces."""
    errors = {partition: text for piece in pieces for partition, text in piece.errors.items()}
    filled = [piece for piece in pieces if len(piece.machines)]
    if not filled:
        return SortedRows.of(np.empty((0, 0)), np.empty(0, np.intp), errors)
    machines = np.concatenate([np.repeat(p.machines, np.diff(p.bounds)) for p in filled])
    return SortedRows.of(np.concatenate([piece.rows for piece in filled]), machines, errors)
