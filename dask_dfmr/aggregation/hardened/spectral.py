"""White vectors of estimates -> which are copies, which are too far, which move together along one direction.

The vectors of consistent estimates are independent standard normal about a common point, (n_estimates, n_axes). Limits
come from the laws of :mod:`dask_dfmr.aggregation.null_law`, widened if there are few rows (:class:`Widening`). The
module needs arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.special import ndtri

from dask_dfmr.aggregation.groups import family_level
from dask_dfmr.aggregation.null_law import LEAST_SCALE, Law, chi_square_law, settle
from dask_dfmr.mixtures.family import Array, Labels

SLACK = 1.1
"""Limits of squared lengths are higher by this factor at least, because the information has an error."""

MEDIAN_VARIANCE = np.pi / 2
"""Variance of the median of n normal values, times n / variance of one."""

OUTLYING = 5.0
"""Where the mixture does not describe the rows, an estimate is excluded alone only beyond this many times the scatter
of the majority. Rows with heavy tails give estimates whose errors have heavy tails."""

DENSE = 0.8
"""Pairs are near if their scale is below this share of the least one that colluding estimates can bring about."""

NESTED = (8, 32)
"""Numbers of the weakest axes that are tested by themselves, before all: there overlap makes errors large."""

EDGE_SDS = 3.5
"""Scales above its edge at which a top squared singular value raises an alarm: one in 1,000 (Tracy & Widom)."""

SPLIT = 0.8
"""Two groups that explain this share of the variance along a direction count as groups."""


class Widening(NamedTuple):
    """The laws of estimates from few rows, relative to the law of many rows.

    Attributes
    ----------
    length : (float, float)
        Scale and spread of squared lengths.
    parts : tuple of (float, float)
        The same for each part.
    pairs : float
        Spread of squared distances of pairs.
    edges : tuple of float
        Factor of the top squared singular value, for each nested number of axes.
    """

    length: tuple[float, float] = (1.0, 1.0)
    parts: tuple[tuple[float, float], ...] = ()
    pairs: float = 1.0
    edges: tuple[float, ...] = ()


# -- copies ----------------------------------------------------------------------------------------


def pair_squares(white: Array, n_samples: Array) -> Array:
    """Squared distances over their expectation of all pairs, (n, n), from white vectors of one row."""
    squares = squareform(pdist(white, "sqeuclidean"))
    return np.asarray(squares / (1.0 / n_samples[:, None] + 1.0 / n_samples) / white.shape[1])


def typical_pair(squares: Array) -> float:
    """Scale of squared distances: median, over the estimates, of the distance within which half of the others lie."""
    halves = np.sort(squares, axis=1)[:, len(squares) // 2]
    return float(np.median(halves))


def least_scale(n_axes: int) -> float:
    """A scale of pairs that is not below the law of the consistent ones, even if four tenths are not consistent.

    These may be near to all others. Half of all distances from a consistent estimate then are the nearest sixth of its
    distances to consistent ones.
    """
    return DENSE * float(chi_square_law(n_axes).ppf(np.array(1 / 6))) / n_axes


def copy_limit(n_estimates: int, df: float, scale: float, widening: Widening) -> float:
    """Squared distance below which pairs are copies: consistent pairs are nearer in one of 100 sets of estimates."""
    n_pairs = n_estimates * (n_estimates - 1) / 2
    law = Law(scale, df).scaled(1.0, widening.pairs)
    return float(law.ppf(np.array(family_level(n_estimates) / n_pairs)))


# -- lengths -----------------------------------------------------------------------------------------


def far_limit(
    squares: Array,
    n_free: int,
    n_tests: int,
    widening: tuple[float, float],
    is_observed: bool = False,
) -> tuple[float, float]:
    """The squared length above which a vector is too far, and the usual one; both are scaled by the median.

    With ``is_observed`` the limit is that of an outlier among the vectors, whatever their law, if that is higher.
    """
    law = chi_square_law(n_free).scaled(*widening)
    scale = max(float(np.median(squares)) / float(law.ppf(np.array(0.5))), LEAST_SCALE)
    n = len(squares)
    limit = float(law.ppf(np.array(1.0 - family_level(n) / n_tests)))
    slack = max(SLACK, 1.0 + MEDIAN_VARIANCE / max(n - 1, 1))
    least = OUTLYING**2 * law.mean if is_observed else 0.0
    return scale * max(slack * limit, least), scale * law.mean


# -- directions ------------------------------------------------------------------------------------


class Direction(NamedTuple):
    """A direction along which estimates scatter more than sampling explains.

    Attributes
    ----------
    minority : ndarray of int
        Positions of the smaller of two groups, or of the single farthest estimate.
    is_group : bool
    separation : float
        Distance of the minority from the others, in standard errors.
    direction : ndarray of shape (n_axes,)
        In white coordinates.
    usual, spread : float
        How far the majority scatters along the direction, and all: standard deviations, in standard errors.
    """

    minority: Labels
    is_group: bool
    separation: float
    direction: Array
    usual: float
    spread: float

    @property
    def is_doubtful(self) -> bool:
        """Whether a single estimate is no outlier by the scatter of the majority along the direction."""
        return self.separation < OUTLYING * self.usual

    def narrowed(self, white: Array) -> Array:
        """White vectors whose scatter along the direction is reduced to what sampling explains."""
        along = np.multiply.outer(white @ self.direction, self.direction)
        return white - (1.0 - 1.0 / self.spread) * along


def alarm(
    white: Array, order: Labels, widening: Widening, n_rows: float = np.inf
) -> Direction | None:
    """The first alarm among nested sets of axes, weakest first; None if sampling explains all.

    Parameters
    ----------
    white : ndarray of shape (n_estimates, n_axes)
        In standard errors of one estimate.
    order : ndarray of int, shape (n_axes,)
        The axes, weakest first.
    widening : Widening
    n_rows : float
        Rows that were drawn for the information that makes the vectors white.
    """
    n_axes = white.shape[1]
    for level, q in enumerate(nested_axes(n_axes)):
        chosen = order[:q]
        centered, scale = _centered(white[:, chosen])
        left, values, right = np.linalg.svd(centered, full_matrices=False)
        factor = widening.edges[level] if widening.edges else 1.0
        if values[0] ** 2 <= factor * scale * edge(len(white), q, n_rows):
            continue
        direction = np.zeros(n_axes)
        direction[chosen] = right[0]
        return _split(left[:, 0] * values[0], scale, direction)
    return None


def nested_axes(n_axes: int) -> list[int]:
    """Numbers of the weakest axes that are tested together."""
    return [*(q for q in NESTED if q < n_axes), n_axes]


def edge(n_estimates: int, n_axes: int, n_rows: float = np.inf) -> float:
    """Top squared singular value that centered white noise hardly exceeds (Johnstone 2001).

    An information from ``n_rows`` rows increases it as the noise of that many more estimates would: spreads of
    eigenvalues add up.
    """
    a, b = np.sqrt(n_axes * (1.0 + n_estimates / n_rows)), np.sqrt(max(n_estimates - 1, 1))
    return float((a + b) ** 2 + EDGE_SDS * (a + b) * (1 / a + 1 / b) ** (1 / 3))


def top_value(white: Array) -> float:
    """Top squared singular value over the scale of the majority."""
    centered, scale = _centered(white)
    return float(np.linalg.norm(centered, 2) ** 2 / scale)


def _centered(white: Array) -> tuple[Array, float]:
    squares = ((white - np.median(white, axis=0)) ** 2).sum(axis=1)
    usual = float(chi_square_law(white.shape[1]).ppf(np.array(0.5)))
    return white - white.mean(axis=0), max(float(np.median(squares)) / usual, LEAST_SCALE)


def _split(scores: Array, scale: float, direction: Array) -> Direction:
    """The smaller of two groups along a direction if there are two, else the farthest estimate."""
    n, order = len(scores), np.argsort(scores, kind="stable")
    total = np.cumsum(scores[order])[:-1]
    sizes = np.arange(1, n)
    # The scores are centered: between-group sum of squares of the cut after each.
    between = total**2 / sizes + total**2 / (n - sizes)
    cut = int(between.argmax()) + 1
    low, high = order[:cut], order[cut:]
    gap = (scores[high].mean() - scores[low].mean()) / np.sqrt(scale)
    distances = np.abs(scores - np.median(scores))
    usual = float(np.median(distances) / ndtri(0.75) / np.sqrt(scale))
    spread = float(np.sqrt(np.mean(scores**2) / scale))
    if between.max() > SPLIT * (scores**2).sum() and min(len(low), len(high)) >= 2:
        minority = low if len(low) <= len(high) else high
        return Direction(np.sort(minority), True, float(gap), direction, usual, spread)
    far = int(distances.argmax())
    separation = float(distances[far] / np.sqrt(scale))
    return Direction(np.array([far]), False, separation, direction, usual, spread)


# -- few rows --------------------------------------------------------------------------------------


def widening_of(white: Array, part_squares: Sequence[tuple[Array, int]], order: Labels) -> Widening:
    """The widening by refits of as few rows, (n_refits, n_axes), and the squared lengths of their parts."""
    n, n_axes = white.shape
    centered = white - np.median(white, axis=0)
    length = settle((centered**2).sum(axis=1), chi_square_law(n_axes))
    parts = []
    for squares, n_free in part_squares:
        settled = settle(squares, chi_square_law(n_free))
        parts.append((settled.scale, settled.spread))
    pairs = squareform(pair_squares(white, np.ones(n)), checks=False) * n_axes
    settled = settle(pairs, chi_square_law(n_axes))
    edges = [max(1.0, top_value(white[:, order[:q]]) / edge(n, q)) for q in nested_axes(n_axes)]
    return Widening((length.scale, length.spread), tuple(parts), settled.spread, tuple(edges))
