"""Rows that belong nowhere: their share in each partition, and whether it is larger than in the others.

A row is outside if it is beyond the cut of every component of the local fit (:mod:`dask_dfmr.mixtures.row_cut`). The
share says how good the rows of a partition are. It excludes nothing by itself.

Shares of consistent partitions vary by sampling, and on real rows by more than that, because each partition has its own
fit. So the number of rows outside has a beta-binomial law with the share and the variation of the majority.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln

from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.tails import binom_sf

FEWEST_COMPARED = 4
"""Of fewer partitions none can be compared with the others."""

AGREEING_LEVEL = 0.003
"""Partitions with a smaller p-value do not count in the share and the variation of the majority.

Measured on the ten families of benchmarks/row_families.py, 40 consistent partitions of 400, of 1,500, and of 200 or
2,000 rows: with .01, 4 and 7 of 40 have p < .001 where fits end in several optima; with .003, 1 of 720. With .0001, 12
of 40 partitions of 1,500 rows with 2 % more rows outside hide each other twice as often."""

MOST_ROUNDS = 10
"""Rounds in which the members of the majority are determined, at most."""

NORMAL_MAD = 0.6745
"""Median absolute value of a standard normal number."""

LEAST_SHARE, MOST_COLUMNS_NAMED = 0.25, 3
"""Columns that are out of range in so many of the rows outside are named, so many at most."""

LEAST_COUNT = 0.5
"""Expected rows outside of all members together are at least this many: of no rows outside at all, one is no alarm."""

SUMMED_TERMS = 1024
"""Terms of a tail that are summed at a time."""

UNSUMMED = 1e-12
"""Share of a tail that may be missing from its sum."""


class OutsideRows(NamedTuple):
    """Rows outside in each partition, all (n_partitions,); NaN where they are not known.

    ``shares`` are those of the rows of the fit, ``expected`` those of the majority, and ``p_values`` the probabilities
    that a consistent partition of as many rows has at least as many rows outside.
    """

    shares: Array
    expected: Array
    p_values: Array

    def in_words(self, index: int, level: float) -> str:
        """How many rows of a partition belong nowhere; empty if that are no more than in others at this level."""
        if not self.p_values[index] < level:
            return ""
        own, others = 100.0 * self.shares[index], 100.0 * self.expected[index]
        return f"{own:.2g} % of its rows belong nowhere, {others:.2g} % elsewhere (p = {self.p_values[index]:.1g})"


def columns_in_words(n_outside: int, by_column: Array, labels: Sequence[str]) -> str:
    """The columns that put rows outside, in words.

    Parameters
    ----------
    n_outside : int
        Rows outside.
    by_column : ndarray of shape (n_features,)
        How many of them are beyond the cut of every component in this column alone.
    labels : sequence of str, length n_features
        Names of the columns.
    """
    shares = by_column / max(n_outside, 1)
    order = np.argsort(-shares, kind="stable")
    named = [int(j) for j in order if shares[j] >= LEAST_SHARE]
    if not named:
        return "no single column is out of range in most of them"
    if len(named) == len(labels) > 1:
        return f"all columns are out of range in {shares.min():.0%} of them or more"
    texts = [f"{labels[j]} in {shares[j]:.0%} of them" for j in named[:MOST_COLUMNS_NAMED]]
    more = f" and {len(named) - MOST_COLUMNS_NAMED} more" if len(named) > MOST_COLUMNS_NAMED else ""
    return f"out of range: {', '.join(texts)}{more}"


class _Law(NamedTuple):
    """The law of the share of rows outside: its mean, and the correlation of rows of one partition."""

    share: float
    correlation: float

    def p_values(self, n_outside: Array, n_samples: Array) -> Array:
        """Probability of at least so many rows outside."""
        if self.correlation <= 0.0:
            return binom_sf(n_outside - 1, n_samples, self.share)
        size = 1.0 / self.correlation - 1.0
        a, b = self.share * size, (1.0 - self.share) * size
        pairs = zip(n_outside, n_samples, strict=True)
        return np.array([_upper_tail(int(x), int(n), a, b) for x, n in pairs])


def _upper_tail(x: int, n: int, a: float, b: float) -> float:
    """P(X >= x) for the beta-binomial law of n rows.

    The shorter side is summed. SciPy takes 1 minus the lower tail, which leaves rounding of the sum where p is small.
    """
    is_upper = x * (a + b) > n * a
    first, last, step = (x, n + 1, 1) if is_upper else (x - 1, -1, -1)
    total = 0.0
    for start in range(first, last, step * SUMMED_TERMS):
        stop = start + step * SUMMED_TERMS
        k = np.arange(start, min(stop, last) if is_upper else max(stop, last), step)
        log_ways = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
        terms: Array = np.exp(log_ways + betaln(k + a, n - k + b) - betaln(a, b))
        total += float(terms.sum())
        # From the mean on, terms fall the faster the farther out.
        if terms[-1] * abs(last - k[-1]) <= UNSUMMED * total:
            break
    return min(total, 1.0) if is_upper else max(1.0 - total, 0.0)


def rows_outside_of(rows: Sequence[Mapping[str, Any]], is_kept: NDArray[np.bool_]) -> OutsideRows:
    """The comparison of local fits, from their rows of the report: ``n_outside`` and ``n_samples`` of each."""
    known = [row["n_outside"] is not None and row["n_samples"] > 0 for row in rows]
    n_outside = [row["n_outside"] if k else np.nan for row, k in zip(rows, known, strict=True)]
    return rows_outside(n_outside, [row["n_samples"] for row in rows], is_kept)


def rows_outside(
    n_outside: Sequence[float], n_samples: Sequence[float], is_kept: NDArray[np.bool_]
) -> OutsideRows:
    """Compare the shares of rows outside with those of the majority of the kept partitions.

    Parameters
    ----------
    n_outside, n_samples : sequence of float, length n_partitions
        Rows outside and rows of the fits; NaN where there is none, or the rows outside are not known.
    is_kept : ndarray of bool, shape (n_partitions,)
        Partitions that make up the majority.
    """
    x, n = np.array(n_outside, dtype=float), np.array(n_samples, dtype=float)
    is_known = np.isfinite(x) & (n > 0)
    is_known &= np.where(is_known, x, 0.0) <= n
    shares, expected, p_values = (np.full(len(x), np.nan) for _ in range(3))
    shares[is_known] = x[is_known] / n[is_known]
    compared = is_known & is_kept
    if compared.sum() >= FEWEST_COMPARED:
        law = _law_of_majority(x[compared], n[compared])
        expected[is_known] = law.share
        p_values[is_known] = law.p_values(x[is_known], n[is_known])
    return OutsideRows(shares, expected, p_values)


def _law_of_majority(x: Array, n: Array) -> _Law:
    """The law of the partitions that it does not make outliers itself.

    It starts with median and median absolute deviation of transformed shares, which a minority does not decide.
    """
    law = _by_medians(x, n)
    members = np.zeros(len(x), dtype=bool)
    for _ in range(MOST_ROUNDS):
        last, members = members, law.p_values(x, n) >= AGREEING_LEVEL
        if 2 * members.sum() <= len(x) or np.array_equal(members, last):
            break
        law = _by_moments(x[members], n[members])
    # The share of the majority has an error of its own.
    m = max(int(members.sum()), 1)
    return law._replace(correlation=law.correlation * (1.0 + 1.0 / m) + 1.0 / n.sum())


def _by_medians(x: Array, n: Array) -> _Law:
    """Share and correlation from arc sines of square roots, which have the variance 1 / 4 n + correlation / 4."""
    angles = np.arcsin(np.sqrt((x + 0.375) / (n + 0.75)))
    center = float(np.median(angles))
    spread = float(np.median(np.abs(angles - center) * 2.0 * np.sqrt(n))) / NORMAL_MAD
    typical = float(np.median(n))
    share = max(float(np.sin(center)) ** 2, LEAST_COUNT / float(n.sum()))
    return _Law(share, _correlation(spread**2, typical))


def _by_moments(x: Array, n: Array) -> _Law:
    """Share and correlation by Pearson's chi-square."""
    share = max(float(x.sum()), LEAST_COUNT) / float(n.sum())
    squares = (x - n * share) ** 2 / (n * share * (1.0 - share))
    return _Law(share, _correlation(float(squares.sum()) / (len(x) - 1), float(n.mean())))


def _correlation(overdispersion: float, n: float) -> float:
    """The correlation of rows that makes the variance of a sum of n of them so many times the binomial one."""
    return float(np.clip((overdispersion - 1.0) / max(n - 1.0, 1.0), 0.0, 0.5))
