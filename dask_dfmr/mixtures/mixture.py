"""The value ``Mixture``: a finite Gaussian mixture that knows its density, and nothing of how it was learned."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp, softmax
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture
from sklearn.utils import check_random_state

from dask_dfmr.mixtures.family import BLOCK_FLOATS, Array, Components, Family, as_block
from dask_dfmr.mixtures.gaussian import (
    COVARIANCE_TYPES,
    MAX_MEAN,
    VARIANCE_RANGE,
    Gaussian,
)
from dask_dfmr.untrusted import open_regular, parse_json

FORMAT = "dask_dfmr.mixture"
FORMAT_VERSION = 1

_FIELDS = ("weights", "means", "covariances", "covariance_type", "feature_names")

WEIGHT_SUM_TOLERANCE = 1e-8
ASYMMETRY_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False, repr=False)
class Mixture:
    """A finite mixture of Gaussians: f(x) = sum_k w_k N(x; mu_k, Sigma_k).

    Parameters
    ----------
    weights : array-like of shape (n_components,)
        Mixing weights: non-negative, sum 1 within 1e-8.
    means : array-like of shape (n_components, n_features)
    covariances : array-like
        (n_components, n_features, n_features) for ``"full"``, (n_components, n_features) for
        ``"diag"``, (n_features, n_features) for ``"tied"``, (n_components,) for ``"spherical"``;
        symmetric positive definite.
    covariance_type : {"full", "diag", "tied", "spherical"}, default "full"
    feature_names : sequence of str, optional
        Names of the columns, in the order of the means.

    Raises
    ------
    ValueError
        If a shape does not fit, a number is not finite, the weights are no weights or a covariance
        is no covariance.

    Examples
    --------
    >>> m = Mixture([0.3, 0.7], [[0.0], [4.0]], [1.0, 2.0], covariance_type="spherical", feature_names=["speed"])
    >>> m
    Mixture(n_components=2, n_features=1, covariance_type='spherical', feature_names=('speed',))
    >>> m.predict([[-1.0], [5.0]])
    array([0, 1])
    """

    weights: Array
    means: Array
    covariances: Array
    covariance_type: str = "full"
    feature_names: tuple[str, ...] | None = None

    def __init__(
        self,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        covariance_type: str = "full",
        feature_names: Sequence[str] | None = None,
    ) -> None:
        if covariance_type not in COVARIANCE_TYPES:
            raise ValueError(
                f"covariance_type must be one of {', '.join(map(repr, COVARIANCE_TYPES))}; got {covariance_type!r}."
            )
        values = {
            "weights": as_floats("weights", weights),
            "means": as_floats("means", means),
            "covariances": as_floats("covariances", covariances),
        }
        if isinstance(feature_names, str):
            raise ValueError(f"feature_names must be a sequence of names; got {feature_names!r}.")
        names = None if feature_names is None else tuple(map(str, feature_names))
        _check_shapes(
            values["weights"], values["means"], values["covariances"], covariance_type, names
        )
        _check_weights(values["weights"])
        if covariance_type in ("full", "tied"):
            values["covariances"] = _symmetric(values["covariances"])
        _check_components(values["means"], values["covariances"], covariance_type)
        for name, array in values.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "covariance_type", covariance_type)
        object.__setattr__(self, "feature_names", names)

    @classmethod
    def from_components(
        cls,
        family: Family,
        weights: Array,
        components: Components,
        feature_names: Sequence[str] | None = None,
    ) -> Self:
        """Build from the arrays that the mathematics works on (every array with the component axis first)."""
        if not isinstance(family, Gaussian):
            raise TypeError(f"family must be Gaussian for a {cls.__name__}; got {family.name!r}.")
        means, covariances = components
        if family.covariance_type == "tied":
            covariances = covariances[0]
        return cls(weights, means, covariances, family.covariance_type, feature_names)

    # -- what it is -------------------------------------------------------------------------------

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return len(self.weights)

    @property
    def n_features(self) -> int:
        """Number of columns d."""
        return int(self.means.shape[1])

    @property
    def n_parameters(self) -> int:
        """Number of free parameters p."""
        return self.family.n_parameters(self.n_components, self.n_features)

    @property
    def family(self) -> Gaussian:
        """The component family: the mathematics behind this mixture."""
        return Gaussian(self.covariance_type)

    @property
    def components(self) -> Components:
        """``(means, covariances)`` with the component axis first in both, for ``tied`` too."""
        if self.covariance_type == "tied":
            return self.means, np.repeat(self.covariances[None], self.n_components, axis=0)
        return self.means, self.covariances

    def __repr__(self) -> str:
        names = "" if self.feature_names is None else f", feature_names={self.feature_names!r}"
        shape = f"n_components={self.n_components}, n_features={self.n_features}"
        return f"Mixture({shape}, covariance_type={self.covariance_type!r}{names})"

    def __eq__(self, other: object) -> bool:
        """Same numbers in the same order; use :meth:`align_to` first where the order of components does not matter."""
        if not isinstance(other, Mixture):
            return NotImplemented
        return (
            self.covariance_type == other.covariance_type
            and self.feature_names == other.feature_names
            and np.array_equal(self.weights, other.weights)
            and np.array_equal(self.means, other.means)
            and np.array_equal(self.covariances, other.covariances)
        )

    def __hash__(self) -> int:
        return hash(
            (
                self.covariance_type,
                self.feature_names,
                self.weights.tobytes(),
                self.means.tobytes(),
                self.covariances.tobytes(),
            )
        )

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

    @property
    def full_components(self) -> tuple[Array, Array]:
        """Means and covariances, the latter as (n_components, n_features, n_features) for every covariance type."""
        means, covariances = self.components
        if self.covariance_type == "spherical":
            covariances = np.repeat(covariances[:, None], self.n_features, axis=1)
        if self.covariance_type in ("diag", "spherical"):
            covariances = covariances[:, :, None] * np.eye(self.n_features)
        return means, covariances

    # -- other views ------------------------------------------------------------------------------

    def marginal(self, columns: Iterable[int | str]) -> Mixture:
        """The mixture of some of the columns.

        Parameters
        ----------
        columns : iterable of int or str
            Positions or feature names, in the order wanted.
        """
        index = np.array([self._column_index(c) for c in columns], dtype=np.intp)
        if index.size == 0 or len(set(index.tolist())) < index.size:
            raise ValueError(
                f"columns must name at least one column and each one once; got {index.tolist()}."
            )
        covariances = self.covariances
        if self.covariance_type in ("full", "tied"):
            covariances = covariances[..., index[:, None], index[None, :]]
        elif self.covariance_type == "diag":
            covariances = covariances[:, index]
        names = None if self.feature_names is None else [self.feature_names[i] for i in index]
        return Mixture(self.weights, self.means[:, index], covariances, self.covariance_type, names)

    def _column_index(self, column: int | str) -> int:
        if isinstance(column, str):
            if self.feature_names is None or column not in self.feature_names:
                raise ValueError(
                    f"columns: no column {column!r}; this mixture has {self.feature_names or self.n_features}."
                )
            return self.feature_names.index(column)
        if not 0 <= column < self.n_features:
            raise ValueError(
                f"columns must be positions from 0 to {self.n_features - 1}; got {column}."
            )
        return int(column)

    def reordered(self, order: ArrayLike) -> Mixture:
        """The same mixture with its components in another order."""
        index = np.asarray(order, dtype=np.intp)
        if sorted(index.tolist()) != list(range(self.n_components)):
            raise ValueError(
                f"order must be a permutation of 0 .. {self.n_components - 1}; got {index.tolist()}."
            )
        covariances = (
            self.covariances if self.covariance_type == "tied" else self.covariances[index]
        )
        return Mixture(
            self.weights[index],
            self.means[index],
            covariances,
            self.covariance_type,
            self.feature_names,
        )

    def align_to(self, other: Mixture) -> Mixture:
        """The same mixture with its components in the order of ``other``'s: the matching of least total KL divergence.

        Parameters
        ----------
        other : Mixture
            With the same number of components and columns, and the same covariance type.
        """
        mine = (self.n_components, self.n_features, self.covariance_type)
        theirs = (other.n_components, other.n_features, other.covariance_type)
        if mine != theirs:
            raise ValueError(
                f"other must agree in (n_components, n_features, covariance_type) = {mine}; got {theirs}."
            )
        costs = self.family.divergence(other.components, self.components)
        _, order = linear_sum_assignment(costs)
        return self.reordered(order)

    def to_sklearn(self) -> SklearnGaussianMixture:
        """A fitted :class:`sklearn.mixture.GaussianMixture` with these parameters."""
        model = SklearnGaussianMixture(self.n_components, covariance_type=self.covariance_type)
        model.weights_, model.means_, model.covariances_ = (
            self.weights.copy(),
            self.means.copy(),
            self.covariances.copy(),
        )
        model.precisions_cholesky_ = self.precisions_cholesky
        model.precisions_ = self.precisions
        model.n_features_in_ = self.n_features
        if self.feature_names is not None:
            model.feature_names_in_ = np.asarray(self.feature_names, dtype=object)
        model.converged_, model.n_iter_, model.lower_bound_ = True, 0, float("nan")
        return model

    @classmethod
    def from_sklearn(cls, model: SklearnGaussianMixture) -> Self:
        """The mixture that a fitted scikit-learn model describes."""
        if not hasattr(model, "weights_"):
            raise ValueError(
                "model must be a fitted sklearn.mixture.GaussianMixture; this one has no weights_. Call its fit first."
            )
        names = getattr(model, "feature_names_in_", None)
        return cls(model.weights_, model.means_, model.covariances_, model.covariance_type, names)

    @property
    def precisions_cholesky(self) -> Array:
        """Upper triangular P with P P^T = Sigma^-1, in scikit-learn's shapes."""
        if self.covariance_type in ("diag", "spherical"):
            return 1.0 / np.sqrt(self.covariances)
        identity = np.eye(self.n_features)
        inverse = np.linalg.solve(np.linalg.cholesky(self.covariances), identity)
        return np.ascontiguousarray(np.triu(np.swapaxes(inverse, -1, -2)))

    @property
    def precisions(self) -> Array:
        """Inverse covariances, in the shape of the covariances."""
        if self.covariance_type in ("diag", "spherical"):
            return 1.0 / self.covariances
        factor = self.precisions_cholesky
        return factor @ np.swapaxes(factor, -1, -2)

    # -- plain arrays and files -------------------------------------------------------------------

    def to_arrays(self) -> dict[str, Any]:
        """The arguments of the constructor as a dict: what travels between tasks and goes to files."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_arrays`; ``covariance_type`` and ``feature_names`` are optional."""
        missing, unknown = set(_FIELDS[:3]) - parameters.keys(), parameters.keys() - set(_FIELDS)
        if missing or unknown:
            raise ValueError(
                f"a mixture must have {', '.join(_FIELDS)}; {sorted(missing)} missing, {sorted(unknown)} unknown."
            )
        names = parameters.get("feature_names")
        if names is not None and (
            not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names)
        ):
            raise ValueError(f"feature_names must be a list of str, or None; got {names!r:.200}.")
        return cls(**parameters)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON: readable from any language, executable in none.

        The file is one object: ``format`` ("dask_dfmr.mixture"), ``version`` (1),
        ``covariance_type``, ``feature_names`` (list of str or null), and ``weights``, ``means``,
        ``covariances`` as nested lists in the shapes of :class:`Mixture`. Numbers are written so
        that reading them as IEEE doubles gives back the same bits.
        """
        parameters = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self.to_arrays().items()
        }
        document = {"format": FORMAT, "version": FORMAT_VERSION, **parameters}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file, allow_nan=False, indent=1)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        OSError
            If the file is not there, or may not be read.
        ValueError
            If it is not such a file, is of a newer version, or holds no valid mixture.
        """
        with open_regular(path) as file:
            content = file.read()
        try:
            document = parse_json(content)
        except ValueError as error:
            raise ValueError(
                f"{os.fspath(path)} is not a saved mixture: not JSON ({error})."
            ) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(
                f'{os.fspath(path)} is not a saved mixture: expected a JSON object with "format": "{FORMAT}".'
            )
        if document.get("version") != FORMAT_VERSION or isinstance(document["version"], bool):
            raise ValueError(
                f"{os.fspath(path)}: expected format version {FORMAT_VERSION}, got {document.get('version')!r:.100}; "
                "a newer dask_dfmr may read it."
            )
        try:
            return cls.from_arrays(
                {
                    name: value
                    for name, value in document.items()
                    if name not in ("format", "version")
                }
            )
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error


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


