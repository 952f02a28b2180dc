"""The figures of the simulation, after those of the paper: nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter, StrMethodFormatter

from paper.grid import NONE
from paper.local_fits import PILOTS, TRUTH
from paper.methods import COAT, DEFAULT, HARDENED, MR, ORACLE, POOLED, REFINED, TRIM
from paper.tables import ANY

# Okabe and Ito's palette with a marker for each line, so that lines differ without colours too.
LOOKS: dict[str, dict[str, Any]] = {
    MR: {"color": "#999999", "marker": "x"},
    TRIM: {"color": "#CC79A7", "marker": "v"},
    COAT: {"color": "#E69F00", "marker": "^"},
    "DFMR(1)": {"color": "#56B4E9", "marker": "D"},
    "DFMR(1.3)": {"color": "#D55E00", "marker": "s"},
    DEFAULT: {"color": "#0072B2", "marker": "o"},
    HARDENED: {"color": "#000000", "marker": "P"},
    REFINED: {"color": "#882255", "marker": "d"},
    POOLED: {"color": "#009E73", "marker": "*"},
    ORACLE: {"color": "#7A5C00", "marker": "_"},
}
STYLE = {"font.size": 12, "axes.edgecolor": "#999999"}
ATTACKED = ("mean", "covariance", "weight")
"""The attacks of the figures, from top to bottom or from left to right."""

MOST_IN_A_ROW = 9
"""Methods in one row of the legend; more of them take two rows."""

MOST_OVER = 50.0
"""Panels end at so many times the oracle's median error."""

FEWEST_IN_A_BOX = 8
"""Boxes of fewer values also show each value, because their quartiles say little."""


def draw_figures(lines: pd.DataFrame, center: tuple[int, int], folder: Path) -> None:
    """Draw all figures: three of the local fits that started at the truth, and one of those from pilots.

    ``center`` are the numbers of machines and of rows of which one is kept while the other changes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = with_pooled(lines[lines["start"] == TRUTH])
    by_m = truth[truth["n_rows"] == center[1]]
    by_n = truth[truth["m"] == center[0]]
    draw_against_rate(by_n[by_n["n_rows"] == center[1]], folder / "paper-rates.png")
    draw_boxes(_by_attack(by_m), "m", "machines", folder / "paper-machines.png")
    draw_boxes(_by_attack(by_n), "n_rows", "rows in all", folder / "paper-rows.png")
    users = with_pooled(lines[lines["start"] == PILOTS])
    settings = {
        f"{m} x {n_rows // m:,} rows": at for (m, n_rows), at in users.groupby(["m", "n_rows"])
    }
    if settings:
        draw_boxes(settings, "attack", "attack", folder / "paper-pilots.png")


def _by_attack(lines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {name: lines[lines["attack"] == name] for name in _attacks(lines)}


def with_pooled(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines with those of the pooled fit and of the draws without bad machines under every attack."""
    attacks = _attacks(lines)
    attacked = lines[lines["attack"].isin(attacks)]
    shared = lines[lines["attack"].isin({NONE, ANY})]
    return pd.concat([attacked, *(shared.assign(attack=name) for name in attacks)])


def panels(
    n_rows: int, n_columns: int, sharey: str = "col"
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """A figure with a grid of panels."""
    figure = Figure(
        figsize=(14, 3.1 * n_rows + 1.2), dpi=80, layout="constrained", facecolor="white"
    )
    return figure, figure.subplots(n_rows, n_columns, sharex=True, sharey=sharey, squeeze=False)


def _attacks(lines: pd.DataFrame) -> list[str]:
    return [name for name in ATTACKED if (lines["attack"] == name).any()]


def _looks(lines: pd.DataFrame) -> Iterator[tuple[int, str, dict[str, Any]]]:
    there = [name for name in LOOKS if (lines["method"] == name).any()]
    return ((i, name, LOOKS[name]) for i, name in enumerate(there))


def draw_against_rate(lines: pd.DataFrame, path: Path) -> None:
    """Median W1 against the share of bad machines: a row of panels per attack, a column per overlap."""
    overlaps, attacks = sorted(lines["overlap"].unique()), _attacks(lines)
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(attacks), len(overlaps))
        for row, attack in zip(axes, attacks, strict=True):
            for panel, overlap in zip(row, overlaps, strict=True):
                here = lines[(lines["attack"] == attack) & (lines["overlap"] == overlap)]
                for i, method, look in _looks(here):
                    w1 = here[here["method"] == method].groupby("rate")["w1"].median()
                    # Later lines lie on top of earlier ones, which must be wider to be seen.
                    panel.plot(
                        w1.index, w1, label=method, lw=3.6 - 0.3 * i, ms=10 - 0.6 * i, **look
                    )
                best = lines[(lines["overlap"] == overlap) & (lines["method"] == ORACLE)]["w1"]
                panel.set(yscale="log", ylim=(0.5 * best.median(), MOST_OVER * best.median()))
                panel.set_title(f"{attack}, overlap {overlap:g}", loc="left", fontsize=13)
                panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
                tidy(panel)
        finish(figure, axes, "share of bad machines", "W1 to the truth, median over seeds", path)


