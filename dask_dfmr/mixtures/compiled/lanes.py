"""A value of several float64 side by side, for use in numba code: what a vector register holds, and its arithmetic.

numba's own vectoriser has to prove that arrays do not overlap, keeps sums in memory and uses half
the width of AVX-512. With the lanes written out, sums stay in registers and every rounding is the
one that stands in the code: no reordering, the same bits for every block.

Arrays are flat and contiguous; ``load(a, i)`` reads ``a[i : i + LANES]``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from dask_dfmr.mixtures.family import Array

LANES = 8 if llvm.get_host_cpu_features().get("avx512f") else 4
"""Values per vector: the width of AVX-512, or that of AVX2 (elsewhere LLVM splits it)."""

LINE = 64
"""Bytes of a line of the cache."""

_DOUBLE, _INT32 = ir.DoubleType(), ir.IntType(32)
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_BITS = ir.VectorType(ir.IntType(64), LANES)


class _Lanes(types.Type):
    """numba's type of such a value."""

    def __init__(self) -> None:
        super().__init__(name=f"float64x{LANES}")


_lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def jit(function: Callable[..., Any]) -> Any:
    """Compile without the GIL, cached on disk if there is a place that can be written."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # numba: no locator available
        return njit(nogil=True, error_model="numpy")(function)


# -- memory ----------------------------------------------------------------------------------------


def aligned(size: int) -> Array:
    """An empty array that starts a line of the cache: a vector across two lines costs two loads."""
    raw = np.empty(size + LINE // 8)
    first = -raw.ctypes.data % LINE // 8
    return raw[first : first + size]


def read_only(array: Array) -> Array:
    """A view that cannot be written: to numba that is a type of its own, and a kernel should be compiled for one."""
    view = array.view()
    view.setflags(write=False)
    return view


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), _VECTOR.as_pointer())


@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """array[i : i + LANES]."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_address(context, builder, signature, arguments))
        value.align = 8
        return value

    return _lanes(array, types.intp), code


@intrinsic
def store(typing: Any, array: Any, i: Any, value: Any) -> Any:
    """array[i : i + LANES] = value."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        instruction = builder.store(
            arguments[2], _address(context, builder, signature, arguments[:2])
        )
        instruction.align = 8
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), code


@intrinsic
def splat(typing: Any, x: Any) -> Any:
    """The same number in all lanes."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(undefined, arguments[0], ir.Constant(_INT32, 0))
        mask = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
        return builder.shuffle_vector(first, undefined, mask)

    return _lanes(types.float64), code


# -- arithmetic ------------------------------------------------------------------------------------


def _binary(instruction: str) -> Any:
    @intrinsic
    def function(typing: Any, x: Any, y: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return _lanes(_lanes, _lanes), code

    return function


def _call(name: str, n_arguments: int) -> Callable[..., Any]:
    """A function of LLVM over vectors."""
    function_type = ir.FunctionType(_VECTOR, [_VECTOR] * n_arguments)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module, function_type, f"llvm.{name}.v{LANES}f64"
        )
        return builder.call(function, arguments)

    return code


def _is_lanes(*arguments: Any) -> bool:
    return all(argument == _lanes for argument in arguments)


_add, _subtract, _multiply, _divide = map(_binary, ("fadd", "fsub", "fmul", "fdiv"))


@overload(operator.add)
def _overload_add(x, y):
    return (lambda x, y: _add(x, y)) if _is_lanes(x, y) else None


@overload(operator.sub)
def _overload_subtract(x, y):
    return (lambda x, y: _subtract(x, y)) if _is_lanes(x, y) else None


@overload(operator.mul)
def _overload_multiply(x, y):
    return (lambda x, y: _multiply(x, y)) if _is_lanes(x, y) else None


@overload(operator.truediv)
def _overload_divide(x, y):
    return (lambda x, y: _divide(x, y)) if _is_lanes(x, y) else None


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """X * y + z, rounded once."""
    return _lanes(_lanes, _lanes, _lanes), _call("fma", 3)


