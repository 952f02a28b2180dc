"""``SelectionDisplay``: how far each candidate of a selection is behind the best one, over the number of components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np

from dask_dfmr import checks
from dask_dfmr.mixtures.family import Array
from dask_dfmr.plotting.axes import INK, LINES, axes_for, legend, literal, tidy, whole_numbers
from dask_dfmr.selection.criteria import CRITERIA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """Candidates on one line: numbers of components, and how far they are behind the best in nats per row.

    ``errors`` are standard errors of the latter, if they are known.
    """

    n_components: Array
    behind: Array
    errors: Array | None = None


class SelectionDisplay:
    """How far the candidates are behind the best one, in nats per row, over the number of components.

    AIC, BIC and ICL are divided by twice the number of rows, so that all criteria have the unit of the held-out
    log-likelihood. 0 is the best candidate of each line's criterion. The axis is linear near 0 and logarithmic above.

    Parameters
    ----------
    lines : mapping of str to Line
        A Line is a tuple (n_components, behind, errors).
    selected : tuple of str and int, optional
        The line and the number of components of the selected candidate.
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
        lines: Mapping[str, tuple[Array, Array, Array | None]],
        *,
        selected: tuple[str, int] | None = None,
        title: str = "",
    ) -> None:
        self.lines = {name: Line(*line) for name, line in lines.items()}
        self.selected, self.title = selected, title

    @classmethod
    def from_selection(
        cls,
        selection: Any,
        *,
        criterion: Literal["bic", "aic", "icl", "held_out"] | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw a selection.

        Parameters
        ----------
        selection : Selection
        criterion : {"bic", "aic", "icl", "held_out"}, optional
            Draw this one alone, a line per structure of the covariances. By default a selection of one structure has
            a line per criterion, and one of several structures has the criterion that decided.
        ax : matplotlib Axes, optional

        Returns
        -------
        SelectionDisplay

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong.
        ImportError
            If matplotlib is not installed.
        """
        table = getattr(selection, "table", None)
        if table is None or not hasattr(selection, "n_held_out"):
            raise TypeError(
                f"selection must be a Selection, as select_components returns it; got {type(selection).__name__}."
            )
        if criterion is not None:
            checks.one_of("criterion", criterion, CRITERIA)
        structures = list(dict.fromkeys(table["covariance_type"]))
        offered = [c for c in CRITERIA if c != "held_out" or selection.n_held_out]
        best = table.iloc[selection.best]
        by_structure = len(structures) > 1 or criterion is not None
        if by_structure:
            shown = criterion or selection.criterion
            lines = {
                s: _line(table[table["covariance_type"] == s], table, shown, selection.n_samples)
                for s in structures
            }
            name, title = best["covariance_type"], f"by {shown}"
        else:
            lines = {c: _line(table, table, c, selection.n_samples) for c in offered}
            name, title = selection.criterion, f'covariance_type="{structures[0]}"'
        selected = (str(name), int(best["n_components"]))
        return cls(lines, selected=selected, title=title).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        SelectionDisplay
            This one.
        """
        self.figure_, (axes,) = axes_for("SelectionDisplay", ax, 1, (6.4, 4.0))
        self.ax_ = axes
        behind = np.concatenate([line.behind for line in self.lines.values()] or [np.ones(1)])
        positive = behind[np.isfinite(behind) & (behind > 0)]
        step = float(np.quantile(positive, 0.2)) if len(positive) else 1.0
        axes.set_yscale("symlog", linthresh=step)
        for i, (name, line) in enumerate(self.lines.items()):
            color, dashes, marker = LINES[i % len(LINES)]
            is_there = np.isfinite(line.behind)
            x, y = line.n_components[is_there], line.behind[is_there]
            axes.plot(x, y, color=color, ls=dashes, marker=marker, ms=5, label=literal(name))
            if line.errors is not None:
                axes.errorbar(x, y, line.errors[is_there], fmt="none", ecolor=color, capsize=2)
        if self.selected is not None and self.selected[0] in self.lines:
            name, k = self.selected
            line = self.lines[name]
            axes.plot(
                k,
                line.behind[line.n_components == k][0],
                "o",
                ms=13,
                mfc="none",
                mec=INK,
                mew=1.5,
                clip_on=False,
                label=f"selected: {k}",
            )
        highest = float(positive.max()) if len(positive) else 1.0
        axes.set(
            xlabel="number of components",
            ylabel="behind the best, nats per row",
            ylim=(-0.4 * step, 1.3 * highest),
        )
        whole_numbers(axes)
        axes.axhline(0, color="#BBBBBB", lw=0.8, zorder=0)
        axes.set_title(literal(self.title), loc="left", fontsize="medium")
        tidy(axes)
        legend(axes)
        return self


def _line(rows: Any, table: Any, criterion: str, n_samples: int) -> Line:
    """Candidates of some rows of the table of a selection, behind the best of the whole table."""
    rows = rows.sort_values("n_components")
    k = rows["n_components"].to_numpy()
    if criterion == "held_out":
        return Line(k, rows["held_out_gap"].to_numpy(), rows["held_out_gap_se"].to_numpy())
    behind = (rows[criterion] - table[criterion].min()) / (2 * n_samples)
    return Line(k, behind.to_numpy())
