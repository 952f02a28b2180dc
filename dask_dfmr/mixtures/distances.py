"""L2 distances between mixture densities: D(f, g)^2 = <f, f> - 2 <f, g> + <g, g>, tile by tile.

Product integrals are kept as logarithms. In many columns they leave the range of floating point, so
distances are measured in units of a typical norm, exp(log_scale / 2) with log_scale the median of
log <f_i, f_i>; a common unit changes no verdict. The median, because with the maximum one spike
would set everybody's unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.family import Array, Components, Family
from dask_dfmr.mixtures.gaussian import Mixture

ROUNDING = 1e-14
"""D^2 below this share of <f, f> + <g, g> is rounding: the densities are the same."""

NEGLIGIBLE = 1e-15
"""Pairs of components may be left out as long as that changes D^2 by no more than this share of <f, f> + <g, g>."""

SELF_BLOCK_SIZE = 8
"""Mixtures whose self products are computed together, though only the diagonal is wanted: a call has its cost."""

BLOCK_SIZE = 50
"""Machines per block, at least: a tile is then some 60,000 pairs of components at K = 5."""

MAX_BLOCKS = 64
"""Of more machines blocks get larger, not more: the reduction is a task per block and round."""


@dataclass(frozen=True)
class Stack:
    """Several mixtures of one family and size: weights and parameters with (n, n_components) in front."""

    weights: Array
    components: Components

    def __getitem__(self, index: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Stack:
        return Stack(self.weights[index], tuple(parameter[index] for parameter in self.components))

    def one(self, i: int) -> tuple[Array, Components]:
        """Weights and components of one of them."""
        return self.weights[i], tuple(parameter[i] for parameter in self.components)

    def pooled(self) -> Components:
        """All components of all mixtures in one row, mixture by mixture."""
        return tuple(parameter.reshape(-1, *parameter.shape[2:]) for parameter in self.components)

    def by_component(self) -> Stack:
        """The same with the mixtures behind the components: the first ones of all, then the second ones."""
        return Stack(self.weights.T, tuple(p.swapaxes(0, 1) for p in self.components))


def concatenate(stacks: Sequence[Stack]) -> Stack:
    """Several stacks as one."""
    parameters = zip(*(stack.components for stack in stacks), strict=True)
    return Stack(
        np.concatenate([stack.weights for stack in stacks]),
        tuple(np.concatenate(p) for p in parameters),
    )


def stack_mixtures(mixtures: Sequence[Mixture]) -> Stack:
    """Mixtures of one family and size as arrays."""
    parameters = zip(*(m.components for m in mixtures), strict=True)
    return Stack(np.array([m.weights for m in mixtures]), tuple(np.array(p) for p in parameters))


def log_self_products(family: Family, stack: Stack) -> Array:
    """Log <f_i, f_i>, shape (n,)."""
    blocks = [stack[s] for s in tile_blocks(len(stack.weights), SELF_BLOCK_SIZE)]
    return np.concatenate([np.diagonal(_log_products(family, block, block)) for block in blocks])


def _log_products(
    family: Family, a: Stack, b: Stack, log_self: tuple[Array, Array] | None = None
) -> Array:
    """Log <f_i, g_j> of all pairs, shape (n_a, n_b); with the self products, negligible pairs of components may go."""
    # Components of one rank lie side by side, so that what is negligible comes in runs.
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
    """Distances between the mixtures of two blocks in units of exp(log_scale / 2), shape (n_a, n_b)."""
    log_products = _log_products(family, a, b, (log_self_a, log_self_b))
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.exp(log_self_a - log_scale)[:, None] + np.exp(log_self_b - log_scale)[None, :]
        distances = squares - 2.0 * np.exp(log_products - log_scale)
    distances[distances < ROUNDING * squares] = 0.0
    # A density too high for floating point in everybody's unit is far from everything.
    distances[np.isinf(squares)] = np.inf
    return np.sqrt(distances, out=distances)


def symmetric_tile(tile: Array) -> Array:
    """A tile on the diagonal: zero there, and its upper half mirrored, since rounding is not symmetric."""
    upper = np.triu(tile, 1)
    return upper + upper.T


def block_size_for(n: int) -> int:
    """The machines of a block where the user does not choose: a function of their number alone, so bits are too."""
    return max(BLOCK_SIZE, -(-n // MAX_BLOCKS))


def tile_blocks(n: int, block_size: int | None = None) -> list[slice]:
    """Consecutive blocks of at most ``block_size``, by default :func:`block_size_for`."""
    block_size = block_size_for(n) if block_size is None else block_size
    return [slice(i, min(i + block_size, n)) for i in range(0, n, block_size)]


def upper_tiles(n_blocks: int) -> Iterator[tuple[int, int]]:
    """Index pairs (i, j), i <= j: the tiles that are computed; the others are their transposes."""
    return ((i, j) for i in range(n_blocks) for j in range(i, n_blocks))


def pairwise_l2(mixtures: Sequence[Mixture]) -> Array:
    """L2 distances between the densities of mixtures.

    Parameters
    ----------
    mixtures : sequence of Mixture
        Of one covariance type, with the same number of components and columns.

    Returns
    -------
    ndarray of shape (n_mixtures, n_mixtures)
        Symmetric with zero diagonal, in units of a density's norm (1 / sqrt(volume)). Densities
        closer than rounding can tell have distance 0; one whose norm exceeds floating point next to
        the others' has distance inf.

    Raises
    ------
    ValueError
        If there is no mixture, or they differ in family or shape.
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
    """Distances in units of exp(log_scale / 2) as plain numbers: 0 or inf where those leave the range, never NaN."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.where(distances == 0, 0.0, distances * np.exp(0.5 * log_scale))
