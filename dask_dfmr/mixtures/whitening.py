"""Estimates in coordinates in which honest ones scatter like standard normal vectors, and what stands behind each part.

An estimate's components are matched to a center's, its difference from the center is taken in the coordinates of
the family, and these are whitened by the Fisher information at the center.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from dask_dfmr.mixtures.distances import Stack
from dask_dfmr.mixtures.family import Array, Components, Family, Labels
from dask_dfmr.mixtures.information import LEAST_SHARE, MOST_COORDINATES, information_blocks

FARTHEST = 1e50
"""Coordinates count as no more than this, so that their squares can be summed."""

N_ROWS, ROUGH_ROWS = 2**15, 2**12
"""Rows drawn for the information: its error makes honest estimates look stretched along some axes."""


def match_components(family: Family, reference: Components, components: Components) -> Labels:
    """Which component is which of the reference's: the matching of least total log(1 + KL).

    On a logarithmic scale a component that fits nowhere does not decide for the others.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        costs = family.divergence(reference, components)
    costs = np.log1p(np.nan_to_num(np.maximum(costs, 0.0), nan=1e300, posinf=1e300))
    order: Labels = linear_sum_assignment(costs)[1]
    return order


def difference(
    family: Family, weights: Array, components: Components, origin: tuple[Array, Components]
) -> Array:
    """Coordinates of a mixture, matched to the origin, about it: finite whatever the mixture."""
    with np.errstate(over="ignore", invalid="ignore"):
        v = family.coordinates(weights, components, origin)
    return np.clip(np.nan_to_num(v, nan=FARTHEST), -FARTHEST, FARTHEST)


class Part(NamedTuple):
    """Weights, or the location or shape of one component, as a subspace of the white coordinates.

    ``basis`` (n_positions, rank) are orthonormal directions among the white coordinates at ``positions``;
    ``component`` is -1 for what all components share.
    """

    what: str
    component: int
    positions: Labels
    basis: Array

    @property
    def n_free(self) -> int:
        """Numbers that it holds."""
        return self.basis.shape[1]

    def squares(self, white: Array) -> Array:
        """Squared lengths of the part of white vectors (n, n_axes): chi-square for honest estimates."""
        return np.asarray(((white[:, self.positions] @ self.basis) ** 2).sum(axis=1))


class Frame(NamedTuple):
    """White coordinates about a center: per row of data, honest estimates are standard normal in them.

    The information is one block, or, of very many coordinates, a block for each component. ``axes`` hold for each
    block its coordinates and the matrix that whitens them. ``information`` is what is left of the complete
    information along each white coordinate; ``parts`` are what a reader would name. ``n_rows`` were drawn.
    """

    family: Family
    origin: tuple[Array, Components]
    axes: tuple[tuple[Labels, Array], ...]
    information: Array
    parts: tuple[Part, ...]
    n_rows: int

    @property
    def n_axes(self) -> int:
        """White coordinates: the free parameters of a mixture."""
        return len(self.information)

    def white(self, stack: Stack) -> Array:
        """White coordinates of mixtures for one row, (n_mixtures, n_axes)."""
        differences = []
        for i in range(len(stack.weights)):
            weights, components = stack.one(i)
            order = match_components(self.family, self.origin[1], components)
            matched = tuple(p[order] for p in components)
            differences.append(difference(self.family, weights[order], matched, self.origin))
        v = np.array(differences)
        return np.hstack([v[:, index] @ whiten for index, whiten in self.axes])

    def mixture_at(self, white: Array) -> tuple[Array, Components] | None:
        """The mixture at white coordinates; None where they leave the parameter space."""
        v, start = np.zeros(sum(len(index) for index, _ in self.axes)), 0
        for index, whiten in self.axes:
            own = white[start : start + whiten.shape[1]]
            # The columns are orthogonal.
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
    """The frame at a mixture; no row of data is read. A rough one is cheap, and its law inexact."""
    origin = (weights, components)
    normal = np.zeros(len(family.coordinates(weights, components, origin)))
    normal[: len(weights)] = np.sqrt(weights)
    blocks = _blocks(family, components, len(normal))
    n_rows = ROUGH_ROWS if is_rough else N_ROWS
    matrices = information_blocks(family, origin, normal, blocks, n_rows, rng)
    axes, spectra, parts, start = [], [], [], 0
    named = _names(components, len(normal), family)
    for block, matrix in zip(blocks, matrices, strict=True):
        values, vectors = _free_axes(matrix, normal[block])
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
    """Eigenvalues and axes orthogonal to ``normal``, along which no mixture can move."""
    length = float(np.linalg.norm(normal))
    if length > 0:
        # Far above all others: the last axis.
        unit = normal / length
        top = 2.0 * float(np.trace(matrix)) + 1.0
        matrix = matrix + top * np.outer(unit, unit)
    values, vectors = np.linalg.eigh(matrix)
    if length > 0:
        values, vectors = values[:-1], vectors[:, :-1]
    return np.maximum(values, LEAST_SHARE), vectors


def _span(rows: Array) -> Array:
    """Orthonormal basis (n_axes, n_rows) of what some rows span."""
    basis: Array = np.linalg.qr(rows.T)[0]
    return np.ascontiguousarray(basis)


def _blocks(family: Family, components: Components, n_coordinates: int) -> list[Labels]:
    """Coordinates that are whitened together: all, or of very many those of one component at a time."""
    if n_coordinates <= MOST_COORDINATES:
        return [np.arange(n_coordinates)]
    n_components = len(components[0])
    owners = family.coordinate_owners(components)
    owners[:n_components] = n_components  # the weights, together
    return [np.flatnonzero(owners == k) for k in np.unique(owners)]


def _names(
    components: Components, n_coordinates: int, family: Family
) -> list[tuple[str, int, Labels]]:
    """What coordinates stand for; the first parameter of every family is a location."""
    n_components = len(components[0])
    owners = family.coordinate_owners(components)
    place = np.arange(n_coordinates)
    is_location = (place >= n_components) & (place < n_components + components[0].size)
    is_shape = place >= n_components + components[0].size
    # The last weight is what the others leave.
    named = [("weights", -1, place[: n_components - 1])]
    for k in range(n_components):
        named.append(("mean", k, np.flatnonzero(is_location & (owners == k))))
        named.append(("covariance", k, np.flatnonzero(is_shape & (owners == k))))
    named.append(("common covariance", -1, np.flatnonzero(is_shape & (owners < 0))))
    return named
