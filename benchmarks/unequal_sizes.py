"""Partitions of 50 to 500,000 rows in one frame: which of them are fitted, kept and excluded.

    python benchmarks/unequal_sizes.py               # two minutes

K = 3 in three columns (29 free parameters), two clean partitions of every size, and one corrupted partition (a column
times 1.1) of 500, 5,000 and 50,000 rows each. They are fitted from pilots on the synchronous scheduler, over several
draws. For each size the table shows the partitions kept by ``rho="auto"`` and by rho = 1.3, and the median distance in
radii.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
from common import draw_rows
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, aggregate

SIZES = (20, 50, 100, 200, 500, 1000, 5000, 20_000, 100_000, 500_000)
CORRUPTED = (500, 5000, 50_000)


def partitions(seed: int) -> tuple[list[np.ndarray], list[bool]]:
    """The partitions of one draw, and which of them are corrupted."""
    truth, rng = mixsim(3, 3, 0.05, seed), np.random.default_rng(seed)
    clean = [draw_rows(truth, n, rng) for n in SIZES for _ in range(2)]
    corrupted = [draw_rows(truth, n, rng) * np.array([1.1, 1.0, 1.0]) for n in CORRUPTED]
    return [*clean, *corrupted], [False] * len(clean) + [True] * len(corrupted)


class Decision(NamedTuple):
    """Outcome of one partition, whether each of the two rules kept it, and its distance in radii."""

    outcome: str
    kept_by_auto: bool
    kept_by_paper: bool
    distance_ratio: float


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    header = ["partitions", "rows", "outcome", "kept by auto", "kept by 1.3", "radii"]
    with recorded(options):
        found: dict[tuple[bool, int], list[Decision]] = defaultdict(list)
        for seed in range(options.repetitions):
            for key, decision in decisions(seed):
                found[key].append(decision)
        print_table(header, [row_of(*key, found[key]) for key in sorted(found)])


def decisions(seed: int) -> Iterator[tuple[tuple[bool, int], Decision]]:
    """For each partition of a draw: whether it is corrupted, its rows, and its decision."""
    rows, corrupted = partitions(seed)
    X = da.from_array(np.concatenate(rows), chunks=(tuple(map(len, rows)), (3,)))
    with dask.config.set(scheduler="synchronous"):
        gm = GaussianMixture(3, random_state=seed).fit(X)
    assert gm.estimates_ is not None
    paper = aggregate(gm.estimates_, rho=1.3).decision
    for row in gm.partition_report_.itertuples():
        i = row.partition
        decision = Decision(row.outcome, row.kept, bool(paper.kept[i]), row.distance_ratio)
        yield (corrupted[i], len(rows[i])), decision


def row_of(is_corrupted: bool, n: int, found: list[Decision]) -> list[str]:
    """One line of the table."""
    outcomes = ", ".join(sorted({decision.outcome for decision in found}))
    kept = (sum(v.kept_by_auto for v in found), sum(v.kept_by_paper for v in found))
    ratios = [v.distance_ratio for v in found if not np.isnan(v.distance_ratio)]
    radii = f"{np.median(ratios):.1f}" if ratios else ""
    what = "corrupted" if is_corrupted else "clean"
    return [what, f"{n:,}", outcomes, *(f"{k} of {len(found)}" for k in kept), radii]


if __name__ == "__main__":
    main()
