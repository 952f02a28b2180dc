"""Claim: long parallel clusters are found, and no ordinary population is described worse for it.

    python benchmarks/long_clusters.py [--seeds 5]

Clusters are 6 standard deviations apart along one direction, ``length`` standard deviations long along another one, and
turned at random: 10,000 rows, K clusters in d columns. The tables have the adjusted Rand index of the labels, the least
and the mean one over seeds, and the mean CPU seconds of a fit.

"ours" is ``GaussianMixture(K)``, and scikit-learn has n_init=10.

1. The cases of equal weights.
2. Other ones: unequal weights, clusters at the corners of a square, another covariance type.
3. Ordinary populations (MixSim, overlap .1 and .3, and one of 10 components in 30 columns): the mean log-likelihood of
   100,000 other rows below the truth, in nats per row, beside the same fit from five k-means++ starts alone, with two
   seeds.
4. The cost of the start: CPU milliseconds of the clustering along projections, and of one by k-means++, on 10,000 rows.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
from common import draw_rows, population
from mixsim import mixsim
from output import benchmark_parser, print_progress, print_table, recorded
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits

from dask_dfmr import GaussianMixture, Mixture
from dask_dfmr.local.starts import CLUSTERINGS, PROJECTIONS, Points, Scale

N_ROWS, GAP = 10_000, 6.0
TARGET = 0.95
LINES = ((2, 30, 30), (3, 10, 100), (5, 10, 100), (2, 2, 30), (3, 2, 30), (2, 10, 30))
WEIGHTS = ((0.9, 0.1), (0.79, 0.21), (0.6, 0.3, 0.1), (0.7, 0.1, 0.1, 0.1))
SQUARE = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))

Drawn = tuple[np.ndarray, np.ndarray]


def drawn(centers: np.ndarray, weights: Sequence[float], d: int, length: float, seed: int) -> Drawn:
    """Rows about centers (K, q), long along the next axis and turned at random, and the cluster of each row."""
    rng = np.random.default_rng(seed)
    q = centers.shape[1]
    y = rng.choice(len(weights), N_ROWS, p=weights)
    rows = rng.normal(size=(N_ROWS, d))
    rows[:, q] *= length
    rows[:, :q] += GAP * centers[y]
    return rows @ np.linalg.qr(rng.normal(size=(d, d)))[0].T, y


def on_a_line(weights: Sequence[float], d: int, length: float, seed: int) -> Drawn:
    """Clusters in a row."""
    return drawn(np.arange(len(weights), dtype=float)[:, None], weights, d, length, seed)


CONTESTANTS: dict[str, Callable[[int, str, int], Any]] = {
    "ours": lambda k, kind, seed: GaussianMixture(k, covariance_type=kind, random_state=seed),
    "scikit-learn": lambda k, kind, seed: SklearnMixture(
        k, covariance_type=kind, n_init=10, random_state=seed
    ),
}


def without_projections(k: int, kind: str, seed: int) -> GaussianMixture:
    """The model from k-means++ starts alone, as many as a pilot has."""
    return GaussianMixture(
        k, covariance_type=kind, init_params="k-means++", n_init=5, random_state=seed
    )


def line_of(name: str, draw: Callable[[int], Drawn], k: int, kind: str, n_seeds: int) -> list[str]:
    """A line of the first two tables."""
    cells = [name]
    for make in CONTESTANTS.values():
        found, seconds = [], []
        for seed in range(n_seeds):
            rows, y = draw(seed)
            began = time.process_time()
            labels = make(k, kind, seed).fit(rows).predict(rows)
            seconds.append(time.process_time() - began)
            found.append(adjusted_rand_score(y, labels))
        cells += [f"{min(found):.3f}", f"{fmean(found):.3f}", f"{fmean(seconds):.2f}"]
    print_progress(*cells)
    return cells


def print_clusters(n_seeds: int) -> None:
    """The first two tables."""
    header = [
        "case",
        *(f"{name}: {what}" for name in CONTESTANTS for what in ("least", "mean", "s")),
    ]
    print(f"K clusters of equal weight in d columns (target: {TARGET} in every seed):\n")
    lines = [
        line_of(
            f"({k}, {d}, {length})",
            lambda seed, k=k, d=d, length=length: on_a_line([1 / k] * k, d, length, seed),
            k,
            "full",
            n_seeds,
        )
        for k, d, length in LINES
    ]
    print_table(header, lines)
    print("Others, in 10 columns, 30 standard deviations long:\n")
    lines = [
        line_of(
            f"weights {weights}",
            lambda seed, weights=weights: on_a_line(weights, 10, 30, seed),
            len(weights),
            "full",
            n_seeds,
        )
        for weights in WEIGHTS
    ]
    for kind in ("full", "tied"):
        square = np.array(SQUARE)
        lines.append(
            line_of(
                f"square, {kind}",
                lambda seed, square=square: drawn(square, [0.25] * 4, 10, 30, seed),
                4,
                kind,
                n_seeds,
            )
        )
    print_table(header, lines)


def print_controls(n_seeds: int) -> None:
    """The third table."""
    cases: dict[str, Mixture] = {
        f"overlap {o:g}, population {s}": population(o, s) for o in (0.1, 0.3) for s in (1, 2)
    }
    cases["10 components, 30 columns"] = mixsim(10, 30, 0.1, seed=1)
    contestants = {"ours": CONTESTANTS["ours"], "k-means++": without_projections}
    lines = []
    for name, truth in cases.items():
        others = draw_rows(truth, 100_000, np.random.default_rng(99))
        best = truth.score(others)
        losses: dict[str, list[float]] = {contestant: [] for contestant in contestants}
        for seed in range(n_seeds):
            rows = draw_rows(truth, N_ROWS, np.random.default_rng(seed))
            for contestant, make in contestants.items():
                model = make(truth.n_components, "full", seed).fit(rows)
                losses[contestant].append(best - model.score(others))
        lines.append([name, *(f"{x:.4f}" for v in losses.values() for x in (fmean(v), max(v)))])
        print_progress(*lines[-1])
    header = [f"{name}: {what}" for name in contestants for what in ("mean", "worst")]
    print("Nats per row below the truth:\n")
    print_table(["population", *header], lines)


def print_cost(repeats: int = 15) -> None:
    """The fourth table."""
    lines = []
    for k, d in ((3, 2), (5, 10), (10, 30)):
        rows, _ = on_a_line([1 / k] * k, d, 30, 0)
        scaled = Scale.of(rows).apply(rows)
        cells = []
        for name in (PROJECTIONS, "k-means++"):
            times = []
            for seed in range(repeats):
                began = time.process_time()
                CLUSTERINGS[name](Points(scaled), k, np.random.default_rng(seed))
                times.append(1e3 * (time.process_time() - began))
            cells.append(f"{median(times):.1f}")
        lines.append([f"K = {k}, d = {d}", *cells])
    print("CPU milliseconds of a clustering:\n")
    print_table(["case", "projections", "k-means++"], lines)


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with recorded(options), threadpool_limits(1):
        print_clusters(options.seeds)
        print_controls(min(options.seeds, 2))
        print_cost()


if __name__ == "__main__":
    main()
