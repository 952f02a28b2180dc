"""The value ``Mixture``: checks, density, sampling, views, files."""

import json
import os
import pickle
import stat

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from dask_dfmr import Mixture
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from tests import naive
from tests.strategies import covariance_types, mixtures, random_mixture, seeds, shuffled

pytestmark = pytest.mark.smoke

EYE = [[1.0, 0.0], [0.0, 1.0]]
GOOD = {"weights": [0.4, 0.6], "means": [[0.0, 0.0], [3.0, 1.0]], "covariances": [EYE, EYE]}

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def rows_near(mixture, n=200):
    return np.random.default_rng(1).normal(0, 4, (n, mixture.n_features))


class TestConstruction:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weights": [[0.4, 0.6]]}, r"weights must have the shape \(n_components,\); got \(1"),
            ({"weights": []}, r"weights must have the shape \(n_components,\); got \(0,\)"),
            ({"weights": [-0.2, 1.2]}, "weights must not be negative; got -0.2"),
            ({"weights": [0.4, 0.5]}, "weights must sum to 1; their sum is 0.9"),
            ({"weights": [0.4, np.nan]}, "weights must be finite; got 1 NaN"),
            ({"weights": ["a", "b"]}, "weights must be an array of numbers; got list"),
            ({"weights": [10**400, 0]}, "weights must be"),
            ({"means": [[0.0, 0.0]]}, r"means must have the shape .*= 2.*got \(1, 2\)"),
            ({"means": [0.0, 3.0]}, r"means must have the shape .*got \(2,\)"),
            ({"means": [[], []]}, r"means must have the shape .*got \(2, 0\)"),
            ({"means": [[0.0, np.inf], [3.0, 1.0]]}, "means must be finite; got 1"),
            ({"means": [[0.0, 0.0], [3.0]]}, "means must be an array of numbers"),
            ({"covariances": EYE}, r"'full' must have the shape \(2, 2, 2\); got \(2, 2\)"),
            (
                {"covariances": [EYE, [[1, 0.5], [0, 1]]]},
                r"covariances\[1\] must be symmetric.*0.5",
            ),
            ({"covariances": [[[1, 2], [2, 1]], EYE]}, r"covariances\[0\] must be positive.* -1"),
            ({"covariances": [EYE, [[1, 0], [0, np.nan]]]}, "covariances must be finite; got 1"),
            ({"covariance_type": "banana"}, "covariance_type must be one of 'full'.*got 'banana'"),
            ({"covariance_type": None}, "covariance_type must be one of 'full'.*got None"),
            ({"feature_names": ["a"]}, r"feature_names must be 2 different names.*\('a',\)"),
            ({"feature_names": ["a", "a"]}, r"feature_names must be 2 different names"),
            ({"feature_names": "ab"}, r"feature_names"),
        ],
    )
    def test_an_error_names_argument_expectation_and_finding(self, change, message):
        with pytest.raises((ValueError, TypeError), match=message):
            Mixture(**GOOD | change)

    @pytest.mark.parametrize(
        ("covariance_type", "covariances", "message"),
        [
            ("diag", [[1.0, 1.0], [1.0, 0.0]], "must be positive.* 0"),
            ("spherical", [1.0, -2.0], "must be positive.* -2"),
            ("tied", [[1.0, 0.5], [0.0, 1.0]], "covariances must be symmetric"),
            ("tied", [[1.0, 2.0], [2.0, 1.0]], "covariances must be positive definite"),
            ("spherical", [[1.0], [1.0]], r"must have the shape \(2,\); got \(2, 1\)"),
            ("tied", [EYE, EYE], r"must have the shape \(2, 2\); got \(2, 2, 2\)"),
            ("diag", [1.0, 1.0], r"must have the shape \(2, 2\); got \(2,\)"),
        ],
    )
    def test_the_other_types_are_checked_in_their_own_shape(
        self, covariance_type, covariances, message
    ):
        with pytest.raises(ValueError, match=message):
            Mixture(GOOD["weights"], GOOD["means"], covariances, covariance_type)

    def test_complex_numbers_are_refused(self):
        with pytest.raises(ValueError, match="covariances must be"):
            Mixture(**GOOD | {"covariances": np.array([EYE, EYE], dtype=complex)})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"means": [[1e200, 0.0], [0.0, 0.0]]}, r"means must not exceed 1e.*; got 1e\+200"),
            (
                {"covariances": [np.eye(2) * 1e300, EYE]},
                r"covariances\[0\] must have variances from",
            ),
            (
                {"covariances": [EYE, np.eye(2) * 1e-300]},
                r"covariances\[1\] must have variances from",
            ),
            ({"covariances": [EYE, [[1e16, 1e16], [1e16, 1e16 + 2]]]}, "regular to rounding"),
        ],
    )
    def test_what_floating_point_cannot_bear_is_refused(self, change, message):
        with pytest.raises(ValueError, match=message):
            Mixture(**GOOD | change)

    def test_columns_in_very_different_units_are_fine(self):
        unit = np.array([1e-60, 1e60])
        sigma = [np.outer(unit, unit) * [[1.0, 0.9], [0.9, 1.0]]] * 2
        assert Mixture(GOOD["weights"], GOOD["means"] * unit, sigma).n_features == 2

    def test_asymmetry_within_rounding_is_removed(self):
        sigma = np.array([EYE, [[1.0, 0.5], [0.5 + 1e-12, 1.0]]])
        m = Mixture(**GOOD | {"covariances": sigma})
        assert_array_equal(m.covariances, m.covariances.transpose(0, 2, 1))

    def test_arrays_are_read_only_copies(self):
        weights = np.array([0.4, 0.6])
        m = Mixture(**GOOD | {"weights": weights})
        weights[0] = 7.0
        assert m.weights[0] == 0.4
        for array in (m.weights, m.means, m.covariances):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0.0

    def test_fields_cannot_be_set(self):
        with pytest.raises(AttributeError):
            Mixture(**GOOD).weights = np.ones(2)

    @every_type
    def test_the_family_makes_a_mixture_of_its_components(self, covariance_type):
        m = random_mixture(1, covariance_type=covariance_type)
        assert m.family.mixture(m.weights, m.components) == m


