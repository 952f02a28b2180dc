"""How many clean partitions ``rho="auto"`` excludes, and the cost of the test.

    python benchmarks/false_exclusions.py                 # about 15 minutes
    python benchmarks/false_exclusions.py --only 17       # mixtures of 17 free parameters

All partitions are clean, so that every exclusion is false. The script prints the share of partitions with p-values
below 5 %, 1 % and 0.1 % relative to nominal (1 is exact) and the share outside 1.3 radii. It also prints how often a
HeterogeneityWarning was issued. Here local fits start at the population, for the wells at a fit to all rows.

One more draw is fitted as users fit, from pilots. For it the script prints the CPU time of the test: consensus, its
law, distances to it, decision. The same time stands relative to all local fits, and to those that are not pilots'.

Populations: MixSim's definition, overlap .05 (K = 5, d = 10: the populations of the paper's design, overlap .1).
Unequal: sizes drawn log-uniformly from half to eight times the rows. Wells: the 19,998 clean rows of
``examples/data/cytometry.parquet``, split at random again and again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
from common import SEEDS, StageClock, draw_rows, population
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded

from dask_dfmr import (
    GaussianMixture,
    HeterogeneityWarning,
    LocalEstimate,
    Mixture,
    aggregate,
    dfmr,
    fit_local,
)

LEVELS = (0.05, 0.01, 0.001)
TEST_STAGES = (
    *("draw_estimates", "take_estimates", "join_estimates"),
    *("consensus", "consensus_distances", "judge"),
)
WELLS = Path(__file__).parents[1] / "examples" / "data" / "cytometry.parquet"


class Case(NamedTuple):
    """The size of the mixture, the number of partitions, the rows of each, and the number of draws."""

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
    """The populations of a case; several, so that the result does not hang on one of them."""
    if case.n_components == 1:
        return [Mixture([1.0], [[0.0]], [[[1.0]]])]
    if (case.n_components, case.n_features) == (5, 10):
        return [population(0.1, seed) for seed in SEEDS]
    return [mixsim(case.n_components, case.n_features, 0.05, seed) for seed in range(8)]


def sizes(case: Case, unequal: bool, rng: np.random.Generator) -> np.ndarray:
    """Numbers of rows, one a partition."""
    if not unequal:
        return np.full(case.n_sources, case.n_rows)
    return (case.n_rows * np.exp2(rng.uniform(-1, 3, case.n_sources))).astype(int)


def simulated(case: Case, unequal: bool) -> Iterator[tuple[list[np.ndarray], Mixture]]:
    """All draws of a case: partitions, and the mixture where their fits start."""
    truths = populations(case)
    for repetition in range(case.repetitions):
        rng = np.random.default_rng([repetition, case.n_features, unequal])
        truth = truths[repetition % len(truths)]
        yield [draw_rows(truth, n, rng) for n in sizes(case, unequal, rng)], truth


def wells(
    n_components: int, n_rows: int, repetitions: int
) -> Iterator[tuple[list[np.ndarray], Mixture]]:
    """The clean wells, split at random into partitions of ``n_rows`` rows, and where their fits start."""
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
    """The line of one case: parameters, partitions, shares of small p-values, warnings and cost of the test."""
    p_values, outside, costs, warned = [], [], [""], 0
    for rows, start in draws:
        if not p_values:
            costs = cost_of_test(rows, start.n_components)
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


def cost_of_test(rows: list[np.ndarray], n_components: int) -> list[str]:
    """CPU time of the test; the same over that of all fits, and over that of fits that are not pilots'."""
    sizes = tuple(len(X) for X in rows)
    X = da.from_array(np.concatenate(rows), chunks=(sizes, (rows[0].shape[1],)))
    dfmr(GaussianMixture(n_components, random_state=0), X).compute(
        scheduler="synchronous"
    )  # compiles
    with StageClock() as clock:
        dfmr(GaussianMixture(n_components, random_state=0), X).compute(scheduler="synchronous")
    test = sum(clock.cpu[stage] for stage in TEST_STAGES)
    fits = clock.cpu["fit_partition"]
    pilots = clock.cpu["fit_pilot"] + clock.cpu["shortlist"]
    return [f"{1000 * test:.0f} ms", f"{test / (fits + pilots):.0%}", f"{test / fits:.0%}"]


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--only", type=int, help="number of free parameters")
    parser.add_argument("--repetitions", type=float, default=1.0, help="times the usual number")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    levels = [f"p < {level:g}" for level in LEVELS]
    header = ["clean partitions", "parameters", "tested", *levels, "outside 1.3", "warned"]
    with recorded(options):
        lines = table_lines(options.only, options.repetitions)
        print_table([*header, "test", "of all fits", "of fits"], lines)


def table_lines(only: int | None, repetitions: float) -> list[list[str]]:
    """The lines of all cases, or of those with ``only`` so many free parameters."""
    lines = []
    for case in CASES:
        n_parameters = populations(case)[0].n_parameters
        if only not in (None, n_parameters):
            continue
        scaled = case._replace(repetitions=max(1, int(case.repetitions * repetitions)))
        for unequal in (False, True):
            size = f"{case.n_rows} rows{', unequal' if unequal else ''}"
            name = f"K {case.n_components}, d {case.n_features}, {size}"
            lines.append(measure(name, simulated(scaled, unequal)))
    for n_components, n_rows in ((5, 820), (2, 820)):
        n_parameters = 21 * n_components - 1
        if only in (None, n_parameters):
            draws = wells(n_components, n_rows, max(1, int(40 * repetitions)))
            lines.append(measure(f"wells, K {n_components}, {n_rows} rows", draws))
    return lines


if __name__ == "__main__":
    main()
