"""What is wrong with a partition is its outcome; what is wrong with X is an error before anything runs."""

from __future__ import annotations

import signal
import sys
from functools import partial

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from dask_dfmr import (
    AggregationError,
    GaussianMixture,
    LocalEstimate,
    PartitionError,
    PartitionWarning,
)
from dask_dfmr.on_dask.tasks import guarded
from dask_dfmr.tables import missing_columns
from tests.data_makers import (
    COLUMNS,
    META,
    TRUTH,
    Reader,
    broken,
    constant,
    empty,
    make_array,
    make_ddf,
    make_delayed,
    make_frame,
    make_rows,
    other_unit,
    renamed,
    rolled,
    same_bits,
    short,
    sleeping,
    text,
    with_infinity,
    with_nan,
    write_parquet,
)


def fit(X, **kwargs):
    """Fit without complaints about failed partitions."""
    return GaussianMixture(2, **{"random_state": 0, "on_failed": "ignore"} | kwargs).fit(X)


def fit_with(bad, m=6, **kwargs):
    """The report of the partition to which ``bad`` happens, in the middle of clean ones."""
    gm = fit(make_ddf(m, Reader({2: bad})), **kwargs)
    assert_close_to_truth(gm)
    return gm.partition_report_.loc[2]


def assert_close_to_truth(gm):
    found = gm.mixture_
    np.testing.assert_allclose(found.means, TRUTH.means, atol=0.3)
    np.testing.assert_allclose(found.weights, TRUTH.weights, atol=0.1)


class TestOutcomes:
    """One bad partition among six: named, explained, and without influence."""

    @pytest.mark.parametrize(
        ("bad", "outcome", "reason"),
        [
            (empty, "too few rows", "0 rows, fewer than the 11 that 2 components in 2 columns"),
            (short, "too few rows", "5 rows, fewer than the 11 that 2 components in 2 columns"),
            (broken, "failed", "OSError: the disk is gone"),
            (constant, "degenerate", "'y'"),
            (renamed, "other columns", r"\['x', 'z'\], expected \['x', 'y'\]"),
            (text, "other columns", "'y'"),
            (with_nan, "not finite", r"NaN.* in 'x' \(1 rows\), 'y' \(3 rows\)"),
            (with_infinity, "not finite", r"NaN.* in 'x' \(1 rows\)"),
        ],
        ids=lambda value: getattr(value, "__name__", None),
    )
    def test_no_estimate(self, bad, outcome, reason):
        row = fit_with(bad)
        assert row["outcome"] == outcome
        assert pd.Series([row["reason"]]).str.contains(reason).all(), row["reason"]
        assert not row["kept"]
        assert np.isnan(row["distance"])
        assert np.isnan(row["distance_ratio"])

    @pytest.mark.parametrize("bad", [other_unit, rolled])
    def test_an_estimate_far_away(self, bad):
        row = fit_with(bad)
        assert row["outcome"] == "fitted"
        assert not row["kept"]
        assert row["distance_ratio"] > 1.3
        assert "as sampling explains" in row["reason"]

    def test_data_that_are_no_table(self):
        row = fit_with(lambda frame: frame.x)
        assert row["outcome"] == "other columns"
        assert "Series" in row["reason"]

    def test_a_reader_that_gives_nothing(self):
        assert fit_with(lambda frame: None)["outcome"] == "other columns"

    def test_an_exit_of_the_reader_is_not_swallowed(self):
        with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
            fit(make_ddf(4, Reader({1: interrupt})), init_params="kmeans")

    @pytest.mark.smoke
    def test_all_outcomes_at_once(self):
        bad = [empty, broken, renamed, with_nan, other_unit]
        gm = fit(make_ddf(12, Reader(dict(enumerate(bad)))))
        assert_close_to_truth(gm)
        assert gm.partition_report_["outcome"].tolist()[:6] == [
            *("too few rows", "failed", "other columns", "not finite", "fitted", "fitted")
        ]
        assert not gm.support_[:5].any()

    def test_a_filter_that_leaves_nothing_of_a_partition(self):
        X = make_ddf(6).map_partitions(keep_none_of_the_second, meta=META)
        gm = fit(X)
        assert gm.partition_report_["outcome"].tolist().count("too few rows") == 1

    def test_min_partition_rows(self):
        assert fit_with(short, min_partition_rows=2)["outcome"] == "fitted"
        row = fit_with(lambda frame: frame.iloc[:50], min_partition_rows=51)
        assert (row["outcome"], row["n_samples"]) == ("too few rows", 50)
        assert "fewer than the 51 required by min_rows" in row["reason"]