class TestValue:
    def test_repr_says_shape_type_and_names(self):
        assert repr(Mixture(**GOOD, feature_names=["a", "b"])) == (
            "Mixture(n_components=2, n_features=2, covariance_type='full', feature_names=('a', 'b'))"
        )

    def test_equal_numbers_are_equal_and_hash_alike(self):
        a, b = Mixture(**GOOD), Mixture(**GOOD)
        assert a == b
        assert hash(a) == hash(b)

    def test_other_numbers_order_names_or_type_are_not_equal(self):
        m = random_mixture(2)
        assert m != random_mixture(3)
        assert m != m.reordered([2, 1, 0])
        assert m != Mixture(m.weights, m.means, m.covariances, "full", ["a", "b"])
        assert m != "mixture"

    @every_type
    def test_counts_its_free_parameters(self, covariance_type):
        m = random_mixture(1, 3, 4, covariance_type)
        covariance_parameters = {"full": 3 * 10, "tied": 10, "diag": 3 * 4, "spherical": 3}
        assert m.n_parameters == 2 + 12 + covariance_parameters[covariance_type]

    def test_knows_its_family(self):
        assert random_mixture(1, covariance_type="diag").family == Gaussian("diag")

    def test_pickles_to_itself(self):
        m = random_mixture(4)
        assert pickle.loads(pickle.dumps(m)) == m