def draw_boxes(rows: Mapping[str, pd.DataFrame], by: str, name: str, path: Path) -> None:
    """Box plots over seeds at the largest share of bad machines: a row of panels per name, a column per overlap."""
    overlaps = sorted(set().union(*(lines["overlap"].unique() for lines in rows.values())))
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(rows), len(overlaps))
        for row, (title, lines) in zip(axes, rows.items(), strict=True):
            most = lines[lines["rate"] == lines["rate"].max()]
            values = [
                v for v in (*ATTACKED, *sorted(set(most[by]) - set(ATTACKED))) if v in set(most[by])
            ]
            for panel, overlap in zip(row, overlaps, strict=True):
                here = most[most["overlap"] == overlap]
                _draw_boxes(panel, here, by, values)
                best = here[here["method"] == ORACLE]["w1"]
                panel.set(yscale="log", ylim=(0.12 * best.median(), MOST_OVER * best.median()))
                labels = [value if isinstance(value, str) else f"{value:,}" for value in values]
                panel.set_xticks(range(len(values)), labels)
                panel.set_title(f"{title}, overlap {overlap:g}", loc="left", fontsize=13)
                tidy(panel)
        rate = max(lines["rate"].max() for lines in rows.values())
        finish(figure, axes, name, f"W1 to the truth, {rate:.0%} of the machines bad", path)


def _draw_boxes(panel: Axes, lines: pd.DataFrame, by: str, values: Sequence[Any]) -> None:
    there = [method for method in LOOKS if (lines["method"] == method).any()][::-1]
    width = 0.85 / len(there)
    for i, method in enumerate(there):
        color = LOOKS[method]["color"]
        of_method = lines[lines["method"] == method]
        drawn = [of_method[of_method[by] == value]["w1"].to_numpy() for value in values]
        places = np.arange(len(values)) + (i - (len(there) - 1) / 2) * width
        boxes = panel.boxplot(
            drawn, positions=places, widths=0.8 * width, patch_artist=True, manage_ticks=False,
            medianprops={"color": "white"}, flierprops={"ms": 2, "marker": ".", "markeredgecolor": color},
            whiskerprops={"color": color}, capprops={"color": color},
        )  # fmt: skip
        few = max(map(len, drawn)) < FEWEST_IN_A_BOX
        for box in boxes["boxes"]:
            box.set(facecolor=f"{color}40" if few else color, edgecolor=color)
        if few:
            at = np.repeat(places, [len(values) for values in drawn])
            panel.plot(at, np.concatenate(drawn), ".", color=color, ms=5)
        panel.plot([], [], color=color, lw=8, label=method)


def tidy(panel: Axes) -> None:
    """Light lines across, and no frame on two sides."""
    panel.grid(axis="y", color="#DDDDDD", lw=0.8)
    if panel.get_yscale() == "log":
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.minorticks_off()
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(labelbottom=True)


def finish(figure: Figure, axes: Any, x: str, y: str, path: Path) -> None:
    """One legend for all panels, names of the axes, and the file."""
    found: dict[str, Any] = {}
    for panel in (panel for row in axes for panel in row):
        handles, names = panel.get_legend_handles_labels()
        found |= dict(zip(names, handles, strict=True))
    order = [name for name in reversed(LOOKS) if name in found]
    figure.legend(
        [found[name] for name in order],
        order,
        loc="outside upper center",
        ncols=len(order) if len(order) <= MOST_IN_A_ROW else -(-len(order) // 2),
        frameon=False,
    )
    figure.supxlabel(x)
    figure.supylabel(y)
    figure.savefig(path, pil_kwargs={"optimize": True})
