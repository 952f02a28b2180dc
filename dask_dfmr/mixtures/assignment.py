"""The assignment of things to others at the least total cost."""

from __future__ import annotations

from dask_dfmr.mixtures.family import Array, Labels


def assignment(costs: Array) -> Labels:
    """The column of each row of the square matrix ``costs``, so that their sum is the least.

    :mod:`scipy.optimize` is imported when the first assignment is made: it takes .1 CPU seconds, and a worker that only
    fits partitions needs none of it.
    """
    from scipy.optimize import linear_sum_assignment

    columns: Labels = linear_sum_assignment(costs)[1]
    return columns
