"""Log product integrals of all pairs of two sets of components; each lane holds one pair.

One component of the first set is combined with several of the second at once. Their summed covariances are factorised
side by side as L D L^T, which takes one division per column and no square root.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.compiled.compiling import aligned, jit, jit_part, read_only
from dask_dfmr.mixtures.compiled.lanes import (
    LANES,
    exponent,
    fma,
    fnma,
    largest,
    load,
    mantissa,
    maximum,
    splat,
    store,
)
from dask_dfmr.mixtures.family import LOG_2PI, Array, Components

PAIRS = 2 * LANES
"""Pairs computed together: two vectors, so that the processor works on one while the other waits for its sum."""

LN2 = float(np.log(2.0))


def log_product_integral(
    a: Components, b: Components, floor: tuple[Array, Array] | None = None
) -> Array:
    """Log N(mu_i; nu_j, Sigma_i + Omega_j), shape (n_a, n_b).

    Parameters
    ----------
    a, b : tuple of ndarray
        Means (n, d) and covariances (n, d, d) or variances (n, d).
    floor : tuple of ndarray, shapes (n_a,) and (n_b,), optional
        The result is -inf for pairs that a cheap upper bound shows to lie below floor_a[i] + floor_b[j].
        Variances ignore it, because they cost no more than the bound.
    """
    means_a, covariances_a = a
    n_a, d = means_a.shape
    n_b = len(b[0])
    is_matrix = covariances_a.ndim == 3
    means_b, covariances_b = _side_by_side(b, is_matrix)
    rows_a = covariances_a[:, *_lower_triangle(d)] if is_matrix else covariances_a
    scale, reach = np.zeros(d), (np.ones((2, n_a)), np.ones((2, means_b.shape[1])))
    if is_matrix and floor is not None:
        scale, reach = _reach(a, b, covariances_b, floor)
    out = np.empty((n_a, means_b.shape[1]))
    work = aligned((d * (d + 1) // 2 + 4 * d + 4) * PAIRS)
    kernel = matrix_pairs if is_matrix else vector_pairs
    first = read_only(np.ascontiguousarray(means_a)), read_only(np.ascontiguousarray(rows_a))
    kernel(first, (means_b, covariances_b), scale, reach, work, out)
    return out[:, :n_b]


@cache
def _lower_triangle(d: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the distinct entries; of few components NumPy would take longer for them than the kernel."""
    return np.tril_indices(d)


def _side_by_side(b: Components, is_matrix: bool) -> tuple[Array, Array]:
    """Means (d, n) and the distinct entries of the covariances (., n), padded with unit components to whole vectors."""
    means, covariances = b
    n, d = means.shape
    rows, columns = _lower_triangle(d)
    padded = -(-n // PAIRS) * PAIRS
    flat = covariances[:, rows, columns] if is_matrix else covariances
    entries = np.ones((flat.shape[1], padded))
    if is_matrix:
        entries[rows != columns, n:] = 0.0
    entries[:, :n] = flat.T
    locations = np.zeros((d, padded))
    locations[:, :n] = means.T
    return locations, entries


def _reach(
    a: Components, b: Components, entries_b: Array, floor: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array]]:
    """The terms of an upper bound: a scale per column, and the excess over its floor and the extent of each component.

    det(A + B) >= 2^d sqrt(det A det B), because log det is concave. The squared length of v in the metric of
    (A + B)^-1 is at least |v|^2 / (|A| + |B|) in any norm that bounds the largest eigenvalue, here the largest row sum.
    Columns are scaled first, so that the bound does not depend on their units.
    """
    d = a[0].shape[1]
    diagonal = np.arange(d)
    variances = np.concatenate([c[:, diagonal, diagonal] for c in (a[1], b[1])])
    scale = 1.0 / np.sqrt(np.exp(np.log(variances).mean(axis=0)))
    metric = np.outer(scale, scale)
    padded_b = np.full((2, entries_b.shape[1]), -np.inf)
    padded_b[1] = 1.0
    reach = np.zeros((2, len(a[0]))), padded_b
    for (_, covariances), limit, into in zip((a, b), floor, reach, strict=True):
        n = len(covariances)
        half_log_det = -_log_norm_at_zero(covariances) - 0.5 * d * LOG_2PI
        into[0, :n] = -0.25 * d * (LOG_2PI + LN2) - 0.5 * half_log_det - limit
        into[1, :n] = np.abs(covariances * metric).sum(axis=2).max(axis=1)
    return scale, reach


def _log_norm_at_zero(covariances: Array) -> Array:
    """Log-density of N(0, Sigma) at 0 for each covariance, computed by the kernel itself."""
    n, d = covariances.shape[:2]
    nothing = np.zeros((1, d)), np.zeros((1, d, d))
    return log_product_integral(nothing, (np.zeros((n, d)), covariances))[0]


# -- kernels ---------------------------------------------------------------------------------------


@jit_part
def _finish(length, product, twos, constant, out, at, work):
    """Write -1/2 (constant + log det + length) to ``out``; the determinant is product * 2 ** twos."""
    store(work, 0, product)
    store(work, LANES, twos)
    store(work, 2 * LANES, length)
    for lane in range(LANES):
        log_det = np.log(work[lane]) + work[LANES + lane] * LN2
        out[at + lane] = -0.5 * (constant + log_det + work[2 * LANES + lane])


