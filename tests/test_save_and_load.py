"""Estimators that come back: from files, aggregates and mixtures, with the same bits."""

from __future__ import annotations

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from sklearn.exceptions import NotFittedError

from dask_dfmr import Aggregate, GaussianMixture, LocalEstimate, Mixture, aggregate
from tests.strategies import jiggled, random_mixture

KINDS = ["full", "tied", "diag", "spherical"]
FEW = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


def parts_of(n=8, bad=3):
    rng = np.random.default_rng(0)
    parts = [
        np.concatenate([rng.normal(-4, 1, (100, 2)), rng.normal(4, 1, (150, 2))]) for _ in range(n)
    ]
    parts[bad] *= 10
    return [pd.DataFrame(rows, columns=["a", "b"]) for rows in parts]


def fit(**parameters):
    given = {"check_optimum": None, "on_failed": "ignore", "random_state": 0} | parameters
    with dask.config.set(scheduler="synchronous"):
        return GaussianMixture(2, **given).fit([*parts_of(), parts_of()[0].iloc[:1]])


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    return fit(covariance_type=request.param, refine=2 if request.param == "diag" else 0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.dfmr"


def assert_same(a, b):
    """All attributes that have an underscore at their end, with their types."""
    names = [name for name in vars(a) if name.endswith("_")]
    assert names == [name for name in vars(b) if name.endswith("_")]
    for name in names:
        one, other = getattr(a, name), getattr(b, name)
        assert type(one) is type(other), name
        if isinstance(one, pd.DataFrame):
            assert_frame_equal(one, other)
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        elif isinstance(one, (Aggregate, list)):
            continue  # compared by what they do
        else:
            assert one == other or one != one, name


class TestFiles:
    def test_everything_comes_back(self, fitted, path):
        fitted.save(path)
        again = GaussianMixture.load(path)
        assert again.get_params() == fitted.get_params()
        assert_same(fitted, again)
        assert_frame_equal(fitted.explain(which="all"), again.explain(which="all"))
        X = parts_of()[0]
        np.testing.assert_array_equal(fitted.score_samples(X), again.score_samples(X))
        assert Aggregate.load(path).mixture == fitted.mixture_
        fewer = [gm.without(0) for gm in (fitted, again)]
        assert_same(*fewer)

    def test_a_truncated_fit_stays_one(self, path):
        gm = fit(row_outliers="truncate", row_outlier_level=0.02)
        gm.save(path)
        again = GaussianMixture.load(path)
        assert_same(gm, again)
        assert again.row_outlier_level == 0.02
        assert gm.without(0).row_outliers == "truncate"
        made = GaussianMixture.from_aggregate(again.aggregate_)
        assert (made.row_outliers, made.row_outlier_level) == ("truncate", 0.02)

    def test_an_update_after_a_file_is_that_before(self, path):
        gm = fit(keep_estimates=True)
        gm.save(path)
        again = GaussianMixture.load(path)
        new = [parts_of()[1] + 0.01]
        assert_same(gm.update(new), again.update(new))

    def test_a_file_without_estimates_predicts(self, fitted, path):
        fitted.save(path, estimates=False)
        again = GaussianMixture.load(path)
        assert again.estimates_ is None
        assert_frame_equal(fitted.partition_report_, again.partition_report_)
        with pytest.raises(ValueError, match="does not hold the local estimates"):
            again.explain()

    def test_predictions_stay_lazy(self, fitted, path):
        fitted.save(path)
        X = dd.from_pandas(parts_of()[0], npartitions=2)
        found = GaussianMixture.load(path).predict(X)
        np.testing.assert_array_equal(found.compute(), fitted.predict(parts_of()[0]))

    def test_a_score_still_knows_the_data_of_the_fit(self, path):
        X = dd.concat([dd.from_pandas(part, npartitions=1) for part in parts_of()])
        with dask.config.set(scheduler="synchronous"):
            gm = GaussianMixture(2, check_optimum=None, random_state=0).fit(X)
            gm.save(path)
            assert GaussianMixture.load(path).score(X) == gm.score(X) != gm.score(X, rows="all")

    def test_not_before_a_fit(self, path):
        with pytest.raises(NotFittedError):
            GaussianMixture().save(path)
        assert not path.exists()

    def test_the_file_of_an_aggregate_is_not_that_of_an_estimator(self, fitted, path):
        fitted.aggregate_.save(path)
        with pytest.raises(ValueError, match=r"from_aggregate\(Aggregate.load\(path\)\)"):
            GaussianMixture.load(path)

    @FEW
    @given(data=st.data())
    def test_any_parameters(self, tmp_path_factory, data):
        """Of a kind that is written in its own way."""
        m = random_mixture(0, 2)
        values = {
            "rho": st.sampled_from(["auto", 1.3, float("inf")]),
            "random_state": st.none() | st.integers(0, 2**32 - 1) | st.just(np.int64(3)),
            "init_params": st.sampled_from(["pilot", m]),
            "source": st.none() | st.text() | st.integers() | st.tuples(st.text(), st.integers()),
            "trusted_workers": st.sampled_from([None, ["a", "b"], {"T": 1}]),
            "partition_timeout": st.sampled_from([None, 3.5, "5 minutes"]),
            "verbose": st.booleans(),
        }
        given = {name: data.draw(strategy) for name, strategy in values.items()}
        gm = GaussianMixture.from_mixture(m, **given)
        path = tmp_path_factory.mktemp("any") / "model"
        gm.save(path)
        assert GaussianMixture.load(path).get_params() == gm.get_params()

    def test_arrays_and_seeds(self, path):
        seed = np.random.SeedSequence(7, spawn_key=(1, 2))
        gm = GaussianMixture.from_mixture(random_mixture(0, 2), random_state=seed)
        gm.set_params(weights_init=[0.5, 0.5], means_init=np.eye(2)).save(path)
        again = GaussianMixture.load(path)
        assert again.random_state.generate_state(2).tolist() == seed.generate_state(2).tolist()
        np.testing.assert_array_equal(again.means_init, np.eye(2))
        np.testing.assert_array_equal(again.weights_init, [0.5, 0.5])
        gm.set_params(random_state=np.random.default_rng(0)).save(path)
        assert GaussianMixture.load(path).random_state is None

    def test_a_source_that_no_file_can_hold(self, path):
        gm = GaussianMixture.from_mixture(random_mixture(0, 2), source=frozenset("ab"))
        with pytest.raises(ValueError, match="source must be a text or a number"):
            gm.save(path)
        assert not path.exists()


class TestWithoutAFit:
    def test_of_an_aggregate_elsewhere(self):
        truth = random_mixture(0, 2)
        estimates = [
            LocalEstimate(jiggled(truth, i, 0.01), 500, source=f"/data/part-{i:03d}.csv")
            for i in range(8)
        ]
        found = aggregate(estimates, random_state=0)
        gm = GaussianMixture.from_aggregate(found, nan_policy="omit")
        assert gm.aggregate_.notes == found.notes
        assert gm.mixture_ == found.mixture
        assert gm.nan_policy == "omit"
        assert gm.partition_report_["source"][4] == "/data/part-004.csv"
        assert gm.partition_report_["kept"].tolist() == found.decision.kept.tolist()
        fewer = gm.without("part-004.csv")
        assert fewer.mixture_ == aggregate(estimates[:4] + estimates[5:], random_state=0).mixture
        assert str(fewer.aggregate_.decision.refused[4]) == "removed"
        rows, _ = truth.sample(900, random_state=0)
        assert len(gm.update([rows]).partition_report_) == 9

    def test_of_an_aggregate_without_its_estimates(self, tmp_path):
        found = aggregate(
            [LocalEstimate(jiggled(random_mixture(0, 2), i, 0.01), 500) for i in range(4)],
            random_state=0,
        )
        found.save(tmp_path / "a", estimates=False)
        gm = GaussianMixture.from_aggregate(Aggregate.load(tmp_path / "a"))
        assert gm.n_partitions_ == 4
        assert gm.partition_report_["n_samples"].tolist() == [0] * 4
        assert np.isnan(gm.lower_bound_)

    def test_of_a_mixture(self):
        m = random_mixture(0, 2)
        m = m.reordered(np.argsort(m.weights))  # a fit would turn them round
        gm = GaussianMixture.from_mixture(m)
        assert gm.mixture_ == m
        rows, _ = m.sample(50, random_state=0)
        np.testing.assert_array_equal(gm.predict(rows), m.predict(rows))
        with pytest.raises(ValueError, match="n_samples"):
            gm.update([rows])
        gm = GaussianMixture.from_mixture(m, 1000)
        gm.update([m.sample(1000, random_state=i)[0] for i in range(3)])
        assert gm.partition_report_["n_samples"].tolist() == [1000] * 4
        assert gm.mixture_.align_to(m).weights == pytest.approx(gm.mixture_.weights)

    @pytest.mark.parametrize("wrong", [None, [1], "model.json", GaussianMixture()])
    def test_of_something_else(self, wrong):
        with pytest.raises(TypeError, match=r"must be a dask_dfmr\."):
            GaussianMixture.from_mixture(wrong)
        with pytest.raises(TypeError, match=r"must be a dask_dfmr\."):
            GaussianMixture.from_aggregate(wrong)

    @pytest.mark.parametrize("wrong", [0, 1.5, True, "many"])
    def test_of_a_mixture_of_no_rows(self, wrong):
        with pytest.raises(ValueError, match="n_samples"):
            GaussianMixture.from_mixture(random_mixture(0, 2), wrong)


SOURCES = (
    *("/data/2025/a.csv", "/data/2026/a.csv", "/data/2026/b.csv", "/data/2026/b.csv"),
    *("sensor='A7'", "site=3", "C:\\data\\c.csv", None),
)


@pytest.fixture(scope="module")
def named():
    m = random_mixture(0, 2)
    estimates = [
        LocalEstimate(jiggled(m, i, 0.01), 500, source=source) for i, source in enumerate(SOURCES)
    ]
    return aggregate(estimates, rho=float("inf"), random_state=0)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "indices"),
        [
            ("/data/2025/a.csv", [0]),
            ("2026/a.csv", [1]),
            ("b.csv", [2, 3]),
            ("A7", [4]),
            ("sensor='A7'", [4]),
            ("3", [5]),
            ("c.csv", [6]),
            (["2025/a.csv", 7], [0, 7]),
        ],
    )
    def test_of_sources(self, named, name, indices):
        assert sorted(named.without(name).decision.refused) == indices

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("a.csv", "the name of 2: /data/2025/a.csv, /data/2026/a.csv. Give more of the path"),
            ("d.csv", r"Similar ones are \['b.csv', 'a.csv'"),
            (".csv", "no source has the name"),
            ("", "is the name of 4"),
            ("zzzzz", r"The first sources are \['/data/2025/a.csv'"),
        ],
    )
    def test_of_none_or_several(self, named, name, message):
        with pytest.raises(ValueError, match=message):
            named.without(name)


