"""Claim: clean partitions alone form no groups as far apart as ``aggregation/groups.py`` requires of rival groups.

    python benchmarks/chance_groups.py               # five minutes

Estimates of clean partitions are drawn from their law for many rows. For the best division of each draw, the script
computes the separation: the distance between groups over the distance within. It prints the 99 % quantile over the
draws, the largest draw, and the required separation (``1 + CHANCE / sqrt(df)``, between 1.2 and 2). The last column is
the factor of 1 / sqrt(df) that the largest draw would have needed.
"""

from __future__ import annotations

import numpy as np
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded

from dask_dfmr import Mixture
from dask_dfmr.aggregation.groups import CHANCE, LEAST_SEPARATION, SEPARATION, groups_of
from dask_dfmr.aggregation.null_law import Law, l2_law
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.information import Information, information

SETTINGS = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (5, 10))
PARTITIONS = (6, 10, 20, 40, 100)
STEPS = np.concatenate([np.arange(1.0, 1.3, 0.01), np.arange(1.3, 3.0, 0.05)])
N_ROWS = 5000


def best_separation(
    truth: Mixture, about: Information, law: tuple[Law, float], m: int, rng: np.random.Generator
) -> float:
    """The largest separation at which one draw of ``m`` clean partitions still counts as groups; 1 for none."""
    family = truth.family
    v = about.errors(rng.standard_normal((m, len(about.normal)))) / np.sqrt(N_ROWS)
    stack = l2.Stack(*family.displaced(v, (truth.weights, truth.components)))
    log_self = l2.log_self_products(family, stack)
    tile = l2.l2_tile(family, stack, stack, log_self, log_self, law[1])
    distances = l2.symmetric_tile(tile) / np.sqrt(2 / N_ROWS)
    expected = float(np.sqrt(law[0].mean))
    found = [step for step in STEPS if groups_of(distances, expected, float(step))]
    return max(found, default=1.0)


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    options = parser.parse_args()
    with recorded(options):
        lines = table_lines(options.repetitions)
        print_table(["K, d", "df", "partitions", "99 %", "largest", "asked", "factor"], lines)


def table_lines(repetitions: int) -> list[list[object]]:
    """One line per size of the mixture and number of partitions."""
    lines: list[list[object]] = []
    for k, d in SETTINGS:
        truth = mixsim(k, d, 0.1, 1) if k > 1 else Mixture([1.0], np.zeros((1, d)), [np.eye(d)])
        rng = np.random.default_rng(0)
        about = information(truth.family, truth.weights, truth.components, rng)
        law = l2_law(truth.family, about, rng)
        asked = float(np.clip(1 + CHANCE / np.sqrt(law[0].df), LEAST_SEPARATION, SEPARATION))
        for m in PARTITIONS:
            draws = np.array(
                [
                    best_separation(truth, about, law, m, np.random.default_rng((k, d, m, r)))
                    for r in range(repetitions)
                ]
            )
            largest = draws.max()
            factor = (largest - 1) * np.sqrt(law[0].df)
            numbers = (np.quantile(draws, 0.99), largest, asked, factor)
            lines.append([f"{k}, {d}", f"{law[0].df:.0f}", m, *(f"{x:.2f}" for x in numbers)])
    return lines


if __name__ == "__main__":
    main()
