"""Displays: what is drawn is what was computed, names fit, and text from data is no formula."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import Mock

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from dask_dfmr import (
    BreakdownDisplay,
    DriftDisplay,
    GaussianMixture,
    Mixture,
    MixtureDisplay,
    PartitionDisplay,
    Selection,
    SelectionDisplay,
    aggregate,
    fit_local,
)
from dask_dfmr.plotting.axes import literal, short_sources, shortened, spaced
from tests.data_makers import COLUMNS, TRUTH, make_frame, make_rows, other_unit, with_nan

matplotlib = pytest.importorskip("matplotlib")
pyplot = pytest.importorskip("matplotlib.pyplot")

BAD, LOST = 3, 5
N_PARTITIONS, N_ROWS = 12, 150


@pytest.fixture(autouse=True)
def _closed():
    with pyplot.rc_context({"backend": "agg", "figure.max_open_warning": 0}):
        yield
    pyplot.close("all")


def frames() -> list[pd.DataFrame]:
    found = [make_frame(i, N_ROWS) for i in range(N_PARTITIONS)]
    found[BAD], found[LOST] = other_unit(found[BAD]), with_nan(found[LOST])
    return found


@pytest.fixture(scope="module")
def fitted() -> GaussianMixture:
    options = {"random_state": 0, "check_optimum": None, "on_failed": "ignore"}
    return GaussianMixture(2, refit_excluded=False, **options).fit(frames())


def texts(display) -> list[str]:
    """Every text of a drawn figure that is not a number of an axis."""
    found = display.figure_.findobj(matplotlib.text.Text)
    return [t.get_text() for t in found if t.get_text()]


def inside(display) -> None:
    """No text runs out of the figure, and no two names of partitions overlap."""
    figure = display.figure_
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    box = figure.get_tightbbox(renderer)  # of what is drawn, in inches
    width, height = figure.get_size_inches()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02
    for ax in figure.axes:
        labels = [t.get_window_extent(renderer) for t in ax.get_yticklabels() if t.get_text()]
        labels.sort(key=lambda extent: extent.y0)
        for below, above in pairwise(labels):
            assert below.y1 <= above.y0 + 0.5


# -- names -----------------------------------------------------------------------------------------


class TestNames:
    def test_a_short_name_stays(self):
        assert shortened("plate-03") == "plate-03"

    def test_a_long_one_loses_its_middle(self):
        short = shortened("a" * 40 + "end", 11)
        assert len(short) == 11
        assert short == "aaaaa…aaend"

    def test_it_is_in_one_line(self):
        assert shortened("a\n\tb\x00c") == "a b c"

    def test_of_a_path_the_end_stays(self):
        assert short_sources(["s3://bucket/very/long/folder/of/files/plate.parquet"]) == [
            "plate.parquet"
        ]

    def test_long_names_stay_different(self):
        names = [f"sensor='the sensor number {i} behind the second door'" for i in range(20)]
        short = short_sources(names)
        assert len(set(short)) == len(names)
        assert max(map(len, short)) <= 26

    @pytest.mark.parametrize("text", ["a$b$c", "$x", r"\$x$", "$$", "a_b^2"])
    def test_no_text_is_a_formula(self, text):
        written = literal(text)
        assert not matplotlib.cbook.is_math_text(written)
        assert written.replace(r"\$", "$") == text  # which matplotlib does

    def test_labels_keep_their_distance(self):
        places, far = np.arange(10.0), np.arange(10.0)
        assert spaced(places, far, 3, 3) == [9, 6, 3]


# -- mixtures --------------------------------------------------------------------------------------


class TestMixtureDisplay:
    def test_ellipses_have_the_axes_of_the_covariances(self):
        d = MixtureDisplay.from_estimator(TRUTH, coverage=0.7)
        radius = np.sqrt(-2 * np.log(1 - 0.7))  # the chi-square law with two degrees of freedom
        for ellipse, mean, cov in zip(d.ellipses_[0], TRUTH.means, TRUTH.covariances, strict=True):
            assert_allclose(ellipse.center, mean)
            size = sorted([ellipse.width, ellipse.height])
            assert_allclose(size, 2 * radius * np.sqrt(np.linalg.eigvalsh(cov)))
            angle = np.radians(ellipse.angle)
            along = np.array([np.cos(angle), np.sin(angle)])
            assert_allclose(along @ cov @ along, (ellipse.width / 2 / radius) ** 2)

    def test_an_ellipse_holds_its_share_of_the_rows(self):
        d = MixtureDisplay.from_estimator(TRUTH, coverage=0.8)
        X, labels = TRUTH.sample(20000, 0)
        for k, ellipse in enumerate(d.ellipses_[0]):
            held = ellipse.get_path().contains_points(
                ellipse.get_patch_transform().inverted().transform(X[labels == k])
            )
            assert_allclose(held.mean(), 0.8, atol=0.02)

    def test_of_many_columns_the_marginal_is_drawn(self):
        covariances = [np.diag([1.0, 4.0, 9.0]), np.eye(3)]
        m = Mixture(
            [0.5, 0.5], [[0, 0, 0], [50, 1, 90]], covariances, feature_names=["a", "b", "c"]
        )
        d = MixtureDisplay.from_estimator(m)
        assert d.columns == [(0, 2)]  # those that separate the components
        sizes = [sorted([e.width, e.height]) for e in d.ellipses_[0]]
        assert_allclose(sizes[0][1] / sizes[0][0], 3)
        assert_allclose(sizes[1][1] / sizes[1][0], 1)
        assert len(MixtureDisplay.from_estimator(m, columns=["c", "a", "b"]).axes_) == 3

    @pytest.mark.parametrize("kind", ["memory", "frame", "array", "delayed"])
    def test_rows_are_counted_where_they_are(self, kind):
        rows = np.concatenate([make_rows(i) for i in range(4)])
        frame = pd.DataFrame(rows, columns=COLUMNS).assign(sensor="a")
        X = {
            "memory": rows,
            "frame": dd.from_pandas(frame[["sensor", "y", "x"]], npartitions=3),
            "array": dask.array.from_array(rows, chunks=(300, 2)),
            "delayed": [
                dask.delayed(pd.DataFrame)(part, columns=COLUMNS) for part in np.split(rows, 4)
            ],
        }[kind]
        d = MixtureDisplay.from_estimator(TRUTH, X)
        histogram = d.histograms[0]
        expected, _ = np.histogramdd(rows, bins=histogram.edges)
        assert_array_equal(histogram.counts, expected)
        assert histogram.counts.sum() > 0.97 * len(rows)

    def test_a_partition_that_cannot_be_read_is_not_counted(self, monkeypatch):
        log = Mock()  # other tests of the process may have changed the state of logging
        monkeypatch.setattr("dask_dfmr.on_dask.histograms.logger", log)
        parts = [dask.delayed(make_rows)(0), dask.delayed(int)("no number")]
        d = MixtureDisplay.from_estimator(TRUTH, parts)
        assert 190 <= d.histograms[0].counts.sum() <= 200
        text, *numbers = log.warning.call_args.args
        assert text % tuple(numbers) == "1 of 2 partitions could not be counted"

    def test_one_column_is_a_density(self):
        m = Mixture([0.4, 0.6], [[0.0], [5.0]], [1.0, 1.0], "spherical")
        d = MixtureDisplay.from_estimator(m)
        x, y = d.ax_.get_lines()[-1].get_data()
        assert_allclose(y, np.exp(m.score_samples(x[:, None])), rtol=1e-6)

    def test_components_on_one_place_share_a_label(self):
        m = Mixture([0.5, 0.3, 0.2], [[0, 0], [0.01, 0], [9, 9]], [1.0, 4.0, 1.0], "spherical")
        d = MixtureDisplay.from_estimator(m)
        assert [t.get_text() for t in d.ax_.texts] == ["0, 1", "2"]

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="coverage must be a share between 0 and 1"):
            MixtureDisplay.from_estimator(TRUTH, coverage=2)
        with pytest.raises(ValueError, match="no column 'z'"):
            MixtureDisplay.from_estimator(TRUTH, columns=["x", "z"])
        with pytest.raises(ValueError, match=r"plt\.subplots\(1, 1\)"):
            MixtureDisplay.from_estimator(TRUTH, ax=pyplot.subplots(1, 2)[1])
        with pytest.raises(TypeError, match="or a Mixture; got int"):
            MixtureDisplay.from_estimator(3)
        with pytest.raises(NotFittedError, match="Call its fit"):
            MixtureDisplay.from_estimator(GaussianMixture())
        with pytest.raises(ValueError, match="missing"):
            MixtureDisplay.from_estimator(TRUTH, dd.from_pandas(make_frame()[["x"]], npartitions=1))


# -- partitions ------------------------------------------------------------------------------------


class TestPartitionDisplay:
    def test_points_are_the_distances_of_the_decision(self, fitted):
        d = PartitionDisplay.from_estimator(fitted)
        ratios = fitted.aggregate_.decision.sampling_ratios
        by_label = {line.get_label(): line for line in d.ax_.get_lines()}
        assert_array_equal(by_label["kept"].get_xdata(), ratios[fitted.support_])
        assert_array_equal(by_label["excluded"].get_ydata(), [BAD])
        assert_array_equal(by_label["no estimate"].get_ydata(), [LOST])
        assert d.labelled_ == [BAD, LOST]
        assert "no estimate: not finite" in texts(d)
        inside(d)

    def test_the_limit_parts_kept_from_excluded(self, fitted):
        d = PartitionDisplay.from_estimator(fitted)
        decision = fitted.aggregate_.decision
        is_below = decision.sampling_ratios[np.isfinite(decision.sampling_ratios)] <= d.limit
        assert_array_equal(is_below, decision.kept[np.isfinite(decision.sampling_ratios)])

    def test_a_fixed_rho_is_the_limit_in_radii(self, fitted):
        d = PartitionDisplay.from_estimator(fitted.aggregate_.with_rho(1.3))
        assert d.limit == 1.3
        assert "in radii" in d.unit

    @pytest.mark.parametrize("n", [1, 3, 30, 3000])
    def test_labels_fit_whatever_the_number_and_the_names(self, n):
        rng = np.random.default_rng(0)
        distances = rng.chisquare(9, n) / 9
        kept = rng.random(n) > 0.2
        distances[~kept] *= 5
        names = [f"s3://bucket/folder/<b>station-{i}-{'x' * 80}.parquet" for i in range(n)]
        d = PartitionDisplay(distances, kept, names, notes=["$" * 99] * n, limit=2.0).plot()
        inside(d)
        assert len(d.labelled_) + d.n_unlabelled_ == (~kept).sum()
        said = f"and {d.n_unlabelled_:,} more excluded" in texts(d)
        assert said == (d.n_unlabelled_ > 0)

    def test_large_distances_are_on_a_logarithmic_axis(self):
        d = PartitionDisplay([0.0, 1.0, 1e4], [True, True, False], ["a", "b", "c"]).plot()
        assert d.ax_.get_xscale() == "log"


# -- drift -----------------------------------------------------------------------------------------


class TestDriftDisplay:
    def test_values_are_those_of_matched_components(self, fitted):
        d = DriftDisplay.from_estimator(fitted, 1, column="x")
        weight, mean, spread = d.tracks
        for i, estimate in enumerate(fitted.estimates_):
            if estimate.mixture is None:
                assert np.isnan([t.values[i] for t in d.tracks]).all()
                continue
            # The naive matching of two components: the nearer of both orders.
            m = min(
                (estimate.mixture.reordered(o) for o in ([0, 1], [1, 0])),
                key=lambda m: np.abs(m.means / m.means.std() - fitted.means_ / 3).sum(),
            )
            if i != BAD:
                assert weight.values[i] == m.weights[1]
                assert mean.values[i] == m.means[1, 0]
                assert spread.values[i] == np.sqrt(m.covariances[1, 0, 0])
        assert mean.reference == fitted.means_[1, 0]

    def test_errors_are_about_those_of_labelled_rows(self, fitted):
        d = DriftDisplay.from_estimator(fitted, 0, column="y")
        mean = d.tracks[1]
        naive = np.sqrt(fitted.covariances_[0, 1, 1] / (fitted.weights_[0] * N_ROWS))
        assert_allclose(mean.errors[0] / naive, 1, atol=0.3)

    def test_by_default_the_mean_that_drifts_is_drawn(self):
        rng = np.random.default_rng(0)
        shift = np.array([0.0, 1.0])
        parts = [rng.normal(size=(400, 2)) + i * 0.02 * shift for i in range(12)]
        found = aggregate([fit_local(X, 1, random_state=0) for X in parts])
        d = DriftDisplay.from_estimator(found, times=pd.date_range("2026-01-01", periods=12))
        assert "component 0, column column 1" in d.ax_.get_title(loc="left")
        assert np.polyfit(np.arange(12), d.tracks[1].values, 1)[0] > 0.01
        inside(d)

    def test_far_points_are_triangles_at_the_edge(self):
        values = np.r_[np.linspace(0, 1, 20), 1e6, -1e6]
        d = DriftDisplay([("mean", values, 0.5, None)], [True] * 20 + [False] * 2).plot()
        assert d.ax_.get_ylim()[1] < 2
        assert [line.get_marker() for line in d.ax_.get_lines()][2:] == ["^", "v"]

    def test_wrong_arguments(self, fitted):
        with pytest.raises(ValueError, match="component must be below 2"):
            DriftDisplay.from_estimator(fitted, 2)
        with pytest.raises(ValueError, match="times must be 12 numbers or dates"):
            DriftDisplay.from_estimator(fitted, times=["monday"] * N_PARTITIONS)


# -- selections and stress tests -------------------------------------------------------------------


def selection_of(table: pd.DataFrame, **values) -> Selection:
    nothing = dict.fromkeys(Selection.__dataclass_fields__)
    return Selection(**nothing | {"table": table, "n_samples": 100, "n_held_out": 10} | values)


def make_table(structures: list[str]) -> pd.DataFrame:
    rows = [
        (k, s, 1000.0 / k + 40 * k + 10 * j, 900.0 / k + 20 * k, 500.0, 0.1 / k, 0.01)
        for j, s in enumerate(structures)
        for k in (3, 1, 2)
    ]
    names = ["n_components", "covariance_type", "bic", "aic", "icl"]
    return pd.DataFrame(rows, columns=[*names, "held_out_gap", "held_out_gap_se"])


class TestSelectionDisplay:
    def test_criteria_are_behind_the_best_per_row(self):
        table = make_table(["full"])
        d = SelectionDisplay.from_selection(selection_of(table, criterion="bic", best=0))
        assert list(d.lines) == ["bic", "aic", "icl", "held_out"]
        line = d.lines["bic"]
        assert_array_equal(line.n_components, [1, 2, 3])
        expected = np.array([1040.0, 580.0, 1000 / 3 + 120])
        assert_allclose(line.behind, (expected - expected.min()) / 200)
        assert_array_equal(d.ax_.get_lines()[0].get_ydata(), line.behind)
        inside(d)

    def test_several_structures_are_lines_of_one_criterion(self):
        table = make_table(["full", "diag"])
        d = SelectionDisplay.from_selection(selection_of(table, criterion="bic", best=1))
        assert list(d.lines) == ["full", "diag"]
        assert_allclose(d.lines["diag"].behind - d.lines["full"].behind, 10 / 200)

    def test_nothing_else_is_taken(self):
        with pytest.raises(TypeError, match="selection must be a Selection"):
            SelectionDisplay.from_selection(make_table(["full"]))


class TestBreakdownDisplay:
    def test_no_result_is_a_cross_at_the_edge(self):
        errors = {"good": [0.5, 0.001], "lost": [1.0, np.inf]}
        d = BreakdownDisplay([0.0, 0.4], errors, breakdown_at=2.0, title="a $b$ c").plot()
        good, lost, cross = d.ax_.get_lines()[:3]
        assert_array_equal(good.get_ydata(), [0.5, 0.01])
        assert_array_equal(np.isnan(lost.get_ydata()), [False, True])
        assert cross.get_xdata() == [0.4]
        inside(d)


def test_a_row_alone_in_its_bin_is_visible():
    from matplotlib.collections import QuadMesh

    mixture = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [1.5, 1.5]])
    axes = MixtureDisplay.from_estimator(GaussianMixture.from_mixture(mixture), rows).ax_
    (mesh,) = (artist for artist in np.ravel(axes)[0].collections if isinstance(artist, QuadMesh))
    assert mesh.cmap(mesh.norm(1.0))[0] < 0.95
