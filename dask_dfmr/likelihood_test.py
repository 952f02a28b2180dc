"""Are the rows of a partition as likely under the global mixture as others' rows are? For partitions too small to fit.

Asked where nothing is known of the others but their local estimates: what the kept partitions say of their own
rows gives location and spread of the mean log-likelihood, the mixture its shape for few rows. Knows no Dask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm, pearson3

from dask_dfmr.calibration import Law, settle
from dask_dfmr.families import Array
from dask_dfmr.mixture import Mixture

N_DRAWS = 2**13
"""Rows drawn for the law of a log-density."""


class Likelihoods(NamedTuple):
    """Mean log-likelihoods of partitions, nats per row, and their numbers of rows; both (n_partitions,)."""

    means: Array
    counts: Array


class LikelihoodVerdict(NamedTuple):
    """``z_scores`` are positive for rows that are more likely than others'; ``p_values`` are two-sided."""

    p_values: Array
    z_scores: Array


def judge_by_likelihood(
    mixture: Mixture, kept: Likelihoods, small: Likelihoods, rng: np.random.Generator
) -> LikelihoodVerdict:
    """Hold the mean log-likelihoods of small partitions against those of the kept ones.

    Parameters
    ----------
    mixture : Mixture
        The global one.
    kept : Likelihoods
        Under each partition's own estimate: better by about half a nat per free parameter in total.
    small : Likelihoods
        Under the global mixture.
    rng : Generator
    """
    variance, skewness = _row_moments(mixture, rng)
    means = kept.means - mixture.n_parameters / (2.0 * kept.counts)
    usual = float(np.average(means, weights=kept.counts))
    spread = settle(kept.counts * (means - usual) ** 2 / variance, Law(1.0, 1.0)).scale
    errors = np.sqrt(spread * variance * (1.0 / small.counts + 1.0 / kept.counts.sum()))
    z = (small.means - usual) / errors
    return _two_sided(z, skewness / np.sqrt(small.counts))


def _row_moments(mixture: Mixture, rng: np.random.Generator) -> tuple[float, float]:
    """Variance and skewness of the log-density of a row drawn from the mixture."""
    family, components = mixture.family, mixture.components
    rows, _ = family.sample(N_DRAWS, mixture.weights, components, rng)
    with np.errstate(divide="ignore"):
        joint = family.log_density(rows, components) + np.log(mixture.weights)
    deviation = logsumexp(joint, axis=1)
    deviation -= deviation.mean()
    variance = float(np.mean(deviation**2))
    return variance, float(np.mean(deviation**3)) / variance**1.5


def _two_sided(z: Array, skewness: Array) -> LikelihoodVerdict:
    """P-values by a law with the first three moments, and the normal scores that are as improbable."""
    low, high = pearson3.cdf(z, skewness), pearson3.sf(z, skewness)
    tails = np.minimum(low, high)
    # Far out probabilities are 0 to floating point, and the standard scores themselves say more.
    normal = np.where(tails > 0, norm.isf(np.maximum(tails, 1e-300)), np.abs(z))
    return LikelihoodVerdict(np.minimum(2.0 * tails, 1.0), np.where(low < high, -normal, normal))


def likelihood_in_words(p_value: float, z_score: float, level: float) -> str:
    """What was found, in a sentence."""
    probability = f"p = {p_value:.2g}" if p_value > 0 else "p < 1e-300"
    if p_value >= level:
        return f"its rows are as likely as others' ({probability})"
    how = (
        "more likely than others' under the global mixture"
        if z_score > 0
        else "unlikely under the global mixture"
    )
    return f"its rows are {how}: z = {z_score:.3g} ({probability})"


def as_likelihoods(pairs: Sequence[tuple[float, int]]) -> Likelihoods:
    """Of pairs (mean log-likelihood, rows)."""
    means, counts = zip(*pairs, strict=True)
    return Likelihoods(np.array(means, dtype=float), np.array(counts, dtype=float))
