"""Sums over the rows of a partition under given mixtures, and the rows that no fit uses.

Some passes read partitions again. Reading costs more than arithmetic, so one reading computes the sums under several
mixtures. The sums are small and add up over partitions. A new statistic of rows belongs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from dask_dfmr import deadlines
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.mixtures.capped_scores import Point, capped_scores, score_lengths
from dask_dfmr.mixtures.family import (
    BLOCK_FLOATS,
    Array,
    EmSums,
    Family,
    Moments,
    Rows,
    as_block,
    batches,
)
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, RowCut

SCORED_ROWS = 2**16
"""Rows that are divided at the cap at a time, so that no copy of a partition is made."""

N_LONGEST = 4
"""Longest scores of a partition that are told: they show the tail of its rows beyond what a sample does. Of 2,108
consistent partitions of 19 kinds of rows (generated rows and tables), 1 has p < .001 by the law of their tail with 4,
4 with 8, and 9 with 16 (``benchmarks/row_tests.py``)."""


@dataclass(frozen=True)
class Wanted:
    """The statistics to compute besides the log-likelihood; each one costs time or memory.

    Parameters
    ----------
    moments : bool, default True
        Moments of the rows about the components, for an M step and for :meth:`Family.score_of_moments`.
    entropy : bool, default False
        The sum of the entropies of the responsibilities. It takes one more pass over the rows in memory.
    score_cap : float or None, default None
        The sum of the scores of all rows, none longer than this (:mod:`~dask_dfmr.mixtures.capped_scores`). It takes
        as long as several passes, so it is computed under the last of several mixtures alone.
    log_floor : float or None, default None
        Log-densities below this count as this in the log-likelihood.
    cut : RowCut
        That of the fit: the moments and scores are those of its family.
    outside : bool, default False
        In which columns the rows outside are out of range. It takes one more evaluation of the densities.
    """

    moments: bool = True
    entropy: bool = False
    score_cap: float | None = None
    log_floor: float | None = None
    cut: RowCut = COUNTING
    outside: bool = False

    def of_each(self, n_mixtures: int) -> list[Wanted]:
        """What to compute under each of several mixtures."""
        return [replace(self, score_cap=None)] * (n_mixtures - 1) + [self] * min(n_mixtures, 1)


@dataclass(frozen=True)
class Measurement:
    """Sums over rows under one mixture.

    Attributes
    ----------
    n_samples : int
    log_likelihood : float
        Sum of the log-densities, in nats.
    moments : tuple of ndarray, or None
        About the components of the mixture; None unless wanted.
    entropy : float
        Sum over rows of -sum_k r_k log r_k in nats, where r_k are the responsibilities; NaN unless wanted.
    scores : ndarray of shape (n_coordinates,), or None
        Sum of the capped scores; None unless wanted.
    n_outside : int
        Rows beyond the cuts of all components.
    outside_columns : ndarray of shape (n_features,), or None
        How many of them are beyond the cuts of all components in a column alone; None unless wanted.
    longest : ndarray of shape (at most N_LONGEST,), or None
        Lengths of the longest scores, increasing, before the cap; None unless scores are wanted.
    """

    n_samples: int
    log_likelihood: float
    moments: Moments | None = None
    entropy: float = float("nan")
    scores: Array | None = None
    n_outside: int = 0
    outside_columns: Array | None = None
    longest: Array | None = None

    def __add__(self, other: Measurement) -> Measurement:
        moments = longest = None
        if self.moments is not None and other.moments is not None:
            moments = _sum(self.moments, other.moments)
        if self.longest is not None and other.longest is not None:
            longest = _largest(np.concatenate([self.longest, other.longest]))
        return Measurement(
            self.n_samples + other.n_samples,
            self.log_likelihood + other.log_likelihood,
            moments,
            self.entropy + other.entropy,
            _sum_or_none(self.scores, other.scores),
            self.n_outside + other.n_outside,
            _sum_or_none(self.outside_columns, other.outside_columns),
            longest,
        )


@dataclass(frozen=True)
class PartitionStatistics:
    """The statistics of one partition that was read again.

    Attributes
    ----------
    partition : int
        Index of the partition.
    n_samples : int
        Rows in ``measurements``.
    n_omitted : int
        Rows omitted for NaN or infinity (``nan_policy="omit"``).
    outcome : Outcome or None
        Why the partition could not be measured; None if it was measured.
    reason : str
        The same in words.
    measurements : tuple of Measurement
        One per mixture; empty if the partition could not be measured.
    held_out : tuple of Measurement
        Log-likelihoods of the held-out rows, one per mixture; empty if none are held out. ``n_samples`` and
        ``measurements`` do not include these rows.
    """

    partition: int
    n_samples: int = 0
    n_omitted: int = 0
    outcome: Outcome | None = None
    reason: str = ""
    measurements: tuple[Measurement, ...] = ()
    held_out: tuple[Measurement, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether the partition was measured and has rows."""
        return self.outcome is None and self.n_samples > 0

    def without_moments(self) -> PartitionStatistics:
        """The same statistics without moments and scores, which are their largest part."""
        light = tuple(replace(m, moments=None, scores=None) for m in self.measurements)
        return replace(self, measurements=light)


def measure(X: Rows, mixtures: Sequence[Mixture], wanted: Wanted) -> tuple[Measurement, ...]:
    """Sums over finite rows (n_samples, n_features) under each mixture."""
    each = wanted.of_each(len(mixtures))
    return tuple(_measure_one(X, mixture, own) for mixture, own in zip(mixtures, each, strict=True))


