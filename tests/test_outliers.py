"""``OutlierDetector``: the contract of scikit-learn, lazy collections, and a rate of false alarms that holds."""

from __future__ import annotations

import pickle

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pytest
from dask.dataframe.utils import assert_eq
from scipy.stats import chi2, kstest
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from dask_dfmr import GaussianMixture, Mixture, OutlierDetector
from tests.data_makers import (
    TRUTH,
    make_array,
    make_delayed,
    make_frame,
    make_rows,
    with_nan,
)
from tests.strategies import random_mixture

METHODS = ("predict", "p_value", "score_samples", "decision_function")
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def detector():
    """Of a mixture with two overlapping components, whose columns have names."""
    return OutlierDetector.from_mixture(TRUTH, false_alarm_rate=0.05)


@pytest.fixture(scope="module")
def without_names():
    mixture = Mixture(TRUTH.weights, TRUTH.means, TRUTH.covariances)
    return OutlierDetector.from_mixture(mixture, false_alarm_rate=0.05)


@pytest.fixture(scope="module")
def fitted():
    """An estimator that omits rows, with a column of sources."""
    frame = make_frame(n=400).assign(sensor=["a", "b"] * 200)
    with dask.config.set(scheduler="synchronous"):
        gm = GaussianMixture(2, source="sensor", nan_policy="omit", method="mr", random_state=0)
        return gm.fit(frame)


# The checks want at least one outlier and one inlier among 300 rows.
@parametrize_with_checks([OutlierDetector(false_alarm_rate=0.05)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestContract:
    def test_is_an_outlier_detector(self):
        assert is_outlier_detector(OutlierDetector())

    def test_fits_a_clone(self):
        gm = GaussianMixture(2, n_partitions=4, random_state=0)
        detector = OutlierDetector(gm, false_alarm_rate=0.02).fit(make_rows(n=1200))
        assert not hasattr(gm, "mixture_")
        assert detector.estimator_.n_partitions_ == 4
        assert detector.mixture_ is detector.estimator_.mixture_
        again = clone(detector)
        assert again.get_params()["estimator__n_components"] == 2
        assert again.false_alarm_rate == 0.02
        assert not hasattr(again, "mixture_")

    def test_fit_predict(self):
        rows = make_rows()
        detector = OutlierDetector(false_alarm_rate=0.05)
        np.testing.assert_array_equal(detector.fit_predict(rows), detector.predict(rows))

    def test_fit_predict_of_a_collection_is_lazy(self, ddf):
        labels = OutlierDetector(GaussianMixture(2, random_state=0)).fit_predict(ddf)
        assert isinstance(labels, dd.Series)
        assert set(labels.compute()) <= {-1, 1}

    def test_few_rows_in_memory_need_no_parameters(self):
        rows = np.random.default_rng(0).normal(size=(30, 10))
        assert OutlierDetector().fit(rows).n_features_in_ == 10

    def test_pickles(self, detector):
        frame = make_frame()
        again = pickle.loads(pickle.dumps(detector))
        np.testing.assert_array_equal(again.p_value(frame), detector.p_value(frame))

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            OutlierDetector().predict(make_rows())

    def test_a_fit_forgets_the_names_of_the_last(self):
        detector = OutlierDetector().fit(make_frame())
        assert detector.feature_names_in_.tolist() == ["x", "y"]
        assert not hasattr(detector.fit(make_rows()), "feature_names_in_")


class TestFromMixture:
    def test_is_fitted_and_stays_what_it_is(self, detector):
        assert detector.mixture_ is TRUTH
        assert detector.estimator_ is None
        again = clone(detector).fit(make_frame())
        assert again.mixture_ == TRUTH
        assert again.offset_ == detector.offset_

    def test_of_a_saved_mixture(self, detector, tmp_path):
        TRUTH.save(tmp_path / "mixture.json")
        loaded = Mixture.load(tmp_path / "mixture.json")
        again = OutlierDetector.from_mixture(loaded, false_alarm_rate=0.05)
        frame = make_frame()
        np.testing.assert_array_equal(again.p_value(frame), detector.p_value(frame))

    def test_of_a_fitted_estimator(self, fitted):
        detector = OutlierDetector.from_mixture(fitted)
        assert detector.estimator_ is fitted
        assert detector.mixture_ is fitted.mixture_

    def test_of_an_aggregate(self, fitted):
        assert OutlierDetector.from_mixture(fitted.aggregate_).mixture_ is fitted.mixture_

    def test_of_an_estimator_that_is_not_fitted(self):
        with pytest.raises(NotFittedError):
            OutlierDetector.from_mixture(GaussianMixture())

    @pytest.mark.parametrize("wrong", ["mixture.json", None, np.zeros((2, 2))])
    def test_of_something_else(self, wrong):
        with pytest.raises(TypeError, match=r"(?s)mixture must be a Mixture.*Mixture\.load"):
            OutlierDetector.from_mixture(wrong)


class TestErrors:
    @pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, "auto", None, np.nan, True])
    def test_rate(self, rate):
        for make in (
            lambda: OutlierDetector(false_alarm_rate=rate).fit(make_rows()),
            lambda: OutlierDetector.from_mixture(TRUTH, false_alarm_rate=rate),
        ):
            with pytest.raises(ValueError, match="false_alarm_rate must be"):
                make()

    def test_estimator(self):
        with pytest.raises(TypeError, match="estimator must be a GaussianMixture or a Mixture"):
            OutlierDetector("full").fit(make_rows())

    def test_columns(self, detector, ddf):
        for X in (make_frame()[["x"]], ddf[["x"]]):
            with pytest.raises(ValueError, match="missing"):
                detector.p_value(X)


