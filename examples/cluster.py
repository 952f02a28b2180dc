"""The job of ``cytometry.py`` on a cluster: the same two lines, with a client around them.

    python examples/cluster.py                                        # starts workers here
    python examples/cluster.py --scheduler tcp://10.0.0.1:8786 --output /shared/cytometry

The workers read the files themselves. With a scheduler elsewhere, the output folder must be one
that they see under the same path, and they need this package and pyarrow installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import dask.dataframe as dd
from cytometry import CHANNELS, HERE, print_excluded, print_truth, write_files
from distributed import Client

from dask_dfmr import GaussianMixture


def main(arguments: Sequence[str] | None = None) -> GaussianMixture:
    """Write the files, fit them on the cluster and print the result."""
    options = parse(arguments)
    folder = options.output.resolve() / "plates"
    held_out = write_files(folder)

    with start_cluster(options.scheduler) as client:
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        print(f"{n_workers} workers; watch them at {client.dashboard_link}\n")

        plates = dd.read_parquet(folder)[CHANNELS]
        gm = GaussianMixture(n_components=5, random_state=0, verbose=1).fit(plates)

    print()
    print_excluded(gm.partition_report_)
    print(f"\n{gm.score(held_out):.3f} log-likelihood per held-out row, in nats")
    print_truth()
    return gm


def start_cluster(address: str | None) -> Client:
    """Connect to a running scheduler, or start processes on this machine."""
    if address is not None:
        return Client(address)
    return Client(n_workers=2, threads_per_worker=1, dashboard_address=":0")  # any free port


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scheduler", metavar="ADDRESS", help="default: workers on this machine")
    parser.add_argument("--output", type=Path, default=HERE / "output", help="folder for the files")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
