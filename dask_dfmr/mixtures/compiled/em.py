"""One E step over all rows and the moments it leaves, block by block of rows, the rows of a block side by side.

A block is transposed, so that a lane is a row. White residuals of all components stay in the cache
until responsibilities are known and are then used again for the moments. Matrix covariances go in
pairs of columns; an odd number of columns gets an empty one more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dask_dfmr.mixtures.compiled.lanes import (
    LANES,
    aligned,
    exp,
    fma,
    jit,
    load,
    maximum,
    minimum,
    read_only,
    splat,
    sqrt,
    store,
    total,
)
from dask_dfmr.mixtures.family import FARTHEST, Array, Rows

GROUP = 4 * LANES
"""Rows that the innermost loops handle together; a block is a multiple."""

RESIDUAL_FLOATS = 2**16
"""Size aimed at for the residuals of a block, 512 kB: they are read twice and should stay in the second cache."""

LEAST_BLOCK, LARGEST_BLOCK = 2 * GROUP, 192

CHUNK_FLOATS = 2**15
"""Size of the rows transposed at a time, 256 kB: next to them the call itself costs nothing."""

# -- from Python -----------------------------------------------------------------------------------


def em_pass(
    X: Rows, log_weights: Array, means: Array, inverse_root: Array, log_norm: Array
) -> tuple[float, Array, Array, Array]:
    """Log-likelihood, mass (K,), and first and second moments of the white residuals.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Any real dtype and layout.
    log_weights, means : ndarray of shape (K,), (K, d)
    inverse_root : ndarray of shape (K, d, d) or (K, d)
        Lower triangular, or its diagonal: what makes residuals white.
    log_norm : ndarray of shape (K,)
        Log density at the mean.

    Returns
    -------
    log_likelihood : float
    mass : ndarray of shape (K,)
    first : ndarray of shape (K, d)
    second : ndarray of shape (K, d, d) or (K, d)
    """
    n_components, d = means.shape
    is_matrix = inverse_root.ndim == 3
    center = means.mean(axis=0)
    scale, offset = _as_kernels_take_them(means - center, inverse_root)
    width = offset.shape[1]
    block = _block_size(n_components, width)
    mass, first = np.zeros(n_components), np.zeros((n_components, width))
    second = np.zeros_like(scale)
    work = aligned((n_components + 1) * width * block)
    shares = aligned((n_components + 2) * block)
    kernel = _matrix_pass if is_matrix else _vector_pass
    log_likelihood = 0.0
    for columns, n_rows in _columns_of(X, block):
        log_likelihood += kernel(
            columns,
            n_rows,
            center,
            scale.reshape(n_components, -1),
            offset,
            log_weights + log_norm,
            block,
            work,
            shares,
            mass,
            first,
            second.reshape(n_components, -1),
        )
    if not is_matrix:
        return log_likelihood, mass, first, second
    lower = second[:, :d, :d]
    return (
        log_likelihood,
        mass,
        first[:, :d],
        np.tril(lower) + np.swapaxes(np.tril(lower, -1), 1, 2),
    )


def _columns_of(X: Rows, block: int) -> Iterator[tuple[Array, int]]:
    """The rows as columns (d, n), all at once where they lie that way in memory, else copied chunk by chunk.

    With how many of the n are rows. Read-only and contiguous, so that kernels are compiled for one type of array.
    """
    if X.dtype == np.float64 and X.flags.f_contiguous and X.flags.aligned:
        yield read_only(np.asarray(X.T, dtype=np.float64)), len(X)
        return
    n_features = X.shape[1]
    step = max(block, CHUNK_FLOATS // n_features // block * block)
    columns = np.empty((n_features, min(step, len(X))))
    for i in range(0, len(X), step):
        rows = X[i : i + step]
        columns[:, : len(rows)] = rows.T
        yield read_only(columns), len(rows)


def _as_kernels_take_them(means: Array, inverse_root: Array) -> tuple[Array, Array]:
    """Scale and offset of y = scale x - offset; those of a matrix with an even number of columns."""
    if inverse_root.ndim == 2:
        return np.ascontiguousarray(inverse_root), means * inverse_root
    n_components, d = means.shape
    width = d + d % 2
    scale, offset = np.zeros((n_components, width, width)), np.zeros((n_components, width))
    scale[:, :d, :d] = inverse_root
    offset[:, :d] = np.matmul(inverse_root, means[:, :, None])[:, :, 0]
    return scale, offset


def _block_size(n_components: int, width: int) -> int:
    rows = RESIDUAL_FLOATS // (n_components * width) // GROUP * GROUP
    return min(max(rows, LEAST_BLOCK), LARGEST_BLOCK)


# -- kernels ---------------------------------------------------------------------------------------
# Flat arrays of a block: x[j * B + r] is column j of row r, y[(k * d + j) * B + r] its white residual from component
# k, q[k * B + r] first half its squared length, then its log joint density, its responsibility and the root of that.


@jit
def _take_block(columns, n_rows, center, first, B, x):
    """Rows first, first + 1, ... about the center as a block; rows that are not there are at the center."""
    n = min(B, n_rows - first)
    for j in range(len(center)):
        column, origin = columns[j], center[j]
        for r in range(n):
            x[j * B + r] = column[first + r] - origin
        for r in range(n, B):
            x[j * B + r] = 0.0
    return n


@jit
def _responsibilities(q, top, mix, constants, n, B):
    """Squared lengths to responsibilities, 0 for rows from n on; returns the log-likelihood of the block."""
    K = len(constants)
    for r in range(0, B, LANES):
        best = splat(-np.inf)
        for k in range(K):
            length = minimum(load(q, k * B + r), splat(FARTHEST))
            joint = fma(splat(-0.5), length, splat(constants[k]))
            store(q, k * B + r, joint)
            best = maximum(joint, best)
        sum_ = splat(0.0)
        for k in range(K):
            share = exp(load(q, k * B + r) - best)
            store(q, k * B + r, share)
            sum_ = sum_ + share
        store(top, r, best)
        store(mix, r, sum_)
    for r in range(n, B):
        top[r] = 0.0
        mix[r] = 1.0
    # sum of logs as logs of products: every factor is between 1 and K
    tops, product = splat(0.0), splat(1.0)
    for r in range(0, B, LANES):
        tops = tops + load(top, r)
        product = product * load(mix, r)
        store(mix, r, splat(1.0) / load(mix, r))
    log_likelihood = total(tops)
    store(top, 0, product)
    for lane in range(LANES):
        log_likelihood += np.log(top[lane])
    for r in range(n, B):
        mix[r] = 0.0
    for k in range(K):
        for r in range(0, B, LANES):
            store(q, k * B + r, load(q, k * B + r) * load(mix, r))
    return log_likelihood


@jit
def _whiten(scale, offset, x, y, y0, q, q0, d, B):
    """White residuals from one component and their squared lengths: two columns of four vectors at a time."""
    for r in range(0, B, 4 * LANES):
        zero = splat(0.0)
        l0, l1, l2, l3 = zero, zero, zero, zero
        for i in range(0, d, 2):
            a0 = a1 = a2 = a3 = splat(-offset[i])
            b0 = b1 = b2 = b3 = splat(-offset[i + 1])
            for j in range(i + 2):
                u, v = splat(scale[i * d + j]), splat(scale[(i + 1) * d + j])
                at = j * B + r
                x0, x1 = load(x, at), load(x, at + LANES)
                x2, x3 = load(x, at + 2 * LANES), load(x, at + 3 * LANES)
                a0, a1, a2, a3 = fma(u, x0, a0), fma(u, x1, a1), fma(u, x2, a2), fma(u, x3, a3)
                b0, b1, b2, b3 = fma(v, x0, b0), fma(v, x1, b1), fma(v, x2, b2), fma(v, x3, b3)
            at = y0 + i * B + r
            store(y, at, a0)
            store(y, at + LANES, a1)
            store(y, at + 2 * LANES, a2)
            store(y, at + 3 * LANES, a3)
            at += B
            store(y, at, b0)
            store(y, at + LANES, b1)
            store(y, at + 2 * LANES, b2)
            store(y, at + 3 * LANES, b3)
            l0, l1 = fma(a0, a0, fma(b0, b0, l0)), fma(a1, a1, fma(b1, b1, l1))
            l2, l3 = fma(a2, a2, fma(b2, b2, l2)), fma(a3, a3, fma(b3, b3, l3))
        store(q, q0 + r, l0)
        store(q, q0 + r + LANES, l1)
        store(q, q0 + r + 2 * LANES, l2)
        store(q, q0 + r + 3 * LANES, l3)


@jit
def _add_products(z, z0, second, d, B):
    """Add z z^T to the lower half of ``second``, two columns against four (or the last two) at a time."""
    for j in range(0, d, 2):
        at_j = z0 + j * B
        i = j
        while i + 3 < d:
            at_i = z0 + i * B
            zero = splat(0.0)
            s00, s01, s10, s11, s20, s21, s30, s31 = zero, zero, zero, zero, zero, zero, zero, zero
            for r in range(0, B, LANES):
                u, v = load(z, at_j + r), load(z, at_j + B + r)
                at = at_i + r
                a, b = load(z, at), load(z, at + B)
                s00, s01, s10, s11 = fma(a, u, s00), fma(a, v, s01), fma(b, u, s10), fma(b, v, s11)
                a, b = load(z, at + 2 * B), load(z, at + 3 * B)
                s20, s21, s30, s31 = fma(a, u, s20), fma(a, v, s21), fma(b, u, s30), fma(b, v, s31)
            at = i * d + j
            second[at] += total(s00)
            second[at + 1] += total(s01)
            second[at + d] += total(s10)
            second[at + d + 1] += total(s11)
            second[at + 2 * d] += total(s20)
            second[at + 2 * d + 1] += total(s21)
            second[at + 3 * d] += total(s30)
            second[at + 3 * d + 1] += total(s31)
            i += 4
        if i < d:
            at_i = z0 + i * B
            zero = splat(0.0)
            s00, s01, s10, s11 = zero, zero, zero, zero
            for r in range(0, B, LANES):
                u, v = load(z, at_j + r), load(z, at_j + B + r)
                a, b = load(z, at_i + r), load(z, at_i + B + r)
                s00, s01, s10, s11 = fma(a, u, s00), fma(a, v, s01), fma(b, u, s10), fma(b, v, s11)
            at = i * d + j
            second[at] += total(s00)
            second[at + 1] += total(s01)
            second[at + d] += total(s10)
            second[at + d + 1] += total(s11)


@jit
def _matrix_pass(
    columns, n_rows, center, scale, offset, constants, B, work, shares, mass, first, second
):
    """Add rows to the moments; returns their log-likelihood."""
    K, d = offset.shape
    x, y = work[: d * B], work[d * B :]
    top, mix, q = shares[:B], shares[B : 2 * B], shares[2 * B :]
    x[(d - 1) * B :] = 0.0  # the empty column, if there is one
    log_likelihood = 0.0
    for i in range(0, n_rows, B):
        n = _take_block(columns, n_rows, center, i, B, x)
        for k in range(K):
            _whiten(scale[k], offset[k], x, y, k * d * B, q, k * B, d, B)
        log_likelihood += _responsibilities(q, top, mix, constants, n, B)
        for k in range(K):
            sum_ = splat(0.0)
            for r in range(k * B, (k + 1) * B, LANES):
                share = load(q, r)
                sum_ = sum_ + share
                store(q, r, sqrt(share))
            mass[k] += total(sum_)
            for j in range(d):
                sum_ = splat(0.0)
                at = (k * d + j) * B
                for r in range(0, B, LANES):
                    root = load(q, k * B + r)
                    weighted = root * load(y, at + r)
                    store(y, at + r, weighted)
                    sum_ = fma(root, weighted, sum_)
                first[k, j] += total(sum_)
            _add_products(y, k * d * B, second[k], d, B)
    return log_likelihood


@jit
def _vector_pass(
    columns, n_rows, center, scale, offset, constants, B, work, shares, mass, first, second
):
    """The same with one variance per column; residuals are cheaper to compute again than to keep."""
    K, d = offset.shape
    x = work[: d * B]
    top, mix, q = shares[:B], shares[B : 2 * B], shares[2 * B :]
    log_likelihood = 0.0
    for i in range(0, n_rows, B):
        n = _take_block(columns, n_rows, center, i, B, x)
        for k in range(K):
            for r in range(0, B, LANES):
                length = splat(0.0)
                for j in range(d):
                    y = fma(splat(scale[k, j]), load(x, j * B + r), splat(-offset[k, j]))
                    length = fma(y, y, length)
                store(q, k * B + r, length)
        log_likelihood += _responsibilities(q, top, mix, constants, n, B)
        for k in range(K):
            sum_ = splat(0.0)
            for r in range(k * B, (k + 1) * B, LANES):
                sum_ = sum_ + load(q, r)
            mass[k] += total(sum_)
            for j in range(d):
                one, two = splat(0.0), splat(0.0)
                u, v = splat(scale[k, j]), splat(-offset[k, j])
                for r in range(0, B, LANES):
                    y = fma(u, load(x, j * B + r), v)
                    weighted = load(q, k * B + r) * y
                    one = one + weighted
                    two = fma(weighted, y, two)
                first[k, j] += total(one)
                second[k, j] += total(two)
    return log_likelihood
