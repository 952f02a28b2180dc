"""The penalty on covariances in one fit: its weight, and its target once the first pass over the rows was made.

    -a sum_k { tr(T_k Sigma_k^-1) + log det Sigma_k }

It keeps the likelihood bounded (Chen & Tan 2009). The target T_k is the covariance *within* component k, of the rows as
the start divides them. The covariance of all rows holds the distances between clusters too, and so blows tight clusters
up. The covariances of the start do not count, only how it divides the rows. So a start with wild covariances, or one
that was made for other rows, gives targets in the units of these rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from dask_dfmr import checks
from dask_dfmr.mixtures.family import Components, Family, Moments, Prior, Rows, RowTotals

PENALTY_NAMES = ("auto", "paper")
"""The values of the parameter ``penalty`` that are no number."""


@dataclass(frozen=True)
class Penalty:
    """The penalty of one fit, before its target is known.

    Attributes
    ----------
    family : Family
    weight : float
        The factor a.
    floor : float
        ``reg_covar``.
    is_of_all_rows : bool
        Whether the target is the covariance of all rows, as in the paper, and not that within components.
    all_rows : tuple of ndarray, or None
        :meth:`Family.prior_target` of the rows, if it is known. It has the bits of the paper's penalty; None: from the
        moments of the first pass, up to rounding.
    n_rows, row_totals : int, and tuple of ndarray or None
        The number of rows, and their :meth:`Family.row_totals` for all starts and runs of EM over them.
    """

    family: Family
    weight: float
    floor: float
    is_of_all_rows: bool = False
    all_rows: Components | None = None
    n_rows: int = 0
    row_totals: RowTotals | None = None

    def totals_of(self, X: Rows) -> RowTotals | None:
        """The totals of the rows of the fit; None for a subsample of them, which a clustering may take."""
        return self.row_totals if len(X) == self.n_rows else None

    def open_prior(self) -> Prior | None:
        """The penalty before the first pass, which sets an open target; None if it needs the moments of that pass."""
        if not self.is_of_all_rows:
            return Prior(self.weight, (), self.floor)
        return None if self.all_rows is None else Prior(self.weight, self.all_rows, self.floor)

    def prior(self, moments: Moments, reference: Components) -> Prior:
        """The penalty with its target, from moments of all rows about ``reference``."""
        if not self.is_of_all_rows:
            target = self.family.within_target(moments, reference)
        elif self.all_rows is None:
            target = self.family.total_target(moments, reference)
        else:
            target = self.all_rows
        return Prior(self.weight, target, self.floor)


def weight_of(penalty: float | str, n_samples: int) -> float:
    """The factor a for a number of rows: 1 / n for "auto", n ** -0.5 for "paper", or the number itself."""
    if penalty == "auto":
        return 1.0 / n_samples
    return n_samples**-0.5 if penalty == "paper" else float(penalty)


def check_penalty(name: str, value: float | str) -> None:
    """Raise ValueError unless ``value`` is "auto", "paper" or a finite non-negative number."""
    checks.number(name, value, alternatives=PENALTY_NAMES)
