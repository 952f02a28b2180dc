"""The rows of one machine -> its local estimate: penalised maximum likelihood by (accelerated) EM. Knows no Dask."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dask_dfmr import checks
from dask_dfmr.local.em import (
    TIGHT,
    Ascent,
    ComponentCollapsedError,
    EmResult,
    MeanChange,
    RemainingGain,
)
from dask_dfmr.local.estimate import LocalEstimate, Outcome, without_estimate
from dask_dfmr.local.starts import MAX_START_ROWS, NAMED_STARTS, GivenStart, make_start, subsample
from dask_dfmr.mixtures.family import (
    BLOCK_FLOATS,
    Array,
    Components,
    Family,
    Prior,
    Rows,
    as_block,
    canonical_order,
    take,
)
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian, Mixture
from dask_dfmr.seeds import SeedLike, seed_sequence

MAX_MAGNITUDE = 1e140
"""Values beyond it cannot be squared and summed in floating point."""


# -- the border ----------------------------------------------------------------------------------


def fit_local(
    X: ArrayLike,
    n_components: int,
    *,
    covariance_type: str = "full",
    start: str | Mixture = "k-means++",
    n_init: int = 1,
    tol: float | Literal["auto"] = "auto",
    max_iter: int = 1000,
    accelerate: bool = True,
    penalty: float | Literal["auto"] = "auto",
    reg_covar: float = 0.0,
    min_rows: int | Literal["auto"] = "auto",
    nan_policy: Literal["raise", "omit"] = "raise",
    n_sources: int = 1,
    feature_names: list[str] | None = None,
    random_state: SeedLike = None,
) -> LocalEstimate:
    """Fit a Gaussian mixture to the rows of one machine by penalised maximum likelihood.

    Maximises l(G) - a sum_k { tr(S_x Sigma_k^-1) + log det Sigma_k } with the sample covariance S_x
    (Chen & Tan 2009, the local estimator of Zhang, Tan & Chen 2026). The objective never falls from
    one accepted pass to the next (with ``reg_covar=0``).

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Real numbers; computed in float64, in blocks of rows.
    n_components : int
    covariance_type : {"full", "diag", "tied", "spherical"}, default "full"
    start : {"k-means++", "kmeans", "random", "random_from_data"} or Mixture, default "k-means++"
        scikit-learn's names, on at most 20,000 rows in columns scaled to equal spread; or a mixture
        to start from.
    n_init : int, default 1
        Number of named starts; the one with the best objective wins.
    tol : "auto" or float, default "auto"
        "auto": stop when the gain that remains to the optimum, in total log-likelihood, is
        predicted to be below 0.005 p / n_sources. A float: stop when the mean objective per row
        changes by less (scikit-learn's meaning).
    max_iter : int, default 1000
        Passes over all rows, those of rejected extrapolations included.
    accelerate : bool, default True
        Anderson acceleration with a monotone safeguard; False is plain EM. Plain too where
        ``reg_covar`` is not 0.
    penalty : "auto" or float, default "auto"
        a: "auto" is n_samples ** -0.5, 0 is plain maximum likelihood.
    reg_covar : float, default 0.0
        Added to the diagonal of every covariance, as scikit-learn does.
    min_rows : "auto" or int, default "auto"
        Fewer rows than this are "too few rows": "auto" is the number of free parameters of the
        mixture.
    nan_policy : {"raise", "omit"}, default "raise"
        Rows with NaN or infinity make the fit fail ("not finite"), or are left out and counted in
        ``n_omitted``.
    n_sources : int, default 1
        Number of machines whose estimates will be combined; tightens ``tol="auto"``.
    feature_names : list of str, optional
        Names of the columns, carried to the mixture and used in messages.
    random_state : int, RandomState, Generator, SeedSequence or None, default None

    Returns
    -------
    LocalEstimate
        With the mixture, its components by decreasing weight (in the order of ``start`` if that is
        a Mixture); or, where the rows cannot be fitted, with an outcome and the reason in words.
        Bad *rows* never raise.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or X is not a two-dimensional array of real numbers.
    """
    checks.one_of("covariance_type", covariance_type, COVARIANCE_TYPES)
    problem = LocalProblem(
        family=Gaussian(covariance_type),
        n_components=n_components,
        tol=tol,
        max_iter=max_iter,
        accelerate=accelerate,
        penalty=penalty,
        reg_covar=reg_covar,
        min_rows=min_rows,
        nan_policy=nan_policy,
        n_sources=n_sources,
        n_init=n_init,
    )
    rows = _as_rows(X)
    _check_start(start, problem, rows.shape[1])
    return problem.fit(rows, start, random_state=random_state, feature_names=feature_names)


def _as_rows(X: ArrayLike) -> Rows:
    rows = np.asarray(X)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(
            f"X must have the shape (n_samples, n_features), with at least one column; got {rows.shape}."
        )
    if rows.dtype.kind not in "fiu":
        raise TypeError(
            f"X must hold real numbers; got the dtype {rows.dtype}. Convert it with X.astype(float) if that is meant."
        )
    return rows


def _check_start(start: str | Mixture, problem: LocalProblem, n_features: int) -> None:
    if not isinstance(start, Mixture):
        checks.one_of("start", start, tuple(NAMED_STARTS))
        return
    found = (start.family, start.n_components, start.n_features)
    if found != (problem.family, problem.n_components, n_features):
        raise ValueError(
            f"start must be a mixture of {problem.n_components} components in {n_features} columns of the family "
            f"{problem.family.name}; got {start!r}."
        )


# -- the fit of one machine ----------------------------------------------------------------------


@dataclass(frozen=True)
class LocalProblem:
    """Everything about a local fit but rows, start and seed; the parameters are those of :func:`fit_local`."""

    family: Family
    n_components: int
    tol: float | str = "auto"
    max_iter: int = 1000
    accelerate: bool = True
    penalty: float | str = "auto"
    reg_covar: float = 0.0
    min_rows: int | str = "auto"
    nan_policy: str = "raise"
    n_sources: int = 1
    n_init: int = 1

    def __post_init__(self) -> None:
        for name in ("n_components", "max_iter", "n_sources", "n_init"):
            checks.integer(name, getattr(self, name), 1)
        checks.number("tol", self.tol, or_auto=True)
        checks.number("penalty", self.penalty, or_auto=True)
        checks.number("reg_covar", self.reg_covar)
        if self.min_rows != "auto":
            checks.integer("min_rows", self.min_rows, 1, alternative="'auto' or ")
        checks.one_of("nan_policy", self.nan_policy, ("raise", "omit"))

    def fit(
        self,
        X: Rows,
        start: str | Mixture,
        *,
        given: GivenStart | None = None,
        random_state: Any = None,
        feature_names: Any = None,
    ) -> LocalEstimate:
        """Rows, checked, to an estimate or to the reason why there is none."""
        names = [f"column {j}" for j in range(X.shape[1])]
        if feature_names is not None:
            names = [repr(str(name)) for name in feature_names]
        X, n_omitted, refusal = self.check_rows(X, names)
        if refusal is not None:
            return refusal
        prior = self.prior(X)
        reason = self.family.degeneracy(prior.target)
        if reason is not None:
            reason = re.sub(r"\{column (\d+)\}", lambda match: names[int(match[1])], reason)
            return without_estimate(Outcome.DEGENERATE, reason, len(X), n_omitted=n_omitted)
        rng = np.random.default_rng(seed_sequence(random_state))
        try:
            best = self._best_of_starts(X, start, given, prior, rng)
        except ComponentCollapsedError as error:
            return without_estimate(Outcome.COLLAPSED, str(error), len(X), n_omitted=n_omitted)
        order = np.arange(self.n_components)  # that of a given start
        if isinstance(start, str):
            order = canonical_order(self.family, best.weights, best.components)
        weights, components = best.weights[order], take(best.components, order)
        mixture = self.family.mixture(weights, components, feature_names)
        unconverged = f"not converged after {best.n_iter} passes; raise max_iter or loosen tol"
        return LocalEstimate(
            mixture,
            len(X),
            Outcome.FITTED if best.converged else Outcome.NOT_CONVERGED,
            "" if best.converged else unconverged,
            n_omitted=n_omitted,
            n_iter=best.n_iter,
            log_likelihood=best.log_likelihood / len(X),
            start=start if isinstance(start, str) else "given",
        )

    def check_rows(
        self, X: Rows, names: Sequence[str] | None = None
    ) -> tuple[Rows, int, LocalEstimate | None]:
        """The finite rows, how many were left out, and why they cannot be fitted if so."""
        given = X
        X, n_omitted, refusal = self.finite_rows(X, names)
        if refusal is not None:
            return X, n_omitted, refusal
        least, what = self._least_rows(X.shape[1])
        if len(X) >= least:
            return X, n_omitted, None
        omitted = f" ({n_omitted} more hold {_find_bad_values(given).kind})" if n_omitted else ""
        reason = f"{len(X)} rows{omitted}, fewer than {what}"
        refusal = without_estimate(Outcome.TOO_FEW_ROWS, reason, len(X), n_omitted=n_omitted)
        return X, n_omitted, refusal

    def finite_rows(
        self, X: Rows, names: Sequence[str] | None = None
    ) -> tuple[Rows, int, LocalEstimate | None]:
        """The finite rows, how many were left out, and the refusal of rows that must not be left out."""
        bad = _find_bad_values(X)
        n_omitted = len(X) - int(bad.is_good.sum())
        if not n_omitted:
            return X, 0, None
        if self.nan_policy == "omit":
            return X[bad.is_good], n_omitted, None
        labels = [str(j) for j in range(X.shape[1])] if names is None else names
        counts = zip(labels, bad.counts, strict=True)
        where = ", ".join(f"{label} ({count} rows)" for label, count in counts if count)
        reason = f"{bad.kind} in {where}; nan_policy='omit' leaves such rows out"
        return X, 0, without_estimate(Outcome.NOT_FINITE, reason, len(X))

    def _least_rows(self, n_features: int) -> tuple[int, str]:
        if self.min_rows == "auto":
            n_parameters = self.family.n_parameters(self.n_components, n_features)
            return max(n_parameters, 2), f"the {n_parameters} free parameters of the mixture"
        least = max(int(self.min_rows), self.n_components, 2)
        return least, f"the {least} asked for"

    def prior(self, X: Rows) -> Prior:
        """The penalty for these rows."""
        weight = len(X) ** -0.5 if self.penalty == "auto" else float(self.penalty)
        return Prior(weight, self.family.prior_target(X), self.reg_covar)

    def _best_of_starts(
        self,
        X: Rows,
        start: str | Mixture,
        given: GivenStart | None,
        prior: Prior,
        rng: np.random.Generator,
    ) -> EmResult:
        if not isinstance(start, str):
            return self.maximise(X, (start.weights, start.components), prior)
        results, failure = [], None
        for _ in range(self.n_init):
            first = make_start(
                self.family,
                subsample(X, MAX_START_ROWS, rng),
                self.n_components,
                start,
                prior,
                rng,
                given=given,
            )
            try:
                results.append(self.maximise(X, first, prior))
            except ComponentCollapsedError as error:
                failure = error
        if not results:
            assert failure is not None
            raise failure
        return max(results, key=lambda result: result.objective)

    def maximise(
        self,
        X: Rows,
        start: tuple[Array, Components],
        prior: Prior,
        tol: float | str | None = None,
        max_iter: int | None = None,
    ) -> EmResult:
        """EM from one start; ``tol`` and ``max_iter`` other than the problem's own serve the pilots."""
        tol = self.tol if tol is None else tol
        n_parameters = self.family.n_parameters(self.n_components, X.shape[1])
        rule = (
            RemainingGain(TIGHT * n_parameters / self.n_sources)
            if tol == "auto"
            else MeanChange(float(tol) * len(X))
        )
        accelerate = self.accelerate and self.reg_covar == 0
        ascent = Ascent(self.family, start, prior, len(X), rule, accelerate)
        while not ascent.converged and ascent.n_iter < (max_iter or self.max_iter):
            ascent.take(*self.family.em_pass(X, *ascent.point))
        return ascent.result()


class _BadValues(NamedTuple):
    """Which rows are good (n_samples,), how many bad values each column has, and whether any is finite but huge."""

    is_good: NDArray[np.bool_]
    counts: NDArray[np.intp]
    are_huge: bool

    @property
    def kind(self) -> str:
        return f"values beyond {MAX_MAGNITUDE:g}" if self.are_huge else "NaN or infinity"


def _find_bad_values(X: Rows) -> _BadValues:
    are_huge = False
    good = np.ones(len(X), dtype=bool)
    counts = np.zeros(X.shape[1], dtype=np.intp)
    step = max(1, BLOCK_FLOATS // X.shape[1])
    for i in range(0, len(X), step):
        block = X[i : i + step]
        # Nearly always; a NaN makes both comparisons false.
        if float(block.min()) >= -MAX_MAGNITUDE and float(block.max()) <= MAX_MAGNITUDE:
            continue
        with np.errstate(invalid="ignore"):
            block = as_block(block)
            bad = ~(np.abs(block) <= MAX_MAGNITUDE)
        are_huge = are_huge or bool(np.isfinite(block[bad]).any())
        counts += bad.sum(axis=0)
        good[i : i + step] = ~bad.any(axis=1)
    return _BadValues(good, counts, are_huge)