def _measure_one(X: Rows, mixture: Mixture, wanted: Wanted) -> Measurement:
    deadlines.check()
    family, point = mixture.family.with_cut(wanted.cut), (mixture.weights, mixture.components)
    scores = longest = None
    if wanted.score_cap is None:
        sums = family.em_pass(X, *point)
    else:
        sums, scores, longest = _sums_with_scores(X, family, point, wanted.score_cap)
    log_likelihood = sums.log_likelihood
    if wanted.log_floor is not None:
        floored = np.maximum(log_densities(mixture, X), wanted.log_floor)
        log_likelihood = float(floored.sum())
    return Measurement(
        len(X),
        log_likelihood,
        sums.moments if wanted.moments else None,
        _entropy_of(X, mixture) if wanted.entropy else float("nan"),
        scores,
        sums.n_outside,
        _outside_by_column(X, mixture, wanted.cut) if wanted.outside else None,
        longest,
    )


def _sums_with_scores(
    X: Rows, family: Family, point: Point, cap: float
) -> tuple[EmSums, Array, Array]:
    """The sums over the rows, those of their capped scores, and lengths of the longest.

    Scores below the cap are linear in their moments.
    The few rows beyond it have moments of their own, so that nothing cancels if they lie far away.
    """
    sums = family.em_pass(X[:0], *point)
    scores, longest = family.score_of_moments(sums.moments, *point), np.empty(0)
    for batch in batches(len(X), SCORED_ROWS):
        rows = X[batch]
        lengths = score_lengths(family, rows, point)
        longest = _largest(np.concatenate([longest, _largest(lengths)]))
        is_far = lengths > cap
        near = family.em_pass(rows[~is_far] if is_far.any() else rows, *point)
        scores = scores + family.score_of_moments(near.moments, *point)
        sums = sums + near
        if is_far.any():
            scores = scores + capped_scores(family, rows[is_far], point, cap).sum(axis=0)
            sums = sums + family.em_pass(rows[is_far], *point)
    return sums, scores, longest


def _largest(lengths: Array) -> Array:
    """The largest of some lengths, increasing."""
    if len(lengths) > N_LONGEST:
        lengths = np.partition(lengths, len(lengths) - N_LONGEST)[-N_LONGEST:]
    return np.sort(lengths)


def _outside_by_column(X: Rows, mixture: Mixture, cut: RowCut) -> Array:
    """How many of the rows beyond the cuts of all components are so in each column alone, (n_features,)."""
    marginals = [mixture.marginal([j]) for j in range(mixture.n_features)]
    counts = np.zeros(mixture.n_features)
    step = max(256, BLOCK_FLOATS // (mixture.n_components * mixture.n_features))
    for batch in batches(len(X), step):
        rows = as_block(X[batch])
        rows = rows[are_outside(rows, mixture, cut)]
        for j, marginal in enumerate(marginals):
            counts[j] += np.count_nonzero(are_outside(rows[:, j : j + 1], marginal, cut))
    return counts


def are_outside(rows: Array, mixture: Mixture, cut: RowCut) -> NDArray[np.bool_]:
    """Whether each row is beyond the cuts of all components, (n_samples,)."""
    family, components = mixture.family, mixture.components
    lowest = family.log_peaks(components) - 0.5 * cut.numbers(mixture.n_features).limit
    return np.asarray((family.log_density(rows, components) < lowest).all(axis=1))


def log_densities(mixture: Mixture, X: Rows) -> Array:
    """Log-density of each row in nats, (n_samples,)."""
    return mixture.family.evaluate(X, mixture.weights, mixture.components, "log_density")


def _entropy_of(X: Rows, mixture: Mixture) -> float:
    """Sum over rows of the entropies of the responsibilities, in nats."""
    entropy, point = 0.0, (mixture.weights, mixture.components)
    for batch in batches(len(X), SCORED_ROWS):
        r = mixture.family.evaluate(X[batch], *point, "responsibilities")
        entropy -= float(xlogy(r, r).sum())
    return entropy


Total = tuple[Measurement, ...]
"""Sums over the rows of several partitions, one per mixture; empty if no partition was measured."""


def total_of(parts: Sequence[PartitionStatistics | Total]) -> Total:
    """The sum of statistics of partitions, or of totals of them, in their order."""
    sums = [part.measurements if isinstance(part, PartitionStatistics) else part for part in parts]
    return reduce(_add, (s for s in sums if s), ())


def _sum_or_none(a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None else a + b


def _sum(a: Moments, b: Moments) -> Moments:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _add(a: Total, b: Total) -> Total:
    return tuple(x + y for x, y in zip(a, b, strict=True)) if a else b


# -- rows that no fit uses -------------------------------------------------------------------------


def split_rows(X: Rows, share: float, seed: np.random.SeedSequence) -> tuple[Rows, Rows]:
    """Split rows into rows to fit and held-out rows, both in their order.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    share : float
        Share of the rows that is held out, rounded to whole rows. At least one row is held out, unless the share is 0
        or there are fewer than two rows.
    seed : SeedSequence
        The same seed and number of rows give the same split.

    Returns
    -------
    fitted : ndarray of shape (n_samples - n_held_out, n_features)
    held_out : ndarray of shape (n_held_out, n_features)
    """
    if share == 0 or len(X) < 2:
        return X, X[:0]
    n_held_out = max(1, round(share * len(X)))
    is_held_out = np.zeros(len(X), dtype=bool)
    is_held_out[np.random.default_rng(seed).permutation(len(X))[:n_held_out]] = True
    return X[~is_held_out], X[is_held_out]
