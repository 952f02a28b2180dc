"""The log-likelihood of the rows of some partitions, and what tells the data of a fit from other data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from dask.tokenize import tokenize

from dask_dfmr.local.row_statistics import Wanted
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
