"""Accelerated, safeguarded EM from one start, from sums over rows that the caller computes.

Maximum likelihood has an objective, and no accepted pass lowers it (:class:`_Climb`). A family that truncates solves
estimating equations, which have none (:class:`_Walk`). In coordinates in which the complete-data information is the
identity, the EM step is the mean estimating function of a row. Its line integral takes the place of the objective: for
maximum likelihood both are the same near the optimum.

A local fit computes the sums over the rows of one partition (:mod:`dask_dfmr.local.fit`). A refinement computes them
over the rows of all kept partitions (:mod:`dask_dfmr.refinement.em_passes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dask_dfmr.local.anderson import Anderson
from dask_dfmr.local.penalty import Penalty
from dask_dfmr.local.stopping import MeanChange, Outlook, RemainingGain
from dask_dfmr.mixtures.family import (
    LEAST_MASS,
    NOISE,
    Array,
    Components,
    Family,
    Moments,
    Prior,
    Rows,
    StepRule,
    em_step,
    is_rounding,
)

MEMORY = 8
"""Passes over which the smallest curvature counts."""

PLAIN_STEPS = 2
"""Plain EM steps before the first extrapolation, because the EM map is not nearly linear far from the optimum."""

POINTS_OF_TWO_VISITS = 4
"""Points whose coordinates are kept: those of the last two visits, and of their EM steps."""

ROWS_OF_A_CALL = 200_000
"""Plain steps that nothing interrupts take so many rows in all: within a tenth of a second a deadline is looked at."""

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
    log_prior : float, default 0
        What the penalty adds to the log-likelihood at the parameters, in nats, if the family truncates. Then it has no
        objective.
    n_outside, n_outside_start : int, default 0
        Rows beyond the cuts of all components in the last pass, and in the first. Steps with totals of the rows count
        none.
    """

    weights: Array
    components: Components
    objective: float
    log_likelihood: float
    n_iter: int
    converged: bool
    log_prior: float = 0.0
    n_outside: int = 0
    n_outside_start: int = 0


class _Visit(NamedTuple):
    """What one pass found at a mixture: its objective, and the plain EM step from there (None: it is improper)."""

    point: Point
    objective: float
    mapped: Point | None


class _Climb:
    """Judges passes by the penalised log-likelihood, which no accepted pass lowers."""

    def __init__(self, n_terms: int) -> None:
        self.n_terms = n_terms
        self.objective = -np.inf

    def accepts(self, visit: _Visit) -> bool:
        """Whether the objective did not fall; it may fall after an extrapolation."""
        return visit.objective >= self.objective - NOISE * abs(self.objective)

    def gain(self, visit: _Visit) -> float:
        """Gain of the objective in nats since the last accepted visit, which this one becomes."""
        gain, self.objective = visit.objective - self.objective, visit.objective
        return gain

    def is_rounding(self, gain: float) -> bool:
        """Whether a gain cannot be told from none."""
        return is_rounding(gain, self.objective, self.n_terms)


class _Walk:
    """Judges passes by their EM steps: n times their line integral is the gain of the objective, if there is one.

    The trapezoid of the two ends is exact where the step is linear in the point. An extrapolated point is accepted if
    the integral up to it is not negative and its step is no longer than the last one, apart from what one row that
    crosses a cut changes.
    """

    def __init__(self, trajectory: _Trajectory) -> None:
        self._trajectory = trajectory
        self._last: _Visit | None = None

    def accepts(self, visit: _Visit) -> bool:
        """Whether the point is no worse than the last accepted one, or the plain step from there."""
        last = self._last
        if last is None or last.mapped is visit.point:
            return True
        if visit.mapped is None:
            return False
        step, before, move = self._steps(visit, last)
        crossing = self._trajectory.crossing(visit.point)
        is_short = step @ step <= before @ before + crossing
        return bool(is_short and (step + before) @ move >= -crossing)

    def gain(self, visit: _Visit) -> float:
        """The line integral in nats since the last accepted visit, which this one becomes."""
        last, self._last = self._last, visit
        if last is None:
            return np.inf
        step, before, move = self._steps(visit, last)
        return 0.5 * self._trajectory.n_samples * float((step + before) @ move)

    def is_rounding(self, gain: float) -> bool:
        """Whether a gain cannot be told from none."""
        return abs(gain) <= NOISE * self._trajectory.n_samples

    def _steps(self, visit: _Visit, last: _Visit) -> tuple[Array, Array, Array]:
        """The EM steps at a visit and at the last one, and the move between them, in coordinates."""
        x, g = self._trajectory.locate(visit)
        x0, g0 = self._trajectory.locate(last)
        return g - x, g0 - x0, x - x0


