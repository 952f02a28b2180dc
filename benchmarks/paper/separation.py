"""From inside the noise to far away: what is excluded, and what it costs, by the distance of the bad machines.

    python benchmarks/paper/separation.py               # five minutes of one core
    python benchmarks/paper/separation.py --pictures docs/images

The bound of the paper needs bad machines that are separated from the honest ones. This script measures the curve
between. Bad machines have rows of a population of their own, whose means all move, each bad machine's alike. The
distance is in units of n^-1/2, where n is the number of rows of a machine and the coordinates are those in which rows
with known components have the identity as information. The error of an honest estimate has a length of about sqrt(p) of
these units, p = 329 parameters.

"radii" is the distance of bad estimates from the center in radii. Errors are W1 to the truth over that of the oracle,
the reduction of the honest estimates.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib as mpl
import numpy as np
import pandas as pd
from output import benchmark_parser, print_table, recorded
from threadpoolctl import threadpool_limits

from dask_dfmr import LocalEstimate, Mixture, aggregate, fit_local, mixing_distance
from dask_dfmr.attacks.adversary import n_bad
from paper.figures import LOOKS, STYLE, finish, panels, tidy
from paper.local_fits import TRUTH, fit_machines
from paper.methods import DEFAULT, HARDENED, Result, run_methods
from paper.populations import Cell, draw_machines, draw_population

DISTANCES = (0, 2, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 128, 256)
SHOWN = (DEFAULT, "DFMR(1)", "DFMR(1.3)", HARDENED)


def moved(truth: Mixture, distance: float, n: int, rng: np.random.Generator) -> Mixture:
    """The population with all means moved by ``distance`` * n^-1/2 in all, in a direction that is drawn."""
    steps = rng.standard_normal(truth.means.shape)
    steps *= distance / np.sqrt(n) / np.linalg.norm(steps)
    roots = np.linalg.cholesky(truth.covariances)
    shifts = np.einsum("kij,kj->ki", roots, steps) / np.sqrt(truth.weights)[:, None]
    return Mixture(truth.weights, truth.means + shifts, truth.covariances)


def bad_estimates(cell: Cell, population: Mixture, which: np.ndarray) -> list[LocalEstimate]:
    """The local fits of some machines that have rows of another population, from that population."""
    machines = draw_machines(cell, population)
    options: dict[str, Any] = {"penalty": "paper", "n_sources": cell.m}
    return [fit_local(machines[i], cell.n_components, start=population, **options) for i in which]


def curve(cell: Cell, rate: float, distances: list[float]) -> Iterator[dict[str, Any]]:
    """The lines of one draw: a method at a distance each."""
    truth = draw_population(*cell.population)
    honest = fit_machines(cell, truth).estimates
    which = np.arange(n_bad(rate, cell.m))
    is_bad = np.isin(np.arange(cell.m), which)
    best = aggregate(honest[len(which) :], method="mr", random_state=0).mixture
    oracle = mixing_distance(best, truth)
    for distance in distances:
        rng = np.random.default_rng([cell.seed, cell.m])
        population = moved(truth, distance, cell.n_rows // cell.m, rng)
        estimates = [*bad_estimates(cell, population, which), *honest[len(which) :]]
        for result in run_methods(estimates, hardened=True):
            if result.method in SHOWN:
                assert result.ratios is not None
                over = mixing_distance(result.mixture, truth) / oracle
                yield cell._asdict() | {
                    "distance": distance,
                    "radii": float(result.ratios[is_bad].mean()),
                    "method": result.method,
                    "over": over,
                    **_shares(result, is_bad),
                }


def _shares(result: Result, is_bad: np.ndarray) -> dict[str, float]:
    assert result.kept is not None
    return {
        "bad_excluded": float(1 - result.kept[is_bad].mean()),
        "honest_excluded": float(1 - result.kept[~is_bad].mean()),
    }


def print_curves(lines: pd.DataFrame) -> None:
    """A table for each overlap and number of machines."""
    for (overlap, m), here in lines.groupby(["overlap", "m"]):
        seeds = here["seed"].nunique()
        print(f"Overlap {overlap:g}, {m} machines, {seeds} seeds: mean error over the oracle's,")
        print("and share of the bad / of the honest machines that were excluded.\n")
        rows = []
        for distance, at in here.groupby("distance"):
            cells = []
            for method in SHOWN:
                mean = at[at["method"] == method][
                    ["over", "bad_excluded", "honest_excluded"]
                ].mean()
                cells.append(f"{mean.iloc[0]:.2f}, {mean.iloc[1]:.0%} / {mean.iloc[2]:.1%}")
            rows.append([f"{distance:g}", f"{at['radii'].mean():.2f}", *cells])
        print_table(["distance", "radii", *SHOWN], rows)


def draw_curves(lines: pd.DataFrame, path: Path) -> None:
    """Error and share excluded against the distance: a column for each overlap and number of machines."""
    settings = list(lines.groupby(["overlap", "m"]))
    with mpl.rc_context(STYLE):
        figure, axes = panels(2, len(settings), sharey="row")
        for column, ((overlap, m), here) in zip(axes.T, settings, strict=True):
            for i, method in enumerate(SHOWN):
                mean = here[here["method"] == method].groupby("distance").mean(numeric_only=True)
                style = {"label": method, "lw": 3 - 0.4 * i, "ms": 9 - i, **LOOKS[method]}
                column[0].plot(mean.index, mean["over"], **style)
                column[1].plot(mean.index, mean["bad_excluded"], **style)
            column[0].set_title(f"overlap {overlap:g}, m = {m}", loc="left", fontsize=13)
            column[0].set(yscale="log")
            column[1].set(xscale="symlog", ylim=(-0.05, 1.05))
            column[1].set_xticks([0, 2, 8, 32, 128], ["0", "2", "8", "32", "128"])
            for panel in column:
                tidy(panel)
        axes[0, 0].set_ylabel("W1 / the oracle's")
        axes[1, 0].set_ylabel("bad machines excluded")
        finish(figure, axes, "distance of the bad machines, in units of n^-1/2", "", path)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--machines", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--rows", type=int, default=5000, help="rows of a machine")
    parser.add_argument("--rate", type=float, default=0.3, help="share of bad machines")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--distances", type=float, nargs="+", default=DISTANCES)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--pictures", type=Path, help="folder of the figure")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, and draw the figure if asked to."""
    options = parse(arguments)
    shape = (options.components, options.features)
    cells = [
        Cell(overlap, m, m * options.rows, TRUTH, seed, *shape)
        for overlap in options.overlaps
        for m in options.machines
        for seed in range(options.seeds)
    ]
    began = time.process_time()
    with recorded(options), warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        lines = pd.DataFrame([x for c in cells for x in curve(c, options.rate, options.distances)])
        print(
            f"{options.rate:.0%} of the machines are bad, {options.rows} rows a machine;", end=" "
        )
        print(f"{time.process_time() - began:.0f} CPU seconds.\n")
        print_curves(lines)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        draw_curves(lines, options.pictures / "paper-separation.png")


if __name__ == "__main__":
    main()
