"""Claim: past 2,000 partitions the center by references costs O(m), and decides as all pairs would.

    python benchmarks/many_partitions.py [--cost 100 500 2000 10000 --kinds "x 1000" --shares 0.3]

1. Cost: CPU seconds of ``aggregate`` for m estimates of K = 5 components in 10 columns, by all pairs and by references.
   For all pairs beyond ``--all-pairs-up-to`` the table shows the time of the line before times (m ratio)^2.
2. Agreement at m = 2,000, by kind and share of corrupted estimates, for several draws of the references. The table
   shows how often the center is the same. It also shows how many corrupted estimates that all pairs exclude are kept,
   and how many decisions on clean ones differ. The second table does the same for one component in one and two columns,
   also without corrupted estimates: there the center is hard to tell from its neighbours.

The estimates are drawn, not fitted. Clean ones come from the normal distribution around the population that maximum
likelihood with known labels would have at n rows (``Gaussian.coordinates``). Local fits look like that where the
components are well apart; where they overlap, real ones scatter more. Corrupted estimates scatter alike around
something else.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from common import estimates_around, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import LocalEstimate, Mixture, aggregate
from dask_dfmr.aggregation.references import N_REFERENCES
from dask_dfmr.aggregation.result import FilterDecision

N_ROWS = 2000
OVERLAP, SEED = 0.1, 1

# -- estimates -----------------------------------------------------------------------------------


def drawn_around(center: Mixture, rng: np.random.Generator) -> Iterator[LocalEstimate]:
    """An endless stream of estimates from ``N_ROWS`` rows each."""
    return estimates_around(center, N_ROWS, rng)


Estimates = list[LocalEstimate]


def moved(mixture: Mixture, shift: np.ndarray | float, factor: float = 1.0) -> Mixture:
    """The mixture with all columns multiplied by ``factor`` and moved by ``shift``."""
    return Mixture(mixture.weights, factor * mixture.means + shift, factor**2 * mixture.covariances)


def another_population(center: Mixture, n: int, rng: np.random.Generator) -> Estimates:
    """Clean estimates of the other population."""
    return list(islice(drawn_around(population(OVERLAP, 3 - SEED), rng), n))


def another_unit(center: Mixture, n: int, rng: np.random.Generator) -> Estimates:
    """Estimates of rows in a unit a thousand times as small."""
    some = islice(drawn_around(center, rng), n)
    return [LocalEstimate(moved(e.mixture, 0.0, 1000.0), N_ROWS) for e in some]


def all_different(center: Mixture, n: int, rng: np.random.Generator) -> Estimates:
    """Each estimate moved in a direction of its own, by .05 to 5 times a normal vector."""
    some = islice(drawn_around(center, rng), n)
    lengths = np.exp(rng.uniform(np.log(0.05), np.log(5.0), n))
    shifts = lengths[:, None] * rng.normal(size=(n, center.n_features))
    return [
        LocalEstimate(moved(e.mixture, shift), N_ROWS)
        for e, shift in zip(some, shifts, strict=True)
    ]


def one_direction(center: Mixture, n: int, rng: np.random.Generator) -> Estimates:
    """All estimates moved the same way; with K = 5 the border of what is kept runs through them."""
    scale = np.sqrt(np.diagonal(center.covariances, axis1=1, axis2=2).mean() / N_ROWS)
    return list(islice(drawn_around(moved(center, 5.0 * scale), rng), n))


def a_clique(center: Mixture, n: int, rng: np.random.Generator) -> Estimates:
    """Near copies of one clean estimate."""
    one = next(drawn_around(center, rng)).mixture
    return [LocalEstimate(moved(one, 1e-6 * rng.normal()), N_ROWS) for _ in range(n)]


Kind = Callable[[Mixture, int, np.random.Generator], Estimates]
KINDS: dict[str, Kind] = {
    "another population": another_population,
    "x 1000": another_unit,
    "all different": all_different,
    "one direction": one_direction,
    "copies of one": a_clique,
}


def draw(center: Mixture, m: int, share: float, kind: Kind) -> tuple[Estimates, np.ndarray]:
    """Estimates in random order, and which of them are corrupted."""
    rng = np.random.default_rng(0)
    is_corrupted = rng.permutation(m) < round(share * m)
    clean = drawn_around(center, rng)
    corrupted = iter(kind(center, int(is_corrupted.sum()), rng))
    return [next(corrupted) if b else next(clean) for b in is_corrupted], is_corrupted


def one_component(n_features: int) -> Mixture:
    """One component of standard normal columns."""
    return Mixture([1.0], np.zeros((1, n_features)), np.eye(n_features)[None])


# -- tables --------------------------------------------------------------------------------------


def timed(
    estimates: Estimates, n_references: int | None, seed: int = 0
) -> tuple[float, FilterDecision]:
    """CPU seconds of ``aggregate``, and its decision."""
    began = time.process_time()
    result = aggregate(estimates, n_references=n_references, random_state=seed)
    return time.process_time() - began, result.decision


def cost_row(m: int, all_pairs_up_to: int, quadratic: float) -> tuple[list[str], float]:
    """The line of ``m`` partitions, and its seconds of all pairs over m^2; ``quadratic`` is that of the line before."""
    estimates, _ = draw(population(OVERLAP, SEED), m, 0.3, another_population)
    pairs = f"({quadratic * m**2:.0f} expected)"
    if m <= all_pairs_up_to:
        seconds, _ = timed(estimates, None)
        pairs, quadratic = f"{seconds:.1f}", seconds / m**2
    if m <= N_REFERENCES:
        return [str(m), pairs, "all pairs"], quadratic
    seconds, _ = timed(estimates, N_REFERENCES)
    return [str(m), pairs, f"{seconds:.1f}"], quadratic


def agreement_row(center: Mixture, m: int, share: float, name: str, n_draws: int) -> list[str]:
    """One line: the decision by all pairs, and how those by references differ from it."""
    estimates, is_corrupted = draw(center, m, share, KINDS[name])
    _, exact = timed(estimates, None)
    ours = [timed(estimates, N_REFERENCES, seed)[1] for seed in range(n_draws)]
    same = sum(decision.center == exact.center for decision in ours)
    more = max(int((decision.kept & ~exact.kept)[is_corrupted].sum()) for decision in ours)
    differ = max(int((decision.kept != exact.kept)[~is_corrupted].sum()) for decision in ours)
    excluded = [
        f"{(~exact.kept)[which].sum()} of {which.sum()}" for which in (is_corrupted, ~is_corrupted)
    ]
    return [name, f"{share:.0%}", *excluded, f"{same} of {n_draws}", str(more), str(differ)]


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--cost", type=int, nargs="*", default=[100, 500, 2000, 10_000])
    parser.add_argument("--all-pairs-up-to", type=int, default=2000)
    parser.add_argument("--partitions", type=int, default=2000)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.3, 0.45])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--few-columns", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with recorded(options):
        print_cost(options.cost, options.all_pairs_up_to)
        print_agreement(options)


def print_cost(sizes: Sequence[int], all_pairs_up_to: int) -> None:
    """The table of CPU seconds."""
    rows, quadratic = [], float("nan")
    for m in sizes:
        row, quadratic = cost_row(m, all_pairs_up_to, quadratic)
        rows.append(row)
    print_table(["m", "CPU s: all pairs", f"CPU s: {N_REFERENCES} references"], rows)


def print_agreement(options: argparse.Namespace) -> None:
    """The two tables of agreement."""
    header = [
        "corrupted estimates",
        "share",
        "all pairs exclude: corrupted",
        "clean",
        "same center",
    ]
    header += [
        "excluded corrupted ones kept (worst draw)",
        "clean decisions that differ (worst draw)",
    ]
    center = population(OVERLAP, SEED)
    agreement = [
        agreement_row(center, options.partitions, share, name, options.draws)
        for name in options.kinds
        for share in options.shares
    ]
    print_table(header, agreement)
    few = [
        [str(d), *agreement_row(one_component(d), m, share, "one direction", 5), str(m)]
        for d in options.few_columns
        for m in (options.partitions, 2 * options.partitions)
        for share in (0.0, *options.shares)
    ]
    print_table(["columns", *header, "m"], few)


if __name__ == "__main__":
    main()
