"""The paper's simulation: K = 5, d = 10, machines of which up to 40 % send wrong estimates.

    python benchmarks/paper/simulation.py --results FOLDER               # 2.6 CPU hours
    python benchmarks/paper/simulation.py --results FOLDER --minutes 20  # a part of it; run it again to go on
    python benchmarks/paper/simulation.py --results FOLDER --only-show   # tables and figures of what is there

Populations have a largest overlap of .1, .2 or .3, and every seed has its own one. There are 20, 50 and 100 machines,
and N = 5e5, 1e6 and 2e6 rows in all. Rows are nested: a smaller N has the first rows of a larger one. Bad machines,
floor(alpha m) of them, send attacked estimates; the local fits of a draw serve all attacks.

Local fits start at the truth, with the penalty of the paper, in all cells. At two settings they also start from pilots,
as a user's do: m = 50 with N = 1e6, and m = 100 with N = 5e5, where a machine has the fewest rows. There the hardened
filter and ``refine="auto"`` run too. Refinement passes read the rows of the machines whose estimates were kept. These
rows are honest, because the attacks of the paper are on estimates. At m = 50 and N = 1e6 two more things are measured:
local fits that stop as early as those of the published scripts, and the covariance attack of these scripts.

A cell that is done is a file of FOLDER, and a later run computes the others. Cells come seed by seed, so that a run
that ends early has about as many seeds of all.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from clusters import local_cluster
from output import benchmark_parser, print_progress, recorded

from paper.figures import draw_figures
from paper.grid import ATTACKS, NONE, RATES, UNSCALED, Job, read_results, run_grid
from paper.local_fits import EARLY, PILOTS, TRUTH
from paper.populations import Cell
from paper.tables import lines_of, print_tables

OVERLAPS = (0.1, 0.2, 0.3)
MACHINES, ROWS = (20, 50, 100), (5 * 10**5, 10**6, 2 * 10**6)
SIZES = tuple(product(MACHINES, ROWS))
"""Numbers of machines, and of rows in all."""

CENTER = (50, 10**6)

AS_USERS = (CENTER, (100, 5 * 10**5))
"""Settings whose local fits also start from pilots."""


def center_of(options: argparse.Namespace) -> tuple[int, int]:
    """The setting at which most is measured."""
    return CENTER if CENTER in options.sizes else options.sizes[0]


def design(options: argparse.Namespace) -> dict[Cell, Job]:
    """The cells in the order in which they are computed, and what is done in each.

    A seed of the extras comes after each second seed of the others, because it takes longer.
    """
    jobs: dict[Cell, Job] = {}
    for seed in range(max(options.seeds, 2 * options.extra_seeds)):
        if seed < options.seeds:
            jobs |= from_truth(options, seed)
        if seed % 2 and seed // 2 < options.extra_seeds:
            jobs |= extras(options, seed // 2)
    return jobs


def from_truth(options: argparse.Namespace, seed: int) -> dict[Cell, Job]:
    """The cells of one seed whose local fits start at the truth."""
    rates, jobs = tuple(options.rates), {}
    for overlap in options.overlaps:
        for size in options.sizes:
            cell = Cell(overlap, *size, TRUTH, seed, options.components, options.features)
            is_center = size == center_of(options)
            has_more = is_center and seed < options.extra_seeds
            attacks = (*ATTACKS, UNSCALED) if has_more else tuple(ATTACKS)
            pooled_at = (0.0, *rates) if is_center else (0.0, max(rates))
            jobs[cell] = Job(attacks, rates, pooled_at=pooled_at)
    return jobs


def extras(options: argparse.Namespace, seed: int) -> dict[Cell, Job]:
    """The cells of one seed whose local fits stop early or start from pilots."""
    rates, jobs = tuple(options.rates), {}
    ends = (0.0, max(rates))
    shape = options.components, options.features
    for overlap in options.overlaps:
        jobs[Cell(overlap, *center_of(options), EARLY, seed, *shape)] = Job((NONE,), ())
        for size in options.pilot_sizes:
            cell = Cell(overlap, *size, PILOTS, seed, *shape)
            jobs[cell] = Job(tuple(ATTACKS), rates, True, ends, ends)
    return jobs


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""

    def size(text: str) -> tuple[int, int]:
        try:
            m, n_rows = map(int, text.split("x"))
        except ValueError:
            expected = "must be machines x rows in all, like 50x1000000"
            raise argparse.ArgumentTypeError(f"{expected}; got {text!r}") from None
        return m, n_rows

    parser = benchmark_parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of the files of cells")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--extra-seeds", type=int, default=20, help="seeds with other starts too")
    parser.add_argument("--overlaps", type=float, nargs="+", default=OVERLAPS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--sizes", type=size, nargs="+", default=SIZES, help="like 50x1000000")
    parser.add_argument("--pilot-sizes", type=size, nargs="*", default=AS_USERS)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--minutes", type=float, help="stop after so many; a later run goes on")
    parser.add_argument("--only-show", action="store_true", help="compute nothing")
    parser.add_argument("--pictures", type=Path, help="folder of the figures")
    return parser.parse_args(arguments)


def compute(options: argparse.Namespace, jobs: dict[Cell, Job]) -> None:
    """Compute the cells that have no file, as one graph on a cluster of this machine."""
    began = time.monotonic()
    seconds = None if options.minutes is None else 60 * options.minutes
    with local_cluster(options.workers, dashboard_address=":0") as client:
        for i, path in enumerate(run_grid(client, jobs, options.results, seconds)):
            print_progress(f"{time.monotonic() - began:7.0f} s", i + 1, path.name)


def main(arguments: list[str] | None = None) -> None:
    """Compute what is not there, print the tables, and draw the figures if asked to."""
    options = parse(arguments)
    jobs = design(options)
    if not options.only_show:
        compute(options, jobs)
    found = read_results(jobs, options.results)
    with recorded(options):
        print_tables(found)
    if options.pictures:
        draw_figures(lines_of(found), center_of(options), options.pictures)


if __name__ == "__main__":
    main()
