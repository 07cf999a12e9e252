"""Tables of futures that are stepped together, which both engines of the learned dynamics share.

Sizes: K hypotheses of S samples are R = K S futures; M bodies in each are N = R M columns, body m of future r in column
r M + m; Q = M (M - 1) / 2 pairs with L pairs of parts; U static bodies (at least one row); T times of the answer.
Lengths in meters, world axes, z up; vectors come components first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Span(NamedTuple):
    """Which steps to make.

    Attributes:
        now, until: the first step, and the one before which to stop.
        written: how many of the T times are in the answer already.
    """

    now: int
    until: int
    written: int


class BodyTable(NamedTuple):
    """State and properties of all bodies.

    Attributes:
        position: (3, N) float32, centers of mass [m].
        quaternion: (4, N) float32, body to world, xyzw.
        linear: (3, N) float32, velocities of the centers of mass [m/s].
        angular: (3, N) float32 [rad/s].
        parameters: (PARAMETER_ROWS, N) float32, see ``body_tables.PARAMETERS``.
        bounds: (N,) float32, radii about the centers of mass that hold the bodies [m].
        offsets: (3, N) float32, centers of mass in the body frames [m].
        hull: (N,) int64, row of the body's hull among all hulls; -1: none.
        present: (N,) bool, the body exists.
        fixed: (N,) bool, static, so that nothing moves it.
        asleep: (N,) bool, at rest and not stepped.
        kinematic: (N,) bool, moved by its path alone.
        obstacle: (N,) bool, a support.
        quiet_steps: (N,) int16, how many steps the body has been slow.
        plane_slack: (N,) float32, overlap with the surface beneath that is allowed to stay [m]; NaN: not measured yet.
        left_open: (N,) float32, standard deviation of the position that the network leaves open [m].
        drift: (N,) float32, standard deviation of the velocity that the network leaves open [m/s].
    """

    position: Floats
    quaternion: Floats
    linear: Floats
    angular: Floats
    parameters: Floats
    bounds: Floats
    offsets: Floats
    hull: Integers
    present: Flags
    fixed: Flags
    asleep: Flags
    kinematic: Flags
    obstacle: Flags
    quiet_steps: NDArray[np.int16]
    plane_slack: Floats
    left_open: Floats
    drift: Floats


class PairTable(NamedTuple):
    """All pairs of bodies.

    Attributes:
        first, second: (Q,) int64, the bodies 0..M-1 of each pair, first < second.
        begin, stride: (Q,) int64, where the slacks of a pair's parts begin among the L: those of part i of the first
            and part j of the second are at begin + i stride + j. A body without parts counts as one.
        slack: (R, L) float32, overlap that is allowed to stay [m]; NaN: not measured yet.
        touching: (R, Q) bool, an impulse passed between them in the last step that computed them.
    """

    first: Integers
    second: Integers
    begin: Integers
    stride: Integers
    slack: Floats
    touching: Flags


class PartTable(NamedTuple):
    """The convex parts of bodies that are not convex, P in all.

    Attributes:
        begin: (N,) int64, the first part of each body; those of one body are one behind the other.
        part_count: (N,) int64, how many it has; 0: it is its core or its hull.
        frame: (P, 9) float32, the part's axes in the body's axes, row-major, axes in columns.
        center: (P, 3) float32, middle of the part's bounds about the body's center of mass, in the part's axes [m].
        half: (P, 3), rounding, cylinder: (P,) float32, its core, see ``body_tables.PARAMETERS``; of a hull its bounds.
        radius: (P,) float32, about the center that holds it [m].
        hull: (P,) int64, row among all hulls, whose points are in the part's axes; -1: the core is the part.
    """

    begin: Integers
    part_count: Integers
    frame: Floats
    center: Floats
    half: Floats
    rounding: Floats
    cylinder: Floats
    radius: Floats
    hull: Integers


def no_parts(bodies: int) -> PartTable:
    """The table of bodies without parts."""
    none = np.zeros((0, 3), dtype=np.float32)
    return PartTable(
        begin=np.full(bodies, -1, dtype=np.int64),
        part_count=np.zeros(bodies, dtype=np.int64),
        frame=np.zeros((0, 9), dtype=np.float32),
        center=none,
        half=none,
        rounding=none[:, 0].copy(),
        cylinder=none[:, 0].copy(),
        radius=none[:, 0].copy(),
        hull=np.zeros(0, dtype=np.int64),
    )


class SurfaceTable(NamedTuple):
    """Tops of static bodies, and the bodies that stand on them.

    Attributes:
        rows: (R, U, PLANE_ROWS) float32, see ``body_tables.PLANE_ROWS``; NaN: no level top, or removed.
        row_of: (M,) int64, row U of each static body; 0 for the others.
        friction, restitution: (R, U) float32, set by an intervention; NaN: the coefficients of what touches it count.
        on_surface: (R, M) int16, the row U that each body stands on; -2: the floor; -1: none.
        floor_z: float32, height of the floor [m].
    """

    rows: Floats
    row_of: Integers
    friction: Floats
    restitution: Floats
    on_surface: NDArray[np.int16]
    floor_z: np.float32


class PathTable(NamedTuple):
    """Poses of the F bodies that follow paths at the beginning of every step; ordered by future.

    Attributes:
        begin: (R + 1,) int64, where each future's followers begin among the F.
        columns: (F,) int64, their columns.
        positions: (F, steps, 3) float32 [m].
        turned: (F,) int64, row of ``quaternions`` of those whose path turns; -1: it does not.
        quaternions: (F', steps, 4) float64, xyzw.
    """

    begin: Integers
    columns: Integers
    positions: Floats
    turned: Integers
    quaternions: Doubles


class OutputTable(NamedTuple):
    """Outputs of a rollout.

    Attributes:
        step: (T,) int64, the last step that begins at or before each time of the answer.
        rest: (T,) float64, what is left from there to the time [s].
        states: (K, S, T, M, 13) float32, layout of ``wm_core.rollout``.
        present: (K, T, M) bool.
        pair_touch: (steps, R, Q) bool, which pairs touched in each step.
        surface_touch: (steps, R, M) int16, ``SurfaceTable.on_surface`` after each step.
    """

    step: Integers
    rest: Doubles
    states: Floats
    present: Flags
    pair_touch: Flags
    surface_touch: NDArray[np.int16]
