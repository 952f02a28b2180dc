"""``PartitionDisplay``: the distance of each partition to the others, and the distance that sampling explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from dask_dfmr.aggregation.result import AggregationResult, FilterDecision
from dask_dfmr.mixtures.family import Array
from dask_dfmr.plotting.axes import (
    EXCLUDED,
    FAINT,
    INK,
    KEPT,
    MOST_VECTORS,
    axes_for,
    legend_above,
    lines_in,
    literal,
    short_sources,
    shortened,
    spaced,
    tidy,
)
from dask_dfmr.plotting.found import kept_of, outcomes_of, result_of, sources_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_STEMS = 60
"""Up to so many partitions, a line leads from the axis to each point; with more the lines are a gray area."""

MOST_LABELS = 20
"""Excluded partitions that are named, at most."""

LINEAR_UP_TO = 20.0
"""Distances that are larger than this are drawn on a logarithmic axis: the kept ones would be one line otherwise."""


class PartitionDisplay:
    """Distance of each partition to the others, with the distance that sampling explains.

    Excluded partitions are filled diamonds, and named by their source as far as there is room. Those without an
    estimate have no distance; they stand at the left edge as crosses.

    Parameters
    ----------
    distances : array-like of shape (n_partitions,)
        NaN for a partition without an estimate.
    kept : array-like of bool, shape (n_partitions,)
    names : sequence of str
        Of all partitions.
    notes : sequence of str, optional
        A few words beside the point of each excluded partition; empty for none.
    limit : float, optional
        Larger distances are excluded.
    unit : str
        What the distances are, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    labelled_ : list of int
        The partitions that are named.
    n_unlabelled_ : int
        Excluded partitions that are not named for lack of room. The picture says how many.
    """

    ax_: Axes
    figure_: Figure
    labelled_: list[int]
    n_unlabelled_: int

    def __init__(
        self,
        distances: ArrayLike,
        kept: ArrayLike,
        names: Sequence[str],
        *,
        notes: Sequence[str] | None = None,
        limit: float | None = None,
        unit: str = "distance to the others (1: sampling explains it)",
    ) -> None:
        self.distances = np.asarray(distances, dtype=float)
        self.kept = np.asarray(kept, dtype=bool)
        self.names = list(names)
        self.notes = [""] * len(self.names) if notes is None else list(notes)
        self.limit, self.unit = limit, unit

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, notes: Mapping[int, str] | None = None, ax: Any = None
    ) -> Self:
        """Draw the distances of a fit.

        The unit is what sampling explains, of estimates from as many rows. With a fixed ``rho`` it is the radius, and
        the limit is ``rho``.

        Parameters
        ----------
        estimator : GaussianMixture, Aggregate or Selection
        notes : mapping of int to str, optional
            Words beside the points of excluded partitions. By default those without an estimate have their outcome.
        ax : matplotlib Axes, optional

        Returns
        -------
        PartitionDisplay

        Raises
        ------
        TypeError
            If ``estimator`` is none of these.
        NotFittedError
            If it is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        result = result_of(estimator)
        distances, limit, unit = _scaled(result)
        given = outcomes_of(estimator, result)
        words = [f"no estimate: {outcome}" if outcome else "" for outcome in given]
        for i, note in (notes or {}).items():
            words[i] = note
        kept, names = kept_of(estimator, result.decision), sources_of(estimator, result)
        display = cls(distances, kept, names, notes=words, limit=limit, unit=unit)
        return display.plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        PartitionDisplay
            This one.
        """
        n = len(self.distances)
        size = (7.0, float(np.clip(0.2 * n + 1.6, 3.0, 7.0)))
        self.figure_, (axes,) = axes_for("PartitionDisplay", ax, 1, size)
        self.ax_ = axes
        x = self._places()
        self._draw_points(axes, x)
        axes.set_ylim(n - 0.3, -0.7 - 0.02 * n)
        self._write_labels(axes, x)
        lines = [(1.0, INK, "-", "sampling")] if "1:" in self.unit else []
        if self.limit is not None:
            lines.append((self.limit, FAINT, "--", "limit"))
        for place, color, dashes, label in lines:
            axes.axvline(place, color=color, ls=dashes, lw=1.2, zorder=1, label=label)
        axes.set_xlabel(literal(self.unit))
        axes.tick_params(axis="y", length=0)
        tidy(axes)
        axes.spines["left"].set_visible(False)
        legend_above(axes)
        return self

    def _places(self) -> Array:
        """Where each point lies: that of a partition without a distance at the edge."""
        found = self.distances[np.isfinite(self.distances)]
        largest = float(found.max(initial=1.0))
        self._is_wide = largest > LINEAR_UP_TO
        positive = found[found > 0]
        self._edge = float(positive.min(initial=1.0)) / 2 if self._is_wide else 0.0
        return np.where(
            np.isfinite(self.distances), np.maximum(self.distances, self._edge), self._edge
        )

    def _draw_points(self, axes: Axes, x: Array) -> None:
        n, rows = len(x), np.arange(len(x))
        if self._is_wide:
            axes.set_xscale("log")
        size = float(np.clip(160 / max(n, 1), 2.5, 6.0))
        lost = ~np.isfinite(self.distances)
        groups = (
            ("kept", self.kept & ~lost, KEPT),
            ("kept, no distance", self.kept & lost, {**KEPT, "marker": "s"}),
            ("excluded", ~self.kept & ~lost, EXCLUDED),
            ("no estimate", ~self.kept & lost, {**EXCLUDED, "marker": "X"}),
        )
        for label, chosen, look in groups:
            if not chosen.any():
                continue
            if n <= MOST_STEMS:
                axes.hlines(
                    rows[chosen], self._edge, x[chosen], color=look["color"], lw=1, alpha=0.4
                )
            far = size if label == "kept" else max(size, 4.5)
            look = {**look, "ls": "", "ms": far, "label": label, "zorder": 2 + (label != "kept")}
            axes.plot(x[chosen], rows[chosen], clip_on=False, rasterized=n > MOST_VECTORS, **look)

    def _write_labels(self, axes: Axes, x: Array) -> None:
        """Names of the farthest excluded partitions, so many as there is room for; the number of the others."""
        n, excluded = len(x), np.flatnonzero(~self.kept)
        room = lines_in(axes)
        far = np.where(np.isfinite(self.distances), self.distances, np.inf)[excluded]
        chosen = spaced(excluded.astype(float), far, n / max(room, 1), MOST_LABELS)
        self.labelled_ = sorted(excluded[chosen].tolist())
        self.n_unlabelled_ = len(excluded) - len(self.labelled_)
        names = [literal(s) for s in short_sources([self.names[i] for i in self.labelled_])]
        axes.set_yticks(self.labelled_, names, fontsize="small")
        for i in self.labelled_ if n <= MOST_STEMS else ():
            self._write_note(axes, x[i], i)
        if self.n_unlabelled_:
            text = f"and {self.n_unlabelled_:,} more excluded"
            axes.text(
                1,
                0.01,
                text,
                transform=axes.transAxes,
                ha="right",
                va="bottom",
                fontsize="small",
                color=INK,
            )

    def _write_note(self, axes: Axes, x: float, i: int) -> None:
        axes.annotate(
            literal(shortened(self.notes[i], 44)),
            (x, i),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            color=EXCLUDED["color"],
            bbox={"fc": "white", "ec": "none", "pad": 0.5},
        )


def _scaled(result: AggregationResult) -> tuple[Array, float | None, str]:
    """Distances, the limit and the words for the axis: in units of sampling if that decides, otherwise in radii."""
    decision = result.decision
    is_fixed = not isinstance(decision.rho, str) and bool(np.isfinite(decision.rho))
    if decision.sampling_ratios is None or is_fixed:
        limit = float(decision.rho) if is_fixed and decision.components is None else None
        what = "distance to the center, in radii"
        if decision.components is not None:
            what = "distance of the farthest component, in radii"
        return decision.distance_ratios, limit, what
    unit = "distance to the others (1: sampling explains it)"
    limit = limit_of(decision) if decision.rho == "auto" else None
    return decision.sampling_ratios, limit, unit


def limit_of(decision: FilterDecision) -> float | None:
    """The distance, in units of what sampling explains, whose p-value is the rate of false exclusions; None if unknown.

    Cube roots of squared distances are linear in the z-scores, and nearly normal. The limit lies between those
    distances whose p-values are above and below the rate.
    """
    ratios, z, p = decision.sampling_ratios, decision.z_scores, decision.p_values
    if ratios is None or z is None or p is None:
        return None
    usable: NDArray[np.bool_] = np.isfinite(ratios) & np.isfinite(z)
    if len(set(z[usable].tolist())) < 2:
        return None
    slope, start = np.polyfit(z[usable], np.cbrt(ratios[usable] ** 2), 1)
    limit = max(start - slope * ndtri(decision.false_exclusion_rate), 0.0) ** 1.5
    inside = p[usable] >= decision.false_exclusion_rate
    low = ratios[usable][inside].max(initial=0.0)
    high = ratios[usable][~inside].min(initial=np.inf)
    return float(np.clip(limit, low, high))
