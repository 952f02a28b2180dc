"""Sums over rows that add up, and reading partitions again."""

from __future__ import annotations

import dask
import distributed
import numpy as np
import pytest

from dask_dfmr import GaussianMixture, Mixture, Outcome, parameters
from dask_dfmr.local.row_statistics import (
    Measurement,
    PartitionStatistics,
    Wanted,
    measure,
    total_of,
)
from dask_dfmr.on_dask.rereading import Reader
from tests.conftest import local_cluster
from tests.data_makers import (
    TRUTH,
    CountingReader,
    broken,
    deadly,
    make_array,
    make_ddf,
    make_delayed,
    make_rows,
    renamed,
    sleeping,
    with_nan,
)
from tests.data_makers import (
    Reader as BadReader,
)

OTHER = Mixture([1.0], [[0.0, 0.0]], [4.0], "spherical", ["x", "y"])
EVERYTHING = Wanted(entropy=True)


def plan_of(X, **kwargs):
    return parameters.plan_of(GaussianMixture(2, **{"random_state": 0, "rho": 1.3} | kwargs), X)


def reader_of(X, **kwargs):
    return Reader(plan_of(X, **kwargs))


def same(a, b):
    """Whether the statistics of two partitions are equal to the last bit."""
    if (a.partition, a.n_samples, a.n_omitted, a.outcome, a.reason) != (
        b.partition,
        b.n_samples,
        b.n_omitted,
        b.outcome,
        b.reason,
    ):
        return False
    pairs = zip(a.measurements, b.measurements, strict=True)
    return all(
        x.log_likelihood == y.log_likelihood
        and all(m.tobytes() == n.tobytes() for m, n in zip(x.moments, y.moments, strict=True))
        for x, y in pairs
    )


class TestMeasure:
    def test_the_log_likelihood_is_that_of_the_rows(self):
        X = make_rows()
        (m,) = measure(X, [TRUTH], EVERYTHING)
        assert m.n_samples == 200
        assert m.log_likelihood == pytest.approx(TRUTH.score_samples(X).sum(), rel=1e-12)

    def test_the_entropy_is_that_of_the_responsibilities(self):
        X = make_rows()
        (m,) = measure(X, [TRUTH], EVERYTHING)
        r = TRUTH.predict_proba(X)
        assert m.entropy == pytest.approx(-(r * np.log(r)).sum(), rel=1e-9)

    def test_what_is_not_wanted_is_not_there(self):
        (m,) = measure(make_rows(), [TRUTH], Wanted(moments=False))
        assert m.moments is None
        assert np.isnan(m.entropy)

    def test_mixtures_may_differ_in_family_and_size(self):
        measured = measure(make_rows(), [TRUTH, OTHER], Wanted())
        assert [len(m.moments[0]) for m in measured] == [2, 1]

    def test_sums_of_parts_are_the_sum_of_the_whole(self):
        X = make_rows(n=300)
        parts = [
            PartitionStatistics(
                i, len(part), measurements=measure(part, [TRUTH, OTHER], EVERYTHING)
            )
            for i, part in enumerate(np.array_split(X, [40, 41, 200]))
        ]
        whole = measure(X, [TRUTH, OTHER], EVERYTHING)
        for total, expected in zip(total_of(parts), whole, strict=True):
            assert total.n_samples == 300
            for name in ("log_likelihood", "entropy"):
                assert getattr(total, name) == pytest.approx(getattr(expected, name), rel=1e-12)
            for a, b in zip(total.moments, expected.moments, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)

    def test_sums_of_sums_and_of_nothing(self):
        statistics = PartitionStatistics(
            0, 200, measurements=measure(make_rows(), [TRUTH], Wanted())
        )
        lost = PartitionStatistics(1, outcome=Outcome.LOST)
        assert total_of([]) == ()
        assert total_of([lost, total_of([lost])]) == ()
        once = total_of([statistics])
        (twice,) = total_of([once, statistics, lost])
        assert twice.log_likelihood == 2 * once[0].log_likelihood

    def test_without_moments_a_sum_has_none(self):
        assert (Measurement(1, 0.0) + Measurement(2, 1.0, (np.ones(1),))).moments is None


