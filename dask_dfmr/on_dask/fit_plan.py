"""What a fit is to do, and what it has found: the two values that every pass over the data takes.

A pass is a function ``(plan, fit) -> fit``. :mod:`dask_dfmr.on_dask.fit` runs them in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.reasons import Reason
from dask_dfmr.aggregation.result import AggregationResult, Note
from dask_dfmr.explanation.report import partition_report
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.distances import BLOCK_SIZE
from dask_dfmr.mixtures.family import Array
from dask_dfmr.on_dask.partitions import Partitions
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY
from dask_dfmr.on_dask.scheduling.scheduler import Scheduler
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.on_dask.unread import describe_unread
from dask_dfmr.refinement.em_passes import PassRecord, Refinement, RefinementOptions

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FitPlan:
    """A fit with all decisions taken and nothing computed.

    Attributes
    ----------
    partitions : Partitions
        The data.
    settings : FitSettings
        What all local fits share.
    options : AggregationOptions
    scheduler : Scheduler
        It computes the fit; a lazy fit does not use it.
    split_every : int
        How many results one task of a tree combines.
    block_size : int
        How many estimates one task of the aggregation takes.
    keep_estimates : "auto" or bool
        Whether the local estimates are kept: "auto" in memory if they are small, else in files.
    check_optimum : int, "auto" or None
        How often a better optimum may be adopted; None: it is not looked for.
    refit_excluded : bool
        Whether excluded partitions are fitted once more from the global mixture.
    refinement : RefinementOptions
        How many EM passes over the rows of kept partitions follow.
    """

    partitions: Partitions
    settings: FitSettings
    options: AggregationOptions
    scheduler: Scheduler
    split_every: int = SPLIT_EVERY
    block_size: int = BLOCK_SIZE
    keep_estimates: bool | str = "auto"
    check_optimum: int | str | None = "auto"
    refit_excluded: bool = True
    refinement: RefinementOptions = field(default_factory=lambda: RefinementOptions(0))

    @property
    def estimate_bytes(self) -> int:
        """Memory that all local estimates take, in bytes, about."""
        problem, n_features = self.settings.problem, self.partitions.n_features or 0
        n_parameters = problem.family.n_parameters(problem.n_components, n_features)
        return 8 * n_parameters * len(self.partitions)


@dataclass(frozen=True)
class Fit:
    """What the passes so far have found.

    Attributes
    ----------
    aggregate : AggregationResult
        The global mixture and the filter's decision; after a refinement with the refined mixture.
    rows : list of dict
        The report's rows, one per partition.
    estimates : sequence of LocalEstimate or None
        The local estimates in the order of the partitions; None if they were not kept.
    first : mapping of int to LocalEstimate
        The first estimates of partitions that a second look gained: the decision of the filter is about these.
    kept : ndarray of bool, shape (n_partitions,)
        Partitions whose rows are in the mixture.
    row_sample : mapping of int to ndarray
        Some rows (n_rows, n_features) of each partition that was fitted, about 16,000 in all. They give the laws of
        later passes.
    reasons : mapping of int to Reason
        What later passes add to the report's reason of a partition.
    refinement : Refinement or None
    notes : tuple of Note
        Warnings of passes, besides those of the aggregate.
    n_optimum_changes : int
        How often a better optimum was adopted.
    unread : str
        Which partitions of X no source could read, in words; empty if there are none.
    """

    aggregate: AggregationResult
    rows: list[dict[str, Any]]
    estimates: Sequence[LocalEstimate] | None
    kept: NDArray[Any]
    first: Mapping[int, LocalEstimate] = field(default_factory=dict)
    row_sample: Mapping[int, Array] = field(default_factory=dict)
    reasons: Mapping[int, Reason] = field(default_factory=dict)
    refinement: Refinement | None = None
    notes: tuple[Note, ...] = ()
    n_optimum_changes: int = 0
    unread: str = ""

    @classmethod
    def of(
        cls,
        aggregate: AggregationResult,
        rows: list[dict[str, Any]],
        estimates: Sequence[LocalEstimate] | None,
        row_sample: Mapping[int, Array] | None = None,
    ) -> Fit:
        """A fit whose mixture holds the partitions that the filter kept."""
        return cls(
            aggregate,
            rows,
            estimates,
            aggregate.decision.kept,
            row_sample=row_sample or {},
            unread=describe_unread(rows),
        )

    @property
    def unrefined(self) -> AggregationResult:
        """The aggregate as it was before the refinement, if there was one."""
        mixture = self.aggregate.unrefined
        if mixture is None:
            return self.aggregate
        return replace(self.aggregate, mixture=mixture, unrefined=None)

    @property
    def report(self) -> pd.DataFrame:
        """One row per partition, with the outcome of all passes."""
        report = partition_report(self.rows, self.aggregate.decision)
        if self.kept is not self.aggregate.decision.kept:
            report["kept"] = self.kept
        if self.reasons:
            reasons = report["reason"].tolist()
            for i, reason in self.reasons.items():
                reasons[i] = f"{reasons[i]}; {reason}" if reasons[i] else str(reason)
            report["reason"] = reasons
        return report

    @property
    def passes(self) -> pd.DataFrame:
        """One row per pass of the refinement over the data; empty without refinement."""
        return _no_passes().copy() if self.refinement is None else _table_of(self.refinement.passes)


def _table_of(records: Sequence[PassRecord]) -> pd.DataFrame:
    import pandas as pd

    names = ["pass" if name == "number" else name for name in PassRecord._fields]
    return pd.DataFrame(records, columns=names)


@cache
def _no_passes() -> pd.DataFrame:
    """The table of no records. To make it takes .3 ms, a hundredth of a fit of 1,000 rows, and to copy it .01."""
    return _table_of(())
