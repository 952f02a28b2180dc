"""The order of the components: that of a start or of an earlier result, so that a label keeps its meaning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dask_dfmr.aggregation.result import AggregationResult, FilterDecision
from dask_dfmr.local.starts import GivenStart
from dask_dfmr.mixtures.assignment import assignment
from dask_dfmr.mixtures.family import Components, Labels
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.whitening import match_components


def in_order_of(
    result: AggregationResult, reference: Mixture | GivenStart | None
) -> AggregationResult:
    """The result with its components in the order of a reference.

    Parameters
    ----------
    result : AggregationResult
    reference : Mixture, GivenStart or None
        Components are matched one to one: by their divergence, or by their means if the reference has nothing else.
        None, a start without means, or a mixture of another shape: the result keeps its order.
    """
    order = _order_like(result.mixture, reference)
    if order is None:
        return result
    decision = _reordered(result.decision, order)
    return replace(result, mixture=result.mixture.reordered(order), decision=decision)


def _order_like(mixture: Mixture, reference: Mixture | GivenStart | None) -> Labels | None:
    """The component of the mixture that matches each component of the reference; None if nothing can be matched."""
    family, own = mixture.family, mixture.components
    if isinstance(reference, Mixture):
        shape = (reference.family, reference.n_components, reference.n_features)
        if shape != (family, mixture.n_components, mixture.n_features):
            return None
        return match_components(family, reference.components, own)
    if reference is None or reference.means is None or reference.means.shape != own[0].shape:
        return None
    if reference.shapes is not None:
        return match_components(family, (reference.means, *reference.shapes), own)
    # With one shape for all, that of the whole mixture, divergences are squared distances in its units. Their sum does
    # not depend on a shift of all means, so means that are all too small or too large are matched as well.
    shapes = _shapes_of_all(mixture)
    costs = family.divergence((reference.means, *shapes), (own[0], *shapes))
    return assignment(costs)


def _shapes_of_all(mixture: Mixture) -> Components:
    """The parameters after the mean of the mixture as one component, once for each component."""
    family, k = mixture.family, mixture.n_components
    one = tuple(p[:1] for p in mixture.components)
    labels = np.zeros(k, dtype=np.intp)
    moments = family.pooled_moments(mixture.weights, mixture.components, labels, one)
    return tuple(np.repeat(p, k, axis=0) for p in family.from_moments(moments, one)[1:])


def _reordered(decision: FilterDecision, order: Labels) -> FilterDecision:
    """The decision with its columns, and the components that its reasons name, in a new order."""
    reasons = {i: reason.in_order(order.tolist()) for i, reason in decision.reasons.items()}
    decision = replace(decision, reasons=reasons)
    components = decision.components
    if components is None:
        return decision
    columns = {
        name: getattr(components, name)[:, order]
        for name in ("kept", "matching", "n_rows", "distance_ratios")
    }
    vectors = {name: getattr(components, name)[order] for name in ("radii", "limits", "centers")}
    return replace(decision, components=replace(components, **columns, **vectors))
