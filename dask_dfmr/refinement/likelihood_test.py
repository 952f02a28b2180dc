"""Tests of small partitions: whether their rows are as likely under the global mixture as those of the kept ones.

A partition with too few rows for an estimate is tested by the mean log-density of its rows. Real rows are no mixture:
the law of that mean is that of rows of the kept partitions, which came along with their estimates. A single row of a
heavy tail would decide a mean. So no log-density counts for less than a floor, which is below nearly all those rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from dask_dfmr.aggregation.null_law import Law, settle
from dask_dfmr.aggregation.reasons import AsLikely, Reason, Unlikely
from dask_dfmr.local.comparison import boundary
from dask_dfmr.local.row_statistics import log_densities
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, RowCut
from dask_dfmr.mixtures.tails import pearson3_cdf

N_DENSITY_DRAWS = 2**14
"""Sums of rows that are drawn for the law of the mean of few rows."""

FEWEST_IN_LAW = 2**12
"""If the kept partitions have fewer rows in the sample, rows drawn from the mixture are added."""

FLOOR_SHARE = 0.5
"""The share of rows below the floor, as a part of the level: one row alone can still be unlikely.

Measured on six laws of rows (normal mixture, t(3), lognormal, counts, zero-inflated, small integers), for 3,000
consistent partitions of 1, 3, 10 and 28 rows each: 0 to .2 % have p < .001, up to 2 % with the law of the mixture. Of
600 partitions of 28 rows with one column 10 times too large, 1 is not unlikely; without a floor 98 are not."""

FEW_DRAWN_ROWS, DRAWN_TAIL = 64, 1e-3
"""Up to so many rows the law of their mean is drawn, down to this probability."""


class Likelihoods(NamedTuple):
    """Mean log-likelihoods of partitions, in nats per row, and numbers of rows; both (n_partitions,)."""

    means: Array
    counts: Array


class LikelihoodComparison(NamedTuple):
    """Results for small partitions, both (n_partitions,).

    ``p_values`` are the probabilities that as many consistent rows have no larger likelihood. ``z_scores`` are as
    improbable under the standard normal law, negative for unlikely rows.
    """

    p_values: Array
    z_scores: Array


class RowLikelihoods(NamedTuple):
    """Log-densities of rows of the kept partitions under the global mixture, none below ``floor``.

    ``kept`` has the means of the partitions, ``rows`` (n_rows,) those of all rows, standardised by ``mean`` and ``sd``.
    """

    kept: Likelihoods
    rows: Array
    mean: float
    sd: float
    floor: float


def row_likelihoods(
    mixture: Mixture,
    samples: Sequence[Array],
    level: float,
    rng: np.random.Generator,
    cut: RowCut = COUNTING,
) -> RowLikelihoods:
    """The law of the log-density of a row.

    Parameters
    ----------
    mixture : Mixture
        The global mixture.
    samples : sequence of ndarray, each (n_rows, n_features)
        Rows of the kept partitions.
    level : float
        P-value below which rows will be called unlikely.
    rng : Generator
        Of the rows that are drawn if there are too few.
    cut : RowCut, optional
        That of the fits. If it truncates, rows may be bad in every partition, and would decide floor and variance. The
        floor is then the boundary of the mixture (:mod:`dask_dfmr.local.comparison`).
    """
    found = [log_densities(mixture, rows) for rows in samples]
    n_missing = max(FEWEST_IN_LAW - sum(map(len, found)), 0)
    drawn, _ = mixture.family.sample(n_missing, mixture.weights, mixture.components, rng)
    pooled = np.concatenate([*found, log_densities(mixture, drawn)])
    if cut.truncates:
        point = (mixture.weights, mixture.components)
        floor = boundary(mixture.family.with_cut(cut), point)
    else:
        floor = float(np.quantile(pooled, FLOOR_SHARE * level, method="lower"))
    pooled = np.maximum(pooled, floor)
    kept = as_likelihoods([(float(np.maximum(one, floor).mean()), len(one)) for one in found])
    mean, sd = float(pooled.mean()), float(pooled.std())
    return RowLikelihoods(kept, (pooled - mean) / sd, mean, sd, floor)


def compare_likelihoods(
    law: RowLikelihoods, small: Likelihoods, rng: np.random.Generator
) -> LikelihoodComparison:
    """Compare the mean log-likelihoods of small partitions with those of the kept ones.

    Parameters
    ----------
    law : RowLikelihoods
    small : Likelihoods
        Under the global mixture, no row below the floor.
    rng : Generator
        Of the sums that are drawn for the law of few rows.
    """
    kept, variance = law.kept, law.sd**2
    spread = settle(kept.counts * (kept.means - law.mean) ** 2 / variance, Law(1.0, 1.0)).scale
    errors = np.sqrt(spread * variance * (1.0 / small.counts + 1.0 / len(law.rows)))
    z = (small.means - law.mean) / errors
    return _p_values(z, small.counts.astype(int), law.rows, rng)


def _p_values(
    z: Array, counts: NDArray[np.int_], drawn: Array, rng: np.random.Generator
) -> LikelihoodComparison:
    """One-sided p-values by a law with the first three moments, and the normal scores that are as improbable.

    ``drawn`` are standardised log-densities of single rows.
    """
    skewness = float(np.mean(drawn**3)) / np.sqrt(counts)
    p_values = pearson3_cdf(z, skewness)
    for n in np.unique(counts[counts <= FEW_DRAWN_ROWS]):
        # The law of few rows may have any shape. Draws give all of it but the far tail.
        which = counts == n
        sums = np.sort(rng.choice(drawn, (N_DENSITY_DRAWS, n)).sum(axis=1) / np.sqrt(n))
        below = np.searchsorted(sums, z[which], side="right") / N_DENSITY_DRAWS
        far = np.minimum(p_values[which], DRAWN_TAIL)
        p_values[which] = np.where(below > DRAWN_TAIL, below, far)
    # Where probabilities underflow to 0, the standardised means still differ.
    normal = np.where(p_values > 0, ndtri(np.clip(p_values, 1e-300, 1 - 1e-16)), z)
    return LikelihoodComparison(p_values, normal)


def likelihood_reason(p_value: float, z_score: float, level: float) -> Reason:
    """The result for one partition as a reason; below ``level`` its rows are unlikely."""
    return AsLikely(p_value) if p_value >= level else Unlikely(z_score, p_value)


def as_likelihoods(pairs: Sequence[tuple[float, int]]) -> Likelihoods:
    """Likelihoods from pairs (mean log-likelihood, number of rows), one per partition."""
    means, counts = zip(*pairs, strict=True) if pairs else ((), ())
    return Likelihoods(np.array(means, dtype=float), np.array(counts, dtype=float))
