"""Why a partition was excluded: golden sentences for what can be done to it, and no cause for consistent ones."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from dask_dfmr import GaussianMixture, LocalEstimate, Mixture, aggregate, fit_local
from dask_dfmr.explanation.causes import compare_refit, explain_estimate
from dask_dfmr.explanation.column_changes import ColumnChange, round_factor
from dask_dfmr.explanation.standard_errors import make_standard_errors
from dask_dfmr.explanation.table import with_estimate
from dask_dfmr.fitted import learned
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES
from dask_dfmr.mixtures.metrics import mixing_distance
from tests.data_makers import Reader, make_ddf, make_frame, other_unit, rolled

NAMES = ["FSC", "SSC", "B1"]
TRUTH = Mixture(
    [0.5, 0.3, 0.2],
    [[2.0, 1.0, 4.0], [5.0, 2.0, 1.0], [1.0, 5.0, 2.5]],
    [
        np.diag([0.5, 0.3, 0.4]),
        [[0.6, 0.2, 0.1], [0.2, 0.5, 0.0], [0.1, 0.0, 0.3]],
        [[0.3, -0.1, 0.0], [-0.1, 0.4, 0.1], [0.0, 0.1, 0.6]],
    ],
    feature_names=NAMES,
)
N = 2000


def rows_of(seed, truth=TRUTH, n=N):
    return truth.sample(n, np.random.default_rng(seed))[0]


def fit(rows, start=TRUTH, **kwargs):
    return fit_local(rows, 3, start=start, feature_names=NAMES, **kwargs)


@pytest.fixture(scope="module")
def consistent():
    return [fit(rows_of(seed)) for seed in range(16)]


@pytest.fixture(scope="module")
def errors(consistent):
    mixture = aggregate(consistent).mixture
    return make_standard_errors(mixture, N * len(consistent), consistent)


def spoilt(change, seed=100):
    """The estimate of rows whose columns were changed, as a fit with starts of its own finds it."""
    return fit(change(rows_of(seed)), "k-means++", n_init=5, random_state=0)


def scaled(j, factor, shift=0.0):
    def change(rows):
        rows[:, j] = rows[:, j] * factor + shift
        return rows

    return change


def reordered(*order):
    return lambda rows: rows[:, order]


GOLDEN = [
    (scaled(1, 10), "unit", (1,), "column 'SSC' is 10 times as large: another unit?"),
    (scaled(1, 100), "unit", (1,), "column 'SSC' is 100 times as large: another unit?"),
    (scaled(2, 0.001), "unit", (2,), "column 'B1' is 0.001 times as large: another unit?"),
    (scaled(0, 1.8, 32), "unit", (0,), "column 'FSC' is 1.8 times as large and shifted by +32"),
    (lambda rows: rows * 1000, "unit", (0, 1, 2), "all columns are 1000 times as large"),
    (scaled(0, -1), "sign", (0,), "column 'FSC' has the opposite sign"),
    (reordered(0, 2, 1), "swapped columns", (1, 2), "columns 'SSC' and 'B1' are swapped"),
    (reordered(2, 0, 1), "column order", (0, 1, 2), "they hold 'B1', 'FSC', 'SSC'"),
]


@pytest.mark.parametrize(("change", "kind", "columns", "text"), GOLDEN)
def test_changes_of_columns_are_named(errors, change, kind, columns, text):
    finding = explain_estimate(spoilt(change), errors)
    assert finding.kind == kind
    assert finding.columns == columns
    assert text in finding.text
    assert finding.p_value >= 1e-3
    # Undone, it is the fit of the rows before.
    assert mixing_distance(finding.corrected, fit(rows_of(100)).mixture) < 0.03


@pytest.mark.smoke
def test_two_columns_in_two_units_are_both_named(errors):
    finding = explain_estimate(spoilt(lambda rows: rows * [10, 1, 1000]), errors)
    assert finding.kind == "unit"
    assert finding.columns == (0, 2)
    assert "column 'FSC' is 10 times" in finding.text
    assert "column 'B1' is 1000 times" in finding.text


def test_an_offset_is_named_with_its_size(errors):
    finding = explain_estimate(spoilt(scaled(2, 1, 3.0)), errors)
    assert (finding.kind, finding.columns) == ("offset", (2,))
    assert float(finding.text.split("shifted by ")[1].split()[0]) == pytest.approx(3, abs=0.2)


def test_a_unit_is_found_in_another_optimum(errors):
    bad = Mixture([1 / 3] * 3, [[0, 0, 0], [1, 40, 1], [9, 90, 9]], [np.eye(3) * 99] * 3)
    estimate = fit(scaled(1, 10)(rows_of(100)), bad)
    finding = explain_estimate(estimate, errors)
    assert (finding.kind, finding.columns) == ("unit", (1,))


def test_other_proportions_are_named(errors):
    other = Mixture([0.2, 0.3, 0.5], TRUTH.means, TRUTH.covariances)
    finding = explain_estimate(fit(rows_of(7, other)), errors)
    assert finding.kind == "weights"
    assert finding.text.startswith("other proportions: weights 0.2")
    assert "instead of 0.5" in finding.text


@pytest.mark.smoke
def test_one_component_is_named(errors):
    means = TRUTH.means.copy()
    means[1] += [0.5, -0.5, 0.4]
    other = Mixture(TRUTH.weights, means, TRUTH.covariances)
    finding = explain_estimate(fit(rows_of(8, other), other), errors)
    assert (finding.kind, finding.component) == ("component", 1)
    assert finding.text.startswith("component 1 only: mean of ")
    assert finding.text.endswith(" se; the others agree")


def test_a_component_without_rows_agrees_with_nothing(errors):
    """All rows went to one component: the others say nothing of the rest."""
    estimate = spoilt(scaled(0, 1.8, 32.0))
    m = estimate.mixture
    means = m.means.copy()
    means[1:] = TRUTH.means[1:]
    alone = Mixture(
        [1 - 1e-30, *[1e-30 / (len(means) - 1)] * (len(means) - 1)], means, m.covariances
    )
    finding = explain_estimate(LocalEstimate(alone, estimate.n_samples), errors)
    assert finding.kind != "component"


def test_one_column_of_one_component_is_named(errors):
    means = TRUTH.means.copy()
    means[1, 2] += 0.5
    other = Mixture(TRUTH.weights, means, TRUTH.covariances)
    finding = explain_estimate(fit(rows_of(8, other), other), errors)
    assert (finding.kind, finding.component, finding.column) == ("component", 1, 2)
    assert "mean of 'B1' in component 1 +" in finding.text
    expected = 0.5 / np.sqrt(0.3 / (0.3 * N))  # were it known which rows are the component's
    assert 0.6 * expected < finding.z < 1.2 * expected


def test_another_population_is_no_simple_cause(errors):
    other = Mixture([0.4, 0.3, 0.3], TRUTH.means[:, ::-1] * 0.8 + 1, TRUTH.covariances * 1.7)
    finding = explain_estimate(fit(rows_of(9, other), other), errors)
    assert finding.kind == "unexplained"
    assert finding.text.startswith("no single cause: all components differ, most ")
    assert finding.p_value < 1e-3


def test_consistent_estimates_get_no_cause(errors):
    kinds = [explain_estimate(fit(rows_of(seed)), errors).kind for seed in range(200, 260)]
    assert kinds.count("nothing") >= 59


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_every_covariance_type(covariance_type):
    def fitted(rows, **kwargs):
        kwargs = {"start": "k-means++", "n_init": 3, "random_state": 0} | kwargs
        return fit_local(rows, 2, covariance_type=covariance_type, **kwargs)

    truth = Mixture([0.6, 0.4], [[0.0, 1.0, 2.0], [4.0, 5.0, 0.0]], [np.eye(3)] * 2)
    first = fitted(rows_of(0, truth)).mixture
    consistent = [fitted(rows_of(s, truth), start=first) for s in range(8)]
    errors = make_standard_errors(aggregate(consistent).mixture, 8 * N, consistent)
    assert explain_estimate(fitted(rows_of(50, truth)), errors).kind == "nothing"
    finding = explain_estimate(fitted(rows_of(51, truth) * 10), errors)
    assert (finding.kind, finding.columns) == ("unit", (0, 1, 2))
    finding = explain_estimate(fitted(rows_of(51, truth)[:, [0, 2, 1]]), errors)
    assert (finding.kind, finding.columns) == ("swapped columns", (1, 2))
    assert "columns 1 and 2 are swapped" in finding.text


def test_one_component_in_one_column():
    truth = Mixture([1.0], [[3.0]], [[[1.0]]])
    consistent = [fit_local(rows_of(s, truth, 200), 1) for s in range(8)]
    errors = make_standard_errors(aggregate(consistent).mixture, 1600, consistent)
    assert explain_estimate(consistent[0], errors).kind == "nothing"
    assert explain_estimate(fit_local(rows_of(9, truth, 200) * 10, 1), errors).kind == "unit"


def test_enormous_values_give_finite_statistics(errors):
    m = errors.mixture
    far = LocalEstimate(Mixture(m.weights, m.means + 1e120, m.covariances), N)
    finding = explain_estimate(far, errors)
    assert np.isfinite(finding.statistic)
    assert finding.kind != "nothing"


def test_it_is_deterministic(errors):
    estimate = spoilt(scaled(1, 10))
    assert explain_estimate(estimate, errors).text == explain_estimate(estimate, errors).text


def test_the_order_of_components_does_not_matter(errors):
    estimate = spoilt(scaled(1, 10))
    turned = LocalEstimate(estimate.mixture.reordered([2, 0, 1]), N)
    one, other = (explain_estimate(e, errors) for e in (estimate, turned))
    assert one.text == other.text
    assert one.statistic == pytest.approx(other.statistic)


def test_what_cannot_be_explained_is_named(errors):
    with pytest.raises(ValueError, match="must have a mixture"):
        explain_estimate(fit_local(rows_of(0)[:3], 3), errors)
    with pytest.raises(ValueError, match="must agree with the global mixture"):
        explain_estimate(fit_local(rows_of(0), 2), errors)


def test_statistics_of_consistent_estimates_follow_the_law(errors):
    p = [errors.p_value(errors.statistic(fit(rows_of(s)).mixture, N), 29) for s in range(300, 340)]
    assert 0.3 < np.mean(p) < 0.7


def test_standard_errors_are_those_of_repeated_fits(errors):
    means = np.array([errors.aligned(fit(rows_of(s)).mixture).means for s in range(400, 440)])
    ratio = means.std(axis=0, ddof=1) / (errors.of_one_row.means / np.sqrt(N))
    assert 0.85 < np.exp(np.log(ratio).mean()) < 1.15


def test_factors_are_rounded_to_known_ones():
    assert round_factor(9.93) == 10
    assert round_factor(0.00101) == pytest.approx(0.001)
    assert round_factor(2.53) == 2.54
    assert round_factor(1 / 25.2) == pytest.approx(1 / 25.4)


def test_undoing_a_change_gives_the_mixture_before():
    change = ColumnChange("unit and offset", (1,), 1.8, 32.0)
    rows = rows_of(0)
    done = fit(scaled(1, 1.8, 32)(rows.copy()), TRUTH, max_iter=1).mixture
    assert change.undone(done).means[:, 1] == pytest.approx((done.means[:, 1] - 32) / 1.8)
    order = (2, 0, 1)
    turned = Mixture(
        TRUTH.weights,
        TRUTH.means[:, order],
        TRUTH.covariances[:, order][:, :, order],
        feature_names=NAMES,
    )
    undone = ColumnChange("column order", (0, 1, 2), order=order).undone(turned)
    np.testing.assert_array_equal(undone.means, TRUTH.means)
    np.testing.assert_array_equal(undone.covariances, TRUTH.covariances)


@pytest.mark.smoke
def test_another_optimum_is_found_by_a_refit(errors):
    rows = rows_of(77)
    bad_start = Mixture([1 / 3] * 3, [[2, 1, 4], [2, 1.5, 4.5], [4, 4, 1.5]], [np.eye(3)] * 3)
    own = fit(rows, bad_start)
    finding = explain_estimate(own, errors)
    assert finding.kind == "optimum"
    assert "another optimum of the same data?" in finding.text
    better = compare_refit(finding, own, fit(rows, errors.mixture), errors)
    assert better.kind == "other optimum"
    assert better.text.startswith(
        "another optimum of the same data: refitted from the global mixture it agrees (p = "
    )
    # A refit that explains the rows worse leaves the finding as it is, and so does one that disagrees.
    best = LocalEstimate(own.mixture, N, log_likelihood=own.log_likelihood + 1)
    assert compare_refit(finding, best, fit(rows, errors.mixture), errors).kind == finding.kind
    assert compare_refit(finding, own, own, errors).kind == finding.kind


BAD = {2: lambda frame: frame.assign(y=frame["y"] * 10), 5: rolled, 7: other_unit}


@pytest.fixture(scope="module")
def data():
    return make_ddf(16, Reader(BAD, 400))


@pytest.fixture(scope="module")
def gm(data):
    with dask.config.set(scheduler="synchronous"):
        return GaussianMixture(2, random_state=0).fit(data)


class TestTable:
    @pytest.mark.smoke
    def test_the_report_says_why(self, gm):
        reasons = gm.partition_report_["reason"]
        assert reasons[2].endswith(": column 'y' is 10 times as large: another unit?")
        assert reasons[5].endswith(": columns 'x' and 'y' are swapped")
        assert ": all columns are 1000 times as large: another unit?" in reasons[7]

    @pytest.mark.smoke
    def test_without_rows(self, gm, raise_if_dask_computes):
        with raise_if_dask_computes():
            table = gm.explain()
        assert table["partition"].tolist() == [2, 5, 7]
        assert table["kind"].tolist() == ["unit", "swapped columns", "unit"]
        assert (table["p_value"] < 1e-3).all()
        assert (table["sampling_ratio"] > 3).all()
        assert table["worst_column"].isin(["x", "y"]).all()
        assert (table["w1_with"] > 0.1).all()
        assert table.equals(gm.aggregate_.explain())

    def test_w1_is_that_of_the_aggregate_with_it(self, gm):
        decision = gm.aggregate_.decision
        kept = [e for i, e in enumerate(gm.estimates_) if decision.kept[i] or i == 2]
        expected = aggregate(kept, rho=np.inf).mixture
        found = with_estimate(gm.aggregate_, gm.estimates_[2])
        assert mixing_distance(found, expected) < 1e-9
        w1 = mixing_distance(expected, gm.mixture_)
        assert gm.explain().loc[2, "w1_with"] == pytest.approx(w1)

    def test_with_rows(self, gm, data):
        with dask.config.set(scheduler="synchronous"):
            table = gm.explain(data)
        rows = make_frame(2, 400).assign(y=lambda frame: frame["y"] * 10)
        assert table.loc[2, "log_likelihood"] == pytest.approx(gm.mixture_.score(rows.to_numpy()))
        assert (table["log_likelihood"] < table["kept_log_likelihood"] - 1).all()
        assert (table["log_likelihood_with"] < -0.01).all()
        assert table["kind"].tolist() == ["unit", "swapped columns", "unit"]

    def test_all(self, gm):
        table = gm.explain(which="all")
        assert len(table) == 16
        kept = table.drop(index=[2, 5, 7])
        assert (kept["w1_with"] == 0).all()
        assert (kept["kind"] == "nothing").sum() >= 12

    def test_a_refit_shows_another_optimum(self):
        """Fits with starts of their own end in different optima; refits agree."""
        rows = np.concatenate([rows_of(seed, n=400) for seed in range(16)])
        gm = GaussianMixture(
            3,
            init_params="random_from_data",
            random_state=10,
            n_partitions=16,
            refit_excluded=False,
        )
        with dask.config.set(scheduler="synchronous"):
            gm.fit(rows)
            table = gm.explain(rows)
        assert len(table) == (~gm.support_).sum() >= 2
        assert (gm.explain()["kind"] == "optimum").all()
        assert (table["kind"] == "other optimum").all()
        assert (table["log_likelihood"] > table["kept_log_likelihood"] - 0.3).all()

    def test_nothing_excluded_is_an_empty_table(self):
        with dask.config.set(scheduler="synchronous"):
            gm = GaussianMixture(2, random_state=0, rho=np.inf).fit(make_ddf(6))
            table, with_rows = gm.explain(), gm.explain(make_ddf(6))
        assert len(table) == len(with_rows) == 0
        assert "finding" in table.columns

    def test_a_cluster_gives_the_same(self, client, gm, data):
        with dask.config.set(scheduler="synchronous"):
            expected = gm.explain(data)
        assert gm.explain(data).equals(expected)

    def test_what_goes_wrong_is_named(self, gm):
        with pytest.raises(ValueError, match="which must be one of 'unusual', 'excluded', 'all'"):
            gm.explain(which="bad")
        with pytest.raises(ValueError, match="in 16 partitions; got 3"):
            gm.explain(make_ddf(3))
        with pytest.raises(ValueError, match="X must have the columns of fit"):
            gm.explain(make_ddf(16).rename(columns={"y": "z"}))
        with pytest.raises(NotFittedError):
            GaussianMixture(2).explain()
        with dask.config.set(scheduler="synchronous"):
            bare = GaussianMixture(2, random_state=0, keep_estimates=False).fit(make_ddf(6))
        with pytest.raises(ValueError, match="does not hold the local estimates"):
            bare.explain()


EXTREMES = {
    "large": (1e130, lambda rows: rows * 1.5),
    "small": (1e-130, lambda rows: rows * 1.5),
    "small, and one large": (1e-100, lambda rows: rows * 1e230),
    "large, and one small": (1e139, lambda rows: rows * 1e-270),
    "one large column": (1.0, lambda rows: rows * [1e139, 1.0]),
    "one small column": (1.0, lambda rows: rows * [1e-139, 1.0]),
    "columns of all sizes": (np.array([1e-130, 1e130]), lambda rows: rows * 1.5),
    "such columns swapped": (np.array([1e-130, 1e130]), lambda rows: rows[:, ::-1]),
}


class TestExtremeNumbers:
    """Numbers of any size that a fit accepts, up to 1e140, are explained."""

    @pytest.mark.parametrize("name", EXTREMES)
    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    def test_an_explanation_costs_no_fit(self, name, covariance_type):
        scale, change = EXTREMES[name]
        draw = np.random.default_rng(0).normal
        parts = [
            draw(rows % 2 * 4.0, 1.0, (400, 2)) * scale for rows in [np.arange(400)[:, None]] * 8
        ]
        parts[2] = change(parts[2])
        options = {"check_optimum": None, "refit_excluded": False, "random_state": 0}
        with dask.config.set(scheduler="synchronous"):
            gm = GaussianMixture(2, covariance_type=covariance_type, **options).fit(parts)
        assert gm.support_.tolist() == [i != 2 for i in range(8)]
        assert ": " in gm.partition_report_["reason"][2]
        table = gm.explain(which="all")
        assert len(table) == 8
        assert table["finding"].str.len().min() > 10
        assert np.isfinite(table["z"]).all()
        assert (table["w1_with"][[2]] > 0).all()

    @pytest.mark.parametrize("scale", [1.0, 1e78, 1e130])
    def test_the_finding_does_not_depend_on_the_unit(self, scale):
        draw = np.random.default_rng(0).normal
        parts = [
            draw(rows % 2 * 4.0, 1.0, (400, 2)) * scale for rows in [np.arange(400)[:, None]] * 8
        ]
        parts[2] *= [1000.0, 1.0]
        with dask.config.set(scheduler="synchronous"):
            gm = GaussianMixture(2, check_optimum=None, random_state=0).fit(parts)
        assert gm.explain()["finding"].tolist() == [
            "column 0 is 1000 times as large: another unit?"
        ]

    def test_an_error_in_an_explanation_leaves_the_fit(self, monkeypatch):
        def fail(*args, **kwargs):
            raise np.linalg.LinAlgError("singular")

        monkeypatch.setattr(learned, "short_findings", fail)
        said = []
        monkeypatch.setattr(learned.logger, "exception", said.append)
        parts = [make_frame(i) * (1000.0 if i == 2 else 1.0) for i in range(8)]
        gm = GaussianMixture(2, check_optimum=None, random_state=0).fit(parts)
        assert gm.support_.tolist() == [i != 2 for i in range(8)]
        assert "could not be explained" in said[0]
