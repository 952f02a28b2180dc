"""The graph: lazy, named, fresh, equal to the method in memory, and the same bits on every scheduler."""

from __future__ import annotations

import dataclasses
import itertools
import re
from functools import cache

import dask
import dask.array as da
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pytest
from dask.delayed import Delayed
from dask.utils import key_split

from dask_dfmr import AggregationError, GaussianMixture, Mixture, aggregate, dfmr
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.plan import CallNow, Setting, plan_aggregation
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.on_dask import graph
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import LocalScheduler
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from tests.conftest import local_cluster
from tests.data_makers import (
    META,
    TRUTH,
    Reader,
    broken,
    make_array,
    make_ddf,
    make_delayed,
    make_frame,
    make_rows,
    other_unit,
    same_bits,
    write_parquet,
)

# Inconsistent sources that agree form a group: tests/test_consensus.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")

M = 17
START = {"means_init": TRUTH.means}  # pilots would take most of the time: TestBits has them


@cache
def input_of_some_bad_partitions() -> dd.DataFrame:
    """Seventeen partitions: two far away, one that cannot be read."""
    return make_ddf(M, Reader({3: other_unit, 5: broken, 11: other_unit}))


@cache
def local_estimates():
    gm = GaussianMixture(2, random_state=0, keep_estimates=True, on_failed="ignore", **START)
    with dask.config.set(scheduler="synchronous"):
        return gm.fit(input_of_some_bad_partitions()).estimates_


def compute(X=None, n_starts=1, block_size=None, **kwargs):
    X = input_of_some_bad_partitions() if X is None else X
    lazy = dfmr(make(**START, **kwargs), X, n_starts=n_starts, block_size=block_size)
    return lazy.compute(scheduler="synchronous")


def make(**kwargs):
    return GaussianMixture(2, random_state=0, **kwargs)


def assert_equal_aggregates(a, b, tolerance=1e-10):
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(
            getattr(a.mixture, name), getattr(b.mixture, name), rtol=tolerance, atol=tolerance
        )
    np.testing.assert_array_equal(a.decision.kept, b.decision.kept)
    assert a.decision.center == b.decision.center
    assert a.decision.refused == b.decision.refused
    np.testing.assert_allclose(a.decision.distances, b.decision.distances, rtol=1e-8)
    np.testing.assert_allclose(a.decision.radius, b.decision.radius, rtol=1e-8)
    assert a.n_iter == b.n_iter
    assert a.converged == b.converged


def stage_names(result: Delayed) -> set[str]:
    return {key_split(key) for key in result.dask}


# -- building ------------------------------------------------------------------------------------


def refuse_to_run(*args):
    raise AssertionError("a function of the user was called")


@pytest.mark.smoke
class TestBuilding:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: dd.from_map(refuse_to_run, range(4), meta=META),
            lambda: make_ddf(4).map_partitions(refuse_to_run, meta=META),
            pytest.param(
                lambda: make_ddf(4).to_dask_array(),
                marks=pytest.mark.skipif(
                    bool(dask.config.get("array.query-planning", False)),
                    reason="Dask cannot make an expression array of a frame",
                ),
            ),
            lambda: make_array(4).map_blocks(refuse_to_run, meta=np.empty((0, 0))),
            lambda: [dask.delayed(refuse_to_run)(i) for i in range(4)],
            lambda: make_ddf(4).shuffle("x", shuffle_method="tasks"),
        ],
        ids=["from_map", "map_partitions", "to_dask_array", "map_blocks", "Delayed", "shuffle"],
    )
    def test_computes_nothing_and_calls_nothing(self, make, raise_if_dask_computes):
        with raise_if_dask_computes():
            assert isinstance(dfmr(GaussianMixture(2), make()), Delayed)

    def test_reads_no_row_of_a_file(self, tmp_path, raise_if_dask_computes):
        paths = write_parquet(tmp_path, 3)
        X = dd.read_parquet(tmp_path)
        for path in paths:
            with open(path, "wb"):
                pass
        with raise_if_dask_computes():
            dfmr(GaussianMixture(2), X)

    def test_is_done_once_per_compute(self):
        calls = []

        def count(i):
            calls.append(i)
            return make_frame(i)

        X = [dask.delayed(count)(i) for i in range(5)]
        dfmr(GaussianMixture(2, init_params="kmeans"), X).compute(scheduler="synchronous")
        assert sorted(calls) == [0, 1, 2, 3, 4]

    def test_keys_are_fresh(self, ddf):
        assert not set(dfmr(make(), ddf).dask) & set(dfmr(make(), ddf).dask)

    def test_keys_are_fresh_for_arrays_in_memory(self):
        X = make_rows()
        assert not set(dfmr(GaussianMixture(2), X).dask) & set(dfmr(GaussianMixture(2), X).dask)

    def test_a_key_is_all_that_dask_has_to_hash(self, ddf):
        for key, task in dfmr(GaussianMixture(2), ddf).dask.items():
            if key_split(key).startswith("dfmr"):
                assert task.__dask_tokenize__() == key

    def test_computing_twice_gives_the_same_bits(self, ddf):
        result = dfmr(GaussianMixture(2), ddf)
        a, b = (result.compute(scheduler="synchronous") for _ in range(2))
        assert same_bits(a.mixture, b.mixture)

    def test_parameters_are_checked(self, ddf):
        with pytest.raises(ValueError, match="n_components"):
            dfmr(GaussianMixture(0), ddf)
        with pytest.raises(ValueError, match="block_size"):
            dfmr(GaussianMixture(2), ddf, block_size=0)
        with pytest.raises(ValueError, match="n_starts"):
            dfmr(GaussianMixture(2), ddf, n_starts=0)

    def test_composes_with_other_delayed(self, ddf):
        assert (
            dfmr(GaussianMixture(2), ddf).mixture.n_components.compute(scheduler="synchronous") == 2
        )


