"""Sources that are the values of a column: every row is in one of them, whatever the partitions and the scheduler."""

from __future__ import annotations

import asyncio
import datetime
import re

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pytest

from dask_dfmr import (
    GaussianMixture,
    PartitionError,
    PartitionWarning,
    check,
    dfmr,
    select_components,
)
from dask_dfmr.on_dask import by_column as sources
from dask_dfmr.on_dask.by_column import SourceError, sources_of, take_census
from dask_dfmr.on_dask.partitions import rows_of
from dask_dfmr.on_dask.scheduling.scheduler import active_scheduler
from dask_dfmr.on_dask.sorted_rows import SortedRows, merge
from tests.data_makers import COLUMNS, TRUTH, make_array, make_delayed, make_frame, same_bits

SENSORS = [f"A{j}" for j in range(8)]
START = {"means_init": TRUTH.means}  # pilots take half of the time: one test has them


class SensorReader:
    """Partition i: 200 rows, of every sensor some; sensor A3 counts in another unit."""

    __name__ = "read"

    def __init__(self, labels=None, bad=None, factor=1000.0):
        self.labels, self.bad, self.factor = labels or spread, bad or {}, factor

    def __call__(self, i):
        frame = make_frame(i)
        frame["sensor"] = self.labels(i, len(frame))
        frame.loc[(frame["sensor"] == "A3").to_numpy(bool, na_value=False), COLUMNS] *= self.factor
        return self.bad[i](frame) if i in self.bad else frame


def spread(i, n):
    """All sensors in every partition."""
    return np.random.default_rng(i).choice(SENSORS, n)


def blocks(i, n):
    """One sensor a partition, each in several partitions."""
    return np.repeat(SENSORS[i % 4], n)


def neighbours(i, n):
    """In order, as a day is in files: the last of one partition goes on in the next."""
    return np.repeat([f"A{i}", f"A{i + 1}"], n // 2)


def broken(frame):
    raise OSError("the disk is gone")


def without_column(frame):
    return frame.drop(columns="sensor")


def exiting(frame):
    raise SystemExit(3)


def with_lists(frame):
    return frame.assign(sensor=[[1]] * len(frame))


def without_feature(frame):
    return frame.drop(columns="y")


def with_text(frame):
    return frame.assign(y="high")


class BrokenLater:
    """Breaks after the first read, which is that of the sources."""

    def __init__(self, folder, error):
        self.flag, self.error = folder / "was read", error

    def __call__(self, frame):
        if self.flag.exists():
            raise self.error
        self.flag.touch()
        return frame


FEATURE_FAULTS = {
    "without_feature": lambda folder: without_feature,
    "with_text": lambda folder: with_text,
    "broken_but_for_sensors": lambda folder: BrokenLater(folder, OSError("the disk is gone")),
    "selecting": lambda folder: BrokenLater(folder, KeyError("['y'] not in index")),
}


LABELS = {"spread": spread, "blocks": blocks, "neighbours": neighbours}


def make_x(m=8, labels=spread, meta_type="object", **kwargs):
    meta = make_frame(0, 1).iloc[:0].assign(sensor=np.empty(0, meta_type))
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(SensorReader(labels, **kwargs), range(m), meta=meta)


def find(X, lazy=False):
    """One loader per sensor."""
    return sources_of(X, "sensor", scheduler=None if lazy else active_scheduler())


def load(partitions):
    """The rows of every source, in the order of the sources."""
    found = []
    for loader in partitions.loaders:
        values = dask.get(partitions.graph, [ref.key for ref in loader.refs])
        found.append(rows_of(loader(*values), partitions.feature_names)[0])
    return found


def expected_rows(X, column="sensor"):
    """The same by pandas: in the order of partitions, then of rows."""
    whole = pd.concat([part.compute() for part in X.partitions])
    groups = dict(list(whole.groupby(column, sort=True, observed=True)))
    rest = whole[whole[column].isna()]
    tables = [*groups.values(), *([rest] if len(rest) else [])]
    return [table.drop(columns=column).to_numpy(float) for table in tables]


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0, "source": "sensor"} | START | kwargs)


@pytest.fixture(scope="module")
def undisturbed():
    with dask.config.set(scheduler="synchronous"):
        return {name: make().fit(make_x(labels=labels)) for name, labels in LABELS.items()}


