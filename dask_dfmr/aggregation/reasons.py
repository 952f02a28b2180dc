"""Why an estimate was excluded or refused, as values: numbers, names and indices, worded where they are shown.

One frozen dataclass is one kind of reason. ``str(reason)`` is its sentence, and :meth:`Reason.in_order` renumbers the
components that it names. Nothing edits a sentence once it is made.

This module imports nothing of the package, so that the mathematics can give reasons too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import isabstract
from typing import Any, Self, get_args, get_origin, get_type_hints

LEAST_P_VALUE = 1e-12
"""Smaller p-values rest on the farthest tail of a law: the sentence gives only this bound."""

LEAST_SCORE_P_VALUE = 1e-300
"""The same for tests on rows: below this a p-value is 0 in floating point."""

MOST_LISTED = 10
"""Estimates that a sentence lists before it ends in an ellipsis."""

LONGEST_SHOWN, LONGEST_KEPT = 240, 1000
"""Characters of a reason that warnings and tables show, and that reports and files keep. The longest reasons of this
package itself have about 200, but the error of a reader may hold a table of its own."""


@dataclass(frozen=True)
class Reason(ABC):
    """One reason, as a value. A field ``component`` is the number of a component, or None."""

    @abstractmethod
    def __str__(self) -> str:
        """The sentence, without a full stop."""

    def in_order(self, order: Sequence[int]) -> Self:
        """The same reason, with components renumbered if it names any.

        Parameters
        ----------
        order : sequence of int, length n_components
            The component that now has the number ``k`` had the number ``order[k]``.
        """
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Reason):
                changed[name] = value.in_order(order)
            elif name == "component" and value is not None:
                changed[name] = list(order).index(value)
        return replace(self, **changed)


def listed(indices: Sequence[object], most: int = MOST_LISTED) -> str:
    """Indices separated by commas; an ellipsis stands for those after the first ``most``."""
    return ", ".join(map(str, indices[:most])) + (", ..." if len(indices) > most else "")


def in_short(text: str) -> str:
    """A reason as warnings and tables show it: its first line, or as much of this as they have room for."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    # "ValueError:" alone says nothing: the text begins in the next line.
    n_shown = 2 if len(lines) > 1 and lines[0].endswith(":") else 1
    shown = " ".join(lines[:n_shown])
    is_whole = len(lines) == n_shown and len(shown) <= LONGEST_SHOWN
    return shown if is_whole else f"{shown[:LONGEST_SHOWN].rstrip('. ')} ..."


def bounded(text: str) -> str:
    """A reason as reports and files keep it: lines and all, but of a bounded length."""
    return text if len(text) <= LONGEST_KEPT else f"{text[:LONGEST_KEPT]} ..."


# -- refused: no estimate that could take part --------------------------------------------------------


@dataclass(frozen=True)
class Malformed(Reason):
    """The message is no local estimate; ``problem`` is the error that reading it raised."""

    problem: str

    def __str__(self) -> str:
        return f"malformed estimate: {self.problem}"


@dataclass(frozen=True)
class NoEstimate(Reason):
    """The local fit gave no mixture; ``outcome`` and ``detail`` are those of the local estimate."""

    outcome: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.outcome}: {self.detail}" if self.detail else self.outcome


@dataclass(frozen=True)
class OtherSchema(Reason):
    """The family or a dimension differs from that of the majority; ``name`` is the attribute."""

    name: str
    own: str
    majority: str

    def __str__(self) -> str:
        return f"{self.name} is {self.own}, the majority's is {self.majority}"


@dataclass(frozen=True)
class OtherColumns(Reason):
    """The names of the columns differ from those of the majority."""

    own: tuple[str, ...]
    majority: tuple[str, ...]

    def __str__(self) -> str:
        names = list(self.majority)
        how = f"; select them in that order: part[{names}]" if set(names) == set(self.own) else ""
        return f"columns are {list(self.own)}, the majority's are {names}{how}"


@dataclass(frozen=True)
class Removed(Reason):
    """The user took the estimate out, with ``Aggregate.without``."""

    def __str__(self) -> str:
        return "removed"


