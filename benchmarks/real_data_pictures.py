"""Draws the picture of ``real_data.py``; nothing is fitted here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

# Okabe and Ito's palette: distinct for all kinds of colour vision. The last one marks lost cells.
CLASSES = [
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#999999",
    "#000000",
]
LOST = len(CLASSES) - 1
STYLE = {"font.size": 12, "axes.edgecolor": "#999999", "axes.facecolor": "#F4F4F4"}


def draw_oceans(
    path: Path,
    place: np.ndarray,
    titles: Sequence[str],
    labels: Sequence[np.ndarray],
    lost: Sequence[np.ndarray],
) -> None:
    """Draw maps of classes; colours follow the classes of the first map, and lost rows are black.

    ``place`` are latitudes and longitudes (n, 2).
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14, 5.4), dpi=80, layout="constrained", facecolor="white")
        for axes, title, own, unknown in zip(
            figure.subplots(2, 3, sharex=True, sharey=True).flat, titles, labels, lost, strict=True
        ):
            draw_ocean(axes, place, np.where(unknown, LOST, renamed(own, labels[0])))
            axes.set_title(title, loc="left", fontsize=13)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, pil_kwargs={"optimize": True})


def draw_ocean(axes: Axes, place: np.ndarray, colors: np.ndarray) -> None:
    """Draw one map with a cell per degree; land stays blank."""
    world = np.full((180, 360), np.nan)
    latitude, longitude = (place + np.array([90, 0])).T.astype(int)
    world[latitude, longitude % 360] = colors
    axes.imshow(
        world,
        ListedColormap(CLASSES),
        origin="lower",
        extent=(0, 360, -90, 90),
        vmin=0,
        vmax=LOST,
        interpolation="nearest",
    )
    axes.set(
        xticks=[], yticks=[-60, -30, 0, 30, 60], yticklabels=["60°S", "30°S", "0°", "30°N", "60°N"]
    )


def renamed(labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Classes renumbered, one to one, so that they share most cells with the classes of the reference."""
    shared = np.zeros((LOST, LOST), int)
    np.add.at(shared, (labels, reference), 1)
    return linear_sum_assignment(-shared)[1][labels]
