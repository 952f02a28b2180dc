"""The values that an aggregation takes and gives: options, decision, notes and the aggregate itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dask_dfmr import checks
from dask_dfmr.aggregation.reduction import MAX_ROUNDS
from dask_dfmr.aggregation.references import ALL_PAIRS_UP_TO, N_REFERENCES
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.gaussian import Gaussian, Mixture

METHODS = ("dfmr", "mr", "coat", "trim", "hardened")

PAPER_RHO = 1.3
"""The paper's choice; what lies within so many radii of the center is asked what sampling explains."""

FALSE_EXCLUSION_RATE = 1e-3

LEAST_P_VALUE = 1e-12
"""Smaller ones rest on a law's farthest tail: they are shown as being below this."""

MACHINE_WEIGHTS = ("rows", "equal")
HETEROGENEITY = (None, "weights")


@dataclass(frozen=True, eq=False, repr=False)
class FilterDecision:
    """Who was kept, and why the others were not.

    Attributes
    ----------
    center : int
        Index of the estimate in the middle (COAT).
    radius : float
        L2 distance from the center within which more than half of the usable estimates lie.
    rho : float or "auto"
        Estimates within ``rho * radius`` are kept; "auto": those with a ``p_value`` of at least
        ``false_exclusion_rate``.
    distances : ndarray of shape (n_estimates,)
        L2 distance of each estimate to the center; NaN for a refused one. In many columns or small
        units the numbers may leave the range of floating point (0 or inf); ``distance_ratios``
        never depend on the unit.
    distance_ratios : ndarray of shape (n_estimates,)
        Distances in units of the radius; NaN for a refused one.
    kept : ndarray of bool, shape (n_estimates,)
        Estimates that went into the global mixture.
    refused : dict of int to str
        Estimates that took no part, with the reason.
    reasons : dict of int to str
        Why estimates that took part were left out, where a method has other reasons than distance.
    expected_distances : ndarray of shape (n_estimates,) or None
        L2 distance to the center that sampling explains (root mean square), for an estimate of so
        many rows; NaN for a refused one. None where nothing was calibrated.
    z_scores : ndarray of shape (n_estimates,) or None
        How far the estimate is from the consensus of those near the center, in standard normal
        units: above 3 is rare among honest ones.
    p_values : ndarray of shape (n_estimates,) or None
        Probability that an honest estimate of so many rows lies farther from the consensus.
    sampling_ratios : ndarray of shape (n_estimates,) or None
        Distance to the consensus in units of what sampling explains (root mean square).
    false_exclusion_rate : float
        Share of honest estimates that ``rho="auto"`` leaves out.
    scale : float
        How much larger squared distances of the majority are than those of samples of one mixture;
        1 where the difference is no more than chance.
    groups : tuple of tuple of int
        Where the estimates fall into groups that lie farther apart than sampling explains: the
        members of each (of at most 256 estimates that were compared).
    n_candidates : int or None
        Estimates among which the center was chosen by exact medians; None where it is not known.
    n_references : int or None
        Estimates that all were measured against to find those candidates; None where all pairs
        were measured, and all are candidates.
    components : ComponentDecision or None
        Which components of each estimate were kept, with ``heterogeneity="weights"``. An estimate
        is then kept if any of its components is; its ``distances`` and ``distance_ratios`` are
        those of its worst component, ``radius`` is the largest of the components' radii (in
        standard errors), and ``center`` is the center of the heaviest component.
    """

    center: int
    radius: float
    rho: float | str
    distances: Array
    distance_ratios: Array
    kept: NDArray[np.bool_]
    refused: Mapping[int, str] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    expected_distances: Array | None = None
    z_scores: Array | None = None
    p_values: Array | None = None
    sampling_ratios: Array | None = None
    false_exclusion_rate: float = FALSE_EXCLUSION_RATE
    scale: float = 1.0
    groups: tuple[tuple[int, ...], ...] = ()
    n_candidates: int | None = None
    n_references: int | None = None
    components: ComponentDecision | None = None

    def __post_init__(self) -> None:
        n = len(self.kept)
        if not (self.distances.shape == self.distance_ratios.shape == self.kept.shape == (n,)):
            raise ValueError(
                f"distances, distance_ratios and kept must have one entry per estimate; got {self.distances.shape}, "
                f"{self.distance_ratios.shape} and {self.kept.shape}."
            )
        can_be_left_out = self.rho == "auto" or self.center in self.reasons
        is_kept = 0 <= self.center < n and (self.kept[self.center] or can_be_left_out)
        if not is_kept:
            raise ValueError(
                f"center must be the index of a kept estimate, 0 to {n - 1}; got {self.center}."
            )
        calibrated = (self.expected_distances, self.z_scores, self.p_values, self.sampling_ratios)
        for array in (self.distances, self.distance_ratios, self.kept, *calibrated):
            if array is not None:
                array.setflags(write=False)

    @property
    def n_estimates(self) -> int:
        """Number of estimates judged or refused."""
        return len(self.kept)

    def reason(self, index: int) -> str:
        """Why this estimate, or a part of it, was left out, in words; empty if it was kept."""
        if self.components is not None and index not in self.refused:
            return self.components.reason(index)
        if self.kept[index]:
            return ""
        if index in self.refused:
            return self.refused[index]
        if index in self.reasons:
            return self.reasons[index]
        ratio = self.distance_ratios[index]
        if not isinstance(self.rho, str) and np.isfinite(self.rho) and ratio > self.rho:
            return f"distance to the center is {ratio:.3g} times the radius (rho = {self.rho:g})"
        if self.p_values is not None and self.p_values[index] < self.false_exclusion_rate:
            return self._too_far(index)
        return "only the center itself is kept (method 'coat')"

    def _too_far(self, index: int) -> str:
        assert self.sampling_ratios is not None
        assert self.p_values is not None
        times, p = self.sampling_ratios[index], self.p_values[index]
        chance = f"p = {p:.1g}" if p >= LEAST_P_VALUE else f"p < {LEAST_P_VALUE:g}"
        return f"{times:.3g} times as far from the consensus as sampling explains ({chance})"

    def __repr__(self) -> str:
        rho = self.rho if isinstance(self.rho, str) else f"{self.rho:g}"
        return (
            f"FilterDecision(kept {self.kept.sum()} of {self.n_estimates}, "
            f"refused {len(self.refused)}, center={self.center}, "
            f"radius={self.radius:.6g}, rho={rho}{self._found_by_references()}"
            f"{'' if self.components is None else f', components={self.components!r}'})"
        )

    @property
    def kept_components(self) -> NDArray[np.bool_] | None:
        """Kept components, (n_estimates, n_components), in the order of the result's; None in other modes."""
        return None if self.components is None else self.components.kept

    def _found_by_references(self) -> str:
        if self.n_references is None:
            return ""
        return f", n_candidates={self.n_candidates}, n_references={self.n_references}"


