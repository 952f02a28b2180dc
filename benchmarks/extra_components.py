"""Claim: a fit with too many components costs little more than one with the right number, and is as good.

    python benchmarks/extra_components.py                                 # about 2 minutes on one core
    python benchmarks/extra_components.py --partitions 20 --rows 20000 --overlaps 0.3 --engine numpy

Populations of the paper's design (K = 5, 10 columns; see data/README.md), clean partitions in memory.
``GaussianMixture`` with its defaults fits K, K + 1, K + 2 and 2 K components on the synchronous scheduler. CPU times
are in units of that of K components: the whole, and of it the fits of all partitions and the second look at excluded
partitions, with its aggregation. "Gained" are those that the second look keeps; their passes count as 1. The loss is
that of 400,000 new rows against the fit of K components, in nats per row, with its standard error. By chance alone a
maximum likelihood fit of all rows loses half a surplus parameter over the number of rows. The last column has the
partitions that are excluded, all of them clean.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import dask
import numpy as np
from common import StageClock, draw_partitions, draw_rows, population
from output import benchmark_parser, print_progress, print_table, recorded

from dask_dfmr import GaussianMixture, Mixture
from dask_dfmr.local.estimate import FROM_OTHERS
from dask_dfmr.mixtures import engine
from dask_dfmr.on_dask import fit as run_of_passes

K = 5
N_HELD_OUT = 400_000
HEADER = ["overlap", "components", "CPU s", "over K", "fits alone", "second look alone"]
HEADER += ["passes: median, most", "loss of new rows", "by chance", "gained", "excluded"]


class Found(NamedTuple):
    """CPU seconds of a fit, its local fits and its second look; passes; mixture; partitions gained and excluded."""

    cpu: float
    fits: float
    look: float
    n_iter: np.ndarray
    mixture: Mixture
    n_gained: int
    n_excluded: int


def run(parts: list[np.ndarray], k: int) -> Found:
    """One fit of ``k`` components with default parameters."""
    lazy = [dask.delayed(part) for part in parts]
    model = GaussianMixture(k, random_state=0)
    with StageClock() as stages, clock_of_looks() as look:
        start = time.process_time()
        model.fit(lazy)
        cpu = time.process_time() - start
    report = model.partition_report_
    return Found(
        cpu,
        stages.cpu["fit_partition"],
        look[0],
        report["n_iter"].to_numpy(),
        model.mixture_,
        int((report["start"] == FROM_OTHERS).sum()),
        int((~report.kept).sum()),
    )


@contextmanager
def clock_of_looks() -> Iterator[list[float]]:
    """CPU seconds of the second look at excluded partitions; the sum is the only entry of the list."""
    seconds, look = [0.0], run_of_passes.refit_excluded

    def timed(*arguments: Any) -> Any:
        start = time.process_time()
        found = look(*arguments)
        seconds[0] += time.process_time() - start
        return found

    run_of_passes.refit_excluded = timed
    try:
        yield seconds
    finally:
        run_of_passes.refit_excluded = look


def line(overlap: float, k: int, found: Found, base: Found, new: np.ndarray, n: int) -> list[str]:
    """One line of the table."""
    losses = base.mixture.score_samples(new) - found.mixture.score_samples(new)
    error = losses.std() / np.sqrt(len(losses))
    n_surplus = found.mixture.n_parameters - base.mixture.n_parameters
    return [
        f"{overlap:g}",
        f"{k}",
        f"{found.cpu:.1f}",
        f"{found.cpu / base.cpu:.2f}",
        f"{found.fits / base.cpu:.2f}",
        f"{found.look / base.cpu:.2f}",
        f"{np.median(found.n_iter):.0f}, {found.n_iter.max()}",
        f"{losses.mean():.6f} +- {error:.6f}",
        f"{n_surplus / 2 / n:.6f}",
        f"{found.n_gained}",
        f"{found.n_excluded} of {len(found.n_iter)}",
    ]


def lines_of(overlap: float, options: argparse.Namespace) -> list[list[str]]:
    """The lines of one population; the fit of K components is run once before, so that everything is compiled."""
    truth, rng = population(overlap, 1), np.random.default_rng(1)
    parts = draw_partitions(truth, options.partitions, options.rows, rng)
    new = draw_rows(truth, N_HELD_OUT, rng)
    run(parts[:2], K)
    base = run(parts, K)
    lines = []
    for k in (K, K + 1, K + 2, 2 * K):
        found = base if k == K else run(parts, k)
        lines.append(line(overlap, k, found, base, new, options.partitions * options.rows))
        print_progress(*lines[-1])
    return lines


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--partitions", type=int, default=40)
    parser.add_argument("--rows", type=int, default=50_000, help="rows of a partition")
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--engine", choices=["numba", "numpy"], default="numba")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="synchronous")
    with recorded(options), engine.use(options.engine):
        print_table(
            HEADER, [row for overlap in options.overlaps for row in lines_of(overlap, options)]
        )


if __name__ == "__main__":
    main()
