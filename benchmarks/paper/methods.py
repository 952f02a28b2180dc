"""The methods of the comparison: local estimates, of which some are bad, to the mixture of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from hardened import results_of
from trimmed_reduction import trimmed_reduction

from dask_dfmr import Aggregate, LocalEstimate, Mixture, aggregate
from dask_dfmr.aggregation.options import AggregationOptions

DEFAULT, HARDENED, REFINED = "default", "hardened", "refined"
ORACLE, POOLED, COAT, TRIM, MR = "oracle", "pooled pMLE", "COAT", "trimmed", "MR"
OPTIONS = {
    DEFAULT: AggregationOptions("dfmr"),
    "DFMR(1)": AggregationOptions("dfmr", rho=1.0),
    "DFMR(1.3)": AggregationOptions("dfmr", rho=1.3),
    MR: AggregationOptions("mr"),
    HARDENED: AggregationOptions(HARDENED),
}
"""Methods that :func:`dask_dfmr.aggregate` has. The hardened filter is the last one, as not every cell has it."""


class Result(NamedTuple):
    """What a method made: its mixture, which machines it kept (None if it keeps none whole), and CPU seconds.

    ``seconds`` are NaN where a method shared its distances with others. ``ratios`` are the distances of all estimates
    from the center in radii, if the method has them.
    """

    method: str
    mixture: Mixture
    kept: np.ndarray | None
    seconds: float = np.nan
    ratios: np.ndarray | None = None


def run_methods(estimates: Sequence[LocalEstimate], hardened: bool) -> Iterator[Result]:
    """The results of all methods that need nothing but estimates; distances are measured once."""
    options = {name: o for name, o in OPTIONS.items() if hardened or name != HARDENED}
    found = results_of(estimates, options)
    for name, aggregate_ in found.items():
        decision = aggregate_.decision
        yield Result(name, aggregate_.mixture, decision.kept, ratios=decision.distance_ratios)
    decision = found[DEFAULT].decision
    center = estimates[decision.center].mixture
    assert center is not None
    yield Result(COAT, center, None)
    began = time.thread_time()
    trimmed = trimmed_reduction(estimates, decision=decision)
    yield Result(TRIM, trimmed.mixture, None, time.thread_time() - began)


def timed_aggregate(estimates: Sequence[LocalEstimate], method: str) -> tuple[Aggregate, float]:
    """The result of the default or of the hardened filter, and the CPU seconds of its whole aggregation."""
    began = time.thread_time()
    options: dict[str, Any] = {"method": HARDENED} if method == HARDENED else {}
    found = aggregate(estimates, random_state=0, warn_excluded=False, **options)
    return found, time.thread_time() - began