# -- what it looks like --------------------------------------------------------------------------


ONE_BLOCK = {
    *("read_pilot", "pilot_scale", "fit_pilot", "shortlist", "fit_partition"),
    *("stack_estimates", "summary", "admit", "report_rows"),
    *("l2_tile", "coat_candidate", "coat_min", "l2_filter"),
    *("draw_estimates", "take_estimates", "join_estimates"),
    *("consensus", "consensus_distances", "judge"),
    *("offer_start", "pick_start", "reduce", "finish", "aggregate"),
}
MANY_BLOCKS = ONE_BLOCK - {"reduce"} | {"assign_block", "tree_sum", "recenter"}
REFERENCES = {"l2_rows", "reference_medians"}
COMPONENTWISE = {
    *("read_pilot", "pilot_scale", "fit_pilot", "shortlist", "fit_partition"),
    *("stack_estimates", "summary", "admit", "report_rows", "componentwise", "aggregate"),
}

HARDENED = ONE_BLOCK | {"harden"}


def prefixed(names):
    return {f"dfmr_{name}" for name in names}


@pytest.mark.smoke
class TestStages:
    def test_one_block(self, ddf):
        assert stage_names(dfmr(GaussianMixture(2), ddf)) == prefixed(ONE_BLOCK)

    def test_many_blocks(self, ddf):
        assert stage_names(dfmr(GaussianMixture(2), ddf, block_size=4)) == prefixed(MANY_BLOCKS)

    def test_references(self, ddf):
        found = stage_names(dfmr(GaussianMixture(2, n_references=2), ddf))
        assert found == prefixed(ONE_BLOCK - {"l2_tile"} | REFERENCES)

    def test_component_by_component(self, ddf):
        assert stage_names(dfmr(GaussianMixture(2, method="componentwise"), ddf)) == prefixed(
            COMPONENTWISE
        )

    def test_hardened(self, ddf):
        assert stage_names(dfmr(GaussianMixture(2, method="hardened"), ddf)) == prefixed(HARDENED)

    def test_unknown_columns(self):
        found = stage_names(dfmr(GaussianMixture(2), make_delayed()))
        assert found == prefixed(ONE_BLOCK | {"describe", "schema"})

    def test_named_starts_have_no_pilots(self, ddf):
        found = stage_names(dfmr(GaussianMixture(2, init_params="kmeans"), ddf))
        pilots = {"read_pilot", "pilot_scale", "fit_pilot", "shortlist"}
        assert found == prefixed(ONE_BLOCK - pilots)

    def test_data_in_memory(self):
        found = stage_names(dfmr(GaussianMixture(2, n_partitions=2), make_rows()))
        assert found == prefixed(ONE_BLOCK | {"rows"})

    def test_every_stage_is_documented(self):
        documented = set(re.findall(r"dfmr_\w+", graph.__doc__))
        built = MANY_BLOCKS | REFERENCES | COMPONENTWISE | HARDENED | {"describe", "schema"}
        assert documented >= prefixed(built)
        assert documented <= prefixed(built | {"results", "store", "lost_partition", "rows"})

    def test_read_and_fit_are_one_task(self, tmp_path):
        write_parquet(tmp_path, 3, n_more_columns=3)
        X = dd.read_parquet(tmp_path)[["x", "y"]]
        result = dfmr(GaussianMixture(2), X[X.x > -100] * 2)
        assert stage_names(result) == prefixed(ONE_BLOCK)
        assert sum(key_split(key) == "dfmr_fit_partition" for key in result.dask) == 3

    def test_one_fit_per_partition_and_a_triangle_of_tiles(self):
        names = [
            key_split(key) for key in dfmr(GaussianMixture(2), make_ddf(10), block_size=3).dask
        ]
        assert names.count("dfmr_fit_partition") == 10
        assert names.count("dfmr_read_pilot") == 10
        assert names.count("dfmr_stack_estimates") == 4
        assert names.count("dfmr_l2_tile") == 10

    def test_at_most_sixteen_pilots(self):
        names = [key_split(key) for key in dfmr(GaussianMixture(2), make_ddf(40)).dask]
        assert names.count("dfmr_read_pilot") == 16

    def test_no_task_depends_on_all_partitions(self):
        result = dfmr(GaussianMixture(2, split_every=4), make_ddf(64), block_size=8)
        widest = max(
            sum(key_split(key) == "dfmr_fit_partition" for key in node.dependencies)
            for node in result.dask.values()
        )
        assert widest == 8


