"""Which cause explains that an estimate is unlike the global mixture.

Every cause is tested by an exact computation. Changes of columns (:mod:`dask_dfmr.explanation.column_changes`) are
undone. Other weights, one component or one column are set free, and only the rest is compared. A cause explains the
estimate if sampling explains what remains. Of several such causes the simplest is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dask_dfmr.aggregation.null_law import chi_square_law
from dask_dfmr.explanation.column_changes import (
    AGREEMENT_LEVEL,
    CHOICE,
    Explanation,
    Measure,
    Search,
)
from dask_dfmr.explanation.findings import (
    Cause,
    ColumnsChanged,
    ColumnsChangedInOtherOptimum,
    Finding,
    MainCause,
    NoSingleCause,
    NothingStandsOut,
    OneColumn,
    OneColumnOfOneComponent,
    OneComponent,
    OtherWeights,
    RefitAgrees,
    WholeColumnsAgree,
)
from dask_dfmr.explanation.flat_columns import constant_columns
from dask_dfmr.explanation.standard_errors import StandardErrors
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import column_labels
from dask_dfmr.mixtures.gaussian import Mixture

LEFT, LEFT_DISTANCE = 1 / 30, 1 / 3
"""A cause is the main one if it leaves less than these shares of the squared difference and of the L2 distance."""

OFF = 5.0
"""A component differs if one of its numbers is off by more standard errors than this."""


def explain_estimate(
    estimate: LocalEstimate, errors: StandardErrors, thorough: bool = True
) -> Finding:
    """Why an estimate is unlike the global mixture.

    Parameters
    ----------
    estimate : LocalEstimate
        With a mixture of the family and shape of the global mixture.
    errors : StandardErrors
        The global mixture, with the standard errors of estimates of it.
    thorough : bool, default True
        Whether to look for changes of columns in the components too, if whole columns show none. That takes ten times
        as long.

    Raises
    ------
    ValueError
        If the estimate has no mixture, or one of another family or shape.
    """
    mixture = _comparable(estimate, errors.mixture)
    # The numbers of an estimate may be of any size. If they overflow, it is infinitely far off.
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        return _Comparison(mixture, estimate, errors, thorough).finding()


def _comparable(estimate: LocalEstimate, reference: Mixture) -> Mixture:
    if estimate.mixture is None:
        raise ValueError(
            f"estimate must have a mixture to be explained; this one has the outcome {estimate.outcome.value!r}."
        )
    m = estimate.mixture
    own = (m.covariance_type, m.n_components, m.n_features)
    expected = (reference.covariance_type, reference.n_components, reference.n_features)
    if own != expected:
        raise ValueError(
            f"estimate must agree with the global mixture in (covariance_type, n_components, n_features) = "
            f"{expected}; got {own}."
        )
    return m


class _Freed(NamedTuple):
    """A part of the mixture that was set free, and the squared difference of the rest."""

    kind: str
    number: int
    statistic: float
    n_freed: int
    p_value: float
    cause: Cause

    @property
    def agrees(self) -> bool:
        return self.p_value >= AGREEMENT_LEVEL


class _Comparison:
    """One estimate compared with the global mixture."""

    def __init__(
        self, mixture: Mixture, estimate: LocalEstimate, errors: StandardErrors, thorough: bool
    ) -> None:
        self.thorough = thorough
        self.mixture, self.n_samples, self.errors = mixture, estimate.n_samples, errors
        labels = column_labels(errors.mixture.feature_names, errors.mixture.n_features)
        self.constant = constant_columns(estimate.reason, labels)
        n_samples = estimate.n_samples
        self.aligned = errors.aligned(mixture)
        self.statistic = errors.statistic(mixture, n_samples)
        self.n_parameters = errors.mixture.n_parameters
        self.quantities = errors.quantities(self.aligned, n_samples)
        self.worst = self.quantities[0]

    def finding(self) -> Finding:
        p_value = self.errors.p_value(self.statistic, self.n_parameters)
        if p_value >= AGREEMENT_LEVEL:
            return self._finding(NothingStandsOut(self.worst), p_value)
        of_columns, of_components = self._searches()
        # Whole columns are searched first: they are quick, and right in whatever optimum the fit ended.
        in_columns = of_columns.explanations()
        found = [of_components.fitted(e) for e in in_columns]
        parts = self._parts()
        finding = self._simplest(of_components, found, parts)
        finding = finding or self._in_whole_columns(of_columns, in_columns)
        if finding is None and self.thorough:
            found += of_components.explanations()
            finding = self._simplest(of_components, found, parts)
        finding = finding or self._other_optimum(of_columns) or self._main_cause(found, parts)
        return finding or self._finding(self._no_single_cause(), p_value)

    def _searches(self) -> tuple[Search, Search]:
        """Searches for changes in whole columns, and in components."""
        variance = self.errors.variance(self.n_samples)
        by_columns, by_components = (
            Search(self.mixture, Measure(self.errors, variance, by_components), self.constant)
            for by_components in (False, True)
        )
        return by_columns, by_components

    def _simplest(
        self, search: Search, found: Sequence[Explanation], parts: Sequence[_Freed]
    ) -> Finding | None:
        """The cheapest of the causes that leave no more than sampling explains; None if there is none."""
        candidates = [(search.cost(e), self._of_changes(e)) for e in found]
        candidates += [
            (self._cost(part), self._finding(part.cause, part.p_value)) for part in parts
        ]
        candidates += self._in_one_place(parts)
        agreeing = [(cost, f) for cost, f in candidates if f.p_value >= AGREEMENT_LEVEL]
        return min(agreeing, key=lambda c: c[0])[1] if agreeing else None

    # -- changes of columns --

    def _of_changes(self, explanation: Explanation) -> Finding:
        p_value = self.errors.p_value(explanation.statistic, self.n_parameters)
        finding = self._finding(ColumnsChanged(explanation.changes), p_value)
        return replace(finding, corrected=self.errors.aligned(explanation.left))

    def _in_whole_columns(self, search: Search, found: Sequence[Explanation]) -> Finding | None:
        """Changes that whole columns show although the fit ended in another optimum."""
        measure = search.measure
        most = LEFT * measure.statistic(self.mixture)
        agreeing = [e for e in found if e.statistic < most and measure.agrees(e)]
        if not agreeing:
            return None
        best = min(agreeing, key=search.cost)
        cause, p_value = ColumnsChangedInOtherOptimum(best.changes), measure.p_value(best.statistic)
        return replace(self._of_changes(best), cause=cause, p_value=p_value)

    def _other_optimum(self, search: Search) -> Finding | None:
        """Another optimum of the same data: whole columns agree as they are."""
        p_value = search.measure.p_value(search.measure.statistic(self.mixture))
        if p_value < AGREEMENT_LEVEL:
            return None
        return self._finding(WholeColumnsAgree(p_value, self.worst), p_value)

    # -- parts set free --

    def _parts(self) -> list[_Freed]:
        """The differences that remain when the weights, one component or one column are set free."""
        errors, variance = self.errors, self.errors.variance(self.n_samples)
        v = errors.difference(self.aligned)
        # Errors of components follow the rows behind them, which the estimate's own weights give.
        reweighted = errors.difference(self.aligned, self.aligned.weights)
        found = []
        empty = self._components_without_rows()
        for (kind, number), part in errors.parts.items():
            if kind == "component" and not empty <= {number}:
                continue  # A component without rows agrees with everything: it is no evidence for the rest.
            statistic = part.statistic(v if kind == "column" else reweighted, variance)
            p_value = errors.p_value(statistic, part.n_free)
            n_freed = self.n_parameters - part.n_free
            cause = self._cause_of(kind, number)
            found.append(_Freed(kind, number, statistic, n_freed, p_value, cause))
        return found

    def _components_without_rows(self) -> set[int]:
        """Components of the estimate with fewer rows than determine a covariance: they left with the others' rows."""
        rows = self.aligned.weights * self.n_samples
        return set(np.flatnonzero(rows <= self.aligned.n_features).tolist())

    def _cause_of(self, kind: str, number: int) -> Cause:
        if kind == "weights":
            now, then = (tuple(m.weights.tolist()) for m in (self.aligned, self.errors.mixture))
            return OtherWeights(now, then)
        if kind == "component":
            own = (q for q in self.quantities if q.component == number and q.what != "weight")
            return OneComponent(number, next(own))
        return OneColumn(number, next(q for q in self.quantities if number in q.columns))

    def _in_one_place(self, parts: Sequence[_Freed]) -> list[tuple[float, Finding]]:
        """One column of one component: the rest agrees without the column, and also without the component."""
        components = [part for part in parts if part.kind == "component" and part.agrees]
        columns = [part for part in parts if part.kind == "column" and part.agrees]
        if len(components) != 1 or len(columns) != 1:
            return []
        i, j = components[0].number, columns[0].number
        own = (q for q in self.quantities if q.component == i and j in q.columns)
        cause = OneColumnOfOneComponent(i, j, next(own, self.worst))
        cost = min(self._cost(components[0]), self._cost(columns[0])) - CHOICE
        return [(cost, self._finding(cause, components[0].p_value))]

    def _cost(self, part: _Freed) -> float:
        return part.statistic / self.errors.scale + CHOICE * (part.n_freed + 1)

    # -- causes that leave more than sampling explains --

    def _main_cause(self, found: Sequence[Explanation], parts: Sequence[_Freed]) -> Finding | None:
        """Changes of columns, or other weights, that explain nearly all of the difference."""
        causes = [(e.statistic, e.left, self._of_changes(e)) for e in found]
        m, reference = self.aligned, self.errors.mixture
        for part in parts:
            if isinstance(part.cause, OtherWeights):
                left = m.family.mixture(reference.weights, m.components)
                cause = replace(part.cause, rest_agrees=False)
                causes.append((part.statistic, left, self._finding(cause, part.p_value)))
        before = self.errors.distance(m)
        causes = [
            (statistic, left, finding)
            for statistic, left, finding in causes
            if statistic < LEFT * self.statistic
            and self.errors.distance(left) < LEFT_DISTANCE * before
        ]
        if not causes:
            return None
        statistic, _, finding = min(causes, key=lambda c: c[0])
        ratio = float(np.sqrt(statistic / self.errors.law(self.n_parameters).mean))
        return replace(finding, cause=MainCause(finding.cause, ratio))

    def _no_single_cause(self) -> NoSingleCause:
        off = {q.component for q in self.quantities if abs(q.z) > OFF and q.what != "weight"}
        return NoSingleCause(tuple(sorted(off)), self.worst)

    def _finding(self, cause: Cause, p_value: float) -> Finding:
        return Finding(cause, self.errors.mixture, self.worst, self.statistic, p_value)


# -- another optimum -------------------------------------------------------------------------------


def compare_refit(
    finding: Finding, own: LocalEstimate, refit: LocalEstimate, errors: StandardErrors
) -> Finding:
    """The finding, with another optimum as the cause if a refit shows that.

    It does so if the refit, from the global mixture, agrees with the global mixture, and if its likelihood is lower
    than that of the first fit by no more than two estimates of one mixture may differ.

    Parameters
    ----------
    finding : Finding
        Of ``own``.
    own, refit : LocalEstimate
        The first fit of the rows, and the fit of the same rows from the global mixture.
    errors : StandardErrors
    """
    if own.mixture is None or refit.mixture is None or finding.kind == "nothing":
        return finding
    statistic = errors.statistic(refit.mixture, refit.n_samples)
    p_value = errors.p_value(statistic, errors.mixture.n_parameters)
    loss = own.n_samples * (own.log_likelihood - refit.log_likelihood)
    law = chi_square_law(errors.mixture.n_parameters)
    if p_value < AGREEMENT_LEVEL or not law.sf(np.array(2.0 * loss)) >= AGREEMENT_LEVEL:
        return finding
    return replace(finding, cause=RefitAgrees(p_value), p_value=p_value, corrected=refit.mixture)
