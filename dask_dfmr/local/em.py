"""Accelerated, monotone EM from one start, from sums over rows that the caller computes.

A local fit computes the sums over the rows of one partition (:mod:`dask_dfmr.local.fit`). A refinement computes them
over the rows of all kept partitions (:mod:`dask_dfmr.refinement.em_passes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_dfmr.local.anderson import Anderson
from dask_dfmr.local.penalty import Penalty
from dask_dfmr.mixtures.family import Array, Components, Family, Moments, Prior

TIGHT = 0.005
"""The tight rule stops when the predicted remaining gain of the total objective is below TIGHT * p / n_sources, with
p free parameters. All local fits start at the same point, so their remaining errors have a common direction and do not
average out over the sources."""

PASSES_NEAR = 3
"""Consecutive passes for which the predicted gain must be small, because one prediction rests on few steps."""

MEMORY = 8
"""Passes over which the smallest curvature counts."""

PLAIN_STEPS = 2
"""Plain EM steps before the first extrapolation, because the EM map is not nearly linear far from the optimum."""

NOISE = 1e-13
"""Relative rounding of a log-likelihood that is a sum over rows; smaller differences mean nothing."""

Point = tuple[Array, Components]
"""Weights and components of one mixture."""


class ComponentCollapsedError(ValueError):
    """A component shrank onto too few rows; possible only without a penalty."""


@dataclass(frozen=True)
class EmResult:
    """The end of one EM run.

    Attributes
    ----------
    weights, components : ndarray, tuple of ndarray
        Parameters after the last M step.
    objective, log_likelihood : float
        Sums over all rows in nats, with and without the penalty, at the point before the last M step.
    n_iter : int
        Passes over the rows.
    converged : bool
        Whether the stopping rule was met.
    n_outside : int, default 0
        Rows beyond the cuts of all components in the last pass.
    """

    weights: Array
    components: Components
    objective: float
    log_likelihood: float
    n_iter: int
    converged: bool
    n_outside: int = 0


class RemainingGain:
    """Stop when the predicted gain to the optimum, in nats, is below a threshold for several consecutive passes."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._near = 0

    def __call__(self, gain: float, remaining: float) -> bool:
        self._near = self._near + 1 if max(gain, remaining) < self.threshold else 0
        return self._near >= PASSES_NEAR


