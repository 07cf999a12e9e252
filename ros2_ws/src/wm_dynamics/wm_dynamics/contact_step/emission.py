"""The formulas as functions that Numba code calls: each over a tile of sixteen bodies or pairs.

A tile holds the fields of ``records.BODY`` or ``records.PAIR``: rows of SIMD_WIDTH numbers, row after row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from wm_dynamics.contact_step.body_tables import HULL_POINTS
from wm_dynamics.contact_step.formulas import ground, motion, pairs
from wm_dynamics.contact_step.formulas.nearest import HULL_TOLERANCE_M, Core
from wm_dynamics.contact_step.formulas.network import network
from wm_dynamics.contact_step.numbers import Vector
from wm_dynamics.contact_step.records import BODY, FEATURES, LAW, PAIR, POINTS, WEIGHTS, Record
from wm_dynamics.contact_step.simd import FLOAT, INDEX, SIMD_WIDTH
from wm_dynamics.contact_step.simd_array import (
    HullPoints,
    SimdArray,
    WeightMatrix,
    array_of,
    first_of,
    load,
    spread,
    store,
)

_POINTER = FLOAT.as_pointer()


class Memory:
    """An argument of an emitted function: an array of float32, and the offset of its first number there.

    Attributes:
        builder: of LLVM instructions.
        offset: LLVM's integer; pointer: to the first number.
    """

    def __init__(self, builder: Any, data: Any, offset: Any) -> None:
        self.builder, self.offset = builder, offset
        self.pointer = builder.gep(data, [offset])

    def number(self, place: int) -> SimdArray:
        """One number, the same in all of a vector."""
        value = self.builder.load(self.builder.gep(self.pointer, [ir.Constant(INDEX, place)]), align=4)
        return array_of([spread(value, self.builder, SIMD_WIDTH)], (1,))


class Tile:
    """Fields of sixteen bodies or pairs, or (``width`` 1) of one of them; a field is read when it is named."""

    def __init__(self, memory: Any, record: Record, width: int = SIMD_WIDTH, first_row: int = 0) -> None:
        for name, value in (("_memory", memory), ("_record", record), ("_width", width), ("_first", first_row)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        shape = self._record.shapes.get(name)
        if shape is None:
            raise AttributeError(name)
        first = self._first + getattr(self._record, name)
        if isinstance(shape, Record):
            return Tile(self._memory, shape, self._width, first)
        b, pointer = self._memory.builder, self._memory.pointer
        rows = range(first, first + int(np.prod(shape)))
        return array_of([load(b, pointer, row * SIMD_WIDTH, self._width) for row in rows], shape)

    def __setattr__(self, name: str, value: Any) -> None:
        shape, first = self._record.shapes[name], self._first + getattr(self._record, name)
        for i, one in enumerate(np.broadcast_to(value, shape).flat):
            store(self._memory.builder, self._memory.pointer, (first + i) * SIMD_WIDTH, one)


def emitted(formula: Callable[..., None], arguments: int) -> Any:
    """A function over ``Memory`` as one that Numba code calls.

    For each argument of the function the call has two: a float32 array, and the offset of its first number.
    """

    def emit(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        made = []
        for array, offset, array_type in zip(given[::2], given[1::2], signature.args[::2], strict=True):
            made.append(Memory(builder, context.make_array(array_type)(context, builder, array).data, offset))
        formula(*made)
        return context.get_dummy_value()

    pairs_ = ", ".join(f"array{i}, offset{i}" for i in range(arguments))
    names: dict[str, Any] = {}
    exec(f"def call(typing, {pairs_}): return make(({pairs_},))", {"make": lambda given: _made(given, emit)}, names)
    call = names["call"]
    call.__name__ = call.__qualname__ = formula.__name__.lstrip("_")
    call.__doc__ = formula.__doc__
    made: Any = intrinsic(call)
    made.over_memory, made.arguments = formula, arguments
    return made


def _made(given: Sequence[Any], emit: Any) -> Any:
    arguments = [types.int64 if i % 2 else kind for i, kind in enumerate(given)]
    return types.void(*arguments), emit


def _over(formula: Callable[..., None], record: Record) -> Any:
    """Of a formula over the fields of a record alone."""

    def over_tile(tile: Memory) -> None:
        formula(Tile(tile, record))

    over_tile.__name__, over_tile.__doc__ = formula.__name__, formula.__doc__
    return emitted(over_tile, 1)


def _sweep(formula: Callable[..., None], record: Record) -> Any:
    """Of a formula that has four of the network's numbers as an argument, too."""

    def over_tile(tile: Memory, weight: Memory) -> None:
        formula(Tile(tile, record), tuple(weight.number(i) for i in range(4)))

    over_tile.__name__, over_tile.__doc__ = formula.__name__, formula.__doc__
    return emitted(over_tile, 2)


ground_geometry, ground_before = _over(ground.ground_geometry, BODY), _over(ground.ground_before, BODY)
ground_features, ground_begin = _over(ground.ground_features, BODY), _over(ground.ground_begin, BODY)
ground_sweep = _sweep(ground.ground_sweep, BODY)
pair_geometry, pair_before = _over(pairs.pair_geometry, PAIR), _over(pairs.pair_before, PAIR)
pair_features, pair_begin = _over(pairs.pair_features, PAIR), _over(pairs.pair_begin, PAIR)
pair_sweep, pair_after = _sweep(pairs.pair_sweep, PAIR), _over(pairs.pair_after, PAIR)


