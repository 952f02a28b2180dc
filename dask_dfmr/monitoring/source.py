"""The check of one source: its rows against the law of the model, and for unlikely rows where they differ.

The verdict needs no fit. An unlikely source is explained afterwards. Either all rows but some agree, or all agree once
a change of columns is undone (:mod:`dask_dfmr.monitoring.columns`), or the rows are fitted from the model, and the
difference of both mixtures is searched for a cause as that of an excluded partition is
(:mod:`dask_dfmr.explanation.causes`). Nothing of the rows leaves this module but their number and what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.explanation.causes import explain_estimate
from dask_dfmr.explanation.findings import SOME_ROWS, ColumnsChanged, Words
from dask_dfmr.explanation.standard_errors import StandardErrors, column_moments
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import are_outside
from dask_dfmr.local.starts import subsample
from dask_dfmr.mixtures.family import Rows
from dask_dfmr.mixtures.tails import binom_sf
from dask_dfmr.monitoring.columns import changed_columns
from dask_dfmr.monitoring.row_law import LOW_RANKS, RowLaw

N_TESTS = 1 + len(LOW_RANKS)
"""Tests of a source; its p-value is the least one of them, times their number."""

MOST_FITTED, MOST_FIT_PASSES = 20_000, 200
"""Rows of an unlikely source that are fitted to explain it, and passes over them, at most."""

CHECKED, EMPTY = "checked", "empty"
"""Outcomes of sources whose rows could be read; the others are those of a local fit."""


@dataclass(frozen=True)
class SourceCheck:
    """What was found in one source: plain numbers and texts.

    Attributes
    ----------
    source : str
        Its name.
    outcome : str
        "checked", "empty", or the outcome of a fit that could not read or use the rows.
    detail : str
        The outcome in words, if it is not "checked".
    n_samples : int
        Rows that were compared.
    n_omitted : int
        Rows omitted for NaN or infinity.
    least_rows : int
        Rows below which a source is too small to be accepted.
    p_value : float
        Probability that a consistent source of as many rows is as unlikely; NaN if nothing was compared.
    p_scores, p_low : float
        The same by the mean score alone, and by rows of low density alone.
    ratio : float
        Distance of the mean score in units of what sampling explains (root mean square).
    n_low : int
        Rows whose density is below that of nearly all rows of the fit.
    n_low_expected : float
        Their number that is to be expected.
    kind, finding : str
        Cause of an unlikely source, as a key and in words; empty for others.
    component : int or None
        Component that differs most.
    columns : tuple of str
        Columns that the cause is about, or that differ most.
    z : float
        How many standard errors the number is off that differs most.
    unread : str
        Which rows of the source could not be read, in words; empty if all could.
    """

    source: str
    outcome: str = CHECKED
    detail: str = ""
    n_samples: int = 0
    n_omitted: int = 0
    least_rows: int = 0
    p_value: float = float("nan")
    p_scores: float = float("nan")
    p_low: float = float("nan")
    ratio: float = float("nan")
    n_low: int = 0
    n_low_expected: float = float("nan")
    kind: str = ""
    finding: str = ""
    component: int | None = None
    columns: tuple[str, ...] = ()
    z: float = float("nan")
    unread: str = ""

    def to_message(self) -> dict[str, Any]:
        """The fields as a dict of plain values; :meth:`from_message` is the inverse."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> SourceCheck:
        """The check from a message of plain values.

        Raises
        ------
        ValueError, TypeError
            If a value is missing, or has another type than it should.
        """
        for one in fields(cls):
            value, kind = message[one.name], str(one.type)
            allowed: tuple[type, ...] = {
                "str": (str,),
                "int": (int,),
                "float": (float, int),
                "int | None": (int, type(None)),
                "tuple[str, ...]": (tuple, list),
            }[kind]
            if not isinstance(value, allowed) or isinstance(value, bool):
                raise ValueError(f"{one.name} must be of type {kind}; got {value!r:.100}")
        return replace(cls(**message), columns=tuple(map(str, message["columns"])))


