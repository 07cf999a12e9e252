"""The state of futures that are stepped side by side, and changes to single bodies of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from wm_core.interventions import Hypothesis
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY, POSITION, QUATERNION, STATE_SIZE
from wm_core.rotations import quaternion_to_matrix
from wm_dynamics.contact_step.body_tables import PARAMETER_ROWS, BodyShape, body_shape
from wm_dynamics.contact_step.rollout_tables import BodyTable, Floats, PairTable, PartTable, SurfaceTable
from wm_dynamics.learned.followed_paths import FollowedPaths
from wm_dynamics.learned.part_rows import PartRows
from wm_dynamics.learned.scene import Array, PreparedScene
from wm_dynamics.mujoco.bodies import BodyDef


def arms(quaternions: ArrayLike, offsets: ArrayLike) -> Array:
    """(..., M, 3) offsets (M, 3) of the centers of mass in world axes [m], at orientations (..., M, 4)."""
    rotations = quaternion_to_matrix(np.asarray(quaternions, dtype=np.float64))
    result: Array = np.einsum("...mij,mj->...mi", rotations, np.asarray(offsets, dtype=np.float64))
    return result


class FutureState:
    """R = K S futures of M bodies each.

    Args:
        prepared: their start, S samples.
        hypotheses: K.
        steps: of the rollout.

    Attributes:
        rows, slots: R and M. Body m of future r = k S + s is column r M + m of the tables.
        bodies, pairs, surfaces: the tables, changed in place.
        paths: that bodies follow.
        edits: how many definitions of bodies have been changed so far.
    """

    def __init__(self, prepared: PreparedScene, hypotheses: Sequence[Hypothesis], steps: int) -> None:
        self.prepared, self.hypotheses = prepared, hypotheses
        k, s, m = len(hypotheses), prepared.samples, prepared.slots
        self.rows, self.slots = k * s, m
        rows, count = self.rows, k * s * m
        start = np.zeros((s, m, STATE_SIZE))
        start[:, :, 6] = 1.0
        for number, state in enumerate(prepared.starts):
            start[number, : prepared.count] = state
        arm = arms(start[..., QUATERNION], prepared.offsets.T)
        start[..., POSITION] += arm
        start[..., LINEAR_VELOCITY] += np.cross(start[..., ANGULAR_VELOCITY], arm)
        tiled = np.tile(start, (k, 1, 1)).reshape(count, STATE_SIZE).T.astype(np.float32)
        fixed = np.tile(prepared.fixed, (k, 1)).reshape(-1)
        present = np.zeros((rows, m), dtype=bool)
        present[:, : prepared.count] = True
        self.bodies = BodyTable(
            position=np.ascontiguousarray(tiled[POSITION]),
            quaternion=np.ascontiguousarray(tiled[QUATERNION]),
            linear=np.ascontiguousarray(tiled[LINEAR_VELOCITY]),
            angular=np.ascontiguousarray(tiled[ANGULAR_VELOCITY]),
            parameters=np.tile(prepared.columns[:, None], (1, k, 1, 1)).reshape(PARAMETER_ROWS, count),
            bounds=np.tile(prepared.bounds, rows),
            offsets=np.tile(prepared.offsets, (1, rows)),
            hull=np.tile(prepared.hull_of, rows),
            present=present.reshape(-1),
            fixed=fixed,
            asleep=np.tile(prepared.asleep, (k, 1)).reshape(-1) | fixed,
            kinematic=np.zeros(count, dtype=bool),
            obstacle=np.tile(prepared.obstacle, rows),
            quiet_steps=np.zeros(count, dtype=np.int16),
            plane_slack=np.full(count, np.nan, dtype=np.float32),
            left_open=np.zeros(count, dtype=np.float32),
            drift=np.zeros(count, dtype=np.float32),
        )
        self.pairs = PairTable(
            first=prepared.first,
            second=prepared.second,
            begin=prepared.pair_begin,
            stride=prepared.pair_stride,
            slack=np.tile(prepared.slack_of_columns(), (k, 1)),
            touching=np.tile(prepared.touching, (k, 1)),
        )
        tops = np.tile(prepared.surfaces, (rows, 1, 1))
        self.surfaces = SurfaceTable(
            rows=tops,
            row_of=prepared.surface_row,
            friction=np.full(tops.shape[:2], np.nan, dtype=np.float32),
            restitution=np.full(tops.shape[:2], np.nan, dtype=np.float32),
            on_surface=np.tile(prepared.on_surface, (k, 1)),
            floor_z=prepared.floor_z,
        )
        self._begun = self.bodies.position.copy()
        self.paths = FollowedPaths(self.rows, self.slots, steps)
        self.edits = 0
        self._rows = PartRows(prepared.rows)
        self._part_of, self._part_count = np.tile(prepared.part_of, rows), np.tile(prepared.part_count, rows)
        self._definitions: dict[tuple[int, int], tuple[BodyDef, BodyShape]] = {}

    def row(self, k: int, s: int) -> int:
        """The future of sample s under hypothesis k."""
        return k * self.prepared.samples + s

    @property
    def hulls(self) -> Floats:
        """(H, 3, HULL_POINTS) of all bodies and parts that have one, about the bodies' centers of mass [m]."""
        return self._rows.hulls

    @property
    def parts(self) -> PartTable:
        """The parts of all bodies now."""
        return self._rows.table(self._part_of, self._part_count)

    # -- definitions of bodies

    def definition(self, row: int, m: int) -> tuple[BodyDef, BodyShape]:
        """Definition and shape of body m of a future now."""
        found = self._definitions.get((row, m))
        if found is None:
            prepared = self.prepared
            k, s = divmod(row, prepared.samples)
            if m < prepared.count:
                found = prepared.bodies[s][m], prepared.shapes[m]
            else:
                specs = [i.body for i in self.hypotheses[k].interventions if i.creates_body]
                spec = specs[m - prepared.count]
                assert spec is not None  # validated
                found = prepared.created(spec)
            self._definitions[row, m] = found
        return found

    def define(self, row: int, m: int, body: BodyDef, kinematic: bool | None = None) -> None:
        """Give a body another shape or other properties; its origin stays. ``kinematic`` None: as it was."""
        before, shape = self.definition(row, m)
        if body is not before and body.shape_key()[0] != before.shape_key()[0]:
            shape = body_shape(body)
        self._definitions[row, m] = (body, shape)
        n, table = row * self.slots + m, self.bodies
        kinematic = bool(table.kinematic[n]) if kinematic is None else kinematic
        table.kinematic[n] = kinematic
        table.fixed[n] = body.is_static
        origin = table.position[:, n] - self.arm(n)
        table.parameters[:, n] = self.prepared.column(body, shape, kinematic)
        table.bounds[n] = shape.bound
        table.offsets[:, n] = shape.offset
        table.position[:, n] = origin + self.arm(n)
        table.hull[n] = -1
        if shape.hull is not None and not body.is_static:
            table.hull[n] = self._rows.add_hull(shape.hull)
        self._part_of[n], self._part_count[n] = self._rows.begin_of(shape), len(shape.parts)
        self.edits += 1

    def release(self, k: int, m: int) -> None:
        """Make a body free, in all samples of a hypothesis, that was held because nothing perceived carries it."""
        for s in range(self.prepared.samples):
            self.define(self.row(k, s), m, replace(self.prepared.bodies[s][m], is_static=False))

    def arm(self, n: int) -> Array:
        """(3,) from the origin of a body to its center of mass, in world axes [m]."""
        a, b, c = self.bodies.offsets[:, n].tolist()
        if not (a or b or c):
            return np.zeros(3)
        x, y, z, w = self.bodies.quaternion[:, n].tolist()
        # v + 2 u x (u x v + w v) of the quaternion (u, w).
        d, e, f = y * c - z * b + w * a, z * a - x * c + w * b, x * b - y * a + w * c
        return np.array([a + 2.0 * (y * f - z * e), b + 2.0 * (z * d - x * f), c + 2.0 * (x * e - y * d)])

    # -- sleeping

    def wake(self, n: int) -> None:
        """Wake a column."""
        self.bodies.asleep[n] = self.bodies.fixed[n]
        self.bodies.quiet_steps[n] = 0

    def wake_future(self, row: int) -> None:
        """Wake all bodies of a future."""
        part = slice(row * self.slots, (row + 1) * self.slots)
        self.bodies.asleep[part] = self.bodies.fixed[part]
        self.bodies.quiet_steps[part] = 0

    def wake_carried(self, row: int, m: int) -> None:
        """Wake what rests on body m of a future, directly; call it before that body leaves.

        What sleeps where it was seen rests on what bore it there (``PreparedScene.borne``). Other bodies rest on one
        that they touch and lie higher than, unless a support or the floor bears them.
        """
        prepared, table, part = self.prepared, self.bodies, slice(row * self.slots, (row + 1) * self.slots)
        numbers = prepared.pairs_of[m]
        others = prepared.first[numbers] + prepared.second[numbers] - m
        height = table.position[2, part]
        # What lies in a bowl is lower than the bowl's center of mass.
        rests = self.pairs.touching[row, numbers] & ((height[others] > height[m]) | (prepared.part_count[m] > 0))
        rests &= self.surfaces.on_surface[row, others] == -1
        unmoved = (table.position[:, part] == self._begun[:, part]).all(axis=0) & table.asleep[part]
        unmoved &= prepared.uncertain & ~table.fixed[part]
        borne = prepared.borne[row % prepared.samples, others, m]
        # Bearing is measured of outlines: with parts there is what touches, and what the scene graph says.
        parts = (prepared.part_count[others] > 0) | (prepared.part_count[m] > 0)
        rests = np.where(unmoved[others], borne | (parts & rests), rests)
        woken = row * self.slots + others[rests]
        table.asleep[woken] = table.fixed[woken]
        table.quiet_steps[woken] = 0
        if m in prepared.surface_of:
            number = prepared.surface_row[m]
            woken = row * self.slots + np.flatnonzero(self.surfaces.on_surface[row] == number)
            table.asleep[woken] = table.fixed[woken]
            table.quiet_steps[woken] = 0