class TestEstimates:
    @FEW
    @given(data=st.data())
    def test_all_of_an_estimate_comes_back(self, tmp_path_factory, data):
        kind = data.draw(st.sampled_from(KINDS))
        m = random_mixture(data.draw(st.integers(0, 99)), 2, covariance_type=kind)
        estimate = LocalEstimate(
            m,
            data.draw(st.integers(1, 2**61)),
            source=data.draw(st.none() | st.text()),
            log_likelihood=data.draw(st.floats()),
            n_iter=data.draw(st.integers(0, 9)),
        )
        path = tmp_path_factory.mktemp("estimate") / "site.json"
        estimate.save(path)
        again = LocalEstimate.load(path)
        for name in LocalEstimate.__dataclass_fields__:
            one, other = getattr(estimate, name), getattr(again, name)
            assert one == other or one != one, name

    def test_one_without_a_mixture(self, tmp_path):
        estimate = LocalEstimate(None, 3, "too few rows", "3 rows, fewer than 5", source="x")
        estimate.save(tmp_path / "a")
        assert LocalEstimate.load(tmp_path / "a") == estimate or np.isnan(estimate.log_likelihood)

    def test_another_file(self, tmp_path):
        random_mixture(0, 2).save(tmp_path / "m")
        with pytest.raises(ValueError, match="is not a saved estimate"):
            LocalEstimate.load(tmp_path / "m")
        LocalEstimate(random_mixture(0, 2), 5).save(tmp_path / "e")
        with pytest.raises(ValueError, match="is not a saved mixture"):
            Mixture.load(tmp_path / "e")
