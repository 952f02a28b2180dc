"""The log-likelihood of the rows of some partitions, and what tells the data of a fit from other data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
from dask.tokenize import tokenize

from dask_dfmr.local.row_statistics import Wanted
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask.fit_plan import FitPlan
from dask_dfmr.on_dask.rereading import Reader

logger = logging.getLogger("dask_dfmr")


def token_of(X: Any) -> str | None:
    """Dask's token of data: equal for the same collection, and for equal data in memory. None if there is none.

    Of a collection nothing is computed. It may be missing for objects of other libraries, which Dask does not know.
    """
    try:
        return str(tokenize(X, ensure_deterministic=True))
    except Exception:  # whatever an object of another library raises
        return None


def log_likelihood(plan: FitPlan, mixture: Mixture, indices: Sequence[int]) -> tuple[float, int]:
    """Total log-likelihood in nats of the rows of some partitions, and their number; no others are read.

    Raises
    ------
    ValueError
        If one of them cannot be read, or has no rows.
    """
    with plan.scheduler.session():
        readings = Reader(plan, indices).measure(indices, [mixture], Wanted(moments=False))
    for reading in readings:
        if not reading.is_measured:
            why = reading.reason or "it has no rows"
            raise ValueError(f"partition {reading.partition} of X cannot be scored: {why}.")
    n_omitted = sum(reading.n_omitted for reading in readings)
    if n_omitted:
        logger.info("%d rows with missing or infinite values were omitted", n_omitted)
    total = sum(reading.measurements[0].log_likelihood for reading in readings)
    return total, sum(reading.n_samples for reading in readings)


def total_of_scores(parts: Sequence[Any]) -> tuple[float, int]:
    """The sum of the log-densities of all parts, and the number of rows; NaN marks a row that was omitted.

    Parameters
    ----------
    parts : sequence of Delayed, ndarray or Series
        Log-densities in nats.

    Raises
    ------
    ValueError
        If there is no row, or none is left.
    """
    sums = dask.compute(*(dask.delayed(_sum_and_sizes)(part) for part in parts))
    total, n_samples, n_omitted = np.sum(sums, axis=0)
    if n_omitted:
        logger.info("%d rows with missing or infinite values were omitted", n_omitted)
    if n_samples == 0:
        omitted = f"; {n_omitted:.0f} have missing or infinite values" if n_omitted else ""
        raise ValueError(f"X must have at least one row to score; got none{omitted}.")
    return float(total), int(n_samples)


def _sum_and_sizes(scores: Any) -> Array:
    """Sum and number of the log-densities of one partition, and the number of rows that were omitted."""
    values = np.asarray(scores, dtype=np.float64)
    is_omitted = np.isnan(values)
    return np.array([np.sum(values[~is_omitted]), (~is_omitted).sum(), is_omitted.sum()])
