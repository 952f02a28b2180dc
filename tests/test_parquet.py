"""Parquet files read by columns: the same rows as Dask's own reader, and Dask's own errors."""

from __future__ import annotations

import pickle

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from dask_dfmr.on_dask.parquet import ColumnReader
from dask_dfmr.on_dask.partitions import as_partitions, fold_dataframe

RNG = np.random.default_rng(0)
FLOATS = pd.DataFrame(RNG.normal(size=(60, 3)), columns=["a", "b", "c d"])

PLAIN = {
    "float64": FLOATS,
    "float32": FLOATS.astype("float32"),
    "integers": FLOATS.abs().round().astype({"a": "int64", "b": "int8", "c d": "uint16"}),
    "mixed": FLOATS.assign(n=np.arange(60), x=np.float32(0.5)),
    "infinite and missing": FLOATS.assign(a=[np.nan, np.inf, -np.inf] * 20),
    "nulls": FLOATS.assign(a=pd.array([None, 1.5] * 30, "Float64")).astype({"a": "float64"}),
    "one column": FLOATS[["b"]],
    "no rows": FLOATS.iloc[:0],
    "huge integers": FLOATS.assign(n=np.uint64(2**64 - 1)),
}

OTHERS = {
    "text": FLOATS.assign(name="x"),
    "logical": FLOATS.assign(flag=True),
    "times": FLOATS.assign(when=pd.Timestamp("2026-01-01")),
    "nullable integers": FLOATS.assign(n=pd.array([None, 3] * 30, "Int64")),
}


def write(frame, folder, **options):
    frame.to_parquet(folder / "part.0.parquet", **options)
    frame.to_parquet(folder / "part.1.parquet", **options)
    return str(folder)


def loaded_and_expected(X):
    """The partitions as tasks load them, and as Dask computes them."""
    loaders, _, _ = fold_dataframe(X)
    expected = [X.get_partition(i).compute().reset_index(drop=True) for i in range(X.npartitions)]
    return loaders, [loader() for loader in loaders], expected


def is_by_columns(loader):
    return isinstance(loader.node.func, ColumnReader)


@pytest.mark.filterwarnings("ignore:.*inplace keyword")  # Dask's use of pandas
class TestSameFrames:
    @pytest.mark.parametrize("name", PLAIN)
    def test_of_plain_numbers(self, tmp_path, name):
        loaders, found, expected = loaded_and_expected(
            dd.read_parquet(write(PLAIN[name], tmp_path))
        )
        assert all(map(is_by_columns, loaders))
        for one, other in zip(found, expected, strict=True):
            assert_frame_equal(one, other)

    @pytest.mark.parametrize("name", OTHERS)
    def test_of_anything_else(self, tmp_path, name):
        _, found, expected = loaded_and_expected(dd.read_parquet(write(OTHERS[name], tmp_path)))
        for one, other in zip(found, expected, strict=True):
            assert_frame_equal(one, other)

    @pytest.mark.parametrize(
        "options",
        [
            {"split_row_groups": True},
            {"split_row_groups": 2, "aggregate_files": True},
            {"index": "b"},
            {"index": False},
            {"columns": ["c d", "a"]},
            {"dtype_backend": "pyarrow"},
            {"filters": [("a", ">", 0.0)]},
        ],
        ids=str,
    )
    def test_with_options_of_the_reader(self, tmp_path, options):
        folder = write(FLOATS, tmp_path, row_group_size=25)
        X = dd.read_parquet(folder, **options)
        loaders, found, expected = loaded_and_expected(X)
        assert any(map(is_by_columns, loaders)) == (not {"dtype_backend", "filters"} & set(options))
        for one, other in zip(found, expected, strict=True):
            assert_frame_equal(one.reset_index(drop=True), other)

    def test_of_some_columns(self, tmp_path):
        X = dd.read_parquet(write(OTHERS["text"], tmp_path)).drop(columns=["name"])
        loaders, found, _ = loaded_and_expected(X)
        assert all(map(is_by_columns, loaders))
        assert_frame_equal(found[0], FLOATS)

    def test_of_a_directory_for_each_value(self, tmp_path):
        FLOATS.assign(day=["x", "y"] * 30).to_parquet(tmp_path, partition_cols=["day"])
        X = dd.read_parquet(tmp_path)
        X = X.assign(day=X["day"].astype("category").cat.as_known().cat.codes)
        loaders, found, expected = loaded_and_expected(X)
        assert not any(map(is_by_columns, loaders))
        assert_frame_equal(found[1].reset_index(drop=True), expected[1])

    def test_with_an_index(self, tmp_path):
        frame = FLOATS.set_index(pd.Index(np.arange(60) * 10, name="id"))
        dd.from_pandas(frame, npartitions=2).to_parquet(tmp_path)
        loaders, found, expected = loaded_and_expected(dd.read_parquet(tmp_path))
        assert all(map(is_by_columns, loaders))
        assert_frame_equal(found[1], expected[1])


class TestErrors:
    """They are those of Dask's reader, when the task runs."""

    def test_of_a_damaged_file(self, tmp_path):
        X = dd.read_parquet(write(FLOATS, tmp_path))
        (tmp_path / "part.1.parquet").write_bytes(b"PAR1 no parquet PAR1")
        first, second = as_partitions(X).loaders
        assert len(first()) == 60
        with pytest.raises(Exception, match=r"[Pp]arquet"):
            second()

    def test_of_a_file_that_is_gone(self, tmp_path):
        X = dd.read_parquet(write(FLOATS, tmp_path))
        (tmp_path / "part.1.parquet").unlink()
        with pytest.raises(FileNotFoundError):
            as_partitions(X).loaders[1]()

    @pytest.mark.parametrize("column", ["a", "b"])
    def test_of_a_file_without_a_column(self, tmp_path, column):
        X = dd.read_parquet(write(FLOATS, tmp_path))
        FLOATS.drop(columns=[column]).to_parquet(tmp_path / "part.1.parquet")
        with pytest.raises(KeyError, match=column):
            as_partitions(X).loaders[1]()

    def test_of_a_file_with_another_type(self, tmp_path):
        """Numbers of another type are numbers; text is left to what looks at the frame."""
        X = dd.read_parquet(write(FLOATS, tmp_path))
        FLOATS.astype({"a": "float32"}).to_parquet(tmp_path / "part.0.parquet")
        FLOATS.astype({"a": str}).to_parquet(tmp_path / "part.1.parquet")
        first, second = (loader() for loader in as_partitions(X).loaders)
        assert list(first.dtypes) == ["float32", "float64", "float64"]
        assert second["a"].iloc[0] == str(FLOATS["a"].iloc[0])


def test_a_reader_is_sent_to_other_processes(tmp_path):
    loader = as_partitions(dd.read_parquet(write(FLOATS, tmp_path))).loaders[0]
    assert_frame_equal(pickle.loads(pickle.dumps(loader))(), FLOATS)