@dataclass(frozen=True, eq=False)
class Checker:
    """Everything that the checks of all sources share.

    Attributes
    ----------
    law : RowLaw
    errors : StandardErrors
        Of the model, for explanations.
    problem : LocalProblem
        How rows are fitted, and what happens to rows with NaN.
    level : float
        Sources with a smaller p-value are explained.
    """

    law: RowLaw
    errors: StandardErrors
    problem: LocalProblem
    level: float

    def check(self, X: Rows, source: str) -> SourceCheck:
        """What is found in the rows (n_samples, n_features) of a source, which have the columns of the model."""
        mixture = self.law.mixture
        names = column_names(mixture.feature_names, mixture.n_features)
        X, n_omitted, refusal = self.problem.finite_rows(X, names)
        least = self.problem.least_rows(mixture.n_features)
        known = SourceCheck(source, CHECKED, "", len(X), n_omitted, least)
        if refusal is not None:
            return replace(known, outcome=refusal.outcome.value, detail=refusal.reason)
        if not len(X):
            all_omitted = f"; {n_omitted} hold NaN or infinity" if n_omitted else ""
            return replace(known, outcome=EMPTY, detail=f"there are no rows{all_omitted}")
        p_scores, ratio = self.law.p_of_scores(X)
        low = self.law.low_densities(X)
        found = replace(
            known,
            p_value=min(1.0, N_TESTS * min(p_scores, *low.p_values)),
            p_scores=p_scores,
            p_low=min(1.0, len(low.p_values) * min(low.p_values)),
            ratio=ratio,
            n_low=int(low.is_low.sum()),
            n_low_expected=low.n_expected,
        )
        return self._explained(found, X, low.is_low) if found.p_value < self.level else found

    def _explained(self, found: SourceCheck, X: Rows, is_low: NDArray[np.bool_]) -> SourceCheck:
        """The check of an unlikely source with the place where it differs, as far as that can be found."""
        mixture = self.law.mixture
        names = column_names(mixture.feature_names, mixture.n_features)
        rest = X[~is_low]
        is_minority = 0 < 2 * found.n_low < found.n_samples
        if is_minority and self.law.p_of_scores(rest)[0] >= self.level:
            return self._of_some_rows(found, X[is_low], names)
        if found.n_samples < found.least_rows:
            return found
        changes = changed_columns(self.law, X, self.level)
        if changes is not None:
            cause = ColumnsChanged(changes)
            columns = tuple(names[j] for j in cause.columns)
            text = cause.in_words(Words(mixture))
            return replace(found, kind=cause.kind, finding=text, columns=columns)
        return self._of_fit(found, X, names)

    def _of_fit(self, found: SourceCheck, X: Rows, names: Sequence[str]) -> SourceCheck:
        """The check of a source whose rows are fitted from the model: the component or column that differs."""
        mixture = self.law.mixture
        rows = subsample(X, MOST_FITTED, np.random.default_rng(0))
        estimate = self.problem.fit(rows, mixture, feature_names=names)
        if estimate.mixture is None:
            # What follows the cause is advice for a fit.
            cause = estimate.reason.partition(";")[0]
            return replace(found, kind=estimate.outcome.value, finding=cause)
        finding = explain_estimate(estimate, self.errors)
        if finding.kind == "nothing":
            return self._of_rows_outside(found, X, names)
        worst = getattr(finding.cause, "worst", finding.worst)
        own = dict.fromkeys((*finding.columns, *worst.columns))
        return replace(
            found,
            kind=finding.kind,
            finding=finding.text,
            component=int(finding.component),
            columns=tuple(names[j] for j in own),
            z=float(worst.z),
        )

    def _of_rows_outside(self, found: SourceCheck, X: Rows, names: Sequence[str]) -> SourceCheck:
        """The check of a source whose fit agrees: if the fit truncates, only rows beyond its cuts can differ.

        Such rows need not be of low density for the law, because those of the fit may have had some of them too.
        """
        cut = self.problem.family.cut
        is_outside = are_outside(X.astype(np.float64), self.law.mixture, cut)
        n_outside = int(is_outside.sum())
        if not cut.truncates or binom_sf(n_outside - 1, len(X), cut.level) >= self.level:
            return found
        return self._of_some_rows(found, X[is_outside], names)

    def _of_some_rows(self, found: SourceCheck, rows: Rows, names: Sequence[str]) -> SourceCheck:
        """The check of a source of which all rows but these agree: in which columns these lie far out."""
        mean, sd = column_moments(self.law.mixture)
        with np.errstate(over="ignore", invalid="ignore"):
            distances = np.median(np.abs(rows.astype(np.float64) - mean) / sd, axis=0)
        far = np.flatnonzero(distances >= distances.max() / 2).tolist()
        where = f"mostly in {', '.join(Words(self.law.mixture).columns[j] for j in far[:3])}"
        return replace(
            found,
            kind=SOME_ROWS,
            finding=f"{len(rows)} rows lie far outside ({where}); the others agree",
            columns=tuple(names[j] for j in far),
        )


def column_names(feature_names: Sequence[str] | None, n_features: int) -> list[str]:
    """Names of the columns, by position if they have none."""
    if feature_names is None:
        return [str(j) for j in range(n_features)]
    return list(feature_names)
