"""Anderson acceleration of a fixed-point iteration (Anderson 1965; for EM: Henderson & Varadhan, JCGS 2019).

In coordinates in which the complete-data information is the identity, the EM map is self-adjoint
near its fixed point, and Anderson mixing acts like a Krylov method on the observed information:
what takes plain EM one pass per power of its rate takes a few.
"""

from __future__ import annotations

import numpy as np

from dask_dfmr.families import Array


class Anderson:
    """The last steps of an iteration x -> g(x), and the point they extrapolate to."""

    def __init__(self, window: int = 8) -> None:
        self.window = window
        self.clear()

    def clear(self) -> None:
        """Forget the past."""
        self._xs: list[Array] = []
        self._gs: list[Array] = []

    def extrapolate(self, x: Array, g: Array) -> Array:
        """Take note of x -> g and return the point where the residual g - x is predicted to be least."""
        self._xs = [*self._xs, x][-self.window - 1 :]
        self._gs = [*self._gs, g][-self.window - 1 :]
        if len(self._xs) < 2:
            return g
        residuals = np.array(self._gs) - np.array(self._xs)
        gamma, *_ = np.linalg.lstsq(np.diff(residuals, axis=0).T, residuals[-1], rcond=1e-10)
        return g - np.diff(np.array(self._gs), axis=0).T @ gamma
