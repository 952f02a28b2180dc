"""Changes of columns that explain an estimate: another unit, zero or sign, and columns exchanged.

Each change is an exact map of mixtures, which can be undone. Trial changes take their numbers from the moments of whole
columns. Those that help most are fitted: undone, they leave the least difference from the global mixture. Several
changes are found one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.explanation.standard_errors import StandardErrors, column_moments
from dask_dfmr.mixtures.assignment import assignment
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.whitening import MAX_COORDINATE

AGREEMENT_LEVEL = 1e-3
"""An estimate agrees with the global mixture if its p-value is at least this."""

MOST_STEPS = 3
"""Changes that are found one after the other, at most."""

MOST_SWAPS = 45
"""Pairs of columns whose exchange is tried: those with the most similar distributions, if there are more pairs."""

N_FITTED = 3
"""Best trials of a step whose numbers are fitted before they are compared."""

NOTICED = 0.25
"""Columns are multiplied together on trial if the logarithms of their spreads are off by more than this."""

NEARLY = 0.03
"""A factor is rounded if its logarithm is this close to that of a round one, and the rounded one agrees."""

CHOICE = 8.0
"""Cost of a free number, in units of the statistic: of two explanations that agree the simpler one is named."""

HELPFUL = 2.0
"""A change explains something if undoing it divides the statistic by at least this."""

FACTORS = (1e-9, 1e9)
"""Least and largest factor of a column."""

MOST_EVALUATIONS = 12
"""Evaluations of the difference while the numbers of one change are fitted."""

CONSTANTS = (
    2.0,
    1.8,
    2.54,
    25.4,
    0.3048,
    0.45359237,
    1.609344,
    60.0,
    3600.0,
    24.0,
    1024.0,
    np.pi / 180,
)
"""Factors between units that are often confused, besides powers of ten; their inverses count too."""


# -- one change ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColumnChange:
    """A map of the columns of all rows: x -> factor * x + shift in some columns, or x -> x[order].

    Attributes
    ----------
    kind : str
        "sign", "offset", "unit", "unit and offset", "swapped columns" or "column order".
    columns : tuple of int
        The columns that it changes.
    factor, shift : float
        The same for all these columns; a shift is in the units of the changed column.
    order : tuple of int
        Column j of the changed rows is column ``order[j]`` of the rows before; empty if columns stay in place.
    """

    kind: str
    columns: tuple[int, ...]
    factor: float = 1.0
    shift: float = 0.0
    order: tuple[int, ...] = ()

    @property
    def n_free(self) -> int:
        """How many of its numbers are fitted."""
        return {"unit": 1, "offset": 1, "unit and offset": 2}.get(self.kind, 0)

    def undone(self, mixture: Mixture) -> Mixture | None:
        """The mixture before the change; None if the family has no such mixture."""
        d = mixture.n_features
        scale, shift = np.ones(d), np.zeros(d)
        if self.order:
            inverse = np.argsort(self.order)
            return _mapped(mixture, inverse, scale, shift)
        index = list(self.columns)
        scale[index] = 1.0 / self.factor
        shift[index] = -self.shift / self.factor
        return _mapped(mixture, np.arange(d), scale, shift)


def _mapped(
    mixture: Mixture, order: NDArray[np.intp], scale: Array, shift: Array
) -> Mixture | None:
    """The mixture of scale * x[order] + shift; None if the family has no such mixture."""
    family = mixture.family
    components = family.with_columns(mixture.components, order, scale, shift)
    if components is None:
        return None
    try:
        return family.mixture(mixture.weights, components, mixture.feature_names)
    except ValueError:
        return None


def _trials(now: Mixture, reference: Mixture) -> Iterator[ColumnChange]:
    """All changes to try, with the numbers that the moments of whole columns give."""
    d = now.n_features
    mean, sd = column_moments(now)
    mean0, sd0 = column_moments(reference)
    factors = np.clip(sd / sd0, *FACTORS)
    for j in range(d):
        yield ColumnChange("sign", (j,), -1.0)
        yield ColumnChange("offset", (j,), shift=float(mean[j] - mean0[j]))
        yield ColumnChange("unit", (j,), float(factors[j]))
        yield ColumnChange(
            "unit and offset", (j,), float(factors[j]), float(mean[j] - factors[j] * mean0[j])
        )
    if d > 1:
        yield from _exchanges(now, reference)


def _exchanges(now: Mixture, reference: Mixture) -> Iterator[ColumnChange]:
    """Exchanges of two columns, and the permutation of all columns that fits best."""
    d = now.n_features
    unlike = _unlikeness(now, reference)
    pairs = sorted(
        combinations(range(d), 2),
        key=lambda p: (unlike[p] + unlike[p[::-1]] - unlike[p[0], p[0]] - unlike[p[1], p[1]], p),
    )
    for i, j in islice(pairs, MOST_SWAPS):
        order = list(range(d))
        order[i], order[j] = j, i
        yield ColumnChange("swapped columns", (i, j), order=tuple(order))
    order = assignment(unlike).tolist()
    moved = tuple(i for i, j in enumerate(order) if i != j)
    if len(moved) > 2:
        yield ColumnChange("column order", moved, order=tuple(order))


def _unlikeness(now: Mixture, reference: Mixture) -> Array:
    """1 - cosine of the densities of column i of ``now`` and column j of the reference, (n_features, n_features)."""

    def product(a: Mixture, b: Mixture) -> Array:
        (means_a, cov_a), (means_b, cov_b) = a.full_components, b.full_components
        var_a, var_b = (np.diagonal(c, axis1=-2, axis2=-1) for c in (cov_a, cov_b))
        variance = var_a[:, :, None, None] + var_b[None, None]
        with np.errstate(over="ignore"):
            square = (means_a[:, :, None, None] - means_b[None, None]) ** 2 / variance
        density = np.exp(-0.5 * square) / np.sqrt(variance)
        return np.einsum("k,kilj,l->ij", a.weights, density, b.weights)

    own, theirs = (np.diag(product(m, m)) for m in (now, reference))
    return 1.0 - product(now, reference) / np.sqrt(own[:, None] * theirs[None, :])


# -- several changes -------------------------------------------------------------------------------------


class Explanation(NamedTuple):
    """Changes one after the other, the mixture that is left when they are undone, and its squared difference."""

    changes: tuple[ColumnChange, ...]
    left: Mixture
    statistic: float

    @property
    def n_free(self) -> int:
        """How many numbers were fitted."""
        return sum(change.n_free for change in self.changes)


class Measure(NamedTuple):
    """The difference of mixtures from the global one, component by component or in whole columns.

    ``variance`` is that of an estimate's difference per unit of information.
    """

    errors: StandardErrors
    variance: float
    by_components: bool

    def residual(self, mixture: Mixture) -> Array:
        """White coordinates of the difference, in standard errors."""
        if self.by_components:
            r = self.errors.residual(self.errors.difference(self.errors.aligned(mixture)))
        else:
            r = self.errors.columns.residual(mixture)
        white: Array = r / np.sqrt(self.variance)
        return np.clip(white, -MAX_COORDINATE, MAX_COORDINATE)

    def statistic(self, mixture: Mixture) -> float:
        """Squared length of the difference, in standard errors."""
        r = self.residual(mixture)
        return float(r @ r)

    def p_value(self, statistic: float) -> float:
        """Probability that a consistent estimate has a larger squared difference."""
        if self.by_components:
            return self.errors.p_value(statistic, self.errors.mixture.n_parameters)
        return self.errors.columns.p_value(statistic)

    def agrees(self, explanation: Explanation) -> bool:
        """Whether sampling explains what is left when the changes are undone."""
        return self.p_value(explanation.statistic) >= AGREEMENT_LEVEL

    @property
    def scale(self) -> float:
        """Ratio of the kept estimates' squared differences to those that the information alone gives."""
        return self.errors.scale if self.by_components else self.errors.columns.scale