def interrupt(frame):
    raise KeyboardInterrupt


def keep_none_of_the_second(frame):
    return frame.iloc[:0] if 200 in frame.index else frame


class TestOnFailed:
    X = make_ddf(6, Reader({2: broken, 4: empty}))

    @pytest.mark.smoke
    def test_warn_names_partition_and_reason(self):
        with pytest.warns(PartitionWarning) as caught:
            fit(self.X, on_failed="warn")
        (message,) = {str(w.message) for w in caught}
        assert "2 of 6 partitions" in message
        assert "partition 2: failed, OSError: the disk is gone" in message
        assert "partition 4: too few rows" in message

    def test_warn_names_the_file(self, tmp_path):
        paths = write_parquet(tmp_path, 5)
        X = dd.read_parquet(tmp_path)
        truncate(paths[1])
        with pytest.warns(PartitionWarning, match="part.001.parquet"):
            fit(X, on_failed="warn")

    def test_raise(self):
        gm = GaussianMixture(2, random_state=0, on_failed="raise")
        with pytest.raises(PartitionError, match="partition 2: failed, OSError: the disk is gone"):
            gm.fit(self.X)
        assert len(gm.partition_report_) == 6

    def test_ignore_is_quiet(self):
        fit(self.X, on_failed="ignore")

    def test_partitions_excluded_by_the_filter_are_no_failures(self):
        fit(make_ddf(6, Reader({2: other_unit})), on_failed="raise")

    def test_a_long_error_is_shown_in_short(self):
        with pytest.warns(PartitionWarning) as caught:
            gm = fit(make_ddf(6, Reader({2: with_a_table})), on_failed="warn")
        (message,) = {str(w.message) for w in caught}
        assert "partition 2: failed, ValueError: Mismatched dtypes .... See" in message
        reason = gm.partition_report_.loc[2, "reason"]
        assert reason.startswith("ValueError: Mismatched dtypes\n+-----+")
        assert len(reason) < 1100


def with_a_table(frame):
    raise ValueError("Mismatched dtypes\n" + "+-----+-----+\n" * 500)


class TestTooManyFailures:
    def test_all(self):
        with pytest.raises(AggregationError, match="none of the 4") as caught:
            fit(make_ddf(4, Reader(dict.fromkeys(range(4), broken))))
        report = caught.value.report
        assert isinstance(report, pd.DataFrame)
        assert report["outcome"].tolist() == ["failed"] * 4
        assert report["reason"].str.contains("the disk is gone").all()
        assert not report["kept"].any()

    def test_all_on_a_cluster(self, client):
        with pytest.raises(AggregationError, match="none of the 4") as caught:
            fit(make_ddf(4, Reader(dict.fromkeys(range(4), broken))))
        assert caught.value.report["outcome"].tolist() == ["failed"] * 4

    def test_more_than_half(self):
        X = make_ddf(9, Reader(dict.fromkeys(range(5), broken)))
        with pytest.warns(PartitionWarning, match="only 4 of 9 local estimates are usable"):
            fit(X)

    def test_more_components_than_any_partition_can_bear(self):
        with pytest.raises(AggregationError, match="too few rows: 200 rows, fewer than the 239"):
            GaussianMixture(40).fit(make_ddf(4))

    def test_an_error_leaves_a_fitted_estimator_as_it_was(self, ddf):
        gm = fit(ddf)
        before = gm.mixture_
        with pytest.raises(AggregationError):
            gm.fit(make_ddf(4, Reader(dict.fromkeys(range(4), broken))))
        assert gm.mixture_ is before


