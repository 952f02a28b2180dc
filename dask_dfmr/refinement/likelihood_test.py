"""Are the rows of a partition as likely under the global mixture as others' rows are? For partitions too small to fit.

Asked where nothing is known of the others but their local estimates: what the kept partitions say of their own
rows gives location and spread of the mean log-likelihood, the mixture its shape for few rows. Knows no Dask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm, pearson3

from dask_dfmr.aggregation.null_law import Law, settle
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture

N_DRAWS = 2**14
"""Rows drawn for the law of a log-density."""

FEW_ROWS, DRAWN_TAIL = 64, 1e-3
"""Of so few rows the law is drawn, down to this probability."""


class Likelihoods(NamedTuple):
    """Mean log-likelihoods of partitions, nats per row, and their numbers of rows; both (n_partitions,)."""

    means: Array
    counts: Array


class LikelihoodVerdict(NamedTuple):
    """``p_values``: of rows that are no more likely than these; ``z_scores``: negative for unlikely rows."""

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
    drawn = _drawn_log_densities(mixture, rng)
    variance = float(drawn.var())
    means = kept.means - mixture.n_parameters / (2.0 * kept.counts)
    usual = float(np.average(means, weights=kept.counts))
    spread = settle(kept.counts * (means - usual) ** 2 / variance, Law(1.0, 1.0)).scale
    errors = np.sqrt(spread * variance * (1.0 / small.counts + 1.0 / kept.counts.sum()))
    z = (small.means - usual) / errors
    return _verdict(z, small.counts.astype(int), (drawn - drawn.mean()) / drawn.std(), rng)


def _drawn_log_densities(mixture: Mixture, rng: np.random.Generator) -> Array:
    """Of rows drawn from the mixture, (N_DRAWS,)."""
    family, components = mixture.family, mixture.components
    rows, _ = family.sample(N_DRAWS, mixture.weights, components, rng)
    with np.errstate(divide="ignore"):
        joint = family.log_density(rows, components) + np.log(mixture.weights)
    drawn: Array = logsumexp(joint, axis=1)
    return drawn


def _verdict(
    z: Array, counts: NDArray[np.int_], drawn: Array, rng: np.random.Generator
) -> LikelihoodVerdict:
    """One-sided p-values by a law with the first three moments, and the normal scores that are as improbable.

    ``drawn`` are standardised log-densities of single rows.
    """
    skewness = float(np.mean(drawn**3)) / np.sqrt(counts)
    p_values = np.array(pearson3.cdf(z, skewness))
    for n in np.unique(counts[counts <= FEW_ROWS]):
        # The law of few rows may have any shape. Draws know all of it but the far tail.
        which = counts == n
        sums = np.sort(rng.choice(drawn, (N_DRAWS, n)).sum(axis=1) / np.sqrt(n))
        below = np.searchsorted(sums, z[which], side="right") / N_DRAWS
        far = np.minimum(p_values[which], DRAWN_TAIL)
        p_values[which] = np.where(below > DRAWN_TAIL, below, far)
    # Far out probabilities are 0 to floating point, and the standard scores themselves say more.
    normal = np.where(p_values > 0, norm.ppf(np.clip(p_values, 1e-300, 1 - 1e-16)), z)
    return LikelihoodVerdict(p_values, normal)


def likelihood_in_words(p_value: float, z_score: float, level: float) -> str:
    """What was found, in a sentence."""
    probability = f"p = {p_value:.2g}" if p_value > 0 else "p < 1e-300"
    if p_value >= level:
        return f"its rows are as likely as others' ({probability})"
    return f"its rows are unlikely under the global mixture: z = {z_score:.3g} ({probability})"


def as_likelihoods(pairs: Sequence[tuple[float, int]]) -> Likelihoods:
    """Of pairs (mean log-likelihood, rows)."""
    means, counts = zip(*pairs, strict=True)
    return Likelihoods(np.array(means, dtype=float), np.array(counts, dtype=float))
