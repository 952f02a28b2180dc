"""The base class of mixture values: everything that follows from weights, components and their family.

A family defines the mathematics of its components. The mixture value of that family derives from
:class:`FiniteMixture`, which gives it densities, labels, samples and files. The last section checks arrays that come
from outside.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dask_dfmr.mixtures.assignment import assignment
from dask_dfmr.mixtures.family import (
    BLOCK_FLOATS,
    Array,
    Components,
    Family,
    Quantity,
    as_block,
    batches,
    take,
)
from dask_dfmr.seeds import SeedLike, generator
from dask_dfmr.tables import rows_for, unmasked
from dask_dfmr.untrusted import read_document, write_document

MIXTURE_FORMAT, MIXTURE_VERSION = "dask_dfmr.mixture", 1
"""The first two entries of a saved mixture."""

WEIGHT_SUM_TOLERANCE = 1e-8
"""Largest difference between the sum of mixing weights and 1."""


class FiniteMixture(ABC):
    """A finite mixture f(x) = sum_k w_k phi_k(x) of components of one family.

    A subclass is an immutable value. It checks its parameters when it is made, and defines the two attributes, the
    two properties and the two methods below that are abstract.

    Attributes
    ----------
    weights : ndarray of shape (n_components,)
        Mixing weights: non-negative, with the sum 1.
    feature_names : tuple of str, or None
        Names of the columns.
    """

    weights: Array
    feature_names: tuple[str, ...] | None

    # -- what a subclass defines ------------------------------------------------------------------

    @property
    @abstractmethod
    def family(self) -> Family:
        """The component family: the mathematics of this mixture."""

    @property
    @abstractmethod
    def components(self) -> Components:
        """Parameters of the components, every array with the component axis first."""

    @abstractmethod
    def to_arrays(self) -> dict[str, Any]:
        """The parameters as a dict of arrays and plain values."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, parameters: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_arrays`; raises ValueError if the parameters are no such mixture."""

    # -- size -------------------------------------------------------------------------------------

    @property
    def n_components(self) -> int:
        """Number of components, K in formulas."""
        return len(self.weights)

    @property
    def n_features(self) -> int:
        """Number of columns, d in formulas."""
        return self.family.n_features(self.components)

    @property
    def n_parameters(self) -> int:
        """Number of free parameters p."""
        return self.family.n_parameters(self.n_components, self.n_features)

    # -- densities, labels and samples ------------------------------------------------------------

    def score_samples(self, X: ArrayLike) -> Array:
        """Log-density of each row.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            In memory. If both a frame (pandas, Polars, Arrow) and the mixture have names of columns, these must be
            equal. So it is for the other methods with rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats.

        Raises
        ------
        TypeError
            If X is no table, or a column of it does not hold real numbers.
        ValueError
            If X has other columns, or a row with NaN or infinity.
        """
        return self._evaluate(X, "log_density")

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean log-density of the rows X, in nats per row; ``y`` is ignored, as scikit-learn's interface has it.

        Raises
        ------
        ValueError
            If X has no rows, another number of columns, or a row with NaN or infinity.
        """
        log_density = self.score_samples(X)
        if log_density.size == 0:
            raise ValueError("X must have at least one row; got none.")
        return float(log_density.mean())

    def predict(self, X: ArrayLike) -> NDArray[np.intp]:
        """Most probable component of each row, shape (n_samples,)."""
        return self._evaluate(X, "label").astype(np.intp)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Responsibilities: the probability of each component given the row, shape (n_samples, n_components)."""
        return self._evaluate(X, "responsibilities")

    def _evaluate(self, X: ArrayLike, quantity: Quantity) -> Array:
        """The quantity of each row, after a check of the rows."""
        rows = rows_for(X, self.feature_names)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(
                f"X must have the shape (n_samples, {self.n_features}); got {rows.shape}."
            )
        for batch in batches(len(rows), max(256, BLOCK_FLOATS // self.n_features)):
            block = rows[batch]
            # The usual case, decided cheaply: a sum is finite only if all its terms are.
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(block.sum(dtype=np.float64)):
                    continue
            bad = ~np.isfinite(as_block(block)).all(axis=1)
            if bad.any():
                first = batch.start + int(bad.argmax())
                raise ValueError(
                    f"X must be finite; row {first} is the first with NaN or infinity. Remove such rows, "
                    "X[np.isfinite(X).all(axis=1)], or fit with nan_policy='omit'."
                )
        return self.family.evaluate(rows, self.weights, self.components, quantity)

    def sample(
        self, n_samples: int = 1, random_state: SeedLike = None
    ) -> tuple[Array, NDArray[np.intp]]:
        """Draw rows.

        Parameters
        ----------
        n_samples : int, default 1
        random_state : int, RandomState, Generator, SeedSequence or None, default None
            A RandomState or Generator is advanced. None draws other rows at every call.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Grouped by component, as in scikit-learn.
        y : ndarray of shape (n_samples,)
            Component of each row.

        Raises
        ------
        ValueError
            If ``n_samples`` is less than 1, or ``random_state`` is none of these.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1; got {n_samples}.")
        return self.family.sample(n_samples, self.weights, self.components, generator(random_state))

    # -- order of the components ------------------------------------------------------------------

    def reordered(self, order: ArrayLike) -> Self:
        """The same mixture with its components in another order.

        Parameters
        ----------
        order : array-like of shape (n_components,)
            A permutation: the position in this mixture of each component of the result.

        Raises
        ------
        ValueError
            If ``order`` is no permutation.
        """
        index = np.asarray(order, dtype=np.intp)
        if sorted(index.tolist()) != list(range(self.n_components)):
            raise ValueError(
                f"order must be a permutation of 0 .. {self.n_components - 1}; got {index.tolist()}."
            )
        components = take(self.components, index)
        reordered: Self = self.family.mixture(self.weights[index], components, self.feature_names)
        return reordered

    def align_to(self, other: FiniteMixture) -> Self:
        """The same mixture with its components in the order of the components of ``other``.

        Components are matched so that the total KL divergence between matched components is least.

        Parameters
        ----------
        other : FiniteMixture
            Of the same family, with the same number of components and columns.

        Raises
        ------
        ValueError
            If ``other`` differs in family or shape.
        """
        mine = (self.n_components, self.n_features, self.family.name)
        theirs = (other.n_components, other.n_features, other.family.name)
        if mine != theirs:
            raise ValueError(
                f"other must agree in (n_components, n_features, family) = {mine}; got {theirs}."
            )
        costs = self.family.divergence(other.components, self.components)
        return self.reordered(assignment(costs))

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mixture to a JSON file, which any language can read and none executes.

        The file holds one object: ``format`` ("dask_dfmr.mixture"), ``version`` (1), and the entries of
        :meth:`to_arrays` with arrays as nested lists. For Gaussians these are ``weights``, ``means`` and
        ``covariances`` in the shapes of :class:`dask_dfmr.Mixture`, ``covariance_type``, and ``feature_names`` (list
        of str or null). Numbers are written so that reading them as IEEE doubles gives back the same bits.

        Parameters
        ----------
        path : path-like
            The file is written beside it and then renamed, so that there is never half a file. An existing file is
            replaced.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_document(path, MIXTURE_FORMAT, MIXTURE_VERSION, self.to_arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        OSError
            If the file does not exist or cannot be read.
        ValueError
            If it is no such file, has another version, or holds no valid mixture.
        """
        parameters = read_document(path, MIXTURE_FORMAT, MIXTURE_VERSION, "a saved mixture")
        try:
            return cls.from_arrays(parameters)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error


# -- checks of arrays from outside -----------------------------------------------------------------


def as_floats(name: str, values: ArrayLike) -> Array:
    """A finite float64 copy of an array, in C order, so that results do not depend on its memory layout.

    Raises
    ------
    ValueError
        If it is no array of real, finite numbers; the message begins with ``name``.
    """
    try:
        raw = np.asarray(unmasked(values))
        if np.iscomplexobj(raw):
            raise TypeError("complex numbers")
        if raw.dtype.kind not in "biufO":  # NumPy would convert texts and dates to numbers
            raise TypeError(f"dtype {raw.dtype}")
        array = np.array(raw, dtype=np.float64, order="C")
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
    """Raise ValueError unless the mixing weights are non-negative and their sum is 1."""
    if (weights < 0).any():
        raise ValueError(f"weights must not be negative; got {weights.min():.6g}.")
    if abs(weights.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise ValueError(
            f"weights must sum to 1; their sum is {weights.sum():.12g}. Divide them by it if they are relative weights."
        )
