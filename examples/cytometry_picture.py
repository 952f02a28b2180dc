"""Draws the picture of ``cytometry.py``; nothing is fitted here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dask_dfmr import GaussianMixture, MixtureDisplay, PartitionDisplay

# Blue and vermilion of Okabe and Ito's palette: distinct for all kinds of colour vision.
ROBUST, PLAIN, ROWS, INK = "#0072B2", "#D55E00", "#B4B4B4", "#333333"
COLUMNS = ["B1-A", "Y2-A"]
COVERAGE = 0.9
STYLE = {
    "font.size": 14,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "xtick.color": "#666666",
    "ytick.color": "#666666",
}


def draw_picture(
    path: Path,
    held_out: pd.DataFrame,
    robust: GaussianMixture,
    plain: GaussianMixture,
    truth: Mapping[int, str],
) -> None:
    """Left and middle: both mixtures on the held-out rows. Right: the distance of every file to the others."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(16, 7), dpi=100, layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12, wspace=0.03)
        left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
        for axes, model, name, color in (
            (left, robust, "Inconsistent files excluded", ROBUST),
            (middle, plain, "All files kept", PLAIN),
        ):
            draw_components(axes, robust, ROBUST, 1.2 if axes is middle else 3)
            if axes is middle:
                draw_components(axes, plain, PLAIN, 3)
            axes.scatter(*held_out[COLUMNS].to_numpy().T, s=9, color=ROWS, linewidths=0, zorder=0)
            axes.set(xlim=(-2, 7), ylim=(-1.2, 7), xticks=range(0, 8, 2), yticks=range(0, 8, 2))
            score = f"{model.score(held_out):.2f}".replace("-", "\N{MINUS SIGN}")
            write_title(axes, name, f"held-out log-likelihood {score} per row", color)
        write_note(left, f"{COVERAGE:.0%} of the rows\nof each component")
        write_note(middle, "thin: the same\nas on the left")
        notes = {i: what for i, what in truth.items() if not robust.support_[i]}
        PartitionDisplay.from_estimator(robust, notes=notes, ax=right)
        right.get_legend().set_in_layout(False)
        report = robust.partition_report_
        write_title(right, f"{report['kept'].sum()} of {len(report)} files kept", "", INK)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def draw_components(axes: Axes, model: GaussianMixture, color: str, width: float) -> None:
    """Ellipses of the components, without their numbers."""
    MixtureDisplay.from_estimator(
        model, columns=COLUMNS, coverage=COVERAGE, ax=axes, ec=color, lw=width
    )
    for number in axes.texts:
        number.set_visible(False)


def write_title(axes: Axes, title: str, subtitle: str, color: str) -> None:
    """Two lines over the left edge."""
    axes.set_title(f"{title}\n", loc="left", color=color, fontsize=18, fontweight="bold")
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, in_layout=False)


def write_note(axes: Axes, text: str) -> None:
    """What the lines mean, where there are none."""
    place = {"ha": "right", "va": "center", "transform": axes.transAxes}
    axes.text(1, 0.38, text, fontsize=13, color="#666666", **place)
