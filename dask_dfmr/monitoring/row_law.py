"""The law of the rows behind a model: what sums of scores, and numbers of rows of low density, sampling explains.

Two tests compare the rows of a new source with it. Both hold for rows of any law, because the law is that of a sample
of the rows of kept partitions, and not that of the mixture.

- *Scores*: the mean score of the source minus that of the sample, whitened: Rao's test of two samples at one mixture
  (:mod:`dask_dfmr.refinement.score_test`). The error of the mean of the sample stands for the uncertainty of the model.
  Differences between the kept partitions widen the law (:mod:`~dask_dfmr.monitoring.heterogeneity`).
- *Low densities*: how many rows have a density below the k-th lowest one of the sample. If all rows have one continuous
  law, that number has a negative hypergeometric law, whatever the law of the rows is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.row_statistics import Wanted, log_densities, measure
from dask_dfmr.mixtures.capped_scores import cap_for, capped_scores, score_lengths
from dask_dfmr.mixtures.family import Array, Rows
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.information import Information, information
from dask_dfmr.monitoring.heterogeneity import SAMPLING_ALONE, Heterogeneity, heterogeneity_of
from dask_dfmr.refinement.score_test import (
    FEWEST_SCORE_DRAWS,
    MOST_NUMBERS,
    MOST_SCORE_DRAWS,
    N_FOLDS,
    RowScores,
    mean_of,
    row_scores_of,
)

LEVEL_ROWS = (64, 256, 1024, 4096, 16384, 65536)
"""Numbers of rows that have a cap of their own. A row of a heavy tail may weigh more in a source of more rows."""

LOW_RANKS = (1, 16)
"""Ranks k of the density thresholds. Of 16,000 rows, 1 in 1,000 lies below the 16th lowest density: many rows that are
somewhat unlikely. Below the lowest density lies almost none: a few rows that are very unlikely."""

LAW_SEED = 0
"""Seed of the rows that are drawn from a mixture: the law is the same at every call."""


@dataclass(frozen=True)
class Level:
    """The law of capped scores for sources of at least ``n_rows`` rows.

    Attributes
    ----------
    n_rows : int
    cap : float
    mean : ndarray of shape (n_coordinates,)
        Mean score of consistent rows.
    row_scores : RowScores
    """

    n_rows: int
    cap: float
    mean: Array
    row_scores: RowScores


class LowDensities(NamedTuple):
    """Rows of low density in one source.

    ``p_values`` has one entry per threshold, ``is_low`` (n_rows,) marks the rows below the last one, and
    ``n_expected`` is their number that is to be expected.
    """

    p_values: tuple[float, ...]
    is_low: NDArray[np.bool_]
    n_expected: float


@dataclass(frozen=True, eq=False)
class RowLaw:
    """The law of consistent rows at one mixture.

    Attributes
    ----------
    mixture : Mixture
    about : Information
        It whitens scores by the covariance that they have, which is its ``root``.
    levels : tuple of Level
        By number of rows, ascending.
    lowest : ndarray of shape (n_lowest,)
        The lowest log-densities of the sample, ascending.
    n_sampled : int
        Rows that ``lowest`` comes from.
    n_rows : float
        Rows that the mean score is uncertain by: those of the sample, or those of the fit, inf if it has no error.
    is_of_rows : bool
        Whether rows of the fit gave the law, and not rows that were drawn from the mixture.
    between : Heterogeneity
        How much more kept partitions differ than sampling explains.
    """

    mixture: Mixture
    about: Information
    levels: tuple[Level, ...]
    lowest: Array
    n_sampled: int
    n_rows: float
    is_of_rows: bool
    between: Heterogeneity = SAMPLING_ALONE

    def p_of_scores(self, X: Rows) -> tuple[float, float]:
        """P-value of finite rows by their scores, and how many times as far they are as sampling explains."""
        n = len(X)
        level = [one for one in self.levels if one.n_rows <= max(n, self.levels[0].n_rows)][-1]
        wanted = Wanted(moments=False, score_cap=level.cap)
        (found,) = measure(X, [self.mixture], wanted)
        assert found.scores is not None
        with np.errstate(over="ignore", invalid="ignore"):
            white = self.about.whiten(found.scores / n - level.mean)
            effective = n / (1.0 + n / self.n_rows)
            statistic = effective * float(white @ white)
        if not np.isfinite(statistic):  # beyond all numbers
            return 0.0, np.inf
        scores, (scale, spread) = level.row_scores, self.between.at(effective)
        matched = scores.as_of_many_rows(np.array([statistic]), np.array([effective]))
        law = scores.many_rows.scaled(scale, spread)
        return float(law.sf(matched)[0]), float(np.sqrt(statistic / law.mean))

    def low_densities(self, X: Rows) -> LowDensities:
        """Which of finite rows have low densities, and how likely so many of them are."""
        from scipy.stats import hypergeom

        densities, n = log_densities(self.mixture, X), len(X)
        p_values = []
        for rank in LOW_RANKS:
            k = min(rank, len(self.lowest))
            is_low = densities < self.lowest[k - 1]
            count = int(is_low.sum())
            # At least `count` new rows come before the k-th old one if they are among the first count + k - 1 of all.
            p = hypergeom.sf(count - 1, self.n_sampled + n, n, count + k - 1) if count else 1.0
            p_values.append(float(p))
        return LowDensities(tuple(p_values), is_low, n * k / (self.n_sampled + 1))


def law_of_rows(
    mixture: Mixture, samples: Sequence[Array], estimates: Sequence[LocalEstimate] = ()
) -> RowLaw | None:
    """The law of the rows (n_rows, n_features) that were sampled from consistent partitions; None if they are too few.

    The estimates of these partitions show how much more they differ than sampling explains.
    A covariance fits the rows that it was computed from better than others. So the scores of each part of the rows are
    whitened by the covariance of the other parts before their moments are taken.
    """
    rows = np.concatenate(list(samples)) if len(samples) else np.empty((0, mixture.n_features))
    rng = np.random.default_rng(LAW_SEED)
    point = (mixture.weights, mixture.components)
    about = information(mixture.family, *point, rng)
    n_most = max(FEWEST_SCORE_DRAWS, MOST_NUMBERS // len(about.normal))
    rows = rows[rng.permutation(len(rows))[:n_most]]
    if len(rows) < FEWEST_SCORE_DRAWS:
        return None
    levels, wide = _levels(mixture, about, rows)
    lowest = np.sort(log_densities(mixture, rows))[: max(LOW_RANKS)]
    between = heterogeneity_of(mixture, estimates, about, wide, levels[-1].row_scores)
    return RowLaw(mixture, wide, levels, lowest, len(rows), float(len(rows)), True, between)


def law_of_mixture(mixture: Mixture, n_rows: float) -> RowLaw:
    """The law of rows of the mixture itself, which was fitted to so many rows."""
    rng = np.random.default_rng(LAW_SEED)
    point = (mixture.weights, mixture.components)
    about = information(mixture.family, *point, rng)
    n_drawn = int(
        np.clip(MOST_NUMBERS // len(about.normal), FEWEST_SCORE_DRAWS, 2 * MOST_SCORE_DRAWS)
    )
    rows, _ = mixture.sample(n_drawn, rng)
    rows = rows[rng.permutation(n_drawn)]
    cap = float(score_lengths(mixture.family, rows, point).max())
    scores = capped_scores(mixture.family, rows, point, cap)
    moments = row_scores_of(about.whiten(scores - scores.mean(axis=0)))
    level = Level(LEVEL_ROWS[0], cap, np.zeros(len(about.normal)), moments)
    lowest = np.sort(log_densities(mixture, rows))[: max(LOW_RANKS)]
    return RowLaw(mixture, about, (level,), lowest, n_drawn, n_rows, False)


def _levels(
    mixture: Mixture, about: Information, rows: Array
) -> tuple[tuple[Level, ...], Information]:
    """The laws of sums of so and so many rows, and the whitening of all."""
    family, point = mixture.family, (mixture.weights, mixture.components)
    longest = float(score_lengths(family, rows, point).max())
    levels: list[Level] = []
    wide, of_folds = about, [about] * N_FOLDS
    for n_rows in LEVEL_ROWS:
        cap = cap_for(family, point, [rows], n_rows, mixture.n_parameters)
        if levels and cap == levels[-1].cap:
            continue
        scores = capped_scores(family, rows, point, cap)
        mean = scores.mean(axis=0)
        scores -= mean
        folds = [scores[f::N_FOLDS] for f in range(N_FOLDS)]
        if not levels:
            wide, of_folds = _whitenings(about, folds)
        moments = [row_scores_of(w.whiten(fold)) for w, fold in zip(of_folds, folds, strict=True)]
        levels.append(Level(n_rows, cap, mean, mean_of(moments)))
        if cap > longest:  # no row is capped any more
            break
    return tuple(levels), wide


def _whitenings(
    about: Information, folds: Sequence[Array]
) -> tuple[Information, list[Information]]:
    """The whitening by the covariance of all scores, and for each part that by the other parts."""
    if about.root is None:
        return about, [about] * len(folds)
    grams = [white.T @ white for white in map(about.whiten, folds)]
    total, n_rows = np.sum(grams, axis=0), sum(map(len, folds))
    others = [
        about.widened((total - gram) / (n_rows - len(fold)))
        for gram, fold in zip(grams, folds, strict=True)
    ]
    wide = about.widened(total / n_rows)
    # One root, in the order in which a file has it: BLAS gives other last digits for another order.
    root = np.ascontiguousarray(wide.root if wide.score_root is None else wide.score_root)
    return wide._replace(root=root, score_root=None), others
