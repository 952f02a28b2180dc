"""The clusters of the benchmark scripts. It imports distributed alone: contestants are timed with their imports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, LocalCluster


@contextmanager
def local_cluster(
    n_workers: int = 2, *, silence_logs: int = logging.ERROR, **options: Any
) -> Iterator[Client]:
    """A client of a new cluster on this machine: ``n_workers`` processes of one thread each, without a dashboard."""
    options = {"dashboard_address": None} | options
    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            silence_logs=silence_logs,
            **options,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
