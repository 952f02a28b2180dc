"""Claim: the constants of the tests of rows in a refinement are what their docstrings say.

    python benchmarks/row_tests.py           # about 6 CPU minutes
    python benchmarks/row_tests.py --quick   # a smoke test

Four parts, all on clean partitions. "Components": to a population of two to five components in two columns comes one
that follows a few rows. The table counts partitions with p < .001 at that mixture, by the rows that the component has
for each of its parameters. Without ``LEAST_ROWS_PER_PARAMETER`` a refinement would exclude these.

"Explained": scale and spread of the score statistics under the law of the mixture, over draws. They decide whether this
law is enough.

"Far rows": p-values of the excess of consistent partitions of the families and tables in row_families.py, by the number
of longest scores that give the law. The same partitions are judged with a gross row in the first of them.

"Same rows": the largest relative difference between marks of the same rows in two passes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import dask
import numpy as np
from common import draw_partitions
from output import benchmark_parser, print_progress, print_table, recorded
from row_families import FAMILIES, TABLES, Family, Table, draw_family, draw_table, is_there

from dask_dfmr import GaussianMixture, Mixture, fit_local
from dask_dfmr.local import row_statistics
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted, measure
from dask_dfmr.mixtures.capped_scores import cap_for
from dask_dfmr.refinement import far_rows as far
from dask_dfmr.refinement import score_test
from dask_dfmr.refinement.same_rows import row_sums
from dask_dfmr.refinement.score_test import ScoreSample, ScoreTest, score_statistics

LEVEL = 1e-3
EDGES = (1.0, 3.0, 10.0, 30.0)
"""Rows a parameter at which the lines of the first table end."""

LONGEST = (2, 4, 8, 16)
SIZES = ((400, 40), (1000, 30), (5000, 20))
"""Rows of a partition of the generated families, and how many partitions there are."""


def planted(k: int, rng: np.random.Generator) -> Mixture:
    """A population of ``k`` components in two columns, some of which overlap."""
    means = rng.normal(size=(k, 2)) * 2.5
    covariances = [np.diag(rng.uniform(0.5, 1.5, 2)) for _ in range(k)]
    return Mixture(rng.dirichlet(np.full(k, 4.0)), means, covariances)


def delayed(parts: list[np.ndarray]) -> list[Any]:
    """The partitions as Delayed arrays."""
    return [dask.delayed(rows) for rows in parts]


# -- components without rows ---------------------------------------------------------------------


def components_table(n_draws: int) -> None:
    """Consistent partitions with small p-values, by the rows a parameter of a component too many."""
    n_partitions: Counter[int] = Counter()
    n_below: Counter[int] = Counter()
    for seed in range(n_draws):
        for n_rows in (3, 6, 12, 30, 120, 300):
            rows_a_parameter, p_values = with_stray(seed, n_rows)
            which = int(np.searchsorted(EDGES, rows_a_parameter))
            n_partitions[which] += len(p_values)
            n_below[which] += int((p_values < LEVEL).sum())
    names = [f"{a:g} to {b:g}" for a, b in pairwise((0.0, *EDGES, np.inf))]
    lines = [
        [names[k], n_partitions[k], n_below[k], f"{100 * n_below[k] / n_partitions[k]:.2f} %"]
        for k in sorted(n_partitions)
    ]
    print_table(["rows a parameter", "partitions", "p < .001", "share"], lines)


def with_stray(seed: int, n_rows: int) -> tuple[float, np.ndarray]:
    """Rows a parameter of a component that follows a few rows, and p-values at a mixture that has it.

    The component starts at some neighbouring rows and is led by ten EM steps over all rows of 20 partitions.
    """
    rng = np.random.default_rng([seed, n_rows, 1])
    k = 2 + seed % 4
    truth = planted(k, rng)
    parts = draw_partitions(truth, 20, 800, rng)
    pooled = np.concatenate(parts)
    center = pooled[rng.integers(len(pooled))]
    near = pooled[np.argsort(((pooled - center) ** 2).sum(axis=1))[:n_rows]]
    share = n_rows / len(pooled)
    covariance = np.cov(near.T) + 1e-4 * np.eye(2)
    start = Mixture(
        np.append(truth.weights * (1 - share), share),
        np.vstack([truth.means, near.mean(axis=0)]),
        np.concatenate([truth.covariances, covariance[None]]),
    )
    mixture = fit_local(pooled, k + 1, start=start, max_iter=10).mixture
    assert mixture is not None
    lightest = float(mixture.weights.min()) * len(pooled)
    family, point = mixture.family, (mixture.weights, mixture.components)
    statistics_of, sample = score_tests(parts, mixture, rng)
    counts, everyone = np.full(len(parts), 800.0), np.ones(len(parts), dtype=bool)
    _, settled = sample.settle(statistics_of, range(len(parts)), counts, everyone)
    return lightest / family.n_parameters(1, family.n_features(point[1])), settled.p_values


def score_tests(
    parts: list[np.ndarray], mixture: Mixture, rng: np.random.Generator
) -> tuple[Callable[[ScoreTest], np.ndarray], ScoreSample]:
    """The statistics of partitions under a test, and what makes tests, of all rows."""
    point = (mixture.weights, mixture.components)
    cap = cap_for(mixture.family, point, parts, float(len(parts[0])), mixture.n_parameters)
    readings = readings_of(parts, mixture, cap)
    (total,) = row_statistics.total_of(readings)
    used = frozenset(range(len(parts)))

    def statistics_of(test: ScoreTest) -> np.ndarray:
        return np.array(score_statistics(readings, test, total, used))

    return statistics_of, ScoreSample(mixture.family, point, dict(enumerate(parts)), cap, rng)


# -- what the law of the mixture explains --------------------------------------------------------


def explained_table(n_draws: int) -> None:
    """Scale and spread of 20 partitions of 800 rows under the law of their mixture."""
    lines = []
    for k in (1, 2, 3, 5):
        found = np.array([scale_and_spread(k, seed) for seed in range(n_draws)])
        low, high = found.min(axis=0), found.max(axis=0)
        within = (found <= [score_test.EXPLAINED_SCALE, score_test.EXPLAINED_SPREAD]).all(axis=1)
        cells = [f"{low[j]:.2f} to {high[j]:.2f}" for j in (0, 1)]
        lines.append([k, n_draws, *cells, f"{int(within.sum())} of {n_draws}"])
    print_table(["components", "draws", "scale", "spread", "both explained"], lines)


def scale_and_spread(k: int, seed: int) -> np.ndarray:
    """Of one draw, at the mixture fitted to all rows."""
    rng = np.random.default_rng([seed, k, 2])
    truth = planted(k, rng)
    parts = draw_partitions(truth, 20, 800, rng)
    mixture = fit_local(np.concatenate(parts), k, start=truth).mixture
    assert mixture is not None
    statistics_of, sample = score_tests(parts, mixture, rng)
    test = sample.test(())
    counts, everyone = np.full(len(parts), 800.0), np.ones(len(parts), dtype=bool)
    settled = test.settle(statistics_of(test), counts, everyone)
    return np.array([settled.scale, settled.spread])


def readings_of(parts: list[np.ndarray], mixture: Mixture, cap: float) -> list[PartitionStatistics]:
    """The statistics of partitions, with as many of the longest scores as any line of the table needs."""
    with mock.patch.object(row_statistics, "N_LONGEST", max(LONGEST)):
        wanted = Wanted(score_cap=cap)
        return [
            PartitionStatistics(i, len(rows), measurements=measure(rows, [mixture], wanted))
            for i, rows in enumerate(parts)
        ]


# -- far rows ------------------------------------------------------------------------------------


class Case(NamedTuple):
    """Partitions of one population, and a mixture that was fitted to them."""

    name: str
    parts: list[np.ndarray]
    mixture: Mixture


def cases(n_draws: int, quick: bool) -> Iterator[Case]:
    """All families and tables."""
    jobs: list[tuple[Family | Table, int, int]] = [
        (family, m, n) for n, m in SIZES[: 1 if quick else None] for family in FAMILIES
    ]
    jobs += [] if quick else [(table, 0, 0) for table in TABLES if is_there(table)]
    for about, m, n in jobs:
        for seed in range(n_draws):
            draw = (
                draw_family(about, m, n, "", [seed])
                if isinstance(about, Family)
                else draw_table(about, "", [seed])
            )
            gm = GaussianMixture(about.n_components, random_state=0, init_params="kmeans")
            yield Case(about.name, draw.partitions, gm.fit(delayed(draw.partitions)).mixture_)


def p_values_of(case: Case, n_longest: int, gross: float = 0.0) -> np.ndarray:
    """P-values of the excess of all partitions; the first has a row ``gross`` standard deviations away, if any."""
    mixture, parts = case.mixture, list(case.parts)
    point = (mixture.weights, mixture.components)
    usual = float(np.median([len(rows) for rows in parts]))
    cap = cap_for(mixture.family, point, parts, usual, mixture.n_parameters)
    if gross:
        rows = parts[0].copy()
        rows[0] += gross * np.concatenate(parts).std(axis=0)
        parts[0] = rows
    readings = [with_longest(one, n_longest) for one in readings_of(parts, mixture, cap)]
    excess = np.array(far.excess_lengths(readings, mixture.family, point))
    with mock.patch.object(far, "N_LONGEST", n_longest):
        return far.far_rows(excess, readings, cap, np.ones(len(parts), dtype=bool)).p_values


def with_longest(one: PartitionStatistics, n_longest: int) -> PartitionStatistics:
    """The statistics with fewer of the longest scores."""
    measured = one.measurements[0]
    assert measured.longest is not None
    return replace(one, measurements=(replace(measured, longest=measured.longest[-n_longest:]),))


def far_table(n_draws: int, quick: bool) -> None:
    """Consistent partitions with small p-values, and gross rows that are found."""
    below: Counter[int] = Counter()
    where: Counter[tuple[int, str]] = Counter()
    found: Counter[tuple[int, float]] = Counter()
    n_partitions = n_cases = 0
    for case in cases(n_draws, quick):
        n_partitions, n_cases = n_partitions + len(case.parts), n_cases + 1
        for n_longest in LONGEST:
            n_below = int((p_values_of(case, n_longest) < LEVEL).sum())
            below[n_longest] += n_below
            where[n_longest, case.name] += n_below
            for gross in (100.0, 1e6):
                found[n_longest, gross] += int(p_values_of(case, n_longest, gross)[0] < LEVEL)
        print_progress("far rows", case.name, len(case.parts), dict(below))
    lines = [
        [
            n_longest,
            f"{below[n_longest]} of {n_partitions}",
            ", ".join(f"{name} {n}" for (c, name), n in where.items() if c == n_longest and n),
            *(f"{found[n_longest, gross]} of {n_cases}" for gross in (100.0, 1e6)),
        ]
        for n_longest in LONGEST
    ]
    header = ["longest scores", "consistent, p < .001", "of them", "row 100 sd away found"]
    print_table([*header, "row 10^6 sd away found"], lines)


# -- same rows -----------------------------------------------------------------------------------


def same_rows_table(n_pairs: int) -> None:
    """The largest difference of marks of the same rows under two mixtures, by how far the rows are from 0."""
    lines = []
    for offset in (0.0, 1e3, 1e6):
        differences = []
        for family in FAMILIES:
            rng = np.random.default_rng(3)
            rows = family.rows(rng, 5000, False)
            rows = rows + offset * rows.std(axis=0)
            gaussian = Mixture([1.0], rows[:1], [np.eye(rows.shape[1])]).family
            for _ in range(n_pairs):
                sums = []
                for _ in range(2):
                    start = gaussian.start_components(rows, draw_rows_of(rows, 3, rng))
                    mixture = gaussian.mixture(rng.dirichlet(np.ones(3)), start)
                    one = PartitionStatistics(
                        0, len(rows), measurements=measure(rows, [mixture], Wanted())
                    )
                    point = (mixture.weights, mixture.components)
                    sums += row_sums([one], gaussian, [point])
                differences.append(abs(sums[0].mark - sums[1].mark) / sums[0].size)
        lines.append([f"{offset:g}", len(differences), f"{max(differences):.1g}"])
    print_table(["offset in sd", "pairs of passes", "largest relative difference"], lines)


def draw_rows_of(rows: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Some rows, all different."""
    different = np.unique(rows, axis=0)
    return different[rng.choice(len(different), k, replace=False)]


def print_results(options: argparse.Namespace) -> None:
    """All tables."""
    began, quick = time.process_time(), options.quick
    components_table(1 if quick else options.strays)
    explained_table(2 if quick else 30)
    far_table(1 if quick else options.draws, quick)
    same_rows_table(1 if quick else 10)
    print(f"CPU seconds: {time.process_time() - began:.0f}.")


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--strays", type=int, default=150, help="draws with a component too many")
    parser.add_argument("--draws", type=int, default=2, help="draws of each family and table")
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="synchronous")
    with recorded(options):
        print_results(options)


if __name__ == "__main__":
    main()