class TestLaw:
    def test_of_one_component_is_exact(self):
        mixture = random_mixture(1, 1, 4)
        detector = OutlierDetector.from_mixture(mixture, false_alarm_rate=0.01)
        root = np.linalg.cholesky(mixture.covariances[0])
        radii = np.sqrt(chi2.isf([0.5, 0.0101, 0.0099, 1e-12], 4))
        rows = mixture.means + radii[:, None] * root[:, 0]
        np.testing.assert_allclose(detector.p_value(rows), [0.5, 0.0101, 0.0099, 1e-12], rtol=1e-6)
        assert detector.predict(rows).tolist() == [1, 1, -1, -1]
        assert detector.p_value_error_ == 0

    @pytest.mark.parametrize("n_features", [2, 10])
    def test_rows_of_the_mixture_have_uniform_p_values(self, n_features):
        mixture = random_mixture(2, 4, n_features, spread=1.0)
        detector = OutlierDetector.from_mixture(mixture, false_alarm_rate=0.01)
        rows, _ = mixture.sample(20_000, 5)
        assert kstest(detector.p_value(rows), "uniform").pvalue > 0.01
        assert abs((detector.predict(rows) == -1).mean() - 0.01) < 4 * np.sqrt(0.01 / len(rows))

    def test_gross_rows_in_the_training_change_neither_alarms_nor_detection(self):
        rows = np.random.default_rng(0).normal(size=(5000, 2))
        rows[:100] *= 1000
        rows[100:200, 0] = -9999
        labels = OutlierDetector(false_alarm_rate=0.01).fit_predict(rows)
        assert (labels[:200] == -1).all()
        assert abs((labels[200:] == -1).mean() - 0.01) < 0.005

    def test_decision_score_and_label_agree(self, detector):
        frame = make_frame(n=2000)
        decision = detector.decision_function(frame)
        np.testing.assert_array_equal(decision, detector.score_samples(frame) - detector.offset_)
        np.testing.assert_array_equal(detector.predict(frame) == -1, decision < 0)
        np.testing.assert_array_equal(detector.p_value(frame) < 0.05, decision < 0)

    def test_is_the_same_in_every_program(self, detector):
        again = OutlierDetector.from_mixture(TRUTH, false_alarm_rate=0.05)
        other = OutlierDetector.from_mixture(TRUTH, false_alarm_rate=0.05, random_state=1)
        assert again.offset_ == detector.offset_
        assert other.offset_ != detector.offset_
        assert other.offset_ == pytest.approx(detector.offset_, abs=0.01)

    def test_a_row_alone_has_its_p_value(self, without_names):
        rows = make_rows(n=30)
        alone = np.concatenate([without_names.p_value(row[None]) for row in rows])
        np.testing.assert_allclose(alone, without_names.p_value(rows), rtol=1e-13)


class TestCollections:
    @every_method
    def test_frames_are_lazy_and_keep_their_index(self, detector, method, raise_if_dask_computes):
        frame = make_frame()
        with raise_if_dask_computes():
            lazy = getattr(detector, method)(dd.from_pandas(frame, npartitions=3))
        assert lazy.known_divisions
        assert lazy.name == method
        values = getattr(detector, method)(frame)
        found = lazy.compute()
        assert_eq(found, frame["x"].rename(method) * 0 + values, check_dtype=False)
        assert found.dtype == values.dtype == lazy.dtype
        np.testing.assert_array_equal(found.to_numpy(), values)

    @every_method
    def test_arrays_keep_their_chunks(self, without_names, method, raise_if_dask_computes):
        X = make_array().rechunk({0: (100, 700, 400), 1: 1})
        with raise_if_dask_computes():
            lazy = getattr(without_names, method)(X)
        assert isinstance(lazy, da.Array)
        assert lazy.chunks == ((100, 700, 400),)
        values = getattr(without_names, method)(X.compute())
        assert lazy.dtype == values.dtype
        np.testing.assert_array_equal(lazy.compute(), values)

    @every_method
    def test_lists(self, detector, method):
        parts = dask.compute(*getattr(detector, method)(make_delayed(2)))
        for part, i in zip(parts, range(2), strict=True):
            np.testing.assert_array_equal(part, getattr(detector, method)(make_frame(i)))

    def test_omitted_rows_have_no_label(self, fitted):
        detector = OutlierDetector.from_mixture(fitted)
        frame = with_nan(make_frame()).assign(sensor="b")
        is_omitted = frame["y"].isna().to_numpy()
        labels = detector.predict(frame[["x", "y"]])
        assert (labels[is_omitted] == 0).all()
        assert set(labels[~is_omitted]) <= {-1, 1}
        lazy = detector.predict(dd.from_pandas(frame, npartitions=2)).compute()
        assert lazy.dtype == "Int64"
        np.testing.assert_array_equal(lazy.isna(), is_omitted)
        assert np.isnan(detector.p_value(frame[["x", "y"]])[is_omitted]).all()
