"""Data that several submissions to a cluster use, computed and sent once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dask.optimization import cull
from dask.task_spec import DataNode

from dask_dfmr.on_dask.partitions import Partitions
from dask_dfmr.on_dask.scheduling.scheduler import Scheduler


def place(scheduler: Scheduler, partitions: Partitions) -> tuple[Partitions, list[Any]]:
    """Send data in memory to the cluster, and regroup rows there, once for all submissions.

    They are placed as tasks, so that a worker that dies loses nothing.

    Returns
    -------
    partitions : Partitions
        With the part of the graph that loaders need besides the placed data.
    held : list
        What keeps the placed data on the cluster; empty on a local scheduler.
    """
    graph = partitions.graph
    keys = {key for key, node in graph.items() if isinstance(node, DataNode)}
    keys |= set(partitions.held)
    if not keys or scheduler.n_workers is None:
        return partitions, []
    needed, _ = cull(graph, keys)
    held = scheduler.place(needed, keys)
    rest = {key: node for key, node in graph.items() if key not in keys}
    wanted = {key for loader in partitions.loaders for key in loader.dependencies}
    left, _ = cull(rest, wanted - keys)
    return replace(partitions, graph=left), held