class TestDensity:
    @every_type
    def test_score_samples_is_the_log_of_the_naive_density(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type)
        X = rows_near(m)
        assert_allclose(m.score_samples(X), np.log(naive.density(m, X)), rtol=1e-10, atol=1e-10)

    @every_type
    def test_predict_proba_is_the_naive_responsibility(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type)
        X = rows_near(m)
        assert_allclose(m.predict_proba(X), naive.responsibilities(m, X), atol=1e-10)

    @every_type
    def test_agrees_with_sklearn(self, covariance_type):
        m = random_mixture(5, 4, 3, covariance_type)
        X, theirs = rows_near(m), m.to_sklearn()
        assert_allclose(m.score_samples(X), theirs.score_samples(X), rtol=1e-10, atol=1e-10)
        assert_allclose(m.predict_proba(X), theirs.predict_proba(X), atol=1e-10)
        assert_array_equal(m.predict(X), theirs.predict(X))
        assert_allclose(m.score(X), theirs.score(X), rtol=1e-10)

    @given(mixtures(n_features=1))
    def test_a_density_integrates_to_one(self, m):
        sd = np.sqrt(m.covariances[:, 0, 0])
        x = np.linspace((m.means[:, 0] - 9 * sd).min(), (m.means[:, 0] + 9 * sd).max(), 20_001)
        assert_allclose(np.trapezoid(np.exp(m.score_samples(x[:, None])), x), 1.0, rtol=1e-9)

    @given(covariance_types, seeds)
    def test_relabelling_moves_no_density(self, covariance_type, seed):
        m = random_mixture(seed, covariance_type=covariance_type)
        X = rows_near(m, 50)
        assert_allclose(shuffled(m, seed).score_samples(X), m.score_samples(X), rtol=1e-12)

    def test_blocks_of_rows_do_not_show(self):
        m, X = random_mixture(1), rows_near(random_mixture(1), 70_000)
        few = [m.score_samples(X[i : i + 100]) for i in range(0, len(X), 7000)]
        whole = m.score_samples(X)
        assert_allclose(
            np.hstack(few),
            np.hstack([whole[i : i + 100] for i in range(0, 70_000, 7000)]),
            rtol=1e-12,
        )

    def test_a_component_of_weight_zero_takes_no_row(self):
        m = Mixture([0.0, 1.0], GOOD["means"], GOOD["covariances"])
        assert_array_equal(m.predict([[0.0, 0.0]]), [1])
        assert_array_equal(m.predict_proba([[0.0, 0.0]]), [[0.0, 1.0]])

    def test_a_row_with_nan_is_named(self):
        X = np.zeros((5, 2))
        X[3, 1] = np.nan
        for method in ("predict", "predict_proba", "score_samples", "score"):
            with pytest.raises(
                ValueError, match=r"X must be finite; row 3 is the first.*np.isfinite"
            ):
                getattr(Mixture(**GOOD), method)(X)

    @pytest.mark.parametrize("X", [np.zeros((3, 5)), np.zeros(2), np.zeros((1, 1, 2))])
    def test_rows_of_another_shape_are_refused(self, X):
        with pytest.raises(ValueError, match=r"X must have the shape \(n_samples, 2\); got"):
            Mixture(**GOOD).predict(X)

    def test_no_rows_give_no_answers_and_no_score(self):
        m, X = Mixture(**GOOD), np.empty((0, 2))
        assert m.predict(X).shape == m.score_samples(X).shape == (0,)
        assert m.predict_proba(X).shape == (0, 2)
        with pytest.raises(ValueError, match="X must have at least one row"):
            m.score(X)


class TestSample:
    @every_type
    def test_samples_have_the_moments_of_the_mixture(self, covariance_type):
        m = random_mixture(1, 3, 2, covariance_type)
        X, y = m.sample(200_000, random_state=0)
        means, covariances = naive.full_components(m)
        assert_allclose(np.bincount(y) / len(y), m.weights, atol=0.005)
        for k in range(3):
            assert_allclose(X[y == k].mean(axis=0), means[k], atol=0.05)
            assert_allclose(np.cov(X[y == k].T), covariances[k], atol=0.06)

    def test_the_same_seed_draws_the_same_rows(self):
        m = random_mixture(1)
        assert_array_equal(m.sample(20, random_state=3)[0], m.sample(20, random_state=3)[0])
        assert (m.sample(20, random_state=3)[0] != m.sample(20, random_state=4)[0]).any()

    def test_rows_come_grouped_by_component(self):
        X, y = random_mixture(1).sample(100, random_state=0)
        assert X.shape == (100, 2)
        assert_array_equal(y, np.sort(y))

    def test_less_than_one_row_is_refused(self):
        with pytest.raises(ValueError, match="n_samples must be at least 1; got 0"):
            random_mixture(1).sample(0)


