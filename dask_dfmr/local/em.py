"""Accelerated, monotone EM from one start, wherever the sums over rows come from. Knows no rows.

A local fit evaluates every point on the rows of its partition (:mod:`dask_dfmr.local.fit`), a refinement on
those of all kept partitions (:mod:`dask_dfmr.refinement.em_passes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_dfmr.local.anderson import Anderson
from dask_dfmr.mixtures.family import Array, Components, Family, Moments, Prior

TIGHT = 0.005
"""The tight rule stops when the remaining gain of the total objective is below TIGHT * p / n_sources: every
machine starts at the same point, so what each stops short of leans the same way and does not average out."""

PASSES_NEAR = 3
"""So many passes running the gain must be predicted to be small: one prediction rests on few steps."""

MEMORY = 8
"""For so many passes the slowest direction seen is remembered."""

PLAIN_STEPS = 2
"""Plain EM steps before the first extrapolation: far from the optimum the map is not nearly linear."""

NOISE = 1e-13
"""Relative rounding of a log-likelihood summed over rows: differences below it mean nothing."""

Point = tuple[Array, Components]
"""Weights and components of one mixture."""


class ComponentCollapsedError(ValueError):
    """A component shrank onto too few rows: only possible without a penalty."""


@dataclass(frozen=True)
class EmResult:
    """Where EM ended: parameters after the last M step; objective and log-likelihood at the point before it."""

    weights: Array
    components: Components
    objective: float
    log_likelihood: float
    n_iter: int
    converged: bool


class RemainingGain:
    """Stop when the predicted gain to the optimum is below a threshold for several passes running."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._near = 0

    def __call__(self, gain: float, remaining: float) -> bool:
        self._near = self._near + 1 if max(gain, remaining) < self.threshold else 0
        return self._near >= PASSES_NEAR


class MeanChange:
    """Stop when the objective changes by less than a threshold: scikit-learn's rule."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, gain: float, remaining: float) -> bool:
        return abs(gain) < self.threshold


class Ascent:
    """One run of EM, pass by pass: make a pass at ``point``, give what it found to :meth:`take`, and so on.

    Attributes
    ----------
    point : (weights, components)
        Where the next pass has to be made.
    mapped : (weights, components)
        The plain EM step from the last point that was accepted: the result so far, at least as good as it.
    objective, log_likelihood : float
        At the last point that was accepted, with and without the penalty.
    converged : bool
        Whether the rule says so.
    """

    def __init__(
        self,
        family: Family,
        start: Point,
        prior: Prior,
        n_samples: int,
        has_converged: RemainingGain | MeanChange,
        accelerate: bool = True,
    ) -> None:
        self.family = family
        self.prior = prior
        self.n_samples = n_samples
        self.accelerate = accelerate
        self.point, self.mapped = start, start
        self.objective = self.log_likelihood = -np.inf
        self.converged = False
        self.n_iter = 0
        self._has_converged = has_converged
        self._trajectory = _Trajectory(family, n_samples)

    def accepts(self, log_likelihood: float) -> bool:
        """Whether the objective did not fall, as after an extrapolation it may."""
        return self._is_no_fall(self._objective_at_point(log_likelihood))

    def take(self, log_likelihood: float, moments: Moments) -> float:
        """Go on from the total log-likelihood and moments of all rows at ``point``; the gain (0 if it was rejected).

        Raises
        ------
        ComponentCollapsedError
            If the M step gives no proper components.
        """
        self.n_iter += 1
        at_point = self._objective_at_point(log_likelihood)
        if not self._is_no_fall(at_point):
            self._trajectory.restart()
            # The plain step from the last accepted point, which cannot fall.
            self.point = self.mapped
            return 0.0
        gain = at_point - self.objective
        self.objective, self.log_likelihood = at_point, log_likelihood
        self.mapped = self._m_step(moments)
        extrapolated, remaining = self._trajectory.look_ahead(self.point, self.mapped)
        # Below the rounding of the sum there is nothing left to gain that could be seen.
        is_rounding = abs(gain) <= NOISE * abs(self.objective)
        self.converged = self._has_converged(gain, remaining) or is_rounding
        self.point = extrapolated if self.accelerate else self.mapped
        return gain

    def _objective_at_point(self, log_likelihood: float) -> float:
        return log_likelihood + self.family.log_prior(self.point[1], self.prior)

    def _is_no_fall(self, at_point: float) -> bool:
        return not self.accelerate or at_point >= self.objective - NOISE * abs(self.objective)

    def result(self) -> EmResult:
        """Where it stands."""
        return EmResult(
            *self.mapped, self.objective, self.log_likelihood, self.n_iter, self.converged
        )

    def _m_step(self, moments: Moments) -> Point:
        components = self.family.from_moments(moments, self.point[1], self.prior)
        if not self.family.is_proper(components):
            cure = (
                "reg_covar > 0 or more rows"
                if self.prior.weight
                else "penalty='auto' or reg_covar > 0"
            )
            raise ComponentCollapsedError(
                f"a component collapsed onto too few rows after {self.n_iter} passes; use fewer components, {cure}"
            )
        return moments[0] / self.n_samples, components


class _Trajectory:
    """The recent accepted points of one EM run: where they lead to, and how far that still is."""

    def __init__(self, family: Family, n_samples: int) -> None:
        self.family = family
        self.n_samples = n_samples
        self.steps = Anderson()
        self.curvatures: list[float] = []
        self.wait = PLAIN_STEPS
        self.origin: Point | None = None

    def restart(self) -> None:
        """An extrapolation made things worse: forget the steps behind it, after a plain one."""
        self.steps.clear()
        self.origin = None
        self.wait = 1

    def look_ahead(self, point: Point, mapped: Point) -> tuple[Point, float]:
        """The point to go to, and the predicted gain from ``point`` to the optimum (inf while that is unknown)."""
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
            # Leaving a saddle the extrapolation points back to it; go on along the ascent instead.
            target = g + 2.0 * residual
        extrapolated = self.family.from_coordinates(target, self.origin)
        if extrapolated is None:
            self.restart()
            return mapped, np.inf
        if not is_concave or curvature is None or curvature <= 0:
            return extrapolated, np.inf
        # In these coordinates the gain to the fixed point x* is n / 2 (g - x) . (x* - x). The extrapolation stands for
        # x*; but slow directions may hide behind fast ones, so the slowest one seen lately counts for all.
        self.curvatures = [*self.curvatures, curvature][-MEMORY:]
        gain = max(towards, float(residual @ residual) / min(self.curvatures))
        return extrapolated, 0.5 * self.n_samples * gain