# -- excluded by distance ------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutsideRadius(Reason):
    """The distance to the center is ``ratio`` radii, more than ``rho``."""

    ratio: float
    rho: float

    def __str__(self) -> str:
        return f"distance to the center is {self.ratio:.3g} times the radius (rho = {self.rho:g})"


@dataclass(frozen=True)
class TooFar(Reason):
    """The distance to the consensus is ``ratio`` times what sampling explains (root mean square)."""

    ratio: float
    p_value: float

    def __str__(self) -> str:
        chance = _chance(self.p_value, ".1g", LEAST_P_VALUE)
        return f"{self.ratio:.3g} times as far from the consensus as sampling explains ({chance})"


@dataclass(frozen=True)
class OnlyTheCenter(Reason):
    """``method="coat"`` keeps one estimate, and this is another one."""

    def __str__(self) -> str:
        return "only the center itself is kept (method 'coat')"


# -- excluded component by component -------------------------------------------------------------------


@dataclass(frozen=True)
class ComponentTooFar(Reason):
    """A component is ``ratio`` radii from its center, more than ``limit``."""

    component: int
    ratio: float
    limit: float

    def __str__(self) -> str:
        distance = f"{self.ratio:.3g} times its radius from the others'"
        return f"component {self.component} is {distance} (limit {self.limit:.3g})"


@dataclass(frozen=True)
class ComponentTooSmall(Reason):
    """A component has ``n_rows`` rows, fewer than the ``least_rows`` that its test needs."""

    component: int
    n_rows: float
    least_rows: int

    def __str__(self) -> str:
        n_rows = math.floor(10 * self.n_rows) / 10  # 4.99 of 5 is not 5 of 5
        rows = f"{n_rows:.3g} of {self.least_rows}"
        return f"component {self.component} has too few rows to judge ({rows})"


# -- excluded by method="hardened" ---------------------------------------------------------------------


@dataclass(frozen=True)
class Copy(Reason):
    """The estimate is a copy of ``of``, which represents all copies; ``others`` are copies too."""

    of: int
    others: tuple[int, ...] = ()

    def __str__(self) -> str:
        others = f" (so are {listed(self.others)})" if self.others else ""
        return (
            f"closer to estimate {self.of} than sampling allows{others}: "
            f"copies count as one, represented by {self.of}"
        )


@dataclass(frozen=True)
class FarFromVotes(Reason):
    """The distance to the center is ``ratio`` radii, where copies have one vote together."""

    ratio: float

    def __str__(self) -> str:
        return f"distance to the center of all votes is {self.ratio:.3g} times their radius"


@dataclass(frozen=True)
class FarInAll(Reason):
    """All parameters together are ``ratio`` times as far off as sampling explains."""

    ratio: float

    def __str__(self) -> str:
        return f"too far: all parameters together are {_times_off(self.ratio)}"


@dataclass(frozen=True)
class _NamesPart(Reason):
    """Names a part of the parameters: ``part`` in words, and its component, None if it belongs to all."""

    part: str
    component: int | None

    @property
    def _where(self) -> str:
        return self.part if self.component is None else f"{self.part} of component {self.component}"


@dataclass(frozen=True)
class FarInPart(_NamesPart):
    """One part of the parameters is ``ratio`` times as far off as sampling explains."""

    ratio: float

    def __str__(self) -> str:
        return f"too far: {self._where}, {_times_off(self.ratio)}"


@dataclass(frozen=True)
class AlongDirection(_NamesPart):
    """The estimate stands alone along one direction, most of which lies in ``part``.

    ``separation`` is its distance from the others in standard errors.
    """

    separation: float

    def __str__(self) -> str:
        return (
            f"{self.separation:.3g} standard errors off along one direction (mostly {self._where})"
        )


@dataclass(frozen=True)
class MovedTogether(_NamesPart):
    """The estimate and ``others`` stand apart along one direction, most of which lies in ``part``.

    ``separation`` is the distance of the two groups in standard errors.
    """

    separation: float
    others: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"moved together with estimates {listed(self.others)} along one direction (mostly {self._where}), "
            f"{self.separation:.3g} standard errors from the others"
        )


# -- further passes over the rows ----------------------------------------------------------------------


