"""The base of mixture values: densities, labels and samples of any component family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, softmax
from sklearn.utils import check_random_state

from dask_dfmr.mixtures.family import BLOCK_FLOATS, Array, Components, Family, as_block

WEIGHT_SUM_TOLERANCE = 1e-8
"""A sum of mixing weights may differ from 1 by so much."""


class FiniteMixture:
    """A finite mixture f(x) = sum_k w_k phi_k(x), with everything that follows from its family.

    A subclass has the attributes ``weights``, shape (n_components,), and ``feature_names``, and says what its
    ``family`` and its ``components`` are.
    """

    weights: Array
    feature_names: tuple[str, ...] | None

    @property
    def family(self) -> Family:
        """The component family: the mathematics behind this mixture."""
        raise NotImplementedError

    @property
    def components(self) -> Components:
        """Parameters of the components, every array with the component axis first."""
        raise NotImplementedError

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return len(self.weights)

    @property
    def n_features(self) -> int:
        """Number of columns d."""
        return self.family.n_features(self.components)

    @property
    def n_parameters(self) -> int:
        """Number of free parameters p."""
        return self.family.n_parameters(self.n_components, self.n_features)

    # -- density ----------------------------------------------------------------------------------

    def score_samples(self, X: ArrayLike) -> Array:
        """Log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return np.concatenate(
            [logsumexp(joint, axis=1) for joint in self._joint_blocks(X)] or [np.empty(0)]
        )

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean log-density of the rows, in nats per row."""
        log_density = self.score_samples(X)
        if log_density.size == 0:
            raise ValueError("X must have at least one row; got none.")
        return float(log_density.mean())

    def predict(self, X: ArrayLike) -> NDArray[np.intp]:
        """Most probable component of each row, shape (n_samples,)."""
        return np.concatenate(
            [joint.argmax(axis=1) for joint in self._joint_blocks(X)]
            or [np.empty(0, dtype=np.intp)]
        )

    def predict_proba(self, X: ArrayLike) -> Array:
        """Responsibilities: probability of each component given the row, shape (n_samples, n_components)."""
        blocks = [softmax(joint, axis=1) for joint in self._joint_blocks(X)]
        return np.concatenate(blocks or [np.empty((0, self.n_components))])

    def _joint_blocks(self, X: ArrayLike) -> Iterator[Array]:
        """Log w_k + log N(x; mu_k, Sigma_k) in blocks of rows."""
        rows = np.asarray(X)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(
                f"X must have the shape (n_samples, {self.n_features}); got {rows.shape}."
            )
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        step = max(256, BLOCK_FLOATS // (self.n_components * self.n_features))
        for i in range(0, len(rows), step):
            block = as_block(rows[i : i + step])
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                first = i + int(bad.argmax())
                raise ValueError(
                    f"X must be finite; row {first} is the first with NaN or infinity. Drop such rows, X.dropna()."
                )
            yield self.family.log_density(block, self.components) + log_weights

    def sample(
        self, n_samples: int = 1, random_state: Any = None
    ) -> tuple[Array, NDArray[np.intp]]:
        """Draw rows.

        Parameters
        ----------
        n_samples : int, default 1
        random_state : int, RandomState, Generator or None, default None

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        y : ndarray of shape (n_samples,)
            Component of each row. Rows come grouped by component, as scikit-learn's do.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1; got {n_samples}.")
        is_generator = isinstance(random_state, np.random.Generator)
        rng = random_state if is_generator else check_random_state(random_state)
        return self.family.sample(n_samples, self.weights, self.components, rng)


# -- checks at the border ------------------------------------------------------------------------


def as_floats(name: str, values: ArrayLike) -> Array:
    """A finite float64 copy.

    Raises
    ------
    ValueError
        Naming the argument, if it is not an array of real, finite numbers.
    """
    try:
        raw = np.asarray(values)
        if np.iscomplexobj(raw):
            raise TypeError("complex numbers")
        if raw.dtype.kind not in "biufO":  # NumPy would read numbers out of texts and dates
            raise TypeError(f"dtype {raw.dtype}")
        array = np.array(raw, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be an array of numbers; got {type(values).__name__} ({error!s:.200})."
        ) from error
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be finite; got {int((~np.isfinite(array)).sum())} NaN or infinite values."
        )
    return array


def check_weights(weights: Array) -> None:
    """Raise ValueError unless the weights are non-negative and sum to 1."""
    if (weights < 0).any():
        raise ValueError(f"weights must not be negative; got {weights.min():.6g}.")
    if abs(weights.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise ValueError(
            f"weights must sum to 1; their sum is {weights.sum():.12g}. Divide them by it if they are meant to."
        )
