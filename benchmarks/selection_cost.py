"""Claim: ten numbers of components are compared on 500,000 rows in 20 CPU seconds.

    python benchmarks/selection_cost.py [--partitions 20 --rows 25000]

A population of the paper's design (K = 5, 10 columns, overlap .1; see data/README.md). ``select_components`` compares
K = 1 to 10 by defaults, with the tight tolerance, on the synchronous scheduler. The tables have CPU seconds in all and
by stage of the graph, the choice of each criterion, and of each candidate: twice the log-likelihood and AIC above those
of the truth's K = 5, and the training rows of its lightest component, which is spurious if they are no more than ten.
"""

from __future__ import annotations

import time
import warnings

import dask
import numpy as np
from common import StageClock, draw_partitions, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, Selection, select_components

CANDIDATES, TRUE_K = range(1, 11), 5
CRITERIA = ("bic", "aic", "icl", "held_out")
LEAST_SECONDS = 0.1
"""Stages that take less are not in the table."""


def print_candidates(found: Selection) -> None:
    """The last table."""
    table = found.table.set_index("n_components")
    mixtures = dict(zip(table.index, found.mixtures, strict=True))
    numbers = table[["log_likelihood", "aic"]]
    above = numbers - numbers.loc[TRUE_K]
    print_table(
        [
            "K",
            "parameters",
            "2 log-likelihood above",
            "AIC above",
            "rows of the lightest",
            "spurious",
        ],
        [
            [
                k,
                table["n_parameters"][k],
                f"{2 * above['log_likelihood'][k]:.0f}",
                f"{above['aic'][k]:.0f}",
                f"{mixture.weights.min() * found.n_samples:.0f}",
                "yes" if table["spurious"][k] else "",
            ]
            for k, mixture in mixtures.items()
            if k >= TRUE_K
        ],
    )


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
        print_candidates(found)


if __name__ == "__main__":
    main()
