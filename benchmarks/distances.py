"""Claim: a pair of components costs a fraction of a microsecond, and an aggregation a tenth of a second.

    python benchmarks/distances.py [--repeats 9]

1. Log product integrals of all pairs of two sets of components, on one thread: CPU microseconds per pair, compiled and
   in NumPy (batched Cholesky). "with floors" is the same with the bound that skips negligible pairs, as in a tile of
   the distance matrix.
2. All distances between m = 100 local estimates (K = 5, d = 10, n = 2,000 rows) and the whole aggregation: distances,
   filter, reduction. The estimates scatter about a MixSim population as sampling makes them. Beside the times stand
   the share of pairs of components that the bound skips and the change of distances through it. One set of estimates
   is clean; of the other, 30 % are moved far away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
from common import estimates_around, population
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded

from dask_dfmr import LocalEstimate, Mixture, aggregate, pairwise_l2
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.family import Components
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

ENGINES = ("numpy", "numba")


def cpu_seconds(function: Callable[..., Any], *args: Any, repeats: int) -> dict[str, float]:
    """Median CPU seconds of a call with each engine; the engines alternate, and their first calls do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    for repeat in range(repeats + 1):
        for name in ENGINES:
            with engine.use(name):
                began = time.process_time()
                function(*args)
                if repeat:
                    seconds[name].append(time.process_time() - began)
    return {name: median(values) for name, values in seconds.items()}


# -- 1. pairs of components ------------------------------------------------------------------------


def pair_row(d: int, n: int, covariance_type: str, repeats: int) -> list[str]:
    """One line of the first table: CPU microseconds per pair of components in ``d`` columns."""
    family = Gaussian(covariance_type)
    a, b = (pooled_components(d, n, covariance_type, seed) for seed in (1, 2))
    plain = cpu_seconds(family.log_product_integral, a, b, repeats=repeats)
    floors = np.full(n, -20.0), np.full(n, -20.0)
    bounded = cpu_seconds(family.log_product_integral, a, b, floors, repeats=repeats)
    micro = {name: 1e6 * seconds / n**2 for name, seconds in plain.items()}
    return [
        f"{d}, {covariance_type}",
        f"{micro['numpy']:.2f}",
        f"{micro['numba']:.3f}",
        f"{micro['numpy'] / micro['numba']:.1f}",
        f"{1e6 * bounded['numba'] / n**2:.3f}",
    ]


def pooled_components(d: int, n: int, covariance_type: str, seed: int) -> Components:
    """Means and covariances (or variances) of ``n`` components, those of n / 5 local estimates of five each."""
    center, rng = mixsim(5, d, 0.1, seed), np.random.default_rng(seed)
    estimates = islice(estimates_around(center, 200 * d, rng), n // 5)
    stack = l2.stack_mixtures([e.mixture for e in estimates if e.mixture is not None])
    means, covariances = stack.pooled()
    if covariance_type == "diag":
        covariances = np.diagonal(covariances, axis1=1, axis2=2).copy()
    return means, covariances


# -- 2. a hundred partitions -------------------------------------------------------------------------


def far_away(estimate: LocalEstimate) -> LocalEstimate:
    """The estimate of a partition whose rows are in another unit."""
    assert estimate.mixture is not None
    m = estimate.mixture
    return LocalEstimate(Mixture(m.weights, 10 * m.means, m.covariances), estimate.n_samples)


def aggregation_row(label: str, estimates: list[LocalEstimate], repeats: int) -> list[str]:
    """One line of the second table: CPU milliseconds of distances and aggregation, and the effect of the bound."""
    mixtures = [e.mixture for e in estimates if e.mixture is not None]
    distances = cpu_seconds(pairwise_l2, mixtures, repeats=repeats)
    whole = cpu_seconds(aggregate, estimates, repeats=repeats)
    share, change = effect_of_bound(mixtures)
    return [
        label,
        *(f"{1e3 * distances[name]:.1f}" for name in ENGINES),
        *(f"{1e3 * whole[name]:.1f}" for name in ENGINES),
        f"{share:.0%}",
        f"{change:.1e}",
    ]


def effect_of_bound(mixtures: list[Mixture]) -> tuple[float, float]:
    """Share of pairs of components that the bound skips, and the largest change of D^2 over <f, f> + <g, g>."""
    family, stack = mixtures[0].family, l2.stack_mixtures(mixtures)
    with engine.use("numba"):
        log_self = l2.log_self_products(family, stack)
        scale = float(np.median(log_self))
        counts = [0, 0]
        bounded = tile(family, stack, log_self, scale, counts, with_floor=True)
        exact = tile(family, stack, log_self, scale, counts, with_floor=False)
    squares = np.exp(log_self - scale)
    change = np.abs(bounded**2 - exact**2) / (squares[:, None] + squares[None])
    return counts[0] / counts[1], float(change.max())


def tile(
    family: Gaussian,
    stack: l2.Stack,
    log_self: np.ndarray,
    scale: float,
    counts: list[int],
    *,
    with_floor: bool,
) -> np.ndarray:
    """All distances, with or without the bound; adds the skipped pairs and all pairs to ``counts``."""
    integrals = Gaussian.log_product_integral

    def counted(self: Gaussian, a: Any, b: Any, floor: Any = None) -> np.ndarray:
        result = integrals(self, a, b, floor if with_floor else None)
        if with_floor:
            counts[0] += int(np.isneginf(result).sum())
            counts[1] += result.size
        return result

    Gaussian.log_product_integral = counted  # type: ignore[method-assign]
    try:
        return l2.l2_tile(family, stack, stack, log_self, log_self, scale)
    finally:
        Gaussian.log_product_integral = integrals  # type: ignore[method-assign]


def main() -> None:
    """Print both tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with recorded(options), single_threaded_blas():
        print_pairs(options.repeats)
        print_aggregations(options.repeats)


def print_pairs(repeats: int) -> None:
    """The first table."""
    rows = [
        pair_row(d, n, covariance_type, repeats)
        for covariance_type in ("full", "diag")
        for d, n in ((3, 250), (10, 250), (30, 120), (50, 60))
    ]
    print_table(("d", "NumPy us", "numba us", "x", "numba us, with floors"), rows)


def print_aggregations(repeats: int) -> None:
    """The second table."""
    rng = np.random.default_rng(0)
    rows = []
    for overlap in (0.1, 0.3):
        clean = list(islice(estimates_around(population(overlap, 1), 2_000, rng), 100))
        corrupted = [far_away(e) if i % 10 < 3 else e for i, e in enumerate(clean)]
        rows.append(aggregation_row(f"overlap {overlap}, clean", clean, repeats))
        rows.append(aggregation_row(f"overlap {overlap}, 30 % far", corrupted, repeats))
    header = ["m = 100", "distances, NumPy ms", "numba ms", "aggregate, NumPy ms", "numba ms"]
    print_table([*header, "skipped", "change of D^2"], rows)


if __name__ == "__main__":
    main()