def truncate(path):
    with open(path, "r+b") as file:
        file.truncate(100)


def lacking(tmp_path, how):
    """The error of a reader or a selection that does not find the column "width, mm" among others."""
    frame = make_frame().rename(columns={"y": "index"})
    wanted = ["x", "width, mm"]
    frame.to_csv(tmp_path / "one.csv")
    frame.to_parquet(tmp_path / "one.parquet")
    ways = {
        "selection": lambda: frame[wanted],
        "nothing found": lambda: frame[["width, mm"]],
        "column": lambda: frame["width, mm"],
        "csv": lambda: pd.read_csv(tmp_path / "one.csv", usecols=wanted),
        "parquet": lambda: pd.read_parquet(tmp_path / "one.parquet", columns=wanted),
        "arrow": lambda: pq.read_table(tmp_path / "one.parquet").select(wanted),
    }
    with pytest.raises((LookupError, ValueError)) as caught:
        ways[how]()
    return f"{type(caught.value).__name__}: {caught.value}"


class TestMissingColumns:
    @pytest.mark.parametrize(
        "how", ["selection", "nothing found", "column", "csv", "parquet", "arrow"]
    )
    def test_the_error_of_a_reader_names_them(self, tmp_path, how):
        error = lacking(tmp_path, how)
        text = "columns ['width, mm'] are missing, expected ['x', 'index', 'width, mm']"
        for where in ("", "partition 3 (a/b: c.csv): "):
            lead = f"SourceError: {where}" if where else ""
            found = missing_columns(f"{lead}{error}", ["x", "index", "width, mm"])
            assert found == f"{where}{text}"
        assert not missing_columns(error, ["x", "index"])

    @pytest.mark.parametrize("expected", ["1", "3"])
    def test_labels_that_are_numbers(self, expected):
        with pytest.raises(KeyError) as caught:
            pd.DataFrame({0: [1.0], 2: [1.0]})[[0, 1, 2, 3]]
        found = missing_columns(f"KeyError: {caught.value}", ["0", expected, "2"])
        assert found.startswith(f"columns ['{expected}'] are missing")

    @pytest.mark.parametrize(
        "error", ["OSError: 'x'", "ValueError: could not convert string to float: 'x'", ""]
    )
    def test_other_errors_name_none(self, error):
        assert not missing_columns(error, COLUMNS)


class TestFiles:
    @pytest.mark.parametrize("filesystem", ["fsspec", "arrow"])
    def test_truncated_parquet_file(self, tmp_path, filesystem):
        path = write_parquet(tmp_path, 6, n_more_columns=5)[3]
        X = dd.read_parquet(tmp_path, filesystem=filesystem)[COLUMNS]
        truncate(path)
        gm = fit(X)
        report = gm.partition_report_.set_index("source")
        assert report.loc[path, "outcome"] == "failed"
        assert (report["outcome"] == "fitted").sum() == 5
        assert_close_to_truth(gm)

    def test_missing_parquet_file(self, tmp_path):
        path = write_parquet(tmp_path, 6)[3]
        X = dd.read_parquet(tmp_path)
        (tmp_path / "part.003.parquet").unlink()
        row = fit(X).partition_report_.loc[3]
        assert (row["outcome"], row["source"]) == ("failed", path)
        assert "FileNotFoundError" in row["reason"]

    def test_file_of_other_columns(self, tmp_path):
        path = write_parquet(tmp_path, 6)[3]
        X = dd.read_parquet(tmp_path)
        make_frame(3).rename(columns={"y": "z"}).to_parquet(path)
        row = fit(X).partition_report_.loc[3]
        assert (row["outcome"], row["source"]) == ("other columns", path)
        assert row["reason"] == "columns ['y'] are missing, expected ['x', 'y']"

    def test_csv(self, tmp_path):
        for i in range(6):
            make_frame(i).to_csv(tmp_path / f"{i}.csv", index=False)
        X = dd.read_csv(str(tmp_path / "*.csv"))
        (tmp_path / "4.csv").write_text("x,y\n1,oops\n")
        gm = fit(X)
        assert gm.partition_report_.loc[4, "outcome"] in ("failed", "other columns")
        assert "4.csv" in gm.partition_report_.loc[4, "source"]
        assert_close_to_truth(gm)

    def test_arrays_of_files(self, tmp_path):
        paths = [str(tmp_path / f"{i}.npy") for i in range(6)]
        for i, path in enumerate(paths):
            np.save(path, make_rows(i))
        truncate(paths[1])
        report = fit([dask.delayed(np.load)(path) for path in paths]).partition_report_
        assert report["source"].tolist() == paths
        assert report["outcome"].tolist() == ["fitted", "failed"] + ["fitted"] * 4


