"""``GaussianMixture``: scikit-learn's contract, what is learned, what is reported."""

from __future__ import annotations

import copy
import gc
import itertools
import logging
import pickle
import re
import warnings

import dask
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from dask_dfmr import Aggregate, FilterWarning, GaussianMixture, LocalEstimate, aggregate
from dask_dfmr.on_dask import first_read
from dask_dfmr.on_dask.estimate_store import StoredEstimates
from tests.data_makers import (
    COLUMNS,
    TRUTH,
    Reader,
    broken,
    empty,
    make_array,
    make_ddf,
    make_delayed,
    make_frame,
    make_rows,
    other_unit,
    rolled,
    same_bits,
    with_nan,
    write_parquet,
)

# Inconsistent sources that agree form a group: tests/test_consensus.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
K, D, M = 2, 2, 6
START = {"means_init": TRUTH.means}  # pilots take half of the time of a fit


def make(**kwargs):
    return GaussianMixture(**{"n_components": K, "random_state": 0} | kwargs)


@pytest.fixture(autouse=True)
def _one_thread(request):
    """Everything here is small; a test on a cluster requests the fixture ``client``."""
    if "client" in request.fixturenames:
        yield
    else:
        with dask.config.set(scheduler="synchronous"):
            yield


# -- scikit-learn's contract ---------------------------------------------------------------------


