"""What rows say of mixtures: sums that add up over partitions. Knows no Dask.

A partition that is read again is measured under one or several mixtures at a time, since reading costs
more than arithmetic. What comes of it is small: whatever else is to be known of rows should be added here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from scipy.special import logsumexp, xlogy

from dask_dfmr.local.estimate import Outcome
from dask_dfmr.mixtures.family import BLOCK_FLOATS, Components, Moments, Rows, as_block
from dask_dfmr.mixtures.gaussian import Mixture


@dataclass(frozen=True)
class Wanted:
    """What to measure: every part beyond the log-likelihood costs time or memory.

    Parameters
    ----------
    moments : bool, default True
        Moments of the rows about the components, as an M step and :meth:`Family.score_of_moments` take them.
    densities : bool, default False
        Sums of squared log-densities and of the entropies of the responsibilities: one more pass over the
        rows in memory.
    target : bool, default False
        What the penalty pulls towards (for Gaussians sample covariance and mean), of these rows.
    targets : bool, default False
        The same for every mixture's own family.
    """

    moments: bool = True
    densities: bool = False
    target: bool = False
    targets: bool = False


@dataclass(frozen=True)
class Measurement:
    """Sums over rows under one mixture.

    Attributes
    ----------
    n_samples : int
    log_likelihood : float
        Sum of the log-densities, in nats.
    moments : tuple of ndarray, or None
        About the components of the mixture.
    squares : float
        Sum of the squared log-densities; NaN unless wanted.
    entropy : float
        Sum over rows of -sum_k r_k log r_k, r the responsibilities; NaN unless wanted.
    """

    n_samples: int
    log_likelihood: float
    moments: Moments | None = None
    squares: float = float("nan")
    entropy: float = float("nan")

    def __add__(self, other: Measurement) -> Measurement:
        moments = None
        if self.moments is not None and other.moments is not None:
            moments = tuple(a + b for a, b in zip(self.moments, other.moments, strict=True))
        return Measurement(
            self.n_samples + other.n_samples,
            self.log_likelihood + other.log_likelihood,
            moments,
            self.squares + other.squares,
            self.entropy + other.entropy,
        )


@dataclass(frozen=True)
class PartitionStatistics:
    """What a partition that was read again gave.

    Attributes
    ----------
    partition : int
    n_samples : int
        Rows measured.
    n_omitted : int
        Rows left out because they hold NaN or infinity (``nan_policy="omit"``).
    outcome : Outcome or None
        Why the partition could not be measured; None if it was.
    reason : str
        The same in words.
    target : tuple of ndarray, or None
        Prior target of the rows, if wanted.
    targets : tuple of tuple of ndarray
        Prior targets of the rows, one per mixture, if wanted.
    measurements : tuple of Measurement
        One per mixture; empty if the partition could not be measured.
    held_out : tuple of Measurement
        The same of the rows that no fit has seen (log-likelihoods alone); empty unless some are held out.
        ``n_samples``, ``target`` and ``measurements`` are without them.
    """

    partition: int
    n_samples: int = 0
    n_omitted: int = 0
    outcome: Outcome | None = None
    reason: str = ""
    target: Components | None = None
    measurements: tuple[Measurement, ...] = ()
    held_out: tuple[Measurement, ...] = ()
    targets: tuple[Components, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether there are rows to speak of."""
        return self.outcome is None and self.n_samples > 0

    def without_moments(self) -> PartitionStatistics:
        """The numbers alone."""
        light = tuple(replace(m, moments=None) for m in self.measurements)
        return replace(self, measurements=light)


def measure(X: Rows, mixtures: Sequence[Mixture], wanted: Wanted) -> tuple[Measurement, ...]:
    """Measure rows (n_samples, n_features), all finite, under every mixture."""
    return tuple(_measure_one(X, mixture, wanted) for mixture in mixtures)


def prior_targets(X: Rows, mixtures: Sequence[Mixture]) -> tuple[Components, ...]:
    """What the penalty pulls every mixture towards; one computation per family."""
    families = {mixture.family for mixture in mixtures}
    found = {family: family.prior_target(X) for family in families}
    return tuple(found[mixture.family] for mixture in mixtures)


def _measure_one(X: Rows, mixture: Mixture, wanted: Wanted) -> Measurement:
    log_likelihood, moments = mixture.family.em_pass(X, mixture.weights, mixture.components)
    squares, entropy = _density_sums(X, mixture) if wanted.densities else (np.nan, np.nan)
    return Measurement(
        len(X), log_likelihood, moments if wanted.moments else None, squares, entropy
    )


def _density_sums(X: Rows, mixture: Mixture) -> tuple[float, float]:
    """Sums of squared log-densities and of entropies."""
    squares = entropy = 0.0
    with np.errstate(divide="ignore"):
        log_weights = np.log(mixture.weights)
    step = max(256, BLOCK_FLOATS // (mixture.n_components * mixture.n_features))
    for i in range(0, len(X), step):
        joint = mixture.family.log_density(as_block(X[i : i + step]), mixture.components)
        joint += log_weights
        log_density = logsumexp(joint, axis=1)
        r = np.exp(joint - log_density[:, None])
        squares += float(log_density @ log_density)
        entropy -= float(xlogy(r, r).sum())
    return squares, entropy


Total = tuple[Measurement, ...]
"""What several partitions measured together, one sum per mixture; empty where there was nothing."""


def total_of(parts: Sequence[PartitionStatistics | Total]) -> Total:
    """The sum of readings, or of sums of them, in their order."""
    sums = [part.measurements if isinstance(part, PartitionStatistics) else part for part in parts]
    return reduce(_add, (s for s in sums if s), ())


def _add(a: Total, b: Total) -> Total:
    return tuple(x + y for x, y in zip(a, b, strict=True)) if a else b
