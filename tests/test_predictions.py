"""Predictions: as lazy as X, in the shape of X, with its index, its divisions and its chunks."""

from __future__ import annotations

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.dataframe.utils import assert_divisions, assert_eq

from dask_dfmr import GaussianMixture
from tests.data_makers import (
    COLUMNS,
    META,
    Reader,
    empty,
    make_array,
    make_ddf,
    make_delayed,
    make_frame,
    make_rows,
    with_nan,
)

METHODS = ("predict", "predict_proba", "score_samples")
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def gm():
    with dask.config.set(scheduler="synchronous"):
        return GaussianMixture(2, random_state=0).fit(make_ddf())


@pytest.fixture(scope="module")
def gm_without_names():
    with dask.config.set(scheduler="synchronous"):
        return GaussianMixture(2, random_state=0).fit(make_array())


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def expected(gm, frame, method):
    """The same method of the mixture, as a frame or series with the index of the rows."""
    values = getattr(gm.mixture_, method)(frame.to_numpy())
    if values.ndim == 2:
        return pd.DataFrame(values, index=frame.index, columns=["component_0", "component_1"])
    return pd.Series(values, index=frame.index, name=method)


@pytest.mark.smoke
class TestDaskFrames:
    @every_method
    def test_lazy(self, gm, ddf, method, raise_if_dask_computes):
        with raise_if_dask_computes():
            getattr(gm, method)(ddf)

    @every_method
    def test_values_and_index(self, gm, ddf, method):
        result = getattr(gm, method)(ddf)
        assert_eq(result, expected(gm, ddf.compute(), method), check_divisions=False)

    @every_method
    def test_unknown_divisions_stay_unknown(self, gm, ddf, method):
        result = getattr(gm, method)(ddf)
        assert not result.known_divisions
        assert result.npartitions == ddf.npartitions

    @every_method
    def test_known_divisions_are_kept(self, gm, method):
        X = dd.from_pandas(make_frame(), npartitions=3)
        result = getattr(gm, method)(X)
        assert result.divisions == X.divisions
        assert_divisions(result)

    @every_method
    def test_meta_is_what_is_computed(self, gm, ddf, method):
        result = getattr(gm, method)(ddf)
        computed = result.compute()
        assert type(computed) is type(result._meta)
        assert computed.index.dtype == result._meta.index.dtype
        if isinstance(computed, pd.DataFrame):
            pd.testing.assert_series_equal(computed.dtypes, result.dtypes)
        else:
            assert (computed.dtype, computed.name) == (result.dtype, result.name)

    @pytest.mark.parametrize("index", [["a", "b"] * 100, pd.date_range("2020", periods=200)])
    def test_other_indices(self, gm, index):
        frame = make_frame().set_axis(pd.Index(index, name="when"))
        X = dd.from_pandas(frame, npartitions=2, sort=False)
        assert_eq(gm.predict(X), expected(gm, frame, "predict"), check_divisions=False)

    def test_labels_become_a_column(self, gm):
        X = dd.from_pandas(make_frame(), npartitions=3)
        together = X.assign(label=gm.predict(X)).compute()
        np.testing.assert_array_equal(together["label"], gm.mixture_.predict(make_rows()))

    @every_method
    def test_empty_partitions(self, gm, method):
        X = make_ddf(3, Reader({0: empty, 2: empty}))
        result = getattr(gm, method)(X)
        assert result.map_partitions(len).compute().tolist() == [0, 200, 0]
        assert_eq(result, expected(gm, make_frame(1), method), check_divisions=False)

    @every_method
    def test_of_a_filtered_frame(self, gm, ddf, method):
        X = ddf[ddf.x > 0]
        assert len(getattr(gm, method)(X)) == len(X)

    def test_nullable_columns(self, gm, ddf):
        X = ddf.astype({"x": "Float64", "y": "double[pyarrow]"})
        np.testing.assert_array_equal(gm.predict(X).compute(), gm.predict(ddf).compute())

    def test_the_model_travels_once(self, gm):
        keys = gm.predict(make_ddf(50)).optimize().__dask_graph__()
        assert sum(dask.utils.key_split(key) == "Mixture" for key in keys) == 1

    def test_on_a_client(self, gm, client):
        with dask.config.set(scheduler=client):
            labels = gm.predict(make_ddf()).compute()
        np.testing.assert_array_equal(labels, gm.mixture_.predict(make_ddf().compute().to_numpy()))