@dataclass(frozen=True)
class ContradictsOthers(Reason):
    """The score test rejects that the rows come from the population of the other partitions' rows."""

    z_score: float
    p_value: float

    def __str__(self) -> str:
        chance = _chance(self.p_value, ".2g", LEAST_SCORE_P_VALUE)
        return f"its rows contradict the others' by z = {self.z_score:.3g} ({chance})"


@dataclass(frozen=True)
class HasFarRows(Reason):
    """Rows far away would move the mixture ``ratio`` times as far as one row may; those of others have no such tail.

    ``truncates`` says whether the fit truncates already.
    """

    ratio: float
    p_value: float
    truncates: bool = False

    def __str__(self) -> str:
        chance = _chance(self.p_value, ".2g", LEAST_SCORE_P_VALUE)
        text = f"far rows, or wrong sums, move the mixture {self.ratio:.3g} times as far as one row may ({chance})"
        return text if self.truncates else f"{text}; row_outliers='truncate' cuts them off"


@dataclass(frozen=True)
class Gained(Reason):
    """An excluded partition is kept after a second look, because its rows do not contradict the others'.

    Rows beyond the cut of every component are not compared: ``outside`` is their share, and ``elsewhere`` that of the
    kept partitions; both are 0 if all rows are compared.
    """

    p_value: float
    outside: float = 0.0
    elsewhere: float = 0.0

    def __str__(self) -> str:
        chance = _chance(self.p_value, ".2g", LEAST_SCORE_P_VALUE)
        text = f"kept after a second look: its rows agree with the others' ({chance})"
        if self.outside <= self.elsewhere:
            return text
        shares = (
            f"{self.outside:.0%} outside, which were not compared ({self.elsewhere:.0%} elsewhere)"
        )
        return f"{text}, but for {shares}"


@dataclass(frozen=True)
class Unreadable(Reason):
    """The partition could not be read again; ``problem`` is the error in words, empty if it has no rows now."""

    problem: str = ""

    def __str__(self) -> str:
        return (
            f"it could not be read again: {self.problem}" if self.problem else "it has no rows now"
        )


@dataclass(frozen=True)
class OtherRows(Reason):
    """The partition has ``n_rows`` rows now; the first read gave ``n_rows_before``."""

    n_rows: int
    n_rows_before: int

    def __str__(self) -> str:
        return f"it has {self.n_rows} rows now and had {self.n_rows_before}"


@dataclass(frozen=True)
class ChangedRows(Reason):
    """The partition has as many rows as before, and their sums are others."""

    def __str__(self) -> str:
        return "its rows changed between two reads, and give other sums; persist() keeps rows as they are"


@dataclass(frozen=True)
class ExcludedInPass(Reason):
    """A refinement excluded the partition in pass ``number``, for ``reason``."""

    number: int
    reason: Reason

    def __str__(self) -> str:
        return f"excluded in refinement pass {self.number}: {self.reason}"


@dataclass(frozen=True)
class Joined(Reason):
    """A partition with too few rows for an estimate joined a refinement."""

    p_value: float

    def __str__(self) -> str:
        chance = _chance(self.p_value, ".2g", LEAST_SCORE_P_VALUE)
        return f"joined in refinement: its rows agree with the others' ({chance})"


@dataclass(frozen=True)
class AsLikely(Reason):
    """The rows of a small partition are as likely under the global mixture as those of the others."""

    p_value: float

    def __str__(self) -> str:
        chance = _chance(self.p_value, ".2g", LEAST_SCORE_P_VALUE)
        return f"its rows are as likely as others' ({chance})"


@dataclass(frozen=True)
class Unlikely(Reason):
    """The rows of a small partition are less likely under the global mixture than sampling explains."""

    z_score: float
    p_value: float

    def __str__(self) -> str:
        chance = _chance(self.p_value, ".2g", LEAST_SCORE_P_VALUE)
        return f"its rows are unlikely under the global mixture: z = {self.z_score:.3g} ({chance})"


@dataclass(frozen=True)
class TooFewPartitions(Reason):
    """A test of the rows needs more partitions to compare with."""

    def __str__(self) -> str:
        return "too few partitions to compare it with"


@dataclass(frozen=True)
class NeedsRegrouping(Reason):
    """A test of the rows would have to regroup all rows by ``source`` once more."""

    def __str__(self) -> str:
        return "all rows would have to be regrouped again; a refinement tests them"


