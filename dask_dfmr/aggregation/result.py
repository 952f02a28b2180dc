"""The values that an aggregation gives: the decision of the filter, notes, and the result itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE, AggregationOptions
from dask_dfmr.aggregation.reasons import (
    ComponentTooFar,
    ComponentTooSmall,
    OnlyTheCenter,
    OutsideRadius,
    Reason,
    TooFar,
)
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.gaussian import Gaussian, Mixture


@dataclass(frozen=True, eq=False, repr=False)
class FilterDecision:
    """Which estimates were kept, and why the others were not.

    Attributes
    ----------
    center : int
        Index of the center: the estimate with the smallest median distance to all (COAT).
    radius : float
        L2 distance from the center within which more than half of the usable estimates lie.
    rho : float or "auto"
        Estimates within ``rho * radius`` are kept; "auto": those with a ``p_value`` of at least
        ``false_exclusion_rate``.
    distances : ndarray of shape (n_estimates,)
        L2 distance of each estimate to the center; NaN for a refused one. With many columns or small
        units the numbers may leave the range of floating point (0 or inf); ``distance_ratios``
        never depend on the unit.
    distance_ratios : ndarray of shape (n_estimates,)
        Distances in units of the radius; NaN for a refused one.
    kept : ndarray of bool, shape (n_estimates,)
        Estimates that are part of the global mixture.
    refused : dict of int to Reason
        Estimates that took no part, with the reason; ``str(reason)`` is a sentence.
    reasons : dict of int to Reason
        Why estimates that took part were excluded, if a method has other reasons than distance.
    expected_distances : ndarray of shape (n_estimates,) or None
        L2 distance to the center that sampling explains (root mean square), for an estimate from as
        many rows; NaN for a refused one. None if nothing was calibrated.
    z_scores : ndarray of shape (n_estimates,) or None
        Distance from the consensus of the estimates near the center, in standard normal units: values
        above 3 are rare among consistent estimates. NaN for a refused one, and for the only estimate,
        which has nothing to be compared with.
    p_values : ndarray of shape (n_estimates,) or None
        P-value under the null law: probability that a consistent estimate from as many rows lies
        farther from the consensus.
    sampling_ratios : ndarray of shape (n_estimates,) or None
        Distance to the consensus in units of what sampling explains (root mean square).
    false_exclusion_rate : float
        Share of consistent estimates that ``rho="auto"`` excludes.
    scale : float
        Ratio of the squared distances of the majority to those of samples of one mixture;
        1 if the difference is no more than chance.
    groups : tuple of tuple of int
        Groups that lie farther apart than sampling explains: the indices of the members of each (of
        at most 256 estimates that were compared).
    n_candidates : int or None
        Estimates among which the center was chosen by exact medians; None if that is not known.
    n_references : int or None
        Estimates that all were measured against to find those candidates; None if all pairs
        were measured, and all are candidates.
    components : ComponentDecision or None
        Which components of each estimate were kept, with ``method="componentwise"``. An estimate
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
    refused: Mapping[int, Reason] = field(default_factory=dict)
    reasons: Mapping[int, Reason] = field(default_factory=dict)
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
        may_be_excluded = self.rho == "auto" or self.center in self.reasons
        if not (0 <= self.center < n and (self.kept[self.center] or may_be_excluded)):
            raise ValueError(
                f"center must be the index of a kept estimate, 0 to {n - 1}; got {self.center}."
            )
        calibrated = (self.expected_distances, self.z_scores, self.p_values, self.sampling_ratios)
        for array in (self.distances, self.distance_ratios, self.kept, *calibrated):
            if array is not None:
                array.setflags(write=False)

    @property
    def n_estimates(self) -> int:
        """Number of estimates, refused ones included."""
        return len(self.kept)

    @property
    def kept_components(self) -> NDArray[np.bool_] | None:
        """Kept components, (n_estimates, n_components), in the order of the result; None with other methods."""
        return None if self.components is None else self.components.kept

    def reason(self, index: int) -> str:
        """Why this estimate, or a part of it, was excluded, in words; empty if it was kept."""
        return "; ".join(str(reason) for reason in self.reasons_for(index))

    def reasons_for(self, index: int) -> list[Reason]:
        """Why this estimate, or a part of it, was excluded: one reason per excluded part; empty if it was kept."""
        if self.components is not None and index not in self.refused:
            return self.components.reasons_for(index)
        if self.kept[index]:
            return []
        given = self.refused.get(index) or self.reasons.get(index)
        return [given or self._by_distance(index)]

    def _by_distance(self, index: int) -> Reason:
        ratio = float(self.distance_ratios[index])
        if not isinstance(self.rho, str) and np.isfinite(self.rho) and ratio > self.rho:
            return OutsideRadius(ratio, self.rho)
        if self.p_values is not None and self.p_values[index] < self.false_exclusion_rate:
            assert self.sampling_ratios is not None
            return TooFar(float(self.sampling_ratios[index]), float(self.p_values[index]))
        return OnlyTheCenter()

    def __repr__(self) -> str:
        rho = self.rho if isinstance(self.rho, str) else f"{self.rho:g}"
        references = (
            ""
            if self.n_references is None
            else f", n_candidates={self.n_candidates}, n_references={self.n_references}"
        )
        return (
            f"FilterDecision(kept {self.kept.sum()} of {self.n_estimates}, "
            f"refused {len(self.refused)}, center={self.center}, "
            f"radius={self.radius:.6g}, rho={rho}{references}"
            f"{'' if self.components is None else f', components={self.components!r}'})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class ComponentDecision:
    """Which components were kept if estimates are filtered component by component.

    The columns are the components of the result, in its order.

    Attributes
    ----------
    kept : ndarray of bool, shape (n_estimates, n_components)
    matching : ndarray of int, shape (n_estimates, n_components)
        Number of the estimate's own component, by decreasing weight, that is matched to the result's; -1 for a
        refused estimate.
    n_rows : ndarray of shape (n_estimates, n_components)
        Rows behind it: those of the estimate times the weight.
    distance_ratios : ndarray of shape (n_estimates, n_components)
        Distance to the center of the component in units of its radius; NaN if there are too few rows to compare.
    radii : ndarray of shape (n_components,)
        In standard errors of a difference between two estimates.
    limits : ndarray of shape (n_components,)
        Radii up to which components are kept.
    centers : ndarray of int, shape (n_components,)
        Index of the estimate whose component is the center.
    least_rows : int
        Rows needed to compare a component: as many as it has parameters.
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

    def reasons_for(self, index: int) -> list[Reason]:
        """Why components of an estimate were excluded, one reason each; empty if none was."""
        return [self._reason(index, int(k)) for k in np.flatnonzero(~self.kept[index])]

    def _reason(self, index: int, k: int) -> Reason:
        ratio = float(self.distance_ratios[index, k])
        if np.isnan(ratio):
            return ComponentTooSmall(k, float(self.n_rows[index, k]), self.least_rows)
        return ComponentTooFar(k, ratio, float(self.limits[k]))

    def __repr__(self) -> str:
        of_usable = self.matching[:, 0] >= 0
        too_few = np.isnan(self.distance_ratios[of_usable]).sum()
        return (
            f"ComponentDecision(kept {self.kept.sum()} of {of_usable.sum() * self.kept.shape[1]}, "
            f"too few rows to judge {too_few})"
        )


class Note(NamedTuple):
    """A warning as a value: warnings that are issued on a worker would be lost."""

    category: type[Warning]
    message: str


class LocalEstimates(list[LocalEstimate]):
    """Local estimates, with the first ones of those partitions that a second look gained.

    Attributes
    ----------
    first : mapping of int to LocalEstimate
        As in :class:`Origin`. An aggregation of the list gives the verdicts of the fit that made it. A part of the
        list, or a copy as a plain list, has no first estimates.
    """

    def __init__(
        self,
        estimates: Iterable[LocalEstimate] = (),
        first: Mapping[int, LocalEstimate] | None = None,
    ) -> None:
        super().__init__(estimates)
        self.first: Mapping[int, LocalEstimate] = dict(first or {})


@dataclass(frozen=True, eq=False)
class Origin:
    """The estimates, options and seed of a result, so that it can be made again without some of the estimates.

    Attributes
    ----------
    estimates : sequence of LocalEstimate or mapping
    options : AggregationOptions
    seed : SeedSequence
    problem : LocalProblem or None
        How estimates were fitted, if that is known.
    family : Family
        That messages are read as.
    removed : frozenset of int
        Indices of the estimates that the caller removed.
    first : mapping of int to LocalEstimate
        The first estimates of partitions that a second look at their rows gained. The decision goes by these with
        ``rho="auto"``, and keeps them; the reduction takes those in ``estimates``.
    cache : dict
        Values that a further aggregation need not compute again; it is never saved.
    """

    estimates: Sequence[LocalEstimate | Mapping[str, Any]]
    options: AggregationOptions
    seed: np.random.SeedSequence
    problem: LocalProblem | None = None
    family: Family = field(default_factory=Gaussian)
    removed: frozenset[int] = frozenset()
    first: Mapping[int, LocalEstimate] = field(default_factory=dict)
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"cache": {}}


@dataclass(frozen=True, eq=False, repr=False)
class AggregationResult:
    """The global mixture, and how it was made.

    Attributes
    ----------
    mixture : Mixture
        Components by decreasing weight.
    decision : FilterDecision
    objective : float
        Composite transportation divergence of the reduction, in nats (0 for ``method="coat"``).
    n_iter : int
        Rounds of the reduction; with ``method="componentwise"`` rounds of matching.
    converged : bool
        Whether no assignment changed in the last round.
    method : str
    notes : tuple of Note
        Warnings, as values.
    unrefined : Mixture or None
        The mixture of the reduction, if ``mixture`` was refined on the rows of the kept sources.
    origin : Origin or None
        The local estimates and options that the mixture was made of, if they were kept.
    """

    mixture: Mixture
    decision: FilterDecision
    objective: float
    n_iter: int
    converged: bool
    method: str = "dfmr"
    notes: tuple[Note, ...] = ()
    unrefined: Mixture | None = None
    origin: Origin | None = None