class TestMarginal:
    @every_type
    def test_a_marginal_integrates_the_other_column_out(self, covariance_type):
        m = random_mixture(1, 3, 2, covariance_type)
        x = np.linspace(-5, 5, 7)
        grid = np.linspace(-25, 25, 5001)
        rows = np.array([[g, v] for v in x for g in grid])
        integrated = np.trapezoid(np.exp(m.score_samples(rows)).reshape(7, -1), grid, axis=1)
        assert_allclose(np.exp(m.marginal([1]).score_samples(x[:, None])), integrated, rtol=1e-8)

    def test_names_and_positions_mean_the_same(self):
        m = random_mixture(1, 3, 3, names=["a", "b", "c"])
        assert m.marginal(["c", "a"]) == m.marginal([2, 0])
        assert m.marginal(["c", "a"]).feature_names == ("c", "a")

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (["z"], r"no column 'z'.*'a'"),
            ([2], "positions from 0 to 1; got 2"),
            ([-1], "positions from 0 to 1; got -1"),
            ([], r"at least one column.*got \[\]"),
            ([0, 0], r"each one once; got \[0, 0\]"),
        ],
    )
    def test_a_wrong_column_is_named(self, columns, message):
        with pytest.raises(ValueError, match=message):
            random_mixture(1, names=["a", "b"]).marginal(columns)


class TestOrder:
    @given(covariance_types, seeds)
    def test_align_to_undoes_a_permutation(self, covariance_type, seed):
        m = random_mixture(seed, 4, 2, covariance_type)
        assert shuffled(m, seed).align_to(m) == m

    def test_align_to_refuses_another_shape(self):
        with pytest.raises(
            ValueError, match=r"other must agree .*\(3, 2, 'gaussian-full'\); got \(2, 2"
        ):
            random_mixture(1).align_to(random_mixture(1, 2))

    def test_an_order_must_be_a_permutation(self):
        with pytest.raises(ValueError, match=r"permutation of 0 .. 2; got \[0, 0, 1\]"):
            random_mixture(1).reordered([0, 0, 1])


class TestSklearn:
    @every_type
    def test_to_sklearn_and_back_is_the_same_mixture(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type, names=["a", "b", "c"])
        assert Mixture.from_sklearn(m.to_sklearn()) == m

    @every_type
    def test_precisions_invert_the_covariances(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type)
        if covariance_type in ("diag", "spherical"):
            assert_allclose(m.precisions * m.covariances, 1.0)
        else:
            eye = np.broadcast_to(np.eye(3), m.covariances.shape)
            assert_allclose(m.precisions @ m.covariances, eye, atol=1e-12)

    def test_a_model_without_fit_is_refused(self):
        with pytest.raises(ValueError, match=r"model must be a fitted.*Call its fit"):
            Mixture.from_sklearn(GaussianMixture(2))

    def test_a_fitted_model_has_the_same_density_here(self):
        X = random_mixture(1).sample(300, random_state=0)[0]
        theirs = GaussianMixture(3, random_state=0).fit(X)
        assert_allclose(Mixture.from_sklearn(theirs).score(X), theirs.score(X), rtol=1e-10)