@jit_part
def _is_negligible(i, j, means_a, means_b, scale, reach):
    """Whether none of the pairs (i, j), ..., (i, j + PAIRS - 1) can reach its floor."""
    reach_a, reach_b = reach
    best = splat(-np.inf)
    for v in range(j, j + PAIRS, LANES):
        square = splat(0.0)
        for p in range(len(scale)):
            shift = (splat(means_a[i, p]) - load(means_b[p], v)) * splat(scale[p])
            square = fma(shift, shift, square)
        length = square / (splat(reach_a[1, i]) + load(reach_b[1], v))
        above = splat(reach_a[0, i]) + load(reach_b[0], v)
        best = maximum(fma(splat(-0.5), length, above), best)
    return largest(best) < 0.0


@jit
def matrix_pairs(a, b, scale, reach, work, out):
    """All pairs of components with matrix covariances.

    ``a`` are means (n_a, d) and distinct entries of the covariances by component, ``b`` the same with the components
    last; ``scale`` and ``reach`` are the bound (:func:`_reach`), ``work`` is a buffer.
    """
    means_a, rows_a = a
    means_b, entries_b = b
    n_a, d = means_a.shape
    n_b = means_b.shape[1]
    constant = d * LOG_2PI
    one = splat(1.0)
    lower = work[4 * PAIRS :]  # L row by row, every entry two vectors
    row = lower[d * (d + 1) // 2 * PAIRS :]  # the row at work, times D
    white = row[d * PAIRS :]  # L^-1 (mu - nu)
    inverse = white[d * PAIRS :]  # 1 / D
    for i in range(n_a):
        for j in range(0, n_b, PAIRS):
            if _is_negligible(i, j, means_a, means_b, scale, reach):
                out[i, j : j + PAIRS] = -np.inf
                continue
            length0, length1 = splat(0.0), splat(0.0)
            product0, product1, twos0, twos1 = one, one, splat(0.0), splat(0.0)
            entry = 0
            for p in range(d):
                at_p = entry * PAIRS
                for q in range(p + 1):
                    from_a = splat(rows_a[i, entry])
                    s0 = from_a + load(entries_b[entry], j)
                    s1 = from_a + load(entries_b[entry], j + LANES)
                    at_q = q * (q + 1) // 2 * PAIRS
                    for t in range(q):
                        at, at_l = t * PAIRS, at_q + t * PAIRS
                        s0 = fnma(load(row, at), load(lower, at_l), s0)
                        s1 = fnma(load(row, at + LANES), load(lower, at_l + LANES), s1)
                    at = q * PAIRS
                    if q < p:
                        store(row, at, s0)
                        store(row, at + LANES, s1)
                        store(lower, at_p + at, s0 * load(inverse, at))
                        store(lower, at_p + at + LANES, s1 * load(inverse, at + LANES))
                    else:
                        store(inverse, at, one / s0)
                        store(inverse, at + LANES, one / s1)
                        product0, product1 = product0 * mantissa(s0), product1 * mantissa(s1)
                        twos0, twos1 = twos0 + exponent(s0), twos1 + exponent(s1)
                    entry += 1
                mean = splat(means_a[i, p])
                y0 = mean - load(means_b[p], j)
                y1 = mean - load(means_b[p], j + LANES)
                for t in range(p):
                    at = t * PAIRS
                    y0 = fnma(load(lower, at_p + at), load(white, at), y0)
                    y1 = fnma(load(lower, at_p + at + LANES), load(white, at + LANES), y1)
                at = p * PAIRS
                store(white, at, y0)
                store(white, at + LANES, y1)
                length0 = fma(y0 * load(inverse, at), y0, length0)
                length1 = fma(y1 * load(inverse, at + LANES), y1, length1)
                if p % 512 == 511:  # before the product of mantissas, each below 2, overflows
                    twos0, twos1 = twos0 + exponent(product0), twos1 + exponent(product1)
                    product0, product1 = mantissa(product0), mantissa(product1)
            _finish(length0, product0, twos0, constant, out[i], j, work)
            _finish(length1, product1, twos1, constant, out[i], j + LANES, work)


@jit
def vector_pairs(a, b, scale, reach, work, out):
    """All pairs of components with one variance per column, with the arguments of :func:`matrix_pairs`.

    A pair costs no more than the bound, so none is skipped.
    """
    means_a, rows_a = a
    means_b, entries_b = b
    n_a, d = means_a.shape
    constant = d * LOG_2PI
    for i in range(n_a):
        for j in range(0, means_b.shape[1], LANES):
            length, product, twos = splat(0.0), splat(1.0), splat(0.0)
            for p in range(d):
                variance = splat(rows_a[i, p]) + load(entries_b[p], j)
                shift = splat(means_a[i, p]) - load(means_b[p], j)
                length = length + shift / variance * shift
                product = product * mantissa(variance)
                twos = twos + exponent(variance)
                if p % 512 == 511:
                    twos = twos + exponent(product)
                    product = mantissa(product)
            _finish(length, product, twos, constant, out[i], j, work)
