"""Why an estimate is unlike the global mixture, in words: what would have to be undone so that the two agree.

Causes are tried, each of which says something exact: a column multiplied, shifted, turned round or exchanged with
another one, which can be undone (:mod:`dask_dfmr.explanation.column_changes`); other weights, one component or one column, whose part of
the difference can be set free. Of the causes that leave no more than sampling explains the simplest is named. Knows
no rows and no Dask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from dask_dfmr.aggregation.null_law import chi_square_law
from dask_dfmr.explanation.column_changes import (
    CHOICE,
    LEVEL,
    ColumnChange,
    Explanation,
    Measure,
    Search,
)
from dask_dfmr.explanation.standard_errors import Quantity, StandardErrors, column_moments
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.gaussian import Mixture

LEFT, LEFT_DISTANCE = 1 / 30, 1 / 3
"""A cause that leaves less than these shares of the squared difference, and of the L2 distance, is the main one."""

OFF = 5.0
"""A component with a number that is off by more standard errors differs."""


@dataclass(frozen=True)
class Finding:
    """Why an estimate is unlike the global mixture.

    Attributes
    ----------
    kind : str
        "unit" (a column multiplied, perhaps shifted too), "offset", "sign", "swapped columns", "column order",
        several of these joined by " and ", "weights", "component", "column", "other optimum" (a refit of its rows
        agrees), "optimum" (only its columns as a whole do), "unexplained", or "nothing" where no more is off than
        sampling explains.
    text : str
        The same in words, with numbers.
    columns : tuple of int
        Columns that the cause is about; empty where it is about none.
    component : int or None
        Component of the global mixture that the quantity farthest off belongs to.
    column : int or None
        Its column; None for a weight.
    z : float
        How far that quantity is off, in standard errors.
    statistic : float
        Squared length of the difference in standard errors.
    p_value : float
        Probability that an honest estimate differs by more than the cause leaves unexplained.
    corrected : Mixture or None
        The estimate with a cause of columns undone, components in the order of the global mixture.
    """

    kind: str
    text: str
    columns: tuple[int, ...] = ()
    component: int | None = None
    column: int | None = None
    z: float = float("nan")
    statistic: float = float("nan")
    p_value: float = float("nan")
    corrected: Mixture | None = None


def explain_estimate(
    estimate: LocalEstimate, yardstick: StandardErrors, thorough: bool = True
) -> Finding:
    """Why an estimate is unlike the global mixture.

    Parameters
    ----------
    estimate : LocalEstimate
        With a mixture of the reference's family and shape.
    yardstick : StandardErrors
        The global mixture, :func:`make_standard_errors`.
    thorough : bool, default True
        Where whole columns show no cause, look for one in the components: takes ten times as long.

    Raises
    ------
    ValueError
        If the estimate has no mixture, or one of another family or shape.
    """
    mixture = _comparable(estimate, yardstick.mixture)
    # An estimate may lie anywhere: what is infinitely far is far.
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        return _Audit(mixture, estimate.n_samples, yardstick, thorough).finding()


def _comparable(estimate: LocalEstimate, reference: Mixture) -> Mixture:
    if estimate.mixture is None:
        raise ValueError(
            f"estimate must have a mixture to be explained_estimates; this one has the outcome {estimate.outcome.value!r}."
        )
    m = estimate.mixture
    mine = (m.covariance_type, m.n_components, m.n_features)
    wanted = (reference.covariance_type, reference.n_components, reference.n_features)
    if mine != wanted:
        raise ValueError(
            f"estimate must agree with the global mixture in (covariance_type, n_components, n_features) = "
            f"{wanted}; got {mine}."
        )
    return m


class _Audit:
    """One estimate held against the yardstick."""

    def __init__(
        self, mixture: Mixture, n_samples: int, yardstick: StandardErrors, thorough: bool
    ) -> None:
        self.thorough = thorough
        self.mixture, self.n_samples, self.yardstick = mixture, n_samples, yardstick
        self.aligned = yardstick.aligned(mixture)
        self.statistic = yardstick.statistic(mixture, n_samples)
        self.n_parameters = yardstick.mixture.n_parameters
        self.quantities = yardstick.quantities(self.aligned, n_samples)
        self.names = _Names(yardstick.mixture)

    def finding(self) -> Finding:
        p_value = self.yardstick.p_value(self.statistic, self.n_parameters)
        if p_value >= LEVEL:
            return self._finding("nothing", f"nothing stands out ({self._worst()})", p_value)
        of_columns, of_components = self._searches()
        seen = of_columns.explanations()
        found = [of_components.fitted(e) for e in seen]
        parts = self._parts()
        cause = self._simplest(of_components, found, parts)
        cause = cause or self._seen_in_columns(of_columns, seen)
        if cause is None and self.thorough:
            found += of_components.explanations()
            cause = self._simplest(of_components, found, parts)
        cause = cause or self._other_optimum(of_columns) or self._main_cause(found, parts)
        return cause or self._finding("unexplained", self._unexplained(), p_value)

    def _searches(self) -> tuple[Search, Search]:
        """By whole columns, which is quick and right in whatever optimum the estimate is; and by components."""
        variance = self.yardstick.variance(self.n_samples)
        measures = (
            Measure(self.yardstick, variance, by_components) for by_components in (False, True)
        )
        by_columns, by_components = (Search(self.mixture, measure) for measure in measures)
        return by_columns, by_components

    def _simplest(
        self, search: Search, found: Sequence[Explanation], parts: Sequence[_Freed]
    ) -> Finding | None:
        """Of the causes that leave no more than sampling explains."""
        candidates = [(search.cost(e), self._of_deeds(e)) for e in found]
        candidates += [(self._cost(part), part.finding) for part in parts]
        candidates += self._in_one_place(parts)
        agreeing = [(cost, f) for cost, f in candidates if f.p_value >= LEVEL]
        return min(agreeing, key=lambda c: c[0])[1] if agreeing else None

    # -- causes --

    def _of_deeds(self, explanation: Explanation) -> Finding:
        kinds = dict.fromkeys(
            "unit" if d.kind == "unit and offset" else d.kind for d in explanation.deeds
        )
        columns = sorted({j for deed in explanation.deeds for j in deed.columns})
        return replace(
            self._finding(
                " and ".join(kinds),
                self.names.deeds(explanation.deeds),
                self.yardstick.p_value(explanation.statistic, self.n_parameters),
            ),
            columns=tuple(columns),
            corrected=self.yardstick.aligned(explanation.left),
        )

    def _parts(self) -> list[_Freed]:
        """What is left when weights, a component or a column are set free."""
        yardstick, variance = self.yardstick, self.yardstick.variance(self.n_samples)
        v = yardstick.difference(self.aligned)
        # Errors of components follow the rows behind them, which are the estimate's own.
        reweighted = yardstick.difference(self.aligned, self.aligned.weights)
        found = []
        for (kind, index), part in yardstick.parts.items():
            statistic = part.statistic(v if kind == "column" else reweighted, variance)
            p_value = yardstick.p_value(statistic, part.n_free)
            text = self._part_in_words(kind, index)
            finding = self._finding(kind, text, p_value)
            if kind == "column":
                finding = replace(finding, columns=(index,))
            if kind == "component":
                finding = replace(finding, component=index)
            found.append(_Freed(kind, index, statistic, self.n_parameters - part.n_free, finding))
        return found

    def _in_one_place(self, parts: Sequence[_Freed]) -> list[tuple[float, Finding]]:
        """One column of one component, where the others agree without the column as well as without the component."""
        agreeing = [part for part in parts if part.finding.p_value >= LEVEL]
        components = [part for part in agreeing if part.kind == "component"]
        columns = [part for part in agreeing if part.kind == "column"]
        if len(components) != 1 or len(columns) != 1:
            return []
        i, j = components[0].which, columns[0].which
        own = next(
            (q for q in self.quantities if q.component == i and j in q.columns), self.quantities[0]
        )
        text = f"{self.names.quantity(own)}; everything else agrees"
        finding = replace(components[0].finding, text=text, columns=(j,))
        return [(min(self._cost(components[0]), self._cost(columns[0])) - CHOICE, finding)]

    def _cost(self, part: _Freed) -> float:
        return part.statistic / self.yardstick.scale + CHOICE * (part.n_freed + 1)

    def _part_in_words(self, kind: str, index: int) -> str:
        if kind == "weights":
            now, then = (
                " ".join(f"{w:.2f}" for w in m.weights)
                for m in (self.aligned, self.yardstick.mixture)
            )
            return f"other proportions: weights {now} instead of {then}; component densities agree"
        if kind == "component":
            own = [q for q in self.quantities if q.component == index and q.what != "weight"]
            return f"component {index} only: {self.names.quantity(own[0])}; the others agree"
        own = [q for q in self.quantities if index in q.columns]
        column = self.names.column(index)
        return f"column {column} only: {self.names.quantity(own[0])}; the other columns agree"

    def _seen_in_columns(self, search: Search, seen: Sequence[Explanation]) -> Finding | None:
        """A cause that whole columns show, where the estimate is in another optimum."""
        measure = search.measure
        most = LEFT * measure.statistic(self.mixture)
        agreeing = [e for e in seen if e.statistic < most and measure.p_value(e.statistic) >= LEVEL]
        if not agreeing:
            return None
        best = min(agreeing, key=search.cost)
        finding = self._of_deeds(best)
        text = f"{_sentence(finding.text)} Corrected, whole columns agree; components are another optimum's"
        return replace(finding, text=text, p_value=measure.p_value(best.statistic))

    def _other_optimum(self, search: Search) -> Finding | None:
        """Nothing was done to columns as a whole."""
        p_value = search.measure.p_value(search.measure.statistic(self.mixture))
        if p_value < LEVEL:
            return None
        text = (
            f"components differ, whole columns agree (p = {p_value:.2g}): another optimum of the same data? "
            f"Most: {self._worst()}"
        )
        return self._finding("optimum", text, p_value)

    def _main_cause(self, found: Sequence[Explanation], parts: Sequence[_Freed]) -> Finding | None:
        """A cause of columns or weights that explains nearly everything, although not all."""
        causes = [(e.statistic, e.left, self._of_deeds(e)) for e in found]
        m, reference = self.aligned, self.yardstick.mixture
        for part in parts:
            if part.kind == "weights":
                left = m.family.mixture(reference.weights, m.components)
                causes.append((part.statistic, left, part.finding))
        before = self.yardstick.distance(m)
        causes = [
            (statistic, left, finding)
            for statistic, left, finding in causes
            if statistic < LEFT * self.statistic
            and self.yardstick.distance(left) < LEFT_DISTANCE * before
        ]
        if not causes:
            return None
        statistic, _, finding = min(causes, key=lambda c: c[0])
        times = np.sqrt(statistic / self.yardstick.law(self.n_parameters).mean)
        text = finding.text.replace("; component densities agree", "")
        return replace(
            finding,
            text=f"{text}; without that still {times:.3g} times as far as sampling explains",
        )

    def _unexplained(self) -> str:
        """What differs, where no single cause was found."""
        off = sorted(
            {q.component for q in self.quantities if abs(q.z) > OFF and q.what != "weight"}
        )
        k = self.yardstick.mixture.n_components
        where = ""
        if k > 1 and len(off) == k:
            where = "all components differ, most "
        elif k > 1 and off:
            where = f"component{'s' * (len(off) > 1)} {_listed(map(str, off))} differ{'s' * (len(off) == 1)}, most "
        return f"no single cause: {where}{self._worst()}"

    def _worst(self) -> str:
        return self.names.quantity(self.quantities[0])

    def _finding(self, kind: str, text: str, p_value: float) -> Finding:
        worst = self.quantities[0]
        column = worst.columns[0] if worst.columns else None
        return Finding(
            kind,
            text,
            component=worst.component,
            column=column,
            z=worst.z,
            statistic=self.statistic,
            p_value=p_value,
        )


class _Freed(NamedTuple):
    kind: str
    which: int
    statistic: float
    n_freed: int
    finding: Finding


# -- another optimum -------------------------------------------------------------------------------


def compare_refit(
    finding: Finding, own: LocalEstimate, again: LocalEstimate, yardstick: StandardErrors
) -> Finding:
    """The finding with what a refit of the same rows, from the global mixture, adds to it.

    It is another optimum of the same data if the refit agrees with the global mixture, and explains the rows no
    worse than the first fit by more than two estimates of one mixture may differ.
    """
    if own.mixture is None or again.mixture is None or finding.kind == "nothing":
        return finding
    statistic = yardstick.statistic(again.mixture, again.n_samples)
    p_value = yardstick.p_value(statistic, yardstick.mixture.n_parameters)
    loss = own.n_samples * (own.log_likelihood - again.log_likelihood)
    law = chi_square_law(yardstick.mixture.n_parameters)
    if p_value < LEVEL or not law.sf(np.array(2.0 * loss)) >= LEVEL:
        return finding
    text = (
        "another optimum of the same data: refitted from the global mixture it agrees "
        f"(p = {p_value:.2g})"
    )
    return replace(
        finding,
        kind="other optimum",
        text=text,
        columns=(),
        p_value=p_value,
        corrected=again.mixture,
    )


# -- words -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Names:
    mixture: Mixture
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = self.mixture.feature_names
        shown = (
            tuple(map(str, range(self.mixture.n_features)))
            if names is None
            else tuple(map(repr, names))
        )
        object.__setattr__(self, "names", shown)

    def column(self, j: int) -> str:
        return self.names[j]

    def quantity(self, q: Quantity) -> str:
        """One number that is off, and how far."""
        where = f" of component {q.component}" if self.mixture.n_components > 1 else ""
        if q.what in ("spread", "correlation") and self.mixture.covariance_type == "tied":
            where = ""
        z = f"{q.z:+.3g} se"
        if q.what == "weight":
            return f"weight{where} {q.estimate:.3g} instead of {q.reference:.3g} ({z})"
        columns = _listed(self.names[j] for j in q.columns)
        if q.what == "mean":
            return f"mean of {columns}{_in(where)} {z}"
        if q.what == "spread":
            times = f"{q.estimate / q.reference:.3g} times ({z})"
            return f"spread{f' of {columns}' if columns else ''}{_in(where)} {times}"
        return f"correlation of {columns}{_in(where)} {q.estimate:.2f} instead of {q.reference:.2f} ({z})"

    def deeds(self, deeds: Sequence[ColumnChange]) -> str:
        """What was done to the columns."""
        said: dict[tuple[str, str], list[int]] = {}
        for deed in deeds:
            said.setdefault(self._predicate(deed), []).extend(deed.columns)
        clauses = [self._clause(*what, sorted(columns)) for what, columns in said.items()]
        is_unit = any("unit" in deed.kind for deed in deeds)
        return " and ".join(clauses) + (": another unit?" if is_unit else "")

    def _clause(self, one: str, many: str, columns: list[int]) -> str:
        if len(columns) == 1:
            return f"column {self.names[columns[0]]} {one}"
        if (
            len(columns) == self.mixture.n_features
            and "another order" not in many
            and "swapped" not in many
        ):
            return f"all columns {many}"
        return f"columns {_listed(self.names[j] for j in columns)} {many}"

    def _predicate(self, deed: ColumnChange) -> tuple[str, str]:
        """What is said of one column, and of several."""
        if deed.kind == "sign":
            return "has the opposite sign", "have the opposite sign"
        if deed.kind == "swapped columns":
            return "", "are swapped"
        if deed.kind == "column order":
            found = ", ".join(self.names[deed.order[j]] for j in deed.columns)
            return "", f"are in another order: they hold {found}"
        if deed.kind == "offset":
            sd = column_moments(self.mixture)[1][deed.columns[0]]
            shift = f"shifted by {deed.shift:+.3g} ({abs(deed.shift) / sd:.2g} standard deviations)"
            return f"is {shift}", f"are {shift}"
        times = f"{deed.factor:.4g} times as large"
        if deed.kind == "unit and offset":
            times += f" and shifted by {deed.shift:+.3g}"
        return f"is {times}", f"are {times}"


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _in(where: str) -> str:
    return where.replace(" of ", " in ")


def _listed(names: Iterable[str]) -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} and {last}" if first else last
