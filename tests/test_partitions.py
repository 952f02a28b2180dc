"""Collections -> one loader per partition: nothing is read, nothing merged, every part has a name."""

from __future__ import annotations

import re

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from dask.delayed import Delayed

from dask_dfmr import FilterWarning, GaussianMixture, dfmr
from dask_dfmr.on_dask.partitions import ColumnsError, as_partitions, rows_of
from tests.data_makers import (
    COLUMNS,
    META,
    CountingReader,
    make_array,
    make_ddf,
    make_delayed,
    make_frame,
    make_rows,
    same_bits,
    write_parquet,
)


def load_all(X, n_partitions=1):
    """Every partition as its loader gives it, by way of the graph that is left."""
    partitions = as_partitions(X, n_partitions)
    parts = []
    for loader in partitions.loaders:
        keys = [ref.key for ref in loader.refs]
        parts.append(loader(*dask.get(partitions.graph, keys)))
    return parts


KINDS = {
    "dask DataFrame": make_ddf,
    "dask Array": make_array,
    "Delayed frames": make_delayed,
    "Delayed arrays": lambda m: make_delayed(m, make_rows),
    "persisted dask DataFrame": lambda m: make_ddf(m).persist(scheduler="synchronous"),
    "persisted dask Array": lambda m: make_array(m).persist(scheduler="synchronous"),
    "persisted Delayed": lambda m: list(dask.persist(*make_delayed(m), scheduler="synchronous")),
    "dask Array of a frame, unknown chunks": lambda m: make_ddf(m).to_dask_array(),
    "dask Array chunked along columns": lambda m: make_array(m).rechunk({1: 1}),
    "sliced dask Array": lambda m: make_array(m + 1)[:-200],
    "tuple of Delayed": lambda m: tuple(make_delayed(m)),
    "dask DataFrame of Delayed": lambda m: dd.from_delayed(make_delayed(m), meta=META),
    "dask DataFrame of Delayed, unchecked": lambda m: dd.from_delayed(
        make_delayed(m), meta=META, verify_meta=False
    ),
}


class TestAsPartitions:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_partition_is_loaded_as_it_is(self, kind):
        parts = load_all(KINDS[kind](3))
        assert len(parts) == 3
        for i, part in enumerate(parts):
            np.testing.assert_array_equal(np.asarray(part), make_rows(i))

    @pytest.mark.parametrize("kind", ["dask DataFrame", "dask Array", "Delayed frames"])
    def test_nothing_is_computed(self, kind, raise_if_dask_computes):
        X = KINDS[kind](3)
        with raise_if_dask_computes():
            assert len(as_partitions(X)) == 3

    @pytest.mark.parametrize("n_partitions", [1, 3, 7])
    def test_data_in_memory_are_cut(self, n_partitions):
        X = make_rows(n=100)
        parts = load_all(X, n_partitions)
        assert len(parts) == n_partitions
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        np.testing.assert_array_equal(np.concatenate(parts), X)

    def test_frame_in_memory_is_cut(self):
        frame = make_frame(n=100)
        pd.testing.assert_frame_equal(pd.concat(load_all(frame, 3)), frame)

    def test_lists_of_numbers_are_data(self):
        (part,) = load_all([[1, 2], [3, 4]])
        np.testing.assert_array_equal(part, [[1, 2], [3, 4]])

    def test_one_delayed_is_one_partition(self):
        assert len(as_partitions(make_delayed(1)[0])) == 1

    def test_column_names(self, ddf):
        assert as_partitions(ddf).feature_names == tuple(COLUMNS)
        assert as_partitions(make_frame()).feature_names == tuple(COLUMNS)
        assert as_partitions(make_array()).feature_names is None

    def test_number_of_columns(self, ddf):
        assert as_partitions(ddf).n_features == 2
        assert as_partitions(make_rows()).n_features == 2
        assert as_partitions(make_delayed()).n_features is None

    def test_a_single_chain_becomes_one_task(self):
        X = make_ddf(3).rename(columns={"x": "a"}) * 2
        partitions = as_partitions(X[X.a > 0])
        assert partitions.graph == {}
        assert all(loader.dependencies == () for loader in partitions.loaders)

    def test_a_chain_of_delayed_becomes_one_task(self):
        parts = [dask.delayed(np.negative)(part) for part in make_delayed(3, make_rows)]
        partitions = as_partitions(parts)
        assert partitions.graph == {}

    def test_what_several_partitions_share_stays_a_task_of_its_own(self):
        shared = dask.delayed(make_rows)(0)
        partitions = as_partitions([shared + 1, shared + 2])
        assert set(partitions.graph) == {shared.key}
        assert all(loader.dependencies == (shared.key,) for loader in partitions.loaders)

    def test_a_partition_that_others_need_stays_a_task_of_its_own(self):
        first = dask.delayed(make_rows)(0)
        parts = load_all([first, first + 1])
        np.testing.assert_array_equal(parts[1], parts[0] + 1)

    def test_the_same_partition_twice_is_two_machines(self):
        part = dask.delayed(make_rows)(0)
        assert len(load_all([part, part])) == 2

    def test_the_result_does_not_depend_on_the_kind_of_collection(self):
        expected = GaussianMixture(2, random_state=0).fit(make_array())
        for kind, make in KINDS.items():
            gm = GaussianMixture(2, random_state=0).fit(make(6))
            assert same_bits(gm.mixture_, expected.mixture_), kind

    def test_shuffled_frame(self, ddf):
        with dask.config.set({"dataframe.shuffle.method": "tasks"}):
            parts = load_all(ddf.shuffle("x"))
        assert sum(map(len, parts)) == len(ddf)


