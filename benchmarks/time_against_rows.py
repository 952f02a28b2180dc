"""Wall time of whole jobs against rows, for this package and its peers, as a table and a picture.

    python benchmarks/time_against_rows.py --data DIR [--scales 0.125 0.25 0.5 1]

The script runs the contestants of ``whole_job.py`` on its "moderate" case at several sizes (100,000 rows a partition,
but at least 20 partitions) and draws their medians. Runs that are in ``--results`` are not repeated. The tables of
quality and memory at each size are those of ``whole_job.py --table-only --scale ...``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jobs import Job, ensure_job, load_job
from matplotlib.axes import Axes
from output import benchmark_parser, print_progress, print_table, recorded
from whole_job import (
    DEFAULT_CONTESTANTS,
    RUN_ONCE,
    Run,
    add_run_options,
    finish_options,
    load_runs,
    run_all,
    runs_of,
)

IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "time_against_rows.png"
CASE = "moderate"
HIGHLIGHT = ("dfmr", "dfmr-loosened")
NOT_DRAWN = (*RUN_ONCE, "sklearn-sample")
"""The time of a sample of fixed size does not depend on the rows."""

LABEL_GAP = 0.055
"""Least distance between two labels, as a share of the height of the axes."""

NICE_SECONDS = [step * 10**power for power in range(5) for step in (1, 2, 5)]

Curves = Mapping[str, Mapping[int, float]]


def median_walls(runs: Sequence[Run], jobs: Sequence[Job], contestants: Sequence[str]) -> Curves:
    """Median wall seconds by contestant and number of rows; contestants without runs are missing."""
    curves: dict[str, dict[int, float]] = {}
    for name in contestants:
        for job in jobs:
            walls = [run["wall"] for run in runs_of(runs, job.name, name) if "wall" in run]
            if walls:
                curves.setdefault(name, {})[job.n_rows] = float(np.median(walls))
    return curves


def draw(curves: Curves, path: Path) -> None:
    """Draw the curves on logarithmic axes, each with its name at its end."""
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for colour, (name, walls) in zip(colours, curves.items(), strict=False):
        width = 2.6 if name in HIGHLIGHT else 1.3
        axes.plot(*zip(*walls.items(), strict=True), "o-", color=colour, lw=width, ms=4)
    axes.set(xscale="log", yscale="log", xlabel="rows (10 columns, K = 5)", ylabel="wall seconds")
    axes.set_title(
        "Whole job on 2 cores: parquet on disk to a mixture, start of processes included"
    )
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    rows = sorted({n for walls in curves.values() for n in walls})
    axes.set_xticks(rows, [f"{n / 1e6:.3g} million" for n in rows])
    low, high = axes.get_ylim()
    seconds = [t for t in NICE_SECONDS if low <= t <= high]
    axes.set_yticks(seconds, [f"{t:g}" for t in seconds])
    axes.minorticks_off()
    label_ends(axes, curves, colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def label_ends(axes: Axes, curves: Curves, colours: Sequence[tuple[float, ...]]) -> None:
    """Write names at the right of the axes at the height of the last points, without overlaps."""
    low, high = np.log(axes.get_ylim())
    ends = [(np.log(walls[max(walls)]) - low) / (high - low) for walls in curves.values()]
    names, last = list(curves), -np.inf
    for i in np.argsort(ends):
        last = max(ends[i], last + LABEL_GAP)
        weight = "bold" if names[i] in HIGHLIGHT else "normal"
        where = {"xy": (1.01, last), "xycoords": "axes fraction", "va": "center"}
        axes.annotate(names[i], color=colours[i], weight=weight, **where)


def main() -> None:
    """Run the missing contestants, print the table, draw the picture."""
    parser = benchmark_parser(__doc__)
    add_run_options(parser)
    parser.set_defaults(contestants=[name for name in DEFAULT_CONTESTANTS if name not in NOT_DRAWN])
    parser.add_argument("--scales", type=float, nargs="*", default=[0.125, 0.25, 0.5, 1.0])
    parser.add_argument("--image", type=Path, default=IMAGE)
    options = parser.parse_args()
    finish_options(options)
    with recorded(options):
        scales = sorted(options.scales)
        folders = [ensure_job(options.data, CASE, scale, options.overlap) for scale in scales]
        if not options.table_only:
            run_all(folders, options)
        jobs = [load_job(folder) for folder in folders]
        curves = median_walls(load_runs(options.results), jobs, options.contestants)
        header = ["contestant", *(f"{job.n_rows:,} rows: wall s" for job in jobs)]
        table = [
            [name, *(f"{walls[job.n_rows]:.1f}" if job.n_rows in walls else "" for job in jobs)]
            for name, walls in curves.items()
        ]
        print_table(header, table)
    draw(curves, options.image)
    print_progress(f"wrote {options.image}")


if __name__ == "__main__":
    main()
