"""Anderson mixing of a fixed-point iteration, and what its recent steps tell of the fixed point.

Anderson 1965; for EM: Henderson & Varadhan, JCGS 2019. In coordinates in which the complete-data information is the
identity the EM map g is self-adjoint near its fixed point. Mixing then acts like a Krylov method: it takes a few
passes where plain EM takes one per power of its rate, and its Ritz values show slow directions while the fast ones
still dominate the residual.
"""

from __future__ import annotations

import numpy as np

from dask_dfmr.mixtures.family import Array

NEGLIGIBLE = 1e-6
"""Relative length below which a direction among the recent steps is rounding."""


class Anderson:
    """The last pairs (x, g(x)) of an iteration."""

    def __init__(self, window: int = 8) -> None:
        self.window = window
        self.clear()

    def clear(self) -> None:
        """Forget the past."""
        self._xs: list[Array] = []
        self._gs: list[Array] = []

    def record(self, x: Array, g: Array) -> None:
        """Take note of x -> g."""
        self._xs = [*self._xs, x][-self.window - 1 :]
        self._gs = [*self._gs, g][-self.window - 1 :]

    def target(self) -> Array:
        """The point where the residual g - x is predicted to be least; g itself after one record."""
        if len(self._xs) < 2:
            return self._gs[-1]
        residuals = np.array(self._gs) - np.array(self._xs)
        steps = np.diff(residuals, axis=0).T
        gamma, *_ = np.linalg.lstsq(steps, residuals[-1], rcond=1e-10)
        return self._gs[-1] - np.diff(np.array(self._gs), axis=0).T @ gamma

    def slowest_curvature(self) -> float | None:
        """The smallest Ritz value of I - dg/dx on the recent steps: 1 minus the rate of the slowest direction seen.

        Zero or negative where the iteration leaves a saddle; None before there are three records.
        """
        if len(self._xs) < 3:
            return None
        xs = np.array(self._xs)
        residual_steps = np.diff(np.array(self._gs) - xs, axis=0)
        u, length, directions = np.linalg.svd(np.diff(xs, axis=0), full_matrices=False)
        seen = length > NEGLIGIBLE * length[0]
        combinations = u[:, seen] / length[seen]  # of steps, that give orthonormal directions
        curvature = -directions[seen] @ (combinations.T @ residual_steps).T
        return float(np.linalg.eigvalsh(0.5 * (curvature + curvature.T))[0])