class TestRefusals:
    @pytest.mark.parametrize(
        ("X", "error", "message"),
        [
            (make_rows()[:, 0], ValueError, "Reshape your data"),
            (np.zeros((2, 2, 2)), ValueError, "dim 3"),
            (np.zeros((5, 0)), ValueError, "0 feature"),
            (da.zeros((5, 0)), ValueError, "at least one column"),
            (da.zeros(5), ValueError, "1 dimensions"),
            (META[[]], ValueError, "at least one column"),
            (make_frame().x, TypeError, "to_frame"),
            (make_ddf().x, TypeError, "to_frame"),
            (dask.bag.from_sequence([1]), TypeError, "got a dask Bag"),
            ([], ValueError, "at least one partition"),
            (np.array([["a", "b"]] * 2), ValueError, "numeric"),
            (np.ones((5, 2), dtype=bool), TypeError, "bool"),
            (np.ones((5, 2), dtype="M8[s]"), TypeError, "datetime"),
            (np.ones((5, 2), dtype=complex), ValueError, "[Cc]omplex"),
            (scipy.sparse.eye_array(5, format="csr"), TypeError, "[Ss]parse"),
            (da.ones((5, 2), dtype=bool), TypeError, "bool"),
            (da.ones((5, 2), dtype="M8[s]"), TypeError, "datetime"),
            ("rows.csv", TypeError, r"dask.dataframe.read_csv\('rows.csv'\)"),
            (None, ValueError, "None"),
        ],
    )
    def test_what_is_no_table_of_numbers(self, X, error, message, raise_if_dask_computes):
        with raise_if_dask_computes(), pytest.raises(error, match=message):
            as_partitions(X)

    def test_mixed_list(self):
        with pytest.raises((TypeError, ValueError), match="Delayed"):
            as_partitions([dask.delayed(make_rows)(0), make_rows(1)])

    @pytest.mark.parametrize(
        ("column", "dtype"),
        [
            (pd.Series([True, False]), "bool"),
            (pd.Series([True, None], dtype="boolean"), "boolean"),
            (pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])), "datetime64"),
            (pd.Series(pd.to_timedelta([1, 2], unit="s")), "timedelta64"),
            (pd.Series(["a", "b"], dtype="category"), "category"),
            (pd.Series([1, 2], dtype="category"), "category"),
            (pd.Series(["a", "b"]), "str"),
            (pd.Series(["a", 1], dtype=object), "object"),
            (pd.Series([1j, 2]), "complex"),
        ],
    )
    def test_columns_that_are_no_real_numbers_are_named(
        self, column, dtype, raise_if_dask_computes
    ):
        frame = pd.DataFrame({"good": [1.0, 2.0], "bad": column})
        with dask.config.set({"dataframe.convert-string": False}):
            X = dd.from_pandas(frame, npartitions=1)
        for data in (frame, X):
            with raise_if_dask_computes(), pytest.raises(TypeError, match=r"'bad' \(") as caught:
                as_partitions(data)
            assert dtype in str(caught.value)
            assert "X[['good']]" in str(caught.value)
            assert "'good' (" not in str(caught.value)

    def test_two_columns_of_one_name(self):
        frame = make_frame().set_axis(["x", "x"], axis=1)
        with pytest.raises(ValueError, match="different names"):
            as_partitions(frame)

    def test_columns_whose_names_are_numbers(self):
        frame = make_frame().set_axis([0, 1], axis=1)
        assert as_partitions(frame).feature_names == ("0", "1")


