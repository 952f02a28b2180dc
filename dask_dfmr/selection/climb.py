"""Further EM passes of a candidate over the training rows of the common set, before candidates are scored."""

from __future__ import annotations

from dask_dfmr.local.em import Ascent, ComponentCollapsedError, Point
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import Measurement
from dask_dfmr.local.stopping import RemainingGain
from dask_dfmr.mixtures.gaussian import Mixture


class Climb:
    """EM passes of one candidate over the training rows of the common set.

    If a component collapses, which is possible with ``penalty=0`` only, further passes change nothing.

    Parameters
    ----------
    problem : LocalProblem
        Of the candidate's local fits. Weight and target of the penalty follow from the rows of all partitions together.
    start : Mixture
        The candidate's reduction from the common set.
    n_samples : int
        Training rows of the common set.
    """

    def __init__(self, problem: LocalProblem, start: Mixture, n_samples: int) -> None:
        penalty = problem.penalty_of_moments(n_samples)
        point, rule = (start.weights, start.components), RemainingGain(0.0)
        accelerate = problem.is_accelerated
        self._ascent = Ascent(problem.family, point, penalty, n_samples, rule, accelerate)
        self._problem, self._names, self._has_ended = problem, start.feature_names, False

    def take(self, total: Measurement) -> None:
        """One step of EM, from the sums over all rows at :attr:`point`."""
        if self._has_ended or total.moments is None:
            return
        try:
            self._ascent.take(total.log_likelihood, total.moments)
        except ComponentCollapsedError:
            self._has_ended = True

    @property
    def point(self) -> Mixture:
        """The mixture that the next pass measures the rows under."""
        ascent = self._ascent
        return self._as_mixture(ascent.mapped if self._has_ended else ascent.point)

    @property
    def result(self) -> Mixture:
        """The mixture after the last accepted pass."""
        return self._as_mixture(self._ascent.mapped)

    def _as_mixture(self, point: Point) -> Mixture:
        problem = self._problem
        return problem.family.mixture(*point, self._names)