def _check_shapes(
    weights: Array,
    means: Array,
    covariances: Array,
    covariance_type: str,
    names: tuple[str, ...] | None,
) -> None:
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"weights must have the shape (n_components,); got {weights.shape}.")
    if means.ndim != 2 or len(means) != len(weights) or means.shape[1] == 0:
        raise ValueError(
            f"means must have the shape (n_components = {len(weights)}, n_features); got {means.shape}."
        )
    n_components, n_features = means.shape
    expected = {
        "full": (n_components, n_features, n_features),
        "diag": (n_components, n_features),
        "tied": (n_features, n_features),
        "spherical": (n_components,),
    }[covariance_type]
    if covariances.shape != expected:
        raise ValueError(
            f"covariances of type {covariance_type!r} must have the shape {expected}; got {covariances.shape}."
        )
    if names is not None and (len(names) != n_features or len(set(names)) != n_features):
        raise ValueError(
            f"feature_names must be {n_features} different names, one per column; got {names}."
        )


def _check_weights(weights: Array) -> None:
    if (weights < 0).any():
        raise ValueError(f"weights must not be negative; got {weights.min():.6g}.")
    if abs(weights.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise ValueError(
            f"weights must sum to 1; their sum is {weights.sum():.12g}. Divide them by it if they are meant to."
        )


def _symmetric(covariances: Array) -> Array:
    """Covariance matrices without the asymmetry that rounding leaves; more than that is an error."""
    transposed = np.swapaxes(covariances, -1, -2)
    asymmetry = np.abs(covariances - transposed).max(axis=(-2, -1))
    bad = asymmetry > ASYMMETRY_TOLERANCE * np.abs(covariances).max(axis=(-2, -1))
    if bad.any():
        label = "covariances" if covariances.ndim == 2 else f"covariances[{bad.argmax()}]"
        raise ValueError(
            f"{label} must be symmetric; it differs from its transpose by {asymmetry.max():.3g}."
        )
    return 0.5 * covariances + 0.5 * transposed


def _check_components(means: Array, covariances: Array, covariance_type: str) -> None:
    if (np.abs(means) > MAX_MEAN).any():
        raise ValueError(f"means must not exceed {MAX_MEAN:g}; got {np.abs(means).max():.3g}.")
    stack = covariances[None] if covariance_type == "tied" else covariances
    if Gaussian(covariance_type).is_proper((means[: len(stack)], stack)):
        return
    for k, covariance in enumerate(stack):
        family = Gaussian("full" if covariance.ndim == 2 else covariance_type)
        if family.is_proper((np.zeros((1, means.shape[1])), covariance[None])):
            continue
        label = "covariances" if covariance_type == "tied" else f"covariances[{k}]"
        values = (
            np.linalg.eigvalsh(covariance) if covariance.ndim == 2 else np.atleast_1d(covariance)
        )
        if values.min() <= 0:
            what = "smallest eigenvalue" if covariance.ndim == 2 else "smallest variance"
            raise ValueError(
                f"{label} must be positive definite; its {what} is {values.min():.3g}."
            )
        raise ValueError(
            f"{label} must have variances from {VARIANCE_RANGE[0]:g} to {VARIANCE_RANGE[1]:g} and be regular to "
            f"rounding; its eigenvalues reach from {values.min():.3g} to {values.max():.3g}. Rescale the columns."
        )
