"""What a display draws of whatever a user hands over: an estimator, an aggregate, a selection or a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.result import AggregationResult, FilterDecision
from dask_dfmr.mixtures.gaussian import Mixture

OFFERED = "a fitted GaussianMixture, an Aggregate or a Selection"


def mixture_of(found: Any) -> Mixture:
    """The mixture of an estimator, an aggregate, a selection, or a mixture itself.

    Raises
    ------
    NotFittedError
        If an estimator is not fitted.
    TypeError
        If it is none of these.
    """
    if isinstance(found, Mixture):
        return found
    if isinstance(getattr(found, "mixture", None), Mixture):
        return found.mixture
    if hasattr(found, "get_params") and not hasattr(found, "mixture_"):
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(f"estimator must be fitted; got {type(found).__name__}. Call its fit.")
    if not isinstance(getattr(found, "mixture_", None), Mixture):
        raise TypeError(f"estimator must be {OFFERED}, or a Mixture; got {type(found).__name__}.")
    return found.mixture_


def result_of(found: Any) -> AggregationResult:
    """The aggregation of an estimator or a selection, or an aggregate itself.

    Raises
    ------
    NotFittedError, TypeError
        As :func:`mixture_of`, and for a mixture.
    """
    mixture_of(found)
    for result in (found, getattr(found, "aggregate_", None), getattr(found, "aggregate", None)):
        if isinstance(result, AggregationResult):
            return result
    raise TypeError(f"estimator must be {OFFERED}; got {type(found).__name__}.")


def kept_of(found: Any, decision: FilterDecision) -> NDArray[np.bool_]:
    """Which estimates the mixture is made of: after a refinement not those of the decision."""
    support = getattr(found, "support_", None)
    return decision.kept if support is None else np.asarray(support, dtype=bool)


def sources_of(found: Any, result: AggregationResult) -> list[str]:
    """A name for every estimate: its source, or its number."""
    report = getattr(found, "partition_report_", getattr(found, "partition_report", None))
    sources: Sequence[Any] = [None] * result.decision.n_estimates
    if report is not None:
        sources = list(report["source"])
    elif result.origin is not None:
        sources = [_source_of(e) for e in result.origin.estimates]
    return [
        source if isinstance(source, str) and source else f"partition {i}"
        for i, source in enumerate(sources)
    ]


def _source_of(estimate: Any) -> Any:
    return estimate.get("source") if isinstance(estimate, Mapping) else estimate.source


def outcomes_of(found: Any, result: AggregationResult) -> list[str]:
    """In a few words, why an estimate has no distance; empty if it has one."""
    report = getattr(found, "partition_report_", getattr(found, "partition_report", None))
    distances = result.decision.distance_ratios
    has_none = ~np.isfinite(distances)
    if report is None:
        return ["refused" if none else "" for none in has_none]
    return [
        str(outcome) if none else ""
        for outcome, none in zip(report["outcome"], has_none, strict=True)
    ]
