"""Draws the picture of ``cytometry.py``; nothing is fitted here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from dask_dfmr import FilterDecision, Mixture

# Blue and vermilion of Okabe and Ito's palette: distinct for all kinds of colour vision.
ROBUST, PLAIN, ROWS, INK = "#0072B2", "#D55E00", "#B4B4B4", "#333333"
COLUMNS = ["B1-A", "Y2-A"]
STYLE = {
    "font.size": 15,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
}


def draw_picture(
    path: Path,
    held_out: pd.DataFrame,
    mixtures: Mapping[str, Mixture],
    decision: FilterDecision,
    report: pd.DataFrame,
    truth: Mapping[int, str],
) -> None:
    """Left and middle: both mixtures on the held-out rows. Right: the distance of every file to the others."""
    robust, plain = mixtures["robust"], mixtures["plain"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(16, 7), dpi=100, layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12, wspace=0.03)
        left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.25])
        middle.sharex(left)
        middle.sharey(left)
        draw_rows(left, held_out)
        draw_components(left, robust, ROBUST)
        draw_rows(middle, held_out)
        draw_components(middle, robust, ROBUST, lw=1.2)
        draw_components(middle, plain, PLAIN)
        for axes, name, mixture, color in (
            (left, "Inconsistent files excluded", robust, ROBUST),
            (middle, "All files kept", plain, PLAIN),
        ):
            score = f"{mixture.score(held_out):.2f}".replace("-", "\N{MINUS SIGN}")
            write_title(axes, name, f"held-out log-likelihood {score} per row", color)
        write_note(left, "two standard deviations\nof each component")
        write_note(middle, "thin: the same\nas on the left")
        draw_distances(right, decision, report, truth)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def write_title(axes: Axes, title: str, subtitle: str, color: str) -> None:
    """Two lines over the left edge."""
    axes.set_title(f"{title}\n", loc="left", color=color, fontsize=20, fontweight="bold")
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, in_layout=False)


def write_note(axes: Axes, text: str) -> None:
    """What the lines mean, where there are none."""
    place = {"ha": "right", "va": "center", "transform": axes.transAxes}
    axes.text(1, 0.38, text, fontsize=13, color="#666666", **place)


def draw_rows(axes: Axes, rows: pd.DataFrame) -> None:
    """The rows that nothing was fitted to."""
    axes.scatter(*rows[COLUMNS].to_numpy().T, s=9, color=ROWS, linewidths=0)
    axes.set_xlabel(COLUMNS[0])
    axes.set_ylabel(COLUMNS[1])
    axes.set_xticks(range(0, 8, 2))
    axes.set_yticks(range(0, 8, 2))


def draw_components(axes: Axes, mixture: Mixture, color: str, lw: float = 3) -> None:
    """Ellipses of two standard deviations."""
    means, covariances = mixture.marginal(COLUMNS).full_components
    for mean, covariance in zip(means, covariances, strict=True):
        variances, directions = np.linalg.eigh(covariance)
        width, height = 4 * np.sqrt(variances)
        angle = np.degrees(np.arctan2(directions[1, 0], directions[0, 0]))
        axes.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, ec=color, lw=lw))


def draw_distances(
    axes: Axes, decision: FilterDecision, report: pd.DataFrame, truth: Mapping[int, str]
) -> None:
    """One line per file: its distance to the others, or why it has none."""
    assert decision.sampling_ratios is not None
    farthest_kept = decision.sampling_ratios[report["kept"]].max()
    for file in report.itertuples():
        color = ROBUST if file.kept else PLAIN
        y, x = file.partition, decision.sampling_ratios[file.partition]
        axes.plot([0, x], [y, y], color=color, lw=2, alpha=0.35)
        axes.plot(x, y, "o", color=color, ms=9)
        if not file.kept:
            what = truth.get(y, "undamaged")
            if np.isnan(x):
                what, align = f"{what}: no estimate ({file.outcome})", "center"
            else:
                y, align = y - 0.25, "bottom"
            axes.text(farthest_kept + 0.4, y, what, color=color, va=align, in_layout=False)
    excluded = report.loc[~report["kept"], "partition"]
    axes.set_yticks(excluded, [f"plate-{i:02d}" for i in excluded])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(report) - 0.3, -1)
    axes.set_xlim(-0.15, max(9.3, np.nanmax(decision.sampling_ratios) + 0.3))
    axes.axvline(1.0, color=INK, lw=1.2)
    axes.text(1.12, -0.6, "sampling", color=INK, va="center")
    axes.set_xlabel("distance to the others (1: sampling explains it)")
    kept = f"{report['kept'].sum()} of {len(report)} files kept"
    write_title(axes, kept, "one dot per file", INK)