@dataclass(frozen=True, eq=False, repr=False)
class ComponentDecision:
    """Which components were kept where estimates are filtered component by component.

    The columns are the components of the result, in its order.

    Attributes
    ----------
    kept : ndarray of bool, shape (n_estimates, n_components)
    matching : ndarray of int, shape (n_estimates, n_components)
        Which of the estimate's own components, by decreasing weight, that is; -1 for a refused
        estimate.
    n_rows : ndarray of shape (n_estimates, n_components)
        Rows behind it: those of the machine times the weight.
    distance_ratios : ndarray of shape (n_estimates, n_components)
        Distance to the component's center in units of its radius; NaN for too few rows to judge.
    radii : ndarray of shape (n_components,)
        In standard errors of a difference between two estimates.
    limits : ndarray of shape (n_components,)
        Components are kept up to so many radii.
    centers : ndarray of int, shape (n_components,)
        Estimates in the middle.
    least_rows : int
        Rows needed to judge a component: as many as it has parameters.
    """

    kept: NDArray[np.bool_]
    matching: NDArray[np.intp]
    n_rows: Array
    distance_ratios: Array
    radii: Array
    limits: Array
    centers: NDArray[np.intp]
    least_rows: int

    def __post_init__(self) -> None:
        for name in ("kept", "matching", "n_rows", "distance_ratios", "radii", "limits", "centers"):
            getattr(self, name).setflags(write=False)

    def reason(self, index: int) -> str:
        """Which components of an estimate were left out and why, in words; empty if none was."""
        return "; ".join(self._reason(index, int(k)) for k in np.flatnonzero(~self.kept[index]))

    def _reason(self, index: int, k: int) -> str:
        ratio = self.distance_ratios[index, k]
        if np.isnan(ratio):
            n_rows = np.floor(10 * self.n_rows[index, k]) / 10
            return f"component {k} has too few rows to judge ({n_rows:.3g} of {self.least_rows})"
        limit = self.limits[k]
        return f"component {k} is {ratio:.3g} times its radius from the others' (limit {limit:.3g})"

    def __repr__(self) -> str:
        of_usable = self.matching[:, 0] >= 0
        too_few = np.isnan(self.distance_ratios[of_usable]).sum()
        return (
            f"ComponentDecision(kept {self.kept.sum()} of {of_usable.sum() * self.kept.shape[1]}, "
            f"too few rows to judge {too_few})"
        )


