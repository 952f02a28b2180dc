"""``BreakdownDisplay``: the error of each method over the share of bad sources, as a stress test measures it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from dask_dfmr.plotting.axes import FAINT, LINES, axes_for, legend, literal, shortened, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABOVE = 2.0
"""An error without a number, because no result came, is drawn so many times as high as the largest one."""


MOST_TICKS = 11
"""Up to so many rates, each has a tick."""

LEAST_ERROR = 0.01
"""Smaller errors are drawn at the lower edge. A method that excludes all bad sources has rounding as its error, and
fourteen decades of it would hide the others."""


class BreakdownDisplay:
    """Error of each method over the share of bad sources, on a logarithmic scale.

    Errors below 0.01 lie at the lower edge.

    Parameters
    ----------
    rates : array-like of shape (n_rates,)
        Shares of bad sources.
    errors : mapping of str to array-like of shape (n_rates,)
        By method. Infinite where a method had no result: crosses at the upper edge.
    breakdown_at : float, optional
        An error above this is a breakdown.
    unit : str, default ""
        What errors are relative to.
    title : str, default ""

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    ax_: Axes
    figure_: Figure

    def __init__(
        self,
        rates: ArrayLike,
        errors: Mapping[str, ArrayLike],
        *,
        breakdown_at: float | None = None,
        unit: str = "",
        title: str = "",
    ) -> None:
        self.rates = np.asarray(rates, dtype=float)
        self.errors = {str(m): np.asarray(e, dtype=float) for m, e in errors.items()}
        self.breakdown_at, self.unit, self.title = breakdown_at, unit, title

    @classmethod
    def from_stress_test(cls, tested: Any, *, ax: Any = None) -> Self:
        """Draw a stress test.

        Parameters
        ----------
        tested : StressTest
            Of :func:`attacks.stress_test`.
        ax : matplotlib Axes, optional

        Returns
        -------
        BreakdownDisplay

        Raises
        ------
        TypeError
            If ``tested`` is no StressTest.
        ImportError
            If matplotlib is not installed.
        """
        if not hasattr(tested, "curve"):
            raise TypeError(
                f"tested must be a StressTest, as attacks.stress_test returns it; got {type(tested).__name__}."
            )
        curve = tested.curve
        errors = {str(method): curve[method].to_numpy() for method in curve}
        display = cls(
            curve.index,
            errors,
            breakdown_at=tested.breakdown_at,
            unit=tested.yardstick,
            title=tested.attack.name,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None, *, looks: Mapping[str, Mapping[str, Any]] | None = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        looks : mapping of str to dict, optional
            Options of ``Axes.plot`` for the line of a method, such as ``color``.

        Returns
        -------
        BreakdownDisplay
            This one.
        """
        self.figure_, (axes,) = axes_for("BreakdownDisplay", ax, 1, (6.4, 4.4))
        self.ax_ = axes
        all_errors = np.concatenate(list(self.errors.values()) or [np.ones(1)])
        top = ABOVE * float(all_errors[np.isfinite(all_errors)].max(initial=1.0))
        for i, (method, errors) in enumerate(self.errors.items()):
            color, dashes, marker = LINES[i % len(LINES)]
            # Later lines lie on earlier ones, which must be wider to be seen.
            look: dict[str, Any] = {"color": color, "ls": dashes, "marker": marker}
            look |= {"lw": max(3.2 - 0.3 * i, 1), "ms": max(8.5 - 0.6 * i, 4), "clip_on": False}
            look |= dict((looks or {}).get(method, {}))
            lost = ~np.isfinite(errors)
            shown = np.where(lost, np.nan, np.maximum(errors, LEAST_ERROR))
            axes.plot(self.rates, shown, label=literal(shortened(method)), **look)
            if lost.any():
                high = np.full(lost.sum(), top)
                axes.plot(self.rates[lost], high, "x", color=look["color"], ms=7, clip_on=False)
        if not np.isfinite(all_errors).all():
            axes.text(
                0.01,
                1,
                "x: no result",
                transform=axes.transAxes,
                va="top",
                fontsize="small",
                color=FAINT,
            )
        if self.breakdown_at is not None:
            axes.axhline(self.breakdown_at, color=FAINT, ls="--", lw=1, zorder=0)
        unit = f" / {self.unit}" if self.unit else ""
        axes.set(xlabel="share of bad sources", ylabel=f"error{unit}", yscale="log")
        axes.set_ylim(LEAST_ERROR if (all_errors < LEAST_ERROR).any() else None, None)
        if len(self.rates) <= MOST_TICKS:
            axes.set_xticks(self.rates, [f"{rate:.0%}" for rate in self.rates])
        axes.set_title(literal(self.title), loc="left", fontsize="medium")
        tidy(axes)
        legend(axes)
        return self
