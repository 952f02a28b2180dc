"""Claim: ``method="componentwise"`` keeps other proportions, and the intact components of corrupted partitions.

    python benchmarks/componentwise.py

Random populations (K = 3, d = 3), 40 partitions of 2,000 rows, local fits started at the truth. The method is for
regimes that differ in their mixing weights, for sorted rows where a regime lacks a component, and for partitions of
which one component is corrupted. The other cases are those of plain DFMR and, marked with a star, those that the method
does not handle.

The oracle is plain mixture reduction of the estimates before they were corrupted. Where whole partitions are corrupted,
it is the reduction of the clean partitions only. In a case with corrupted components it therefore uses rows that no
method can use. The script prints the errors W1 to the truth in units of the oracle's, and the shares of rows excluded.
Where most partitions lack a component, the oracle mostly loses it too; its own error is in the first column.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from common import draw_rows
from output import benchmark_parser, print_table, recorded

from dask_dfmr import Aggregate, LocalEstimate, Mixture, aggregate, fit_local, mixing_distance

K, D, SPREAD = 3, 3, 3.0

METHODS: dict[str, dict[str, Any]] = {
    "DFMR(1.3)": {"rho": 1.3},
    "MR": {"method": "mr"},
    "componentwise": {"method": "componentwise"},
}


class Case(NamedTuple):
    """The estimates to aggregate, the truth behind them, and the clean estimates that the oracle reduces."""

    name: str
    truth: Mixture
    estimates: list[LocalEstimate]
    clean: list[LocalEstimate]


def population(seed: int) -> Mixture:
    """Three components in three columns with random weights, means and covariances."""
    rng = np.random.default_rng([seed, 99])
    factors = rng.normal(size=(K, D, D))
    covariances = factors @ factors.transpose(0, 2, 1) / D + 0.3 * np.eye(D)
    return Mixture(rng.dirichlet(np.full(K, 5.0)), SPREAD * rng.normal(size=(K, D)), covariances)


def reweighted(mixture: Mixture, weights: np.ndarray) -> Mixture:
    """The same components in other proportions."""
    return Mixture(np.asarray(weights), mixture.means, mixture.covariances)


def fit(rows: np.ndarray, start: Mixture, n_sources: int) -> LocalEstimate:
    """One partition's estimate."""
    return fit_local(rows, K, start=start, n_sources=n_sources)


def fits(
    population_of: Callable[[int], Mixture],
    start: Mixture,
    m: int,
    n: int,
    rng: np.random.Generator,
) -> list[LocalEstimate]:
    """Estimates of m partitions, each with a population of its own."""
    return [fit(draw_rows(population_of(i), n, rng), start, m) for i in range(m)]


def edited(estimate: LocalEstimate, **parameters: np.ndarray) -> LocalEstimate:
    """The same estimate with other parameters."""
    mixture = estimate.mixture
    assert mixture is not None
    new = mixture.to_arrays() | parameters
    return LocalEstimate(Mixture.from_arrays(new), estimate.n_samples)


def shifted(estimate: LocalEstimate, k: int, rng: np.random.Generator) -> LocalEstimate:
    """Component k moved at random by about 4 units in every column, where covariances are about 1."""
    assert estimate.mixture is not None
    means = estimate.mixture.means.copy()
    means[k] += 4.0 * rng.normal(size=D)
    return edited(estimate, means=means)


def replaced(estimate: LocalEstimate, k: int, rng: np.random.Generator) -> LocalEstimate:
    """Component k with an unrelated mean and covariance."""
    assert estimate.mixture is not None
    means, covariances = estimate.mixture.means.copy(), estimate.mixture.covariances.copy()
    factor = rng.normal(size=(D, D))
    means[k] = 2 * SPREAD * rng.normal(size=D)
    covariances[k] = factor @ factor.T / D + 0.1 * np.eye(D)
    return edited(estimate, means=means, covariances=covariances)


