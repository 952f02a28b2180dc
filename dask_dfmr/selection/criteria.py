"""Criteria that compare candidates on the rows of the common set, and the choice by one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.row_statistics import PartitionStatistics
from dask_dfmr.mixtures.family import Array

CRITERIA = ("bic", "aic", "icl", "held_out")
"""Values of ``criterion``, which are columns of the selection table too."""


@dataclass(frozen=True)
class Score:
    """Criteria of one candidate on the rows of the common set.

    Attributes
    ----------
    n_parameters : int
        Free parameters p.
    log_likelihood : float
        Log-likelihood l of the N training rows together, in nats.
    aic, bic, icl : float
        -2 l + 2 p; -2 l + p log N; and BIC + 2 sum over rows of the entropy of the responsibilities. Lower is better.
    held_out : float
        Mean log-likelihood of the held-out rows, in nats per row; NaN if no rows are held out.
    held_out_se : float
        Its standard error, from the differences between partitions; NaN with fewer than two.
    """

    n_parameters: int
    log_likelihood: float
    aic: float
    bic: float
    icl: float
    held_out: float
    held_out_se: float


class Scores(NamedTuple):
    """Criteria of all candidates on the same rows, and comparisons with the best candidate on held-out rows.

    ``gaps`` are the amounts by which held-out means are below the best candidate's, in nats per row, and ``gap_errors``
    their standard errors. Both candidates of a pair are measured on the same rows, so that differences between
    partitions cancel.
    """

    scores: list[Score]
    gaps: list[float]
    gap_errors: list[float]
    n_samples: int
    n_held_out: int


def score_all(partitions: Sequence[PartitionStatistics], n_parameters: Sequence[int]) -> Scores:
    """The criteria of all candidates, from the statistics of each partition of the common set.

    Parameters
    ----------
    partitions : sequence of PartitionStatistics
        With one measurement per candidate, of training rows and of held-out rows.
    n_parameters : sequence of int
        Free parameters of the candidates.
    """
    n_samples = sum(r.n_samples for r in partitions)
    tested = [r for r in partitions if r.held_out]
    counts = np.array([r.held_out[0].n_samples for r in tested], dtype=np.float64)
    sums = np.array([[m.log_likelihood for m in r.held_out] for r in tested])
    scores = []
    for c, p in enumerate(n_parameters):
        # In the order of the partitions, so that the bits do not depend on the scheduler.
        log_likelihood = float(sum(r.measurements[c].log_likelihood for r in partitions))
        entropy = float(sum(r.measurements[c].entropy for r in partitions))
        bic = -2.0 * log_likelihood + p * float(np.log(n_samples))
        aic = -2.0 * log_likelihood + 2.0 * p
        held_out = mean_and_error(sums[:, c], counts) if tested else (np.nan, np.nan)
        scores.append(Score(p, log_likelihood, aic, bic, bic + 2.0 * entropy, *held_out))
    if not tested:
        nothing = [float("nan")] * len(scores)
        return Scores(scores, nothing, nothing, n_samples, 0)
    best = int(np.argmax([s.held_out for s in scores]))
    pairs = [mean_and_error(sums[:, best] - column, counts) for column in sums.T]
    gaps, errors = [gap for gap, _ in pairs], [error for _, error in pairs]
    return Scores(scores, gaps, errors, n_samples, int(counts.sum()))


def mean_and_error(sums: Array, counts: Array) -> tuple[float, float]:
    """Mean per row, and its standard error from the differences between groups of rows.

    ``sums`` and ``counts`` (n_groups,) are sums over the rows of each group, and numbers of rows.
    """
    total, n_groups = counts.sum(), len(counts)
    mean = sums.sum() / total
    if n_groups < 2:
        return float(mean), float("nan")
    residuals = sums - counts * mean
    return float(mean), float(np.sqrt(n_groups / (n_groups - 1) * (residuals @ residuals)) / total)


def pick(
    values: Array, n_parameters: NDArray[np.intp], gaps: Array, gap_errors: Array, criterion: str
) -> int:
    """The candidate that a criterion chooses, of those whose values are not NaN; of equal ones the smallest.

    It has the lowest value. By "held_out" it has the fewest parameters of those that are at most one standard error of
    the difference below the best: the order of candidates that describe held-out rows equally well is due to chance.
    All arrays have one entry per candidate.
    """
    known = np.flatnonzero(~np.isnan(values))
    if criterion == "held_out":
        # The best of all may not be among those whose values are known.
        alike = known[gaps[known] - gaps[known].min() <= np.nan_to_num(gap_errors[known])]
        return int(min(alike, key=lambda c: (n_parameters[c], gaps[c])))
    return int(min(known, key=lambda c: (values[c], n_parameters[c])))
