"""One E step over all rows, with the moments of the next M step or with values of each row, in blocks of rows.

A block is copied column by column, so that each lane holds one row. With matrix covariances the white residuals of all
components stay in the cache until the responsibilities are known, and are then used again for the moments. Columns are
taken in pairs there; an odd number of columns gets one empty column more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dask_dfmr.mixtures.compiled.compiling import aligned, jit, jit_part, read_only
from dask_dfmr.mixtures.compiled.lanes import (
    LANES,
    exp,
    fma,
    load,
    maximum,
    minimum,
    splat,
    sqrt,
    store,
    total,
    zero_below,
)
from dask_dfmr.mixtures.family import MAX_SQUARED_LENGTH, Array, EmSums, Quantity, Rows, batches

GROUP = 4 * LANES
"""Rows per step of the innermost loops. The number of rows of a block is a multiple of it."""

RESIDUAL_FLOATS = 2**16
"""Target size of the residuals of a block, 512 kB: they are read twice and should stay in the second-level cache."""

LEAST_BLOCK, LARGEST_BLOCK = 2 * GROUP, 192
"""Bounds of the number of rows of a block. Each lane multiplies one factor of at most K for every row that it holds,
so a larger block could overflow (:func:`_responsibilities`)."""

CHUNK_FLOATS = 2**15
"""Size of the rows that are converted together, 256 kB: enough that the cost of a call does not matter."""

LOG_DENSITY, LABEL, RESPONSIBILITIES = 0, 1, 2
"""The quantities of a row, as kernels take them."""

CODES = {"log_density": LOG_DENSITY, "label": LABEL, "responsibilities": RESPONSIBILITIES}
"""Their names."""

RowsOfKernel = tuple[Array, int, tuple[int, int]]
"""Numbers, how many rows, and the steps from row to row and column to column."""

# -- from Python -----------------------------------------------------------------------------------


def em_pass(
    X: Rows,
    log_weights: Array,
    means: Array,
    inverse_root: Array,
    log_norm: Array,
    cut: tuple[float, bool],
) -> EmSums:
    """The E step over all rows: log-likelihood, moments of the white residuals, and rows beyond all cuts.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Any real dtype and memory layout.
    log_weights, means : ndarray of shape (K,), (K, d)
    inverse_root : ndarray of shape (K, d, d) or (K, d)
        The lower triangular matrix W with white residuals W (x - mu), or its diagonal.
    log_norm : ndarray of shape (K,)
        Log-density of each component at its mean.
    cut : (float, bool)
        The largest squared length of a white residual inside, and whether responsibilities are 0 beyond it.

    Returns
    -------
    EmSums
        Its moments are mass (K,), the sum of the responsibilities; first (K, d), the sum of responsibility times white
        residual; and second (K, d, d) or (K, d), the sum of responsibility times the outer product of the white
        residual with itself, or its diagonal.
    """
    n_components, d = means.shape
    is_matrix = inverse_root.ndim == 3
    center = means.mean(axis=0)
    scale, offset = _scale_and_offset(means - center, inverse_root)
    width = offset.shape[1]
    block = block_size(n_components, width)
    mass, first = np.zeros(n_components), np.zeros((n_components, width))
    second = np.zeros_like(scale)
    work = aligned((n_components + 1) * width * block)
    shares = aligned((2 * n_components + 3) * block)
    kernel = matrix_pass if is_matrix else vector_pass
    densities = scale.reshape(n_components, -1), offset, log_weights + log_norm
    totals = np.zeros(2)
    moments = totals, mass, first, second.reshape(n_components, -1)
    for rows in chunks_of(X, block):
        kernel((*rows, center), densities, cut, block, work, shares, moments)
    log_likelihood, n_outside = float(totals[0]), int(totals[1])
    if not is_matrix:
        return EmSums(log_likelihood, (mass, first, second), n_outside)
    mirror(second)
    return EmSums(log_likelihood, (mass, first[:, :d], second[:, :d, :d]), n_outside)


def shared_pass(
    X: Rows,
    log_weights: Array,
    means: Array,
    inverse_root: Array,
    log_norm: Array,
    cut: tuple[float, bool],
) -> EmSums:
    """The E step over all rows if all components have one covariance matrix.

    The arguments are those of :func:`em_pass`, but ``inverse_root`` (d, d) is that of all components. Moments are about
    the center of all means: mass (K,), first (K, d), and second (1, d, d), of all components together.
    """
    n_components, d = means.shape
    center = means.mean(axis=0)
    scale, offset = _scale_and_offset(means - center, inverse_root[None])
    width = offset.shape[1]
    block = block_size(1, width)
    mass, first = np.zeros(n_components), np.zeros((n_components, width))
    second = np.zeros((1, width, width))
    work = aligned(2 * width * block)
    shares = aligned((2 * n_components + 3) * block)
    densities = scale.ravel(), offset, log_weights + log_norm
    totals = np.zeros(2)
    moments = totals, mass, first, second.ravel()
    for rows in chunks_of(X, block):
        matrix_shared_pass((*rows, center), densities, cut, block, work, shares, moments)
    mirror(second)
    return EmSums(float(totals[0]), (mass, first[:, :d], second[:, :d, :d]), int(totals[1]))


def evaluate(
    X: Rows,
    log_weights: Array,
    means: Array,
    inverse_root: Array,
    log_norm: Array,
    quantity: Quantity,
) -> Array:
    """A quantity of each row, as :meth:`Family.evaluate` has it; the other arguments are those of :func:`em_pass`."""
    n_components = len(means)
    center = means.mean(axis=0)
    scale, offset = _scale_and_offset(means - center, inverse_root)
    width = offset.shape[1]
    block = block_size(1, width)
    work, shares = aligned(2 * width * block), aligned((n_components + 2) * block)
    kernel = matrix_values if inverse_root.ndim == 3 else vector_values
    densities = scale.reshape(n_components, -1), offset, log_weights + log_norm
    code = CODES[quantity]
    found = np.empty((len(X), n_components if code == RESPONSIBILITIES else 1))
    start = 0
    for rows in chunks_of(X, block):
        stop = start + rows[1]
        kernel((*rows, center), densities, code, block, work, shares, found[start:stop])
        start = stop
    return found if code == RESPONSIBILITIES else found[:, 0]


def chunks_of(X: Rows, block: int) -> Iterator[RowsOfKernel]:
    """The rows as kernels take them; those that they do not take as they are get copied in chunks of whole blocks."""
    if is_direct(X):
        yield direct_rows(X)
        return
    n_rows, d = X.shape
    step = max(block, CHUNK_FLOATS // d // block * block)
    buffer = np.empty((min(step, n_rows), d))
    for chunk in batches(n_rows, step):
        rows = X[chunk]
        buffer[: len(rows)] = rows
        yield direct_rows(buffer[: len(rows)])


def is_direct(X: Rows) -> bool:
    """Whether kernels take the rows as they are: float64 that lie in memory row by row or column by column."""
    return bool(X.dtype == np.float64 and X.flags.aligned and X.flags.forc)


def direct_rows(X: Rows) -> RowsOfKernel:
    """The rows for which :func:`is_direct` is true, as kernels take them.

    All arrays are flat and read-only, so that kernels are compiled for one type of array.
    """
    n_rows, d = X.shape
    is_by_row = X.flags.c_contiguous
    flat = np.asarray(X if is_by_row else X.T, dtype=np.float64).reshape(-1)
    return read_only(flat), n_rows, (d, 1) if is_by_row else (1, n_rows)


def _scale_and_offset(means: Array, inverse_root: Array) -> tuple[Array, Array]:
    """Scale and offset of the white residuals y = scale x - offset; matrices are padded to an even width."""
    if inverse_root.ndim == 2:
        return np.ascontiguousarray(inverse_root), means * inverse_root
    n_components, d = means.shape
    width = d + d % 2
    scale, offset = np.zeros((n_components, width, width)), np.zeros((n_components, width))
    scale[:, :d, :d] = inverse_root
    offset[:, :d] = np.matmul(inverse_root, means[:, :, None])[:, :, 0]
    return scale, offset


def block_size(n_components: int, width: int) -> int:
    """Rows of a block, whose white residuals from so many components are kept."""
    rows = RESIDUAL_FLOATS // (n_components * width) // GROUP * GROUP
    return min(max(rows, LEAST_BLOCK), LARGEST_BLOCK)


# -- kernels ---------------------------------------------------------------------------------------
# Flat arrays of a block of B rows. x[j * B + r] is column j of row r. y[(k * d + j) * B + r] is its white residual from
# component k. q[k * B + r] holds in turn the squared length of that residual, the log joint density, the responsibility
# and its square root. near[k * B + r] is 1 if the row is inside the cut of component k, else 0; any_near[r] is their
# maximum.


@jit_part
def _take_block(rows, first, B, x):
    """Copy rows first, first + 1, ... minus the center into x, column by column; rows past the end count as the center.

    Returns the number of rows that are none of these.
    """
    numbers, n_rows, steps, center = rows
    row_step, column_step = steps
    d = len(center)
    n = min(B, n_rows - first)
    if row_step == 1:
        whole = n // LANES * LANES
        for j in range(d):
            at, origin = j * column_step + first, center[j]
            about = splat(origin)
            for r in range(0, whole, LANES):
                store(x, j * B + r, load(numbers, at + r) - about)
            for r in range(whole, n):
                x[j * B + r] = numbers[at + r] - origin
    else:
        for r in range(n):
            at = (first + r) * row_step
            for j in range(d):
                x[j * B + r] = numbers[at + j] - center[j]
    for j in range(d):
        for r in range(n, B):
            x[j * B + r] = 0.0
    return n


@jit_part
def _responsibilities(shares, constants, cut, n, B):
    """Replace squared lengths by responsibilities, 0 for rows from n on.

    Returns the log-likelihood of the block and its number of rows beyond all cuts.
    """
    K = len(constants)
    limit, truncates = cut
    top, mix, any_near = shares[:B], shares[B : 2 * B], shares[2 * B : 3 * B]
    q, near = shares[3 * B : (3 + K) * B], shares[(3 + K) * B :]
    for r in range(0, B, LANES):
        best, nearest = splat(-np.inf), splat(0.0)
        for k in range(K):
            length = minimum(load(q, k * B + r), splat(MAX_SQUARED_LENGTH))
            is_near = zero_below(splat(limit), length, splat(1.0))
            nearest = maximum(nearest, is_near)
            if truncates:
                store(near, k * B + r, is_near)
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
        store(any_near, r, nearest)
    for r in range(n, B):
        top[r] = 0.0
        mix[r] = 1.0
        any_near[r] = 0.0
    n_near = splat(0.0)
    for r in range(0, B, LANES):
        n_near = n_near + load(any_near, r)
    # The sum of the logarithms is the logarithm of a product of factors between 1 and K.
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
            share = load(q, k * B + r) * load(mix, r)
            if truncates:
                share = share * load(near, k * B + r)
            store(q, k * B + r, share)
    return log_likelihood, n - total(n_near)


@jit_part
def _whiten(scale, offset, x, y, q, d, B):
    """White residuals y from one component and their squared lengths q, two columns of four vectors at a time."""
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
            at = i * B + r
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
        store(q, r, l0)
        store(q, r + LANES, l1)
        store(q, r + 2 * LANES, l2)
        store(q, r + 3 * LANES, l3)


@jit_part
def _add_products(z, z0, second, d, B):
    """Add z z^T to the lower half of ``second``, two columns against four (or against the last two) at a time."""
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
def matrix_pass(rows, densities, cut, B, work, shares, moments):
    """Add rows to the moments, their log-likelihood, and how many are beyond all cuts; matrix covariances.

    ``rows`` are :data:`RowsOfKernel` and the center of all means; ``densities`` scale, offset and log constant of each
    component; ``cut`` its limit, and whether it truncates; ``work`` and ``shares`` buffers for x and y, and for the
    numbers of each row and component.
    """
    n_rows = rows[1]
    scale, offset, constants = densities
    totals, mass, first, second = moments
    K, d = offset.shape
    x, y = work[: d * B], work[d * B :]
    q = shares[3 * B : (3 + K) * B]
    x[(d - 1) * B :] = 0.0  # the empty column of an odd number of columns
    for i in range(0, n_rows, B):
        n = _take_block(rows, i, B, x)
        for k in range(K):
            residuals, lengths = y[k * d * B : (k + 1) * d * B], q[k * B : (k + 1) * B]
            _whiten(scale[k], offset[k], x, residuals, lengths, d, B)
        in_nats, outside = _responsibilities(shares, constants, cut, n, B)
        totals[0] += in_nats
        totals[1] += outside
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


@jit_part
def _lengths_from(offset, y, q, d, B):
    """Squared lengths q of the white rows y from one white mean."""
    for r in range(0, B, 2 * LANES):
        l0, l1 = splat(0.0), splat(0.0)
        for j in range(d):
            mean, at = splat(offset[j]), j * B + r
            a0, a1 = load(y, at) - mean, load(y, at + LANES) - mean
            l0, l1 = fma(a0, a0, l0), fma(a1, a1, l1)
        store(q, r, l0)
        store(q, r + LANES, l1)


@jit
def matrix_shared_pass(rows, densities, cut, B, work, shares, moments):
    """Add rows to the moments, their log-likelihood, and how many are beyond all cuts; one matrix for all.

    The arguments are those of :func:`matrix_pass`. Rows are whitened once, and their products are summed once.
    """
    n_rows = rows[1]
    scale, offset, constants = densities
    totals, mass, first, second = moments
    K, d = offset.shape
    x, y = work[: d * B], work[d * B :]
    q = shares[3 * B : (3 + K) * B]
    counted = shares[:B]  # the largest terms of the rows, until their responsibilities are known
    none = np.zeros(d)
    x[(d - 1) * B :] = 0.0  # the empty column of an odd number of columns
    for i in range(0, n_rows, B):
        n = _take_block(rows, i, B, x)
        _whiten(scale, none, x, y, counted, d, B)
        for k in range(K):
            _lengths_from(offset[k], y, q[k * B : (k + 1) * B], d, B)
        in_nats, outside = _responsibilities(shares, constants, cut, n, B)
        totals[0] += in_nats
        totals[1] += outside
        for k in range(K):
            sum_ = splat(0.0)
            for r in range(k * B, (k + 1) * B, LANES):
                sum_ = sum_ + load(q, r)
            mass[k] += total(sum_)
            for j in range(0, d, 2):
                one, two = splat(0.0), splat(0.0)
                at = j * B
                for r in range(0, B, LANES):
                    share = load(q, k * B + r)
                    one = fma(share, load(y, at + r), one)
                    two = fma(share, load(y, at + B + r), two)
                first[k, j] += total(one)
                first[k, j + 1] += total(two)
        for r in range(0, B, LANES):
            sum_ = splat(0.0)
            for k in range(K):
                sum_ = sum_ + load(q, k * B + r)
            store(counted, r, sqrt(sum_))
        for j in range(d):
            for r in range(0, B, LANES):
                store(y, j * B + r, load(counted, r) * load(y, j * B + r))
        _add_products(y, 0, second, d, B)


@jit
def mirror(second):
    """Copy the lower halves of matrices (K, d, d) to the upper ones, where parts of sums may be."""
    K, d, _ = second.shape
    for k in range(K):
        for i in range(d):
            for j in range(i):
                second[k, j, i] = second[k, i, j]


@jit_part
def _square_lengths(scale, offset, x, q, d, B):
    """Squared lengths q of the white residuals from one component, with one variance per column."""
    for r in range(0, B, LANES):
        length = splat(0.0)
        for j in range(d):
            y = fma(splat(scale[j]), load(x, j * B + r), splat(-offset[j]))
            length = fma(y, y, length)
        store(q, r, length)


@jit
def vector_pass(rows, densities, cut, B, work, shares, moments):
    """Add rows to the moments, their log-likelihood, and how many are beyond all cuts; one variance per column.

    The arguments are those of :func:`matrix_pass`. Residuals are cheaper to compute again than to keep.
    """
    n_rows = rows[1]
    scale, offset, constants = densities
    totals, mass, first, second = moments
    K, d = offset.shape
    x = work[: d * B]
    q = shares[3 * B : (3 + K) * B]
    for i in range(0, n_rows, B):
        n = _take_block(rows, i, B, x)
        for k in range(K):
            _square_lengths(scale[k], offset[k], x, q[k * B : (k + 1) * B], d, B)
        in_nats, outside = _responsibilities(shares, constants, cut, n, B)
        totals[0] += in_nats
        totals[1] += outside
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


@jit_part
def _values(shares, constants, quantity, n, B, found):
    """Compute the quantity of n rows from the squared lengths in ``shares``."""
    K = len(constants)
    top, mix, q = shares[:B], shares[B : 2 * B], shares[2 * B :]
    for r in range(0, B, LANES):
        best = splat(-np.inf)
        for k in range(K):
            length = minimum(load(q, k * B + r), splat(MAX_SQUARED_LENGTH))
            joint = fma(splat(-0.5), length, splat(constants[k]))
            store(q, k * B + r, joint)
            best = maximum(joint, best)
        store(top, r, best)
    if quantity == LABEL:
        for r in range(0, B, LANES):
            best, first = load(top, r), splat(0.0)
            for k in range(K - 1, -1, -1):
                is_best = zero_below(load(q, k * B + r), best, splat(1.0))
                first = fma(is_best, splat(float(k)) - first, first)
            store(mix, r, first)
        for r in range(n):
            found[r, 0] = mix[r]
        return
    for r in range(0, B, LANES):
        sum_ = splat(0.0)
        for k in range(K):
            share = exp(load(q, k * B + r) - load(top, r))
            store(q, k * B + r, share)
            sum_ = sum_ + share
        store(mix, r, sum_)
        if quantity == RESPONSIBILITIES:
            for k in range(K):
                store(q, k * B + r, load(q, k * B + r) / sum_)
    if quantity == LOG_DENSITY:
        for r in range(n):
            found[r, 0] = top[r] + np.log(mix[r])
        return
    for r in range(n):
        for k in range(K):
            found[r, k] = q[k * B + r]


@jit
def matrix_values(rows, densities, quantity, B, work, shares, found):
    """Write the quantity of each row to ``found``; matrix covariances. Arguments as of :func:`matrix_pass`."""
    n_rows = rows[1]
    scale, offset, constants = densities
    K, d = offset.shape
    x, y = work[: d * B], work[d * B :]
    x[(d - 1) * B :] = 0.0  # the empty column of an odd number of columns
    for i in range(0, n_rows, B):
        n = _take_block(rows, i, B, x)
        for k in range(K):
            _whiten(scale[k], offset[k], x, y, shares[(2 + k) * B : (3 + k) * B], d, B)
        _values(shares, constants, quantity, n, B, found[i : i + n])


@jit
def vector_values(rows, densities, quantity, B, work, shares, found):
    """Write the quantity of each row to ``found``; one variance per column."""
    n_rows = rows[1]
    scale, offset, constants = densities
    K, d = offset.shape
    x = work[: d * B]
    for i in range(0, n_rows, B):
        n = _take_block(rows, i, B, x)
        for k in range(K):
            _square_lengths(scale[k], offset[k], x, shares[(2 + k) * B : (3 + k) * B], d, B)
        _values(shares, constants, quantity, n, B, found[i : i + n])
