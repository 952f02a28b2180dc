"""The values that an aggregation takes and gives: options, decision, notes and the aggregate itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.families import Array
from dask_dfmr.mixture import Mixture
from dask_dfmr.reduction import MAX_ROUNDS
from dask_dfmr.references import ALL_PAIRS_UP_TO, N_REFERENCES

METHODS = ("dfmr", "mr", "coat")
MACHINE_WEIGHTS = ("rows", "equal")


@dataclass(frozen=True, eq=False, repr=False)
class FilterDecision:
    """Who was kept, and why the others were not.

    Attributes
    ----------
    center : int
        Index of the estimate in the middle (COAT).
    radius : float
        L2 distance from the centre within which more than half of the usable estimates lie.
    rho : float
        Estimates within ``rho * radius`` are kept.
    distances : ndarray of shape (n_estimates,)
        L2 distance of each estimate to the centre; NaN for a refused one. In many columns or small
        units the numbers may leave the range of floating point (0 or inf); ``distance_ratios``
        never depend on the unit.
    distance_ratios : ndarray of shape (n_estimates,)
        Distances in units of the radius; NaN for a refused one.
    kept : ndarray of bool, shape (n_estimates,)
        Estimates that went into the global mixture.
    refused : dict of int to str
        Estimates that took no part, with the reason.
    n_candidates : int or None
        Estimates among which the centre was chosen by exact medians; None where it is not known.
    n_references : int or None
        Estimates that all were measured against to find those candidates; None where all pairs
        were measured, and all are candidates.
    """

    center: int
    radius: float
    rho: float
    distances: Array
    distance_ratios: Array
    kept: NDArray[np.bool_]
    refused: Mapping[int, str] = field(default_factory=dict)
    n_candidates: int | None = None
    n_references: int | None = None

    def __post_init__(self) -> None:
        n = len(self.kept)
        if not (self.distances.shape == self.distance_ratios.shape == self.kept.shape == (n,)):
            raise ValueError(
                f"distances, distance_ratios and kept must have one entry per estimate; got {self.distances.shape}, "
                f"{self.distance_ratios.shape} and {self.kept.shape}."
            )
        if not (0 <= self.center < n and self.kept[self.center]):
            raise ValueError(
                f"center must be the index of a kept estimate, 0 to {n - 1}; got {self.center}."
            )
        for array in (self.distances, self.distance_ratios, self.kept):
            array.setflags(write=False)

    @property
    def n_estimates(self) -> int:
        """Number of estimates judged or refused."""
        return len(self.kept)

    def reason(self, index: int) -> str:
        """Why this estimate was left out, in words; empty if it was kept."""
        if self.kept[index]:
            return ""
        if index in self.refused:
            return self.refused[index]
        ratio = self.distance_ratios[index]
        if np.isfinite(self.rho) and ratio > self.rho:
            return f"distance to the centre is {ratio:.3g} times the radius (rho = {self.rho:g})"
        return "only the centre itself is kept (method 'coat')"

    def __repr__(self) -> str:
        return (
            f"FilterDecision(kept {self.kept.sum()} of {self.n_estimates}, "
            f"refused {len(self.refused)}, center={self.center}, "
            f"radius={self.radius:.6g}, rho={self.rho:g}{self._found_by_references()})"
        )

    def _found_by_references(self) -> str:
        if self.n_references is None:
            return ""
        return f", n_candidates={self.n_candidates}, n_references={self.n_references}"


class Note(NamedTuple):
    """Something the user should be warned of, as a value: in a graph, warnings would be lost on the workers."""

    category: type[Warning]
    message: str


@dataclass(frozen=True, eq=False, repr=False)
class Aggregate:
    """The global mixture and how it came about.

    Attributes
    ----------
    mixture : Mixture
        Components by decreasing weight.
    decision : FilterDecision
    objective : float
        Composite transportation divergence of the reduction, in nats (0 for ``method="coat"``).
    n_iter : int
        Rounds of the reduction.
    converged : bool
        Whether no assignment changed in the last round.
    method : str
    notes : tuple of Note
        What was worth a warning.
    unrefined : Mixture or None
        What the reduction gave, where ``mixture`` was refined on the rows of the kept machines since.
    """

    mixture: Mixture
    decision: FilterDecision
    objective: float
    n_iter: int
    converged: bool
    method: str = "dfmr"
    notes: tuple[Note, ...] = ()
    unrefined: Mixture | None = None

    def __repr__(self) -> str:
        how = (
            f"method={self.method!r}, objective={self.objective:.6g}, "
            f"n_iter={self.n_iter}, converged={self.converged}"
        )
        return f"Aggregate({self.mixture!r}, {self.decision!r}, {how})"

    def warn(self, stacklevel: int = 2) -> None:
        """Issue the notes as warnings."""
        for note in self.notes:
            warnings.warn(note.message, note.category, stacklevel=stacklevel + 1)


@dataclass(frozen=True)
class AggregationOptions:
    """What the user can choose about an aggregation; checked on construction."""

    method: str = "dfmr"
    rho: float = 1.3
    machine_weights: str = "rows"
    n_starts: int = 1
    max_rounds: int = MAX_ROUNDS
    n_references: int | str | None = "auto"

    def __post_init__(self) -> None:
        checks.one_of("method", self.method, METHODS)
        checks.one_of("machine_weights", self.machine_weights, MACHINE_WEIGHTS)
        checks.integer("n_starts", self.n_starts, 1)
        checks.integer("max_rounds", self.max_rounds, 1)
        if self.n_references not in (None, "auto"):
            checks.integer("n_references", self.n_references, 1, alternative="None, 'auto' or ")
        is_number = isinstance(self.rho, (int, float, np.number)) and not isinstance(self.rho, bool)
        if not is_number or not self.rho >= 1:
            raise ValueError(
                f"rho must be a number of at least 1 (1.3 by default, inf keeps all); got {self.rho!r}."
            )

    @property
    def effective_rho(self) -> float:
        """Plain mixture reduction is the filter that keeps all."""
        return float("inf") if self.method == "mr" else float(self.rho)

    def references_among(self, n_estimates: int) -> int | None:
        """How many references so many estimates are measured against; None for all pairs.

        Depends on the number of estimates and not on how many are usable, because the graph is built before anyone
        knows that.
        """
        if self.n_references is None:
            return None
        if isinstance(self.n_references, str):
            return N_REFERENCES if n_estimates > ALL_PAIRS_UP_TO else None
        return int(self.n_references) if n_estimates > self.n_references else None