# -- what it gives -------------------------------------------------------------------------------


OPTIONS = [
    {},
    {"method": "mr"},
    {"method": "coat"},
    {"method": "hardened"},
    {"method": "hardened", "rho": 1.3, "n_starts": 3},
    {"method": "componentwise"},
    {"method": "componentwise", "rho": 2.0, "n_references": 4},
    {"n_starts": 3},
    {"rho": 1.0},
    {"rho": 1.3, "n_references": 4},
    {"rho": np.inf},
    {"n_references": 4},
    {"machine_weights": "equal"},
    {"max_rounds": 1, "rho": np.inf},
]


def numbers_in(thing, path=()):
    """All arrays and numbers of a result, by their place in it."""
    if dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield from numbers_in(getattr(thing, field.name), (*path, field.name))
    elif isinstance(thing, Mixture):
        for name in ("weights", "means", "covariances"):
            yield (*path, name), getattr(thing, name)
    elif isinstance(thing, np.ndarray):
        yield path, thing
    else:
        yield path, np.array(repr(thing))


@pytest.mark.parametrize(
    ("options", "block_size"),
    [*itertools.product(OPTIONS, [1, 4, 50]), ({"n_starts": M + 2}, 50)],
    ids=repr,
)
def test_both_builders_give_the_same_bits(options, block_size):
    messages = [e.to_arrays() for e in local_estimates()]
    problem = LocalProblem(Gaussian("full"), 2, n_sources=M)
    seed = np.random.SeedSequence(3)
    setting = Setting(AggregationOptions(**options), seed, problem.family, problem)
    layout = graph.layout_of(M, block_size, split_every=2)
    with single_threaded_blas():
        now = plan_aggregation(CallNow(), messages, setting, layout)
    g = GraphBuilder()
    result = plan_aggregation(graph.StageTasks(g), messages, setting, layout)
    (later,) = LocalScheduler().fetch(g, [result])
    expected = dict(numbers_in(now))
    found = dict(numbers_in(later))
    assert found.keys() == expected.keys()
    assert len(found) > 10
    for path, values in expected.items():
        np.testing.assert_array_equal(found[path], values, err_msg=str(path))