class TestUpstream:
    """Errors in tasks that several partitions need."""

    def parts(self):
        shared = dask.delayed(raise_value_error)()
        bad = [dask.delayed(pd.concat)([shared, shared]) for _ in range(2)]
        return [*bad, *make_delayed(6)]

    def test_local_scheduler_raises_the_error(self):
        with pytest.raises(ValueError, match="upstream is broken"):
            fit(self.parts())

    def test_cluster_makes_it_an_outcome(self, client):
        gm = fit(self.parts())
        report = gm.partition_report_
        assert report["outcome"].tolist() == ["failed"] * 2 + ["fitted"] * 6
        assert (report["reason"][:2] == "ValueError: upstream is broken").all()
        assert_close_to_truth(gm)

    def test_behind_a_shuffle_on_a_local_scheduler(self):
        X = make_ddf(4, Reader({1: broken})).shuffle("x", shuffle_method="tasks")
        with pytest.raises(OSError, match="the disk is gone"):
            fit(X)

    def test_behind_a_shuffle_on_a_cluster(self, client):
        X = make_ddf(4, Reader({1: broken})).shuffle("x", shuffle_method="tasks")
        with pytest.raises(AggregationError, match="the disk is gone") as caught:
            fit(X)
        assert caught.value.report["outcome"].tolist() == ["failed"] * 4

    def test_behind_a_p2p_shuffle_on_a_cluster(self, client):
        X = make_ddf(4, Reader({1: broken})).shuffle("x", shuffle_method="p2p")
        with pytest.raises(AggregationError, match="none of the 4"):
            fit(X)

    @pytest.mark.parametrize("shuffle_method", ["tasks", "p2p"])
    def test_a_good_shuffle_on_a_cluster(self, client, shuffle_method):
        gm = fit(make_ddf(4).shuffle("x", shuffle_method=shuffle_method), method="mr")
        assert gm.partition_report_["n_samples"].sum() == 800

    def test_a_second_fit_does_not_repeat_the_error_of_the_first(self, client, tmp_path):
        X = [dask.delayed(read_when_there)(str(tmp_path / "flag"), i) for i in range(5)]
        assert fit(X).partition_report_["outcome"].tolist() == ["failed"] + ["fitted"] * 4
        (tmp_path / "flag").touch()
        assert fit(X).partition_report_["outcome"].tolist() == ["fitted"] * 5


def raise_value_error():
    raise ValueError("upstream is broken")


def read_when_there(path, i):
    if i == 0:
        with open(path):
            pass
    return make_frame(i)


