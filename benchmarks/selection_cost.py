"""Claim: ten numbers of components are compared on 500,000 rows in 20 CPU seconds.

    python benchmarks/selection_cost.py [--partitions 20 --rows 25000]

A population of the paper's design (K = 5, 10 columns, overlap .1; see data/README.md). ``select_components`` compares
K = 1 to 10 by defaults, with the tight tolerance, on the synchronous scheduler. The table has CPU seconds in all and by
stage of the graph, and the choice of each criterion.
"""

from __future__ import annotations

import time
import warnings

import dask
import numpy as np
from common import StageClock, draw_partitions, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, select_components

CANDIDATES = range(1, 11)
CRITERIA = ("bic", "aic", "icl", "held_out")
LEAST_SECONDS = 0.1
"""Stages that take less are not in the table."""


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--rows", type=int, default=25_000, help="rows of a partition")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    truth = population(0.1, 1)
    parts = draw_partitions(truth, options.partitions, options.rows, np.random.default_rng(1))
    lazy = [dask.delayed(part) for part in parts]
    model = GaussianMixture(random_state=0)
    model.fit([part[:1000] for part in parts[:2]])  # loads the kernels
    with recorded(options), dask.config.set(scheduler="synchronous"), StageClock() as clock:
        began = time.process_time()
        found = select_components(model, lazy, CANDIDATES)
        total = time.process_time() - began
        stages = sorted(clock.cpu.items(), key=lambda pair: -pair[1])
        lines = [["all", f"{total:.1f}"]]
        lines += [[name, f"{s:.1f}"] for name, s in stages if s >= LEAST_SECONDS]
        print_table(["stage", "CPU s"], lines)
        chosen = [int(found.best_by(name)["n_components"]) for name in CRITERIA]
        print_table(["criterion", "K"], [list(pair) for pair in zip(CRITERIA, chosen, strict=True)])


if __name__ == "__main__":
    main()