@parametrize_with_checks([GaussianMixture(2, min_partition_rows=2, random_state=0)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestContract:
    def test_clone(self):
        gm = make(covariance_type="diag", rho=2.0, means_init=np.zeros((2, 2)))
        assert clone(gm).get_params().keys() == gm.get_params().keys()
        assert repr(clone(gm)) == repr(gm)

    def test_parameters_are_stored_as_given(self):
        means = [[0, 0], [1, 1]]
        assert make(means_init=means).means_init is means

    def test_set_params(self, ddf):
        assert make().set_params(n_components=3).fit(ddf).weights_.shape == (3,)

    def test_fit_returns_the_estimator(self, ddf):
        gm = make()
        assert gm.fit(ddf) is gm

    def test_fit_does_not_change_parameters(self, ddf):
        gm = make(weights_init=[0.5, 0.5])
        before = {name: repr(value) for name, value in gm.get_params().items()}
        gm.fit(ddf)
        assert {name: repr(value) for name, value in gm.get_params().items()} == before

    def test_y_is_ignored(self, ddf):
        assert same_bits(make().fit(ddf, y="y").mixture_, make().fit(ddf).mixture_)

    def test_pickle(self, ddf):
        gm = make().fit(ddf)
        again = pickle.loads(pickle.dumps(gm))
        assert same_bits(again.mixture_, gm.mixture_)
        pd.testing.assert_frame_equal(again.partition_report_, gm.partition_report_)

    @pytest.mark.parametrize(
        "call", ["predict", "predict_proba", "score_samples", "score", "bic", "aic"]
    )
    def test_not_fitted(self, call, ddf):
        with pytest.raises(NotFittedError):
            getattr(make(), call)(ddf)

    def test_sample_not_fitted(self):
        with pytest.raises(NotFittedError):
            make().sample()

    def test_pipeline(self):
        X = np.concatenate([make_rows(i) for i in range(M)])
        pipe = make_pipeline(StandardScaler(), make(n_partitions=M)).fit(X)
        plain = make(n_partitions=M).fit(X)
        assert np.mean(pipe.predict(X) == plain.predict(X)) > 0.999

    def test_grid_search(self):
        """Its grids may be arrays: the values are then NumPy's numbers and strings."""
        X = np.concatenate([make_rows(i) for i in range(4)])
        grid = {
            "n_components": np.array([1, 2]),
            "covariance_type": np.array(["diag"]),
            "reg_covar": np.array([1e-6]),
        }
        search = GridSearchCV(make(n_partitions=4), grid, cv=2).fit(X)
        assert search.best_params_["n_components"] == 2


class TestAgainstScikitLearn:
    """One partition, no penalty, the same start, run to the end: the same estimate."""

    def start(self, covariance_type):
        precisions = {
            "full": np.array([np.eye(2)] * 2),
            "tied": np.eye(2),
            "diag": np.ones((2, 2)),
            "spherical": np.ones(2),
        }[covariance_type]
        return {
            "weights_init": [0.5, 0.5],
            "means_init": [[2.0, 2.0], [-2.0, 0.0]],
            "precisions_init": precisions,
        }

    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    def test_same_estimate(self, covariance_type):
        X = make_rows(n=500)
        common = {"covariance_type": covariance_type, "tol": 1e-14, "max_iter": 5000}
        common |= self.start(covariance_type)
        mine = GaussianMixture(2, penalty=0, method="mr", **common).fit(X)
        theirs = SklearnGaussianMixture(2, reg_covar=0, **common).fit(X)
        # Not aligned: the components of both have the order of the start.
        for name in ("weights_", "means_", "covariances_", "precisions_"):
            wanted = getattr(theirs, name)
            assert getattr(mine, name).shape == wanted.shape
            np.testing.assert_allclose(getattr(mine, name), wanted, atol=1e-6, rtol=1e-6)
        assert mine.lower_bound_ == pytest.approx(theirs.lower_bound_, abs=1e-8)
        assert mine.converged_
        assert mine.n_features_in_ == theirs.n_features_in_

    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    @pytest.mark.smoke
    def test_reg_covar(self, covariance_type):
        X = make_rows(n=500)
        common = {"covariance_type": covariance_type, "tol": 1e-13, "max_iter": 5000}
        common |= {"reg_covar": 0.1} | self.start(covariance_type)
        mine = GaussianMixture(2, penalty=0, method="mr", **common).fit(X)
        theirs = SklearnGaussianMixture(2, **common).fit(X)
        np.testing.assert_allclose(mine.covariances_, theirs.covariances_, atol=1e-5)

    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    def test_learned_arrays_work_in_a_scikit_learn_model(self, covariance_type, ddf):
        gm = make(covariance_type=covariance_type).fit(ddf)
        model = gm.mixture_.to_sklearn()
        for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
            assert getattr(gm, name).shape == getattr(model, name).shape
        X = ddf.compute().to_numpy()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            np.testing.assert_array_equal(gm.predict(ddf).compute(), model.predict(X))


# -- what is learned -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean():
    """Fitted to six clean partitions."""
    with dask.config.set(scheduler="synchronous"):
        return make().fit(make_ddf(M))


@pytest.mark.smoke
class TestLearned:
    def test_recovers_the_truth(self, clean):
        np.testing.assert_allclose(clean.weights_, TRUTH.weights, atol=0.05)
        np.testing.assert_allclose(clean.means_, TRUTH.means, atol=0.2)
        np.testing.assert_allclose(clean.covariances_, TRUTH.covariances, atol=0.4)

    def test_components_by_weight(self, clean):
        assert (np.diff(clean.weights_) <= 0).all()

    def test_precisions(self, clean):
        np.testing.assert_allclose(
            clean.precisions_ @ clean.covariances_, [np.eye(2)] * 2, atol=1e-12
        )
        factor = clean.precisions_cholesky_
        np.testing.assert_allclose(factor @ factor.transpose(0, 2, 1), clean.precisions_)

    def test_scalars(self, clean):
        assert clean.converged_ is True
        assert type(clean.n_iter_) is int
        assert clean.n_iter_ == clean.partition_report_["n_iter"][clean.support_].max()
        assert type(clean.lower_bound_) is float
        assert clean.n_partitions_ == M
        assert clean.n_features_in_ == D

    def test_lower_bound_is_the_mean_over_rows_of_kept_partitions(self, clean):
        kept = clean.partition_report_[clean.support_]
        wanted = (kept["log_likelihood"] * kept["n_samples"]).sum() / kept["n_samples"].sum()
        assert clean.lower_bound_ == pytest.approx(wanted)

    def test_feature_names(self, clean):
        assert clean.feature_names_in_.tolist() == COLUMNS
        assert clean.feature_names_in_.dtype == object
        assert clean.mixture_.feature_names == tuple(COLUMNS)

    def test_no_feature_names_after_a_fit_without(self):
        gm = make().fit(make_ddf())
        assert not hasattr(gm.fit(make_array()), "feature_names_in_")

    def test_aggregate(self, clean):
        assert isinstance(clean.aggregate_, Aggregate)
        assert clean.aggregate_.mixture is clean.mixture_

    def test_support(self, clean):
        assert clean.support_.shape == (M,)
        assert clean.support_.dtype == bool

    def test_every_learned_attribute_is_documented(self, clean):
        documented = set(re.findall(r"\b\w+_\b", GaussianMixture.__doc__.split("Attributes")[1]))
        assert {name for name in vars(clean) if name.endswith("_")} <= documented

    @pytest.mark.parametrize("n_partitions", [1, 2, 3, 4])
    def test_few_partitions(self, n_partitions):
        X = np.concatenate([make_rows(i) for i in range(4)])
        gm = make(n_partitions=n_partitions)
        if n_partitions < 4:
            said = "X is one partition" if n_partitions == 1 else f"{n_partitions} usable estimates"
            with pytest.warns(FilterWarning, match=said):
                gm.fit(X)
        else:
            gm.fit(X)
        np.testing.assert_allclose(gm.means_, TRUTH.means, atol=0.3)

    def test_warnings_point_at_the_users_line(self):
        with pytest.warns(FilterWarning) as caught:
            make(n_partitions=2).fit(make_rows())
        assert caught[0].filename == __file__


@pytest.fixture(scope="module")
def mixed():
    """Fitted to twelve partitions, some of which are bad."""
    bad = {1: broken, 3: other_unit, 4: rolled, 6: with_nan, 7: empty}
    with dask.config.set(scheduler="synchronous"):
        return make(on_failed="ignore").fit(make_ddf(12, Reader(bad)))


@pytest.mark.smoke
class TestReport:
    COLUMNS = (
        *("partition", "source", "n_samples", "outcome", "n_iter", "log_likelihood", "distance"),
        *(
            "distance_ratio",
            "expected_distance",
            "z_score",
            "p_value",
            "kept",
            "reason",
            "n_omitted",
            "rows_outside",
            "rows_outside_expected",
            "rows_outside_p_value",
            "start",
        ),
    )
    DTYPES = {  # noqa: RUF012
        "partition": "i",
        "n_samples": "i",
        "n_iter": "i",
        "n_omitted": "i",
        "log_likelihood": "f",
        "distance": "f",
        "distance_ratio": "f",
        "expected_distance": "f",
        "z_score": "f",
        "p_value": "f",
        "rows_outside": "f",
        "rows_outside_expected": "f",
        "rows_outside_p_value": "f",
        "kept": "b",
    }

    def test_columns_and_one_row_per_partition(self, mixed):
        report = mixed.partition_report_
        assert tuple(report.columns) == self.COLUMNS
        assert report["partition"].tolist() == list(range(12))
        assert report.index.tolist() == list(range(12))

    def test_dtypes_do_not_depend_on_what_happened(self, mixed):
        for report in (mixed.partition_report_, make().fit(make_ddf(4)).partition_report_):
            kinds = {name: report[name].dtype.kind for name in self.DTYPES}
            assert kinds == self.DTYPES

    def test_kept_is_what_sampling_explains(self, mixed):
        report = mixed.partition_report_
        np.testing.assert_array_equal(report["kept"], report["p_value"] >= 1e-3)
        np.testing.assert_array_equal(report["kept"], mixed.support_)

    def test_a_reason_for_all_that_are_excluded_and_only_for_them(self, mixed):
        report = mixed.partition_report_
        assert ((report["reason"] != "") == ~report["kept"]).all()

    def test_other_unit_and_rolled_columns_are_excluded(self, mixed):
        report = mixed.partition_report_
        assert not report["kept"][[3, 4]].any()
        assert report["reason"][[3, 4]].str.contains("as sampling explains").all()
        np.testing.assert_allclose(mixed.means_, TRUTH.means, atol=0.3)

    def test_distances_are_those_of_the_decision(self, mixed):
        decision = mixed.aggregate_.decision
        np.testing.assert_array_equal(mixed.partition_report_["distance"], decision.distances)
        assert mixed.partition_report_["distance"][decision.center] == 0

    def test_counts(self, mixed):
        report = mixed.partition_report_
        assert report["n_samples"].tolist() == [200, 0, 200, 200, 200, 200, 200, 0, *[200] * 4]
        assert (report["n_iter"][report["outcome"] == "fitted"] > 0).all()

    def test_starts(self, mixed):
        report = mixed.partition_report_
        assert report["start"][report["outcome"] == "fitted"].str.fullmatch(r"pilot \d").all()

    def test_sources_of_files(self, tmp_path):
        paths = write_parquet(tmp_path, 4)
        report = make().fit(dd.read_parquet(tmp_path)).partition_report_
        assert report["source"].tolist() == paths

    def test_sources_of_rows(self):
        report = make().fit(make_array(4)).partition_report_
        assert report["source"].tolist() == [f"rows {a}:{a + 200}" for a in range(0, 800, 200)]

    def test_partition_is_an_index_into_x_partitions(self):
        X = make_ddf(6, Reader({4: other_unit}))
        report = make().fit(X).partition_report_
        far = report["partition"][report["distance_ratio"].idxmax()]
        assert X.partitions[int(far)].compute().abs().to_numpy().max() > 1000


class TestEstimates:
    @pytest.mark.parametrize("keep_estimates", [True, "auto"])
    def test_in_memory(self, keep_estimates, ddf):
        gm = make(keep_estimates=keep_estimates).fit(ddf)
        self.check(gm)
        assert isinstance(gm.estimates_, list)

    def test_not_kept(self, ddf):
        assert make(keep_estimates=False).fit(ddf).estimates_ is None

    def test_on_disk(self, ddf, monkeypatch):
        monkeypatch.setattr(first_read, "MEMORY_LIMIT", 0)
        gm = make().fit(ddf)
        assert isinstance(gm.estimates_, StoredEstimates)
        self.check(gm)

    @pytest.mark.parametrize("keep_estimates", [True, False])
    def test_the_limit_is_for_auto_only(self, ddf, monkeypatch, keep_estimates):
        monkeypatch.setattr(first_read, "MEMORY_LIMIT", 0)
        estimates = make(keep_estimates=keep_estimates).fit(ddf).estimates_
        assert isinstance(estimates, list if keep_estimates else type(None))

    def test_on_a_client(self, client, ddf):
        self.check(make(keep_estimates=True).fit(ddf))
        assert make(keep_estimates=False).fit(ddf).estimates_ is None

    def test_on_disk_on_a_client(self, client, ddf, monkeypatch):
        monkeypatch.setattr(first_read, "MEMORY_LIMIT", 0)
        gm = make().fit(ddf)
        assert isinstance(gm.estimates_, StoredEstimates)
        self.check(gm)

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_failed_partitions_have_their_place(self, on_disk, monkeypatch):
        if on_disk:
            monkeypatch.setattr(first_read, "MEMORY_LIMIT", 0)
        X = make_ddf(6, Reader({2: broken, 4: with_nan}))
        estimates = make(on_failed="ignore").fit(X).estimates_
        assert [e.outcome.value for e in estimates] == [
            *("fitted", "fitted", "failed", "fitted", "not finite", "fitted")
        ]
        assert [e.partition for e in estimates] == list(range(6))

    def test_stored_estimates_are_a_sequence(self, monkeypatch):
        monkeypatch.setattr(first_read, "MEMORY_LIMIT", 0)
        stored = make(min_partition_rows=2, **START).fit(make_array(60, n=30)).estimates_
        assert stored[-1].partition == 59
        assert [e.partition for e in stored[48:53]] == [48, 49, 50, 51, 52]
        with pytest.raises(IndexError):
            stored[60]

    @pytest.mark.parametrize(
        ("way", "keep_estimates"),
        [
            *(("pickle", kept) for kept in ("on disk", True, False)),
            *((way, "on disk") for way in ("deepcopy", "joblib")),
        ],
    )
    def test_a_fitted_estimator_survives(self, keep_estimates, way, tmp_path, monkeypatch):
        if keep_estimates == "on disk":
            monkeypatch.setattr(first_read, "MEMORY_LIMIT", 0)
            keep_estimates = "auto"
        gm = make(keep_estimates=keep_estimates, **START)
        gm.fit(make_ddf(9, Reader({2: other_unit})))
        right = None if gm.estimates_ is None else list(gm.estimates_)
        if way == "pickle":
            twin = pickle.loads(pickle.dumps(gm))
        elif way == "deepcopy":
            twin = copy.deepcopy(gm)
        else:
            joblib.dump(gm, tmp_path / "gm.joblib")
            twin = joblib.load(tmp_path / "gm.joblib")
        mixture = gm.mixture_
        del gm
        gc.collect()
        assert same_bits(twin.mixture_, mixture)
        if right is None:
            assert twin.estimates_ is None
            return
        assert list(twin.estimates_) == right
        assert twin.explain()["partition"].tolist() == [2]
        assert same_bits(twin.aggregate_.without([2]).mixture, mixture)
        twin.aggregate_.save(tmp_path / "aggregate.zip")
        assert Aggregate.load(tmp_path / "aggregate.zip").mixture == mixture
        twin.update([make_frame(20), make_frame(21)])
        assert twin.n_partitions_ == 11

    def test_stored_estimates_of_unknown_columns(self, monkeypatch):
        monkeypatch.setattr(first_read, "MEMORY_LIMIT", 0)
        self.check(make().fit(make_delayed()))

    def check(self, gm):
        assert len(gm.estimates_) == M
        assert all(isinstance(e, LocalEstimate) for e in gm.estimates_)
        again = aggregate(list(gm.estimates_))
        np.testing.assert_allclose(again.mixture.means, gm.means_, rtol=1e-10)


# -- parameters ----------------------------------------------------------------------------------


WRONG = [
    *(("n_components", value) for value in (0, -1, 1.5, True, "2", None)),
    *(("covariance_type", value) for value in ("Full", None, 1)),
    *(("tol", value) for value in (-1, "tight", np.nan, None, np.inf)),
    *(("reg_covar", value) for value in (-1e-6, "auto", None, np.nan)),
    *(("max_iter", value) for value in (0, 10.0, None)),
    *(("n_init", value) for value in (0, 1.0)),
    *(("init_params", value) for value in ("kmeans++", None, 1)),
    *(("random_state", value) for value in ("seed", -1, 1.5)),
    *(("method", value) for value in ("DFMR", "trim", None)),
    *(("rho", value) for value in (0.9, "1.3", np.nan, None, True)),
    *(("machine_weights", value) for value in ("row", None, [1.0])),
    *(("penalty", value) for value in (-1, "none", None, np.nan)),
    *(("min_partition_rows", value) for value in (0, 2.5, "all", None)),
    *(("nan_policy", value) for value in ("drop", None)),
    *(("on_failed", value) for value in ("error", None, ["warn"])),
    *(("partition_timeout", value) for value in (0, -1, "soon", [1], np.nan, "")),
    *(("keep_estimates", value) for value in ("yes", None, "memory", 1)),
    *(("split_every", value) for value in (1, 2.5, False)),
    *(("n_partitions", value) for value in (0, 1.5, "auto", None)),
]

WRONG_STARTS = [
    ("weights_init", [1.0]),
    ("weights_init", [0.5, 0.6]),
    ("weights_init", [-0.5, 1.5]),
    ("weights_init", [np.nan, 1.0]),
    ("weights_init", [[0.5, 0.5]]),
    ("weights_init", "equal"),
    ("means_init", np.zeros((3, 2))),
    ("means_init", np.zeros((2, 3))),
    ("means_init", np.zeros(2)),
    ("means_init", [[0, np.inf], [1, 1]]),
    ("precisions_init", np.zeros((2, 2, 2))),
    ("precisions_init", np.ones((2, 2))),
    ("precisions_init", -np.array([np.eye(2)] * 2)),
    ("precisions_init", np.array([[[1.0, 0.5], [0.0, 1.0]]] * 2)),
    ("precisions_init", [[["a"]]]),
]


class TestWrongParameters:
    """Named, with the value that was given, before anything is computed."""

    @pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: repr(value))
    def test_scalars(self, name, value, ddf, raise_if_dask_computes):
        with (
            raise_if_dask_computes(),
            pytest.raises((ValueError, TypeError), match=name) as caught,
        ):
            make(**{name: value}).fit(ddf)
        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "value"), WRONG_STARTS, ids=lambda value: str(value).replace("\n", "")
    )
    def test_starts(self, name, value, ddf, raise_if_dask_computes):
        with raise_if_dask_computes(), pytest.raises(ValueError, match=name):
            make(**{name: value}).fit(ddf)

    @pytest.mark.parametrize(
        ("covariance_type", "shape"), [("tied", (2, 2, 2)), ("diag", (2,)), ("spherical", (2, 2))]
    )
    def test_shapes_of_precisions(self, covariance_type, shape, ddf):
        gm = make(covariance_type=covariance_type, precisions_init=np.ones(shape))
        with pytest.raises(ValueError, match=r"precisions_init must have the shape \("):
            gm.fit(ddf)

    def test_nothing_is_learned_of_a_wrong_fit(self, ddf):
        gm = make(rho=0)
        with pytest.raises(ValueError, match="rho"):
            gm.fit(ddf)
        assert not [name for name in vars(gm) if name.endswith("_")]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("n_components", np.int64(2)),
            ("covariance_type", np.str_("diag")),
            ("init_params", np.str_("kmeans")),
            ("tol", np.float64(1e-3)),
            ("tol", 0),
            ("reg_covar", np.float32(1e-6)),
            ("rho", 2),
            ("rho", np.inf),
            ("min_partition_rows", np.int32(20)),
            ("split_every", np.int64(2)),
            ("partition_timeout", "1 hour"),
            ("partition_timeout", pd.Timedelta("1h").to_pytimedelta()),
            ("penalty", 0),
        ],
        ids=repr,
    )
    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_values_that_are_fine(self, name, value, ddf):
        assert make(**START | {name: value}).fit(ddf).n_partitions_ == M


