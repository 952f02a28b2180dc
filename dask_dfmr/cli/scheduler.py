"""Where a command computes: in this process, on workers that it starts, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dask_dfmr.cli.exits import CommandError, Exit

CONNECT_TIMEOUT = 10.0
"""Seconds after which a scheduler that has not answered is not there."""


@contextmanager
def computing_on(address: str | None, n_workers: int | None) -> Iterator[None]:
    """Make a cluster the active scheduler of Dask; without an address and workers Dask's own choice stays.

    Raises
    ------
    CommandError
        If both are given, or the scheduler does not answer.
    """
    if address is not None and n_workers is not None:
        text = "--scheduler and --workers exclude each other: a cluster has its workers."
        raise CommandError(Exit.USAGE, text)
    if address is None and n_workers is None:
        yield
        return
    import logging

    from distributed import Client, LocalCluster

    if address is not None:
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT)
        except (OSError, ValueError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            text = f"no scheduler answers at {address!r} ({reason})."
            raise CommandError(Exit.UNAVAILABLE, text) from error
        with client:
            yield
        return
    cluster = LocalCluster(
        n_workers=n_workers, dashboard_address=None, silence_logs=logging.CRITICAL
    )
    with cluster, Client(cluster):
        yield