class TestSources:
    @pytest.mark.parametrize("filesystem", ["fsspec", "arrow"])
    @pytest.mark.parametrize("n_more_columns", [0, 2])
    def test_parquet_files(self, tmp_path, filesystem, n_more_columns):
        paths = write_parquet(tmp_path, 4, n_more_columns)
        partitions = as_partitions(dd.read_parquet(tmp_path, filesystem=filesystem)[COLUMNS])
        assert sorted(partitions.sources) == paths
        for loader, source in zip(partitions.loaders, partitions.sources, strict=True):
            expected = pd.read_parquet(source)[COLUMNS].to_numpy()
            np.testing.assert_array_equal(loader().to_numpy(), expected)

    def test_csv_files(self, tmp_path):
        paths = [str(tmp_path / f"part{i}.csv") for i in range(3)]
        for i, path in enumerate(paths):
            make_frame(i).to_csv(path, index=False)
        sources = as_partitions(dd.read_csv(paths)).sources
        for path, source in zip(paths, sources, strict=True):
            assert path in source

    def test_paths_in_the_arguments_of_delayed(self):
        parts = [dask.delayed(np.load)(f"/data/{i}.npy") for i in range(2)]
        assert as_partitions(parts).sources == ["/data/0.npy", "/data/1.npy"]

    def test_files_of_concatenated_frames(self, tmp_path):
        for i in range(2):
            make_frame(i).to_csv(tmp_path / f"{i}.csv", index=False)
        parts = [dd.read_csv(tmp_path / f"{i}.csv") for i in range(2)]
        found = as_partitions(dd.concat(parts))
        assert found.sources == [str(tmp_path / f"{i}.csv") for i in range(2)]
        assert all(loader.node is not None for loader in found.loaders), "a failure is an outcome"

    def test_rows_of_arrays(self):
        assert as_partitions(make_array(2)).sources == ["rows 0:200", "rows 200:400"]
        assert as_partitions(make_rows(), 2).sources == ["rows 0:100", "rows 100:200"]

    def test_index_of_frames_with_divisions(self):
        X = dd.from_pandas(make_frame(), npartitions=2)
        assert as_partitions(X).sources == ["index 0 to 100", "index 100 to 199"]

    def test_unknown(self, ddf):
        assert as_partitions(ddf).sources == [None] * 6
        assert as_partitions(ddf.to_dask_array()).sources == [None] * 6

    def test_strings_that_are_no_files(self, tmp_path):
        X = make_ddf(2).query("x / y > -1e9").rename(columns={"x": "m/s"})
        assert as_partitions(X).sources == [None, None]


