"""Anderson mixing of a fixed-point iteration, and an estimate of its slowest rate.

Anderson 1965; for EM: Henderson & Varadhan, JCGS 2019. In coordinates in which the complete-data information is the
identity, the EM map g is self-adjoint near its fixed point. Mixing then acts like a Krylov method and needs far fewer
passes than plain EM. Its Ritz values show slow directions while the fast ones still dominate the residual.
"""

from __future__ import annotations

import numpy as np

from dask_dfmr.mixtures.family import Array

LEAST_LENGTH = 1e-6
"""A direction among the recent steps that is shorter than this share of the longest one is rounding."""


class Anderson:
    """The last ``window + 1`` pairs of a point x (n_coordinates,) and its image g(x) in an iteration."""

    def __init__(self, window: int = 8) -> None:
        self.window = window
        self.clear()

    def clear(self) -> None:
        """Discard all pairs of points and images."""
        self._xs: list[Array] = []
        self._gs: list[Array] = []

    def __len__(self) -> int:
        return len(self._xs)

    def record(self, x: Array, g: Array) -> None:
        """Add the pair of a point and its image."""
        self._xs = [*self._xs, x][-self.window - 1 :]
        self._gs = [*self._gs, g][-self.window - 1 :]

    def target(self) -> Array:
        """The point at which the residual g - x is predicted to be least; g itself if there is one pair."""
        if len(self._xs) < 2:
            return self._gs[-1]
        xs, gs = np.array(self._xs), np.array(self._gs)
        residuals = gs - xs
        gamma, *_ = np.linalg.lstsq(_steps(residuals).T, residuals[-1], rcond=1e-10)
        return self._gs[-1] - _steps(gs).T @ gamma

    def slowest_curvature(self) -> float | None:
        """The smallest Ritz value of I - dg/dx on the recent steps.

        It is 1 minus the rate of convergence in the slowest direction of these steps. It is zero or negative if the
        iteration leaves a saddle, and None if there are fewer than three pairs.
        """
        if len(self._xs) < 3:
            return None
        xs = np.array(self._xs)
        residual_steps = _steps(np.array(self._gs) - xs)
        u, length, directions = np.linalg.svd(_steps(xs), full_matrices=False)
        seen = length > LEAST_LENGTH * length[0]
        combinations = (
            u[:, seen] / length[seen]
        )  # combinations of steps with orthonormal directions
        curvature = -directions[seen] @ (combinations.T @ residual_steps).T
        return float(np.linalg.eigvalsh(0.5 * (curvature + curvature.T))[0])


def _steps(points: Array) -> Array:
    """Differences of consecutive points (n, n_coordinates); np.diff takes longer than to subtract so few."""
    return points[1:] - points[:-1]
