"""How many rows a local fit needs, and what to do where there are fewer.

The least number depends on the structure of the covariances (:meth:`Family.least_rows`), not on the number of free
parameters alone: a row informs every column. The remedies are those that work for the rows at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from dask_dfmr.mixtures.family import Family
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian

Form = Literal["frame", "array", "memory", "list", "source"]
"""What the rows of a fit are to the user: a DataFrame or an Array of Dask, rows in memory that a fit cuts, a list with
an element for each partition, or the values of a column."""


def describe_least_rows(family: Family, n_components: int, n_features: int) -> str:
    """The least number of rows in words, for a reason."""
    least = family.least_rows(n_components, n_features)
    components = "1 component" if n_components == 1 else f"{n_components} components"
    columns = "1 column" if n_features == 1 else f"{n_features} columns"
    return f"the {least} that {components} in {columns} need ({family.name})"


def remedies(family: Family, n_components: int, n_features: int, n_rows: int) -> str:
    """What would fit this number of rows, as parameters with their values."""
    found = []
    fewer = [k for k in range(1, n_components) if family.least_rows(k, n_features) <= n_rows]
    if fewer:
        found.append(f"n_components={fewer[-1]}")
    if isinstance(family, Gaussian):
        others = [
            name
            for name in COVARIANCE_TYPES
            if Gaussian(name).least_rows(n_components, n_features) <= n_rows
        ]
        if others:
            found.append("covariance_type=" + " or ".join(map(repr, others)))
    # With fewer rows than one component needs, no structure of this family is regular.
    if n_rows >= max(n_components, family.least_rows(1, n_features)):
        found.append(f"min_partition_rows={n_rows}")
    return ", ".join([*found, "or larger partitions"]) if found else "larger partitions"


def fewer_partitions(counts: Sequence[int], least: int) -> int | None:
    """The largest number of partitions that leaves each of them ``least`` rows; None if there is none above 1.

    Neighbours are merged as Dask's ``repartition(npartitions=...)`` merges them.
    """
    n = len(counts)
    for m in range(min(n - 1, sum(counts) // least), 1, -1):
        bounds = [int(i * n / m) for i in range(m + 1)]
        if min(sum(counts[a:b]) for a, b in pairwise(bounds)) >= least:
            return m
    return None


def larger_chunks(n_rows: int, least: int) -> int | None:
    """The number of rows of a chunk of an array that leaves every chunk, the last one too, ``least`` rows."""
    for m in range(n_rows // least, 1, -1):
        size = -(-n_rows // m)
        if n_rows - (m - 1) * size >= least:
            return size
    return None


def describe_larger_partitions(counts: Sequence[int], least: int, form: Form) -> str:
    """How to make partitions large enough, from the rows of each now; empty if all rows together are too few."""
    m, size = fewer_partitions(counts, least), larger_chunks(sum(counts), least)
    if len(counts) < 2 or size is None or (form == "frame" and m is None):
        return ""
    ways = {
        "frame": f"X.repartition(npartitions={m})",
        "array": f"X.rechunk(({size}, -1))",
        "memory": f"n_partitions={sum(counts) // least}",
        "list": f"join some of the list, so that each has {least} rows or more",
        "source": f"another column as source=, each value of which has {least} rows or more",
    }
    return f"Larger partitions would do: {ways[form]}."