class TestEveryRowIsInOneSource:
    @pytest.mark.parametrize("lazy", [False, True])
    @pytest.mark.parametrize("labels", LABELS)
    def test_and_in_order(self, labels, lazy):
        X = make_x(labels=LABELS[labels])
        partitions = find(X, lazy)
        expected = expected_rows(X)
        assert len(partitions) == len(expected)
        for rows, table in zip(load(partitions), expected, strict=True):
            np.testing.assert_array_equal(rows, table)

    def test_whichever_way_they_are_brought_together(self, monkeypatch):
        X = make_x()
        in_files, in_buckets = (
            load(find(X)),
            load(find(X, lazy=True)),
        )
        monkeypatch.setattr(sources, "MAX_READS", np.inf)
        selected = load(find(X))
        for three in zip(in_files, in_buckets, selected, strict=True):
            assert len({rows.tobytes() for rows in three}) == 1
            assert {rows.flags.c_contiguous for rows in three} == {True}

    def test_fewer_buckets_than_sources(self, monkeypatch):
        monkeypatch.setattr(sources, "N_BUCKETS_LAZY", 3)
        X = make_x()
        for rows, table in zip(load(find(X, lazy=True)), expected_rows(X), strict=True):
            np.testing.assert_array_equal(rows, table)

    @pytest.mark.parametrize("lazy", [False, True])
    @pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
    def test_rows_without_a_source_are_a_source(self, missing, lazy):
        def labels(i, n):
            return pd.Series(spread(i, n)).where(np.arange(n) % 10 > 0, missing).to_numpy()

        X = make_x(labels=labels)
        partitions = find(X, lazy)
        assert partitions.sources == [*(f"sensor={s!r}" for s in SENSORS), "sensor=<missing>"]
        found = load(partitions)
        assert len(found[-1]) == 8 * 20
        for rows, table in zip(found, expected_rows(X), strict=True):
            np.testing.assert_array_equal(rows, table)

    def test_of_a_frame_in_memory(self):
        X = make_x().compute()
        partitions = find(X)
        expected = [t.drop(columns="sensor").to_numpy() for _, t in X.groupby("sensor")]
        for rows, table in zip(load(partitions), expected, strict=True):
            np.testing.assert_array_equal(rows, table)

    @pytest.mark.parametrize("lazy", [False, True])
    def test_partitions_without_rows(self, lazy):
        X = make_x(bad={0: lambda f: f.iloc[:0], 5: lambda f: f.iloc[:0]})
        partitions = find(X, lazy)
        assert sum(map(len, load(partitions))) == 6 * 200

    def test_integers_become_floats_once(self):
        X = make_x().assign(x=1).astype({"x": "int32", "y": "float32"})
        for rows in load(find(X)):
            assert rows.dtype == np.float64


