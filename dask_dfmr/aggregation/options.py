"""What a caller can choose about an aggregation, and how often it excludes by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from dask_dfmr import checks
from dask_dfmr.aggregation.reduction import MAX_ROUNDS
from dask_dfmr.aggregation.references import ALL_PAIRS_UP_TO, N_REFERENCES

Method = Literal["dfmr", "mr", "coat", "hardened", "componentwise"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Values of ``method``."""

CALIBRATED_METHODS = ("dfmr", "hardened", "componentwise")
"""Methods for which ``rho="auto"`` has an effect."""

PAPER_RHO = 1.3
"""Number of radii in the paper. Estimates within it of the center form the consensus."""

FALSE_EXCLUSION_RATE = 1e-3
"""Default share of consistent estimates that are excluded by chance."""

MACHINE_WEIGHTS = ("rows", "equal")
"""Values of ``machine_weights``."""


@dataclass(frozen=True)
class AggregationOptions:
    """Options of an aggregation; the parameters of :func:`dask_dfmr.aggregate` explain them.

    Raises
    ------
    ValueError, TypeError
        If an option has no allowed value, or two options contradict each other.
    """

    method: str = "dfmr"
    rho: float | str = "auto"
    machine_weights: str = "rows"
    n_starts: int = 1
    max_rounds: int = MAX_ROUNDS
    n_references: int | str | None = "auto"
    false_exclusion_rate: float = FALSE_EXCLUSION_RATE

    def __post_init__(self) -> None:
        checks.one_of("method", self.method, METHODS)
        checks.one_of("machine_weights", self.machine_weights, MACHINE_WEIGHTS)
        checks.integer("n_starts", self.n_starts, 1)
        checks.integer("max_rounds", self.max_rounds, 1)
        self._check_rho()
        self._check_references()
        checks.number("false_exclusion_rate", self.false_exclusion_rate)
        if not 0 < self.false_exclusion_rate < 0.5:
            raise ValueError(
                f"false_exclusion_rate must be a probability below 0.5, like 0.001; got {self.false_exclusion_rate!r}."
            )

    def _check_rho(self) -> None:
        is_number = isinstance(self.rho, (int, float, np.number)) and not isinstance(self.rho, bool)
        if self.rho != "auto" and not (is_number and float(self.rho) >= 1):
            raise ValueError(
                "rho must be 'auto' or a number of at least 1 (1.3 is the paper's, inf keeps all); "
                f"got {self.rho!r}."
            )

    def _check_references(self) -> None:
        if self.n_references not in (None, "auto"):
            checks.integer("n_references", self.n_references, 1, alternative="None, 'auto' or ")
            if self.method == "hardened":
                raise ValueError(
                    "n_references must be 'auto' or None with method='hardened', which compares all estimates with "
                    f"each other; got {self.n_references!r}."
                )

    @property
    def effective_rho(self) -> float:
        """Radii within which an estimate counts as near; infinite for plain mixture reduction."""
        if self.method == "mr":
            return float("inf")
        return PAPER_RHO if isinstance(self.rho, str) else float(self.rho)

    @property
    def is_calibrated(self) -> bool:
        """Whether p-values under the null law decide which estimates are kept."""
        return self.rho == "auto" and self.method in CALIBRATED_METHODS

    def references_among(self, n_estimates: int) -> int | None:
        """Number of references that ``n_estimates`` estimates are measured against; None for all pairs.

        It depends on the number of estimates, not on how many of them are usable: the graph is built before that is
        known.

        Raises
        ------
        ValueError
            If ``method="hardened"`` would compare more estimates than fit one task.
        """
        if self.n_references is None:
            return None
        if self.method == "hardened" and n_estimates > ALL_PAIRS_UP_TO:
            raise ValueError(
                f"method='hardened' compares up to {ALL_PAIRS_UP_TO} estimates with each other in one task; got "
                f"{n_estimates}. Use larger partitions or method='dfmr', or n_references=None to do it all the same."
            )
        if isinstance(self.n_references, str):
            return N_REFERENCES if n_estimates > ALL_PAIRS_UP_TO else None
        return int(self.n_references) if n_estimates > self.n_references else None
