"""The cut of a component: how far from it a row may be, and sums over the rows inside that stay unbiased.

A row counts in a component only if its squared distance, in standard deviations, is at most a quantile c of the
chi-square law of d degrees of freedom. At the true mixture the responsibility r of component k is w phi_k / f. So the
expectation of r h(x) over the rows is w times that of h over the component, cut or not, and however much components
overlap. Dividing by what the cut leaves of a normal law therefore makes the moments unbiased:

    mass and first moments by P(D_d <= c), second moments by P(D_(d+2) <= c),

where D_d is chi-square with d degrees of freedom, since E[D_d; D_d <= c] = d P(D_(d+2) <= c). The M step of the
divided moments is Fisher consistent at the mixture, and so are the scores that they give.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, gammaincinv

from dask_dfmr import checks

LEVEL = 0.01
"""Share of the rows of a component that lie beyond its cut."""

ROW_OUTLIERS = (None, "truncate")
"""The values of the parameter ``row_outliers``."""

SEARCH_LEVEL = 0.1
"""Smallest level in a search for starts. Measured on five components in ten columns, overlap .3, one column of 10 % of
the rows x10, four populations of five partitions: fits that start at the truth leave it for a mixture that covers the
bad rows in 3 of 20 with .01, in 1 with .025 and in none with .05. From pilots, .05 still loses 1 of 10 partitions of
the two worst populations, and .1 none."""

HALVINGS = 30
"""Bisections for a boundary, which make it exact to a billionth of the first interval."""


class CutNumbers(NamedTuple):
    """The cut in a number of columns.

    Attributes
    ----------
    limit : float
        Largest squared distance inside, in standard deviations.
    inside : float
        Share of the rows of a component that are inside.
    second : float
        What the cut leaves of the second moments of a component.
    """

    limit: float
    inside: float
    second: float


class RowCut(NamedTuple):
    """The cut of all components of a mixture.

    Attributes
    ----------
    level : float
        Share of the rows of a component that lie beyond its cut.
    truncates : bool
        Whether rows beyond the cut of a component do not count in it. If not, rows beyond all cuts are only counted.
    """

    level: float = LEVEL
    truncates: bool = False

    def numbers(self, n_features: int) -> CutNumbers:
        """The cut in ``n_features`` columns."""
        return _numbers(self.level, n_features)

    def for_search(self) -> RowCut:
        """The cut of fits that only have to find a start: at least as strict, at the price of some precision."""
        return self._replace(level=max(self.level, SEARCH_LEVEL)) if self.truncates else self

    def crossing(self, n_features: int) -> float:
        """Squared length of the part of a score in its component that a row loses beyond the cut; 0 without truncation.

        That is |y|^2 + |y y^T - I|^2 / 2 at |y|^2 = c, in standard deviations; with a weight w divide it by w.
        """
        limit = self.numbers(n_features).limit
        return 0.5 * (limit**2 + n_features) if self.truncates else 0.0


COUNTING = RowCut()
"""The cut that only counts the rows beyond it."""


def cut_of(row_outliers: str | None, level: float) -> RowCut:
    """The cut that the parameters ``row_outliers`` and ``row_outlier_level`` describe.

    Raises
    ------
    ValueError
        If one of them has a wrong value.
    """
    checks.one_of("row_outliers", row_outliers, ROW_OUTLIERS)
    check_level("row_outlier_level", level)
    return RowCut(float(level), row_outliers is not None)


def check_level(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a number between 0 and 1, both excluded."""
    checks.number(name, value)
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, both excluded; got {value!r}.")


def rare_log_density(
    weights: NDArray[np.float64], log_peaks: NDArray[np.float64], n_features: int, rate: float
) -> float:
    """A log-density below which rows of a mixture fall with a probability of at most ``rate``.

    A mixture is at least as dense as each of its weighted components, so that a row of component k has a log-density of
    at least log w_k + peak_k - D / 2 with D chi-square. This bounds the probability; where components do not overlap at
    their boundaries it is exact.
    """
    heavy = weights > 0
    w, top = weights[heavy], np.log(weights[heavy]) + log_peaks[heavy]
    low, high = float(top.min() - gammaincinv(0.5 * n_features, 1.0 - rate)), float(top.max())
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        share = w @ gammaincc(0.5 * n_features, np.maximum(top - middle, 0.0))
        low, high = (low, middle) if share > rate else (middle, high)
    return low


@lru_cache(maxsize=64)
def _numbers(level: float, n_features: int) -> CutNumbers:
    inside = 1.0 - level
    half = float(gammaincinv(0.5 * n_features, inside))
    return CutNumbers(2.0 * half, inside, float(gammainc(0.5 * n_features + 1.0, half)))