class Note(NamedTuple):
    """Something the user should be warned of, as a value: in a graph, warnings would be lost on the workers."""

    category: type[Warning]
    message: str


class Workshop(Protocol):
    """What modules above this one can do with an aggregate; :mod:`dask_dfmr.aggregation.rerun` has it."""

    def without(self, last: Aggregate, partitions: Sequence[int] | int) -> Aggregate: ...
    def with_rho(self, last: Aggregate, rho: float | str) -> Aggregate: ...
    def explain(self, last: Aggregate, which: str) -> Any: ...
    def save(self, last: Aggregate, path: str | os.PathLike[str], estimates: bool) -> None: ...
    def load(self, kind: type[Aggregate], path: str | os.PathLike[str]) -> Aggregate: ...


@dataclass(frozen=True, eq=False)
class Origin:
    """What an aggregate was made of and how, so that it can be made again without some of it.

    Attributes
    ----------
    estimates : sequence of LocalEstimate or mapping
    options : AggregationOptions
    seed : SeedSequence
    problem : LocalProblem or None
        How estimates were fitted, where that is known.
    family : Family
        That the mixtures of messages belong to.
    removed : frozenset of int
        Estimates that were taken out.
    """

    estimates: Sequence[LocalEstimate | Mapping[str, Any]]
    options: AggregationOptions
    seed: np.random.SeedSequence
    problem: LocalProblem | None = None
    family: Family = field(default_factory=Gaussian)
    removed: frozenset[int] = frozenset()
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"cache": {}}


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
    origin : Origin or None
        The local estimates and options that it was made of, where they were kept.
    """

    workshop: ClassVar[Workshop]

    mixture: Mixture
    decision: FilterDecision
    objective: float
    n_iter: int
    converged: bool
    method: str = "dfmr"
    notes: tuple[Note, ...] = ()
    unrefined: Mixture | None = None
    origin: Origin | None = None

    def __repr__(self) -> str:
        how = (
            f"method={self.method!r}, objective={self.objective:.6g}, "
            f"n_iter={self.n_iter}, converged={self.converged}"
        )
        return f"Aggregate({self.mixture!r}, {self.decision!r}, {how})"

    def without(self, partitions: Sequence[int] | int) -> Aggregate:
        """The same without some of the estimates: what :func:`aggregate` gives of the others, to the last bit.

        Parameters
        ----------
        partitions : int or sequence of int
            Their indices. The others keep theirs; those taken out are in ``decision.refused`` as "removed".

        Returns
        -------
        Aggregate
            Components in the order of this one's, and not refined if this one was. Its notes are not issued
            as warnings: see :meth:`warn`.

        Raises
        ------
        ValueError
            If an index is none, or the estimates were not kept.
        AggregationError
            If no usable estimate is left.
        """
        return self.workshop.without(self, partitions)

    def with_rho(self, rho: float | str) -> Aggregate:
        """The same with another ``rho`` (or "auto"): what :func:`aggregate` gives with it, to the last bit.

        As for :meth:`without`; distances are not measured again.
        """
        return self.workshop.with_rho(self, rho)

    def explain(self, which: str = "excluded") -> Any:
        """Why estimates were left out, from what the estimates say.

        Parameters
        ----------
        which : {"excluded", "all"}, default "left out"
            Those that have an estimate and were left out, or all that have one.

        Returns
        -------
        pandas.DataFrame
            One row per estimate; see :meth:`GaussianMixture.explain`.

        Raises
        ------
        ValueError
            If the estimates were not kept.
        """
        return self.workshop.explain(self, which)

    def save(self, path: str | os.PathLike[str], estimates: bool = True) -> None:
        """Write to one file, a zip of JSON and arrays (``docs/file-format.md``): nothing in it is executable.

        Parameters
        ----------
        path : str or path
            Written beside and then renamed, so that there is never half a file.
        estimates : bool, default True
            Write the local estimates too, if they were kept: :meth:`without` and the like then work after
            :meth:`load`.
        """
        self.workshop.save(self, path, estimates)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the file is no such file, is of a newer version, or does not hold what it says.
        """
        loaded = cls.workshop.load(cls, path)
        assert isinstance(loaded, cls)
        return loaded

    def warn(self, stacklevel: int = 2) -> None:
        """Issue the notes as warnings."""
        for note in self.notes:
            warnings.warn(note.message, note.category, stacklevel=stacklevel + 1)