class TestNan:
    @pytest.mark.parametrize(("bad", "n_omitted"), [(with_nan, 3), (with_infinity, 1)])
    @pytest.mark.smoke
    def test_omit_counts_rows(self, bad, n_omitted):
        row = fit_with(bad, nan_policy="omit")
        assert (row["outcome"], row["n_omitted"]) == ("fitted", n_omitted)
        assert row["n_samples"] == 200 - n_omitted

    def test_omit_is_the_same_as_leaving_them_out(self):
        omitted = fit(make_ddf(6, Reader({2: with_nan})), nan_policy="omit")
        dropped = fit(make_ddf(6, Reader({2: with_nan})).dropna())
        assert same_bits(omitted.mixture_, dropped.mixture_)

    def test_a_partition_of_nothing_else(self):
        row = fit_with(lambda frame: frame * np.nan, nan_policy="omit")
        assert (row["outcome"], row["n_omitted"]) == ("too few rows", 200)
        assert "200 more hold NaN" in row["reason"]

    def test_missing_values_of_nullable_columns(self):
        row = fit_with(lambda frame: with_nan(frame).convert_dtypes())
        assert row["outcome"] == "not finite"

    def test_columns_without_names(self):
        X = make_array()
        X[250, 1] = np.nan
        reason = fit(X).partition_report_.loc[1, "reason"]
        assert "column 1 (1 rows)" in reason

    def test_every_partition(self):
        X = make_ddf(5, Reader(dict.fromkeys(range(5), with_nan)))
        with pytest.raises(AggregationError, match="nan_policy='omit'"):
            fit(X)
        assert fit(X, nan_policy="omit").partition_report_["n_omitted"].tolist() == [3] * 5


def as_dtypes(*dtypes):
    return lambda frame: frame.astype(dict(zip(COLUMNS, dtypes, strict=True)))


class TestDtypes:
    """The numbers decide, whatever they are stored as."""

    @pytest.mark.parametrize(
        "dtypes",
        [
            ("Float64", "Float64"),
            ("float64", "Float64"),
            ("double[pyarrow]", "double[pyarrow]"),
            ("float64", "double[pyarrow]"),
        ],
    )
    def test_eight_byte_floats(self, dtypes):
        X = make_ddf().astype(dict(zip(COLUMNS, dtypes, strict=True)))
        assert same_bits(fit(X).mixture_, fit(make_ddf()).mixture_)

    def test_float32_is_computed_in_float64(self):
        X = make_ddf().astype("float32")
        gm = fit(X)
        assert gm.means_.dtype == np.float64
        expected = fit(X.astype("float64"))
        np.testing.assert_allclose(gm.means_, expected.means_, rtol=1e-12)

    def test_integers(self):
        X = (make_ddf() * 1000).round().astype({"x": "int32", "y": "Int64"})
        expected = fit((make_ddf() * 1000).round())
        np.testing.assert_allclose(fit(X).means_, expected.means_, rtol=1e-12)

    def test_integers_in_arrays(self):
        X = (make_array() * 1000).round()
        np.testing.assert_allclose(fit(X.astype("int64")).means_, fit(X).means_, rtol=1e-12)

    def test_partitions_of_different_dtypes(self):
        reader = Reader({1: as_dtypes("float32", "Float64"), 2: as_dtypes("Float64", "float64")})
        assert (fit(make_ddf(6, reader)).partition_report_["outcome"] == "fitted").all()

    def test_arrow_frames_of_parquet(self, tmp_path):
        write_parquet(tmp_path, 4)
        X = dd.read_parquet(tmp_path, dtype_backend="pyarrow")
        assert str(X.dtypes["x"]) == "double[pyarrow]"
        assert same_bits(fit(X).mixture_, fit(make_ddf(4)).mixture_)

    def test_big_endian(self):
        X = np.concatenate([make_rows(i) for i in range(4)])
        expected = fit(X, n_partitions=4)
        assert same_bits(fit(X.astype(">f8"), n_partitions=4).mixture_, expected.mixture_)

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_read_only_arrays(self, order):
        parts = [np.array(make_rows(i), order=order) for i in range(4)]
        for part in parts:
            part.setflags(write=False)
        gm = fit([dask.delayed(part) for part in parts])
        np.testing.assert_allclose(gm.means_, fit(make_delayed(4)).means_, rtol=1e-9)

    def test_strided_views(self):
        wide = np.concatenate([np.repeat(make_rows(i), 2, axis=1) for i in range(4)])
        gm = fit(wide[:, ::2], n_partitions=4)
        np.testing.assert_allclose(gm.means_, fit(make_delayed(4)).means_, rtol=1e-9)

    def test_data_are_not_changed(self):
        X = np.concatenate([make_rows(i) for i in range(4)])
        before = X.copy()
        fit(X, n_partitions=4, nan_policy="omit").predict(X)
        np.testing.assert_array_equal(X, before)

    def test_columns_named_by_numbers(self):
        X = make_ddf().rename(columns={"x": 0, "y": 1})
        gm = fit(X)
        assert same_bits(gm.mixture_, fit(make_ddf()).mixture_)
        assert len(gm.predict(X).compute()) == 1200