class TestEqualToMemory:
    @pytest.mark.parametrize(
        ("block_size", "split_every"),
        [(1, 2), (1, 3), (1, 8), (2, 2), (2, 3), (2, 8), (7, 2), (7, 3), (M, 2), (50, 2)],
    )
    def test_blocks_and_trees(self, block_size, split_every):
        result = compute(block_size=block_size, split_every=split_every)
        assert_equal_aggregates(result, aggregate(local_estimates()))

    def test_unknown_columns(self):
        reader = Reader({3: other_unit, 5: broken, 11: other_unit})
        result = compute(make_delayed(M, reader), block_size=4)
        assert_equal_aggregates(result, aggregate(local_estimates()))

    def test_a_block_where_nobody_is_usable(self):
        reader = Reader(dict.fromkeys(range(4), broken))
        gm = GaussianMixture(2, random_state=0, on_failed="ignore", **START)
        gm.fit(make_ddf(M, reader))
        result = compute(make_ddf(M, reader), block_size=4)
        assert_equal_aggregates(result, aggregate(gm.estimates_))
        assert result.decision.refused.keys() == {0, 1, 2, 3}

    def test_three_hundred_partitions(self):
        X = da.from_array(np.concatenate([make_rows(i, 40) for i in range(300)]), chunks=(40, 2))
        # By estimates alone: a second look has the rows too.
        gm = make(refit_excluded=False, **START).fit(X)
        assert gm.n_partitions_ == 300
        assert_equal_aggregates(gm.aggregate_, aggregate(gm.estimates_, random_state=0))

    def test_the_estimator_computes_the_same(self):
        gm = GaussianMixture(2, random_state=0, on_failed="ignore", **START)
        gm.fit(input_of_some_bad_partitions())
        assert same_bits(gm.mixture_, compute().mixture)

    def test_errors_carry_the_report(self):
        X = make_ddf(3, Reader(dict.fromkeys(range(3), broken)))
        with pytest.raises(AggregationError, match="the disk is gone") as caught:
            dfmr(GaussianMixture(2), X).compute(scheduler="synchronous")
        assert [row["partition"] for row in caught.value.report] == [0, 1, 2]
        assert caught.value.reasons.keys() == {0, 1, 2}

    def test_notes_are_values(self):
        result = compute(make_ddf(2))
        assert [note.category.__name__ for note in result.notes] == ["FilterWarning"]


def fit_both_ways():
    """The estimator, and the lazy graph in several blocks."""
    X = input_of_some_bad_partitions()
    gm = GaussianMixture(2, random_state=0, on_failed="ignore").fit(X)
    return gm, dfmr(make(split_every=2), X, block_size=5).compute()


@cache
def fitted_alone():
    with dask.config.set(scheduler="synchronous"):
        return fit_both_ways()


@pytest.mark.usefixtures("several_blas_threads")
class TestBits:
    """The same bits wherever it runs."""

    def check(self):
        (gm, result), (expected, expected_result) = fit_both_ways(), fitted_alone()
        assert same_bits(gm.mixture_, expected.mixture_)
        assert same_bits(result.mixture, expected_result.mixture)
        report, expected_report = gm.partition_report_, expected.partition_report_
        pd.testing.assert_frame_equal(report, expected_report, check_exact=True)
        assert gm.lower_bound_ == expected.lower_bound_
        for mine, other in zip(gm.estimates_, expected.estimates_, strict=True):
            assert mine.mixture == other.mixture

    @pytest.mark.parametrize("scheduler", ["threads", "processes"])
    def test_local_schedulers(self, scheduler):
        with dask.config.set(scheduler=scheduler):
            self.check()

    def test_two_worker_processes_and_a_hardened_filter(self, client):
        X = input_of_some_bad_partitions()

        def fitted():
            graph = dfmr(make(method="hardened", split_every=2), X, block_size=5)
            return graph.compute()

        found = [fitted()]
        for scheduler in ("synchronous", "threads"):
            with dask.config.set(scheduler=scheduler):
                found.append(fitted())
        for other in found[1:]:
            assert same_bits(other.mixture, found[0].mixture)
            assert other.decision.reasons == found[0].decision.reasons
        assert found[0].decision.reasons.keys() >= {3, 11}

    def test_one_thread(self):
        with dask.config.set(scheduler="threads", num_workers=1):
            self.check()

    def test_two_worker_processes(self, client):
        self.check()

    def test_workers_without_processes(self):
        with local_cluster(2, processes=False) as cluster, distributed.Client(cluster):
            self.check()

    def test_a_worker_that_starts_from_nothing(self, spawned_processes):
        with local_cluster(1) as cluster, distributed.Client(cluster):
            self.check()

    def test_processes_that_start_from_nothing(self, spawned_processes):
        lazy = dfmr(make(split_every=2), input_of_some_bad_partitions(), block_size=5)
        found = lazy.compute(scheduler="processes")
        assert same_bits(found.mixture, fitted_alone()[1].mixture)


def test_a_list_of_one_list_stays_one():
    g = GraphBuilder()
    for i, value in enumerate(([[1, 2]], [[]], [], [1, [2]])):
        assert LocalScheduler().fetch(g, [g.add("values", i, list, value)]) == [value]
