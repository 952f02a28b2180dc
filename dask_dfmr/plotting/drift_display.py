"""``DriftDisplay``: weight, mean and spread of one component in every partition, or over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dask_dfmr import checks
from dask_dfmr.aggregation.rerun import origin_of, read_estimates
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.explanation.standard_errors import StandardErrors
from dask_dfmr.explanation.table import standard_errors_of
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.plotting.axes import (
    EXCLUDED,
    INK,
    KEPT,
    MOST_VECTORS,
    axes_for,
    column_names,
    legend_above,
    literal,
    shortened,
    tidy,
    whole_numbers,
)
from dask_dfmr.plotting.found import kept_of, result_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_ERRORS = 3.0
"""Half of the width of the band, in standard errors: of 370 numbers that sampling alone moves, one lies outside."""

MARGIN_OF_KEPT = 0.2
"""The axis reaches so far beyond the kept values and the band, as a share of their range. What lies farther away is a
triangle at the edge: a partition in another unit would make all others one line."""


class Track(NamedTuple):
    """One number of a component in every partition.

    Attributes
    ----------
    name : str
    values : ndarray of shape (n_partitions,)
        NaN for a partition without an estimate.
    reference : float
        That of the global mixture.
    errors : ndarray of shape (n_partitions,), or None
        Standard errors that sampling explains.
    """

    name: str
    values: Array
    reference: float
    errors: Array | None = None


class DriftDisplay:
    """One component in every partition: its weight, and mean and spread (standard deviation) of one column.

    Components of the partitions are matched to those of the global mixture (:meth:`Mixture.align_to`). The gray band
    is the value of the global mixture and three standard errors of an estimate from as many rows. Points beyond the
    axis are triangles at its edge.

    Parameters
    ----------
    tracks : sequence of Track
        What is drawn, one picture below the other. A Track is a tuple (name, values, reference, errors).
    kept : array-like of bool, shape (n_partitions,)
    times : array-like of shape (n_partitions,), optional
        Places on the axis: numbers or dates. The numbers of the partitions by default.
    title : str, default ""

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        One per track.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
    """

    ax_: Axes
    axes_: list[Axes]
    figure_: Figure

    def __init__(
        self,
        tracks: Sequence[tuple[str, Array, float, Array | None]],
        kept: ArrayLike,
        *,
        times: ArrayLike | None = None,
        title: str = "",
    ) -> None:
        self.tracks = [Track(*track) for track in tracks]
        self.kept = np.asarray(kept, dtype=bool)
        self.is_numbered = times is None
        self.times = np.arange(len(self.kept)) if times is None else np.asarray(times)
        self.title = title

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        component: int | None = None,
        *,
        column: int | str | None = None,
        times: ArrayLike | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw a component of a fit that kept its estimates.

        Parameters
        ----------
        estimator : GaussianMixture, Aggregate or Selection
        component : int, optional
            Its number in the global mixture. By default the one whose mean drifts most, in standard errors.
        column : int or str, optional
            By default the column whose mean drifts most.
        times : array-like of shape (n_partitions,), optional
            Numbers or dates. The numbers of the partitions by default.
        ax : sequence of three matplotlib Axes, optional

        Returns
        -------
        DriftDisplay

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or the estimates were not kept.
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        result = result_of(estimator)
        origin_of(result)
        mixture = result.mixture
        if component is not None:
            checks.integer("component", component, 0)
            if component >= mixture.n_components:
                raise ValueError(
                    f"component must be below {mixture.n_components}, the number of components; got {component}."
                )
        names = column_names(mixture.feature_names, mixture.n_features)
        j = None
        if column is not None:
            mixture.marginal([column])  # raises if there is no such column
            j = names.index(column) if isinstance(column, str) else int(column)
        kept = kept_of(estimator, result.decision)
        places = None if times is None else _checked_times(times, len(kept))
        tracks, k, j = _tracks(result, kept, component, j)
        title = f"component {k}, column {shortened(names[j])}"
        return cls(tracks, kept, times=places, title=title).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the pictures.

        Parameters
        ----------
        ax : sequence of as many matplotlib Axes as there are tracks, optional

        Returns
        -------
        DriftDisplay
            This one.
        """
        n = len(self.tracks)
        self.figure_, self.axes_ = axes_for("DriftDisplay", ax, n, (7.0, 2.1 * n + 0.6))
        self.ax_ = self.axes_[0]
        for axes, track in zip(self.axes_, self.tracks, strict=True):
            self._draw(axes, track)
            axes.set_ylabel(literal(track.name))
            tidy(axes)
            if axes is not self.axes_[-1]:
                axes.tick_params(labelbottom=False)
        if self.is_numbered:
            self.axes_[-1].set_xlabel("partition")
            whole_numbers(self.axes_[-1])
        else:
            for label in self.axes_[-1].get_xticklabels():
                label.set_rotation(30)
                label.set_horizontalalignment("right")
        # The second line is that of the legend.
        self.ax_.set_title(f"{literal(self.title)}\n", loc="left", fontsize="medium")
        legend_above(self.ax_)
        return self

    def _draw(self, axes: Axes, track: Track) -> None:
        order = np.argsort(self.times, kind="stable")
        order = order[np.isfinite(track.values[order])]
        x, y, kept = self.times[order], track.values[order], self.kept[order]
        axes.axhline(track.reference, color=INK, lw=1, zorder=1, label="global mixture")
        is_image = len(x) > MOST_VECTORS
        inner = [np.array([track.reference]), y[kept]]
        if track.errors is not None and len(x):
            half = N_ERRORS * track.errors[order]
            band = (track.reference - half, track.reference + half)
            shade: dict[str, Any] = {
                "color": "#E4E4E4",
                "lw": 0,
                "zorder": 0,
                "rasterized": is_image,
            }
            axes.fill_between(x, *band, label="sampling", **shade)
            inner += band
        low, high = (float(f(np.concatenate(inner))) for f in (np.min, np.max))
        margin = MARGIN_OF_KEPT * (high - low) or 1.0
        low, high = low - margin, high + margin
        size = float(np.clip(250 / max(len(x), 1), 2.5, 5.5))
        for label, chosen, look in (("kept", kept, KEPT), ("excluded", ~kept, EXCLUDED)):
            for marker, there in (
                (look["marker"], (y >= low) & (y <= high)),
                ("^", y > high),
                ("v", y < low),
            ):
                shown = chosen & there
                if shown.any():
                    style = {**look, "marker": marker, "ms": size + (label == "excluded"), "ls": ""}
                    own = label if marker == look["marker"] else None
                    axes.plot(
                        x[shown],
                        np.clip(y[shown], low, high),
                        label=own,
                        rasterized=is_image,
                        zorder=2 + (label == "excluded"),
                        **style,
                    )
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def _checked_times(times: ArrayLike, n: int) -> Array:
    found = np.asarray(times)
    if found.shape != (n,) or found.dtype.kind not in "iufM":
        raise ValueError(
            f"times must be {n} numbers or dates, one per partition; got {found.dtype} of shape {found.shape}. "
            "Dates in words: pandas.to_datetime(times)."
        )
    return found


