"""The start of all futures of a request, prepared once for each scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.interventions import BodySpec
from wm_core.rollout import ANGULAR_VELOCITY, LINEAR_VELOCITY
from wm_core.scene_graph import SceneGraph
from wm_dynamics.contact_step.body_tables import (
    PARAMETER_ROWS,
    PLANE_ROWS,
    BodyShape,
    body_shape,
    parameter_column,
    parameter_columns,
    surface_rows,
)
from wm_dynamics.contact_step.network import Floats
from wm_dynamics.learned.part_rows import PartRows
from wm_dynamics.learned.sample_noise import sample_noise
from wm_dynamics.mujoco.bodies import BodyDef, body_from_spec
from wm_dynamics.settling.bodies import sample_properties
from wm_dynamics.settling.preparation import ScenePreparation

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

KEPT_BODIES = 4096
"""Bodies of interventions, and columns of parameters, that are kept for a scene: four requests of 1024 pushers."""


class PreparedScene:
    """The start of all futures of a request: S samples of N known bodies, in M slots.

    Attributes:
        preparation, scenes: that it was made of.
        count, slots, samples: N, M, S.
        floor_z: height of the floor [m].
        starts: (S, N, 13) states of the body frames, layout of ``wm_core.rollout``.
        bodies, shapes: S times N definitions; N shapes.
        fixed, at_rest, asleep: (S, M) bool: static; seen at rest; not stepped until something wakes it.
        columns: (PARAMETER_ROWS, S, M) float32, see ``body_tables.PARAMETERS``.
        bounds: (M,) float32 bounding radii [m]; offsets: (3, M) float32 centers of mass in the body frames [m].
        rows: of the hulls and parts of the bodies; hull_of: (M,) int64, row of a body's hull; -1: none.
        part_of, part_count: (M,) int64, row of a body's first part, and how many it has, see ``PartTable``.
        surface_of: rows of the static bodies; surfaces: (U, PLANE_ROWS) float32 their tops; surface_row: (M,) int64.
        obstacle: (M,) bool, supports.
        first, second: (Q,) int64, bodies of each pair; pairs_of: numbers of the pairs of each body.
        pair_begin, pair_stride: (Q,) int64, see ``PairTable``. columns_of_pairs: L, of the slacks of all pairs;
            slacks_of: columns of the slacks of each body's pairs.
        uncertain: (M,) bool, bodies whose pose is not known exactly.
        slack: (S, Q) float32, overlaps at the start of bodies whose poses are not known exactly [m]: errors of
            perception that may stay; NaN: measured when the pair comes near.
        borne: (S, M, M) bool, whether body i rests on body j at the start, of bodies that were seen at rest: by the
            scene graph, or since they touch there and j is beneath.
        touching: (S, Q) bool, on_surface: (S, M) int16: what touches what at the start, once bodies were put to sleep.
        row_of: object id -> row.
    """

    def __init__(self, preparation: ScenePreparation, scenes: Sequence[SceneGraph], starts: Array, slots: int) -> None:
        self.preparation, self.scenes, self.starts = preparation, scenes, starts
        self.count, self.slots = len(scenes[0]), slots
        self.samples = len(scenes)
        self.bodies = [preparation.sample_bodies(scene) for scene in scenes]
        self.shapes = [body_shape(b) for b in preparation.bodies]
        self.floor_z = np.float32(preparation.floor_z)
        n, m, s = self.count, slots, self.samples
        self.fixed = np.zeros((s, m), dtype=bool)
        self.at_rest = np.zeros((s, m), dtype=bool)
        self.fixed[:, :n] = [b.is_static for b in preparation.bodies]
        moves = starts[..., LINEAR_VELOCITY].any(axis=-1) | starts[..., ANGULAR_VELOCITY].any(axis=-1)
        self.at_rest[:, :n] = ~moves & ~preparation.airborne
        self.columns: Floats = np.zeros((PARAMETER_ROWS, s, m), dtype=np.float32)
        properties = np.array([sample_properties(scene) for scene in scenes]).reshape(s, 3, n)
        for i, (body, shape) in enumerate(zip(preparation.bodies, self.shapes, strict=True)):
            self.columns[:, :, i] = parameter_columns(body, shape, *properties[:, :, i].T)
        self.bounds = np.zeros(m, dtype=np.float32)
        self.offsets = np.zeros((3, m), dtype=np.float32)
        self.rows = PartRows()
        self.hull_of = np.full(m, -1, dtype=np.int64)
        self.part_of, self.part_count = np.full(m, -1, dtype=np.int64), np.zeros(m, dtype=np.int64)
        for i, shape in enumerate(self.shapes):
            self.bounds[i] = shape.bound
            self.offsets[:, i] = shape.offset
            if shape.hull is not None and not preparation.bodies[i].is_static:
                self.hull_of[i] = self.rows.add_hull(shape.hull)
            self.part_of[i], self.part_count[i] = self.rows.begin_of(shape), len(shape.parts)
        self.surface_of = [i for i, b in enumerate(preparation.bodies) if b.is_static]
        self.surfaces = np.full((max(len(self.surface_of), 1), PLANE_ROWS), np.nan, dtype=np.float32)
        self.obstacle = np.zeros(m, dtype=bool)
        self.surface_row = np.zeros(m, dtype=np.int64)
        for row, i in enumerate(self.surface_of):
            self.surface_row[i] = row
            top = surface_rows(preparation.bodies[i])
            if top is not None:
                self.surfaces[row] = top
            self.obstacle[i] = True
        self.asleep = np.zeros((s, m), dtype=bool)
        # Touches at the start are known for sleeping bodies; for the others the first step finds them.
        self.touching = np.zeros((s, m * (m - 1) // 2), dtype=bool)
        self.on_surface = np.full((s, m), -1, dtype=np.int16)
        self.row_of = {int(object_id): i for i, object_id in enumerate(scenes[0].ids)}
        self.uncertain = np.zeros(m, dtype=bool)
        self.uncertain[:n] = ~preparation.known_exactly
        self.slack: Floats = np.full(self.touching.shape, np.nan, dtype=np.float32)
        self.borne = np.zeros((s, m, m), dtype=bool)
        for lower, upper in preparation.carried().items():
            self.borne[:, list(upper), lower] = True
        self.first, self.second = np.triu_indices(m, 1)
        several = np.maximum(self.part_count, 1)
        self.pair_stride = several[self.second]
        sizes = several[self.first] * self.pair_stride
        self.pair_begin = np.cumsum(sizes) - sizes
        self.columns_of_pairs = int(sizes.sum())
        first, second = np.repeat(self.first, sizes), np.repeat(self.second, sizes)
        self._columns = sizes
        self.pairs_of = [np.flatnonzero((self.first == i) | (self.second == i)) for i in range(m)]
        self.slacks_of = [np.flatnonzero((first == i) | (second == i)) for i in range(m)]
        self._created: dict[tuple[object, ...], tuple[BodyDef, BodyShape]] = {}
        self._columns_of: dict[tuple[int, bool], tuple[BodyDef, Floats]] = {}
        self._noise = sample_noise(s, m)

    def slack_of_columns(self) -> Floats:
        """(S, L) float32, ``slack`` of each pair's parts: those of its bodies."""
        return np.repeat(self.slack, self._columns, axis=1)

    def created(self, spec: BodySpec) -> tuple[BodyDef, BodyShape]:
        """The body that an intervention brings in; those of equal specifications are one."""
        key = (spec.shape, spec.extents.tobytes(), spec.mass, spec.friction, spec.restitution)
        found = self._created.get(key)
        if found is None:
            if len(self._created) >= KEPT_BODIES:
                self._created.clear()
            body = body_from_spec(spec)
            found = self._created[key] = (body, body_shape(body))
        return found

    def column(self, body: BodyDef, shape: BodyShape, kinematic: bool) -> Floats:
        """(PARAMETER_ROWS,) of a body; made once for each."""
        found = self._columns_of.get((id(body), kinematic))
        if found is None:
            if len(self._columns_of) >= KEPT_BODIES:
                self._columns_of.clear()
            # The body is kept with it, so that no other takes its identity.
            found = self._columns_of[id(body), kinematic] = (body, parameter_column(body, shape, kinematic))
        return found[1]

    def noise_at(self, step: int) -> Floats:
        """(6, S, M) standard normal numbers of a step; sample 0 gets none. The same in every hypothesis."""
        return self._noise.at(step)

    def noise_until(self, steps: int) -> Floats:
        """(steps or more, 6, S, M) ``noise_at`` of all steps; of a single sample, which gets none, no numbers."""
        if self.samples == 1:
            return np.zeros((0, 6, 1, self.slots), dtype=np.float32)
        return self._noise.until(steps)
