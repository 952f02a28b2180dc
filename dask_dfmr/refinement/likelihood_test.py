"""Tests of small partitions: whether their rows are as likely under the global mixture as those of the kept ones.

A partition with too few rows for an estimate is tested by the mean log-likelihood of its rows. The log-likelihoods that
the kept partitions report for their own rows give location and spread of its law. Rows drawn from the mixture give its
shape for few rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm, pearson3

from dask_dfmr.aggregation.null_law import Law, settle
from dask_dfmr.aggregation.reasons import AsLikely, Reason, Unlikely
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture

N_DENSITY_DRAWS = 2**14
"""Rows drawn for the law of the log-density of one row."""

FEW_ROWS, DRAWN_TAIL = 64, 1e-3
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


def compare_likelihoods(
    mixture: Mixture, kept: Likelihoods, small: Likelihoods, rng: np.random.Generator
) -> LikelihoodComparison:
    """Compare the mean log-likelihoods of small partitions with those of the kept ones.

    Parameters
    ----------
    mixture : Mixture
        The global mixture.
    kept : Likelihoods
        Under each partition's own estimate. In total each is larger by about half a nat per free parameter than under
        the true mixture; the comparison subtracts that.
    small : Likelihoods
        Under the global mixture.
    rng : Generator
        Of the rows drawn for the law.
    """
    drawn = _drawn_log_densities(mixture, rng)
    variance = float(drawn.var())
    means = kept.means - mixture.n_parameters / (2.0 * kept.counts)
    usual = float(np.average(means, weights=kept.counts))
    spread = settle(kept.counts * (means - usual) ** 2 / variance, Law(1.0, 1.0)).scale
    errors = np.sqrt(spread * variance * (1.0 / small.counts + 1.0 / kept.counts.sum()))
    z = (small.means - usual) / errors
    return _p_values(z, small.counts.astype(int), (drawn - drawn.mean()) / drawn.std(), rng)


def _drawn_log_densities(mixture: Mixture, rng: np.random.Generator) -> Array:
    """Log-densities of rows drawn from the mixture, (N_DENSITY_DRAWS,)."""
    family, components = mixture.family, mixture.components
    rows, _ = family.sample(N_DENSITY_DRAWS, mixture.weights, components, rng)
    with np.errstate(divide="ignore"):
        joint = family.log_density(rows, components) + np.log(mixture.weights)
    drawn: Array = logsumexp(joint, axis=1)
    return drawn


def _p_values(
    z: Array, counts: NDArray[np.int_], drawn: Array, rng: np.random.Generator
) -> LikelihoodComparison:
    """One-sided p-values by a law with the first three moments, and the normal scores that are as improbable.

    ``drawn`` are standardised log-densities of single rows.
    """
    skewness = float(np.mean(drawn**3)) / np.sqrt(counts)
    p_values = np.array(pearson3.cdf(z, skewness))
    for n in np.unique(counts[counts <= FEW_ROWS]):
        # The law of few rows may have any shape. Draws give all of it but the far tail.
        which = counts == n
        sums = np.sort(rng.choice(drawn, (N_DENSITY_DRAWS, n)).sum(axis=1) / np.sqrt(n))
        below = np.searchsorted(sums, z[which], side="right") / N_DENSITY_DRAWS
        far = np.minimum(p_values[which], DRAWN_TAIL)
        p_values[which] = np.where(below > DRAWN_TAIL, below, far)
    # Where probabilities underflow to 0, the standardised means still differ.
    normal = np.where(p_values > 0, norm.ppf(np.clip(p_values, 1e-300, 1 - 1e-16)), z)
    return LikelihoodComparison(p_values, normal)


def likelihood_reason(p_value: float, z_score: float, level: float) -> Reason:
    """The result for one partition as a reason; below ``level`` its rows are unlikely."""
    return AsLikely(p_value) if p_value >= level else Unlikely(z_score, p_value)


def as_likelihoods(pairs: Sequence[tuple[float, int]]) -> Likelihoods:
    """Likelihoods from pairs (mean log-likelihood, number of rows), one per partition."""
    means, counts = zip(*pairs, strict=True)
    return Likelihoods(np.array(means, dtype=float), np.array(counts, dtype=float))