class TestMachines:
    """A partition is a machine: Dask may not merge any."""

    @pytest.mark.parametrize("filesystem", ["fsspec", "arrow"])
    def test_a_projection_of_parquet_keeps_their_number(self, tmp_path, filesystem):
        write_parquet(tmp_path, 6, n_more_columns=30)
        X = dd.read_parquet(tmp_path, filesystem=filesystem)[COLUMNS] * 2
        assert X.npartitions == 6
        assert X.optimize().npartitions < 6, "dask no longer merges partitions: is this test moot?"
        gm = GaussianMixture(2, random_state=0).fit(X)
        assert gm.n_partitions_ == len(gm.partition_report_) == 6
        assert len(dfmr(GaussianMixture(2), X).compute().decision.kept) == 6

    def test_a_projection_of_from_map_keeps_their_number(self):
        X = dd.from_map(wide_frame, range(6), meta=wide_frame(0).iloc[:0])[COLUMNS]
        assert len(as_partitions(X)) == X.npartitions == 6

    def test_a_filter_keeps_their_number(self, ddf):
        assert len(as_partitions(ddf[ddf.x > 1e9])) == 6


@pytest.mark.smoke
class TestReading:
    def test_each_partition_once_and_pilots_twice(self, tmp_path):
        reader = CountingReader(tmp_path)
        GaussianMixture(2, random_state=0).fit(make_ddf(20, reader))
        counts = list(reader.count().values())
        assert len(counts) == 20
        assert counts.count(2) == 16
        assert counts.count(1) == 4

    def test_each_partition_once_without_pilots(self, tmp_path):
        reader = CountingReader(tmp_path)
        GaussianMixture(2, init_params="kmeans", random_state=0).fit(make_ddf(5, reader))
        assert reader.count() == dict.fromkeys(range(5), 1)

    def test_delayed_are_read_as_often(self, tmp_path):
        reader = CountingReader(tmp_path)
        GaussianMixture(2, init_params="kmeans").fit(make_delayed(5, reader))
        assert reader.count() == dict.fromkeys(range(5), 1)

    def test_persisted_partitions_are_not_read_again(self, tmp_path):
        reader = CountingReader(tmp_path)
        X = make_ddf(5, reader).persist(scheduler="synchronous")
        GaussianMixture(2, random_state=0).fit(X)
        assert reader.count() == dict.fromkeys(range(5), 1)

    def test_on_a_cluster_as_well(self, tmp_path, client):
        reader = CountingReader(tmp_path)
        GaussianMixture(2, random_state=0).fit(make_ddf(5, reader))
        assert reader.count() == dict.fromkeys(range(5), 2)


