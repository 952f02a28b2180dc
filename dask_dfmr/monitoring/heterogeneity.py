"""How much more the kept partitions differ than sampling explains: the law of a new source allows for as much.

Days, sites and sensors are rarely samples of one population to the last digit. The more rows a source has, the smaller
the differences that a test finds, so that at some size every source would be unlikely. The local estimates of the kept
partitions come from all of their rows. So their differences from the global mixture, measured as those of new sources
are, show how much is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dask_dfmr.aggregation.null_law import settle
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.information import Information
from dask_dfmr.mixtures.whitening import difference, match_components
from dask_dfmr.refinement.score_test import RowScores

MOST_MEMBERS = 100
"""Kept estimates that are compared, at most. The standard error of the scale is then 14 % over the root of the number
of parameters."""

LEAST_MEMBERS = 4
"""Fewer kept estimates say nothing about the differences between sources."""


class Heterogeneity(NamedTuple):
    """Scale and spread of the statistics of kept partitions, relative to what sampling explains.

    ``n_rows`` is the number of rows that they were measured with. All are 1 if sampling explains the differences.
    """

    scale: float = 1.0
    spread: float = 1.0
    n_rows: float = 1.0

    def at(self, n_rows: float) -> tuple[float, float]:
        """Scale and spread for a source of so many rows: its sampling error is smaller the more rows it has."""
        size = n_rows / self.n_rows
        return 1.0 + (self.scale - 1.0) * size, 1.0 + (self.spread - 1.0) * min(size, 1.0)


SAMPLING_ALONE = Heterogeneity()
"""No differences between sources but those of sampling."""


def heterogeneity_of(
    mixture: Mixture,
    estimates: Sequence[LocalEstimate],
    information: Information,
    whitening: Information,
    law: RowScores,
) -> Heterogeneity:
    """Compare the estimates that a mixture was made of with what sampling explains.

    Parameters
    ----------
    mixture : Mixture
    estimates : sequence of LocalEstimate
        The kept ones, of the family and shape of the mixture.
    information : Information
        Of the mixture. It turns a difference of parameters into the mean score that rows with this difference have.
    whitening : Information
        It whitens scores by the covariance that rows have.
    law : RowScores
    """
    if len(estimates) < LEAST_MEMBERS:
        return SAMPLING_ALONE
    n_total = float(sum(e.n_samples for e in estimates))
    # Evenly spaced, so that neighbouring partitions, which may be alike, do not prevail.
    some = estimates[:: -(-len(estimates) // MOST_MEMBERS)]
    counts = np.array([1.0 / (1.0 / e.n_samples - 1.0 / n_total) for e in some])
    statistics = [_squared_length(mixture, e, information, whitening) for e in some]
    matched = law.as_of_many_rows(counts * np.array(statistics), counts)
    settled = settle(matched, law.many_rows)
    return Heterogeneity(max(settled.scale, 1.0), settled.spread, float(np.median(counts)))


def _squared_length(
    mixture: Mixture, estimate: LocalEstimate, information: Information, whitening: Information
) -> float:
    """Squared length of the white mean score that rows of an estimate have at the mixture, to first order."""
    m = estimate.mixture
    assert m is not None
    family, point = mixture.family, (mixture.weights, mixture.components)
    m = m.reordered(match_components(family, mixture.components, m.components))
    white = information.residual(difference(family, m.weights, m.components, point))
    score = white if information.root is None else information.root @ white
    found = whitening.whiten(score)
    return float(found @ found)
