"""What comes in: masked cells, names of any library, lists, paths, columns without values, a single partition.

Every error says what to call, and what it says works.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dask_dfmr import (
    AggregationError,
    FilterWarning,
    GaussianMixture,
    Mixture,
    PartitionWarning,
    dfmr,
    fit_local,
    select_components,
)
from tests.data_makers import (
    COLUMNS,
    TRUTH,
    Reader,
    make_array,
    make_ddf,
    make_delayed,
    make_frame,
    make_rows,
    same_bits,
    with_nan,
)

pa = pytest.importorskip("pyarrow")

M = 6
FILL = -9999.0
METHODS = ("predict", "predict_proba", "score_samples")


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def gm():
    with dask.config.set(scheduler="synchronous"):
        return make().fit(make_ddf())


def make(n_components=2, **kwargs):
    return GaussianMixture(n_components, **{"random_state": 0} | kwargs)


def all_rows():
    return np.concatenate([make_rows(i) for i in range(M)])


def as_arrow(frame):
    return pa.table({name: frame[name].to_numpy() for name in frame})


# -- masked cells ----------------------------------------------------------------------------------


def masked(seed=0):
    """Rows of a partition, every tenth with a masked cell and a fill value under the mask."""
    rows = make_rows(seed)
    rows[::10, 0] = FILL
    return np.ma.masked_equal(rows, FILL)


def holed(seed=0):
    """The same rows with NaN."""
    return masked(seed).filled(np.nan)


def masked_dask():
    return da.concatenate([da.from_array(masked(i), chunks=(200, 2)) for i in range(M)])


MASKED = {
    "NumPy": (lambda: np.ma.concatenate([masked(i) for i in range(M)]), {"n_partitions": M}),
    "Dask": (masked_dask, {}),
    "Delayed": (lambda: make_delayed(M, masked), {}),
    "list": (lambda: [masked(i) for i in range(M)], {}),
}


@pytest.mark.parametrize("kind", MASKED)
class TestMasked:
    """A masked cell is a missing one: the same bits as with NaN in its place."""

    def test_omitted(self, kind):
        make_masked, more = MASKED[kind]
        found = make(nan_policy="omit", **more).fit(make_masked())
        expected = make(nan_policy="omit").fit(make_delayed(M, holed))
        assert same_bits(found.mixture_, expected.mixture_)
        assert found.partition_report_["n_omitted"].tolist() == [20] * M

    def test_not_finite(self, kind):
        make_masked, more = MASKED[kind]
        with pytest.raises(AggregationError, match="not finite"):
            make(**more).fit(make_masked())

    def test_predictions(self, kind):
        gm = make().fit(make_array())
        X = MASKED[kind][0]()
        gm.set_params(nan_policy="omit")
        labels, scores = dask.compute(gm.predict(X), gm.score_samples(X))
        labels, scores = (np.concatenate(v) if isinstance(v, list) else v for v in (labels, scores))
        assert (labels[::10] == -1).all()
        assert np.isnan(scores[::10]).all()
        assert np.isfinite(scores).sum() == 0.9 * len(scores)


class TestMaskedElsewhere:
    def test_local_fit(self):
        found = fit_local(masked(), 2, nan_policy="omit", random_state=0)
        assert found.n_omitted == 20
        assert same_bits(
            found.mixture, fit_local(holed(), 2, nan_policy="omit", random_state=0).mixture
        )

    def test_integers(self):
        whole = np.ma.masked_equal(np.where(np.arange(400).reshape(-1, 2) == 6, -1, 5), -1)
        assert fit_local(whole, 1, nan_policy="omit").n_omitted == 1

    def test_nothing_masked(self):
        rows = np.ma.masked_array(make_rows())
        assert same_bits(
            fit_local(rows, 2, random_state=0).mixture,
            fit_local(make_rows(), 2, random_state=0).mixture,
        )

    def test_mixture(self):
        with pytest.raises(ValueError, match="row 0 is the first with NaN"):
            TRUTH.predict(masked())

    def test_parameters(self):
        with pytest.raises(ValueError, match="means must be finite"):
            Mixture([1.0], np.ma.masked_equal([[1.0, FILL]], FILL), [np.eye(2)])


# -- names -----------------------------------------------------------------------------------------


def as_polars(frame):
    import polars as pl

    return pl.DataFrame(dict(frame))


def select_from(frame, names):
    return frame[names] if isinstance(frame, pd.DataFrame) else frame.select(names)


CONVERT = {"pandas": lambda frame: frame, "Arrow": as_arrow}
if importlib.util.find_spec("polars"):
    CONVERT["Polars"] = as_polars
FRAMES = {name: (convert(make_frame()), select_from) for name, convert in CONVERT.items()}


@pytest.mark.parametrize("library", FRAMES)
class TestNames:
    """A mixture and an estimator check the names, and take them from a frame of any library."""

    @pytest.mark.parametrize("method", [*METHODS, "score"])
    def test_right(self, gm, library, method):
        frame, _ = FRAMES[library]
        wanted = getattr(TRUTH, method)(make_rows())
        np.testing.assert_allclose(getattr(TRUTH, method)(frame), wanted, rtol=1e-12)
        np.testing.assert_allclose(
            getattr(gm, method)(frame), getattr(gm.mixture_, method)(make_rows()), rtol=1e-12
        )

    @pytest.mark.parametrize("method", [*METHODS, "score"])
    def test_other_order(self, gm, library, method):
        frame, select = FRAMES[library]
        X = select(frame, ["y", "x"])
        for model in (gm, gm.mixture_):
            with pytest.raises(ValueError, match="order") as caught:
                getattr(model, method)(X)
        remedy = re.search(r"Select them: (X.*)\.$", str(caught.value))[1]
        right = eval(remedy, {"X": X})
        getattr(gm.mixture_, method)(right)

    def test_missing_and_renamed(self, gm, library):
        frame, select = FRAMES[library]
        for model in (gm, gm.mixture_):
            with pytest.raises(ValueError, match="missing") as caught:
                model.predict(select(frame, ["x"]))
            assert "X[" not in str(caught.value)

    def test_local_fit_keeps_them(self, library):
        frame, _ = FRAMES[library]
        found = fit_local(frame, 2, random_state=0)
        assert found.mixture.feature_names == ("x", "y")
        assert same_bits(found.mixture, fit_local(make_rows(), 2, random_state=0).mixture)

    def test_fit_keeps_them(self, library):
        frame, _ = FRAMES[library]
        found = make(n_partitions=4).fit(frame)
        assert found.feature_names_in_.tolist() == COLUMNS
        assert same_bits(found.mixture_, make(n_partitions=4).fit(make_rows()).mixture_)

    def test_delayed(self, library):
        convert = CONVERT[library]
        parts = [dask.delayed(convert)(make_frame(i)) for i in range(4)]
        found = make().fit(parts)
        assert found.feature_names_in_.tolist() == COLUMNS
        (labels, *_) = dask.compute(*found.predict(parts))
        np.testing.assert_array_equal(labels, found.mixture_.predict(make_rows()))


def test_nulls_of_arrow_are_missing():
    table = pa.table({"x": [1.0, None, 3.0], "y": [1, 2, None], "z": pa.nulls(3)})
    found = fit_local(table, 1, nan_policy="omit", min_rows=1)
    assert found.n_omitted == 3


@pytest.mark.parametrize("labels", [[0, 1], [("a", "x"), ("a", "y")], ["x", "y"]])
class TestRemedies:
    """What an error advises can be copied."""

    def frame(self, labels):
        is_tuple = isinstance(labels[0], tuple)
        return make_frame().set_axis(
            pd.MultiIndex.from_tuples(labels) if is_tuple else labels, axis=1
        )

    def selected(self, error, frame):
        columns = ast.literal_eval(re.search(r"X\[(\[.*?\])\]", str(error))[1])
        return frame[columns]

    def test_other_order(self, labels):
        frame = self.frame(labels)
        gm = make(n_partitions=4).fit(frame)
        X = frame.iloc[:, ::-1]
        lazy = dd.from_pandas(X, npartitions=2)
        models = [(gm, lazy), (gm.mixture_, X)] + ([(gm, X)] if labels != ["x", "y"] else [])
        for model, data in models:
            with pytest.raises(ValueError, match="order differs") as caught:
                model.predict(data)
            right = self.selected(caught.value, X)
            np.testing.assert_array_equal(gm.predict(right), gm.mixture_.predict(make_rows()))

    def test_numeric_columns(self, labels):
        frame = self.frame(labels)
        frame.isetitem(1, frame.iloc[:, 1].astype(str))
        with pytest.raises(TypeError, match="numeric columns") as caught:
            make(1).fit(dd.from_pandas(frame, npartitions=2))
        assert self.selected(caught.value, frame).shape == (200, 1)

    def test_no_numeric_column(self, labels):
        frame = self.frame(labels).astype(str)
        with pytest.raises(TypeError, match="Convert") as caught:
            make(1).fit(frame)
        assert "X[[" not in str(caught.value)
        types = re.search(r"X\.astype\((\{.*?\})\)", str(caught.value))[1]
        right = frame.astype(eval(types))
        make(1, n_partitions=4).fit(right)


def test_the_source_stays_in_the_selection():
    frame = make_frame().assign(text="a", day=np.arange(200) // 50)
    with pytest.raises(TypeError, match=r"X\[\['x', 'y', 'day'\]\]"):
        make(source="day").fit(frame)


class TestDelayedInAnotherOrder:
    """Names are known after the read only: columns are matched by name then, or what differs is said."""

    def parts(self, n_other, change=lambda frame: frame[["y", "x"]]):
        def reader(i):
            frame = make_frame(i)
            return change(frame) if i < n_other else frame

        return make_delayed(M, reader)

    @pytest.mark.parametrize("n_other", [2, 3])
    def test_matched_by_name(self, n_other):
        gm = make().fit(self.parts(n_other))
        assert gm.support_.all()
        assert (gm.partition_report_["outcome"] == "fitted").all()
        expected = make().fit(make_delayed(M)).mixture_
        order = [gm.feature_names_in_.tolist().index(name) for name in COLUMNS]
        np.testing.assert_allclose(gm.means_[:, order], expected.means, atol=1e-2)

    def test_only_those_are_read_again(self):
        n_reads = dict.fromkeys(range(M), 0)

        def reader(i):
            n_reads[i] += 1
            return make_frame(i)[["y", "x"]] if i < 2 else make_frame(i)

        make(init_params="kmeans", check_optimum=None, refit_excluded=False).fit(
            make_delayed(M, reader)
        )
        assert list(n_reads.values()) == [2, 2, 1, 1, 1, 1]

    def test_said_without_estimates(self):
        with pytest.warns(PartitionWarning, match="2 of 6 partitions.*other columns") as caught:
            gm = make(keep_estimates=False).fit(self.parts(2))
        assert "part[['x', 'y']]" in str(caught[0].message)
        assert gm.partition_report_["outcome"].tolist()[:2] == ["other columns"] * 2

    def test_the_remedy_works(self):
        X = [part[["x", "y"]] for part in self.parts(2)]
        assert make(keep_estimates=False).fit(X).support_.all()

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda frame: frame.assign(z=frame.x**2).to_numpy(), "n_features is 3"),
            (lambda frame: frame.rename(columns={"y": "z"}), r"columns are \['x', 'z'\]"),
        ],
    )
    def test_other_columns_are_said(self, change, reason):
        with pytest.warns(PartitionWarning, match=f"2 of 6 partitions.*{reason}"):
            gm = make().fit(self.parts(2, change))
        assert gm.partition_report_["outcome"].tolist()[:2] == ["other columns"] * 2

    def test_later_passes_match_by_name(self):
        X = self.parts(2)
        gm = make().fit(X)
        right = make_delayed(M)
        np.testing.assert_array_equal(gm.predict(X)[0].compute(), gm.predict(right)[0].compute())
        new = dask.delayed(make_frame)(9)[["y", "x"]]
        assert gm.update([new]).support_.all()

    def test_a_start_with_names_matches_by_name(self):
        X = self.parts(2, lambda frame: frame[["y", "x"]])
        found = make(init_params=TRUTH).fit(X)
        expected = make(init_params=TRUTH).fit(make_delayed(M))
        assert same_bits(found.mixture_, expected.mixture_)

    def test_a_frame_of_dask_matches_by_name(self):
        X = make_ddf(M, Reader({1: lambda frame: frame[["y", "x"]]}))
        assert same_bits(make().fit(X).mixture_, make().fit(make_ddf(M)).mixture_)


@pytest.mark.parametrize("given", ["start", "warm"])
def test_a_start_has_the_columns_of_x(given):
    gm = make(init_params=TRUTH) if given == "start" else make(warm_start=True).fit(make_ddf())
    with pytest.raises(ValueError, match="the order differs"):
        gm.fit(make_ddf()[["y", "x"]])


def test_a_local_start_has_the_columns_of_x():
    for more in ({"start": TRUTH}, {"feature_names": COLUMNS}):
        with pytest.raises(ValueError, match="the order differs"):
            fit_local(make_frame()[["y", "x"]], 2, **more)


def test_an_array_gets_no_names_from_a_start():
    gm = make(init_params=TRUTH).fit(make_array())
    assert not hasattr(gm, "feature_names_in_")
    gm.predict(make_rows())


def test_warm_start_of_another_width():
    gm = make(warm_start=True).fit(make_array())
    with pytest.raises(AggregationError, match="other columns: 3 columns, but the start has 2"):
        gm.fit(make_delayed(M, lambda i: np.ones((200, 3))))


# -- partitions, one or many -----------------------------------------------------------------------


class Labelled:
    """What is used of an xarray.DataArray: dimensions, and an array of Dask."""

    def __init__(self, data):
        self.data, self.dims = data, ("row", "column")

    def __dask_graph__(self):
        return self.data.__dask_graph__()


class TestLabelledArrays:
    def test_chunks_are_partitions(self):
        found = make().fit(Labelled(make_array()))
        assert found.n_partitions_ == M
        assert same_bits(found.mixture_, make().fit(make_array()).mixture_)

    @pytest.mark.parametrize("method", METHODS)
    def test_predictions(self, method):
        gm = make().fit(make_array())
        da.utils.assert_eq(
            getattr(gm, method)(Labelled(make_array())), getattr(gm, method)(make_array())
        )

    def test_of_xarray(self):
        xarray = pytest.importorskip("xarray")
        X = xarray.DataArray(make_array(), dims=("row", "column"))
        assert make().fit(X).n_partitions_ == M
        with pytest.raises(TypeError, match="to_dask_dataframe"):
            make().fit(X.to_dataset(dim="column"))


class TestOnePartition:
    """Where a filter was to be expected, it is said once that there is none, and how to get one."""

    @pytest.mark.parametrize(
        ("X", "remedy"),
        [
            (pd.DataFrame(all_rows()), "n_partitions=8"),
            (all_rows(), "n_partitions=8"),
            (dd.from_pandas(pd.DataFrame(all_rows()), npartitions=1), "X.repartition"),
            (make_array().rechunk(-1), "X.rechunk"),
            ([dask.delayed(all_rows)()], "a list"),
            ([all_rows()], "a list"),
        ],
    )
    def test_said(self, X, remedy):
        with pytest.warns(FilterWarning, match="X is one partition") as caught:
            make().fit(X)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert remedy in str(caught[0].message)
        for call in (lambda: dfmr(make(), X), lambda: select_components(make(), X, [1, 2])):
            with pytest.warns(FilterWarning, match="X is one partition") as caught:
                call()
            assert caught[0].filename == __file__

    @pytest.mark.parametrize(
        "divided",
        [
            lambda: dd.from_pandas(make_frame(), npartitions=1).repartition(npartitions=8),
            lambda: (lambda X: X.rechunk({0: -(-len(X) // 8)}))(make_array(1)),
        ],
    )
    def test_the_remedy_works(self, divided):
        assert make(1).fit(divided()).n_partitions_ == 8

    def test_a_transformer_computes(self):
        with pytest.warns(FilterWarning, match="X is one partition"):
            make_pipeline(StandardScaler(), make()).fit(make_ddf())
        pipe = make_pipeline(StandardScaler(), make(n_partitions=8)).fit(make_ddf())
        assert pipe[-1].n_partitions_ == 8

    def test_not_where_none_is_expected(self):
        make(method="mr").fit(all_rows())
        make().fit(make_rows())  # too few rows to divide
        gm = make().fit(make_array())
        gm.update(make_rows(9)[:150])


class TestLists:
    @pytest.mark.parametrize(
        "kind",
        [make_frame, make_rows, lambda i: as_arrow(make_frame(i))],
        ids=["frames", "arrays", "tables"],
    )
    def test_in_memory_are_partitions(self, kind):
        X = [kind(i) for i in range(M)]
        found = make().fit(X)
        assert found.n_partitions_ == M
        assert same_bits(found.mixture_, make().fit(make_array()).mixture_)
        labels = found.predict(X)
        for i in range(M):
            np.testing.assert_array_equal(labels[i], found.mixture_.predict(make_rows(i)))
        assert found.score(X) == pytest.approx(found.score(make_array()), rel=1e-9)

    def test_columns_are_matched_by_name(self):
        X = [make_frame(i)[["y", "x"]] if i == 0 else make_frame(i) for i in range(M)]
        assert same_bits(make().fit(X).mixture_, make().fit(make_array()).mixture_)

    def test_other_columns_are_an_outcome(self):
        X = [make_frame(i).rename(columns={"y": "z"} if i == 0 else {}) for i in range(M)]
        with pytest.warns(PartitionWarning, match="other columns"):
            gm = make().fit(X)
        assert gm.support_.tolist() == [False] + [True] * (M - 1)

    def test_missing_columns_are_named(self):
        X = [make_frame(i)[["y"]] if i == 0 else make_frame(i) for i in range(M)]
        for parts in (X, [dask.delayed(part) for part in X]):
            with pytest.warns(PartitionWarning, match=r"columns are \['y'\], .*\['x', 'y'\]"):
                make().fit(parts)

    def test_what_is_wrong_in_one_of_them_is_said_of_this_one(self):
        text = make_frame(0).astype({"x": str})
        X = [text, *map(make_frame, range(1, M))]
        with pytest.warns(PartitionWarning, match="got 'x' .* in this partition") as said:
            make().fit(X)
        assert "X[" not in str(said[0].message)
        assert "X." not in str(said[0].message)

    def test_empty(self, gm):
        for call in (make().fit, gm.predict, gm.score):
            with pytest.raises(ValueError, match="at least one partition; got an empty list"):
                call([])

    def test_futures(self, client):
        futures = client.map(make_rows, range(M))
        gm = make().fit(futures)
        assert same_bits(gm.mixture_, make().fit(make_array()).mixture_)
        labels = dask.compute(*gm.predict(futures))
        np.testing.assert_array_equal(labels[1], gm.mixture_.predict(make_rows(1)))

    @pytest.mark.parametrize(
        ("X", "remedy"),
        [
            ([make_ddf(2), make_ddf(2)], "dask.dataframe.concat(X)"),
            ([make_array(2), make_array(2)], "dask.array.concatenate(X)"),
            ([dask.delayed(make_rows)(0), make_rows(1)], "[dask.delayed(part) for part in X]"),
        ],
    )
    def test_mixed_ones_are_told_how(self, gm, X, remedy, raise_if_dask_computes):
        for call in (make().fit, gm.predict):
            with raise_if_dask_computes(), pytest.raises(TypeError) as caught:
                call(X)
            assert remedy in str(caught.value)
        joined = eval(remedy, {"X": X, "dask": dask})
        assert dask.is_dask_collection(joined) or isinstance(joined, list)


class TestNoTables:
    """Refused before anything is computed, by ``fit`` and by predictions alike, with the call that helps."""

    @pytest.mark.parametrize(
        ("X", "remedy"),
        [
            ("rows.parquet", "dask.dataframe.read_parquet('rows.parquet')"),
            (Path("rows.csv"), "dask.dataframe.read_csv('rows.csv')"),
            (["a.parquet", "b.parquet"], "dask.dataframe.read_parquet(['a.parquet', 'b.parquet'])"),
            ("rows.npy", "numpy.load('rows.npy')"),
            ("s3://bucket/rows", "dask.dataframe.read_parquet('s3://bucket/rows')"),
            (make_ddf().x, "X.to_frame()"),
            (make_frame().x, "X.to_frame()"),
            (as_arrow(make_frame())["x"], "pyarrow.table({'x': X})"),
            (dask.bag.from_sequence([1]), "X.to_dataframe()"),
        ],
    )
    def test_refused(self, gm, X, remedy, raise_if_dask_computes):
        for call in (make().fit, gm.predict, gm.score_samples, gm.score):
            with raise_if_dask_computes(), pytest.raises(TypeError) as caught:
                call(X)
            assert remedy in str(caught.value)

    def test_lazy_frames_of_polars(self, gm):
        pl = pytest.importorskip("polars")
        lazy = pl.DataFrame(dict(make_frame())).lazy()
        for call in (make().fit, gm.predict, gm.mixture_.predict, lambda X: fit_local(X, 2)):
            with pytest.raises(TypeError, match=r"X\.collect\(\)"):
                call(lazy)


# -- rows and columns without values ---------------------------------------------------------------


@pytest.fixture(scope="module")
def omitting():
    with dask.config.set(scheduler="synchronous"):
        return make(nan_policy="omit").fit(make_ddf(M, Reader({1: with_nan})))


class TestOmitted:
    """With nan_policy="omit" predictions have a missing value in the place of a row that the fit omits."""

    def holes(self):
        return np.isnan(with_nan(make_frame(1)).to_numpy()).any(axis=1)

    def test_frames(self, omitting):
        X = make_ddf(M, Reader({1: with_nan}))
        labels = omitting.predict(X)
        assert labels.dtype == "Int64"
        labels = labels.compute()
        assert labels.dtype == "Int64"
        missing = np.zeros(200 * M, dtype=bool)
        missing[200:400] = self.holes()
        np.testing.assert_array_equal(labels.isna(), missing)
        right = omitting.mixture_.predict(make_array().compute()[~missing])
        np.testing.assert_array_equal(labels[~missing].astype(int), right)
        np.testing.assert_array_equal(omitting.score_samples(X).compute().isna(), missing)
        proba = omitting.predict_proba(X).compute()
        np.testing.assert_array_equal(proba.isna().all(axis=1), missing)

    def test_whole_frames_have_the_same_type(self, omitting):
        assert omitting.predict(make_ddf()).compute().dtype == "Int64"

    @pytest.mark.parametrize("kind", [np.asarray, lambda rows: da.from_array(rows, chunks=(50, 2))])
    def test_arrays(self, kind):
        gm = make(nan_policy="omit").fit(make_array())
        X = kind(with_nan(make_frame(1)).to_numpy())
        (labels,) = dask.compute(gm.predict(X))
        np.testing.assert_array_equal(labels == -1, self.holes())
        assert labels.dtype == np.intp

    def test_scores_skip_and_count(self, omitting, caplog):
        X = make_ddf(M, Reader({1: with_nan}))
        right = X.compute().dropna()
        for name in ("score", "bic", "aic"):
            with caplog.at_level("INFO", logger="dask_dfmr"):
                found = getattr(omitting, name)(X)
            assert found == pytest.approx(getattr(omitting, name)(right), rel=1e-12)
            assert f"{self.holes().sum()} rows with missing or infinite values" in caplog.text

    def test_no_row_left(self, omitting):
        X = pd.DataFrame(np.full((3, 2), np.nan), columns=COLUMNS)
        with pytest.raises(ValueError, match="got none; 3 have missing"):
            omitting.score(X)

    @pytest.mark.parametrize("value", [np.inf, 1e200])
    def test_what_a_fit_omits(self, omitting, value):
        frame = make_frame()
        frame.iloc[3, 0] = value
        labels = omitting.predict(frame)
        assert np.flatnonzero(labels == -1).tolist() == [3]

    def test_otherwise_the_remedy_works(self, gm):
        frame = make_frame()
        frame.iloc[3, 0] = np.inf
        for X in (frame, dd.from_pandas(frame, npartitions=2)):
            with pytest.raises(ValueError, match="row 3 is the first") as caught:
                dask.compute(gm.predict(X))
            right = eval(re.search(r"(X\[.*?\]), or", str(caught.value))[1], {"X": X, "np": np})
            assert len(gm.predict(right)) == 199


class TestColumnsWithoutValues:
    """A column of nulls has no numeric type in its file, and its values are missing all the same."""

    def write(self, folder, which):
        for i in range(M):
            frame = make_frame(i)
            if i == which:
                frame["x"] = None
            frame.to_parquet(folder / f"part-{i}.parquet")
        return dd.read_parquet([str(folder / f"part-{i}.parquet") for i in range(M)])

    def test_not_finite(self, tmp_path):
        with pytest.warns(PartitionWarning, match="not finite, NaN or infinity in 'x'"):
            gm = make().fit(self.write(tmp_path, 2))
        assert gm.support_.tolist() == [True, True, False, True, True, True]

    def test_omitted(self, tmp_path):
        X = self.write(tmp_path, 2)
        with pytest.warns(PartitionWarning, match="too few rows"):
            gm = make(nan_policy="omit").fit(X)
        assert gm.predict(X).compute().isna().sum() == 200

    def test_in_the_first_file_the_remedy_works(self, tmp_path):
        X = self.write(tmp_path, 0)
        with pytest.raises(TypeError, match=r"X\.astype\(\{'x': float\}\)"):
            make().fit(X)
        with pytest.warns(PartitionWarning, match="not finite"):
            assert make().fit(X.astype({"x": float})).support_.sum() == M - 1

    def test_in_memory(self):
        parts = [make_frame(i).assign(x=None) if i == 2 else make_frame(i) for i in range(M)]
        with pytest.warns(PartitionWarning, match="not finite"):
            make().fit(parts)


class TestTooFewRows:
    @pytest.mark.parametrize("X", [make_ddf(4), make_frame()])
    def test_too_many_components(self, X):
        with pytest.raises(AggregationError, match="use n_components=33, or larger partitions"):
            make(1000).fit(X)

    def test_no_rows(self):
        with pytest.raises(AggregationError, match="X has no rows: check the files, or the filter"):
            make().fit((lambda X: X[X.x > 1e9])(make_ddf(4)))


# -- what comes out --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of Dask's writer
def test_probabilities_can_be_written(gm, tmp_path):
    proba = gm.predict_proba(make_ddf())
    assert list(proba.columns) == ["component_0", "component_1"]
    proba.to_parquet(tmp_path / "proba")
    again = pd.read_parquet(tmp_path / "proba")
    np.testing.assert_array_equal(again, proba.compute())