@dataclass(frozen=True)
class NotTested(Reason):
    """The rows of a small partition were not tested, for ``reason``."""

    reason: Reason

    def __str__(self) -> str:
        return f"not tested: {self.reason}"


# -- selection -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExcludedWithReference(Reason):
    """The filter of the reference candidate excludes the partition; ``candidate`` is that one in words."""

    candidate: str
    reason: Reason

    def __str__(self) -> str:
        return f"excluded with {self.candidate}: {self.reason}"


@dataclass(frozen=True)
class ExcludedByCandidates(Reason):
    """The filters of ``n_against`` of ``n_judges`` candidates exclude the partition."""

    n_against: int
    n_judges: int

    def __str__(self) -> str:
        return f"excluded by {self.n_against} of {self.n_judges} candidates that judged it"


@dataclass(frozen=True)
class NotCompared(Reason):
    """No candidate was compared on the partition, for ``reason``."""

    reason: Reason

    def __str__(self) -> str:
        return f"candidates were not compared on it: {self.reason}"


def is_lost(reason: Reason) -> bool:
    """Whether a partition could not be read again, or has other rows now."""
    inner = getattr(reason, "reason", None)
    return isinstance(reason, (Unreadable, OtherRows, ChangedRows)) or (
        isinstance(inner, Reason) and is_lost(inner)
    )


# -- to and from files ---------------------------------------------------------------------------------


def to_plain(reason: Reason) -> dict[str, Any]:
    """A reason as an object of JSON: its ``kind`` and its fields. :func:`from_plain` is the inverse."""
    return {"kind": type(reason).__name__} | {
        name: _plain(value) for name, value in vars(reason).items()
    }


def from_plain(plain: Any) -> Reason:
    """A reason from an object of JSON.

    Raises
    ------
    ValueError
        If the kind is unknown, a field is missing or unknown, or a value has another type.
    """
    name_of_kind = plain.get("kind") if isinstance(plain, Mapping) else None
    if not isinstance(name_of_kind, str) or name_of_kind not in REASON_KINDS:
        raise ValueError(
            f"a reason must be an object with a known 'kind'; got {plain!r:.100}. Known are {sorted(REASON_KINDS)}."
        )
    kind = REASON_KINDS[name_of_kind]
    types = get_type_hints(kind)
    given = {name: value for name, value in plain.items() if name != "kind"}
    if given.keys() != types.keys():
        raise ValueError(
            f"a reason of the kind {name_of_kind!r} must have the fields {sorted(types)}; got {sorted(given)}."
        )
    return kind(**{name: _typed(name, value, types[name]) for name, value in given.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Reason):
        return to_plain(value)
    return list(value) if isinstance(value, tuple) else value


def _typed(name: str, value: Any, wanted: Any) -> Any:
    """A value in the type of its field; a ValueError if it has another one."""
    if wanted is Reason:
        return from_plain(value)
    if get_origin(wanted) is tuple:
        if isinstance(value, list):
            return tuple(_typed(name, item, get_args(wanted)[0]) for item in value)
    elif wanted is float and type(value) is int:
        return float(value)
    elif type(value) in (get_args(wanted) or (wanted,)):
        return value
    raise ValueError(f"{name} of a reason must be of type {wanted}; got {value!r:.100}.")


def _subclasses(base: type) -> list[type]:
    own: list[type] = base.__subclasses__()
    return own + [kind for one in own for kind in _subclasses(one)]


REASON_KINDS: dict[str, type[Reason]] = {
    kind.__name__: kind for kind in _subclasses(Reason) if not isabstract(kind)
}
"""All kinds by their names, as files name them."""


# -- words ---------------------------------------------------------------------------------------------


def _chance(p_value: float, digits: str, least: float) -> str:
    return f"p = {p_value:{digits}}" if p_value >= least else f"p < {least:g}"


def _times_off(ratio: float) -> str:
    return f"{ratio:.3g} times as far off as sampling explains"


def is_for_rows(reason: Reason) -> bool:
    """Whether the rows of an excluded partition can speak against the reason.

    Those of a copy are consistent, and still count twice. Of several that moved together, each alone shows little.
    """
    return not isinstance(reason, (Copy, MovedTogether))
