"""Who computes: a local scheduler, a cluster, or nobody yet."""

from __future__ import annotations

import dask
import pytest

from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import (
    ClusterScheduler,
    HeldTasks,
    LocalScheduler,
    OneGraph,
    active_scheduler,
)
from dask_dfmr.on_dask.scheduling.trusted_workers import TrustedWorkers
from dask_dfmr.progress.stages import SILENT


def add_numbers(calls):
    """Makes tasks that write down their numbers."""

    def build(indices):
        g = GraphBuilder()
        return g, [g.add("number", i, lambda i: calls.append(i) or i, i) for i in indices]

    return build


def sum_of(held):
    g = GraphBuilder()
    return g, [g.add("sum", 0, sum, [task.argument for task in held.tasks])]


class TestWhoIsActive:
    def test_a_client(self, client):
        found = active_scheduler()
        assert isinstance(found, ClusterScheduler)
        assert found.n_workers == 2
        assert found.progress is SILENT
        assert str(found) == str(client)

    def test_a_scheduler_of_this_process(self, client):
        with dask.config.set(scheduler="synchronous"):
            found = active_scheduler()
        assert found == LocalScheduler()
        assert found.n_workers is None

    def test_trusted_workers_have_their_addresses(self, client):
        found = active_scheduler(TrustedWorkers.of(["0"]))
        (place,) = found.cluster.trusted.places
        assert place in client.scheduler_info(n_workers=-1)["workers"]

    def test_trusted_workers_need_a_client(self):
        with pytest.raises(ValueError, match="no distributed Client is active"):
            active_scheduler(TrustedWorkers.of(["0"]))


class TestSteps:
    def test_a_local_scheduler_computes_all_steps_at_the_end(self):
        calls = []
        steps = LocalScheduler().in_steps()
        held = HeldTasks(steps, add_numbers(calls), range(4))
        assert calls == []
        with dask.config.set(scheduler="synchronous"):
            assert steps.conclude(lambda: sum_of(held), held, keep=True) == [6]
        assert sorted(calls) == [0, 1, 2, 3]
        assert [task.argument for task in held.tasks] == [0, 1, 2, 3]

    def test_a_lazy_graph_is_computed_by_whoever_has_it(self):
        calls = []
        steps = OneGraph()
        held = HeldTasks(steps, add_numbers(calls), range(4))
        g, (total,) = sum_of(held)
        lazy = steps.as_delayed(g, total)
        assert calls == []
        assert lazy.compute(scheduler="synchronous") == 6

    def test_a_cluster_computes_every_step(self, client):
        steps = active_scheduler().in_steps()
        held = HeldTasks(steps, add_numbers([]), range(4))
        assert [task.future.status for task in held.tasks] == ["finished"] * 4
        assert steps.conclude(lambda: sum_of(held), held) == [6]

    def test_results_of_tasks_and_errors_in_their_places(self, client):
        scheduler = active_scheduler()

        def build(indices):
            g = GraphBuilder()
            return g, [g.add("inverse", i, lambda i: 1 / i, i) for i in indices]

        held = scheduler.hold_each(build, range(3))
        first, *others = scheduler.fetch_held(held)
        assert isinstance(first, ZeroDivisionError)
        assert others == [1.0, 0.5]
