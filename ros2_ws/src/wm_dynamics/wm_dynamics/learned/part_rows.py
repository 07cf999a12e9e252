"""Rows of the hulls and the convex parts of the bodies of futures, shared where bodies have one shape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wm_dynamics.contact_step.body_tables import HULL_POINTS, BodyShape
from wm_dynamics.contact_step.part_shapes import PartShape
from wm_dynamics.contact_step.rollout_tables import Floats, Integers, PartTable

_Columns = tuple[Floats, Floats, Floats, Floats, Floats, Floats, Integers]


class _Row(NamedTuple):
    """A part and the row of its hull; -1: none."""

    part: PartShape
    hull: int


class PartRows:
    """Hulls, and parts, in the order in which shapes are added.

    Args:
        first: rows that come before; they are shared and not changed.
    """

    def __init__(self, first: PartRows | None = None) -> None:
        self._hulls: list[Floats] = [] if first is None else [first.hulls]
        self._hull_count = 0 if first is None else len(first.hulls)
        self._rows: list[_Row] = [] if first is None else list(first._rows)
        self._begins: dict[int, tuple[BodyShape, int]] = {} if first is None else dict(first._begins)
        self._columns: _Columns | None = None if first is None else first._made()

    @property
    def hulls(self) -> Floats:
        """(H, 3, HULL_POINTS) about the centers of mass [m], of bodies in their axes, of parts in axes of the parts."""
        if len(self._hulls) != 1:
            none = np.zeros((0, 3, HULL_POINTS), dtype=np.float32)
            self._hulls = [np.concatenate([none, *self._hulls])]
        return self._hulls[0]

    def add_hull(self, points: NDArray[np.floating]) -> int:
        """Row of a hull of points (3, HULL_POINTS) [m]."""
        self._hulls.append(np.asarray(points, dtype=np.float32)[None])
        self._hull_count += 1
        return self._hull_count - 1

    def begin_of(self, shape: BodyShape) -> int:
        """First row of the parts of a shape, added where they are not there yet; -1 where it has none."""
        if not shape.parts:
            return -1
        found = self._begins.get(id(shape))
        if found is None:
            # The shape is kept with it, so that no other takes its identity.
            found = self._begins[id(shape)] = (shape, len(self._rows))
            for part in shape.parts:
                self._rows.append(_Row(part, -1 if part.hull is None else self.add_hull(part.hull)))
            self._columns = None
        return found[1]

    def table(self, begin: Integers, count: Integers) -> PartTable:
        """The table of all parts; begin, count: (N,) of the bodies."""
        return PartTable(begin, count, *self._made())

    def _made(self) -> _Columns:
        if self._columns is None:
            parts = [row.part for row in self._rows]
            self._columns = (
                np.array([p.frame for p in parts], dtype=np.float32).reshape(-1, 9),
                np.array([p.center for p in parts], dtype=np.float32).reshape(-1, 3),
                np.array([p.half for p in parts], dtype=np.float32).reshape(-1, 3),
                np.array([p.rounding for p in parts], dtype=np.float32),
                np.array([p.cylinder for p in parts], dtype=np.float32),
                np.array([p.radius for p in parts], dtype=np.float32),
                np.array([row.hull for row in self._rows], dtype=np.int64),
            )
        return self._columns