class TestFiles:
    @every_type
    @pytest.mark.parametrize("names", [None, ["größe", 'a "quoted" name', "c"]])
    def test_save_and_load_keep_every_bit(self, tmp_path, covariance_type, names):
        m = random_mixture(1, 4, 3, covariance_type, names=names)
        m.save(tmp_path / "m.json")
        assert Mixture.load(tmp_path / "m.json") == m

    def test_the_file_is_plain_json(self, tmp_path):
        m = random_mixture(1, names=["a", "b"])
        m.save(str(tmp_path / "m.json"))
        document = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
        assert document["format"] == "dask_dfmr.mixture"
        assert document["version"] == 1
        assert document["feature_names"] == ["a", "b"]
        X = rows_near(m, 20)
        density = sum(
            w * multivariate_normal(mu, c).pdf(X)
            for w, mu, c in zip(
                document["weights"], document["means"], document["covariances"], strict=True
            )
        )
        assert_allclose(np.exp(m.score_samples(X)), density, rtol=1e-10)

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda d: d | {"version": 2}, "expected format version 1, got 2.*newer dask_dfmr"),
            (lambda d: d | {"format": "cake"}, 'expected a JSON object with "format"'),
            (lambda d: [d], 'expected a JSON object with "format"'),
            (lambda d: d | {"weights": [2.0, 1.0, 0.0]}, "weights must sum to 1"),
            (lambda d: d | {"colour": 1}, r"\['colour'\] unknown"),
            (lambda d: {k: v for k, v in d.items() if k != "means"}, r"\['means'\] missing"),
        ],
    )
    def test_a_file_that_holds_no_mixture_is_named_and_explained(self, tmp_path, edit, message):
        path = tmp_path / "m.json"
        random_mixture(1).save(path)
        path.write_text(json.dumps(edit(json.loads(path.read_text()))))
        with pytest.raises(ValueError, match=rf"m\.json.*{message}"):
            Mixture.load(path)

    def test_a_folder_that_does_not_exist_is_named(self, tmp_path):
        path = tmp_path / "missing" / "m.json"
        with pytest.raises(FileNotFoundError) as caught:
            random_mixture(0).save(path)
        assert caught.value.filename == str(path)

    @pytest.mark.parametrize("content", ["", "cake", '{"format": "dask_dfmr.mixt', "\x00\x01"])
    def test_garbage_and_truncated_files_are_no_json(self, tmp_path, content):
        (tmp_path / "m.json").write_text(content)
        with pytest.raises(ValueError, match=r"m\.json is not a saved mixture: not JSON"):
            Mixture.load(tmp_path / "m.json")

    def test_bytes_that_are_no_text_are_no_json(self, tmp_path):
        (tmp_path / "m.json").write_bytes(b"\xff\xfe\x80")
        with pytest.raises(ValueError, match=r"m\.json is not a saved mixture"):
            Mixture.load(tmp_path / "m.json")

    @every_type
    def test_to_arrays_and_back_is_the_same_mixture(self, covariance_type):
        m = random_mixture(1, covariance_type=covariance_type, names=["a", "b"])
        assert Mixture.from_arrays(m.to_arrays()) == m

    def test_from_arrays_needs_three_arrays_only(self):
        assert Mixture.from_arrays(GOOD) == Mixture(**GOOD)


def test_responsibilities_sum_to_one_however_far_the_row():
    mixture = Mixture([0.5, 0.5], [[0.0], [1.0]], [1.0, 2.0], "spherical")
    rows = [[1e6], [1e100], [-1e139]]
    np.testing.assert_allclose(mixture.predict_proba(rows).sum(axis=1), 1.0, rtol=1e-12)
    assert np.isfinite(mixture.score_samples(rows)).all()


class TestFilesAreReplacedAsAWhole:
    """A save that fails leaves the file as it was, and nothing beside it."""

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_a_new_file_has_the_permissions_of_the_umask(self, tmp_path, umask):
        before = os.umask(umask)
        try:
            random_mixture(0).save(tmp_path / "m.json")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "m.json").stat().st_mode) == 0o666 & ~umask

    def test_a_replaced_file_keeps_its_permissions(self, tmp_path):
        path = tmp_path / "m.json"
        random_mixture(0).save(path)
        path.chmod(0o640)
        random_mixture(1).save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert Mixture.load(path) == random_mixture(1)

    def test_after_an_error_the_old_file_is_there(self, tmp_path, monkeypatch):
        path = tmp_path / "m.json"
        random_mixture(0).save(path)

        def fail(handle):
            raise OSError("disk full")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            random_mixture(1).save(path)
        assert Mixture.load(path) == random_mixture(0)
        assert [p.name for p in tmp_path.iterdir()] == ["m.json"]

    def test_a_link_stays_a_link(self, tmp_path):
        (tmp_path / "there").mkdir()
        link = tmp_path / "m.json"
        link.symlink_to(tmp_path / "there" / "m.json")
        random_mixture(0).save(link)
        assert link.is_symlink()
        assert Mixture.load(tmp_path / "there" / "m.json") == random_mixture(0)

    def test_the_name_may_be_as_long_as_the_file_system_allows(self, tmp_path):
        path = tmp_path / ("m" * 250)
        random_mixture(0).save(path)
        random_mixture(0).save(os.fsencode(path))
        assert Mixture.load(path) == random_mixture(0)

    def test_a_folder_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            random_mixture(0).save(tmp_path / "nowhere" / "m.json")


