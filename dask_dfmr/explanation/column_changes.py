"""What may have been done to the columns of an estimate's rows, found by undoing it: units, zeros, signs, exchanges.

Every deed is an exact map of mixtures. They are tried on what whole columns show, the best ones are fitted to what
is left of the difference, and several are looked for one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, linear_sum_assignment

from dask_dfmr.explanation.standard_errors import StandardErrors, column_moments
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.whitening import MAX_COORDINATE

LEVEL = 1e-3
"""What sampling explains more often than this agrees."""

MOST_STEPS = 3
"""So many columns, or pairs of them, are set right one after the other."""

MOST_SWAPS = 45
"""Pairs of columns that are exchanged on trial; of more, those whose distributions suit each other."""

REFINED = 3
"""Of the trials of a step so many are fitted before they are compared."""

NOTICED = 0.25
"""Columns whose logarithmic spread is off by more are multiplied together on trial."""

NEARLY = 0.03
"""A factor this close to a round one is the round one, if the estimate agrees with that."""

CHOICE = 8.0
"""In units of the statistic, what a free number costs an explanation: of two that agree the simpler one is named."""

HELPFUL = 2.0
"""A deed that explains anything makes the statistic smaller by this factor when it is undone."""

FACTORS = (1e-9, 1e9)
"""Columns are multiplied by no less and no more than these."""

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
"""Factors between units that people confuse, besides powers of ten; inverses count too."""


# -- causes that can be undone: something was done to columns --------------------------------------


@dataclass(frozen=True)
class ColumnChange:
    """What was done to the columns: x -> factors * x[order] + shifts, and its name.

    ``free`` are the numbers that were fitted, by (name, column); column -1 stands for all.
    """

    kind: str
    columns: tuple[int, ...]
    factor: float = 1.0
    shift: float = 0.0
    order: tuple[int, ...] = ()

    @property
    def n_free(self) -> int:
        return {"unit": 1, "offset": 1, "unit and offset": 2}.get(self.kind, 0)

    def undone(self, mixture: Mixture) -> Mixture | None:
        """The mixture as it was before; None where the family cannot be so."""
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
    """The mixture of scale * x[order] + shift."""
    kind = mixture.covariance_type
    magnitude = np.abs(scale)
    if kind == "spherical" and np.ptp(magnitude) > 0:
        return None
    covariances = mixture.covariances
    if kind in ("full", "tied"):
        covariances = covariances[..., order[:, None], order[None, :]]
        covariances = covariances * (scale[:, None] * scale[None, :])
    elif kind == "diag":
        covariances = covariances[..., order] * scale**2
    else:
        covariances = covariances * magnitude[0] ** 2
    means = mixture.means[:, order] * scale + shift
    try:
        return Mixture(mixture.weights, means, covariances, kind, mixture.feature_names)
    except ValueError:
        return None


def _trials(now: Mixture, reference: Mixture) -> Iterator[ColumnChange]:
    """What may have been done, with its numbers as the moments of whole columns say."""
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
    """Pairs of columns, and one permutation of all of them."""
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
    order = linear_sum_assignment(unlike)[1].tolist()
    moved = tuple(i for i, j in enumerate(order) if i != j)
    if len(moved) > 2:
        yield ColumnChange("column order", moved, order=tuple(order))


def _unlikeness(now: Mixture, reference: Mixture) -> Array:
    """1 - cosine of the densities of single columns, (d, d): those of ``now`` and those of the reference."""

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


class Explanation(NamedTuple):
    """ColumnChanges, what is left when they are undone, and of what."""

    deeds: tuple[ColumnChange, ...]
    left: Mixture
    statistic: float

    @property
    def n_free(self) -> int:
        return sum(deed.n_free for deed in self.deeds)


class Measure(NamedTuple):
    """How far mixtures are from the reference: component by component, or by whole columns."""

    yardstick: StandardErrors
    variance: float
    by_components: bool

    def residual(self, mixture: Mixture) -> Array:
        """In standard errors."""
        if self.by_components:
            r = self.yardstick.residual(self.yardstick.difference(self.yardstick.aligned(mixture)))
        else:
            r = self.yardstick.overall.residual(mixture)
        white: Array = r / np.sqrt(self.variance)
        return np.clip(white, -MAX_COORDINATE, MAX_COORDINATE)

    def statistic(self, mixture: Mixture) -> float:
        r = self.residual(mixture)
        return float(r @ r)

    def p_value(self, statistic: float) -> float:
        if self.by_components:
            return self.yardstick.p_value(statistic, self.yardstick.mixture.n_parameters)
        return self.yardstick.overall.p_value(statistic)

    @property
    def scale(self) -> float:
        return self.yardstick.scale if self.by_components else self.yardstick.overall.scale


class Search:
    """The deeds that explain an estimate best."""

    def __init__(self, estimate: Mixture, measure: Measure) -> None:
        self.mixture, self.measure = estimate, measure
        self.reference = measure.yardstick.mixture

    def explanations(self) -> list[Explanation]:
        """One deed, two, and so on, each after the best of the last ones; and the same done to many columns."""
        nothing = Explanation((), self.mixture, self.measure.statistic(self.mixture))
        found, best = [], nothing
        for _ in range(MOST_STEPS):
            following = self._step(best)
            if following is None or following.statistic > best.statistic / HELPFUL:
                break
            found.append(following)
            best = following
            if self._agrees(best):
                break
        return [*found, *self._many_columns(nothing)]

    def fitted(self, explanation: Explanation) -> Explanation:
        """An explanation found by another measure, fitted to this one."""
        nothing = Explanation((), self.mixture, self.measure.statistic(self.mixture))
        *first, last = explanation.deeds
        before = self._all_of(first, nothing)
        now = None if before is None else self._with(last, before)
        if before is None or now is None:
            return explanation
        return now if self._agrees(now) else self._refined(now, before)

    def _agrees(self, explanation: Explanation) -> bool:
        return self.measure.p_value(explanation.statistic) >= LEVEL

    def _many_columns(self, nothing: Explanation) -> Iterator[Explanation]:
        """All columns multiplied by one factor, or several by factors of their own."""
        d = self.mixture.n_features
        factors = self._factors(self.mixture)
        if d > 1:
            common = ColumnChange("unit", tuple(range(d)), float(np.exp(np.log(factors).mean())))
            together = self._with(common, nothing)
            if together is not None:
                yield self._refined(together, nothing)
        noticed = np.flatnonzero(np.abs(np.log(factors)) > NOTICED).tolist()
        if len(noticed) < 2:
            return
        deeds = [ColumnChange("unit", (j,), float(factors[j])) for j in noticed]
        for i in range(len(deeds)):
            others = self._all_of([*deeds[:i], *deeds[i + 1 :]], nothing)
            now = None if others is None else self._with(deeds[i], others)
            if others is None or now is None:
                return
            deeds[i] = self._refined(now, others).deeds[-1]
        last = self._all_of(deeds, nothing)
        if last is not None:
            yield last

    def _all_of(self, deeds: Sequence[ColumnChange], nothing: Explanation) -> Explanation | None:
        last: Explanation | None = nothing
        for deed in deeds:
            last = None if last is None else self._with(deed, last)
        return last

    def _factors(self, now: Mixture) -> Array:
        ratio = column_moments(now)[1] / column_moments(self.reference)[1]
        return np.clip(ratio, *FACTORS)

    def _step(self, last: Explanation) -> Explanation | None:
        tried = []
        done = {deed.columns for deed in last.deeds}
        for deed in _trials(last.left, self.reference):
            now = None if deed.columns in done else self._with(deed, last)
            if now is not None:
                tried.append(now)
        tried.sort(key=lambda e: e.statistic)
        # The moments of columns are no bad start: what does not help at all before it is fitted does not after.
        helpful = [e for e in tried if e.statistic < last.statistic / HELPFUL]
        refined = [self._refined(e, last) for e in self._promising(helpful)]
        return min(refined, key=self.cost, default=None)

    def _promising(self, tried: Sequence[Explanation]) -> list[Explanation]:
        """The best ones, and the best of each kind: they are compared when their numbers are exact."""
        kinds: dict[str, Explanation] = {}
        for e in tried:
            kinds.setdefault(e.deeds[-1].kind, e)
        chosen = {id(e): e for e in (*tried[:REFINED], *kinds.values())}
        return list(chosen.values())

    def cost(self, explanation: Explanation) -> float:
        """What is left, and what it takes to say the explanation."""
        return explanation.statistic / self.measure.scale + CHOICE * (
            explanation.n_free + len(explanation.deeds)
        )

    def _refined(self, explanation: Explanation, last: Explanation) -> Explanation:
        """With the numbers that explain most, and round ones where they do as well."""
        deed = explanation.deeds[-1]
        if deed.n_free == 0:
            return explanation
        unit = float(column_moments(last.left)[1][list(deed.columns)].max())
        names = [name for name in ("factor", "shift") if self._is_free(deed, name)]

        def at(numbers: Array) -> ColumnChange:
            steps = dict(zip(names, np.clip(numbers, -20, 20).tolist(), strict=True))
            return replace(
                deed,
                factor=deed.factor * float(np.exp(steps.get("factor", 0.0))),
                shift=deed.shift + unit * steps.get("shift", 0.0),
            )

        nowhere = np.full_like(self.measure.residual(explanation.left), MAX_COORDINATE)

        def residual(numbers: Array) -> Array:
            left = at(numbers).undone(last.left)
            return nowhere if left is None else self.measure.residual(left)

        found = least_squares(residual, np.zeros(len(names)), x_scale=0.01, max_nfev=12)
        best = self._with(at(found.x), last)
        if best is None or best.statistic > explanation.statistic:
            best = explanation
        return self._rounded(best, last)

    @staticmethod
    def _is_free(deed: ColumnChange, name: str) -> bool:
        return {"factor": "unit", "shift": "offset"}[name] in deed.kind

    def _with(self, deed: ColumnChange, last: Explanation) -> Explanation | None:
        left = deed.undone(last.left)
        if left is None:
            return None
        return Explanation((*last.deeds, deed), left, self.measure.statistic(left))

    def _rounded(self, best: Explanation, last: Explanation) -> Explanation:
        deed = best.deeds[-1]
        if "unit" not in deed.kind:
            return best
        factor = round_factor(deed.factor)
        rounded = self._with(replace(deed, factor=factor), last)
        if rounded is None or abs(np.log(deed.factor / factor)) > NOTICED:
            return best
        is_near = abs(np.log(deed.factor / factor)) < NEARLY and self._agrees(rounded)
        is_as_good = rounded.statistic < best.statistic + CHOICE * self.measure.scale
        return rounded if is_near or is_as_good else best


def round_factor(factor: float) -> float:
    """The nearest factor between units, on a logarithmic scale."""
    known = [c for x in CONSTANTS for c in (x, 1 / x)]
    known.append(10.0 ** round(np.log10(factor)))
    known += [10.0**k for k in (1, -1)]
    return min(known, key=lambda c: abs(np.log(factor / c)))
