"""Sixteen bodies or pairs side by side: arithmetic on vectors of the processor, written as formulas.

A formula over ``Lanes`` emits LLVM vector instructions into the Numba function that holds it (``emitted``), so it
runs as wide as the processor is (AVX-512, AVX2, SSE, NEON) without relying on a compiler to find that out. Values live
in tiles: scratch of float32 rows of ``SIMD_WIDTH`` numbers, row after row.

Nothing here assumes that numbers are finite: what is not a number stays so and shows. Elementary functions are
polynomials, good to about 2e-7 (exponential and logarithm: S. Moshier, Cephes, expf and logf; sine and cosine: Taylor
series over half a period).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SIMD_WIDTH = 16
_VECTOR = ir.VectorType(ir.FloatType(), SIMD_WIDTH)
_WHOLE = ir.VectorType(ir.IntType(32), SIMD_WIDTH)
_FLAGS = ("contract", "nsz")
"""Products and sums may be fused; what is not a number must stay visible."""


class Mask:
    """A truth value per lane."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.builder, self.builder.and_(self.value, other.value))

    def __invert__(self) -> Mask:
        return Mask(self.builder, self.builder.not_(self.value))


class Lanes:
    """A number per lane."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _with(self, other: Number) -> Any:
        return other.value if isinstance(other, Lanes) else ir.Constant(_VECTOR, [float(other)] * SIMD_WIDTH)

    def __add__(self, other: Number) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.value, self._with(other), flags=_FLAGS))

    def __sub__(self, other: Number) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.value, self._with(other), flags=_FLAGS))

    def __mul__(self, other: Number) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.value, self._with(other), flags=_FLAGS))

    def __truediv__(self, other: Number) -> Lanes:
        return Lanes(self.builder, self.builder.fdiv(self.value, self._with(other), flags=_FLAGS))

    def __rsub__(self, other: float) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self._with(other), self.value, flags=_FLAGS))

    def __rtruediv__(self, other: float) -> Lanes:
        return Lanes(self.builder, self.builder.fdiv(self._with(other), self.value, flags=_FLAGS))

    def __neg__(self) -> Lanes:
        return Lanes(self.builder, self.builder.fneg(self.value))

    def __abs__(self) -> Lanes:
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


Number = Lanes | float
Vector = list[Lanes]
"""Three components."""
Matrix = list[list[Lanes]]
"""Three rows."""


def _call(name: str, value: Lanes, flags: Sequence[str] = ()) -> Lanes:
    function = _intrinsic(value.builder, name, ir.FunctionType(_VECTOR, [_VECTOR]))
    return Lanes(value.builder, value.builder.call(function, [value.value], fastmath=tuple(flags)))


def _intrinsic(builder: Any, name: str, kind: ir.FunctionType) -> Any:
    return cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{SIMD_WIDTH}f32")


def where(mask: Mask, one: Number, other: Number) -> Lanes:
    """``one`` in the lanes where the mask is true, ``other`` in the rest."""
    b = mask.builder
    pick = [v.value if isinstance(v, Lanes) else ir.Constant(_VECTOR, [float(v)] * SIMD_WIDTH) for v in (one, other)]
    return Lanes(b, b.select(mask.value, *pick))


def flag(mask: Mask) -> Lanes:
    """1 where true, else 0."""
    return where(mask, 1.0, 0.0)


def at_least(value: Lanes, low: Number) -> Lanes:
    """The greater one; what is not a number stays so."""
    return where(value < low, low, value)


def at_most(value: Lanes, high: Number) -> Lanes:
    """The smaller one; what is not a number stays so."""
    return where(value > high, high, value)


def relu(value: Lanes) -> Lanes:
    """At least 0."""
    return at_least(value, 0.0)


def sqrt(value: Lanes) -> Lanes:
    """Square root."""
    return _call("llvm.sqrt", value)


def _to_whole(value: Lanes) -> Any:
    return value.builder.fptosi(value.value, _WHOLE)


def _whole(number: int) -> Any:
    return ir.Constant(_WHOLE, [number] * SIMD_WIDTH)


def exp(value: Lanes) -> Lanes:
    """Exponential; 0 below -87, no more than e^88."""
    b = value.builder
    x = at_most(at_least(value, -87.0), 88.0)
    k = _call("llvm.floor", x * 1.44269504 + 0.5)
    r = x - k * 0.693359375 - k * -2.12194440e-4
    p = r * 1.9875691500e-4 + 1.3981999507e-3
    for c in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + c
    p = p * (r * r) + r + 1.0
    power = b.shl(b.add(_to_whole(k), _whole(127)), _whole(23))
    return p * Lanes(b, b.bitcast(power, _VECTOR))


def log(value: Lanes) -> Lanes:
    """Natural logarithm of positive numbers."""
    b = value.builder
    bits = b.bitcast(value.value, _WHOLE)
    mantissa = b.or_(b.and_(bits, _whole(0x007FFFFF)), _whole(0x3F000000))
    m = Lanes(b, b.bitcast(mantissa, _VECTOR))  # in [0.5, 1)
    e = Lanes(b, b.sitofp(b.sub(b.lshr(bits, _whole(23)), _whole(126)), _VECTOR))
    low = m < 0.70710678
    e = e - flag(low)
    x = where(low, m + m, m) - 1.0
    z = x * x
    p = x * 7.0376836292e-2 - 1.1514610310e-1
    for c in (1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
              -2.4999993993e-1, 3.3333331174e-1):  # fmt: skip
        p = p * x + c
    result = x + (x * z * p - 0.5 * z + e * -2.12194440e-4) + e * 0.693359375
    return where(value > 0.0, result, value)


def tanh(value: Lanes) -> Lanes:
    """Hyperbolic tangent, to 2e-7 absolute."""
    x = at_most(at_least(value, -9.5), 9.5)
    return 1.0 - 2.0 / (exp(x + x) + 1.0)


def sigmoid(value: Lanes) -> Lanes:
    """1 / (1 + exp(-x))."""
    return 1.0 / (exp(-value) + 1.0)


def sine_cosine(value: Lanes) -> tuple[Lanes, Lanes]:
    """Sine and cosine."""
    b = value.builder
    k = _call("llvm.floor", value * (1.0 / math.pi) + 0.5)
    r = value - k * 3.140625 - k * 9.67653589793e-4
    odd = b.and_(_to_whole(k), _whole(1))
    sign = where(Mask(b, b.icmp_signed("==", odd, _whole(1))), -1.0, 1.0)
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


# -- vectors and matrices


def dot(a: Vector, b: Vector) -> Lanes:
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """Vector product."""
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def plus(a: Vector, b: Vector) -> Vector:
    """Sum."""
    return [x + y for x, y in zip(a, b, strict=True)]


def minus(a: Vector, b: Vector) -> Vector:
    """Difference."""
    return [x - y for x, y in zip(a, b, strict=True)]


def times(a: Vector, factor: Number) -> Vector:
    """A vector by a number."""
    return [x * factor for x in a]


def turn(matrix: Matrix, vector: Vector) -> Vector:
    """Matrix times vector."""
    return [row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2] for row in matrix]


def turn_back(matrix: Matrix, vector: Vector) -> Vector:
    """Transposed matrix times vector."""
    return turn([[matrix[j][i] for j in range(3)] for i in range(3)], vector)


def in_world(rotation: Matrix, matrix: Matrix) -> Matrix:
    """R M R^T."""
    columns = [[matrix[j][k] for j in range(3)] for k in range(3)]
    left = [[dot(rotation[i], columns[k]) for k in range(3)] for i in range(3)]
    return [[dot(left[i], rotation[k]) for k in range(3)] for i in range(3)]


def unit(vector: Vector, floor: float) -> Vector:
    """Of length 1."""
    length = sqrt(dot(vector, vector) + floor * floor)
    return [x / length for x in vector]


# -- memory


class Tile:
    """Rows of SIMD_WIDTH numbers in a scratch array, from an offset on."""

    def __init__(self, builder: Any, pointer: Any) -> None:
        self.builder, self.pointer = builder, pointer

    def _at(self, row: int, of: ir.Type = _VECTOR) -> Any:
        address = self.builder.gep(self.pointer, [ir.Constant(ir.IntType(64), row * SIMD_WIDTH)])
        return self.builder.bitcast(address, of.as_pointer())

    def __getitem__(self, row: int) -> Lanes:
        return Lanes(self.builder, self.builder.load(self._at(row), align=4))

    def __setitem__(self, row: int, value: Lanes) -> None:
        self.builder.store(value.value, self._at(row), align=4)

    def vector(self, row: int, stride: int = 1) -> Vector:
        """Three rows."""
        return [self[row + i * stride] for i in range(3)]

    def matrix(self, row: int) -> Matrix:
        """Nine rows."""
        return [self.vector(row + 3 * i) for i in range(3)]

    def put(self, row: int, values: Sequence[Lanes], stride: int = 1) -> None:
        """Store several rows."""
        for i, value in enumerate(values):
            self[row + i * stride] = value


class Numbers:
    """Single numbers of a float32 array, each the same in all lanes."""

    def __init__(self, builder: Any, pointer: Any) -> None:
        self.builder, self.pointer = builder, pointer

    def __getitem__(self, index: int) -> Lanes:
        b = self.builder
        number = b.load(b.gep(self.pointer, [ir.Constant(ir.IntType(64), index)]), align=4)
        one = b.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
        all_of_it = b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), _whole(0))
        return Lanes(b, all_of_it)


def highest(values: Sequence[Lanes]) -> Lanes:
    """The greatest number of all lanes of all values, in all lanes."""
    most = values[0]
    for value in values[1:]:
        most = at_least(value, most)
    b = most.builder
    function = _intrinsic(b, "llvm.vector.reduce.fmax", ir.FunctionType(ir.FloatType(), [_VECTOR]))
    found = b.call(function, [most.value])
    return _in_all(b, found)


def total(values: Sequence[Lanes]) -> Lanes:
    """The sum of all lanes of all values, in all lanes."""
    whole = values[0]
    for value in values[1:]:
        whole = whole + value
    b = whole.builder
    kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR])
    function = _intrinsic(b, "llvm.vector.reduce.fadd", kind)
    start = ir.Constant(ir.FloatType(), 0.0)
    return _in_all(b, b.call(function, [start, whole.value], fastmath=("reassoc",)))


def _in_all(b: Any, number: Any) -> Lanes:
    one = b.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return Lanes(b, b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), _whole(0)))


def emitted(*kinds: type[Tile] | type[Numbers]) -> Callable[[Callable[..., None]], Any]:
    """A formula over tiles and numbers as a function that Numba code calls.

    Of each argument of the formula the call takes a float32 array and the offset of its first number.
    """

    def decorate(formula: Callable[..., None]) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = []
            for kind, array, offset, array_type in zip(
                kinds, arguments[::2], arguments[1::2], signature.args[::2], strict=True
            ):
                data = context.make_array(array_type)(context, builder, array).data
                made.append(kind(builder, builder.gep(data, [offset])))
            formula(*made)
            return context.get_dummy_value()

        pairs = ", ".join(f"array{i}, offset{i}" for i in range(len(kinds)))
        names: dict[str, Any] = {}
        exec(f"def call(typing, {pairs}): return make(({pairs},))", {"make": lambda given: _made(given, emit)}, names)
        call = names["call"]
        call.__name__ = call.__qualname__ = formula.__name__.lstrip("_")
        call.__doc__ = formula.__doc__
        made: Any = intrinsic(call)
        made.formula, made.kinds = formula, kinds
        return made

    return decorate


def _made(given: Sequence[Any], emit: Any) -> Any:
    arguments = [types.int64 if i % 2 else kind for i, kind in enumerate(given)]
    return types.void(*arguments), emit
