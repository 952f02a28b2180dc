"""White coordinates: estimates from samples of one population scatter in them like standard normal vectors.

The components of an estimate are matched to those of a center. The difference from the center is taken in the
coordinates of the family and whitened by the Fisher information at the center. A part of the white coordinates belongs
to the weights, or to the location or shape of one component.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_dfmr.mixtures.assignment import assignment
from dask_dfmr.mixtures.distances import Stack
from dask_dfmr.mixtures.family import Array, Components, Family, Labels
from dask_dfmr.mixtures.information import LEAST_INFORMATION, MOST_COORDINATES, information_blocks

MAX_COORDINATE = 1e50
"""Bound of the absolute value of a coordinate, so that sums of squares do not overflow."""

INFORMATION_ROWS, ROUGH_ROWS = 2**15, 2**12
"""Rows drawn for the information, and for a rough one. The error of the information stretches the scatter of consistent
estimates along some axes."""


def match_components(family: Family, reference: Components, components: Components) -> Labels:
    """The component that matches each component of the reference, shape (n_components,).

    The matching has the least total log(1 + KL). On the logarithmic scale a component that matches nothing has little
    influence on the matches of the others.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        costs = family.divergence(reference, components)
    costs = np.log1p(np.nan_to_num(np.maximum(costs, 0.0), nan=1e300, posinf=1e300))
    return assignment(costs)


def difference(
    family: Family, weights: Array, components: Components, origin: tuple[Array, Components]
) -> Array:
    """Coordinates (n_coordinates,) about the origin of a mixture whose components are matched to it.

    They are finite for every mixture, and at most :data:`MAX_COORDINATE` in absolute value.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        v = family.coordinates(weights, components, origin)
    return np.clip(np.nan_to_num(v, nan=MAX_COORDINATE), -MAX_COORDINATE, MAX_COORDINATE)


class Part(NamedTuple):
    """A subspace of the white coordinates that belongs to the weights, or to the location or shape of a component.

    Attributes
    ----------
    what : str
        "weights", "mean", "covariance" or "common covariance".
    component : int
        -1 if the part belongs to all components.
    positions : ndarray of shape (n_positions,)
        The white coordinates in which the part lies.
    basis : ndarray of shape (n_positions, n_free)
        Orthonormal directions that span the part, in those coordinates.
    """

    what: str
    component: int
    positions: Labels
    basis: Array

    @property
    def n_free(self) -> int:
        """Dimension of the part: how many numbers of an estimate it holds."""
        return self.basis.shape[1]

    def squares(self, white: Array) -> Array:
        """Squared lengths (n,) of the part of white vectors (n, n_axes); chi-square for consistent estimates."""
        return np.asarray(((white[:, self.positions] @ self.basis) ** 2).sum(axis=1))


class Frame(NamedTuple):
    """White coordinates about a center.

    In them sqrt(n) times the error of a consistent estimate from n rows is a standard normal vector.

    Attributes
    ----------
    family : Family
    origin : (weights, components)
        The center.
    axes : tuple of (ndarray, ndarray)
        For each block of the information its coordinates and the matrix that whitens them. There is one block, or one
        for each component if there are very many coordinates.
    information : ndarray of shape (n_axes,)
        Information along each white coordinate, as a share of the complete information.
    parts : tuple of Part
        The subspaces of the weights and of the components.
    n_rows : int
        Rows that were drawn for the information.
    """

    family: Family
    origin: tuple[Array, Components]
    axes: tuple[tuple[Labels, Array], ...]
    information: Array
    parts: tuple[Part, ...]
    n_rows: int

    @property
    def n_axes(self) -> int:
        """Number of white coordinates: the free parameters of a mixture."""
        return len(self.information)

    def white(self, stack: Stack) -> Array:
        """White coordinates of mixtures, in standard errors of an estimate from one row, (n_mixtures, n_axes)."""
        differences = []
        for i in range(len(stack.weights)):
            weights, components = stack.one(i)
            order = match_components(self.family, self.origin[1], components)
            matched = tuple(p[order] for p in components)
            differences.append(difference(self.family, weights[order], matched, self.origin))
        v = np.array(differences)
        return np.hstack([v[:, index] @ whiten for index, whiten in self.axes])

    def mixture_at(self, white: Array) -> tuple[Array, Components] | None:
        """Weights and components at white coordinates (n_axes,); None if they lie outside the parameter space."""
        v, start = np.zeros(sum(len(index) for index, _ in self.axes)), 0
        for index, whiten in self.axes:
            own = white[start : start + whiten.shape[1]]
            # The columns are orthogonal, so this is the pseudo-inverse.
            v[index] = whiten @ (own / (whiten**2).sum(axis=0))
            start += whiten.shape[1]
        return self.family.from_coordinates(v, self.origin)


def make_frame(
    family: Family,
    weights: Array,
    components: Components,
    rng: np.random.Generator,
    is_rough: bool = False,
) -> Frame:
    """The frame at a mixture, from rows drawn from it; no row of the data is read.

    A rough frame costs less, and consistent estimates are less exactly standard normal in it.
    """
    origin = (weights, components)
    normal = np.zeros(len(family.coordinates(weights, components, origin)))
    normal[: len(weights)] = np.sqrt(weights)
    blocks = _blocks(family, components, len(normal))
    n_rows = ROUGH_ROWS if is_rough else INFORMATION_ROWS
    matrices = information_blocks(family, origin, normal, blocks, n_rows, rng)
    axes, spectra, parts, start = [], [], [], 0
    named = _names(components, len(normal), family)
    for block, matrix in zip(blocks, matrices, strict=True):
        values, vectors = _free_axes(matrix.information, normal[block])
        positions = np.arange(start, start + len(values))
        errors = vectors / np.sqrt(values)
        axes.append((block, vectors * np.sqrt(values)))
        spectra.append(values)
        for what, k, coordinates in named:
            inside = np.isin(block, coordinates)
            if inside.any():
                parts.append(Part(what, k, positions, _span(errors[inside])))
        start += len(values)
    return Frame(family, origin, tuple(axes), np.concatenate(spectra), tuple(parts), n_rows)


def _free_axes(matrix: Array, normal: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of the information on the space orthogonal to ``normal``."""
    length = float(np.linalg.norm(normal))
    if length > 0:
        # An eigenvalue above all others makes the normal the last eigenvector.
        unit = normal / length
        top = 2.0 * float(np.trace(matrix)) + 1.0
        matrix = matrix + top * np.outer(unit, unit)
    values, vectors = np.linalg.eigh(matrix)
    if length > 0:
        values, vectors = values[:-1], vectors[:, :-1]
    return np.maximum(values, LEAST_INFORMATION), vectors