@pytest.mark.smoke
class TestRowsOf:
    @pytest.mark.parametrize(
        "dtype", ["float32", "int16", "Int64", "Float64", "Float32", "UInt8", "double[pyarrow]"]
    )
    def test_dtypes_of_columns(self, dtype):
        frame = pd.DataFrame({"x": [1, 2, 3], "y": [4.0, 5.0, 6.0]}).astype({"x": dtype})
        rows, names = rows_of(frame, None)
        assert names == ("x", "y")
        assert rows.dtype.kind == "f"
        np.testing.assert_array_equal(rows, [[1, 4], [2, 5], [3, 6]])

    @pytest.mark.parametrize("dtype", ["Int64", "Float64", "double[pyarrow]", "int64[pyarrow]"])
    def test_missing_values_become_nan(self, dtype):
        frame = pd.DataFrame({"x": pd.Series([1, None], dtype=dtype), "y": [1.0, 2.0]})
        rows, _ = rows_of(frame, None)
        assert rows.dtype == np.float64
        np.testing.assert_array_equal(rows, [[1, 1], [np.nan, 2]])

    def test_large_integers_and_floats_together(self):
        frame = pd.DataFrame({"x": pd.Series([2**40], dtype="int64"), "y": np.float32([0.5])})
        rows, _ = rows_of(frame, None)
        np.testing.assert_array_equal(rows, [[2.0**40, 0.5]])

    def test_other_columns(self):
        with pytest.raises(ColumnsError, match=r"\['x', 'y'\], expected \['x', 'z'\]"):
            rows_of(make_frame(), ("x", "z"))

    def test_other_order_is_matched_by_name(self):
        rows, names = rows_of(make_frame()[["y", "x"]], tuple(COLUMNS))
        np.testing.assert_array_equal(rows, make_rows())
        assert names == ("x", "y")

    def test_no_numbers(self):
        with pytest.raises(ColumnsError, match="'y'"):
            rows_of(make_frame().assign(y="a"), tuple(COLUMNS))

    @pytest.mark.parametrize("data", [np.zeros(3), np.array([["a"]]), None, {"x": [1]}])
    def test_no_table(self, data):
        with pytest.raises(ColumnsError, match="rows of real numbers"):
            rows_of(data, None)


def wide_frame(i, columns=None):
    frame = make_frame(i)
    for j in range(30):
        frame[f"more{j}"] = float(j)
    return frame if columns is None else frame[columns]


def test_as_partitions_leaves_the_input_alone():
    parts = make_delayed(2)
    before = [dict(part.dask) for part in parts]
    as_partitions(parts)
    assert [dict(part.dask) for part in parts] == before
    assert all(isinstance(part, Delayed) for part in parts)


class TestMergedPartitions:
    """Dask merges parquet partitions when it persists or converts a frame of few of the columns."""

    @pytest.fixture
    def few_columns(self, tmp_path):
        return dd.read_parquet(write_parquet(tmp_path, 12, n_more_columns=28))[["x", "y"]] * 1.0

    @pytest.mark.parametrize(
        "change",
        [
            lambda X: X.persist(),
            lambda X: X.persist() + 1.0,
            lambda X: X.optimize(),
            lambda X: X.to_delayed(),
            lambda X: X.to_dask_array(),
            lambda X: X.values.persist(),
        ],
    )
    @pytest.mark.filterwarnings("ignore:3 usable estimates")
    def test_a_fit_says_so_and_the_remedy_works(self, few_columns, change):
        gm = GaussianMixture(1, random_state=0, check_optimum=None)
        with pytest.warns(
            FilterWarning, match="Dask may have merged parquet files: X has"
        ) as caught:
            gm.fit(change(few_columns))
        assert gm.n_partitions_ < 12
        setting = next(str(w.message) for w in caught if "merged" in str(w.message))
        with dask.config.set(eval(re.search(r"dask\.config\.set\((.*?)\)", setting)[1])):
            gm.fit(change(few_columns))
        assert gm.n_partitions_ == 12

    def test_a_frame_that_is_read_by_the_fit_is_not_merged(self, few_columns):
        assert GaussianMixture(1, random_state=0).fit(few_columns).n_partitions_ == 12

    @pytest.mark.parametrize(
        "make",
        [make_ddf(6).persist, make_array(6).persist, lambda: make_ddf(6).to_delayed()],
    )
    def test_other_data_are_not_suspected(self, make):
        with dask.config.set(scheduler="synchronous"):
            assert not as_partitions(make()).may_be_merged

    def test_reading_alone_merges_nothing(self, tmp_path):
        X = dd.read_parquet(write_parquet(tmp_path, 6, n_more_columns=28))
        assert not as_partitions(X.persist()).may_be_merged
        assert len(as_partitions(X.persist())) == 6

    def test_without_a_filter_nothing_is_said(self, few_columns):
        GaussianMixture(1, method="mr", random_state=0, check_optimum=None).fit(
            few_columns.persist()
        )
