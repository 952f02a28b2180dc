"""The center of many estimates without all pairs: which distances to measure, and what these guarantee.

1. *Scouts*, estimates drawn at random, are measured against all estimates. Their median distances are exact.
2. *References*, a sample stratified along the distance to the best scout, are measured against all estimates. They
   give an approximate median for each estimate.
3. *Candidates*, the estimates with the smallest approximate medians, are measured against all estimates.

The center is the best of scouts and candidates by exact medians, and everything after it (radius, decision) is exact
too. So the references decide only which estimates are candidates. The number of distances is
m (scouts + references + candidates) instead of m^2 / 2. The documentation of the method derives the guarantee. The
module needs arrays only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.family import Array

ALL_PAIRS_UP_TO = 2000
"""More estimates than this are measured against references by default. All pairs would cost more: their number grows
with the square of the number of estimates."""

N_SCOUTS = 32
"""The chance that all of them are inconsistent is at most share ** 32: 8e-12 at a share of 45 %."""

N_REFERENCES = 512
"""References by default. More of them are safer and slower, see :func:`quantile_error`."""

N_CANDIDATES = 256
"""In few dimensions hundreds of estimates are nearly as central as the center, and references do not separate them."""


def draw_scouts(n_estimates: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of the scouts, without replacement, ascending."""
    return np.sort(rng.choice(n_estimates, min(N_SCOUTS, n_estimates), replace=False))


def draw_references(
    distances: Array, n_references: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Positions of the references: one from each of equal strata along ``distances``, ascending.

    A stratum is an interval of m / n_references estimates. If that is no whole number, the estimate on a border belongs
    to both strata and may be drawn twice. So every estimate is expected exactly n_references / m times, and draws of
    different strata are independent.
    """
    n_estimates = len(distances)
    n_references = min(n_references, n_estimates)
    places = (np.arange(n_references) + rng.random(n_references)) * (n_estimates / n_references)
    ranks = np.minimum(places.astype(np.intp), n_estimates - 1)
    return np.sort(np.argsort(distances, kind="stable")[ranks])


def best_medians(medians: Array, excluded: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions of the candidates, ascending: the smallest medians, without the ``excluded`` ones."""
    medians = medians.copy()
    medians[excluded] = np.nan  # NaN sorts last, behind inf
    n_candidates = min(N_CANDIDATES, len(medians) - len(excluded))
    return np.sort(np.argsort(medians, kind="stable")[:n_candidates])


# -- the guarantee -------------------------------------------------------------------------------


def chance_of_no_consistent_scout(share: Any, n_scouts: int = N_SCOUTS) -> Any:
    """Bound on the chance that no scout is consistent, if a ``share`` of the estimates is inconsistent.

    Examples
    --------
    >>> [f"{chance_of_no_consistent_scout(share):.0e}" for share in (0.1, 0.3, 0.4, 0.45, 0.49)]
    ['1e-32', '2e-17', '2e-13', '8e-12', '1e-10']

    The same for the chance that no scout is among the best tenth, two tenths, three tenths of all estimates:

    >>> [f"{chance_of_no_consistent_scout(1 - share):.0e}" for share in (0.1, 0.2, 0.3)]
    ['3e-02', '8e-04', '1e-05']
    """
    return share**n_scouts


def chance_of_inconsistent_majority(share: Any, n_references: int = N_REFERENCES) -> Any:
    """Bound on the chance that half of the R references or more are inconsistent: exp(-2 R (1/2 - share)^2).

    Examples
    --------
    >>> for n_references in (128, 256, 512, 1024):
    ...     print(n_references, [f"{chance_of_inconsistent_majority(a, n_references):.0e}" for a in (0.3, 0.4, 0.45)])
    128 ['4e-05', '8e-02', '5e-01']
    256 ['1e-09', '6e-03', '3e-01']
    512 ['2e-18', '4e-05', '8e-02']
    1024 ['3e-36', '1e-09', '6e-03']
    """
    return np.exp(-2 * n_references * (0.5 - share) ** 2)


def quantile_error(
    n_estimates: int, n_references: int = N_REFERENCES, delta: float = 0.01
) -> float:
    """Largest error of approximate medians, as a difference eps of quantiles.

    With probability 1 - delta the approximate median of *every* estimate lies between the quantiles 1/2 - eps and
    1/2 + eps of its exact distances: eps = sqrt(log(2 m / delta) / (2 R)), by Hoeffding's inequality at both quantiles
    of m estimates.

    Examples
    --------
    >>> for n_references in (128, 256, 512, 1024):
    ...     print(n_references, [round(quantile_error(m, n_references), 3) for m in (2000, 10_000, 100_000)])
    128 [0.224, 0.238, 0.256]
    256 [0.159, 0.168, 0.181]
    512 [0.112, 0.119, 0.128]
    1024 [0.079, 0.084, 0.091]
    """
    return float(np.sqrt(np.log(2 * n_estimates / delta) / (2 * n_references)))