class TestNames:
    def names(self, labels, **kwargs):
        return find(make_x(labels=labels, **kwargs)).sources

    def test_numbers_are_sorted_as_numbers(self):
        def labels(i, n):
            return np.arange(n) % 11 + i % 2

        assert self.names(labels, meta_type="int64") == [f"sensor={j}" for j in range(12)]

    def test_days_and_times(self):
        def labels(i, n):
            return pd.Timestamp("2024-01-30") + pd.to_timedelta(np.arange(n) % 3 * 36, "h")

        assert self.names(labels, meta_type="datetime64[ns]") == [
            "sensor=2024-01-30",
            "sensor=2024-01-31 12:00:00",
            "sensor=2024-02-02",
        ]

    def test_dates_of_the_standard_library(self):
        def labels(i, n):
            return [datetime.date(2024, 1, 1 + j % 2) for j in range(n)]

        assert self.names(labels) == [
            "sensor=datetime.date(2024, 1, 1)",
            "sensor=datetime.date(2024, 1, 2)",
        ]

    def test_unused_categories_are_no_sources(self):
        X = make_x().compute()
        X["sensor"] = pd.Categorical(X["sensor"], [*reversed(SENSORS), "never seen"])
        X = dd.from_pandas(X, npartitions=4)
        expected = [f"sensor={s!r}" for s in SENSORS]
        assert find(X).sources == expected
        assert find(X.compute()).sources == expected
        assert sum(map(len, load(find(X)))) == 1600

    def test_values_of_several_types(self):
        def labels(i, n):
            return np.array([1, "1", (1, 2), None] * (n // 4), dtype=object)

        assert self.names(labels) == ["sensor=1", "sensor='1'", "sensor=(1, 2)", "sensor=<missing>"]

    def test_strings_of_arrow(self):
        X = make_x().compute()
        X = dd.from_pandas(X.astype({"sensor": "string[pyarrow]"}), npartitions=4)
        assert find(X).sources == [f"sensor={s!r}" for s in SENSORS]

    def test_a_column_whose_name_is_no_text(self):
        X = make_x().rename(columns={"sensor": 7})
        assert sources_of(X, 7).sources[0] == "7='A0'"
        gm = make(source=7).fit(X)
        assert gm.feature_names_in_.tolist() == COLUMNS


class TestHowTheyAreRead:
    def test_partitions_of_one_source_are_read_by_its_task_alone(self):
        partitions = find(make_x(labels=blocks))
        assert partitions.graph == {}
        assert partitions.held == ()

    def test_sources_in_all_partitions_read_each_once(self, tmp_path):
        reader = CountingSensorReader(tmp_path)
        meta = make_frame(0, 1).iloc[:0].assign(sensor=np.empty(0, object))
        with dask.config.set({"dataframe.convert-string": False}, scheduler="synchronous"):
            make().fit(dd.from_map(reader, range(8), meta=meta))
        assert reader.count() == dict.fromkeys(range(8), 2)  # this reader cannot read one column

    def test_the_same_on_a_cluster(self, tmp_path, client):
        reader = CountingSensorReader(tmp_path)
        meta = make_frame(0, 1).iloc[:0].assign(sensor=np.empty(0, object))
        with dask.config.set({"dataframe.convert-string": False}):
            make().fit(dd.from_map(reader, range(8), meta=meta))
        assert reader.count() == dict.fromkeys(range(8), 2)

    def test_files_are_gone_after_the_fit(self, tmp_path):
        with dask.config.set({"temporary-directory": str(tmp_path)}):
            partitions = find(make_x())
            (folder,) = tmp_path.iterdir()
            load(partitions)
            assert len(list(folder.iterdir())) == 8
            del partitions
            assert list(tmp_path.iterdir()) == []
            make().fit(make_x())
        assert list(tmp_path.iterdir()) == []

    def test_a_column_of_parquet_is_read_alone(self, tmp_path):
        for i in range(3):
            SensorReader()(i).to_parquet(tmp_path / f"{i}.parquet")
        X = dd.read_parquet(tmp_path)
        census = take_census(X, "sensor", active_scheduler())
        whole = X["sensor"].compute()
        assert census.values == SENSORS
        assert [sum(n.values()) for n in census.rows] == whole.value_counts().sort_index().tolist()
        assert sum(map(len, load(find(X)))) == 600


class CountingSensorReader(SensorReader):
    """Leaves a file for every call."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __call__(self, i):
        from uuid import uuid4

        (self.folder / f"{i}-{uuid4().hex}").touch()
        return super().__call__(i)

    def count(self):
        numbers = [int(path.name.split("-")[0]) for path in self.folder.iterdir()]
        return {i: numbers.count(i) for i in sorted(set(numbers))}


class TestFit:
    def test_plain_partitions_are_defeated_and_do_not_know_it(self):
        gm = make(source=None, rho=2.0, means_init=None).fit(make_x(factor=3.0)[COLUMNS])
        assert gm.support_.all()
        assert abs(gm.means_ - TRUTH.means).max() > 0.3

    @pytest.mark.smoke
    def test_the_bad_sensor_is_named(self):
        gm = make(rho=2.0, means_init=None).fit(make_x(factor=3.0))  # with pilots
        report = gm.partition_report_
        assert report.loc[~report["kept"], "source"].tolist() == ["sensor='A3'"]
        assert report["n_samples"].sum() == 1600
        np.testing.assert_allclose(gm.means_, TRUTH.means, atol=0.3)

    @pytest.mark.parametrize("labels", LABELS)
    def test_the_whole_column_of_a_frame_in_memory(self, labels, undisturbed):
        gm = make().fit(make_x(labels=LABELS[labels]).compute())
        expected = undisturbed[labels].partition_report_
        assert gm.partition_report_["source"].tolist() == expected["source"].tolist()
        np.testing.assert_array_equal(gm.support_, undisturbed[labels].support_)
        np.testing.assert_allclose(gm.means_, undisturbed[labels].means_)

    def test_lazily(self, undisturbed):
        result = dfmr(make(), make_x())
        assert same_bits(result.compute().mixture, undisturbed["spread"].mixture_)

    def test_partition_is_the_default(self):
        X = make_x()[COLUMNS]
        with dask.config.set(scheduler="synchronous"):
            a = GaussianMixture(2, random_state=0).fit(X)
            b = make(source=None, means_init=None).fit(X)
        assert same_bits(a.mixture_, b.mixture_)

    @pytest.mark.smoke
    def test_rows_that_nobody_claims_can_be_left_out(self):
        def labels(i, n):
            return pd.Series(spread(i, n)).where(np.arange(n) % 10 > 0, None).to_numpy()

        def other_rows(frame):
            frame.loc[frame["sensor"].isna(), COLUMNS] += 50
            return frame

        gm = make().fit(make_x(labels=labels, bad=dict.fromkeys(range(8), other_rows)))
        report = gm.partition_report_.set_index("source")
        assert report.loc["sensor=<missing>", "n_samples"] == 160
        assert not report.loc["sensor=<missing>", "kept"]


class TestPredict:
    def test_with_the_column_and_without_it(self):
        X = make_x()
        gm = make().fit(X)
        expected = gm.predict(X[COLUMNS]).compute()
        pd.testing.assert_series_equal(gm.predict(X).compute(), expected)
        pd.testing.assert_series_equal(gm.fit_predict(X).compute(), expected)
        np.testing.assert_array_equal(gm.predict(X.compute()), expected)
        np.testing.assert_array_equal(gm.predict(X.compute()[COLUMNS]), expected)
        assert gm.score(X, rows="all") == pytest.approx(gm.score(X[COLUMNS].compute()))
        assert gm.predict_proba(X).compute().shape == (1600, 2)

    def test_other_columns_are_still_refused(self):
        gm = make().fit(make_x())
        with pytest.raises(TypeError, match="site"):
            gm.predict(make_x().assign(site="B"))
        with pytest.raises(ValueError, match="unexpected"):
            gm.predict(make_x().assign(z=1.0))


class TestEveryScheduler:
    @pytest.mark.parametrize("labels", LABELS)
    def test_local_threads(self, labels, undisturbed):
        self.check_local("threads", labels, undisturbed)

    @pytest.mark.parametrize(
        "labels",
        [key if key == "spread" else pytest.param(key, marks=pytest.mark.slow) for key in LABELS],
    )
    def test_local_processes(self, labels, undisturbed):
        self.check_local("processes", labels, undisturbed)

    @staticmethod
    def check_local(scheduler, labels, undisturbed):
        with dask.config.set(scheduler=scheduler):
            gm = make().fit(make_x(labels=LABELS[labels]))
        assert_same(gm, undisturbed[labels])

    @pytest.mark.parametrize("labels", LABELS)
    def test_a_cluster(self, labels, undisturbed, client):
        assert_same(make().fit(make_x(labels=LABELS[labels])), undisturbed[labels])

    @pytest.mark.parametrize("labels", LABELS)
    def test_persisted_on_a_cluster(self, labels, undisturbed, client):
        assert_same(make().fit(make_x(labels=LABELS[labels]).persist()), undisturbed[labels])

    def test_a_lazy_graph_on_a_cluster(self, undisturbed, client):
        result = dfmr(make(), make_x())
        assert same_bits(result.compute().mixture, undisturbed["spread"].mixture_)

    def test_nothing_is_left_on_a_cluster(self, client):
        from tests.test_cluster import assert_nothing_left

        make().fit(make_x())
        assert_nothing_left(client)
        with pytest.raises(TypeError, match="equality"):
            make().fit(make_x(labels=lambda i, n: [[1]] * n))
        assert_nothing_left(client)

    def test_an_asynchronous_client_is_refused(self, cluster):
        async def fit():
            async with distributed.Client(cluster.scheduler_address, asynchronous=True):
                with pytest.raises(RuntimeError, match="source='sensor' is eager"):
                    dfmr(GaussianMixture(2, source="sensor"), make_x())

        asyncio.run(fit())


def assert_same(gm, expected):
    pd.testing.assert_frame_equal(gm.partition_report_, expected.partition_report_)
    assert same_bits(gm.mixture_, expected.mixture_)


@pytest.mark.filterwarnings("ignore::dask_dfmr.PartitionWarning")
class TestWhatGoesWrong:
    @pytest.mark.parametrize("labels", LABELS)
    @pytest.mark.parametrize(
        ("bad", "outcome", "reason"),
        [
            (broken, "failed", "OSError: the disk is gone"),
            (exiting, "failed", "SystemExit: 3"),
            (without_column, "other columns", "there is no column 'sensor'"),
            (with_lists, "failed", "equality .* unhashable"),
        ],
    )
    def test_a_partition_without_sources_is_a_source_of_its_own(self, labels, bad, outcome, reason):
        X = make_x(labels=LABELS[labels], bad={2: bad})
        gm = make().fit(X)
        last = gm.partition_report_.iloc[-1]
        assert (last["source"], last["outcome"], last["kept"]) == ("partition 2", outcome, False)
        assert "its sources could not be found" in last["reason"]
        assert re.search(reason, last["reason"])
        assert gm.partition_report_["n_samples"].sum() == 7 * 200
        assert (gm.partition_report_["outcome"][:-1] == "fitted").all()

    def test_on_a_cluster_too(self, client):
        gm = make().fit(make_x(bad={2: broken}))
        assert gm.partition_report_["outcome"].tolist() == ["fitted"] * 8 + ["failed"]

    def test_a_partition_that_hangs(self):
        import time

        def slow(frame):
            time.sleep(3)
            return frame

        gm = make(partition_timeout=1.0).fit(make_x(bad={2: slow}))
        last = gm.partition_report_.iloc[-1]
        assert "not done after partition_timeout" in last["reason"]

    @pytest.mark.parametrize("labels", LABELS)
    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            ("without_feature", "columns are ['x'], expected ['x', 'y']"),
            ("with_text", "columns must hold real numbers; got 'y'"),
            ("broken_but_for_sensors", "OSError: the disk is gone"),
            ("selecting", "columns ['y'] are missing, expected ['x', 'y']"),
        ],
    )
    def test_sources_are_fitted_without_a_partition_whose_features_are_missing(
        self, tmp_path, labels, bad, reason
    ):
        X = make_x(labels=LABELS[labels], bad={6: FEATURE_FAULTS[bad](tmp_path)})
        with pytest.warns(PartitionWarning, match="1 partition of X could not be used") as caught:
            gm = make().fit(X)
        assert f"are without its rows: partition 6: {reason}" in str(caught[-1].message)
        report = gm.partition_report_
        hit = {"spread": SENSORS, "blocks": ["A2"], "neighbours": ["A6", "A7"]}[labels]
        named = report.loc[
            report["reason"].str.contains("without its rows in partition 6"), "source"
        ]
        assert named.tolist() == [f"sensor={sensor!r}" for sensor in hit]
        assert (report["outcome"] == "fitted").all()
        assert report["n_samples"].sum() == 7 * 200

    def test_the_fit_is_that_of_the_other_partitions(self):
        gm = make().fit(make_x(bad={7: without_feature}))
        assert same_bits(gm.mixture_, make().fit(make_x(7)).mixture_)

    def test_a_source_that_lies_in_that_partition_alone(self):
        first = make_x(labels=lambda i, n: [f"A{i}"] * n, bad={6: without_feature})
        row = make().fit(first).partition_report_.loc[6]
        assert (row["outcome"], row["n_samples"]) == ("other columns", 0)

    def test_an_error_if_that_is_asked_for(self):
        with pytest.raises(PartitionError, match="8 of 8 sources are without its rows"):
            make(on_failed="raise").fit(make_x(bad={2: without_feature}))

    def test_a_lazy_fit_says_it_too(self):
        with dask.config.set(scheduler="synchronous"):
            found = dfmr(make(), make_x(bad={2: without_feature})).compute()
        (note,) = [note for note in found.notes if note.category is PartitionWarning]
        assert "8 of 8 sources are without its rows: partition 2" in note.message

    def test_a_selection_says_it_too(self):
        gm = GaussianMixture(source="sensor", random_state=0)
        with pytest.warns(PartitionWarning, match="8 of 8 sources are without its rows"):
            found = select_components(gm, make_x(bad={2: without_feature}), [2])
        assert found.partition_report["reason"].str.contains("without its rows").all()

    def test_a_check_accepts_no_source_without_its_rows(self):
        gm = GaussianMixture.from_mixture(TRUTH)
        report = check(gm, make_x(bad={2: without_feature}, factor=1.0), source="sensor").report
        assert (report["verdict"] == "review").all()
        assert (report["kind"] == "unread rows").all()

    @pytest.mark.parametrize("lazy", [False, True])
    @pytest.mark.parametrize("labels", [spread, blocks])
    def test_data_that_change_after_they_were_counted(self, tmp_path, labels, lazy):
        flag = tmp_path / "changed"

        def changing(frame):
            return frame.iloc[:-1] if flag.exists() else frame

        partitions = find(make_x(labels=labels, bad={2: changing}), lazy)
        flag.touch()
        with pytest.raises(SourceError, match="must not change"):
            load(partitions)

    def test_a_source_that_was_not_there(self, tmp_path):
        flag = tmp_path / "changed"

        def changing(frame):
            return frame.assign(sensor="new") if flag.exists() else frame

        partitions = find(make_x(bad={2: changing}))
        flag.touch()
        values = dask.get(partitions.graph, [ref.key for ref in partitions.loaders[0].refs])
        (problem,) = partitions.loaders[0](*values).unread
        assert problem == "partition 2: it has sources that were not there when they were counted"


class TestRefused:
    def test_no_such_column(self):
        with pytest.raises(ValueError, match=r"one of the columns of X, \['x', 'y', 'sensor'\]"):
            make(source="site").fit(make_x())

    @pytest.mark.parametrize(
        "X", [make_array(2), make_delayed(2), np.zeros((10, 2))], ids=["array", "delayed", "numpy"]
    )
    def test_not_a_frame(self, X):
        with pytest.raises(TypeError, match="must be a dask or pandas DataFrame"):
            make().fit(X)

    def test_several_columns(self):
        with pytest.raises(TypeError, match="join them into one"):
            make(source=["sensor", "day"]).fit(make_x())

    def test_one_source(self):
        with pytest.raises(ValueError, match=r"at least two .* got \[\"sensor='A1'\"\]"):
            make().fit(make_x(labels=lambda i, n: ["A1"] * n))

    def test_nothing_but_the_column(self):
        with pytest.raises(ValueError, match="columns to fit besides 'sensor'"):
            make().fit(make_x()[["sensor"]])

    def test_another_column_that_is_no_number(self):
        with pytest.raises(TypeError, match=r"'site' .*source='sensor' is not among"):
            make().fit(make_x().assign(site="B"))

    @pytest.mark.parametrize("limit", [100, 1000])
    def test_too_many_sources(self, monkeypatch, limit):
        monkeypatch.setattr(sources, "MAX_SOURCES", limit)
        with dask.config.set(scheduler="synchronous"), pytest.raises(ValueError, match="coarser"):
            make().fit(make_x(labels=lambda i, n: np.arange(n) + n * i, meta_type="int64"))

    def test_values_that_cannot_be_compared(self):
        with pytest.raises(TypeError, match=r"equality .*astype\(str\)"):
            make().fit(make_x(labels=lambda i, n: [[1]] * n))

    def test_cuts_of_a_frame_in_memory(self):
        with pytest.raises(ValueError, match="n_partitions must be 1"):
            make(n_partitions=3).fit(make_x().compute())

    def test_nothing_is_read_if_x_is_wrong(self, raise_if_dask_computes):
        with raise_if_dask_computes(), pytest.raises(ValueError, match="one of the columns"):
            make(source="site").fit(make_x())


class TestSortedRows:
    def test_a_source_has_its_rows_in_order(self, tmp_path):
        rows = np.arange(20.0).reshape(10, 2)
        sources_of_rows = np.array([5, 1, 5, 3, 1, 1, 5, 3, 3, 5])
        for pieces in (
            SortedRows.of(rows, sources_of_rows),
            SortedRows.of(rows, sources_of_rows).stored(tmp_path / "r"),
        ):
            for source in (1, 3, 5):
                np.testing.assert_array_equal(
                    pieces.of_source(source), rows[sources_of_rows == source]
                )
            assert [pieces.of_source(source) for source in (0, 2, 6)] == [None] * 3

    def test_merging_keeps_the_order_of_the_pieces(self):
        rows = np.arange(20.0).reshape(10, 2)
        sources_of_rows = np.array([0, 1] * 5)
        halves = [SortedRows.of(rows[s], sources_of_rows[s]) for s in (slice(0, 5), slice(5, 10))]
        whole = merge([*halves, SortedRows.failed(2, "gone")])
        for source in (0, 1):
            np.testing.assert_array_equal(whole.of_source(source), rows[sources_of_rows == source])
        assert whole.errors == {2: "gone"}
        assert len(merge([SortedRows.failed(2, "gone")]).sources) == 0