@dataclass(frozen=True)
class AggregationOptions:
    """What the user can choose about an aggregation; checked on construction."""

    method: str = "dfmr"
    rho: float | str = "auto"
    machine_weights: str = "rows"
    n_starts: int = 1
    max_rounds: int = MAX_ROUNDS
    n_references: int | str | None = "auto"
    false_exclusion_rate: float = FALSE_EXCLUSION_RATE
    heterogeneity: str | None = None

    def __post_init__(self) -> None:
        self._check_heterogeneity()
        checks.one_of("method", self.method, METHODS)
        checks.one_of("machine_weights", self.machine_weights, MACHINE_WEIGHTS)
        checks.integer("n_starts", self.n_starts, 1)
        checks.integer("max_rounds", self.max_rounds, 1)
        if self.n_references not in (None, "auto"):
            checks.integer("n_references", self.n_references, 1, alternative="None, 'auto' or ")
        is_number = isinstance(self.rho, (int, float, np.number)) and not isinstance(self.rho, bool)
        if self.rho != "auto" and not (is_number and float(self.rho) >= 1):
            raise ValueError(
                "rho must be 'auto' or a number of at least 1 (1.3 is the paper's, inf keeps all); "
                f"got {self.rho!r}."
            )
        if self.method == "hardened" and self.n_references not in (None, "auto"):
            raise ValueError(
                "n_references must be 'auto' or None with method='hardened', which compares all estimates with each "
                f"other; got {self.n_references!r}."
            )
        checks.number("false_exclusion_rate", self.false_exclusion_rate)
        if not 0 < self.false_exclusion_rate < 0.5:
            raise ValueError(
                f"false_exclusion_rate must be a probability below 0.5, like 0.001; got {self.false_exclusion_rate!r}."
            )

    def _check_heterogeneity(self) -> None:
        checks.one_of("heterogeneity", self.heterogeneity, HETEROGENEITY)
        if self.heterogeneity is not None and self.method != "dfmr":
            raise ValueError(
                f"heterogeneity={self.heterogeneity!r} is a way to filter and needs method='dfmr'; "
                f"got method={self.method!r}."
            )

    @property
    def effective_rho(self) -> float:
        """Radii that count as near; plain mixture reduction is the filter that keeps all."""
        if self.method in ("mr", "trim"):
            return float("inf")
        return PAPER_RHO if isinstance(self.rho, str) else float(self.rho)

    @property
    def is_calibrated(self) -> bool:
        """Whether what sampling explains decides who is kept."""
        return self.rho == "auto" and self.method in ("dfmr", "hardened")

    def references_among(self, n_estimates: int) -> int | None:
        """How many references so many estimates are measured against; None for all pairs.

        Depends on the number of estimates and not on how many are usable, because the graph is built before anyone
        knows that.
        """
        if self.n_references is None:
            return None
        if self.method == "hardened" and self.n_references and n_estimates > ALL_PAIRS_UP_TO:
            raise ValueError(
                f"method='hardened' compares up to {ALL_PAIRS_UP_TO} estimates with each other in one task; got "
                f"{n_estimates}. Use larger partitions or method='dfmr', or n_references=None to do it all the same."
            )
        if isinstance(self.n_references, str):
            return N_REFERENCES if n_estimates > ALL_PAIRS_UP_TO else None
        return int(self.n_references) if n_estimates > self.n_references else None
