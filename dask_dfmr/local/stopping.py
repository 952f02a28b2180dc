"""When an EM run stops: near the optimum, or where the rows do not determine the rest of the way.

Near a regular optimum the objective is concave, and the gain that it still offers can be predicted. With more
components than the population has, it is neither: one component is split in two, another follows a handful of rows.
Passes along such a ridge fit the noise of these rows. Estimates of other rows go elsewhere, so that nothing of it is
left when they are combined.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TIGHT = 0.005
"""The tight rule stops when the predicted remaining gain of the total objective is below TIGHT * p / n_sources, with
p free parameters. All local fits start at the same point, so their remaining errors have a common direction and do not
average out over the sources."""

PASSES_NEAR = 3
"""Consecutive passes for which the predicted gain must be small, because one prediction rests on few steps."""

SHORT_STEP = 0.004
"""A step is short if its squared length, times the rows, is below SHORT_STEP * p. At the true parameters its mean is at
most p. Measured with one component too many in ten columns, 40 x 50,000 rows (and with five): with .01 a fit makes 10
(17) passes and loses 1.4e-4 (2.6e-4) nats per row, because all estimates stay near the noise of the shared start; with
.004 it makes 19 (23) and loses 2e-6 (1.5e-4), with .002 22 passes for no less."""

MOST_CROWDED = 120
"""Components with fewer rows per parameter may follow the noise of their rows. Measured over 20,000 rows and more,
where the objective was not concave and steps were short: 1 to 110 rows per parameter where a component was too many,
and 165 to 300 where a wrong covariance structure led past a saddle, with up to 136 nats left to gain."""

PASSES_FLAT = 3
"""Passes that must show no concave objective; each one that does takes back one of them. Concavity is seen along few
steps, and one long step may hide it."""

LEAST_ROWS_OF_A_RIDGE = 10_000
"""A run over fewer rows ends near an optimum. There all components have few rows per parameter, one nat is much per
row, and passes cost little."""


class Outlook(NamedTuple):
    """What a pass says of those to come; nothing by default.

    Attributes
    ----------
    remaining : float
        Predicted gain to the optimum, in nats; inf if it is unknown.
    is_concave : bool or None
        Whether the objective is concave along the recent steps; None if they are too few.
    step : float
        Squared length of the EM step times the number of rows, in coordinates in which the complete-data information
        of a row is the identity. Of use where the objective is not concave, like ``rows_per_parameter``.
    rows_per_parameter : float
        Rows per parameter of the components that the step moves: the harmonic mean, each component weighted by its
        share of the squared step.
    """

    remaining: float = np.inf
    is_concave: bool | None = None
    step: float = np.inf
    rows_per_parameter: float = np.inf


class RemainingGain:
    """Stop when the predicted gain to the optimum, in nats, is below a threshold for several consecutive passes.

    Also stop on a ridge, if ``short_step`` is positive: where several passes show no concave objective, and steps below
    ``short_step`` that move components of few rows per parameter.
    """

    def __init__(self, threshold: float, short_step: float = 0.0) -> None:
        self.threshold = threshold
        self.short_step = short_step
        self._near = self._flat = 0

    @classmethod
    def tight(cls, n_parameters: int, n_sources: int, n_samples: int) -> RemainingGain:
        """The rule of ``tol="auto"``, for a fit to the rows of one of ``n_sources`` sources."""
        may_be_flat = n_samples >= LEAST_ROWS_OF_A_RIDGE
        short = SHORT_STEP * n_parameters if may_be_flat else 0.0
        return cls(TIGHT * n_parameters / n_sources, short)

    def __call__(self, gain: float, outlook: Outlook) -> bool:
        self._near = self._near + 1 if max(gain, outlook.remaining) < self.threshold else 0
        if outlook.is_concave:
            self._flat = max(self._flat - 1, 0)
        elif outlook.step < self.short_step and outlook.rows_per_parameter < MOST_CROWDED:
            self._flat += 1
        return self._near >= PASSES_NEAR or self._flat >= PASSES_FLAT


class MeanChange:
    """Stop when the objective changes by less than a threshold in nats, as scikit-learn does."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, gain: float, outlook: Outlook) -> bool:
        return abs(gain) < self.threshold
