"""The operations that the formulas of the contact step are written in, for every type of number.

A formula is array code. Components come first, then contacts (or directions), bodies or pairs (B) last: a number of
each body is (1, B), of each contact (4, B), a vector (3, 1, B) or (3, 4, B), a matrix (3, 3, 1, B). Three types take
part:

- NumPy arrays: the oracle of the tests;
- torch tensors: training and export (``training/dynamics/tensors.py``);
- ``simd_array.SimdArray``: vector registers with sixteen bodies or pairs, which stand for the last axis.

Arithmetic, comparison and indexing of the leading axes are the types' own; what they spell differently is here. An
operation without a registration for a type raises TypeError and names both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import singledispatch
from typing import Any, Protocol

import numpy as np
from scipy.special import expit

Number = Any
"""(1, B) or (4, B)."""
Vector = Any
"""(3, 1, B) or (3, 4, B)."""
Matrix = Any
"""(3, 3, 1, B)."""
Mask = Any
"""Booleans, shaped as numbers."""


class Fields(Protocol):
    """The named numbers of bodies or pairs (``records.BODY``, ``records.PAIR``): a tile in memory, or arrays."""

    def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None: ...


def _unknown(operation: str) -> Callable[..., Any]:
    def refuse(value: Any, *_: Any, **__: Any) -> Any:
        raise TypeError(f"{operation}: no operation for {type(value).__name__}")

    refuse.__name__ = operation
    return refuse


exp = singledispatch(_unknown("exp"))
log = singledispatch(_unknown("log"))
tanh = singledispatch(_unknown("tanh"))
sqrt = singledispatch(_unknown("sqrt"))
sigmoid = singledispatch(_unknown("sigmoid"))
sine_cosine = singledispatch(_unknown("sine_cosine"))
where = singledispatch(_unknown("where"))
"""(mask, one, other): ``one`` where the mask is true, else ``other``."""
flag = singledispatch(_unknown("flag"))
"""(mask, like): 1 where true, else 0; of the precision of ``like``."""
at_least = singledispatch(_unknown("at_least"))
"""(value, low): the greater one; what is not a number stays so."""
at_most = singledispatch(_unknown("at_most"))
"""(value, high): the smaller one; what is not a number stays so."""
most = singledispatch(_unknown("most"))
"""(values): the greatest over contacts, (1, B)."""
least = singledispatch(_unknown("least"))
"""(values): the smallest over contacts, (1, B)."""
greatest = singledispatch(_unknown("greatest"))
"""(values, *vectors): the vectors (3, 1, B) at the greatest of values (E, B), of vectors (3, E, B)."""
stack = singledispatch(_unknown("stack"))
"""(*values): one behind the other along a new first axis, spread to one shape."""
join = singledispatch(_unknown("join"))
"""(*values, axis=0): one behind the other along an axis that is there."""
parts = singledispatch(_unknown("parts"))
"""(values, axis=0): the parts along an axis."""
farthest = singledispatch(_unknown("farthest"))
"""(points, directions, tolerance): of points (3, N, B) those farthest along directions (3, E, B): (3, E, B), the mean
of those that are nearer to the farthest than the tolerance.
"""
dense = singledispatch(_unknown("dense"))
"""(matrix, bias, values): a layer of a network."""

gather = singledispatch(_unknown("gather"))
"""(values, index): of the last axis the entries of an index (M,)."""
scatter_add = singledispatch(_unknown("scatter_add"))
"""(values, index, more): the values, and added to the entries of an index (M,) of the last axis those of ``more``."""


@singledispatch
def without_gradient(_: Any) -> AbstractContextManager[Any]:
    """Within it nothing is recorded for gradients."""
    return nullcontext()


# -- of the operations above, for every type


def relu(value: Number) -> Number:
    """At least 0."""
    return at_least(value, 0.0)


def sign(value: Any) -> Any:
    """-1 below 0, else 1."""
    return 1.0 - 2.0 * flag(value < 0.0, value)


def total(values: Any, axis: int = 0) -> Any:
    """The sum along an axis, which stays."""
    return values.sum(axis, keepdims=True)


def dot(a: Vector, b: Vector) -> Number:
    """Scalar product."""
    return (a * b).sum(0)


def cross(a: Vector, b: Vector) -> Vector:
    """Vector product."""
    following, last = [1, 2, 0], [2, 0, 1]
    return a[following] * b[last] - a[last] * b[following]


def turn(matrix: Matrix, vector: Vector) -> Vector:
    """Matrix times vector."""
    return (matrix * vector[None]).sum(1)


def turn_back(matrix: Matrix, vector: Vector) -> Vector:
    """Transposed matrix times vector."""
    return (matrix * vector[:, None]).sum(0)


def in_world(rotation: Matrix, matrix: Matrix) -> Matrix:
    """R M R^T."""
    left = (rotation[:, :, None] * matrix[None]).sum(1)
    return (left[:, None] * rotation[None]).sum(2)


def transposed_product(a: Matrix, b: Matrix) -> Matrix:
    """A^T B."""
    return (a[:, :, None] * b[:, None]).sum(0)


def product(a: Matrix, b: Matrix) -> Matrix:
    """A B."""
    return (a[:, :, None] * b[None]).sum(1)


def unit(vector: Vector, floor: float) -> Vector:
    """Of length 1; the length counts as ``floor`` at least."""
    return vector / sqrt(dot(vector, vector) + floor * floor)


def blend(one: Any, other: Any, share: Number) -> Any:
    """From ``one`` to ``other`` by a share."""
    return one + share * (other - one)


# -- NumPy


def _greatest(values: Any, *vectors: Any) -> tuple[Any, ...]:
    which = values.argmax(0)[None]
    return tuple(np.take_along_axis(v, np.broadcast_to(which[None], (3, *which.shape)), 1) for v in vectors)


def _farthest(points: Any, directions: Any, tolerance: float) -> Any:
    reach = (directions[:, :, None] * points[:, None]).sum(0)
    best = (reach >= reach.max(1, keepdims=True) - tolerance).astype(points.dtype)
    best = best / best.sum(1, keepdims=True)
    return (best[None] * points[:, None]).sum(2)


def _scatter_add(values: Any, index: Any, more: Any) -> Any:
    result = values.copy()
    np.add.at(result.T, index, more.T)
    return result


exp.register(np.ndarray, np.exp)
log.register(np.ndarray, np.log)
tanh.register(np.ndarray, np.tanh)
sqrt.register(np.ndarray, np.sqrt)
sigmoid.register(np.ndarray, expit)
sine_cosine.register(np.ndarray, lambda value: (np.sin(value), np.cos(value)))
where.register(np.ndarray, np.where)
flag.register(np.ndarray, lambda mask, like: mask.astype(like.dtype))
at_least.register(np.ndarray, np.maximum)
at_most.register(np.ndarray, np.minimum)
most.register(np.ndarray, lambda values: values.max(0, keepdims=True))
least.register(np.ndarray, lambda values: values.min(0, keepdims=True))
greatest.register(np.ndarray, _greatest)
stack.register(np.ndarray, lambda *values: np.stack(np.broadcast_arrays(*values)))
join.register(np.ndarray, lambda *values, axis=0: np.concatenate(values, axis))
parts.register(np.ndarray, lambda values, axis=0: tuple(np.moveaxis(values, axis, 0)))
farthest.register(np.ndarray, _farthest)
dense.register(np.ndarray, lambda matrix, bias, values: matrix @ values + bias)
gather.register(np.ndarray, lambda values, index: values[..., index])
scatter_add.register(np.ndarray, _scatter_add)
