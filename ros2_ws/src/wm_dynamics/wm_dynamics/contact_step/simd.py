"""Sixteen bodies or pairs side by side: arithmetic on vectors of the processor.

An operation on ``Simd`` emits an LLVM vector instruction into the Numba function that is being compiled
(``emission``), so it runs as wide as the processor is (AVX-512, AVX2, SSE, NEON) without relying on a compiler to
find that out. A vector of width 1 is a number alone.

Nothing here assumes that numbers are finite: NaN stays NaN. Elementary functions are
polynomials, good to about 2e-7 (exponential and logarithm: S. Moshier, Cephes, expf and logf; sine and cosine: Taylor
series over half a period).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

SIMD_WIDTH = 16
"""Bodies or pairs in one vector: an AVX-512 register of float32; narrower processors use several registers."""
FLOAT, INDEX, WHOLE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_FLAGS = ("contract", "nsz")
"""LLVM's fast-math flags: products and sums may be fused, the sign of zero may be lost; NaN and infinity are kept."""


def vector_type(width: int, of: ir.Type = FLOAT) -> ir.VectorType:
    """Of so many numbers."""
    return ir.VectorType(of, width)


class Mask:
    """Booleans side by side.

    Attributes:
        builder: of LLVM instructions; value: LLVM's vector of i1.
    """

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.builder, self.builder.and_(self.value, other.value))


class Simd:
    """Numbers side by side.

    Attributes:
        builder: of LLVM instructions; value: LLVM's vector of float32.
    """

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @property
    def width(self) -> int:
        """How many."""
        return int(self.value.type.count)

    def same(self, number: float) -> Any:
        """A constant of this width."""
        return ir.Constant(self.value.type, [float(number)] * self.width)

    def _with(self, other: Number) -> Any:
        return other.value if isinstance(other, Simd) else self.same(other)

    def __add__(self, other: Number) -> Simd:
        return Simd(self.builder, self.builder.fadd(self.value, self._with(other), flags=_FLAGS))

    def __sub__(self, other: Number) -> Simd:
        return Simd(self.builder, self.builder.fsub(self.value, self._with(other), flags=_FLAGS))

    def __mul__(self, other: Number) -> Simd:
        return Simd(self.builder, self.builder.fmul(self.value, self._with(other), flags=_FLAGS))

    def __truediv__(self, other: Number) -> Simd:
        return Simd(self.builder, self.builder.fdiv(self.value, self._with(other), flags=_FLAGS))

    def __rsub__(self, other: float) -> Simd:
        return Simd(self.builder, self.builder.fsub(self._with(other), self.value, flags=_FLAGS))

    def __rtruediv__(self, other: float) -> Simd:
        return Simd(self.builder, self.builder.fdiv(self._with(other), self.value, flags=_FLAGS))

    def __neg__(self) -> Simd:
        return Simd(self.builder, self.builder.fneg(self.value))

    def __abs__(self) -> Simd:
        return _call("llvm.fabs", self)

    __radd__ = __add__
    __rmul__ = __mul__

    def _compare(self, operator: str, other: Number) -> Mask:
        return Mask(self.builder, self.builder.fcmp_ordered(operator, self.value, self._with(other)))

    def __lt__(self, other: Number) -> Mask:
        return self._compare("<", other)

    def __le__(self, other: Number) -> Mask:
        return self._compare("<=", other)

    def __gt__(self, other: Number) -> Mask:
        return self._compare(">", other)

    def __ge__(self, other: Number) -> Mask:
        return self._compare(">=", other)


Number = Simd | float


def _call(name: str, value: Simd, flags: Sequence[str] = ()) -> Simd:
    kind = value.value.type
    function = intrinsic_of(value.builder, name, ir.FunctionType(kind, [kind]), value.width)
    return Simd(value.builder, value.builder.call(function, [value.value], fastmath=tuple(flags)))


def intrinsic_of(builder: Any, name: str, kind: ir.FunctionType, width: int) -> Any:
    """LLVM's own function of a name for vectors of a width."""
    return cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{width}f32")