def _tracks(
    result: AggregationResult, kept: NDArray[np.bool_], component: int | None, column: int | None
) -> tuple[list[Track], int, int]:
    """Weight, mean and spread of a component in all partitions, and which component and column they are of."""
    mixture, errors = result.mixture, standard_errors_of(result)
    k, d = mixture.n_components, mixture.n_features
    estimates = read_estimates(origin_of(result))
    shape = (len(estimates), k, d)
    weights, means, spreads = (
        np.full(shape[:2], np.nan),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
    )
    n_samples = np.full(len(estimates), np.nan)
    for i, estimate in enumerate(estimates):
        aligned = _aligned(estimate, mixture)
        if aligned is not None:
            covariances = aligned.full_components[1]
            weights[i], means[i], n_samples[i] = aligned.weights, aligned.means, estimate.n_samples
            spreads[i] = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
    unit = _units(errors, n_samples)
    of_one = errors.of_one_row
    z = (means - mixture.means) / (unit[:, None, None] * of_one.means)
    at, j = _most_drifting(z[kept], component, column)
    spread0 = float(np.sqrt(mixture.full_components[1][at, j, j]))
    return (
        [
            Track("weight", weights[:, at], float(mixture.weights[at]), unit * of_one.weights[at]),
            Track("mean", means[:, at, j], float(mixture.means[at, j]), unit * of_one.means[at, j]),
            Track("spread", spreads[:, at, j], spread0, unit * of_one.log_sds[at, j] * spread0),
        ],
        at,
        j,
    )


def _units(errors: StandardErrors, n_samples: Array) -> Array:
    """What errors of one row are multiplied by, for estimates from so many rows."""
    variance = 1.0 / n_samples + 1.0 / errors.n_samples
    return np.asarray(np.sqrt(variance * max(errors.scale, 1.0)))


def _aligned(estimate: Any, mixture: Mixture) -> Mixture | None:
    found = estimate.mixture if isinstance(estimate, LocalEstimate) else None
    try:
        return None if found is None else found.align_to(mixture)
    except ValueError:  # of another shape, which is why it was refused
        return None


def _most_drifting(z: Array, component: int | None, column: int | None) -> tuple[int, int]:
    """The component and the column whose mean moves most over the kept partitions, as far as they are not given."""
    z = z[np.isfinite(z).all(axis=(1, 2))]
    _, n_components, n_columns = z.shape
    drift = np.square(z).sum(axis=0)
    components = range(n_components) if component is None else [component]
    columns = range(n_columns) if column is None else [column]
    return max(((k, j) for k in components for j in columns), key=lambda at: float(drift[at]))