class Ascent:
    """One EM run that the caller advances pass by pass, until ``converged`` is true or it stops for another reason.

    With all rows at hand, :meth:`advance` makes the next passes. Otherwise the caller computes log-likelihood and
    moments of all rows at ``point`` and passes them to :meth:`take`.

    Parameters
    ----------
    family : Family
        If it truncates, moments are those of the rows inside its cuts, and passes are judged by their EM steps.
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
        Sums over all rows in nats, with and without the penalty, at the last accepted point. Rows that were cut off
        count in them, so that they judge nothing if the family truncates.
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
        # A plain run with a rule that asks for no prediction needs none: it would cost as much as a pass over few rows.
        self._looks_ahead = accelerate or isinstance(has_converged, RemainingGain)
        self._trajectory = _Trajectory(family, n_samples)
        n_terms = n_samples * family.n_features(start[1])
        self._judge = _Walk(self._trajectory) if family.cut.truncates else _Climb(n_terms)

    def accepts(self, log_likelihood: float, moments: Moments) -> bool:
        """Whether ``point`` is no worse than the last accepted one; it may be after an extrapolation."""
        if self.prior is None or not self.accelerate:
            return True
        return self._judge.accepts(self._visit(log_likelihood, moments, self.prior))

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
            Gain of the objective in nats, or of what takes its place; 0 if the point was rejected.

        Raises
        ------
        ComponentCollapsedError
            If the M step gives no proper components.
        """
        self.n_iter += 1
        if self.prior is None:
            self._check_mass(moments)
            self.prior = self.penalty.prior(moments, self.point[1])
        visit = self._visit(log_likelihood, moments, self.prior)
        if visit.mapped is None and not self._rejects(visit):
            self._check_mass(moments)
            raise self._collapsed(self.prior)
        return self._go_on(visit, log_likelihood)

    def advance(self, X: Rows, n_most: int) -> tuple[int, int]:
        """Make a pass over all rows, or up to ``n_most`` if nothing has to be decided between them.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        n_most : int

        Returns
        -------
        n_outside_first, n_outside : int
            Rows beyond the cuts of all components in the first and in the last of these passes.

        Raises
        ------
        ComponentCollapsedError
            If an M step gives no proper components.
        """
        prior = self.penalty.open_prior() if self.prior is None else self.prior
        totals = self.penalty.totals_of(X)
        steps = prior and self.family.em_steps(X, *self.point, prior, self._rule(n_most), totals)
        if not steps or not steps.n_steps:
            # A penalty that needs the moments of the first pass, or a step without a result, which take() explains.
            sums = self.family.em_pass(X, *self.point)
            self.take(sums.log_likelihood, sums.moments)
            return sums.n_outside, sums.n_outside
        self.n_iter += steps.n_steps
        self.prior = steps.prior
        mapped = steps.weights, steps.components
        if self._is_plain:
            self.objective, self.log_likelihood = steps.objective, steps.log_likelihood
            self.point = self.mapped = mapped
            self.converged = steps.has_stopped
        else:
            self._go_on(_Visit(self.point, steps.objective, mapped), steps.log_likelihood)
        return steps.n_outside_first, steps.n_outside

    @property
    def _is_plain(self) -> bool:
        """Whether the objective alone says when the run stops, so that several steps can be made at once."""
        return not self._looks_ahead and not self.family.cut.truncates

    def _rule(self, n_most: int) -> StepRule:
        if not self._is_plain:
            return StepRule()
        assert isinstance(self._has_converged, MeanChange)
        n_at_once = max(1, ROWS_OF_A_CALL // max(self.n_samples, 1))
        return StepRule(min(n_most, n_at_once), self.objective, self._has_converged.threshold)

    def _rejects(self, visit: _Visit) -> bool:
        return self.accelerate and not self._judge.accepts(visit)

    def _go_on(self, visit: _Visit, log_likelihood: float) -> float:
        """Choose the next point; returns the gain, 0 if the visited point was rejected."""
        if self._rejects(visit):
            self._trajectory.restart()
            # Nothing gets worse in the plain step from the last accepted point.
            self.point = self.mapped
            return 0.0
        assert visit.mapped is not None
        gain = self._judge.gain(visit)
        self.objective, self.log_likelihood = visit.objective, log_likelihood
        self.mapped = visit.mapped
        extrapolated, outlook = self.mapped, Outlook()
        if self._looks_ahead:
            extrapolated, outlook = self._trajectory.look_ahead(visit)
        self.converged = self._has_converged(gain, outlook) or self._judge.is_rounding(gain)
        self.point = extrapolated if self.accelerate else self.mapped
        return gain

    def _visit(self, log_likelihood: float, moments: Moments, prior: Prior) -> _Visit:
        components = self.point[1]
        objective = log_likelihood + self.family.log_prior(components, prior)
        mapped = em_step(self.family, moments, components, prior, self.n_samples)
        return _Visit(self.point, objective, mapped)

    def _check_mass(self, moments: Moments) -> None:
        if moments[0].sum() <= LEAST_MASS:
            raise ComponentCollapsedError(
                f"all rows lie beyond the cuts of all components after {self.n_iter} passes; use another start, or "
                "row_outliers=None"
            )

    def _collapsed(self, prior: Prior) -> ComponentCollapsedError:
        cure = "reg_covar > 0 or more rows" if prior.weight else "penalty='auto' or reg_covar > 0"
        return ComponentCollapsedError(
            f"a component collapsed onto too few rows after {self.n_iter} passes; use fewer components, {cure}"
        )

    def result(self, n_outside: int = 0, n_outside_start: int = 0) -> EmResult:
        """The plain step from the last accepted point, and how the run ended."""
        prior = 0.0
        if self.family.cut.truncates and self.prior is not None:
            prior = self.family.log_prior(self.mapped[1], self.prior)
        sums = (self.objective, self.log_likelihood)
        outside = n_outside, n_outside_start
        return EmResult(*self.mapped, *sums, self.n_iter, self.converged, prior, *outside)


class _Trajectory:
    """The recent accepted points of one EM run, extrapolated to the optimum, with the predicted gain."""

    def __init__(self, family: Family, n_samples: int) -> None:
        self.family = family
        self.n_samples = n_samples
        self.steps = Anderson()
        self.curvatures: list[float] = []
        self.wait = PLAIN_STEPS
        self._at: Point | None = None
        self.origin: Point | None = None
        self._located: list[tuple[Point, Array]] = []

    def restart(self) -> None:
        """Discard the steps behind a rejected extrapolation; the next step is a plain one."""
        self.steps.clear()
        self.wait = 1
        self._move_origin(None)

    def locate(self, visit: _Visit) -> tuple[Array, Array]:
        """Coordinates of a visited point and of its EM step."""
        assert visit.mapped is not None
        if self.origin is None:
            self._move_origin(visit.point)
        return self._coordinates(visit.point), self._coordinates(visit.mapped)

    def _coordinates(self, point: Point) -> Array:
        """Coordinates of a point; those of the last points are known, and a plain step leads to one of them."""
        assert self.origin is not None
        for known, found in self._located:
            if known is point:
                return found
        x = self.family.coordinates(*point, self.origin)
        self._located = [*self._located, (point, x)][-POINTS_OF_TWO_VISITS:]
        return x

    def crossing(self, point: Point) -> float:
        """Squared length of what a row that crosses a cut changes a step by; 0 if the family does not truncate."""
        weights, components = point
        score = self.family.cut.crossing(self.family.n_features(components))
        return len(weights) * score / self.n_samples**2

    def look_ahead(self, visit: _Visit) -> tuple[Point, Outlook]:
        """The next point, and what a visit says of the passes after it."""
        assert visit.mapped is not None
        if self.wait > 0:
            self.wait -= 1
            return visit.mapped, Outlook()
        if not self.steps:
            self._move_origin(visit.point)
        x, g = self.locate(visit)
        self.steps.record(x, g)
        target, residual = self.steps.target(), g - x
        towards, squared = float(residual @ (target - x)), float(residual @ residual)
        curvature = self.steps.slowest_curvature()
        if self.curvatures and squared <= self.crossing(visit.point):
            # A row that crosses a cut changes the step by as much: steps so short show no curvature.
            curvature = min(self.curvatures)
            target, towards = (g, squared) if towards <= 0 else (target, towards)
        is_concave = towards > 0
        if not is_concave:
            # The iteration leaves a saddle, and the extrapolation points back to it: follow the ascent instead.
            target = g + 2.0 * residual
        assert self.origin is not None
        extrapolated = self.family.from_coordinates(target, self.origin)
        if extrapolated is None:
            self.restart()
            return visit.mapped, Outlook()
        if not is_concave or (curvature is not None and curvature <= 0):
            return extrapolated, self._on_a_ridge(visit, residual)
        if curvature is None:
            return extrapolated, Outlook()
        # In these coordinates the gain to the fixed point x* is n / 2 (g - x) . (x* - x), and the extrapolation
        # approximates x*. Fast directions may hide slow ones, so the smallest recent curvature bounds the gain as well.
        self.curvatures = [*self.curvatures, curvature][-MEMORY:]
        gain = max(towards, squared / min(self.curvatures))
        return extrapolated, Outlook(0.5 * self.n_samples * gain, is_concave=True)

    def _on_a_ridge(self, visit: _Visit, residual: Array) -> Outlook:
        """The outlook where the objective is not concave along the recent steps."""
        weights, components = visit.point
        owners = self.family.coordinate_owners(components)
        # Coordinates that all components share come last: all rows determine them.
        rows = self.n_samples * np.append(np.maximum(weights, LEAST_MASS), 1.0)
        parameters = np.bincount(owners % len(rows), minlength=len(rows))
        squares = residual**2
        step = float(squares.sum())
        crowding = float(squares @ (parameters / rows)[owners])
        return Outlook(
            is_concave=False,
            step=self.n_samples * step,
            rows_per_parameter=step / crowding if crowding > 0 else np.inf,
        )

    def _move_origin(self, point: Point | None) -> None:
        if self._at is not point:
            self._at, self._located = point, []
            self.origin = None if point is None else self.family.as_origin(point)
