"""Local fits: the rows of one partition to one local estimate, by penalised maximum likelihood.

:func:`fit_local` is the public function. :class:`LocalProblem` holds the parameters of a fit for any family; tasks use
it. The steps of a fit are: check the rows, compute the penalty, start, EM.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dask_dfmr import checks, deadlines
from dask_dfmr.local.central_rows import rows_to_start_from, without_gross
from dask_dfmr.local.comparison import MOST_OUTSIDE, best_first, floored_mean
from dask_dfmr.local.em import Ascent, ComponentCollapsedError, EmResult, Point
from dask_dfmr.local.estimate import LocalEstimate, Outcome, without_estimate
from dask_dfmr.local.least_rows import describe_least_rows, remedies
from dask_dfmr.local.penalty import Penalty, check_penalty, weight_of
from dask_dfmr.local.starts import (
    MAX_START_ROWS,
    NAMED_STARTS,
    Clusterings,
    GivenStart,
    Scale,
    StartName,
    subsample,
)
from dask_dfmr.local.stopping import MeanChange, RemainingGain
from dask_dfmr.mixtures.family import (
    BLOCK_FLOATS,
    Array,
    Components,
    Family,
    Rows,
    as_block,
    batches,
    canonical_order,
    take,
)
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, CovarianceType, Gaussian, Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, LEVEL, cut_of
from dask_dfmr.mixtures.whitening import match_components
from dask_dfmr.seeds import SeedLike, seed_sequence
from dask_dfmr.tables import as_frame, check_names, refuse_others, rows_and_names, unmasked

FITTED_BY_FLOOR = "in these rows, and fitted by reg_covar alone"
"""Part of the reason of a fit to rows with constant or dependent columns, which only ``reg_covar`` made possible."""

OWN_START = "k-means++"
"""Where a truncated fit starts if most of its rows are outside of the start that it was given."""

LOOSE_TOL = 1e-5
"""Mean gain per row in nats at which a run that searches for a start stops."""

DRAWN_IN, DRAWN_IN_SDS = 0.5, 3.0
"""A truncated fit may have left its optimum if it counts more than this share of the rows that were outside of its
start, and more than so many standard deviations of their number. The four fits that left the truth (SEARCH_LEVEL) left
10 to 27 rows outside where those that stayed left 146 to 202."""

MAX_MAGNITUDE = 1e140
"""Larger values cannot be squared and summed in floating point."""


# -- the public function ---------------------------------------------------------------------------


def fit_local(
    X: ArrayLike,
    n_components: int,
    *,
    covariance_type: CovarianceType = "full",
    start: StartName | Mixture = "k-means++",
    n_init: int = 1,
    tol: float | Literal["auto"] = "auto",
    max_iter: int = 1000,
    accelerate: bool = True,
    penalty: float | Literal["auto", "paper"] = "auto",
    reg_covar: float = 0.0,
    row_outliers: Literal["truncate"] | None = None,
    row_outlier_level: float = LEVEL,
    min_rows: int | Literal["auto"] = "auto",
    nan_policy: Literal["raise", "omit"] = "raise",
    n_sources: int = 1,
    feature_names: list[str] | None = None,
    random_state: SeedLike = None,
) -> LocalEstimate:
    """Fit a Gaussian mixture to the rows of one partition or source by penalised maximum likelihood.

    The fit maximises l(G) - a sum_k { tr(T_k Sigma_k^-1) + log det Sigma_k }, where l is the log-likelihood and T_k the
    target of component k (Chen & Tan 2009). With ``reg_covar=0`` the objective never falls from one accepted pass to
    the next. With ``row_outliers="truncate"`` the fit solves the same equations for the rows inside the cuts.

    Parameters
    ----------
    X : frame or array-like of shape (n_samples, n_features)
        Real numbers. They are converted to float64 in blocks of rows. A frame is one of pandas, Polars or Arrow. Masked
        cells and nulls are NaN.
    n_components : int
    covariance_type : {"full", "diag", "tied", "spherical"}, default "full"
    start : {"k-means++", "kmeans", "random", "random_from_data"} or Mixture, default "k-means++"
        A clustering by one of scikit-learn's names, on at most 20,000 rows in columns scaled to equal spread; or the
        mixture from which EM starts.
    n_init : int, default 1
        Number of clusterings. The fit with the best objective is the result. A given mixture is one start.
    tol : "auto" or float, default "auto"
        "auto": stop when the predicted gain to the optimum is below 0.005 p / n_sources in total log-likelihood, where
        p is the number of free parameters; or on a ridge that the rows do not determine. A float: stop when the mean
        objective per row changes by less, as in scikit-learn.
    max_iter : int, default 1000
        Largest number of passes over all rows; passes at rejected extrapolations count.
    accelerate : bool, default True
        Anderson acceleration with a monotone safeguard. False is plain EM, and so is ``reg_covar`` > 0.
    penalty : "auto", "paper" or float, default "auto"
        "auto": a = 1 / n_samples, and T_k is the covariance within component k, as the start divides the rows. "paper":
        a = n_samples ** -0.5, and T_k is the sample covariance of all rows (the local estimator of Zhang, Tan & Chen
        2026), or of those inside the cuts of the start. A float: that a, with the targets of "auto"; 0 is plain maximum
        likelihood.
    reg_covar : float, default 0.0
        Added to the diagonal of every covariance, as in scikit-learn. With it constant and dependent columns can be
        fitted; ``reason`` then names them.
    row_outliers : {None, "truncate"}, default None
        "truncate": a row counts in a component only inside the cut of the component, so that a few bad rows do not
        decide the fit. The fit then solves estimating equations, and has no objective. If it leaves more than a third
        of the rows outside of all cuts, from a start that was given, it starts once more by a clustering of the rows.
        None: every row counts.
    row_outlier_level : float, default 0.01
        Share of the rows of a component that lie beyond its cut, between 0 and 1. The cut is a quantile of the
        chi-square law of squared distances in standard deviations.
    min_rows : "auto" or int, default "auto"
        Fewer rows give the outcome "too few rows". "auto" is the number of free parameters of the mixture for
        "full". With the other structures a row informs more than one parameter: "auto" is then ten times the number of
        weights, means and variances that one column determines, and at most the number of free parameters.
    nan_policy : {"raise", "omit"}, default "raise"
        "raise": rows with NaN or infinity give the outcome "not finite". "omit": such rows are omitted and counted in
        ``n_omitted``.
    n_sources : int, default 1
        Number of sources whose estimates will be combined. More sources make ``tol="auto"`` tighter.
    feature_names : list of str, optional
        Names of the columns, for the mixture and for messages. None: those of X if it is a frame. Otherwise columns
        are named by position in messages.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
        Seed of the clusterings. None: other ones at every call.

    Returns
    -------
    LocalEstimate
        With the mixture, its components by decreasing weight, or in the order of ``start`` if that is a mixture. If
        the rows cannot be fitted, the result has no mixture, an outcome and the reason in words. Rows that cannot be
        fitted never raise an error.

    Raises
    ------
    ValueError
        If an argument has a wrong value, X is not two-dimensional, or X is a frame whose columns are not those of
        ``feature_names`` and ``start``, in their order.
    TypeError
        If X does not hold real numbers.
    """
    checks.one_of("covariance_type", covariance_type, COVARIANCE_TYPES)
    problem = LocalProblem(
        family=Gaussian(covariance_type, cut_of(row_outliers, row_outlier_level)),
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
    rows, names = _as_rows(X)
    _check_start(start, problem, rows.shape[1])
    if names is not None and isinstance(start, Mixture) and start.feature_names is not None:
        check_names(start.feature_names, names)
    if names is not None and feature_names is not None:
        check_names([str(name) for name in feature_names], names)
    names = names if feature_names is None else feature_names
    return problem.fit(rows, start, random_state=random_state, feature_names=names)


def _as_rows(X: Any) -> tuple[Rows, Sequence[str] | None]:
    """The rows, and the names of the columns if X is a frame."""
    refuse_others(X)
    frame = as_frame(X)
    if frame is not None:
        return rows_and_names(frame)
    rows = np.asarray(unmasked(X))
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(
            f"X must have the shape (n_samples, n_features), with at least one column; got {rows.shape}."
        )
    if rows.dtype.kind not in "fiu":
        raise TypeError(
            f"X must hold real numbers; got the dtype {rows.dtype}. Convert it with X.astype(float) if that is meant."
        )
    return rows, None


def _check_start(start: str | Mixture, problem: LocalProblem, n_features: int) -> None:
    if not isinstance(start, Mixture):
        checks.one_of("start", start, tuple(NAMED_STARTS))
        return
    found = (start.family, start.n_components, start.n_features)
    if found != (problem.mixture_family, problem.n_components, n_features):
        raise ValueError(
            f"start must be a mixture of {problem.n_components} components in {n_features} columns of the family "
            f"{problem.family.name}; got {start!r}."
        )


# -- the fit ---------------------------------------------------------------------------------------


def column_labels(feature_names: Sequence[Any] | None, n_features: int) -> list[str]:
    """The columns as reasons name them: in quotes, or by position if they have no names."""
    if feature_names is None:
        return [f"column {j}" for j in range(n_features)]
    return [repr(str(name)) for name in feature_names]


@dataclass(frozen=True)
class LocalProblem:
    """The parameters of a local fit, apart from rows, start and seed.

    ``family`` is the component family, whose cut says whether rows beyond it count. All other parameters are those of
    :func:`fit_local`.
    """

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
        checks.number("tol", self.tol, alternatives=("auto",))
        check_penalty("penalty", self.penalty)
        checks.number("reg_covar", self.reg_covar)
        if self.min_rows != "auto":
            checks.integer("min_rows", self.min_rows, 1, alternative="'auto' or ")
        checks.one_of("nan_policy", self.nan_policy, ("raise", "omit"))

    @property
    def mixture_family(self) -> Family:
        """The family of the mixtures that are fitted: a mixture truncates nothing."""
        return self.family.with_cut(COUNTING)

    def fit(
        self,
        X: Rows,
        start: str | Mixture,
        *,
        given: GivenStart | None = None,
        random_state: Any = None,
        feature_names: Any = None,
    ) -> LocalEstimate:
        """Fit the mixture to rows.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        start : str or Mixture
            A key of ``NAMED_STARTS``, or the mixture from which EM starts.
        given : GivenStart, optional
            Values of the user in place of parts of a named start.
        random_state : int, RandomState, Generator, SeedSequence or None, default None
        feature_names : sequence of str, optional

        Returns
        -------
        LocalEstimate
            As of :func:`fit_local`.
        """
        names = column_labels(feature_names, X.shape[1])
        X, n_omitted, refusal = self.check_rows(X, names)
        if refusal is not None:
            return refusal
        central = self._central(X)
        all_rows = self.family.prior_target(central)
        reason = self._degeneracy(central, all_rows, names, self.reg_covar)
        if reason is not None:
            reason = _despite_gross_rows(reason, len(X) - len(central))
            return without_estimate(Outcome.DEGENERATE, reason, len(X), n_omitted=n_omitted)
        rng = np.random.default_rng(seed_sequence(random_state))
        try:
            target = None if self.family.cut.truncates else all_rows
            penalty = self._penalty(len(X), target, X)
            best, started = self._best_of_starts(X, start, given, penalty, rng)
        except ComponentCollapsedError as error:
            return without_estimate(Outcome.COLLAPSED, str(error), len(X), n_omitted=n_omitted)
        if isinstance(start, str) and (given is None or given.means is None):
            order = canonical_order(self.family, best.weights, best.components)
            best = replace(
                best, weights=best.weights[order], components=take(best.components, order)
            )
        reasons = [self._flatness(central, all_rows, names)]
        if not best.converged:
            reasons.append(
                f"not converged after {best.n_iter} passes; raise max_iter or loosen tol"
            )
        return LocalEstimate(
            self.family.mixture(best.weights, best.components, feature_names),
            len(X),
            Outcome.FITTED if best.converged else Outcome.NOT_CONVERGED,
            "; ".join(filter(None, reasons)),
            n_omitted=n_omitted,
            n_iter=best.n_iter,
            log_likelihood=self._mean_log_likelihood(X, best),
            start=started,
            n_outside=self._n_outside(X, best, penalty),
        )

    def _mean_log_likelihood(self, X: Rows, run: EmResult) -> float:
        """In nats per row: at the last accepted point, or if the family truncates, of the result with a floor."""
        if self.family.cut.truncates:
            return floored_mean(self.family, (run.weights, run.components), X)
        return run.log_likelihood / len(X)

    def _n_outside(self, X: Rows, run: EmResult, penalty: Penalty) -> int:
        """Rows beyond the cuts of all components, which steps with totals of the rows do not count."""
        if penalty.row_totals is None:
            return run.n_outside
        return self.family.em_pass(X, run.weights, run.components).n_outside

    def check_rows(
        self, X: Rows, names: Sequence[str] | None = None
    ) -> tuple[Rows, int, LocalEstimate | None]:
        """The rows that can be fitted.

        Returns
        -------
        rows : ndarray of shape (n_fitted, n_features)
        n_omitted : int
        refusal : LocalEstimate or None
            The result without a mixture, if the rows cannot be fitted.
        """
        given = X
        X, n_omitted, refusal = self.finite_rows(X, names)
        if refusal is not None:
            return X, n_omitted, refusal
        least, what = self._least_rows(X.shape[1])
        if len(X) >= least:
            return X, n_omitted, None
        omitted = f" ({n_omitted} more hold {_find_bad_values(given).kind})" if n_omitted else ""
        advice = self._remedies(X.shape[1], len(X))
        reason = f"{len(X)} rows{omitted}, fewer than {what}; use {advice}"
        refusal = without_estimate(Outcome.TOO_FEW_ROWS, reason, len(X), n_omitted=n_omitted)
        return X, n_omitted, refusal

    def finite_rows(
        self, X: Rows, names: Sequence[str] | None = None
    ) -> tuple[Rows, int, LocalEstimate | None]:
        """The finite rows, the number of omitted ones, and the refusal if ``nan_policy`` forbids to omit rows."""
        bad = _find_bad_values(X)
        n_omitted = len(X) - int(bad.is_good.sum())
        if not n_omitted:
            return X, 0, None
        if self.nan_policy == "omit":
            return X[bad.is_good], n_omitted, None
        labels = [str(j) for j in range(X.shape[1])] if names is None else names
        counts = zip(labels, bad.counts, strict=True)
        where = ", ".join(f"{label} ({count} rows)" for label, count in counts if count)
        reason = f"{bad.kind} in {where}; nan_policy='omit' omits such rows"
        return X, 0, without_estimate(Outcome.NOT_FINITE, reason, len(X))

    def _remedies(self, n_features: int, n_rows: int) -> str:
        """What would let so many rows be fitted."""
        if self.min_rows == "auto":
            return remedies(self.family, self.n_components, n_features, n_rows)
        lower = f"min_partition_rows={n_rows} or " if n_rows >= max(self.n_components, 2) else ""
        return f"{lower}larger partitions"

    def least_rows(self, n_features: int) -> int:
        """The number of rows below which rows of so many columns are not fitted."""
        return self._least_rows(n_features)[0]

    def _least_rows(self, n_features: int) -> tuple[int, str]:
        """The smallest number of rows, and its description in words."""
        if self.min_rows == "auto":
            words = describe_least_rows(self.family, self.n_components, n_features)
            return self.family.least_rows(self.n_components, n_features), words
        least = max(int(self.min_rows), self.n_components, 2)
        return least, f"the {least} required by min_rows"

    def can_fit(self, X: Rows) -> bool:
        """Whether a component can be fitted to finite rows (n_samples, n_features)."""
        central = self._central(X)
        target = self.family.prior_target(central)
        return self.family.degeneracy(central, target, self.reg_covar) is None

    def _central(self, X: Rows) -> Rows:
        """The rows that decide whether a fit is possible: without gross values, if such rows do not count in it."""
        return without_gross(X) if self.family.cut.truncates else X

    def _degeneracy(
        self, X: Rows, all_rows: Components, names: Sequence[str], floor: float
    ) -> str | None:
        """The reason why no component can be fitted, with the names of the columns; None if one can be fitted."""
        reason = self.family.degeneracy(X, all_rows, floor)
        if reason is None:
            return None
        return re.sub(r"\{column (\d+)\}", lambda match: names[int(match[1])], reason)

    def _flatness(self, X: Rows, all_rows: Components, names: Sequence[str]) -> str:
        """Which columns only ``reg_covar`` gives a spread; empty if none."""
        reason = self._degeneracy(X, all_rows, names, 0.0) if self.reg_covar else None
        return "" if reason is None else f"{reason.partition(';')[0]} {FITTED_BY_FLOOR}"

    @property
    def is_accelerated(self) -> bool:
        """Whether EM is accelerated. With ``reg_covar`` a step may lower the objective, which its safeguard checks."""
        return self.accelerate and self.reg_covar == 0

    def penalty_for(self, X: Rows) -> Penalty:
        """The penalty of fits to rows (n_samples, n_features)."""
        is_needed = self.penalty == "paper" and not self.family.cut.truncates
        return self._penalty(len(X), self.family.prior_target(X) if is_needed else None, X)

    def penalty_of_moments(self, n_samples: int) -> Penalty:
        """The penalty of a fit to rows of several partitions together, of which the moments are all that is known."""
        return self._penalty(n_samples, None)

    def _penalty(
        self, n_samples: int, all_rows: Components | None, X: Rows | None = None
    ) -> Penalty:
        weight = weight_of(self.penalty, n_samples)
        is_paper = self.penalty == "paper"
        totals = None if X is None else self.family.row_totals(X)
        return Penalty(self.family, weight, self.reg_covar, is_paper, all_rows, n_samples, totals)

    def _best_of_starts(
        self,
        X: Rows,
        start: str | Mixture,
        given: GivenStart | None,
        penalty: Penalty,
        rng: np.random.Generator,
    ) -> tuple[EmResult, str]:
        """The best EM run, and the name of its start."""
        if not isinstance(start, str):
            return self._from_mixture(X, (start.weights, start.components), penalty, rng)
        results: list[EmResult] = []
        for i in range(self.n_init):
            first = self._clusterings(X, penalty, rng).start(start, rng, given)
            try:
                results.append(self._from_clustering(X, first, penalty))
            except ComponentCollapsedError:
                if i == self.n_init - 1 and not results:
                    raise
        return best_first(self.family, results, X)[0], start

    def _from_clustering(self, X: Rows, start: Point, penalty: Penalty) -> EmResult:
        """The EM run from a clustering; with a stricter cut first, if the family truncates."""
        if not self.family.cut.truncates:
            return self.maximise(X, start, penalty)
        found = self.search(X, start, penalty)
        return self._stay_near(X, (found.weights, found.components), penalty)

    def _stay_near(self, X: Rows, start: Point, penalty: Penalty) -> EmResult:
        """The EM run from a start near the optimum, with a stricter cut if otherwise bad rows are drawn in.

        A component of few rows grows over many bad ones at its cut, pass by pass, if the cut is wide. Such a run counts
        most of the rows that were outside of its start. The stricter run from there is then the result if it describes
        the rows better.
        """
        found = self.maximise(X, start, penalty)
        if not self.family.cut.truncates:
            return found
        drawn_in = found.n_outside_start - found.n_outside
        least = max(DRAWN_IN * found.n_outside_start, DRAWN_IN_SDS * np.sqrt(found.n_outside_start))
        if drawn_in <= least or self.stricter.family == self.family:
            return found
        try:
            strict = self.stricter.maximise(X, start, penalty)
        except ComponentCollapsedError:
            return found
        return best_first(self.family, [found, strict], X)[0]

    @property
    def stricter(self) -> LocalProblem:
        """The problem with the cut of a search."""
        if not self.family.cut.truncates:
            return self
        return replace(self, family=self.family.with_cut(self.family.cut.for_search()))

    def search(
        self, X: Rows, start: Point, penalty: Penalty, max_iter: int | None = None
    ) -> EmResult:
        """An EM run that only has to find a start: with a loose stopping rule, and a strict cut if there is one."""
        return self.stricter.maximise(X, start, penalty, tol=LOOSE_TOL, max_iter=max_iter)

    def _from_mixture(
        self, X: Rows, start: Point, penalty: Penalty, rng: np.random.Generator
    ) -> tuple[EmResult, str]:
        """The EM run from a given mixture, and the name of its start.

        A truncated fit may find most rows outside of the start, and describe the rest alone. Then it starts once more,
        at its own rows, and the run that leaves fewer rows outside is the result.
        """
        found: EmResult | None = None
        try:
            found = self._stay_near(X, start, penalty)
        except ComponentCollapsedError:
            if not self.family.cut.truncates:
                raise
        may_stay = not self.family.cut.truncates
        if found is not None and (may_stay or found.n_outside <= MOST_OUTSIDE * len(X)):
            return found, "given"
        own = self._clusterings(X, penalty, rng).start(OWN_START, rng)
        try:
            again = self._from_clustering(X, own, penalty)
        except ComponentCollapsedError:
            if found is None:
                raise
            return found, "given"
        if found is not None and found.n_outside <= again.n_outside:
            return found, "given"
        order = match_components(self.family, start[1], again.components)
        matched = take(again.components, order)
        return replace(again, weights=again.weights[order], components=matched), OWN_START

    def _clusterings(self, X: Rows, penalty: Penalty, rng: np.random.Generator) -> Clusterings:
        return Clusterings(self.family, self.start_rows(X, rng), self.n_components, penalty)

    def scale_of(self, X: Array) -> Scale:
        """Location and spread of the columns (n_samples, n_features), in which rows are clustered."""
        return Scale.of(as_block(self._central(X)))

    def start_rows(self, X: Rows, rng: np.random.Generator) -> Array:
        """The rows that are clustered for a start, in float64: not the farthest ones, if the family truncates."""
        if self.family.cut.truncates:
            return rows_to_start_from(X, rng)
        return subsample(X, MAX_START_ROWS, rng)

    def maximise(
        self,
        X: Rows,
        start: tuple[Array, Components],
        penalty: Penalty,
        tol: float | str | None = None,
        max_iter: int | None = None,
    ) -> EmResult:
        """Run EM from one start.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        start : (weights, components)
        penalty : Penalty
        tol, max_iter : optional
            In place of those of the problem, for pilots.

        Raises
        ------
        ComponentCollapsedError
            If a component shrank onto too few rows.
        """
        tol = self.tol if tol is None else tol
        n_parameters = self.family.n_parameters(self.n_components, X.shape[1])
        rule = (
            RemainingGain.tight(n_parameters, self.n_sources, len(X))
            if tol == "auto"
            else MeanChange(float(tol) * len(X))
        )
        ascent = Ascent(self.family, start, penalty, len(X), rule, self.is_accelerated)
        n_most = max_iter or self.max_iter
        outside: list[int] = []
        while not ascent.converged and ascent.n_iter < n_most:
            deadlines.check()
            outside += ascent.advance(X, n_most - ascent.n_iter)
        return ascent.result(outside[-1], outside[0])


def _despite_gross_rows(reason: str, n_gross: int) -> str:
    """Why rows are degenerate, if so many rows with gross values do not count: the user sees those in the data."""
    if not n_gross:
        return reason
    found, _, cure = reason.partition(";")
    gross = f"{n_gross} {'row' if n_gross == 1 else 'rows'} with gross values"
    return f"{found} apart from {gross}; for a rare category use row_outliers=None, otherwise{cure}"


class _BadValues(NamedTuple):
    """NaN, infinite and too large values in rows.

    ``is_good`` (n_samples,) marks rows without any; ``counts`` (n_features,) are the bad values of each column;
    ``are_huge`` is true if one of them is finite.
    """

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
    for batch in batches(len(X), max(1, BLOCK_FLOATS // X.shape[1])):
        block = X[batch]
        # The usual case, decided cheaply. With a NaN both comparisons are false.
        if float(block.min()) >= -MAX_MAGNITUDE and float(block.max()) <= MAX_MAGNITUDE:
            continue
        with np.errstate(invalid="ignore"):
            block = as_block(block)
            bad = ~(np.abs(block) <= MAX_MAGNITUDE)
        are_huge = are_huge or bool(np.isfinite(block[bad]).any())
        counts += bad.sum(axis=0)
        good[batch] = ~bad.any(axis=1)
    return _BadValues(good, counts, are_huge)