def with_garbage(truth: Mixture, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of which three in ten belong to a cluster that the population does not have."""
    rows = draw_rows(truth, n, rng)
    n_garbage = 3 * n // 10
    rows[:n_garbage] = 8.0 * rng.normal(size=D) + 0.5 * rng.normal(size=(n_garbage, D))
    return rng.permutation(rows)


def cases(seed: int, m: int, n: int) -> Iterator[Case]:
    """All cases of one population, with ``m`` partitions of ``n`` rows."""
    truth, rng = population(seed), np.random.default_rng([seed, 1])
    clean = fits(lambda i: truth, truth, m, n, rng)
    n_corrupted = 3 * m // 10

    def regimes(
        first: list[float], second: list[float], n_second: int
    ) -> tuple[Mixture, list[LocalEstimate]]:
        parts = [reweighted(truth, np.array(w)) for w in (first, second)]
        estimates = fits(lambda i: parts[int(i >= m - n_second)], truth, m, n, rng)
        share = n_second / m
        whole = (1 - share) * parts[0].weights + share * parts[1].weights
        return reweighted(truth, whole), estimates

    def every_second(
        edit: Callable[..., LocalEstimate], estimates: list[LocalEstimate]
    ) -> list[LocalEstimate]:
        return [edit(e, i % K, rng) if i % 2 else e for i, e in enumerate(estimates)]

    yield Case("clean", truth, clean, clean)
    whole, mixed = regimes([0.6, 0.3, 0.1], [0.1, 0.2, 0.7], n_corrupted)
    yield Case("two regimes 70/30", whole, mixed, mixed)
    sorted_whole, ordered = regimes([0.5, 0.3, 0.2], [0.0, 0.4, 0.6], n_corrupted)
    yield Case("30 % lack a component", sorted_whole, ordered, ordered)
    yield Case("a component shifted on half", truth, every_second(shifted, clean), clean)
    yield Case("a component replaced on half", truth, every_second(replaced, clean), clean)
    yield Case("two regimes, shifted on half", whole, every_second(shifted, mixed), mixed)
    yield Case(
        "a component shifted on all",
        truth,
        [shifted(e, i % K, rng) for i, e in enumerate(clean)],
        clean,
    )
    attacked = [edited(e, means=2 * SPREAD * rng.normal(size=(K, D))) for e in clean[:n_corrupted]]
    yield Case(
        "means replaced, 30 %", truth, [*attacked, *clean[n_corrupted:]], clean[n_corrupted:]
    )
    attacked = [
        edited(e, weights=np.roll(e.mixture.weights, 1)) for e in clean[:n_corrupted] if e.mixture
    ]
    yield Case(
        "weights rolled, 30 % (*)", truth, [*attacked, *clean[n_corrupted:]], clean[n_corrupted:]
    )
    attacked = [fit(with_garbage(truth, n, rng), truth, m) for _ in range(m // 5)]
    yield Case(
        "30 % garbage rows on 20 % (*)", truth, [*attacked, *clean[m // 5 :]], clean[m // 5 :]
    )
    yield Case(
        "30 % lack it, shifted on half (*)", sorted_whole, every_second(shifted, ordered), ordered
    )
    whole, ordered = regimes([0.5, 0.3, 0.2], [0.0, 0.4, 0.6], m - n_corrupted)
    yield Case("70 % lack a component (*)", whole, ordered, ordered)


def share_excluded(result: Aggregate, estimates: list[LocalEstimate]) -> float:
    """Share of the rows that are not in the result, because their partition or their component was excluded."""
    n_samples, decision = np.array([e.n_samples for e in estimates]), result.decision
    if decision.components is not None:
        kept = decision.components.n_rows[decision.components.kept].sum()
    else:
        kept = n_samples[decision.kept].sum()
    return float(1 - kept / n_samples.sum())


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--partitions", type=int, default=40)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=12)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with recorded(options):
        found: dict[str, list[list[float]]] = {}
        for seed in range(options.seeds):
            for case in cases(seed, options.partitions, options.rows):
                found.setdefault(case.name, []).append(measure(case))
        rows = [row_of(name, np.array(lines)) for name, lines in found.items()]
        print_table(["case", "oracle", *METHODS, "DFMR excludes", "componentwise excludes"], rows)


def measure(case: Case) -> list[float]:
    """The oracle's error; then, method by method, the error over it and the share of rows excluded."""
    oracle = mixing_distance(aggregate(case.clean, method="mr").mixture, case.truth)
    line = [oracle]
    for method in METHODS.values():
        result = aggregate(case.estimates, **method)
        line.append(mixing_distance(result.mixture, case.truth) / oracle)
        line.append(share_excluded(result, case.estimates))
    return line


def row_of(name: str, values: np.ndarray) -> list[str]:
    """One line of the table from the measurements (n_populations, 7): means, and largest errors in brackets."""
    mean, largest = values.mean(axis=0), values.max(axis=0)
    ratios = [f"{mean[i]:.2f} ({largest[i]:.2f})" for i in (1, 3, 5)]
    return [name, f"{mean[0]:.3f}", *ratios, f"{mean[2]:.1%}", f"{mean[6]:.1%}"]


if __name__ == "__main__":
    main()