class TestNumbersFarApart:
    """A component far away does not spoil the density of another."""

    @pytest.mark.parametrize("far", [1e3, 1e7, 1e15, 1e30, 1e140])
    @every_type
    def test_the_density_is_right(self, covariance_type, far):
        shape = Gaussian(covariance_type)._shape
        eye = shape.project(np.eye(2))
        covariances = eye if covariance_type == "tied" else [eye, eye]
        m = Mixture([0.5, 0.5], [[0, 0], [far, -far]], covariances, covariance_type)
        X = np.random.default_rng(0).normal(size=(500, 2))
        right = multivariate_normal(np.zeros(2)).logpdf(X) + np.log(0.5)
        assert_allclose(m.score_samples(X), right, rtol=1e-10)
        peak = multivariate_normal(np.zeros(2)).logpdf(np.zeros(2)) + np.log(0.5)
        assert_allclose(m.score_samples([[0.0, 0.0], [far, -far]]), peak, rtol=1e-10)
        assert (m.predict(X) == 0).all()
        log_likelihood, (mass, first, _), _ = m.family.em_pass(X, m.weights, m.components)
        assert_allclose(log_likelihood, right.sum(), rtol=1e-10)
        assert_array_equal(mass, [500.0, 0.0])
        assert_allclose(first[0], X.sum(axis=0), rtol=1e-8)

    def test_the_divergence_and_the_order_are_right(self):
        a = Mixture([0.5, 0.5], [[0.0], [1e15]], [1.0, 1.0], "spherical")
        b = Mixture([0.5, 0.5], [[1e15], [0.5]], [1.0, 1.0], "spherical")
        assert_allclose(a.family.divergence(a.components, b.components)[0, 1], 0.125)
        assert_array_equal(b.align_to(a).means[:, 0], [0.5, 1e15])


class TestOneValue:
    """Equal mixtures are one value: their hashes and results agree."""

    def test_zero_has_one_hash_whatever_its_sign(self):
        a = Mixture([1.0, 0.0], [[0.0, 1.0], [2.0, 0.0]], [EYE, EYE])
        b = Mixture([1.0, -0.0], [[-0.0, 1.0], [2.0, -0.0]], np.array([EYE, EYE]) - 0.0)
        assert a == b
        assert hash(a) == hash(b)

    @every_type
    def test_the_memory_layout_of_the_parameters_does_not_show(self, covariance_type):
        m = random_mixture(0, covariance_type=covariance_type)
        fields = (m.weights, m.means, m.covariances)
        other = Mixture(*map(np.asfortranarray, fields), covariance_type)
        assert other == m
        assert hash(other) == hash(m)
        assert all(a.flags.c_contiguous for a in (other.weights, other.means, other.covariances))
        assert_array_equal(other.score_samples(rows_near(m)), m.score_samples(rows_near(m)))


class TestRandomState:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: 3,
            lambda: np.int64(3),
            lambda: np.random.RandomState(3),
            lambda: np.random.default_rng(3),
            lambda: np.random.SeedSequence(3),
        ],
    )
    def test_every_kind_that_a_fit_takes(self, make):
        m = random_mixture(0)
        assert_array_equal(m.sample(20, make())[0], m.sample(20, make())[0])

    def test_a_generator_is_advanced_and_a_seed_is_not(self):
        m, rng, seed = random_mixture(0), np.random.default_rng(3), np.random.SeedSequence(3)
        assert (m.sample(20, rng)[0] != m.sample(20, rng)[0]).any()
        assert_array_equal(m.sample(20, seed)[0], m.sample(20, seed)[0])
        assert (m.sample(20)[0] != m.sample(20, None)[0]).any()

    @pytest.mark.parametrize("wrong", [-1, 2**32, "seed", 1.5])
    def test_another_kind_is_named(self, wrong):
        with pytest.raises(ValueError, match="random_state must be None, an integer"):
            random_mixture(0).sample(2, wrong)
