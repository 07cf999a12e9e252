"""Small arrays of ``Simd`` numbers: the number type with which the formulas are compiled.

NumPy broadcasts and indexes them as it does arrays of objects; the axis of the bodies is inside of each number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from wm_dynamics.contact_step import numbers, simd
from wm_dynamics.contact_step.simd import FLOAT, INDEX, WHOLE, Simd, vector_type


class SimdArray(np.ndarray):  # type: ignore[type-arg]
    """An array of ``Simd`` or of ``Mask``; comparisons give arrays of ``Mask``."""

    def __lt__(self, other: Any) -> SimdArray:
        return np.less(self, other, dtype=object)  # type: ignore[no-any-return]

    def __le__(self, other: Any) -> SimdArray:
        return np.less_equal(self, other, dtype=object)  # type: ignore[no-any-return]

    def __gt__(self, other: Any) -> SimdArray:
        return np.greater(self, other, dtype=object)  # type: ignore[no-any-return]

    def __ge__(self, other: Any) -> SimdArray:
        return np.greater_equal(self, other, dtype=object)  # type: ignore[no-any-return]


def array_of(values: Sequence[Any], shape: tuple[int, ...]) -> SimdArray:
    """The values, row by row."""
    made = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        made[i] = value
    return made.reshape(shape).view(SimdArray)


def _each(function: Callable[..., Any], arguments: int) -> Callable[..., SimdArray]:
    """An operation on single numbers as one on arrays."""
    over_arrays = np.frompyfunc(function, arguments, 1)

    def operation(*values: Any) -> SimdArray:
        return np.asarray(over_arrays(*values), dtype=object).view(SimdArray)

    return operation


def _sine_cosine(value: SimdArray) -> tuple[SimdArray, SimdArray]:
    both = [simd.sine_cosine(v) for v in value.ravel()]
    return array_of([s for s, _ in both], value.shape), array_of([c for _, c in both], value.shape)


def _greatest(values: SimdArray, *vectors: SimdArray) -> tuple[SimdArray, ...]:
    most, found = values[0], [v[:, 0] for v in vectors]
    for k in range(1, len(values)):
        better = array_of([values[k] > most], (1,))
        most = simd.where(better[0], values[k], most)
        found = [numbers.where(better, v[:, k], f) for v, f in zip(vectors, found, strict=True)]
    return tuple(f[:, None].view(SimdArray) for f in found)


def _most(values: SimdArray) -> SimdArray:
    result = values[0]
    for value in values[1:]:
        result = simd.at_least(value, result)
    return array_of([result], (1,))


def _least(values: SimdArray) -> SimdArray:
    result = values[0]
    for value in values[1:]:
        result = simd.at_most(value, result)
    return array_of([result], (1,))


def _stack(*values: Any) -> SimdArray:
    return np.stack(np.broadcast_arrays(*values)).view(SimdArray)


def _join(*values: Any, axis: int = 0) -> SimdArray:
    return np.concatenate(values, axis).view(SimdArray)


numbers.exp.register(SimdArray, _each(simd.exp, 1))
numbers.log.register(SimdArray, _each(simd.log, 1))
numbers.tanh.register(SimdArray, _each(simd.tanh, 1))
numbers.sqrt.register(SimdArray, _each(simd.sqrt, 1))
numbers.sigmoid.register(SimdArray, _each(simd.sigmoid, 1))
numbers.sine_cosine.register(SimdArray, _sine_cosine)
numbers.where.register(SimdArray, _each(simd.where, 3))
numbers.flag.register(SimdArray, lambda mask, _: numbers.where(mask, 1.0, 0.0))
numbers.at_least.register(SimdArray, _each(simd.at_least, 2))
numbers.at_most.register(SimdArray, _each(simd.at_most, 2))
numbers.most.register(SimdArray, _most)
numbers.least.register(SimdArray, _least)
numbers.greatest.register(SimdArray, _greatest)
numbers.stack.register(SimdArray, _stack)
numbers.join.register(SimdArray, _join)


# -- points of one hull side by side


class HullPoints:
    """The points of one hull in memory, x of all, y of all, z of all: side by side in the vectors.

    Args:
        builder: of LLVM instructions.
        pointer: to 3 times ``count`` float32.
        count: a multiple of SIMD_WIDTH.

    Attributes:
        builder, pointer: as given.
        blocks: vectors of SIMD_WIDTH points.
    """

    def __init__(self, builder: Any, pointer: Any, count: int) -> None:
        self.builder, self.pointer, self.blocks = builder, pointer, count // simd.SIMD_WIDTH

    def farthest(self, direction: Sequence[Simd], tolerance: float) -> list[Simd]:
        """The mean of the points that lie farthest along a direction, of the direction's width (all of it the same
        number).
        """
        b, width = self.builder, direction[0].width
        along = [spread(first_of(d), b, simd.SIMD_WIDTH) for d in direction]
        blocks = [
            [load(b, self.pointer, (i * self.blocks + k) * simd.SIMD_WIDTH, simd.SIMD_WIDTH) for i in range(3)]
            for k in range(self.blocks)
        ]
        reach = [along[0] * x + along[1] * y + along[2] * z for x, y, z in blocks]
        far = spread(_reduced(reach, simd.at_least, "fmax"), b, simd.SIMD_WIDTH) - tolerance
        best = [simd.where(r >= far, 1.0, 0.0) for r in reach]
        count = spread(_reduced(best, lambda one, two: two + one, "fadd"), b, width)
        sums = [_reduced([w * p[i] for w, p in zip(best, blocks, strict=True)], lambda one, two: two + one, "fadd")
                for i in range(3)]  # fmt: skip
        return [spread(s, b, width) / count for s in sums]


def _farthest(points: HullPoints, directions: SimdArray, tolerance: float) -> SimdArray:
    found = [points.farthest(list(directions[:, k]), tolerance) for k in range(directions.shape[1])]
    return np.stack([array_of(f, (3,)) for f in found], axis=1).view(SimdArray)


numbers.farthest.register(HullPoints, _farthest)


def load(b: Any, pointer: Any, offset: int, width: int) -> Simd:
    """Numbers side by side from memory."""
    address = b.gep(pointer, [ir.Constant(INDEX, offset)])
    return Simd(b, b.load(b.bitcast(address, vector_type(width).as_pointer()), align=4))


def store(b: Any, pointer: Any, offset: int, value: Simd) -> None:
    """Numbers side by side to memory."""
    address = b.gep(pointer, [ir.Constant(INDEX, offset)])
    b.store(value.value, b.bitcast(address, vector_type(value.width).as_pointer()), align=4)


def spread(number: Any, b: Any, width: int) -> Simd:
    """One number (LLVM's) in all places."""
    one = b.insert_element(ir.Constant(vector_type(width), ir.Undefined), number, ir.Constant(WHOLE, 0))
    if width == 1:
        return Simd(b, one)
    zeros = ir.Constant(vector_type(width, WHOLE), [0] * width)
    return Simd(b, b.shuffle_vector(one, ir.Constant(vector_type(width), ir.Undefined), zeros))


def first_of(value: Simd) -> Any:
    """The first number of a vector, as LLVM's."""
    return value.builder.extract_element(value.value, ir.Constant(WHOLE, 0))


def _reduced(values: Sequence[Simd], join: Callable[[Simd, Simd], Simd], name: str) -> Any:
    """All numbers of all values made one, as LLVM's."""
    whole = values[0]
    for value in values[1:]:
        whole = join(value, whole)
    b, kind = whole.builder, whole.value.type
    begin = [ir.Constant(FLOAT, 0.0)] if name == "fadd" else []
    signature = ir.FunctionType(FLOAT, [*(c.type for c in begin), kind])
    function = simd.intrinsic_of(b, f"llvm.vector.reduce.{name}", signature, whole.width)
    return b.call(function, [*begin, whole.value], fastmath=("reassoc",) if begin else ())


# -- weights of the network


class WeightMatrix:
    """A matrix of weights in memory, each read where it is used, so that they occupy no registers.

    Args:
        builder: of LLVM instructions.
        pointer: to all weights, float32.
        first: number of the matrix's first weight; shape: (rows, columns), row-major.

    Attributes:
        builder, pointer, first, shape: as given.
    """

    def __init__(self, builder: Any, pointer: Any, first: int, shape: tuple[int, int]) -> None:
        self.builder, self.pointer, self.first, self.shape = builder, pointer, first, shape

    def __getitem__(self, at: tuple[int, int]) -> Simd:
        b = self.builder
        place = ir.Constant(INDEX, self.first + at[0] * self.shape[1] + at[1])
        return spread(b.load(b.gep(self.pointer, [place]), align=4), b, simd.SIMD_WIDTH)


def _dense(matrix: WeightMatrix, bias: WeightMatrix, values: NDArray[Any]) -> SimdArray:
    made = []
    for i in range(matrix.shape[0]):
        value = bias[i, 0]
        for j in range(matrix.shape[1]):
            value = value + matrix[i, j] * values[j, 0]
        made.append(value)
    return array_of(made, (len(made), 1))


numbers.dense.register(WeightMatrix, _dense)
numbers.parts.register(SimdArray, lambda values, axis=0: tuple(np.moveaxis(values, axis, 0)))
