"""Claim: the page about a result is written in 5 seconds for 1,000 partitions, and stays below 1 MB.

    python benchmarks/report_page.py [--partitions 30 1000 3000]

Estimates are drawn around a population of 5 components in 10 columns. One in fifty is in another unit. Their
aggregation is not timed. CPU seconds are those of the second page, so that imports do not count; the first one is
printed too. The parts are timed on their own, after the estimates were forgotten.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from common import estimates_around, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import Aggregate, Mixture, aggregate
from dask_dfmr.reporting.pictures import pictures_of
from dask_dfmr.reporting.tables import explanation_rows

N_ROWS = 2000


def made_of(m: int) -> Aggregate:
    """An aggregate of ``m`` estimates, one in fifty of which has its second column in another unit."""
    center, unit = population(0.1, 1), np.ones(10)
    unit[1] = 10.0
    estimates = []
    for i, e in enumerate(islice(estimates_around(center, N_ROWS, np.random.default_rng(0)), m)):
        mixture = e.mixture
        if i % 50 == 7:
            scaled = mixture.covariances * unit * unit[:, None]
            mixture = Mixture(mixture.weights, mixture.means * unit, scaled)
        name = f"s3://bucket/measurements/year=2026/station-{i:05d}.parquet"
        estimates.append(replace(e, mixture=mixture, source=name))
    return aggregate(estimates, random_state=0)


def row_of(m: int, folder: Path) -> list[str]:
    """The line of ``m`` partitions: CPU seconds of the page and of its parts, and its size."""
    found = made_of(m)
    path = folder / "report.html"
    seconds = [_cpu(lambda: found.report(path), found) for _ in range(2)]
    explained = _cpu(lambda: explanation_rows(found, found), found)
    drawn = _cpu(lambda: pictures_of(found, found), found)
    times = [f"{s:.1f}" for s in (*seconds, explained, drawn)]
    return [
        f"{m:,}",
        str(int((~found.decision.kept).sum())),
        *times,
        f"{path.stat().st_size / 1000:.0f}",
    ]


def _cpu(call, found: Aggregate) -> float:
    found.origin.cache.clear()
    began = time.process_time()
    call()
    return time.process_time() - began


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--partitions", type=int, nargs="*", default=[30, 1000, 3000])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    header = [
        "partitions",
        "excluded",
        "CPU s: first page",
        "second page",
        "of which explanations",
        "pictures",
        "kB",
    ]
    with recorded(options), tempfile.TemporaryDirectory() as folder:
        print_table(header, [row_of(m, Path(folder)) for m in options.partitions])


if __name__ == "__main__":
    main()