class TestDelayed:
    def test_unknown_columns(self):
        gm = fit(make_delayed())
        assert gm.feature_names_in_.tolist() == COLUMNS

    def test_one_of_other_columns(self):
        row = fit(make_delayed(6, Reader({2: renamed}))).partition_report_.loc[2]
        assert row["outcome"] in ("other columns", "fitted")
        assert not row["kept"]
        assert "['x', 'z']" in row["reason"]

    def test_one_of_another_width(self):
        row = fit(make_delayed(6, Reader({2: lambda f: f.to_numpy()[:, :1]})))
        row = row.partition_report_.loc[2]
        assert not row["kept"]
        assert "n_features is 1, the majority's is 2" in row["reason"]

    def test_frames_and_arrays(self):
        gm = fit(make_delayed(6, Reader({2: pd.DataFrame.to_numpy})))
        assert gm.partition_report_["outcome"].tolist() == ["fitted"] * 6

    def test_one_that_raises(self):
        row = fit(make_delayed(6, Reader({2: broken}))).partition_report_.loc[2]
        assert (row["outcome"], row["reason"]) == ("failed", "OSError: the disk is gone")

    def test_one_that_raises_in_a_chain(self):
        parts = [dask.delayed(pd.DataFrame.dropna)(p) for p in make_delayed(6, Reader({2: broken}))]
        assert fit(parts).partition_report_["outcome"].tolist().count("failed") == 1

    def test_objects_that_are_already_there(self):
        gm = fit([dask.delayed(make_frame(i)) for i in range(4)])
        assert same_bits(gm.mixture_, fit(make_delayed(4)).mixture_)


class TestMemory:
    X = np.concatenate([make_rows(i) for i in range(6)])

    def test_numpy(self):
        assert same_bits(fit(self.X, n_partitions=6).mixture_, fit(make_array()).mixture_)

    def test_pandas(self):
        frame = pd.DataFrame(self.X, columns=COLUMNS)
        assert same_bits(fit(frame, n_partitions=6).mixture_, fit(make_ddf()).mixture_)

    def test_on_a_client(self, client):
        gm = fit(self.X, n_partitions=6)
        with dask.config.set(scheduler="synchronous"):
            assert same_bits(gm.mixture_, fit(make_array()).mixture_)
        assert gm.partition_report_.loc[5, "source"] == "rows 1000:1200"

    def test_more_partitions_than_rows(self):
        with pytest.raises(AggregationError, match="too few rows"):
            fit(make_rows(n=3), n_partitions=5)

    def test_no_rows(self):
        with pytest.raises(ValueError, match=r"0 sample|too few rows: 0 rows"):
            fit(make_frame().iloc[:0])


class TestNothing:
    def test_an_empty_list(self):
        with pytest.raises(ValueError, match="got an empty list"):
            fit([])

    def test_a_dask_array_without_rows(self):
        with pytest.raises(AggregationError, match="too few rows: 0 rows"):
            fit(da.zeros((0, 2)))


