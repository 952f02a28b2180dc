"""Draws the picture of ``attack_table.py``; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's palette with a marker for each line, so that lines differ without colours too.
LOOKS = {
    "mr": {"color": "#999999", "marker": "x"},
    "coat": {"color": "#E69F00", "marker": "^"},
    "trim": {"color": "#CC79A7", "marker": "v"},
    "componentwise": {"color": "#56B4E9", "marker": "D"},
    "dfmr, rho=1.3": {"color": "#D55E00", "marker": "s"},
    "dfmr": {"color": "#0072B2", "marker": "o"},
    "hardened": {"color": "#000000", "marker": "P"},
}
NAMES = {
    "dfmr": 'dfmr, rho="auto"',
    "mr": "mr (no filter)",
    "componentwise": 'method="componentwise"',
}

MOST, LEAST = 10.0, 0.8
"""Errors beyond these are drawn at the edge."""

FAIR = 1.2
"""The area below this error is shaded."""

COLUMNS = 5


def draw_breakdown_curves(
    path: Path, rates: Sequence[float], curves: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    """Draw error over the oracle's against the share of bad sources: a panel per attack, a line per method."""
    n_rows = -(-len(curves) // COLUMNS)
    with mpl.rc_context({"font.size": 12, "axes.edgecolor": "#999999"}):
        figure = Figure(
            figsize=(15, 2.7 * n_rows + 1.6), dpi=80, layout="constrained", facecolor="white"
        )
        panels = figure.subplots(n_rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat:
            axes.set_visible(False)
        for axes, (attack, lines) in zip(panels.flat, curves.items(), strict=False):
            axes.set_visible(True)
            axes.axhspan(
                LEAST, FAIR, color="#E3F1E5", zorder=0, label="within a fifth of the honest alone"
            )
            for i, (method, look) in enumerate(LOOKS.items()):
                if method in lines:
                    # Later lines lie on top of earlier ones, which must be wider to be seen.
                    width, size = 3.6 - 0.27 * i, 10 - 0.6 * i
                    shown = np.clip(lines[method], LEAST, MOST)
                    label = NAMES.get(method, method)
                    axes.plot(rates, shown, label=label, lw=width, ms=size, clip_on=False, **look)
            axes.set_title(attack, loc="left", fontsize=13)
            axes.set(yscale="log", ylim=(LEAST, MOST), xticks=rates)
            axes.set_yticks([1, 2, 5, MOST], ["1", "2", "5", f"{MOST:.0f}+"])
            axes.minorticks_off()
            axes.set_xticks(rates, [f"{rate:.0%}" for rate in rates])
            axes.grid(axis="y", color="#DDDDDD", lw=0.8)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            axes.tick_params(labelbottom=True)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(
            handles[::-1],
            labels[::-1],
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
        figure.supxlabel("share of bad sources")
        figure.supylabel("error of the parameters / that of the honest sources alone")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, pil_kwargs={"optimize": True})
