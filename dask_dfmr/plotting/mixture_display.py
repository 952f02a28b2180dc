"""``MixtureDisplay``: the components of a mixture as ellipses over the counted rows, pair of columns by pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.tails import chi2_ppf
from dask_dfmr.on_dask.histograms import Grid, count_rows
from dask_dfmr.plotting.axes import FAINT, LINES, axes_for, column_names, literal, shortened, tidy
from dask_dfmr.plotting.found import mixture_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COVERAGE = 0.9
"""Share of the rows of a component within its ellipse, by default."""

N_BINS = 60
"""Bins of a column. With 100 a partition of 1,000 rows is a few dots; with 30 narrow components are a single bin."""

MARGIN = 1.4
"""Bins and axes reach so many radii of the ellipses. Beyond lie 1 % of a component's rows in two columns."""

MOST_IN_PAIRS = 5
"""Columns that are drawn at a time: ten pairs. Their pictures would be too small with more."""

JOINED = 0.06
"""Numbers of components nearer than this share of an axis stand side by side in one label."""


class Histogram(NamedTuple):
    """Numbers of rows in bins: ``counts`` (n_bins,) or (n_bins, n_bins), and the edges of each column's bins."""

    counts: NDArray[np.int64]
    edges: tuple[Array, ...]


class MixtureDisplay:
    """Components of a mixture, drawn in pairs of columns.

    An ellipse holds the share ``coverage`` of its component's rows in these two columns: its radius is the quantile of
    the chi law with two degrees of freedom, 2.15 standard deviations for 0.9. One column alone is drawn as a density.

    :meth:`from_estimator` makes a display, and counts the rows that lie behind the ellipses where they are.

    Parameters
    ----------
    mixture : Mixture
    columns : sequence of tuple of int
        Positions of the columns of each picture: pairs, or single columns.
    coverage : float, default 0.9
        Between 0 and 1.
    histograms : sequence of Histogram, optional
        Rows counted in bins, one histogram per picture.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        One per picture.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
    ellipses_ : list of list of matplotlib Ellipse
        Those of each picture, in the order of the components; none in a picture of one column.

    Examples
    --------
    >>> from dask_dfmr import Mixture, MixtureDisplay
    >>> m = Mixture([0.6, 0.4], [[0, 0], [5, 1]], [1.0, 2.0], "spherical", ["x", "y"])
    >>> MixtureDisplay.from_estimator(m).plot()  # doctest: +SKIP
    """

    ax_: Axes
    axes_: list[Axes]
    figure_: Figure

    def __init__(
        self,
        mixture: Mixture,
        columns: Sequence[tuple[int, ...]],
        *,
        coverage: float = COVERAGE,
        histograms: Sequence[Histogram] | None = None,
    ) -> None:
        self.mixture, self.columns = mixture, [tuple(c) for c in columns]
        self.coverage, self.histograms = coverage, histograms
        self.ellipses_: list[list[Any]] = []

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        columns: Sequence[int | str] | None = None,
        coverage: float = COVERAGE,
        ax: Any = None,
        **line_kw: Any,
    ) -> Self:
        """Draw the mixture of a fit.

        Parameters
        ----------
        estimator : GaussianMixture, Aggregate, Selection or Mixture
        X : as for :meth:`GaussianMixture.fit`, optional
            Rows to count behind the ellipses. Each partition counts its own rows, and only the counts come here. A
            partition that cannot be read is not counted, and the log says so. None: no rows.
        columns : sequence of int or str, optional
            Two to five columns; all their pairs are drawn. One column alone is drawn as a density. By default the two
            columns in which the components lie farthest apart.
        coverage : float, default 0.9
            Share of a component's rows within its ellipse.
        ax : matplotlib Axes, or sequence of as many as there are pairs, optional
            New ones by default.
        **line_kw
            Of the ellipses, as ``matplotlib.patches.Ellipse`` takes them.

        Returns
        -------
        MixtureDisplay

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong.
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        checks.number("coverage", coverage)
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be a share between 0 and 1; got {coverage!r}.")
        mixture = mixture_of(estimator)
        pairs = _pairs(mixture, columns)
        histograms = None if X is None else _counted(mixture, X, pairs, coverage)
        display = cls(mixture, pairs, coverage=coverage, histograms=histograms)
        return display.plot(ax=ax, **line_kw)

    def plot(self, ax: Any = None, **line_kw: Any) -> Self:
        """Draw the pictures.

        Parameters
        ----------
        ax : matplotlib Axes, or sequence of as many as there are pictures, optional
        **line_kw
            Of the ellipses.

        Returns
        -------
        MixtureDisplay
            This one.
        """
        n = len(self.columns)
        across = min(n, 3)
        size = (4.6 * across + 0.6, 4.3 * -(-n // across) + 0.3)
        self.figure_, self.axes_ = axes_for("MixtureDisplay", ax, n, size, across)
        self.ax_, self.ellipses_ = self.axes_[0], []
        names = column_names(self.mixture.feature_names, self.mixture.n_features)
        nothing: list[Histogram | None] = [None] * n
        histograms = nothing if self.histograms is None else self.histograms
        for axes, columns, histogram in zip(self.axes_, self.columns, histograms, strict=True):
            marginal = self.mixture.marginal(columns)
            axes.set_xlabel(literal(shortened(names[columns[0]], 40)))
            tidy(axes)
            if len(columns) == 1:
                _draw_density(axes, marginal, histogram, self.coverage)
                continue
            axes.set_ylabel(literal(shortened(names[columns[1]], 32)))
            self.ellipses_.append(_draw_pair(axes, marginal, histogram, self.coverage, line_kw))
        return self

    @property
    def remark(self) -> str:
        """What the lines and shades mean, in words."""
        rows = "" if self.histograms is None else "; the darker, the more rows"
        return f"lines hold {self.coverage:.3g} of the rows of a component{rows}"


# -- what is drawn ---------------------------------------------------------------------------------


def ellipse_of(covariance: Array, coverage: float) -> tuple[float, float, float]:
    """Width, height and angle in degrees of the ellipse that holds a share of a normal law (covariance (2, 2))."""
    variances, directions = np.linalg.eigh(covariance)
    height, width = 2 * np.sqrt(chi2_ppf(coverage, 2) * variances)
    return float(width), float(height), float(np.degrees(np.arctan2(*directions[::-1, 1])))


def most_separated(mixture: Mixture, n: int = 2) -> list[int]:
    """The columns in which the components lie farthest apart, in the order of the columns.

    Measured by the variance between the components over that within them.
    """
    means, covariances = mixture.full_components
    within = mixture.weights @ np.diagonal(covariances, axis1=-2, axis2=-1)
    # In units of the columns, so that squares do not overflow.
    centered = (means - mixture.weights @ means) / np.sqrt(within)
    ratio = mixture.weights @ centered**2
    return sorted(np.argsort(-ratio, kind="stable")[:n].tolist())


def _pairs(mixture: Mixture, columns: Sequence[int | str] | None) -> list[tuple[int, ...]]:
    if columns is None:
        return [tuple(most_separated(mixture))]
    chosen = [columns] if isinstance(columns, (str, int)) else list(columns)
    if not 1 <= len(chosen) <= MOST_IN_PAIRS:
        raise ValueError(f"columns must be one to {MOST_IN_PAIRS} columns; got {len(chosen)}.")
    mixture.marginal(chosen)  # raises if there is no such column
    names = list(mixture.feature_names or ())
    places = [names.index(c) if isinstance(c, str) else int(c) for c in chosen]
    return list(combinations(places, 2)) or [(places[0],)]


def _counted(
    mixture: Mixture, X: Any, pairs: Sequence[tuple[int, ...]], coverage: float
) -> list[Histogram]:
    grids = []
    for columns in pairs:
        limits = _limits(mixture.marginal(columns), coverage)
        edges = tuple(np.linspace(low, high, N_BINS + 1) for low, high in limits)
        grids.append(Grid(columns, edges))
    counts = count_rows(X, mixture.feature_names, mixture.n_features, grids)
    return [Histogram(b, grid.edges) for b, grid in zip(counts.bins, grids, strict=True)]


def _limits(marginal: Mixture, coverage: float) -> list[tuple[float, float]]:
    """Lower and upper end of each axis, from the mixture alone, so that wrong rows do not move them."""
    means, covariances = marginal.full_components
    radius = MARGIN * float(np.sqrt(chi2_ppf(coverage, marginal.n_features)))
    reach = radius * np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
    low, high = (means - reach).min(axis=0), (means + reach).max(axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _draw_pair(
    axes: Axes,
    marginal: Mixture,
    histogram: Histogram | None,
    coverage: float,
    line_kw: dict[str, Any],
) -> list[Any]:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Ellipse

    if histogram is not None:
        shown = np.ma.masked_equal(histogram.counts.T, 0)
        # Half of the shades, so that lines stand out from the darkest bin.
        darkest = max(2, int(histogram.counts.max())) ** 2
        norm_ = LogNorm(darkest**-0.25, darkest)  # a bin with one row is grey, not white
        axes.pcolormesh(
            *histogram.edges, shown, cmap="Greys", norm=norm_, rasterized=True, zorder=0
        )
    found = []
    means, covariances = marginal.full_components
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        width, height, angle = ellipse_of(covariance, coverage)
        look = {"fill": False, "ec": LINES[0][0], "lw": 1.8, "gid": f"component-{k}", **line_kw}
        ellipse = Ellipse(tuple(mean), width, height, angle=angle, **look)
        found.append(axes.add_patch(ellipse))
    (x_low, x_high), (y_low, y_high) = _limits(marginal, coverage)
    axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high))
    _write_numbers(axes, means, np.array([x_high - x_low, y_high - y_low]))
    return found


def _write_numbers(axes: Axes, means: Array, size: Array) -> None:
    """The number of each component at its mean; those of components on one place share a label."""
    from matplotlib.patheffects import withStroke

    places: list[tuple[Array, list[int]]] = []
    for k, mean in enumerate(means / size):
        near = next((p for p in places if (np.abs(p[0] - mean) < JOINED).all()), None)
        if near is None:
            places.append((mean, [k]))
        else:
            near[1].append(k)
    for place, numbers in places:
        text = ", ".join(map(str, numbers))
        halo = [withStroke(linewidth=3, foreground="white")]
        x, y = place * size
        axes.text(x, y, text, ha="center", va="center", fontsize="small", path_effects=halo)


def _draw_density(
    axes: Axes, marginal: Mixture, histogram: Histogram | None, coverage: float
) -> None:
    from scipy.stats import norm

    means, variances = marginal.full_components[0][:, 0], marginal.full_components[1][:, 0, 0]
    ((low, high),) = _limits(marginal, coverage)
    x = np.linspace(low, high, 400)
    unit, label = 1.0, "density"
    if histogram is not None:
        (edges,) = histogram.edges
        unit, label = float(histogram.counts.sum() * (edges[1] - edges[0])), "rows per bin"
        axes.stairs(histogram.counts, edges, fill=True, color="#D9D9D9")
    each = (
        unit * marginal.weights[:, None] * norm.pdf(x, means[:, None], np.sqrt(variances)[:, None])
    )
    for line in each:
        axes.plot(x, line, color=FAINT, lw=1, ls="--")
    axes.plot(x, each.sum(axis=0), color=LINES[0][0], lw=2)
    for k, line in enumerate(each):
        axes.text(means[k], line.max(), str(k), ha="center", va="bottom", fontsize="small")
    axes.set(xlim=(low, high), ylim=(0, None), ylabel=label)
