"""The center of many machines without all pairs: whom to measure against, and what that guarantees. Knows arrays only.

1. *Scouts*, machines drawn at random, are measured against all machines: their medians are exact.
2. *References*, a sample stratified along the distance to the best scout, are measured against all
   machines: they give every machine an estimate of its median.
3. *Candidates*, the machines with the smallest such estimates, are measured against all machines.

The center is the best of scouts and candidates by exact medians, and everything after it (radius,
verdicts) is exact too. So the sample decides who is a candidate and nothing else: m (scouts +
references + candidates) distances instead of m^2 / 2. What is promised is derived in docs/method.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.family import Array

ALL_PAIRS_UP_TO = 2000
"""More machines than this are measured against references by default: all pairs would cost more, and grow."""

N_SCOUTS = 32
"""The chance that all of them are bad is at most share_bad ** 32: 8e-12 at 45 %."""

N_REFERENCES = 512

N_CANDIDATES = 256
"""In few dimensions hundreds of machines are nearly as central as the center, and references cannot tell them apart."""


def draw_scouts(n_sources: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of the scouts, without replacement, ascending."""
    return np.sort(rng.choice(n_sources, min(N_SCOUTS, n_sources), replace=False))


def draw_references(
    distances: Array, n_references: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Positions of the references: one from each of equal strata along ``distances``, ascending.

    Strata are intervals of m / n_references machines. Where that is no whole number, the machine on
    a border belongs to both and may be drawn twice: so every machine is expected exactly
    n_references / m times, and draws of different strata are independent.
    """
    n_sources = len(distances)
    n_references = min(n_references, n_sources)
    places = (np.arange(n_references) + rng.random(n_references)) * (n_sources / n_references)
    ranks = np.minimum(places.astype(np.intp), n_sources - 1)
    return np.sort(np.argsort(distances, kind="stable")[ranks])


def best_medians(medians: Array, excluded: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions of the candidates, ascending: the smallest medians, without those that are excluded."""
    medians = medians.copy()
    medians[excluded] = np.nan  # NaN sorts last, behind inf
    n_candidates = min(N_CANDIDATES, len(medians) - len(excluded))
    return np.sort(np.argsort(medians, kind="stable")[:n_candidates])


# -- the guarantee -------------------------------------------------------------------------------


def chance_all_scouts_bad(share_bad: Any, n_scouts: int = N_SCOUTS) -> Any:
    """Bound on the chance that no scout is honest.

    Examples
    --------
    >>> [f"{chance_all_scouts_bad(share):.0e}" for share in (0.1, 0.3, 0.4, 0.45, 0.49)]
    ['1e-32', '2e-17', '2e-13', '8e-12', '1e-10']

    That no scout is among the best tenth, two tenths, three tenths of all machines:

    >>> [f"{chance_all_scouts_bad(1 - share):.0e}" for share in (0.1, 0.2, 0.3)]
    ['3e-02', '8e-04', '1e-05']
    """
    return share_bad**n_scouts


def chance_bad_majority(share_bad: Any, n_references: int = N_REFERENCES) -> Any:
    """Bound on the chance that half of the references or more are bad: exp(-2 R (1/2 - share)^2).

    Examples
    --------
    >>> for n_references in (128, 256, 512, 1024):
    ...     print(n_references, [f"{chance_bad_majority(a, n_references):.0e}" for a in (0.3, 0.4, 0.45)])
    128 ['4e-05', '8e-02', '5e-01']
    256 ['1e-09', '6e-03', '3e-01']
    512 ['2e-18', '4e-05', '8e-02']
    1024 ['3e-36', '1e-09', '6e-03']
    """
    return np.exp(-2 * n_references * (0.5 - share_bad) ** 2)


def quantile_error(n_sources: int, n_references: int = N_REFERENCES, delta: float = 0.01) -> float:
    """The eps within which references know the medians.

    With probability 1 - delta the estimated median of *every* machine lies between the quantiles
    1/2 - eps and 1/2 + eps of its exact distances: eps = sqrt(log(2 m / delta) / (2 R)), Hoeffding's
    inequality at both quantiles of m machines.

    Examples
    --------
    >>> for n_references in (128, 256, 512, 1024):
    ...     print(n_references, [round(quantile_error(m, n_references), 3) for m in (2000, 10_000, 100_000)])
    128 [0.224, 0.238, 0.256]
    256 [0.159, 0.168, 0.181]
    512 [0.112, 0.119, 0.128]
    1024 [0.079, 0.084, 0.091]
    """
    return float(np.sqrt(np.log(2 * n_sources / delta) / (2 * n_references)))
