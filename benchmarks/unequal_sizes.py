"""Partitions of 50 to 500,000 rows in one frame: who is judged, kept and left out.

    python benchmarks/unequal_sizes.py               # two minutes

K = 3 in three columns (29 free parameters), two partitions of every size, and one bad partition (a column times 1.1) of
500, 5,000 and 50,000 rows each. Fitted from pilots on the synchronous scheduler, over several draws. Per size:
honest partitions that were kept, by ``rho="auto"`` and by rho = 1.3, and the median distance in radii.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict

import dask
import dask.array as da
import numpy as np
from common import draw_rows, print_machine, print_table
from mixsim import mixsim

from dask_dfmr import GaussianMixture, aggregate

SIZES = (20, 50, 100, 200, 500, 1000, 5000, 20_000, 100_000, 500_000)
BAD = (500, 5000, 50_000)


def partitions(seed: int) -> tuple[list[np.ndarray], list[bool]]:
    """Rows, and which are bad."""
    truth, rng = mixsim(3, 3, 0.05, seed), np.random.default_rng(seed)
    honest = [draw_rows(truth, n, rng) for n in SIZES for _ in range(2)]
    bad = [draw_rows(truth, n, rng) * np.array([1.1, 1.0, 1.0]) for n in BAD]
    return [*honest, *bad], [False] * len(honest) + [True] * len(bad)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print_machine()
    found: dict[tuple[bool, int], list[tuple[str, bool, bool, float]]] = defaultdict(list)
    for seed in range(options.repetitions):
        rows, bad = partitions(seed)
        X = da.from_array(np.concatenate(rows), chunks=(tuple(map(len, rows)), (3,)))
        with dask.config.set(scheduler="synchronous"):
            gm = GaussianMixture(3, random_state=seed).fit(X)
        assert gm.estimates_ is not None
        paper = aggregate(gm.estimates_, rho=1.3).decision
        for row in gm.partition_report_.itertuples():
            i = row.partition
            entry = (row.outcome, row.kept, bool(paper.kept[i]), row.distance_ratio)
            found[bad[i], len(rows[i])].append(entry)
    lines = []
    for (is_bad, n), entries in sorted(found.items()):
        outcomes = sorted({entry[0] for entry in entries})
        auto, by_paper = (sum(entry[k] for entry in entries) for k in (1, 2))
        ratios = [entry[3] for entry in entries if not np.isnan(entry[3])]
        radii = f"{np.median(ratios):.1f}" if ratios else ""
        what = "bad" if is_bad else "honest"
        shares = [f"{kept} of {len(entries)}" for kept in (auto, by_paper)]
        lines.append([what, f"{n:,}", ", ".join(outcomes), *shares, radii])
    print_table(["partitions", "rows", "outcome", "kept by auto", "kept by 1.3", "radii"], lines)


if __name__ == "__main__":
    main()
