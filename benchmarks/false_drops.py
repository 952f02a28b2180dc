"""How many honest partitions ``rho="auto"`` leaves out, and what finding out costs.

    python benchmarks/false_drops.py                 # about 15 minutes
    python benchmarks/false_drops.py --only 17       # mixtures of 17 free parameters

Honest machines only, so that every one left out is a false drop. Printed is the share of machines with p-values
below 5 %, 1 % and 0.1 % relative to nominal (1 is exact) and the share outside 1.3 radii, where local fits start
at the population (the wells: at a fit to all rows); and how often a HeterogeneityWarning was given. Then, for one
draw fitted as users fit, from pilots, the CPU time of finding what sampling explains (consensus, its law,
distances to it, verdict), and the same relative to the local fits, with those of the pilots and without.

Populations: MixSim's definition, overlap .05 (K = 5, d = 10: the populations of the paper's design,
overlap .1). Unequal: sizes drawn log-uniformly from half to eight times the rows. Wells: the 19,998 honest rows of
``examples/data/cytometry.parquet``, split at random again and again.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
from common import SEEDS, StageClock, draw_rows, population, print_machine, print_table
from mixsim import mixsim

from dask_dfmr import HeterogeneityWarning, LocalEstimate, Mixture, aggregate, dfmr, fit_local

LEVELS = (0.05, 0.01, 0.001)
JUDGING = (
    *("draw_estimates", "take_estimates", "join_estimates"),
    *("consensus", "consensus_distances", "judge"),
)
WELLS = Path(__file__).parents[1] / "examples" / "data" / "cytometry.parquet"


class Case(NamedTuple):
    """So many machines of so many rows, drawn so often."""

    n_components: int
    n_features: int
    n_sources: int
    n_rows: int
    repetitions: int


CASES = (
    Case(1, 1, 40, 500, 250),
    Case(2, 1, 40, 2000, 150),
    Case(2, 2, 40, 2000, 150),
    Case(3, 2, 40, 2000, 150),
    Case(3, 5, 40, 2000, 100),
    Case(5, 10, 40, 5000, 60),
    Case(5, 10, 40, 1000, 25),
)


def populations(case: Case) -> list[Mixture]:
    """Several, so that no peculiar one decides."""
    if case.n_components == 1:
        return [Mixture([1.0], [[0.0]], [[[1.0]]])]
    if (case.n_components, case.n_features) == (5, 10):
        return [population(0.1, seed) for seed in SEEDS]
    return [mixsim(case.n_components, case.n_features, 0.05, seed) for seed in range(8)]


def sizes(case: Case, unequal: bool, rng: np.random.Generator) -> np.ndarray:
    """Rows of each machine."""
    if not unequal:
        return np.full(case.n_sources, case.n_rows)
    return (case.n_rows * np.exp2(rng.uniform(-1, 3, case.n_sources))).astype(int)


def simulated(case: Case, unequal: bool) -> Iterator[tuple[list[np.ndarray], Mixture]]:
    """Partitions and where their fits start."""
    truths = populations(case)
    for repetition in range(case.repetitions):
        rng = np.random.default_rng([repetition, case.n_features, unequal])
        truth = truths[repetition % len(truths)]
        yield [draw_rows(truth, n, rng) for n in sizes(case, unequal, rng)], truth


def wells(
    n_components: int, n_rows: int, repetitions: int
) -> Iterator[tuple[list[np.ndarray], Mixture]]:
    """The honest wells, split at random."""
    frame = pd.read_parquet(WELLS)
    rows = frame[frame["well"] != "YFP A7"].drop(columns="well").to_numpy(np.float64)
    starts = (fit_local(rows, n_components, start="kmeans", random_state=s) for s in range(5))
    start = max(starts, key=lambda e: e.log_likelihood).mixture
    assert start is not None
    for repetition in range(repetitions):
        order = np.random.default_rng(repetition).permutation(len(rows))
        pieces = len(rows) // n_rows
        yield np.split(rows[order[: pieces * n_rows]], pieces), start


def measure(name: str, draws: Iterator[tuple[list[np.ndarray], Mixture]]) -> list[str]:
    """One line of the table."""
    p_values, outside, costs, warned = [], [], [""], 0
    for rows, start in draws:
        if not p_values:
            costs = cost_of_judging(rows, start.n_components)
        estimates: list[LocalEstimate] = [
            fit_local(X, start.n_components, start=start, n_sources=len(rows)) for X in rows
        ]
        result = aggregate(estimates)
        decision = result.decision
        warned += any(note.category is HeterogeneityWarning for note in result.notes)
        assert decision.p_values is not None
        p_values.append(decision.p_values)
        outside.append((decision.distance_ratios > 1.3).mean())
    p = np.concatenate(p_values)
    shares = [f"{(p < level).mean() / level:.2f}" for level in LEVELS]
    n_parameters = str(start.n_parameters)
    outside_radii = f"{np.mean(outside):.1%}"
    alarms = f"{warned} of {len(p_values)}"
    return [name, n_parameters, str(len(p)), *shares, outside_radii, alarms, *costs]


def cost_of_judging(rows: list[np.ndarray], n_components: int) -> list[str]:
    """CPU time of judging; over that of all fits, and of those that are not pilots'."""
    sizes = tuple(len(X) for X in rows)
    X = da.from_array(np.concatenate(rows), chunks=(sizes, (rows[0].shape[1],)))
    dfmr(X, n_components, random_state=0).compute(scheduler="synchronous")  # compiles
    with StageClock() as clock:
        dfmr(X, n_components, random_state=0).compute(scheduler="synchronous")
    judging = sum(clock.cpu[stage] for stage in JUDGING)
    fits = clock.cpu["fit_partition"]
    pilots = clock.cpu["fit_pilot"] + clock.cpu["shortlist"]
    return [f"{1000 * judging:.0f} ms", f"{judging / (fits + pilots):.0%}", f"{judging / fits:.0%}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, help="number of free parameters")
    parser.add_argument("--repetitions", type=float, default=1.0, help="times the usual number")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print_machine()
    lines = []
    for case in CASES:
        n_parameters = populations(case)[0].n_parameters
        if options.only not in (None, n_parameters):
            continue
        scaled = case._replace(repetitions=max(1, int(case.repetitions * options.repetitions)))
        for unequal in (False, True):
            size = f"{case.n_rows} rows{', unequal' if unequal else ''}"
            name = f"K {case.n_components}, d {case.n_features}, {size}"
            lines.append(measure(name, simulated(scaled, unequal)))
    for n_components, n_rows in ((5, 820), (2, 820)):
        n_parameters = 21 * n_components - 1
        if options.only in (None, n_parameters):
            draws = wells(n_components, n_rows, max(1, int(40 * options.repetitions)))
            lines.append(measure(f"wells, K {n_components}, {n_rows} rows", draws))
    levels = [f"p < {level:g}" for level in LEVELS]
    print_table(
        [
            "honest machines",
            "parameters",
            "judged",
            *levels,
            "outside 1.3",
            "warned",
            "judging",
            "of all fits",
            "of fits",
        ],
        lines,
    )


if __name__ == "__main__":
    main()
