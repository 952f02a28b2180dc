"""Lanes: several float64 side by side in one vector register, and their arithmetic, for use in numba code.

Arrays are flat and contiguous; ``load(a, i)`` reads ``a[i : i + LANES]``.

The vectoriser of LLVM, as numba runs it, has to prove that arrays do not overlap, keeps sums in memory and uses half
of the width of AVX-512. With explicit lanes the sums stay in registers. The code also fixes every rounding: nothing is
reordered, so the bits do not depend on how rows are divided into blocks.

**Risk.** numba documents ``intrinsic``, ``overload``, ``register_model`` and ``models.PrimitiveModel``. The lanes also
use interfaces that it does not document: ``numba.core.cgutils``, the methods ``make_array`` and ``get_dummy_value`` of
its code generation context, and llvmlite's builder with vector types. Any release of numba may change these, so that
the import of this module or the compilation of a kernel fails.

**Fall-back.** :func:`check_lanes` compiles one function of all operations and compares it with NumPy.
:mod:`dask_dfmr.mixtures.engine` calls it when it loads the kernels. If the import or the check fails, it logs a warning
and uses NumPy. Plain numba is no better fall-back. The same kernels with one float64 per lane, which need none of the
interfaces above, were tried with 50,000 rows in 4 to 20 columns. An EM pass took 2.0 to 3.3 times as long as NumPy with
matrix covariances, and 0.8 to 1.2 times with variances. Only product integrals of matrices were faster, 2 to 7 times.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from dask_dfmr.mixtures.compiled.compiling import jit, jit_part

LANES = 8 if llvm.get_host_cpu_features().get("avx512f") else 4
"""Values per vector: the width of AVX-512, else that of AVX2. Other processors get the latter, split by LLVM."""

_DOUBLE, _INT32 = ir.DoubleType(), ir.IntType(32)
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_BITS = ir.VectorType(ir.IntType(64), LANES)


class _Lanes(types.Type):
    """The type of a vector of LANES float64 in numba's type system."""

    def __init__(self) -> None:
        super().__init__(name=f"float64x{LANES}")


_lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), _VECTOR.as_pointer())


@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """The values array[i : i + LANES] as a vector."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_address(context, builder, signature, arguments))
        value.align = 8
        return value

    return _lanes(array, types.intp), code


@intrinsic
def store(typing: Any, array: Any, i: Any, value: Any) -> Any:
    """Set array[i : i + LANES] to the values of a vector."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        instruction = builder.store(
            arguments[2], _address(context, builder, signature, arguments[:2])
        )
        instruction.align = 8
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), code


@intrinsic
def splat(typing: Any, x: Any) -> Any:
    """A vector with the same number in all lanes."""

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
    """Code that calls the function ``llvm.<name>`` on vectors."""
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
    """The value x * y + z, rounded once."""
    return _lanes(_lanes, _lanes, _lanes), _call("fma", 3)


@intrinsic
def fnma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """The value z - x * y, rounded once."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, z = arguments
        return _call("fma", 3)(context, builder, signature, (builder.fneg(x), y, z))

    return _lanes(_lanes, _lanes, _lanes), code


@intrinsic
def sqrt(typing: Any, x: Any) -> Any:
    """Square root, lane by lane."""
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
    """Sum of all lanes, a number."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _reduce(builder, arguments[0], builder.fadd)

    return types.float64(_lanes), code


@intrinsic
def largest(typing: Any, x: Any) -> Any:
    """Maximum of all lanes, a number."""

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
    """2 ** n, where the lowest bits of ``shifted`` hold the integer n."""

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
    """The value x / 2 ** exponent(x), in [1, 2), for positive normal numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        fraction = builder.and_(builder.bitcast(arguments[0], _BITS), _integers(2**52 - 1))
        return builder.bitcast(builder.or_(fraction, _integers(1023 << 52)), _VECTOR)

    return _lanes(_lanes), code


_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SHIFT = 1.5 * 2.0**52  # x + _SHIFT holds the integer nearest to x in its lowest bits
_LEAST = -708.0  # exp(x) is no normal number below it


@jit_part
def exp(x):
    """Exponential of x <= 0 to two units in the last place; 0 below -708.

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


# -- the check -------------------------------------------------------------------------------------


@jit
def _use_everything(x, y, out):
    """Every operation at least once, on LANES values x <= 0 and y > 0; returns a sum and a maximum."""
    a, b = load(x, 0), load(y, 0)
    store(out, 0, exp(a))
    store(out, LANES, sqrt(b) / splat(2.0) - a)
    store(out, 2 * LANES, fma(a, b, fnma(a, a, b)))
    store(out, 3 * LANES, maximum(a, minimum(b, splat(-1.0))))
    store(out, 4 * LANES, exponent(b) + mantissa(b) * splat(8.0))
    return total(b), largest(a)


def check_lanes() -> None:
    """Compile one function of all operations and compare its results with NumPy's.

    Raises
    ------
    Exception
        Whatever numba or LLVM raises if this module does not fit the installed versions.
    ArithmeticError
        If a result differs from NumPy's by more than rounding.
    """
    x, y = np.linspace(-7.0, 0.0, LANES), np.geomspace(1e-3, 1e3, LANES)
    out = np.empty(5 * LANES)
    numbers = [*_use_everything(x, y, out), *out]
    fraction, power = np.frexp(y)
    rows = (
        np.exp(x),
        np.sqrt(y) / 2.0 - x,
        x * y + (y - x * x),
        np.maximum(x, np.minimum(y, -1.0)),
        (power - 1) + 16.0 * fraction,
    )
    expected = [y.sum(), x.max(), *np.concatenate(rows)]
    if not np.allclose(numbers, expected, rtol=1e-12, atol=1e-12):
        raise ArithmeticError("compiled vectors do not compute what NumPy computes")
