"""Plain EM steps, each one pass over all rows and its M step, without Python between them.

Over a few thousand rows the NumPy calls of an M step take longer than the pass itself. The mathematics is that of
:meth:`Gaussian.em_pass`, :meth:`~Gaussian.within_target` and :meth:`~Gaussian.from_moments`, which are the reference.

A covariance is a flat row of d * d numbers (``full``, ``tied``) or of d variances (``diag``, ``spherical``). ``tied``
has one covariance, and as one of all components it is row 0. Moments of white residuals y = W (x - mu) become those of
the rows by the upper triangular root U with Sigma = U^T U and W = U^-T. The innermost loops add a multiple of one row
of numbers to another one, so that the compiler can take several numbers at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from dask_dfmr.mixtures.compiled.compiling import aligned, jit, jit_inlined, jit_part
from dask_dfmr.mixtures.compiled.em import (
    RowsOfKernel,
    block_size,
    chunks_of,
    direct_rows,
    is_direct,
    matrix_pass,
    matrix_shared_pass,
    vector_pass,
)
from dask_dfmr.mixtures.family import LEAST_MASS, LOG_2PI, NOISE, Array, Rows

FULL, DIAG, SPHERICAL, TIED = range(4)
"""The covariance structures, as kernels take them."""

STRUCTURE_CODES = {"full": FULL, "diag": DIAG, "spherical": SPHERICAL, "tied": TIED}
"""Their names."""

PASS_KINDS = {"full": (0,), "diag": (0, 0), "spherical": (0, 0), "tied": (0, 0, 0)}
"""The pass that each one takes, as a type of its own: the kernel is compiled for one of them, when it is needed."""

N_STEPS, OBJECTIVE, LOG_LIKELIHOOD, GAIN, HAS_STOPPED, OUTSIDE_FIRST, OUTSIDE, HAS_BEGUN = range(8)
"""What steps report, by position."""

ALL = True, True, True
BEGIN, SUM, FINISH = (True, False, False), (False, True, False), (False, False, True)
"""The stages of a step that a call makes: the densities, the sums over rows, and the M step."""

Stages = tuple[bool, bool, bool]


class Bounds(NamedTuple):
    """Limits of the family that a kernel checks.

    ``farthest`` is the largest white distance of a mean from the center of all means; ``largest_mean``,
    ``least_variance``, ``largest_variance`` and ``least_eigenvalue`` (of a correlation matrix) are those of a proper
    component.
    """

    farthest: float
    largest_mean: float
    least_variance: float
    largest_variance: float
    least_eigenvalue: float


class Shrinkage(NamedTuple):
    """The penalty as kernels take it: its weight and floor, and what a target is made from.

    ``is_open`` says that the target is that of the first step: the own scatter of each component and ``pooled_rows``
    rows of the pooled covariance, to which ``share_between`` of the covariance between components belongs.
    """

    weight: float
    floor: float
    is_open: bool
    pooled_rows: float
    share_between: float


class Run(NamedTuple):
    """Plain EM steps: the parameters after them, the target of the penalty, and the numbers that they report."""

    weights: Array
    means: Array
    covariances: Array
    target: Array
    report: Array

    def numbers(self) -> tuple[int, float, float, float, bool, int, int]:
        """Steps, objective, log-likelihood, gain, whether they stopped, and rows outside at the first and last one."""
        n_steps, objective, log_likelihood, gain, stopped, first, last, _ = self.report.tolist()
        return int(n_steps), objective, log_likelihood, gain, bool(stopped), int(first), int(last)


def em_steps(
    X: Rows,
    structure: str,
    point: tuple[Array, Array, Array],
    target: Array,
    shrinkage: Shrinkage,
    cut: tuple[float, bool, float, float],
    bounds: Bounds,
    rule: tuple[int, float, float],
) -> Run:
    """Make plain EM steps until one gains too little, cannot be made, or there were enough.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Any real dtype and memory layout; steps over rows that kernels do not take as they are are made one by one.
    structure : {"full", "diag", "spherical", "tied"}
    point : (weights, means, covariances)
        Arrays (K,), (K, d) and (K or 1, d * d or d). They are not changed.
    target : ndarray of the shape of the covariances
        The target of the penalty; without meaning if it is open.
    shrinkage : Shrinkage
    cut : (float, bool, float, float)
        The limit of squared lengths, whether rows beyond it do not count, and what the cut leaves of the mass and of
        the second moments.
    bounds : Bounds
    rule : (int, float, float)
        The largest number of steps, the objective before the first one, and the gain below which they stop.

    Returns
    -------
    Run
        A step that cannot be made is not counted. It has components that are not proper, or means too far apart for
        one center, and the parameters are those before it.
    """
    weights, means, covariances = (np.array(part, dtype=np.float64, order="C") for part in point)
    run = Run(weights, means, covariances, np.array(target, order="C"), np.zeros(8))
    n_components, d = means.shape
    kind = PASS_KINDS[structure]
    width = d if kind == PASS_KINDS["diag"] else d + d % 2
    kept = n_components if structure == "full" else 1
    block = block_size(kept, width)
    buffers = block, aligned((kept + 1) * width * block), aligned((2 * n_components + 3) * block)
    state = _state(n_components, d, covariances.shape, width)
    given = tuple(run), tuple(shrinkage), cut, tuple(bounds), state, buffers

    def call(rows: RowsOfKernel, rule: tuple[int, float, float], stages: Stages) -> None:
        em_steps_kernel(rows, STRUCTURE_CODES[structure], kind, *given, rule, stages)

    if is_direct(X):
        call(direct_rows(X), rule, ALL)
        return run
    n_most, objective, least_gain = rule
    no_rows = direct_rows(np.empty((0, d)))
    of_all = no_rows[0], len(X), no_rows[2]
    for step in range(n_most):
        call(of_all, (1, objective, least_gain), BEGIN)
        if not run.report[HAS_BEGUN]:
            break
        for rows in chunks_of(X, block):
            call(rows, (1, objective, least_gain), SUM)
        call(of_all, (1, objective, least_gain), FINISH)
        objective = float(run.report[OBJECTIVE])
        if run.report[N_STEPS] == step or run.report[HAS_STOPPED]:
            break
    return run


def _state(n_components: int, d: int, shape: tuple[int, ...], width: int) -> tuple[Any, ...]:
    """Arrays in which kernels keep densities, moments and new parameters between the stages of a step."""
    n_cov, size = shape
    padded = width if size == d and width == d else width * width
    roots = np.zeros(shape), np.zeros((n_cov, padded)), np.zeros(n_cov)
    densities = roots[1], np.zeros((n_components, width)), np.zeros(n_components)
    moments = np.zeros(2), *(np.zeros_like(part) for part in (densities[2], densities[1], roots[1]))
    new = np.zeros((n_components, d)), np.zeros(shape)
    return roots, densities, moments, new, np.zeros(d), np.zeros((3, d * d))


# -- kernels ---------------------------------------------------------------------------------------


@jit
def em_steps_kernel(
    rows, structure, kind, run, shrinkage, cut, bounds, state, buffers, rule, stages
):
    """Make stages of steps in place; the arguments are those of :func:`em_steps`."""
    weights, means, covariances, _, report = run
    roots, densities, moments, _, center, _ = state
    n_most, objective, least_gain = rule
    begins, sums, finishes = stages
    n_terms = rows[1] * means.shape[1]
    for _ in range(n_most):
        if begins:
            report[HAS_BEGUN] = 0.0
            if not _set_densities(
                structure, weights, means, covariances, center, roots, densities, bounds
            ):
                return
            report[HAS_BEGUN] = 1.0
            _clear(moments)
        if sums:
            taken = (rows[0], rows[1], rows[2], center)
            _pass(kind, taken, densities, (cut[0], cut[1]), buffers, moments)
        if finishes:
            if not _m_step(structure, rows[1], run, shrinkage, cut, bounds, state, objective):
                return
            objective, gain = report[OBJECTIVE], abs(report[GAIN])
            if gain < least_gain or gain <= NOISE * (abs(objective) + n_terms):
                report[HAS_STOPPED] = 1.0
                return


@jit_inlined
def _m_step(structure, n_rows, run, shrinkage, cut, bounds, state, objective):
    """Replace the parameters by those of the moments; False if these are not proper."""
    weights, means, covariances, target, report = run
    (upper, scale, log_dets), (_, offset, _), moments, (new_means, own), _, scratch = state
    totals, mass, first, second = moments
    K, d = means.shape
    is_vector = structure in (DIAG, SPHERICAL)
    if structure == TIED:
        _about_means(mass, first, second, offset, d)
    n_counted = 0.0
    for k in range(K):
        mass[k] /= cut[2]
        n_counted += mass[k]
    if n_counted <= LEAST_MASS:
        return False
    _scatter(structure, moments, cut, upper, own, scratch, d)
    _set_means(means, first, upper, new_means, is_vector)
    if shrinkage[2] and report[N_STEPS] == 0.0:
        _open_target(structure, mass, new_means, own, target, shrinkage, n_counted, scratch)
    log_prior = 0.0
    if shrinkage[0] > 0.0:
        penalty = _penalty(target, scale, log_dets, scratch, is_vector, d, offset.shape[1])
        log_prior = -shrinkage[0] * penalty * (K / len(own))
    _shrink(structure, mass, own, target, shrinkage, n_counted, d)
    if not _are_proper(new_means, own, bounds, scratch, is_vector):
        return False
    n_all = n_counted if cut[1] else float(n_rows)
    for k in range(K):
        weights[k] = mass[k] / n_all
    _copy(new_means, means)
    _copy(own, covariances)
    _report(report, totals, log_prior, objective)
    return True


@jit_inlined
def _report(report, totals, log_prior, objective):
    """Write down what a step found, with the objective before it."""
    if report[N_STEPS] == 0.0:
        report[OUTSIDE_FIRST] = totals[1]
    report[N_STEPS] += 1.0
    report[OBJECTIVE] = totals[0] + log_prior
    report[LOG_LIKELIHOOD] = totals[0]
    report[GAIN] = report[OBJECTIVE] - objective
    report[OUTSIDE] = totals[1]


@jit_inlined
def _clear(moments):
    """Set all sums to 0."""
    totals, mass, first, second = moments
    totals[0] = totals[1] = 0.0
    for k in range(len(mass)):
        mass[k] = 0.0
        for j in range(first.shape[1]):
            first[k, j] = 0.0
    for c in range(len(second)):
        for j in range(second.shape[1]):
            second[c, j] = 0.0


@jit_part
def _copy(source, target):
    """Copy a matrix. A slice would do the same, and take a second to compile."""
    for i in range(len(source)):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@jit_inlined
def _set_densities(structure, weights, means, covariances, center, roots, densities, bounds):
    """Center, roots, scale, offset and constants of a mixture; False if a covariance has no root, or a mean is far."""
    upper, scale, log_dets = roots
    _, offset, constants = densities
    K, d = means.shape
    n_cov = len(covariances)
    is_vector = structure in (DIAG, SPHERICAL)
    for j in range(d):
        center[j] = 0.0
        for k in range(K):
            center[j] += means[k, j]
        center[j] /= K
    for c in range(n_cov):
        log_dets[c] = 0.0
        if is_vector:
            for j in range(d):
                upper[c, j] = np.sqrt(covariances[c, j])
                scale[c, j] = 1.0 / upper[c, j]
                log_dets[c] += 2.0 * np.log(upper[c, j])
            continue
        for j in range(d * d):
            upper[c, j] = covariances[c, j]
        if not _factor(upper, c, d):
            return False
        _invert(upper, scale, c, d, offset.shape[1])
        for j in range(d):
            log_dets[c] += 2.0 * np.log(upper[c, j * d + j])
    for k in range(K):
        log_det = log_dets[min(k, n_cov - 1)]
        constants[k] = np.log(weights[k]) - 0.5 * (d * LOG_2PI + log_det)
    return _set_offsets(means, center, scale, offset, is_vector) <= bounds[0]


def _pass(kind, rows, densities, cut, buffers, moments):
    """Add the rows to the moments by the kernel of this kind."""
    _PASSES[len(kind)](kind, rows, densities, cut, buffers, moments)


@overload(_pass)
def _overload_pass(kind, rows, densities, cut, buffers, moments):
    return _PASSES[len(kind)]


def _matrix(kind, rows, densities, cut, buffers, moments):
    B, work, shares = buffers
    matrix_pass(rows, densities, cut, B, work, shares, moments)


def _vector(kind, rows, densities, cut, buffers, moments):
    B, work, shares = buffers
    vector_pass(rows, densities, cut, B, work, shares, moments)


def _shared(kind, rows, densities, cut, buffers, moments):
    B, work, shares = buffers
    scale, offset, constants = densities
    totals, mass, first, second = moments
    shared, sums = (scale[0], offset, constants), (totals, mass, first, second[0])
    matrix_shared_pass(rows, shared, cut, B, work, shares, sums)


_PASSES = {1: _matrix, 2: _vector, 3: _shared}
"""The pass of each kind, which the length of a tuple names."""


@jit_part
def _factor(upper, c, d):
    """Replace the upper half of matrix c by its root U; False if the matrix is not positive definite."""
    for k in range(d):
        pivot = upper[c, k * d + k]
        if not pivot > 0.0:
            return False
        root = np.sqrt(pivot)
        inverse = 1.0 / root
        upper[c, k * d + k] = root
        for j in range(k + 1, d):
            upper[c, k * d + j] *= inverse
        for i in range(k + 1, d):
            factor = upper[c, k * d + i]
            for j in range(i, d):
                upper[c, i * d + j] -= factor * upper[c, k * d + j]
    return True


@jit_part
def _invert(upper, scale, c, d, width):
    """The lower triangular W = U^-T of root c, as a matrix of ``width``."""
    for i in range(d):
        inverse = 1.0 / upper[c, i * d + i]
        at = i * width
        for j in range(i):
            scale[c, at + j] = 0.0
        for j in range(i):
            factor = upper[c, j * d + i]
            for p in range(j + 1):
                scale[c, at + p] -= factor * scale[c, j * width + p]
        for j in range(i):
            scale[c, at + j] *= inverse
        scale[c, at + i] = inverse


@jit_part
def _set_offsets(means, center, scale, offset, is_vector):
    """The white means about the center, in ``offset``; returns the largest distance of one in a column."""
    K, d = means.shape
    width, farthest = offset.shape[1], 0.0
    for k in range(K):
        c = min(k, len(scale) - 1)
        for i in range(d):
            white = 0.0
            if is_vector:
                white = scale[c, i] * (means[k, i] - center[i])
            else:
                for j in range(i + 1):
                    white += scale[c, i * width + j] * (means[k, j] - center[j])
            offset[k, i] = white
            if not abs(white) <= farthest:
                farthest = abs(white)
    return farthest


@jit_part
def _about_means(mass, first, second, white, d):
    """Moments about the center of the means, moved to the white means themselves; one second moment of all."""
    width = first.shape[1]
    for k in range(len(mass)):
        for i in range(d):
            f, m = first[k, i], white[k, i]
            for j in range(i + 1):
                moved = f * white[k, j] + m * first[k, j] - mass[k] * m * white[k, j]
                second[0, i * width + j] -= moved
        for i in range(d):
            first[k, i] -= mass[k] * white[k, i]


@jit_part
def _scatter(structure, moments, cut, upper, own, scratch, d):
    """The scatter of the rows about their means, in ``own``; the first moments become white shifts of the means."""
    _, mass, first, second = moments
    inside, second_left = cut[2], cut[3]
    K, width = first.shape
    for k in range(K):
        rows = mass[k] * inside
        for j in range(d):
            first[k, j] = first[k, j] / rows if rows > 0.0 else 0.0
    for c in range(len(own)):
        if structure in (DIAG, SPHERICAL):
            sum_ = 0.0
            for j in range(d):
                white = second[c, j] / second_left - mass[c] * first[c, j] * first[c, j]
                own[c, j] = upper[c, j] * upper[c, j] * white
                sum_ += own[c, j]
            if structure == SPHERICAL:
                for j in range(d):
                    own[c, j] = sum_ / d
            continue
        for i in range(d):
            for j in range(i + 1):
                white = second[c, i * width + j] / second_left
                if structure == TIED:
                    for k in range(K):
                        white -= mass[k] * first[k, i] * first[k, j]
                else:
                    white -= mass[c] * first[c, i] * first[c, j]
                scratch[0, i * d + j] = white
                scratch[0, j * d + i] = white
        _colour(scratch, upper, own, c, d)


@jit_part
def _colour(scratch, upper, own, c, d):
    """The matrix U^T A U of the symmetric A in row 0 of ``scratch``; its halves are equal to the last bit."""
    for i in range(d):
        at = i * d
        for j in range(d):
            scratch[1, at + j] = 0.0
            own[c, at + j] = 0.0
        for p in range(i + 1):
            factor = upper[c, p * d + i]
            for j in range(d):
                scratch[1, at + j] += factor * scratch[0, p * d + j]
        for p in range(d):
            factor = scratch[1, at + p]
            for j in range(max(i, p), d):
                own[c, at + j] += factor * upper[c, p * d + j]
    for i in range(d):
        for j in range(i):
            own[c, i * d + j] = own[c, j * d + i]


@jit_part
def _set_means(means, white, upper, new_means, is_vector):
    """The means and their shifts, which are white, in ``new_means``."""
    K, d = means.shape
    for k in range(K):
        c = min(k, len(upper) - 1)
        for j in range(d):
            new_means[k, j] = means[k, j]
        for p in range(d):
            if is_vector:
                new_means[k, p] += upper[c, p] * white[k, p]
            else:
                for j in range(p, d):
                    new_means[k, j] += upper[c, p * d + j] * white[k, p]


@jit_part
def _open_target(structure, mass, means, own, target, shrinkage, n_counted, scratch):
    """The target of the penalty from the scatter of the first step (:meth:`Gaussian.within_target`)."""
    pooled_rows, share_between = shrinkage[3], shrinkage[4]
    n_cov, size = own.shape
    K, d = means.shape
    is_vector = structure in (DIAG, SPHERICAL)
    for j in range(size):
        scratch[0, j] = 0.0
    for j in range(d):
        mean = 0.0
        for k in range(K):
            mean += mass[k] * (means[k, j] - means[0, j])
        scratch[1, j] = means[0, j] + mean / n_counted
    for k in range(K):
        for i in range(d):
            one = means[k, i] - scratch[1, i]
            if is_vector:
                scratch[0, i] += mass[k] * one * one
                continue
            for j in range(d):
                scratch[0, i * d + j] += mass[k] * one * (means[k, j] - scratch[1, j])
    if structure == SPHERICAL:
        sum_ = 0.0
        for j in range(d):
            sum_ += scratch[0, j]
        for j in range(d):
            scratch[0, j] = sum_ / d
    for j in range(size):
        within = 0.0
        for c in range(n_cov):
            within += own[c, j]
        pooled = (within + share_between * scratch[0, j]) / n_counted
        for c in range(n_cov):
            shrunk = (own[c, j] + pooled_rows * pooled) / (mass[c] + pooled_rows)
            target[c, j] = pooled if structure == TIED else shrunk


@jit_part
def _penalty(target, scale, log_dets, scratch, is_vector, d, width):
    """The sum of tr(T Sigma^-1) + log det Sigma over the covariances, from W with Sigma^-1 = W^T W."""
    total = 0.0
    for c in range(len(target)):
        total += log_dets[c]
        for i in range(d):
            if is_vector:
                total += target[c, i] * scale[c, i] * scale[c, i]
                continue
            at = i * width
            for j in range(i + 1):
                scratch[0, j] = 0.0
            for p in range(i + 1):
                factor = scale[c, at + p]
                for j in range(i + 1):
                    scratch[0, j] += factor * target[c, p * d + j]
            for j in range(i + 1):
                total += scratch[0, j] * scale[c, at + j]
    return total


@jit_part
def _shrink(structure, mass, own, target, shrinkage, n_counted, d):
    """Replace scatter by covariances: with the penalty, and the floor on the diagonal."""
    weight, floor = shrinkage[0], shrinkage[1]
    n_cov, size = own.shape
    is_vector = structure in (DIAG, SPHERICAL)
    for c in range(n_cov):
        prior = 2.0 * weight * (len(mass) if structure == TIED else 1)
        total = prior + (n_counted if structure == TIED else mass[c])
        inverse = 1.0 / total if total > 0.0 else 0.0
        for j in range(size):
            shrunk = own[c, j] + prior * target[c, j] if prior > 0.0 else own[c, j]
            own[c, j] = inverse * shrunk
        for j in range(d):
            own[c, j if is_vector else j * d + j] += floor


@jit_part
def _are_proper(means, covariances, bounds, scratch, is_vector):
    """Whether means and covariances are those of densities (:meth:`Gaussian.is_proper`)."""
    _, largest_mean, least, largest, least_eigenvalue = bounds
    K, d = means.shape
    for k in range(K):
        for j in range(d):
            if not abs(means[k, j]) <= largest_mean:
                return False
    for c in range(len(covariances)):
        for j in range(d):
            variance = covariances[c, j if is_vector else j * d + j]
            if not (least <= variance <= largest):
                return False
        if is_vector:
            continue
        for i in range(d):
            spread = np.sqrt(covariances[c, i * d + i])
            for j in range(i, d):
                other = np.sqrt(covariances[c, j * d + j])
                correlation = covariances[c, i * d + j] / (spread * other)
                scratch[0, i * d + j] = correlation - (least_eigenvalue if i == j else 0.0)
        if not _factor(scratch, 0, d):
            return False
    return True