def _span(rows: Array) -> Array:
    """Orthonormal basis (n_axes, n_rows) of the span of rows (n_rows, n_axes)."""
    basis: Array = np.linalg.qr(rows.T)[0]
    return np.ascontiguousarray(basis)


def _blocks(family: Family, components: Components, n_coordinates: int) -> list[Labels]:
    """Coordinates that are whitened together: all of them, or those of each component if there are very many."""
    if n_coordinates <= MOST_COORDINATES:
        return [np.arange(n_coordinates)]
    n_components = len(components[0])
    owners = family.coordinate_owners(components)
    owners[:n_components] = n_components  # all weights are one block
    return [np.flatnonzero(owners == k) for k in np.unique(owners)]


def _names(
    components: Components, n_coordinates: int, family: Family
) -> list[tuple[str, int, Labels]]:
    """The parts of a mixture: name, component and coordinates of each.

    The first parameter of every family is a location.
    """
    n_components = len(components[0])
    owners = family.coordinate_owners(components)
    place = np.arange(n_coordinates)
    is_location = (place >= n_components) & (place < n_components + components[0].size)
    is_shape = place >= n_components + components[0].size
    # The last weight follows from the others.
    named = [("weights", -1, place[: n_components - 1])]
    for k in range(n_components):
        named.append(("mean", k, np.flatnonzero(is_location & (owners == k))))
        named.append(("covariance", k, np.flatnonzero(is_shape & (owners == k))))
    named.append(("common covariance", -1, np.flatnonzero(is_shape & (owners < 0))))
    return named
