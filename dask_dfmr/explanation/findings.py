"""Findings: why an estimate is unlike the global mixture, as values, and their words.

A cause is a frozen dataclass of indices and numbers. ``cause.in_words(words)`` is its sentence, made where it is shown;
:class:`Words` has the names of columns. Components are those of the global mixture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dask_dfmr.explanation.column_changes import ColumnChange
from dask_dfmr.explanation.standard_errors import Quantity, column_moments
from dask_dfmr.mixtures.gaussian import Mixture

SOME_ROWS = "some rows"
"""Kind of rows of which too many lie far outside, while the others agree."""


@dataclass(frozen=True)
class Finding:
    """Why an estimate is unlike the global mixture.

    Attributes
    ----------
    cause : Cause
    reference : Mixture
        The global mixture.
    worst : Quantity
        The number of the estimate that is farthest off.
    statistic : float
        Squared length of the difference in standard errors.
    p_value : float
        Probability that a consistent estimate differs by more than the cause leaves unexplained.
    corrected : Mixture or None
        If columns were changed: the estimate with the changes undone, components in the order of the global mixture.
    """

    cause: Cause
    reference: Mixture
    worst: Quantity
    statistic: float
    p_value: float
    corrected: Mixture | None = None

    @property
    def kind(self) -> str:
        """Kind of the cause, a key for code.

        "unit" (columns are multiplied, perhaps shifted too), "offset", "sign", "swapped columns", "column order", or
        several of these joined by " and "; "weights", "component", "column"; "other optimum" (a refit of the rows
        agrees), "optimum" (only whole columns agree); "unexplained"; or "nothing", if sampling explains the difference.
        """
        return self.cause.kind

    @property
    def text(self) -> str:
        """The cause in words, with numbers."""
        return self.cause.in_words(Words(self.reference))

    @property
    def columns(self) -> tuple[int, ...]:
        """Columns that the cause is about; empty if it is about none."""
        return self.cause.columns

    @property
    def component(self) -> int:
        """The component that the cause is about, or else that of the number that is farthest off."""
        return self.worst.component if self.cause.component is None else self.cause.component

    @property
    def column(self) -> int | None:
        """Column of the number that is farthest off; None for a weight."""
        return self.worst.columns[0] if self.worst.columns else None

    @property
    def z(self) -> float:
        """How far that number is off, in standard errors."""
        return self.worst.z


# -- causes --------------------------------------------------------------------------------------------


class Cause(ABC):
    """Why an estimate is unlike the global mixture. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind as a key for code; :attr:`Finding.kind` lists all."""

    @property
    def columns(self) -> tuple[int, ...]:
        """Columns that the cause is about."""
        return ()

    @property
    def component(self) -> int | None:
        """The component that the cause is about, None if it is about none."""
        return None

    @abstractmethod
    def in_words(self, words: Words) -> str:
        """The sentence, without a full stop."""


@dataclass(frozen=True)
class NothingStandsOut(Cause):
    """Sampling explains the difference; ``worst`` is the number that is farthest off."""

    worst: Quantity
    kind = "nothing"

    def in_words(self, words: Words) -> str:
        return f"nothing stands out ({words.quantity(self.worst)})"


@dataclass(frozen=True)
class ColumnsChanged(Cause):
    """Columns were changed; undone, the estimate agrees."""

    changes: tuple[ColumnChange, ...]

    @property
    def kind(self) -> str:
        return " and ".join(
            dict.fromkeys("unit" if c.kind == "unit and offset" else c.kind for c in self.changes)
        )

    @property
    def columns(self) -> tuple[int, ...]:
        return tuple(sorted({j for change in self.changes for j in change.columns}))

    def in_words(self, words: Words) -> str:
        return words.changes(self.changes)


@dataclass(frozen=True)
class ColumnsChangedInOtherOptimum(ColumnsChanged):
    """Columns were changed; undone, whole columns agree, but the fit ended in another optimum."""

    def in_words(self, words: Words) -> str:
        changes = words.changes(self.changes)
        end = "" if changes.endswith("?") else "."
        return f"{changes}{end} Corrected, whole columns agree; components are another optimum's"


@dataclass(frozen=True)
class OtherWeights(Cause):
    """The weights are ``now`` instead of ``then``, both (n_components,); ``rest_agrees``: the densities agree."""

    now: tuple[float, ...]
    then: tuple[float, ...]
    rest_agrees: bool = True
    kind = "weights"

    def in_words(self, words: Words) -> str:
        now, then = (" ".join(f"{w:.2f}" for w in weights) for weights in (self.now, self.then))
        rest = "; component densities agree" if self.rest_agrees else ""
        return f"other proportions: weights {now} instead of {then}{rest}"


@dataclass(frozen=True)
class OneComponent(Cause):
    """One component differs, in ``worst`` most; the others agree."""

    number: int
    worst: Quantity
    kind = "component"

    @property
    def component(self) -> int:
        return self.number

    def in_words(self, words: Words) -> str:
        return f"component {self.number} only: {words.quantity(self.worst)}; the others agree"


@dataclass(frozen=True)
class OneColumn(Cause):
    """One column differs, in ``worst`` most; the others agree."""

    number: int
    worst: Quantity
    kind = "column"

    @property
    def columns(self) -> tuple[int, ...]:
        return (self.number,)

    def in_words(self, words: Words) -> str:
        column = words.columns[self.number]
        return f"column {column} only: {words.quantity(self.worst)}; the other columns agree"


@dataclass(frozen=True)
class OneColumnOfOneComponent(Cause):
    """One component differs in one column, in ``worst`` most; everything else agrees."""

    number: int
    column: int
    worst: Quantity
    kind = "component"

    @property
    def component(self) -> int:
        return self.number

    @property
    def columns(self) -> tuple[int, ...]:
        return (self.column,)

    def in_words(self, words: Words) -> str:
        return f"{words.quantity(self.worst)}; everything else agrees"


@dataclass(frozen=True)
class WholeColumnsAgree(Cause):
    """Components differ but whole columns agree, with ``p_value``: perhaps another optimum of the same data."""

    p_value: float
    worst: Quantity
    kind = "optimum"

    def in_words(self, words: Words) -> str:
        return (
            f"components differ, whole columns agree (p = {self.p_value:.2g}): another optimum of the same data? "
            f"Most: {words.quantity(self.worst)}"
        )


@dataclass(frozen=True)
class RefitAgrees(Cause):
    """A refit of the same rows from the global mixture agrees with it, with ``p_value``."""

    p_value: float
    kind = "other optimum"

    def in_words(self, words: Words) -> str:
        return (
            "another optimum of the same data: refitted from the global mixture it agrees "
            f"(p = {self.p_value:.2g})"
        )


@dataclass(frozen=True)
class MainCause(Cause):
    """``cause`` explains nearly all of the difference; the rest is ``ratio`` times what sampling explains."""

    cause: Cause
    ratio: float

    @property
    def kind(self) -> str:
        return self.cause.kind

    @property
    def columns(self) -> tuple[int, ...]:
        return self.cause.columns

    @property
    def component(self) -> int | None:
        return self.cause.component

    def in_words(self, words: Words) -> str:
        rest = f"without that still {self.ratio:.3g} times as far as sampling explains"
        return f"{self.cause.in_words(words)}; {rest}"


@dataclass(frozen=True)
class NoSingleCause(Cause):
    """Several components differ, those of ``components``, in ``worst`` most."""

    components: tuple[int, ...]
    worst: Quantity
    kind = "unexplained"

    def in_words(self, words: Words) -> str:
        n = len(self.components)
        where = ""
        if words.n_components > 1 and n == words.n_components:
            where = "all components differ, most "
        elif words.n_components > 1 and n == 1:
            where = f"component {self.components[0]} differs, most "
        elif words.n_components > 1 and n:
            where = f"components {_listed(map(str, self.components))} differ, most "
        return f"no single cause: {where}{words.quantity(self.worst)}"


# -- words ---------------------------------------------------------------------------------------------


class Words:
    """Words for numbers and changes of columns, by the names of the global mixture."""

    def __init__(self, reference: Mixture) -> None:
        self._reference = reference
        self.n_components = reference.n_components

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns in quotes, or their numbers if they have no names."""
        names = self._reference.feature_names
        if names is None:
            return tuple(map(str, range(self._reference.n_features)))
        return tuple(map(repr, names))

    def quantity(self, q: Quantity) -> str:
        """One number that is off, and how far."""
        is_shared = self._reference.covariance_type == "tied" and q.what in (
            "spread",
            "correlation",
        )
        is_of_one = self.n_components > 1 and not is_shared
        z = f"{q.z:+.3g} se"
        if q.what == "weight":
            of = f" of component {q.component}" if is_of_one else ""
            return f"weight{of} {q.estimate:.3g} instead of {q.reference:.3g} ({z})"
        columns = _listed(self.columns[j] for j in q.columns)
        where = f"{f' of {columns}' if columns else ''}{f' in component {q.component}' if is_of_one else ''}"
        if q.what == "mean":
            return f"mean{where} {z}"
        if q.what == "spread":
            return f"spread{where} {q.estimate / q.reference:.3g} times ({z})"
        return f"correlation{where} {q.estimate:.2f} instead of {q.reference:.2f} ({z})"

    def changes(self, changes: Sequence[ColumnChange]) -> str:
        """Changes of columns; those that share a predicate in one clause."""
        columns_of: dict[tuple[str, str], list[int]] = {}
        for change in changes:
            columns_of.setdefault(self._predicates(change), []).extend(change.columns)
        clauses = [
            self._clause(one, many, sorted(columns)) for (one, many), columns in columns_of.items()
        ]
        is_unit = any("unit" in change.kind for change in changes)
        return " and ".join(clauses) + (": another unit?" if is_unit else "")

    def _clause(self, one: str, many: str, columns: list[int]) -> str:
        if not one:  # columns trade places: each is named
            return f"columns {_listed(self.columns[j] for j in columns)} {many}"
        if len(columns) == 1:
            return f"column {self.columns[columns[0]]} {one}"
        if len(columns) == len(self.columns):
            return f"all columns {many}"
        return f"columns {_listed(self.columns[j] for j in columns)} {many}"

    def _predicates(self, change: ColumnChange) -> tuple[str, str]:
        """The predicate for one column, empty for changes that need several, and for several columns."""
        if change.kind == "sign":
            return "has the opposite sign", "have the opposite sign"
        if change.kind == "swapped columns":
            return "", "are swapped"
        if change.kind == "column order":
            found = ", ".join(self.columns[change.order[j]] for j in change.columns)
            return "", f"are in another order: they hold {found}"
        if change.kind == "offset":
            sd = column_moments(self._reference)[1][change.columns[0]]
            size = f"{abs(change.shift) / sd:.2g} standard deviations"
            shift = f"shifted by {change.shift:+.3g} ({size})"
            return f"is {shift}", f"are {shift}"
        times = f"{change.factor:.4g} times as large"
        if change.kind == "unit and offset":
            times += f" and shifted by {change.shift:+.3g}"
        return f"is {times}", f"are {times}"


def _listed(names: Iterable[str]) -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} and {last}" if first else last
