"""``reg_covar`` as in scikit-learn: constant, one-hot and dependent columns are fitted, and the report says so."""

from __future__ import annotations

import warnings

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

from dask_dfmr import AggregationError, GaussianMixture, fit_local
from dask_dfmr.exceptions import HeterogeneityWarning
from dask_dfmr.explanation.flat_columns import note_on_flat_columns
from dask_dfmr.local.fit import FITTED_BY_FLOOR
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Mixture

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)

M, N = 10, 400


def table(seed: int = 0, share: float = 0.003) -> pd.DataFrame:
    """Two numeric columns and a category of four levels, one-hot; the last level is rare."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(M * N, 2)) + 5.0 * (rng.random((M * N, 1)) < 0.4)
    level = rng.choice(4, p=[0.6, 0.3, 0.1 - share, share], size=M * N)
    hot = {f"is_{k}": (level == k).astype(float) for k in range(4)}
    return pd.DataFrame(numbers, columns=["x", "y"]).assign(**hot)


def fitted(frame: pd.DataFrame, **parameters: object) -> tuple[GaussianMixture, list[str]]:
    """The fitted estimator, and the warnings."""
    with warnings.catch_warnings(record=True) as caught, dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("always")
        gm = GaussianMixture(2, random_state=0, **parameters)
        gm.fit(dd.from_pandas(frame, npartitions=M))
    return gm, [str(w.message) for w in caught]


@every_type
@pytest.mark.parametrize("columns", ["constant", "one-hot", "collinear"])
def test_one_step_is_that_of_scikit_learn(covariance_type, columns):
    frame = table().iloc[:N]
    numbers = frame[["x", "y"]].to_numpy()
    X = {
        "constant": np.column_stack([numbers, np.full(N, 7.0)]),
        "one-hot": frame.to_numpy(),
        "collinear": np.column_stack([numbers, numbers @ [1.0, -2.0]]),
    }[columns]
    d = X.shape[1]
    means = np.stack([X[numbers[:, 0] > 2.5].mean(axis=0), X[numbers[:, 0] <= 2.5].mean(axis=0)])
    one = {
        "full": np.array([np.eye(d)] * 2),
        "tied": np.eye(d),
        "diag": np.ones((2, d)),
        "spherical": np.ones(2),
    }[covariance_type]
    start = Mixture([0.5, 0.5], means, one, covariance_type)
    theirs = SklearnGaussianMixture(
        2,
        covariance_type=covariance_type,
        reg_covar=1e-3,
        weights_init=start.weights,
        means_init=means,
        precisions_init=one,
        max_iter=3,
        tol=0.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(X)
    mine = fit_local(
        X,
        2,
        covariance_type=covariance_type,
        start=start,
        reg_covar=1e-3,
        penalty=0,
        max_iter=3,
        tol=0.0,
    ).mixture
    assert_allclose(mine.weights, theirs.weights_, rtol=1e-6)
    assert_allclose(mine.means, theirs.means_, rtol=1e-6, atol=1e-9)
    assert_allclose(mine.covariances, theirs.covariances_, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "tied"])  # columns of their own
@pytest.mark.parametrize("reg_covar", [1e-6, 1e-3])
def test_a_constant_column_does_not_change_the_others(covariance_type, reg_covar):
    frame = table()[["x", "y"]]
    without, _ = fitted(frame, covariance_type=covariance_type, reg_covar=reg_covar)
    gm, said = fitted(frame.assign(c=7.0), covariance_type=covariance_type, reg_covar=reg_covar)
    assert gm.support_.all()
    assert not said
    assert_allclose(gm.means_[:, :2], without.means_, atol=0.02)
    assert_allclose(gm.means_[:, 2], 7.0)
    assert (gm.partition_report_["outcome"] == "fitted").all()
    assert gm.partition_report_["reason"].str.contains("'c' is constant in these rows").all()


@every_type
def test_dependent_one_hot_columns_are_fitted_everywhere(covariance_type):
    gm, _ = fitted(table(share=0.05), covariance_type=covariance_type, reg_covar=1e-3)
    assert (gm.partition_report_["outcome"] == "fitted").all()
    assert gm.support_.sum() > M / 2


@pytest.mark.parametrize("covariance_type", ["full", "diag", "tied"])
def test_a_rare_category_that_some_partitions_lack_is_kept_or_the_fit_says_so(covariance_type):
    frame = table().drop(columns="is_0")
    lack = [i for i in range(M) if not frame["is_3"].iloc[i * N : (i + 1) * N].any()]
    assert 0 < len(lack) < M / 2
    gm, said = fitted(frame, covariance_type=covariance_type, reg_covar=1e-3)
    report = gm.partition_report_
    assert report["outcome"].isin(["fitted", "not converged"]).all()
    assert report["reason"][lack].str.contains("'is_3' is constant in these rows").all()
    excluded = [i for i in lack if not gm.support_[i]]
    notes = [text for text in said if "'is_3' varies in no way of its own" in text]
    assert bool(notes) == bool(excluded)
    if notes:
        advised = float(notes[0].split("reg_covar=")[1].split()[0])
        gm, said = fitted(frame, covariance_type=covariance_type, reg_covar=advised)
        assert gm.support_[lack].all()


def test_without_reg_covar_the_advice_works_when_copied():
    frame = table().assign(c=7.0)[["x", "y", "c"]]
    with pytest.raises(AggregationError, match="'c' is constant; remove it, or set") as error:
        fitted(frame)
    advised = float(error.value.reasons[0].split("reg_covar=")[1])
    gm, said = fitted(frame, reg_covar=advised)
    assert gm.support_.all()
    assert not said


def test_the_note_names_the_partitions():
    frame = table(2).drop(columns="is_0")
    lack = [i for i in range(M) if not frame["is_3"].iloc[i * N : (i + 1) * N].any()]
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gm = GaussianMixture(
            2, covariance_type="diag", reg_covar=1e-3, refit_excluded=False, random_state=0
        )
        with pytest.warns(HeterogeneityWarning, match=f"partitions {lack[0]}, {lack[1]} are"):
            gm.fit(dd.from_pandas(frame, npartitions=M))


@pytest.mark.parametrize(
    ("covariance_type", "bad", "who"),
    [
        ("diag", [3], "partition 3 is excluded: no column varies in its rows"),
        ("spherical", [3, 6], "partitions 3, 6 are excluded: no column varies in their rows"),
    ],
)
def test_partitions_in_which_nothing_varies_are_to_be_checked(covariance_type, bad, who):
    frame = table()[["x", "y"]]
    for i in bad:
        frame.iloc[i * N : (i + 1) * N] = 0.0
    gm, said = fitted(frame, covariance_type=covariance_type, reg_covar=1e-3)
    assert np.flatnonzero(~gm.support_).tolist() == bad
    assert f"{who}. Check where they come from." in said


@pytest.mark.parametrize(
    ("columns", "finding"),
    [(["x"], "column 'x' only: "), (["x", "y", "z"], "no single cause: ")],
)
def test_a_constant_is_no_other_unit(columns, finding):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(6 * N, 3)), columns=["x", "y", "z"])
    frame.loc[: N - 1, columns] = 0.0
    parts = [frame.iloc[i * N : (i + 1) * N] for i in range(6)]
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gm = GaussianMixture(1, reg_covar=1e-3, random_state=0).fit(parts)
    found = gm.partition_report_["reason"][0].partition(FITTED_BY_FLOOR)[2]
    assert finding in found
    assert "unit" not in found
    # The same rows in another unit are still told.
    parts[0] = 0.03 * parts[1]
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gm = GaussianMixture(1, reg_covar=1e-3, random_state=0).fit(parts)
    assert "another unit?" in gm.partition_report_["reason"][0]


def note_on(reasons, variances):
    """The note on partitions with a constant column, of which each is excluded that has a reason."""
    mixture = Mixture([1.0], [[0.0] * len(variances)], [np.diag(variances)])
    rows = [{"reason": f"{text} {FITTED_BY_FLOOR}" if text else ""} for text in reasons]
    note = note_on_flat_columns(rows, np.array([not text for text in reasons]), mixture)
    return note.message


def test_a_reg_covar_larger_than_the_spread_of_other_columns_is_no_remedy():
    reasons = ["", "", "column 1 is constant", ""]
    small, large = (note_on(reasons, [1.0, variance]) for variance in (0.01, 100.0))
    assert small.endswith("then reg_covar=0.03 makes such a partition alike, or shuffle the rows.")
    assert large.endswith("then shuffle the rows.")
    assert "partition 2 is excluded, and in its rows" in small


def test_partitions_without_any_spread_and_with_some_are_told_apart():
    reasons = ["", "column 0, column 2 are constant", "", "all columns are constant", "", ""]
    note = note_on(reasons, [0.01, 1.0, 0.01])
    assert note.startswith("partition 3 is excluded: no column varies in its rows.")
    assert "partition 1 is excluded, and in its rows" in note
    assert "column 0, column 2 vary in no way of their own. Either they are wrong there" in note


@every_type
def test_a_column_far_from_zero_is_fitted(covariance_type):
    frame, origin = table()[["x", "y"]], np.array([1e12, 0.0])
    here, _ = fitted(frame, covariance_type=covariance_type)
    there, said = fitted(frame + origin, covariance_type=covariance_type)
    assert not said
    assert there.support_.all()
    # The step of floating point there is 0.0001.
    assert_allclose(there.means_ - origin, here.means_, atol=0.02)
    assert_allclose(there.covariances_, here.covariances_, atol=0.05)