def _finish(tile: Memory, weights: Memory) -> None:
    floor = (weights.number(WEIGHTS.floor), weights.number(WEIGHTS.floor + 1))
    motion.finish(Tile(tile, BODY), floor, weights.number(WEIGHTS.scatter))


def _contact_law(features: Memory, law: Memory, weights: Memory) -> None:
    """The network for one contact of sixteen bodies or pairs: features and law are every fourth row."""
    b = weights.builder
    values = [load(b, features.pointer, i * POINTS * SIMD_WIDTH, SIMD_WIDTH) for i in range(FEATURES)]
    matrices = {
        name: WeightMatrix(b, weights.pointer, getattr(WEIGHTS, name), shape)
        for name, shape in WEIGHTS.shapes.items()
        if not isinstance(shape, Record) and len(shape) == 2
    }
    answer = network(array_of(values, (FEATURES, 1)), _Named(matrices))
    for i in range(LAW):
        store(b, law.pointer, i * POINTS * SIMD_WIDTH, answer[i, 0])


class _Named:
    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _hull_lowest(down: Memory, hull: Memory, out: Memory) -> None:
    """Lowest points of one hull as it tips to four sides (rows 0 to 11), and their mean (12 to 14).

    ``down``: 3 numbers, body axes. ``hull``: 3 times HULL_POINTS numbers.
    """
    direction = array_of([down.number(i)[0] for i in range(3)], (3, 1))
    points, middle = ground.lowest_of_hull(direction, HullPoints(hull.builder, hull.pointer, HULL_POINTS))
    for row, value in enumerate([*points.flat, *middle.flat]):
        store(out.builder, out.pointer, row * SIMD_WIDTH, value)


class _HullSide:
    """One side of one pair, a hull or a core. Its supporting points come from a function of its own, which is not
    inlined at each of the 88 places where a search calls it.
    """

    def __init__(self, tile: Tile, hull: Memory) -> None:
        self.center, self._tile, self._hull = tile.center, tile, hull

    def support(self, directions: Vector) -> Vector:
        """The points farthest along directions."""
        b, memory = self._hull.builder, self._tile._memory
        core = b.gep(memory.pointer, [ir.Constant(INDEX, self._tile._first * SIMD_WIDTH)])
        missing = b.icmp_signed("<", self._hull.offset, ir.Constant(INDEX, 0))
        hull = b.select(missing, ir.Constant(_POINTER, None), self._hull.pointer)
        function = _support_function(b, self._tile._record)
        found = []
        for k in range(directions.shape[1]):
            answer = b.call(function, [core, hull, *(first_of(d) for d in directions[:, k])])
            found.append([spread(b.extract_value(answer, i), b, 1) for i in range(3)])
        return array_of([f[i] for i in range(3) for f in found], (3, len(found)))


class _At:
    """Memory that a function of its own was given."""

    def __init__(self, builder: Any, pointer: Any) -> None:
        self.builder, self.pointer = builder, pointer


def _support_function(b: Any, record: Record) -> Any:
    """(core, hull or null, x, y, z) -> the farthest point; defined in a module at its first use."""
    name = "wm_hull_support"
    if name in b.module.globals:
        return b.module.globals[name]
    answer = ir.LiteralStructType([FLOAT] * 3)
    function = ir.Function(b.module, ir.FunctionType(answer, [_POINTER, _POINTER, FLOAT, FLOAT, FLOAT]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    inside = ir.IRBuilder(function.append_basic_block("entry"))
    core, hull, *direction = function.args
    along = array_of([spread(d, inside, 1) for d in direction], (3, 1))

    def answer_with(points: SimdArray) -> None:
        made: Any = ir.Constant(answer, ir.Undefined)
        for i, point in enumerate(points.flat):
            made = inside.insert_value(made, first_of(point), i)
        inside.ret(made)

    is_core = cgutils.is_null(inside, hull)
    with inside.if_then(is_core):
        side = Tile(_At(inside, core), record, 1)
        answer_with(Core(side.center, side.half, side.cylinder).support(along))
    found = HullPoints(inside, hull, HULL_POINTS).farthest(list(along[:, 0]), HULL_TOLERANCE_M)
    answer_with(array_of(found, (3, 1)))
    return function


def _hull_geometry(pair: Memory, hull_a: Memory, hull_b: Memory) -> None:
    """Contacts of one pair with hulls (3 times HULL_POINTS numbers each; none where its offset is below 0)."""
    t = Tile(pair, PAIR, 1)
    pairs.pair_geometry(t, _HullSide(t.a, hull_a), _HullSide(t.b, hull_b))


finish, contact_law, hull_lowest = emitted(_finish, 2), emitted(_contact_law, 3), emitted(_hull_lowest, 3)
hull_geometry = emitted(_hull_geometry, 3)
"""Contacts of one pair with hulls; has branches, as each side may be a hull or a core."""
STRAIGHT = (
    ground_geometry, ground_before, ground_features, ground_begin, ground_sweep, pair_geometry, pair_before,
    pair_features, pair_begin, pair_sweep, pair_after, finish, contact_law, hull_lowest,
)  # fmt: skip
"""The functions without branches, that is all but ``hull_geometry``."""
