"""Changes of whole columns that explain the rows of a source: undone, the rows agree with the model.

A fit to rows in another unit says little: one component may take all of them. The rows themselves can be changed back.
Trial changes take their numbers from means and spreads of columns. Those under which the rows are most likely are held
against the law of the model as the rows were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from dask_dfmr.explanation.column_changes import (
    FACTORS,
    NOTICED,
    ColumnChange,
    round_factor,
)
from dask_dfmr.explanation.standard_errors import column_moments
from dask_dfmr.local.row_statistics import log_densities
from dask_dfmr.local.starts import subsample
from dask_dfmr.mixtures.family import Array, Rows
from dask_dfmr.monitoring.row_law import RowLaw

Changes = tuple[ColumnChange, ...]

MOST_TESTED_ROWS = 1000
"""Rows on which trials are compared."""

MOST_PAIRS = 45
"""Pairs of columns whose exchange is tried: the most similar ones, if there are more."""

TRIMMED = 0.05
"""Share of the least likely rows that do not count: a few rows far away must not decide which change fits best."""

N_TESTED = 3
"""Best trials with as many free numbers that are held against the law. Fewer free numbers come first."""

REFINED_ERRORS = 4.0
"""Standard errors of a mean within which the best shift is looked for."""

NEIGHBOR = 0.15
"""Factors between known units that are this far from the ratio of spreads, on a logarithmic scale, are tried too. The
spread of few rows with heavy tails is as uncertain."""


def changed_columns(law: RowLaw, X: Rows, level: float) -> Changes | None:
    """The changes of columns without which the rows are not unlikely; None if there are none.

    Parameters
    ----------
    law : RowLaw
    X : ndarray of shape (n_samples, n_features)
        Finite rows.
    level : float
        Rows with a smaller p-value are unlikely.
    """
    rows = subsample(X, MOST_TESTED_ROWS, np.random.default_rng(0)).astype(np.float64)

    def density(changes: Changes) -> float:
        """Mean log-density of the rows if the changes were made to rows of the model."""
        found = log_densities(law.mixture, undone(rows, changes))
        kept = np.sort(np.nan_to_num(found, nan=-np.inf))[int(TRIMMED * len(rows)) :]
        stretched = sum(len(one.columns) * np.log(abs(one.factor)) for one in changes)
        return float(kept.mean() - stretched)

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        trials = [(density(c), -i, c, n_free) for i, (c, n_free) in enumerate(_trials(law, rows))]
        for n_free in sorted({trial[3] for trial in trials}):
            own = sorted((t for t in trials if t[3] == n_free), key=lambda t: t[:2], reverse=True)
            for _, _, changes, _ in own[:N_TESTED]:
                refined = _refined(changes, rows, density) if n_free == 1 else changes
                left = undone(X.astype(np.float64), refined)
                if np.isfinite(left).all() and law.p_of_scores(left)[0] >= level:
                    return refined
    return None


def _refined(changes: Changes, rows: Array, density: Callable[[Changes], float]) -> Changes:
    """One change with the shift, or the factor, under which the rows are most likely."""
    from scipy.optimize import minimize_scalar

    (change,) = changes
    # The mean of the rows is a few standard errors off; so is the logarithm of their spread, in units of its own.
    error = REFINED_ERRORS / np.sqrt(len(rows))
    unit = float(rows[:, change.columns[0]].std())

    def at(step: float) -> Changes:
        if change.kind == "offset":
            return (replace(change, shift=change.shift + step * unit),)
        return (replace(change, factor=change.factor * float(np.exp(step))),)

    found = minimize_scalar(
        lambda step: -density(at(step)), bounds=(-error, error), options={"xatol": error / 100}
    )
    return at(float(found.x))


def undone(rows: Array, changes: Changes) -> Array:
    """The rows before the changes of columns."""
    rows = rows.copy()
    for change in changes:
        if change.order:
            rows = rows[:, np.argsort(change.order)]
        else:
            index = list(change.columns)
            rows[:, index] = (rows[:, index] - change.shift) / change.factor
    return rows


def _trials(law: RowLaw, rows: Array) -> Iterator[tuple[Changes, int]]:
    """All changes to try, and how many of their numbers were chosen for these rows."""
    mean0, sd0 = column_moments(law.mixture)
    mean, sd = rows.mean(axis=0), rows.std(axis=0)
    d = rows.shape[1]
    factors = np.clip(np.where(sd > 0, sd, sd0) / sd0, *FACTORS)
    everything = tuple(range(d))
    if d > 1:
        common = float(np.exp(np.log(factors).mean()))
        for factor in _known(common):
            yield (ColumnChange("unit", everything, factor),), int(factor == common)
        for changes in _exchanges(mean, sd, mean0, sd0):
            yield changes, 0
    for j in everything:
        own = float(factors[j])
        yield (ColumnChange("sign", (j,), -1.0),), 0
        yield (ColumnChange("offset", (j,), shift=float(mean[j] - mean0[j])),), 1
        for factor in _known(own):
            yield (ColumnChange("unit", (j,), factor),), int(factor == own)
        shift = float(mean[j] - own * mean0[j])
        yield (ColumnChange("unit and offset", (j,), own, shift),), 2
    noticed = np.flatnonzero(np.abs(np.log(factors)) > NOTICED).tolist()
    if len(noticed) > 1:
        known = {j: round_factor(float(factors[j])) for j in noticed}
        changes = tuple(ColumnChange("unit", (j,), factor) for j, factor in known.items())
        yield changes, len(changes)


def _known(ratio: float) -> list[float]:
    """Factors between known units near a ratio of spreads, and the ratio itself."""
    near = [round_factor(ratio * step) for step in np.exp([0.0, NEIGHBOR, -NEIGHBOR])]
    near = [f for f in near if f != 1.0 and abs(np.log(f / ratio)) < NOTICED]
    return [*dict.fromkeys(near), ratio]


def _exchanges(mean: Array, sd: Array, mean0: Array, sd0: Array) -> Iterator[Changes]:
    """Exchanges of two columns: first those whose means and spreads are then nearest to the model's."""
    d = len(mean)
    scale = sd0[None, :]
    unlike = ((mean[:, None] - mean0[None, :]) / scale) ** 2
    unlike += np.log(np.maximum(sd, 1e-300)[:, None] / scale) ** 2
    gains = {
        (i, j): unlike[i, j] + unlike[j, i] - unlike[i, i] - unlike[j, j]
        for i, j in combinations(range(d), 2)
    }
    for i, j in sorted(gains, key=lambda pair: (gains[pair], pair))[:MOST_PAIRS]:
        order = list(range(d))
        order[i], order[j] = j, i
        yield (ColumnChange("swapped columns", (i, j), order=tuple(order)),)