class TestSeeds:
    def test_an_int_gives_the_same_bits_twice(self, ddf):
        assert same_bits(make().fit(ddf).mixture_, make().fit(ddf).mixture_)

    @pytest.mark.parametrize(
        "seed", [np.random.default_rng, np.random.RandomState, np.random.SeedSequence]
    )
    def test_equal_generators_give_the_same_bits(self, seed, ddf):
        a, b = (make(random_state=seed(1)).fit(ddf) for _ in range(2))
        assert same_bits(a.mixture_, b.mixture_)

    def test_none(self, ddf):
        np.testing.assert_allclose(make(random_state=None).fit(ddf).means_, TRUTH.means, atol=0.3)

    def test_global_state_is_left_alone(self, ddf):
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        make(random_state=None).fit(ddf)
        make(random_state=3).fit(ddf)
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002

    @pytest.mark.filterwarnings("ignore:estimates .* are copies:dask_dfmr.FilterWarning")
    @pytest.mark.parametrize("init_params", ["random", "random_from_data", "k-means++"])
    def test_partitions_have_streams_of_their_own(self, init_params):
        """The same rows in every partition: starts differ, and so do passes or likelihoods."""
        X = np.concatenate([make_rows(0, 300)] * 8)
        gm = make(n_components=3, init_params=init_params, n_partitions=8, max_iter=20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            gm.fit(X)
        assert len(set(gm.partition_report_["log_likelihood"])) > 1

    @pytest.mark.parametrize("seed", [0, np.random.RandomState(0), np.random.default_rng(0), None])
    def test_sample(self, ddf, seed):
        X, y = make(random_state=seed).fit(ddf).sample(50)
        assert X.shape == (50, 2)
        assert y.shape == (50,)

    def test_sample_is_reproducible(self, ddf):
        gm = make().fit(ddf)
        np.testing.assert_array_equal(gm.sample(50)[0], gm.sample(50)[0])


class TestStarts:
    @pytest.mark.parametrize(
        "init_params", ["pilot", "kmeans", "k-means++", "random", "random_from_data"]
    )
    def test_names(self, init_params, ddf):
        gm = make(init_params=init_params, n_init=3).fit(ddf)
        starts = gm.partition_report_["start"]
        assert starts.str.startswith(init_params).all()
        np.testing.assert_allclose(gm.means_, TRUTH.means, atol=0.3)

    def test_means_alone(self, ddf):
        gm = make(means_init=[[-3, 0], [3, 1]]).fit(ddf)
        np.testing.assert_allclose(gm.means_, TRUTH.means[::-1], atol=0.3)

    def test_weights_alone(self, ddf):
        gm = make(weights_init=[0.5, 0.5]).fit(ddf)
        np.testing.assert_allclose(gm.means_, TRUTH.means, atol=0.3)

    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    def test_everything_given(self, covariance_type, ddf):
        first = make(covariance_type=covariance_type).fit(ddf)
        gm = make(
            covariance_type=covariance_type,
            weights_init=first.weights_,
            means_init=first.means_,
            precisions_init=first.precisions_,
        ).fit(ddf)
        assert (gm.partition_report_["start"] == "given").all()
        assert gm.n_iter_ <= first.n_iter_
        np.testing.assert_allclose(gm.means_, first.means_, atol=1e-3)

    def test_means_for_delayed(self):
        gm = make(means_init=[[-3, 0], [3, 1]]).fit(make_delayed())
        np.testing.assert_allclose(gm.means_, TRUTH.means[::-1], atol=0.3)

    def test_a_pilot_of_bad_partitions_only_costs_nothing(self):
        """All pilots are bad in turn; the good partitions still find their optimum."""
        X = make_ddf(9, Reader({0: other_unit, 1: broken, 2: rolled, 3: empty}))
        gm = make(on_failed="ignore").fit(X)
        np.testing.assert_allclose(gm.means_, TRUTH.means, atol=0.3)

    def test_without_any_pilot(self):
        X = make_ddf(20, Reader({i: with_nan for i in range(20) if i != 7}))
        with pytest.warns(UserWarning, match="only 1 of 20"):
            gm = make(on_failed="ignore").fit(X)
        assert gm.support_.sum() == 1


def one_pass(**kwargs):
    """A fit of one pass, which goes on where the last one ended, and does not look for another optimum."""
    return make(warm_start=True, max_iter=1, check_optimum=None, **kwargs)


class TestWarmStart:
    def test_starts_from_the_last_mixture(self, ddf):
        gm = make(warm_start=True).fit(ddf)
        first = gm.n_iter_
        assert gm.partition_report_["start"].str.startswith("pilot").all()
        gm.fit(ddf)
        assert (gm.partition_report_["start"] == "given").all()
        assert gm.n_iter_ <= first

    def test_continues(self, ddf):
        gm = one_pass(tol=0)
        for _ in range(6):
            with pytest.warns(ConvergenceWarning, match="did not converge in 1 passes"):
                gm.fit(ddf)
        np.testing.assert_allclose(gm.means_, make().fit(ddf).means_, atol=0.001)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("tol", ["auto", 1e-4])
    def test_one_pass_at_a_time_converges(self, tol, ddf):
        gm = one_pass(tol=tol)
        converged = [gm.fit(ddf).converged_ for _ in range(12)]
        assert not converged[0]
        assert converged[-1]
        assert converged == sorted(converged)
        assert (gm.partition_report_["outcome"] == "not converged").all()
        np.testing.assert_allclose(gm.means_, make().fit(ddf).means_, atol=0.001)

    def test_a_fit_that_has_converged_does_not_warn_of_its_passes(self, ddf):
        gm = one_pass()
        with pytest.warns(ConvergenceWarning):
            gm.fit(ddf)
        while not gm.converged_:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                gm.fit(ddf)
        assert not [w for w in caught if issubclass(w.category, ConvergenceWarning)]

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_a_fit_of_other_rows_is_not_compared_with_the_last_one(self, ddf):
        gm = one_pass()
        for _ in range(12):
            gm.fit(ddf)
        assert gm.converged_
        assert not gm.fit(make_ddf(7)).converged_
        gm.set_params(warm_start=False)
        assert not gm.fit(ddf).converged_
        assert not gm.fit(ddf).converged_

    def test_off_starts_afresh(self, ddf):
        gm = make().fit(ddf)
        first = gm.mixture_
        assert same_bits(gm.fit(ddf).mixture_, first)

    @pytest.mark.parametrize("change", [{"n_components": 3}, {"covariance_type": "diag"}])
    def test_other_mixtures_cannot_be_continued(self, change, ddf):
        gm = make(warm_start=True).fit(ddf).set_params(**change)
        with pytest.raises(ValueError, match="warm_start"):
            gm.fit(ddf)

    def test_other_columns(self, ddf):
        gm = make(warm_start=True).fit(ddf)
        with pytest.raises(ValueError, match=r"warm_start|n_features"):
            gm.fit(ddf[["x"]])


class TestMethods:
    X = make_ddf(9, Reader({2: other_unit}))

    def test_mr_keeps_all(self):
        gm = make(method="mr", **START).fit(self.X)
        assert gm.support_.all()
        assert np.abs(gm.means_).max() > 100

    def test_coat_is_the_estimate_in_the_middle(self):
        gm = make(method="coat", **START).fit(self.X)
        center = gm.aggregate_.decision.center
        assert gm.support_.sum() == 1
        assert gm.support_[center]
        np.testing.assert_array_equal(gm.means_, gm.estimates_[center].mixture.means)

    def test_dfmr_excludes_what_is_far(self):
        assert not make(**START).fit(self.X).support_[2]

    def test_rho(self):
        n_kept = [make(rho=rho, **START).fit(self.X).support_.sum() for rho in (1, 1.3, 2, np.inf)]
        assert n_kept == sorted(n_kept)
        assert n_kept[0] == 5
        assert n_kept[-1] == 9

    def test_machine_weights(self):
        uneven = np.concatenate([make_rows(0, 2000), *(make_rows(i) for i in range(1, 8))])
        bounds = np.concatenate([[0, 2000], np.arange(2200, 3401, 200)])
        X = [dask.delayed(uneven[a:b]) for a, b in itertools.pairwise(bounds)]
        with pytest.warns(FilterWarning, match="holds"):
            by_rows = make(rho=np.inf, **START).fit(X)
        equal = make(rho=np.inf, machine_weights="equal", **START).fit(X)
        weights = [e.mixture.align_to(equal.mixture_).weights for e in equal.estimates_]
        np.testing.assert_allclose(equal.weights_, np.mean(weights, axis=0))
        assert not np.allclose(by_rows.weights_, equal.weights_, atol=1e-6)

    def test_not_converged(self, ddf):
        with pytest.warns(ConvergenceWarning, match="did not converge in 2 passes; raise max_iter"):
            gm = make(max_iter=2, init_params="random", tol=1e-12).fit(ddf)
        assert not gm.converged_
        assert (gm.partition_report_["outcome"] == "not converged").any()
        assert gm.n_iter_ == 2


# -- what is reported ----------------------------------------------------------------------------


class TestMessages:
    X = make_ddf(9, Reader({2: other_unit}))

    def test_quiet_by_default(self, capsys):
        make(**START).fit(self.X)
        assert capsys.readouterr() == ("", "")

    def test_verbose(self, capsys):
        make(verbose=1).fit(self.X)
        out, text = capsys.readouterr()
        assert out == ""
        assert "of 9 partitions kept" in text
        assert "excluded as too far from the center: 2 (x" in text or ", 2 (x" in text

    def test_verbose_on_a_client(self, capsys, client):
        make(verbose=1, **START).fit(self.X)
        assert "of 9 partitions kept" in capsys.readouterr().err

    def test_log(self, caplog):
        with caplog.at_level(logging.INFO, logger="dask_dfmr"):
            make(**START).fit(self.X)
        assert "fitting 9 partitions on a local scheduler" in caplog.text
        assert "of 9 partitions kept" in caplog.text

    def test_log_of_failures(self, caplog):
        with caplog.at_level(logging.WARNING, logger="dask_dfmr"):
            make(on_failed="ignore").fit(make_ddf(6, Reader({1: broken})))
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "partition 1: failed, OSError: the disk is gone" in record.message

    def test_repr_is_short(self):
        assert repr(GaussianMixture(3)) == "GaussianMixture(n_components=3)"


class TestFitPredict:
    def test_frames(self, ddf, raise_if_dask_computes):
        gm = make()
        labels = gm.fit_predict(ddf)
        assert isinstance(labels, dd.Series)
        np.testing.assert_array_equal(labels.compute(), gm.predict(ddf).compute())

    def test_arrays(self):
        X = make_rows()
        np.testing.assert_array_equal(make().fit_predict(X), make().fit(X).predict(X))

    def test_frames_in_memory(self):
        labels = make().fit_predict(make_frame())
        assert isinstance(labels, np.ndarray)
        assert labels.shape == (200,)