class TestDaskArrays:
    @every_method
    def test_lazy(self, gm_without_names, method, raise_if_dask_computes):
        X = make_array()
        with raise_if_dask_computes():
            getattr(gm_without_names, method)(X)

    @every_method
    def test_values_chunks_and_dtype(self, gm_without_names, method):
        X = make_array().rechunk({0: (100, 700, 400)})
        result = getattr(gm_without_names, method)(X)
        wanted = getattr(gm_without_names.mixture_, method)(X.compute())
        assert result.chunks[0] == X.chunks[0]
        assert result.shape == wanted.shape
        da.utils.assert_eq(result, wanted)

    def test_probabilities_are_one_chunk_wide(self, gm_without_names):
        assert gm_without_names.predict_proba(make_array()).chunks[1] == (2,)

    @every_method
    def test_chunked_along_columns(self, gm_without_names, method):
        X = make_array()
        result = getattr(gm_without_names, method)(X.rechunk({1: 1}))
        da.utils.assert_eq(result, getattr(gm_without_names.mixture_, method)(X.compute()))

    @every_method
    def test_unknown_chunks(self, gm, ddf, method):
        result = getattr(gm, method)(ddf[ddf.x > 0].to_dask_array())
        wanted = getattr(gm.mixture_, method)(ddf[ddf.x > 0].compute().to_numpy())
        np.testing.assert_array_equal(result.compute(), wanted)

    def test_other_width(self, gm_without_names, raise_if_dask_computes):
        with raise_if_dask_computes(), pytest.raises(ValueError, match=r"\(n_samples, 2\)"):
            gm_without_names.predict(da.zeros((10, 3)))

    @pytest.mark.parametrize("dtype", [bool, "M8[s]", complex])
    def test_no_numbers(self, gm_without_names, dtype, raise_if_dask_computes):
        X = da.ones((10, 2), dtype=dtype)
        with raise_if_dask_computes(), pytest.raises(TypeError, match="real numbers"):
            gm_without_names.predict(X)


class TestDelayed:
    @every_method
    def test_a_list_gives_a_list(self, gm, method):
        parts = getattr(gm, method)(make_delayed(3))
        assert len(parts) == 3
        for i, part in enumerate(dask.compute(*parts)):
            np.testing.assert_array_equal(part, getattr(gm.mixture_, method)(make_rows(i)))

    def test_one_is_taken_as_fit_takes_it(self, gm):
        """``fit`` accepts a single Delayed, so ``predict`` does."""
        (labels,) = dask.compute(gm.predict(dask.delayed(make_frame)(1)))
        np.testing.assert_array_equal(labels, gm.mixture_.predict(make_rows(1)))


@pytest.mark.smoke
class TestMemory:
    @every_method
    def test_arrays(self, gm_without_names, method):
        X = make_rows()
        result = getattr(gm_without_names, method)(X)
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, getattr(gm_without_names.mixture_, method)(X))

    @every_method
    def test_frames(self, gm, method):
        result = getattr(gm, method)(make_frame())
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, getattr(gm.mixture_, method)(make_rows()))

    def test_lists(self, gm_without_names):
        assert gm_without_names.predict([[3, 1], [-3, 0]]).tolist() == [0, 1]


