"""How often an explanation names what was done to a partition, and how long aggregating again takes.

    python benchmarks/explanations.py                # about 3 minutes
    python benchmarks/explanations.py --draws 5      # fewer draws of each

Of 20 partitions of 2,000 rows one is corrupted, in a column or component that is drawn at random. A corrupted partition
counts as named if the kind of the finding and its columns (its component) are right, from the estimates alone. For the
last line ``explain(X)`` also fits again. Populations: MixSim's definition, K = 3 in 5 columns, overlap .05. The line
"clean" counts clean partitions that a ``false_exclusion_rate`` of .2 excludes.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import islice

import dask
import numpy as np
from common import draw_partitions, draw_rows, estimates_around, population
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, LocalEstimate, Mixture, aggregate, fit_local
from dask_dfmr.explanation.causes import explain_estimate
from dask_dfmr.explanation.table import explanation_table, standard_errors_of

M, N, K, D = 20, 2000, 3, 5
Rows = np.ndarray
Corrupted = tuple[Rows, set[str], set[int]]
"""Rows, the kinds of finding that are right, and the columns or the component that the finding has to name."""


def times(factor: float) -> Callable[[Mixture, np.random.Generator], Corrupted]:
    """One column in another unit."""

    def corrupt(truth: Mixture, rng: np.random.Generator) -> Corrupted:
        rows, j = draw_rows(truth, N, rng), int(rng.integers(D))
        rows[:, j] *= factor
        return rows, {"unit"}, {j}

    return corrupt


def swapped(truth: Mixture, rng: np.random.Generator) -> Corrupted:
    """Two columns exchanged."""
    rows, (i, j) = draw_rows(truth, N, rng), rng.choice(D, 2, replace=False)
    rows[:, [i, j]] = rows[:, [j, i]]
    return rows, {"swapped columns"}, {int(i), int(j)}


def offset(truth: Mixture, rng: np.random.Generator) -> Corrupted:
    """One column shifted by one standard deviation."""
    rows, j = draw_rows(truth, N, rng), int(rng.integers(D))
    rows[:, j] += rows[:, j].std()
    return rows, {"offset"}, {j}


def sign(truth: Mixture, rng: np.random.Generator) -> Corrupted:
    """One column with the opposite sign."""
    rows, j = draw_rows(truth, N, rng), int(rng.integers(D))
    rows[:, j] *= -1
    return rows, {"sign"}, {j}


def other_population(truth: Mixture, rng: np.random.Generator) -> Corrupted:
    """Rows of another mixture."""
    other = mixsim(K, D, 0.05, 100 + int(rng.integers(50)))
    return draw_rows(other, N, rng), {"unexplained"}, set()


def weights(truth: Mixture, rng: np.random.Generator) -> Corrupted:
    """Other proportions."""
    other = Mixture(rng.permutation([0.15, 0.25, 0.6]), truth.means, truth.covariances)
    return draw_rows(other, N, rng), {"weights"}, set()


def component(truth: Mixture, rng: np.random.Generator) -> Corrupted:
    """One component moved by a standard deviation in every column, at random up or down."""
    k, means = int(rng.integers(K)), truth.means.copy()
    spread = np.sqrt(np.diagonal(truth.covariances[k]))
    means[k] += rng.choice([-1.0, 1.0], D) * spread
    other = Mixture(truth.weights, means, truth.covariances)
    return draw_rows(other, N, rng), {"component"}, {k}


CORRUPTIONS: dict[str, Callable[[Mixture, np.random.Generator], Corrupted]] = {
    "unit x10": times(10),
    "unit x100": times(100),
    "unit x0.001": times(0.001),
    "swapped columns": swapped,
    "offset": offset,
    "sign": sign,
    "other population": other_population,
    "other weights": weights,
    "one component moved": component,
}


def fits(rows: list[Rows], start: Mixture) -> list[LocalEstimate]:
    """Estimates of clean partitions; they start at the truth, which makes many fits quick."""
    return [fit_local(X, K, start=start, n_sources=M) for X in rows]


def is_right(kind: str, kinds: set[str], named: set[int], wanted: set[int]) -> bool:
    """Whether a finding names the kind of damage and its place."""
    return kind in kinds and (not wanted or named == wanted)


def corruption(name: str, draws: int) -> list[str]:
    """The line of one kind of damage: how many partitions were excluded and how many of them named."""
    counts: Counter[str] = Counter()
    others: Counter[str] = Counter()
    clock = 0.0
    for draw in range(draws):
        rng = np.random.default_rng([draw, len(name)])
        truth = mixsim(K, D, 0.05, draw % 10)
        rows, kinds, wanted = CORRUPTIONS[name](truth, rng)
        estimates = fits(draw_partitions(truth, M - 1, N, rng), truth)
        corrupted = fit_local(rows, K, n_init=5, random_state=draw)
        found = aggregate([*estimates, corrupted], random_state=0)
        if found.decision.kept[-1]:
            counts["kept"] += 1
            continue
        clock -= time.process_time()
        finding = explanation_table(found)[1][M - 1]
        clock += time.process_time()
        named = set(finding.columns)
        if name == "one component moved":
            # The result has its components in an order of its own.
            divergences = truth.family.divergence(found.mixture.components, truth.components)
            named = {int(divergences[finding.component].argmin())}
        right = is_right(finding.kind, kinds, named, {*wanted})
        counts["right"] += right
        if not right:
            others[finding.kind] += 1
    excluded = draws - counts["kept"]
    wrong = ", ".join(f"{n} {kind}" for kind, n in others.most_common())
    cost = f"{1000 * clock / max(excluded, 1):.0f} ms"
    return [name, str(draws), str(excluded), str(counts["right"]), wrong or "-", cost]


def clean(draws: int) -> list[str]:
    """The line of clean partitions that are excluded by chance."""
    kinds: Counter[str] = Counter()
    for draw in range(draws):
        rng = np.random.default_rng([draw, 77])
        truth = mixsim(K, D, 0.05, draw % 10)
        found = aggregate(
            fits(draw_partitions(truth, M, N, rng), truth), random_state=0, false_exclusion_rate=0.2
        )
        kinds.update(f.kind for f in explanation_table(found)[1].values())
    total = sum(kinds.values())
    wrong = ", ".join(f"{n} {kind}" for kind, n in kinds.items() if kind != "nothing")
    return ["clean", str(draws), str(total), str(kinds["nothing"]), wrong or "-", ""]


def other_optimum(draws: int) -> list[str]:
    """The line of partitions whose fits ended in another optimum; ``explain(X)`` fits them again."""
    counts: Counter[str] = Counter()
    for draw in range(10 * draws):
        rng = np.random.default_rng([draw, 99])
        truth = mixsim(K, D, 0.05, draw % 10)
        rows = draw_partitions(truth, M, N, rng)
        gm = GaussianMixture(
            K,
            init_params="random_from_data",
            random_state=draw,
            n_partitions=M,
            refit_excluded=False,
        )
        gm.fit(np.concatenate(rows))
        table = gm.explain(np.concatenate(rows))
        counts["excluded"] += len(table)
        counts["right"] += int((table["kind"] == "other optimum").sum())
        counts.update(f"not: {kind}" for kind in table["kind"] if kind != "other optimum")
        if counts["excluded"] >= draws:
            break
    wrong = ", ".join(f"{n} {kind[5:]}" for kind, n in counts.items() if kind.startswith("not"))
    named = str(counts["right"])
    return [
        "other optimum, with X",
        str(draw + 1),
        str(counts["excluded"]),
        named,
        wrong or "-",
        "",
    ]


def again(m: int) -> list[str]:
    """CPU times of aggregating again, the smallest of three; K = 5 in 10 columns."""
    truth = population(0.1, 1)
    rng = np.random.default_rng(0)
    estimates = list(islice(estimates_around(truth, 5000, rng), m))
    corrupted = Mixture(truth.weights, truth.means * 3, truth.covariances)
    estimates[3] = LocalEstimate(corrupted, 5000)
    cells = []

    def clocked(function: Callable[[], object]) -> None:
        best = np.inf
        for _ in range(3):
            start = time.process_time()
            function()
            best = min(best, time.process_time() - start)
        cells.append(f"{1000 * best:.0f} ms")

    clocked(lambda: aggregate(estimates, random_state=0))
    last = aggregate(estimates, random_state=0)
    last.without(0)
    turns = iter(range(10, 20))
    clocked(lambda: last.without(next(turns)))
    last.with_rho(2.0)
    clocked(lambda: last.with_rho(1.3))
    errors = standard_errors_of(last)
    clocked(lambda: standard_errors_of(last))
    clocked(lambda: explain_estimate(estimates[3], errors, thorough=False))
    return [str(m), *cells]


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", choices=("causes", "times"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="synchronous")
    with recorded(options):
        if options.only != "times":
            lines = [corruption(name, options.draws) for name in CORRUPTIONS]
            lines += [clean(options.draws), other_optimum(options.draws)]
            header = ["what was done", "draws", "excluded", "named", "named instead", "explanation"]
            print_table(header, lines)
        if options.only != "causes":
            header = ["m", "aggregate", "without", "with_rho", "standard errors", "one finding"]
            print_table(header, [again(m) for m in (100, 1000)])


if __name__ == "__main__":
    main()