@intrinsic
def fnma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """Z - x * y, rounded once."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, z = arguments
        return _call("fma", 3)(context, builder, signature, (builder.fneg(x), y, z))

    return _lanes(_lanes, _lanes, _lanes), code


@intrinsic
def sqrt(typing: Any, x: Any) -> Any:
    """Square root."""
    return _lanes(_lanes), _call("sqrt", 1)


def _select(comparison: str) -> Any:
    @intrinsic
    def function(typing: Any, x: Any, y: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, *arguments), *arguments)

        return _lanes(_lanes, _lanes), code

    return function


maximum, minimum = _select(">"), _select("<")


@intrinsic
def zero_below(typing: Any, x: Any, bound: Any, value: Any) -> Any:
    """``value``, or 0 where x < bound."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        below = builder.fcmp_ordered("<", arguments[0], arguments[1])
        return builder.select(below, ir.Constant(_VECTOR, [0.0] * LANES), arguments[2])

    return _lanes(_lanes, _lanes, _lanes), code


def _reduce(builder: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """All lanes combined into one number, by halves."""
    width = LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(value.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                value, undefined, ir.Constant(ir.VectorType(_INT32, width), positions)
            )
            for positions in (list(range(width)), list(range(width, 2 * width)))
        )
        value = combine(low, high)
    return builder.extract_element(value, ir.Constant(_INT32, 0))


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """Sum of the lanes."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _reduce(builder, arguments[0], builder.fadd)

    return types.float64(_lanes), code


@intrinsic
def largest(typing: Any, x: Any) -> Any:
    """The largest of the lanes."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def larger(x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        return _reduce(builder, arguments[0], larger)

    return types.float64(_lanes), code


# -- exponentials and logarithms -------------------------------------------------------------------


def _integers(value: int) -> Any:
    return ir.Constant(_BITS, [value] * LANES)


@intrinsic
def _power_of_two(typing: Any, shifted: Any) -> Any:
    """2 ** n, where n stands in the lowest bits of ``shifted``."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        n = builder.bitcast(arguments[0], _BITS)
        return builder.bitcast(builder.shl(builder.add(n, _integers(1023)), _integers(52)), _VECTOR)

    return _lanes(_lanes), code


@intrinsic
def exponent(typing: Any, x: Any) -> Any:
    """Floor of the binary logarithm of positive normal numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        raised = builder.lshr(builder.bitcast(arguments[0], _BITS), _integers(52))
        return builder.sitofp(builder.sub(raised, _integers(1023)), _VECTOR)

    return _lanes(_lanes), code


@intrinsic
def mantissa(typing: Any, x: Any) -> Any:
    """X / 2 ** exponent(x), in [1, 2)."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        fraction = builder.and_(builder.bitcast(arguments[0], _BITS), _integers(2**52 - 1))
        return builder.bitcast(builder.or_(fraction, _integers(1023 << 52)), _VECTOR)

    return _lanes(_lanes), code


_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SHIFT = 1.5 * 2.0**52  # added, it leaves the nearest integer in the lowest bits
_LEAST = -708.0  # below it exp leaves the normal numbers


@jit
def exp(x):
    """E ** x for x <= 0 to two units in the last place; 0 below -708.

    x = n ln 2 + r with |r| <= ln(2) / 2, and the Taylor polynomial of degree 12 in r, whose
    remainder is below 2e-16.
    """
    least = splat(_LEAST)
    bounded = maximum(x, least)
    shifted = fma(bounded, splat(_LOG2_E), splat(_SHIFT))
    n = shifted - splat(_SHIFT)
    r = fma(n, splat(-_LN2_HIGH), bounded)
    r = fma(n, splat(-_LN2_LOW), r)
    p = fma(splat(1.0 / 479001600.0), r, splat(1.0 / 39916800.0))
    p = fma(p, r, splat(1.0 / 3628800.0))
    p = fma(p, r, splat(1.0 / 362880.0))
    p = fma(p, r, splat(1.0 / 40320.0))
    p = fma(p, r, splat(1.0 / 5040.0))
    p = fma(p, r, splat(1.0 / 720.0))
    p = fma(p, r, splat(1.0 / 120.0))
    p = fma(p, r, splat(1.0 / 24.0))
    p = fma(p, r, splat(1.0 / 6.0))
    p = fma(p, r, splat(0.5))
    p = fma(p, r, splat(1.0))
    p = fma(p, r, splat(1.0))
    return zero_below(x, least, p * _power_of_two(shifted))