@pytest.mark.smoke
class TestColumns:
    """The columns must be those of the fit: an error is raised before anything is computed."""

    def frames(self, columns):
        wide = make_frame().assign(z=1.0)[columns]
        return wide, dd.from_pandas(wide, npartitions=2)

    @every_method
    def test_missing(self, gm, method, raise_if_dask_computes):
        for X in self.frames(["x"]):
            with raise_if_dask_computes(), pytest.raises(ValueError, match="missing") as caught:
                getattr(gm, method)(X)
            assert "y" in str(caught.value)

    @every_method
    def test_unexpected(self, gm, method, raise_if_dask_computes):
        for X in self.frames(["x", "y", "z"]):
            with raise_if_dask_computes(), pytest.raises(ValueError, match="z"):
                getattr(gm, method)(X)

    def test_other_order(self, gm, raise_if_dask_computes):
        for X in self.frames(["y", "x"]):
            with raise_if_dask_computes(), pytest.raises(ValueError, match="order"):
                gm.predict(X)

    def test_lazy_frames_are_told_what_to_select(self, gm):
        with pytest.raises(ValueError, match=r"X\[\['x', 'y'\]\]"):
            gm.predict(self.frames(["x", "y", "z"])[1])

    def test_no_selection_is_advised_if_a_column_is_missing(self, gm):
        with pytest.raises(ValueError, match=r"missing \['y'\], unexpected \['z'\]") as caught:
            gm.predict(self.frames(["x", "z"])[1])
        assert "X[" not in str(caught.value)

    def test_no_numbers(self, gm, ddf, raise_if_dask_computes):
        X = ddf.astype({"y": bool})
        with raise_if_dask_computes(), pytest.raises(TypeError, match="'y'"):
            gm.predict(X)

    def test_of_a_model_without_names(self, gm_without_names, ddf):
        with pytest.warns(UserWarning, match="feature names"):
            labels = gm_without_names.predict(make_frame())
        np.testing.assert_array_equal(labels, gm_without_names.mixture_.predict(make_rows()))
        np.testing.assert_array_equal(gm_without_names.predict(ddf).compute()[:200], labels)

    def test_width_of_a_model_without_names(self, gm_without_names, ddf):
        with pytest.raises(ValueError, match="2"):
            gm_without_names.predict(ddf[["x"]])

    def test_arrays_for_a_model_with_names(self, gm):
        """scikit-learn warns of arrays in memory; the width of an Array is all there is to check."""
        with pytest.warns(UserWarning, match="feature names"):
            gm.predict(make_rows())
        assert gm.predict(make_array()).shape == (1200,)

    def test_a_partition_of_other_columns(self, gm):
        X = dd.from_map(
            Reader({1: lambda frame: frame.rename(columns={"y": "z"})}), range(2), meta=META
        )
        with pytest.raises(ValueError, match="z"):
            gm.predict(X).compute()


class TestNan:
    @every_method
    def test_raises_in_every_kind(self, gm, gm_without_names, method):
        frame = with_nan(make_frame())
        for X in (frame, dd.from_pandas(frame, npartitions=2)):
            with pytest.raises(ValueError, match="NaN"):
                dask.compute(getattr(gm, method)(X))
        array = frame.to_numpy()
        for X in (array, da.from_array(array, chunks=(100, 2))):
            with pytest.raises(ValueError, match="NaN"):
                dask.compute(getattr(gm_without_names, method)(X))

    def test_infinity(self, gm):
        with pytest.raises(ValueError, match="infinit"):
            gm.predict(make_frame().replace({"x": {make_rows()[0, 0]: np.inf}}))

    def test_lazily(self, gm, raise_if_dask_computes):
        X = make_ddf(2, Reader({1: with_nan}))
        with raise_if_dask_computes():
            gm.predict(X)


class TestScores:
    """Score, BIC and AIC against scikit-learn's on the same parameters."""

    @pytest.mark.parametrize("name", ["score", "bic", "aic"])
    def test_equal_to_scikit_learn(self, gm, gm_without_names, name):
        rows = np.concatenate([make_rows(i) for i in range(6)])
        wanted = getattr(gm_without_names.mixture_.to_sklearn(), name)(rows)
        for X in (make_array(), rows, make_array().rechunk({1: 1}), make_delayed(6, make_rows)):
            assert getattr(gm_without_names, name)(X) == pytest.approx(wanted, rel=1e-12)
        frame = pd.DataFrame(rows, columns=COLUMNS)
        for X in (make_ddf(), frame, make_ddf().to_dask_array(), make_delayed()):
            assert getattr(gm, name)(X) == pytest.approx(wanted, rel=1e-9)

    @pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
    def test_bic_of_every_covariance_type(self, covariance_type):
        gm = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(make_array())
        wanted = gm.mixture_.to_sklearn().bic(make_array().compute())
        assert gm.bic(make_array()) == pytest.approx(wanted, rel=1e-12)

    def test_are_numbers(self, gm, ddf):
        for name in ("score", "bic", "aic"):
            assert type(getattr(gm, name)(ddf)) is float

    def test_empty_partitions_do_not_matter(self, gm):
        X = make_ddf(3, Reader({0: empty}))
        assert gm.score(X) == pytest.approx(gm.score(X.compute()), rel=1e-12)

    def test_no_rows(self, gm, ddf):
        with pytest.raises(ValueError, match="at least one row"):
            gm.score(ddf[ddf.x > 1e9])