class MeanChange:
    """Stop when the objective changes by less than a threshold in nats, as scikit-learn does."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, gain: float, remaining: float) -> bool:
        return abs(gain) < self.threshold


class Ascent:
    """One EM run that the caller advances pass by pass.

    The caller computes log-likelihood and moments of all rows at ``point`` and passes them to :meth:`take`, until
    ``converged`` is true or it stops for another reason.

    Parameters
    ----------
    family : Family
    start : (weights, components)
    penalty : Penalty
        Its target is fixed by the moments of the first pass.
    n_samples : int
        Number of all rows.
    has_converged : RemainingGain or MeanChange
        The stopping rule.
    accelerate : bool, default True
        False is plain EM.

    Attributes
    ----------
    point : (weights, components)
        The mixture at which the next pass is to be made.
    mapped : (weights, components)
        The plain EM step from the last accepted point. It is the result so far, at least as good as that point.
    objective, log_likelihood : float
        Sums over all rows in nats, with and without the penalty, at the last accepted point.
    converged : bool
        Whether the stopping rule was met.
    n_iter : int
        Passes so far, those at rejected points included.
    """

    def __init__(
        self,
        family: Family,
        start: Point,
        penalty: Penalty,
        n_samples: int,
        has_converged: RemainingGain | MeanChange,
        accelerate: bool = True,
    ) -> None:
        self.family = family
        self.penalty = penalty
        self.prior: Prior | None = None
        self.n_samples = n_samples
        self.accelerate = accelerate
        self.point, self.mapped = start, start
        self.objective = self.log_likelihood = -np.inf
        self.converged = False
        self.n_iter = 0
        self._has_converged = has_converged
        self._trajectory = _Trajectory(family, n_samples)

    def accepts(self, log_likelihood: float) -> bool:
        """Whether the objective at ``point`` did not fall; it may fall after an extrapolation."""
        return self.prior is None or self._is_no_fall(
            self._objective_at_point(log_likelihood, self.prior)
        )

    def take(self, log_likelihood: float, moments: Moments) -> float:
        """Advance by one pass.

        Parameters
        ----------
        log_likelihood : float
            Sum of the log-densities of all rows at ``point``, in nats.
        moments : tuple of ndarray
            Moments of all rows about the components of ``point``.

        Returns
        -------
        float
            Gain of the objective in nats; 0 if the point was rejected.

        Raises
        ------
        ComponentCollapsedError
            If the M step gives no proper components.
        """
        self.n_iter += 1
        if self.prior is None:
            self.prior = self.penalty.prior(moments, self.point[1])
        at_point = self._objective_at_point(log_likelihood, self.prior)
        if not self._is_no_fall(at_point):
            self._trajectory.restart()
            # The objective cannot fall in the plain step from the last accepted point.
            self.point = self.mapped
            return 0.0
        gain = at_point - self.objective
        self.objective, self.log_likelihood = at_point, log_likelihood
        self.mapped = self._m_step(moments, self.prior)
        extrapolated, remaining = self._trajectory.look_ahead(self.point, self.mapped)
        # A gain below the rounding of the sum cannot be told from none.
        is_rounding = abs(gain) <= NOISE * abs(self.objective)
        self.converged = self._has_converged(gain, remaining) or is_rounding
        self.point = extrapolated if self.accelerate else self.mapped
        return gain

    def _objective_at_point(self, log_likelihood: float, prior: Prior) -> float:
        return log_likelihood + self.family.log_prior(self.point[1], prior)

    def _is_no_fall(self, at_point: float) -> bool:
        return not self.accelerate or at_point >= self.objective - NOISE * abs(self.objective)

    def result(self) -> EmResult:
        """The plain step from the last accepted point, and how the run ended."""
        return EmResult(
            *self.mapped, self.objective, self.log_likelihood, self.n_iter, self.converged
        )

    def _m_step(self, moments: Moments, prior: Prior) -> Point:
        components = self.family.from_moments(moments, self.point[1], prior)
        if not self.family.is_proper(components):
            cure = (
                "reg_covar > 0 or more rows" if prior.weight else "penalty='auto' or reg_covar > 0"
            )
            raise ComponentCollapsedError(
                f"a component collapsed onto too few rows after {self.n_iter} passes; use fewer components, {cure}"
            )
        return moments[0] / self.n_samples, components


class _Trajectory:
    """The recent accepted points of one EM run, extrapolated to the optimum, with the predicted gain."""

    def __init__(self, family: Family, n_samples: int) -> None:
        self.family = family
        self.n_samples = n_samples
        self.steps = Anderson()
        self.curvatures: list[float] = []
        self.wait = PLAIN_STEPS
        self.origin: Point | None = None

    def restart(self) -> None:
        """Discard the steps behind a rejected extrapolation; the next step is a plain one."""
        self.steps.clear()
        self.origin = None
        self.wait = 1

    def look_ahead(self, point: Point, mapped: Point) -> tuple[Point, float]:
        """The next point, and the predicted gain from ``point`` to the optimum in nats (inf if it is unknown)."""
        if self.wait > 0:
            self.wait -= 1
            return mapped, np.inf
        if self.origin is None:
            self.origin = point
        x = self.family.coordinates(*point, self.origin)
        g = self.family.coordinates(*mapped, self.origin)
        self.steps.record(x, g)
        target, residual = self.steps.target(), g - x
        towards = float(residual @ (target - x))
        curvature = self.steps.slowest_curvature()
        is_concave = towards > 0
        if not is_concave:
            # The iteration leaves a saddle, and the extrapolation points back to it: follow the ascent instead.
            target = g + 2.0 * residual
        extrapolated = self.family.from_coordinates(target, self.origin)
        if extrapolated is None:
            self.restart()
            return mapped, np.inf
        if not is_concave or curvature is None or curvature <= 0:
            return extrapolated, np.inf
        # In these coordinates the gain to the fixed point x* is n / 2 (g - x) . (x* - x), and the extrapolation
        # approximates x*. Fast directions may hide slow ones, so the smallest recent curvature bounds the gain as well.
        self.curvatures = [*self.curvatures, curvature][-MEMORY:]
        gain = max(towards, float(residual @ residual) / min(self.curvatures))
        return extrapolated, 0.5 * self.n_samples * gain