class Search:
    """Looks for the changes that explain an estimate best, by one measure.

    Columns that are ``constant`` in the rows of the estimate have the spread of ``reg_covar``, which is no unit.
    """

    def __init__(self, estimate: Mixture, measure: Measure, constant: Collection[int] = ()) -> None:
        self.mixture, self.measure, self.constant = estimate, measure, frozenset(constant)
        self.reference = measure.errors.mixture
        self._unchanged = Explanation((), estimate, measure.statistic(estimate))

    def explanations(self) -> list[Explanation]:
        """One change, two changes and so on, each added to the best before; then changes of many columns at once."""
        found, best = [], self._unchanged
        for _ in range(MOST_STEPS):
            following = self._next(best)
            if following is None or following.statistic > best.statistic / HELPFUL:
                break
            found.append(following)
            best = following
            if self.measure.agrees(best):
                break
        return [*found, *self._of_many_columns()]

    def fitted(self, explanation: Explanation) -> Explanation:
        """An explanation that was found by another measure, fitted to this one."""
        *first, last = explanation.changes
        before = self._undo(first)
        now = None if before is None else self._added(last, before)
        if before is None or now is None:
            return explanation
        return now if self.measure.agrees(now) else self._refined(now, before)

    def cost(self, explanation: Explanation) -> float:
        """What is left of the difference, and a price for every change and every number."""
        n_numbers = explanation.n_free + len(explanation.changes)
        return explanation.statistic / self.measure.scale + CHOICE * n_numbers

    # -- changes one after the other --

    def _next(self, last: Explanation) -> Explanation | None:
        """The best explanation with one more change; None if no change helps."""
        changed = {change.columns for change in last.changes}
        tried = []
        for change in _trials(last.left, self.reference):
            is_no_unit = "unit" in change.kind and not self.constant.isdisjoint(change.columns)
            now = None if change.columns in changed or is_no_unit else self._added(change, last)
            if now is not None:
                tried.append(now)
        tried.sort(key=lambda e: e.statistic)
        # Numbers from moments are close to the fitted ones: a change that helps only once it is fitted is no cause.
        helpful = [e for e in tried if e.statistic < last.statistic / HELPFUL]
        refined = [self._refined(e, last) for e in _promising(helpful)]
        return min(refined, key=self.cost, default=None)

    def _undo(self, changes: Sequence[ColumnChange]) -> Explanation | None:
        """All these changes together; None if one of them cannot be undone."""
        last: Explanation | None = self._unchanged
        for change in changes:
            last = None if last is None else self._added(change, last)
        return last

    def _added(self, change: ColumnChange, last: Explanation) -> Explanation | None:
        """The explanation with one more change; None if it cannot be undone."""
        left = change.undone(last.left)
        if left is None:
            return None
        return Explanation((*last.changes, change), left, self.measure.statistic(left))

    # -- many columns at once --

    def _of_many_columns(self) -> Iterator[Explanation]:
        """All columns multiplied by one factor, or several by a factor each."""
        d = self.mixture.n_features
        ratio = column_moments(self.mixture)[1] / column_moments(self.reference)[1]
        factors = np.clip(ratio, *FACTORS)
        if d > 1 and not self.constant:
            common = ColumnChange("unit", tuple(range(d)), float(np.exp(np.log(factors).mean())))
            together = self._added(common, self._unchanged)
            if together is not None:
                yield self._refined(together, self._unchanged)
        is_noticed = np.abs(np.log(factors)) > NOTICED
        noticed = [j for j in np.flatnonzero(is_noticed).tolist() if j not in self.constant]
        if len(noticed) < 2:
            return
        last = self._refined_in_turn(
            [ColumnChange("unit", (j,), float(factors[j])) for j in noticed]
        )
        if last is not None:
            yield last

    def _refined_in_turn(self, changes: list[ColumnChange]) -> Explanation | None:
        """Several changes together, each fitted once while the others are undone."""
        for i in range(len(changes)):
            others = self._undo([*changes[:i], *changes[i + 1 :]])
            now = None if others is None else self._added(changes[i], others)
            if others is None or now is None:
                return None
            changes[i] = self._refined(now, others).changes[-1]
        return self._undo(changes)

    # -- the numbers of a change --

    def _refined(self, explanation: Explanation, last: Explanation) -> Explanation:
        """With the last change's numbers fitted by least squares, and rounded if that does as well."""
        from scipy.optimize import least_squares

        change = explanation.changes[-1]
        if change.n_free == 0:
            return explanation
        unit = float(column_moments(last.left)[1][list(change.columns)].max())
        names = [name for name in ("factor", "shift") if _is_free(change, name)]

        def at(numbers: Array) -> ColumnChange:
            steps = dict(zip(names, np.clip(numbers, -20, 20).tolist(), strict=True))
            return replace(
                change,
                factor=change.factor * float(np.exp(steps.get("factor", 0.0))),
                shift=change.shift + unit * steps.get("shift", 0.0),
            )

        nowhere = np.full_like(self.measure.residual(explanation.left), MAX_COORDINATE)

        def residual(numbers: Array) -> Array:
            left = at(numbers).undone(last.left)
            return nowhere if left is None else self.measure.residual(left)

        start = np.zeros(len(names))
        found = least_squares(residual, start, x_scale=0.01, max_nfev=MOST_EVALUATIONS)
        best = self._added(at(found.x), last)
        if best is None or best.statistic > explanation.statistic:
            best = explanation
        return self._rounded(best, last)

    def _rounded(self, best: Explanation, last: Explanation) -> Explanation:
        """With a factor between known units in the last change, if that agrees or explains as much."""
        change = best.changes[-1]
        if "unit" not in change.kind:
            return best
        factor = round_factor(change.factor)
        off = abs(np.log(change.factor / factor))
        rounded = self._added(replace(change, factor=factor), last)
        if rounded is None or off > NOTICED:
            return best
        is_near = off < NEARLY and self.measure.agrees(rounded)
        is_as_good = rounded.statistic < best.statistic + CHOICE * self.measure.scale
        return rounded if is_near or is_as_good else best


def _promising(tried: Sequence[Explanation]) -> list[Explanation]:
    """The best trials, and the best of each kind: they are compared once their numbers are fitted."""
    kinds: dict[str, Explanation] = {}
    for e in tried:
        kinds.setdefault(e.changes[-1].kind, e)
    chosen = {id(e): e for e in (*tried[:N_FITTED], *kinds.values())}
    return list(chosen.values())


def _is_free(change: ColumnChange, name: str) -> bool:
    return {"factor": "unit", "shift": "offset"}[name] in change.kind


def round_factor(factor: float) -> float:
    """The nearest factor between known units, on a logarithmic scale."""
    known = [c for x in CONSTANTS for c in (x, 1 / x)]
    known.append(10.0 ** round(np.log10(factor)))
    known += [10.0**k for k in (1, -1)]
    return min(known, key=lambda c: abs(np.log(factor / c)))
