"""Convergence over several fits, each of which starts from the mixture of the last one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.stopping import TIGHT
from dask_dfmr.mixtures.family import NOISE, Array


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a sequence of fits has come.

    Attributes
    ----------
    kept : ndarray of bool, shape (n_partitions,)
    n_samples : ndarray of shape (n_partitions,)
        Rows of each partition.
    log_likelihood : float
        Mean over the kept rows, in nats per row.
    gain : float or None
        Absolute change of the total log-likelihood since the fit before, in nats; None if that was of other rows, or
        if there was none.
    """

    kept: NDArray[np.bool_]
    n_samples: Array
    log_likelihood: float
    gain: float | None = None

    @property
    def n_kept(self) -> float:
        """Number of kept rows."""
        return float(self.n_samples[self.kept].sum())

    def after(self, last: Progress | None) -> Progress:
        """The same with the gain since the fit before."""
        if (
            last is None
            or not np.array_equal(self.kept, last.kept)
            or not np.array_equal(self.n_samples, last.n_samples)
        ):
            return replace(self, gain=None)
        return replace(self, gain=self.n_kept * abs(self.log_likelihood - last.log_likelihood))

    def has_converged(self, last: Progress | None, tol: float | str, n_parameters: int) -> bool:
        """Whether the fit and those that could follow gain less than ``tol`` allows.

        Parameters
        ----------
        last : Progress or None
            That of the fit before.
        tol : "auto" or float
            As for :class:`GaussianMixture`, about the rows of all partitions.
        n_parameters : int
            Number of free parameters of the mixture.
        """
        if self.gain is None:
            return False
        if not isinstance(tol, str):
            return self.gain < tol * self.n_kept
        if self.gain <= NOISE * abs(self.n_kept * self.log_likelihood):
            return True  # gains of rounding fall no further
        if last is None or last.gain is None or self.gain >= last.gain:
            return False
        # Gains fall geometrically; this is the sum of those that would follow.
        remaining = self.gain**2 / (last.gain - self.gain)
        return max(self.gain, remaining) < TIGHT * n_parameters