class TestReader:
    @pytest.mark.smoke
    def test_measures_the_partitions_asked_for_in_their_order(self):
        found = reader_of(make_ddf()).measure([4, 1], [TRUTH, OTHER], EVERYTHING)
        assert [r.partition for r in found] == [4, 1]
        for statistics in found:
            X = make_rows(statistics.partition)
            expected = PartitionStatistics(
                statistics.partition, 200, measurements=measure(X, [TRUTH, OTHER], EVERYTHING)
            )
            assert same(statistics, expected)

    @pytest.mark.parametrize("make", [make_ddf, make_array, make_delayed])
    def test_same_bits_on_every_scheduler(self, make):
        found = []
        for scheduler in ("synchronous", "threads", "processes"):
            with dask.config.set(scheduler=scheduler):
                held = reader_of(make()).hold(range(6), [TRUTH])
                total = held.total()
                found.append([*held.gather(), PartitionStatistics(-1, measurements=total)])
        for others in found[1:]:
            assert all(same(a, b) for a, b in zip(found[0], others, strict=True))

    def test_a_cluster_gives_the_same_bits(self, client):
        with dask.config.set(scheduler="synchronous"):
            held = reader_of(make_ddf()).hold(range(6), [TRUTH])
            expected = [*held.gather(), PartitionStatistics(-1, measurements=held.total([0, 2, 5]))]
        held = reader_of(make_ddf()).hold(range(6), [TRUTH])
        found = [*held.gather(), PartitionStatistics(-1, measurements=held.total([0, 2, 5]))]
        assert all(same(a, b) for a, b in zip(found, expected, strict=True))
        in_memory = reader_of(make_array().compute(), n_partitions=6).measure(range(6), [TRUTH])
        assert all(same(a, b) for a, b in zip(in_memory, expected[:-1], strict=True))

    def test_a_failure_in_one_partition_is_in_its_own_statistics(self):
        reader = BadReader({0: broken, 1: with_nan, 2: renamed, 3: sleeping})
        with dask.config.set(scheduler="threads"):
            found = reader_of(make_ddf(reader=reader), partition_timeout=1).measure(
                range(5), [TRUTH]
            )
        assert [r.outcome for r in found] == [
            Outcome.FAILED,
            Outcome.NOT_FINITE,
            Outcome.BAD_COLUMNS,
            Outcome.TIMED_OUT,
            None,
        ]
        assert found[0].reason == "OSError: the disk is gone"
        assert "y (3 rows)" in found[1].reason
        assert [r.is_measured for r in found] == [False] * 4 + [True]

    def test_rows_with_nan_are_omitted_if_the_fit_omits_them(self):
        (statistics,) = reader_of(
            make_ddf(reader=BadReader({0: with_nan})), nan_policy="omit"
        ).measure([0], [TRUTH])
        assert (statistics.n_samples, statistics.n_omitted) == (197, 3)

    def test_another_number_of_columns_is_a_reason(self):
        parts = [dask.delayed(make_rows(0)), dask.delayed(make_rows(1)[:, :1])]
        found = reader_of(parts).measure([0, 1], [TRUTH])
        assert found[0].is_measured
        assert found[1].reason == "1 columns, expected 2"

    @pytest.mark.smoke
    def test_each_partition_is_read_once_and_no_other(self, tmp_path):
        reader = CountingReader(tmp_path)
        mine = reader_of(make_ddf(reader=reader))
        with dask.config.set(scheduler="threads"):
            held = mine.hold([1, 3], [TRUTH, OTHER])
            held.numbers(), held.total(), held.gather()
        assert reader.count() == {1: 1, 3: 1}
        assert mine.n_reads == 2

    def test_numbers_come_without_moments(self):
        for statistics in reader_of(make_ddf()).hold([0], [TRUTH]).numbers():
            assert statistics.measurements[0].moments is None
            assert np.isfinite(statistics.measurements[0].log_likelihood)

    def test_a_reduced_reader_holds_only_the_data_it_needs(self):
        pipeline = plan_of(make_array().compute(), n_partitions=6)
        assert len(pipeline.partitions.graph) == 6
        assert len(pipeline.partitions.reduced_to([2, 4]).graph) == 2

    @pytest.mark.slow  # waits for restarts of workers
    def test_a_partition_that_kills_its_worker_loses_only_itself(self):
        config = {
            "distributed.scheduler.allowed-failures": 1,
            "distributed.deploy.lost-worker-timeout": "1 hour",
        }
        with dask.config.set(config), local_cluster(2) as cluster, distributed.Client(cluster):
            found = reader_of(make_ddf(4, BadReader({2: deadly}))).measure(range(4), [TRUTH])
        assert [r.is_measured for r in found] == [True, True, False, True]
        assert found[2].outcome is Outcome.LOST