def where(mask: Mask, one: Number, other: Number) -> Simd:
    """``one`` where the mask is true, ``other`` in the rest."""
    kind = vector_type(mask.value.type.count)
    pick = [v.value if isinstance(v, Simd) else ir.Constant(kind, [float(v)] * kind.count) for v in (one, other)]
    return Simd(mask.builder, mask.builder.select(mask.value, *pick))


def at_least(value: Simd, low: Number) -> Simd:
    """The greater one; what is not a number stays so."""
    return where(value < low, low, value)


def at_most(value: Simd, high: Number) -> Simd:
    """The smaller one; what is not a number stays so."""
    return where(value > high, high, value)


def sqrt(value: Simd) -> Simd:
    """Square root."""
    return _call("llvm.sqrt", value)


def _to_whole(value: Simd) -> Any:
    return value.builder.fptosi(value.value, vector_type(value.width, WHOLE))


def _whole(value: Simd, number: int) -> Any:
    return ir.Constant(vector_type(value.width, WHOLE), [number] * value.width)


def exp(value: Simd) -> Simd:
    """Exponential; 0 below -87, no more than e^88."""
    b = value.builder
    x = at_most(at_least(value, -87.0), 88.0)
    k = _call("llvm.floor", x * 1.44269504 + 0.5)
    r = x - k * 0.693359375 - k * -2.12194440e-4
    p = r * 1.9875691500e-4 + 1.3981999507e-3
    for c in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + c
    p = p * (r * r) + r + 1.0
    power = b.shl(b.add(_to_whole(k), _whole(value, 127)), _whole(value, 23))
    return p * Simd(b, b.bitcast(power, value.value.type))


def log(value: Simd) -> Simd:
    """Natural logarithm of positive numbers."""
    b = value.builder
    bits = b.bitcast(value.value, vector_type(value.width, WHOLE))
    mantissa = b.or_(b.and_(bits, _whole(value, 0x007FFFFF)), _whole(value, 0x3F000000))
    m = Simd(b, b.bitcast(mantissa, value.value.type))  # in [0.5, 1)
    e = Simd(b, b.sitofp(b.sub(b.lshr(bits, _whole(value, 23)), _whole(value, 126)), value.value.type))
    low = m < 0.70710678
    e = e - where(low, 1.0, 0.0)
    x = where(low, m + m, m) - 1.0
    z = x * x
    p = x * 7.0376836292e-2 - 1.1514610310e-1
    for c in (1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
              -2.4999993993e-1, 3.3333331174e-1):  # fmt: skip
        p = p * x + c
    result = x + (x * z * p - 0.5 * z + e * -2.12194440e-4) + e * 0.693359375
    return where(value > 0.0, result, value)


def tanh(value: Simd) -> Simd:
    """Hyperbolic tangent, to 2e-7 absolute."""
    x = at_most(at_least(value, -9.5), 9.5)
    return 1.0 - 2.0 / (exp(x + x) + 1.0)


def sigmoid(value: Simd) -> Simd:
    """1 / (1 + exp(-x))."""
    return 1.0 / (exp(-value) + 1.0)


def sine_cosine(value: Simd) -> tuple[Simd, Simd]:
    """Sine and cosine."""
    b = value.builder
    k = _call("llvm.floor", value * (1.0 / math.pi) + 0.5)
    r = value - k * 3.140625 - k * 9.67653589793e-4
    odd = b.and_(_to_whole(k), _whole(value, 1))
    sign = where(Mask(b, b.icmp_signed("==", odd, _whole(value, 1))), -1.0, 1.0)
    z = r * r
    s = z * -2.5052108e-8 + 2.7557319e-6
    for c in (-1.9841270e-4, 8.3333333e-3, -1.6666667e-1):
        s = s * z + c
    s = s * (z * r) + r
    c_ = z * 2.0876757e-9 - 2.7557319e-7
    for c in (2.4801587e-5, -1.3888889e-3, 4.1666667e-2, -0.5):
        c_ = c_ * z + c
    c_ = c_ * z + 1.0
    return s * sign, c_ * sign
