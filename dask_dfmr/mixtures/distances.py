"""Distances between mixture densities from their product integrals <f, g>, computed in tiles.

The L2 distance D(f, g)^2 = <f, f> - 2 <f, g> + <g, g> is the paper's. It is bounded: an estimate at infinity is no
farther from f than |f|. The log-polar distance

    L(f, g)^2 = -2 log(<f, g> / |f| |g|) + (log |f| / |g|)^2

is the unbounded one. It compares the directions of two densities (the Cauchy-Schwarz divergence) and the logarithms of
their norms. For close densities it equals D / |f|. It has no unit.

In many columns product integrals leave the range of floating point, so they are kept as logarithms. Distances are
given in units of a typical norm: exp(log_scale / 2), where log_scale is the median of log <f_i, f_i>. A common unit
changes no decision. The median is used because the maximum could be set by a single spike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.family import Array, Components, Family, Labels, batches
from dask_dfmr.mixtures.gaussian import Mixture

LEAST_SQUARE = 1e-14
"""A squared distance below this share of <f, f> + <g, g> is rounding: the distance counts as 0."""

NEGLIGIBLE = 1e-15
"""Pairs of components are skipped if that changes D^2 by at most this share of <f, f> + <g, g>."""

FARTHEST = 1e6
"""Largest log-polar distance: densities whose product integral is 0 in floating point are that far from one another."""

SELF_FLOATS = 2**16
"""Size of the covariances of pairs in one call for the self products, 512 kB. Measured for 2,048 mixtures of 3
components in 2 columns, 600 of 5 in 10 and 100 of 10 in 30: 2**15 to 2**17 are alike, 2**19 takes up to 3 times as
long."""

BLOCK_SIZE = 50
"""Smallest number of mixtures in a block. With K = 5 a tile then has some 60,000 pairs of components."""

MAX_BLOCKS = 64
"""Largest number of blocks; more mixtures make blocks larger. The reduction has one task per block and round."""


@dataclass(frozen=True)
class Stack:
    """n mixtures of one family and size: weights (n, n_components) and parameters (n, n_components, ...)."""

    weights: Array
    components: Components

    def __getitem__(self, index: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Stack:
        return Stack(self.weights[index], tuple(parameter[index] for parameter in self.components))

    def one(self, i: int) -> tuple[Array, Components]:
        """Weights and components of mixture i."""
        return self.weights[i], tuple(parameter[i] for parameter in self.components)

    def pooled(self) -> Components:
        """The components of all mixtures as one set of n * n_components, mixture by mixture."""
        return tuple(parameter.reshape(-1, *parameter.shape[2:]) for parameter in self.components)

    def of_components(self, index: Labels) -> Components:
        """The components at the positions ``index`` of all mixtures as one set, mixture by mixture."""
        chosen = (parameter[:, index] for parameter in self.components)
        return tuple(p.reshape(-1, *p.shape[2:]) for p in chosen)

    def by_component(self) -> Stack:
        """The same with the axis of the components first: the first component of every mixture, then the second."""
        return Stack(self.weights.T, tuple(p.swapaxes(0, 1) for p in self.components))


def concatenate(stacks: Sequence[Stack]) -> Stack:
    """The mixtures of several stacks as one stack."""
    parameters = zip(*(stack.components for stack in stacks), strict=True)
    return Stack(
        np.concatenate([stack.weights for stack in stacks]),
        tuple(np.concatenate(p) for p in parameters),
    )


def stack_mixtures(mixtures: Sequence[Mixture]) -> Stack:
    """A stack of mixtures of one family and size."""
    parameters = zip(*(m.components for m in mixtures), strict=True)
    return Stack(np.array([m.weights for m in mixtures]), tuple(np.array(p) for p in parameters))


def log_self_products(family: Family, stack: Stack) -> Array:
    """Log <f_i, f_i> of each mixture, shape (n,)."""
    n, n_components = stack.weights.shape
    # Every pair of different components counts twice.
    first, second = np.triu_indices(n_components)
    log_factors = np.where(first == second, 0.0, np.log(2.0))
    floats_a_mixture = len(first) * max(p[0, 0].size for p in stack.components)
    found = np.empty(n)
    for s in batches(n, max(1, SELF_FLOATS // floats_a_mixture)):
        a, b = stack[s].of_components(first), stack[s].of_components(second)
        with np.errstate(divide="ignore"):
            log_weights = np.log(stack.weights[s])
        terms = log_factors + log_weights[:, first] + log_weights[:, second]
        terms += family.log_matched_integral(a, b).reshape(terms.shape)
        found[s] = _log_sum(terms)
    return found


def _log_sum(terms: Array) -> Array:
    """Log of the sum of exp(terms) over the last axis; -inf where all terms are."""
    top = terms.max(axis=-1)
    reference = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", under="ignore"):
        return np.log(np.exp(terms - reference[:, None]).sum(axis=-1)) + reference


def _log_products(
    family: Family, a: Stack, b: Stack, log_self: tuple[Array, Array] | None = None
) -> Array:
    """Log <f_i, g_j> of all pairs, shape (n_a, n_b).

    With the logarithms of the self products, negligible pairs of components are skipped.
    """
    # Components of one rank are neighbours, so that negligible pairs come in runs.
    a, b = a.by_component(), b.by_component()
    with np.errstate(divide="ignore"):
        log_weights = np.log(a.weights), np.log(b.weights)
    floor = None
    if log_self is not None:
        share = 0.5 * np.log(NEGLIGIBLE / (2 * len(a.weights) * len(b.weights)))
        floor_a, floor_b = (
            (share + 0.5 * self_product - w).ravel()
            for self_product, w in zip(log_self, log_weights, strict=True)
        )
        floor = floor_a, floor_b
    terms = family.log_product_integral(a.pooled(), b.pooled(), floor)
    terms = terms.reshape(*a.weights.shape, *b.weights.shape)
    terms = terms + log_weights[0][:, :, None, None]
    terms += log_weights[1]
    top = terms.max(axis=(0, 2))
    reference = np.where(np.isfinite(top), top, 0.0)
    terms -= reference[None, :, None, :]
    with np.errstate(divide="ignore", under="ignore"):
        return np.log(np.exp(terms, out=terms).sum(axis=(0, 2))) + reference


def l2_tile(
    family: Family, a: Stack, b: Stack, log_self_a: Array, log_self_b: Array, log_scale: float
) -> Array:
    """Distances between the mixtures of two stacks in units of exp(log_scale / 2), shape (n_a, n_b)."""
    log_products = _log_products(family, a, b, (log_self_a, log_self_b))
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.exp(log_self_a - log_scale)[:, None] + np.exp(log_self_b - log_scale)[None, :]
        distances = squares - 2.0 * np.exp(log_products - log_scale)
    distances[distances < LEAST_SQUARE * squares] = 0.0
    # A density whose norm overflows in the common unit is infinitely far from every other one.
    distances[np.isinf(squares)] = np.inf
    return np.sqrt(distances, out=distances)


def log_polar_tile(
    family: Family, a: Stack, b: Stack, log_self_a: Array, log_self_b: Array
) -> Array:
    """Log-polar distances between the mixtures of two stacks, shape (n_a, n_b), at most :data:`FARTHEST`.

    The norms are part of the distance because directions alone do not show weight that went to a component of
    vanishing norm.
    """
    norms = 0.5 * log_self_a[:, None], 0.5 * log_self_b[None, :]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = 2.0 * (norms[0] + norms[1] - _log_products(family, a, b))
        squares[squares < LEAST_SQUARE] = 0.0
        squares += (norms[0] - norms[1]) ** 2
    distances: Array = np.sqrt(squares)
    # NaN: the norm of a density is 0 or infinite in floating point.
    return np.fmin(distances, FARTHEST, out=distances)


def symmetric_tile(tile: Array) -> Array:
    """A tile on the diagonal with a zero diagonal and its upper half mirrored, because rounding is not symmetric."""
    upper = np.triu(tile, 1)
    return upper + upper.T


def block_size_for(n: int) -> int:
    """The default number of mixtures in a block. It depends on n alone, and so do the bits of the result."""
    return max(BLOCK_SIZE, -(-n // MAX_BLOCKS))


def tile_blocks(n: int, block_size: int | None = None) -> list[slice]:
    """Consecutive blocks of n mixtures, each of at most ``block_size`` (default: :func:`block_size_for`)."""
    return list(batches(n, block_size_for(n) if block_size is None else block_size))


def upper_tiles(n_blocks: int) -> Iterator[tuple[int, int]]:
    """Index pairs (i, j) with i <= j of the tiles that are computed; the other tiles are their transposes."""
    return ((i, j) for i in range(n_blocks) for j in range(i, n_blocks))


def pairwise_l2(mixtures: Sequence[Mixture]) -> Array:
    """L2 distances between the densities of mixtures.

    Parameters
    ----------
    mixtures : sequence of Mixture
        Of one covariance type, with the same numbers of components and columns.

    Returns
    -------
    ndarray of shape (n_mixtures, n_mixtures)
        Symmetric with zero diagonal, in units of a density's norm (1 / sqrt(volume)). The distance is 0 if two
        densities differ by no more than rounding. It is inf if the norm of one density, relative to those of the
        others, exceeds floating point.

    Raises
    ------
    ValueError
        If there is no mixture, or they differ in family or shape.
    TypeError
        If an element is no mixture.
    """
    mixtures = list(mixtures)
    if not mixtures:
        raise ValueError("mixtures must hold at least one Mixture; got none.")
    wrong = {type(m).__name__ for m in mixtures if not hasattr(m, "family")}
    if wrong:
        raise TypeError(f"mixtures must be Mixture objects; got {', '.join(sorted(wrong))}.")
    family = mixtures[0].family
    shapes = {(m.family.name, m.n_components, m.n_features) for m in mixtures}
    if len(shapes) > 1:
        raise ValueError(
            f"mixtures must agree in (family, n_components, n_features); got {sorted(shapes)}."
        )
    stack = stack_mixtures(mixtures)
    log_self = log_self_products(family, stack)
    log_scale = float(np.median(log_self))
    distances = np.zeros((len(mixtures), len(mixtures)))
    blocks = tile_blocks(len(mixtures))
    for i, j in upper_tiles(len(blocks)):
        a, b = blocks[i], blocks[j]
        tile = l2_tile(family, stack[a], stack[b], log_self[a], log_self[b], log_scale)
        tile = symmetric_tile(tile) if i == j else tile
        distances[a, b] = tile
        distances[b, a] = tile.T
    return in_l2_units(distances, log_scale)


def in_l2_units(distances: Array, log_scale: float) -> Array:
    """Distances from units of exp(log_scale / 2) to units of a density's norm.

    The result is 0 or inf where it leaves the range of floating point, and never NaN.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.where(distances == 0, 0.0, distances * np.exp(0.5 * log_scale))