class TestTimeout:
    """A reader that hangs is given up after ``partition_timeout``."""

    def check(self, m=4, **kwargs):
        X = make_ddf(m, Reader({1: sleeping}))
        gm = fit(X, partition_timeout=2, **kwargs)
        row = gm.partition_report_.loc[1]
        assert row["outcome"] == "timed out"
        assert "partition_timeout = 2 seconds" in row["reason"]
        assert (gm.partition_report_["outcome"] == "fitted").sum() == m - 1

    def test_on_threads(self):
        self.check(m=5)

    def test_without_pilots(self):
        self.check(m=5, init_params="kmeans")

    def test_on_a_cluster(self, client):
        self.check(m=5)

    def test_in_words(self):
        assert fit(make_ddf(4), partition_timeout="5 minutes").n_partitions_ == 4

    def test_errors_are_still_outcomes(self):
        gm = fit(make_ddf(6, Reader({1: broken, 2: renamed})), partition_timeout=60)
        outcomes = gm.partition_report_["outcome"].tolist()
        assert outcomes[1:3] == ["failed", "other columns"]


@pytest.mark.filterwarnings("ignore::dask_dfmr.PartitionWarning")
def test_a_text_that_is_no_unicode_costs_no_fit():
    # The names of files are bytes, and Python decodes those that are no UTF-8 to halves of characters.
    def read(i):
        if i == 3:
            raise OSError("no such file: \udcff.csv")
        return make_frame(i)

    with dask.config.set(scheduler="synchronous"):
        gm = GaussianMixture(2, random_state=0).fit([dask.delayed(read)(i) for i in range(6)])
    assert gm.partition_report_["reason"][3] == "OSError: no such file: \\udcff.csv"
    estimate = LocalEstimate(gm.mixture_, 10, source="\udcff.csv")
    assert estimate.source == "\\udcff.csv"


class OfAReaderError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.filterwarnings("ignore::dask_dfmr.PartitionWarning")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(2), "SystemExit: 2"),  # of a reader that was written as a script
        (OfAReaderError(), "OfAReaderError, the text of which raises RuntimeError"),
        (KeyError("c"), "the reader asks for a key or column that is not there: KeyError: 'c'"),
    ],
    ids=["sys.exit", "no text", "no such column"],
)
def test_errors_that_are_no_usual_ones_are_outcomes(error, reason):
    def read(i):
        if i == 3:
            raise error
        return make_frame(i)

    with dask.config.set(scheduler="synchronous"):
        gm = GaussianMixture(2, random_state=0).fit([dask.delayed(read)(i) for i in range(6)])
    assert gm.partition_report_.loc[3, ["outcome", "reason"]].tolist() == ["failed", reason]


class OutOfPatienceError(Exception):
    """Of a program that limits the time of a call with an alarm."""


class Handler:
    def __call__(self, number, frame):
        raise SystemExit(0)


def stop_waiting(number, frame):
    raise OutOfPatienceError


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (lambda number, frame: sys.exit(0), SystemExit),
        (Handler(), SystemExit),
        (partial(lambda code, number, frame: sys.exit(code), 0), SystemExit),
        (stop_waiting, OutOfPatienceError),
    ],
    ids=["function", "object", "partial", "alarm"],
)
def test_an_error_of_a_signal_handler_is_none_of_the_reader(handler, error):
    def read(i):
        if i == 3:
            signal.raise_signal(signal.SIGTERM)
        return make_frame(i)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with dask.config.set(scheduler="synchronous"), pytest.raises(error):
            GaussianMixture(2, random_state=0).fit([dask.delayed(read)(i) for i in range(6)])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("in_reader", "outcome"), [(True, "other columns"), (False, "failed")])
def test_only_errors_of_the_reader_are_about_columns(in_reader, outcome):
    def fail(*rows):
        raise KeyError("['x'] not in index")

    load, use = (fail, len) if in_reader else (list, fail)
    found = guarded(None, load, use, lambda kind, reason, n_rows: (kind.value, reason), ["x", "y"])
    assert found[0] == outcome
    assert ("columns ['x'] are missing" in found[1]) == in_reader
