"""Motion and gaps of all objects on the time grid, and the features of objects and pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wm_core.rotations import rotation_matrices
from wm_core.scene_graph import Shape
from wm_perception.reasoning.events import upright_axis
from wm_perception.reasoning.features import (
    CENTER,
    NEAR_GAP_M,
    OBJECT_FEATURES,
    PAIR_FEATURES,
    SHAPE_ORDER,
    SLOTS,
    STEP_S,
    WINDOW,
)
from wm_perception.reasoning.gaps import Pieces, Solid, gap_and_normal, gap_of_pieces
from wm_perception.reasoning.steps import Step
from wm_perception.types import Array

_ROUGH_M = 0.08
"""Distance of bounding spheres [m] from which it is the gap. The network was trained with it; larger is slower and more
exact."""
_SAME_POSE = 5e-4
"""Change of a pose [m, quaternion] up to which the last gap of a pair is used again. The network was trained with it;
larger is faster and less exact."""


class MotionHistory:
    """The last ``length`` grid steps of all objects, as arrays by slot.

    Attributes:
        count: steps so far; time (L,) [s], of step k at row k % length.
        position (L, S, 3) [m]; velocity (L, S, 3), mean since the step before [m/s]; kick (L, S, 3), its change [m/s].
        tracked_speed (L, S): of the tracker's filter [m/s], 0 where it holds an object to be at rest.
        turning (L, S) [rad/s]; clearance (L, S), of the lowest point over the support below [m]; seen (L, S): 1 or 0.
        gap (L, S, S) [m], inf where far or unknown; normal (L, S, S, 3), from the first to the second.
        here (L, S): the object existed; objects (L, S, Fo), pairs (L, S, S, Fp): features.
        slot: by object id; shape: ``Shape`` and extents (3,) [m] by object id.
    """

    def __init__(self, length: int = 48) -> None:
        self.length = length
        self.count = 0
        shape = (length, SLOTS)
        self.time = np.zeros(length)
        self.position = np.zeros((*shape, 3))
        self.velocity = np.zeros((*shape, 3))
        self.kick = np.zeros((*shape, 3))
        self.tracked_speed = np.zeros(shape)
        self.turning = np.zeros(shape)
        self.clearance = np.zeros(shape)
        self.seen = np.zeros(shape)
        self.here = np.zeros(shape, dtype=bool)
        self.gap = np.full((length, SLOTS, SLOTS), np.inf)
        self.normal = np.zeros((length, SLOTS, SLOTS, 3))
        self.objects = np.zeros((*shape, len(OBJECT_FEATURES)), dtype=np.float32)
        self.pairs = np.zeros((length, SLOTS, SLOTS, len(PAIR_FEATURES)), dtype=np.float32)
        self.slot: dict[int, int] = {}
        self.shape: dict[int, tuple[int, Array]] = {}
        self._born = np.zeros(SLOTS, dtype=np.int64)
        self._last = np.full(SLOTS, -9, dtype=np.int64)
        self._kind = np.full(SLOTS, -1, dtype=np.int64)
        self._quaternion = np.zeros((SLOTS, 4))
        self._axis = np.zeros((SLOTS, 3))
        self._round = np.zeros(SLOTS, dtype=bool)
        self._start = np.zeros(SLOTS)
        self._gap_state = np.full((SLOTS, SLOTS, 20), np.inf)
        self._gap = np.full((SLOTS, SLOTS), np.inf)
        self._normal = np.zeros((SLOTS, SLOTS, 3))

    def row(self, step: int) -> int:
        """Row of a step; steps before ``count - length`` are forgotten."""
        return step % self.length

    def born(self, who: int) -> int:
        """The first step in which an object existed."""
        return int(self._born[self.slot[who]])

    def _slot_of(self, who: int) -> int | None:
        if who not in self.slot:
            used = set(self.slot.values())
            free = next((s for s in range(SLOTS) if s not in used), None)
            if free is None:
                gone = [i for i, s in self.slot.items() if self._last[s] < self.count - 1]
                if not gone:
                    return None
                free = self._forget(min(gone, key=lambda i: self._last[self.slot[i]]))
            self.slot[who] = free
            self._born[free] = self.count
            self._last[free] = self._kind[free] = -9
        return self.slot[who]

    def _forget(self, who: int) -> int:
        slot = self.slot.pop(who)
        self.shape.pop(who, None)
        self.here[:, slot] = False
        for name in ("objects", "velocity", "kick"):
            getattr(self, name)[:, slot] = 0.0
        self.pairs[:, slot] = self.pairs[:, :, slot] = 0.0
        self.gap[:, slot] = self.gap[:, :, slot] = np.inf
        self._gap_state[slot] = self._gap_state[:, slot] = np.inf
        return slot

    def push(self, step: Step) -> None:
        """Append the next grid step."""
        k = self.count
        row, before = self.row(k), self.row(k - 1)
        self.time[row] = step.time
        for old in [i for i, s in self.slot.items() if self._last[s] < k - self.length]:
            self._forget(old)
        # An object that is gone keeps its position, and is not ``here``.
        self.position[row] = self.position[before]
        self.clearance[row] = self.clearance[before]
        self.objects[row] = self.objects[before]
        self.objects[row, :, :9] = 0.0
        for name in ("velocity", "kick", "tracked_speed", "turning", "seen", "pairs", "normal"):
            getattr(self, name)[row] = 0.0
        self.here[row] = False
        self.gap[row] = np.inf
        slots = [self._slot_of(int(i)) for i in step.ids]
        kept = np.array([n for n, s in enumerate(slots) if s is not None], dtype=np.int64)
        if len(kept):
            at = np.array([slots[n] for n in kept], dtype=np.int64)
            rotations = rotation_matrices(step.quaternions[kept])
            half = 0.5 * np.einsum("nj,nj->n", np.abs(rotations[:, 2, :]), step.extents[kept])
            half = np.where(step.shapes[kept] == Shape.SPHERE, 0.5 * step.extents[kept, 2], half)
            self._set_objects(step, kept, at, half, row, before)
            if len(kept) > 1:
                self._set_pairs(step, kept, at, half, rotations, row)
        self.count += 1

    def _set_objects(
        self, step: Step, n: NDArray[np.int64], s: NDArray[np.int64], half: Array, row: int, before: int
    ) -> None:
        k = self.count
        p, q = step.positions[n], step.quaternions[n]
        v, dv = np.zeros((len(n), 3)), np.zeros((len(n), 3))
        continued = self._last[s] == k - 1
        v[continued] = (p[continued] - self.position[before, s[continued]]) / STEP_S
        twice = continued & (self._born[s] < k - 1)
        dv[twice] = v[twice] - self.velocity[before, s[twice]]
        turning = 2.0 * np.arccos(np.minimum(1.0, np.abs((self._quaternion[s] * q).sum(axis=1)))) / STEP_S
        turning = np.where(continued & (step.shapes[n] != Shape.SPHERE), turning, 0.0)
        self._quaternion[s] = q
        for i in np.flatnonzero(self._kind[s] != step.shapes[n]):
            upright = upright_axis(int(step.shapes[n[i]]), step.extents[n[i]], q[i])
            self._axis[s[i]], self._round[s[i]] = (np.zeros(3), False) if upright is None else upright
            self._start[s[i]] = np.nan
        self._kind[s] = step.shapes[n]
        x, y, z, w = q.T
        up = np.stack([2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)], axis=1)
        vertical = np.clip((up * self._axis[s]).sum(axis=1), -1.0, 1.0)
        elevation = np.arcsin(np.abs(vertical))
        self._start[s] = np.where(np.isnan(self._start[s]), elevation, self._start[s])
        tilt = np.where(self._round[s], np.abs(elevation - self._start[s]), np.arccos(vertical))
        tilt = np.where(self._axis[s].any(axis=1), tilt, 0.0)
        self._last[s] = k
        for m in n:
            self.shape[int(step.ids[m])] = (int(step.shapes[m]), step.extents[m])
        clearance = np.where(np.isfinite(step.floors[n]), p[:, 2] - half - step.floors[n], -0.2)
        visible = step.visibilities[n]
        self.position[row, s], self.velocity[row, s], self.kick[row, s] = p, v, dv
        self.turning[row, s], self.clearance[row, s], self.seen[row, s] = turning, clearance, visible > 0.02
        self.tracked_speed[row, s] = np.linalg.norm(step.velocities[n], axis=1)
        self.here[row, s] = True
        flat = np.hypot(v[:, 0], v[:, 1])
        three = np.array([self.row(max(k - 3, int(b))) for b in self._born[s]])
        kinds = [step.shapes[n] == t for t in SHAPE_ORDER]
        columns = [
            2.0 * flat,
            2.0 * v[:, 2],
            2.0 * np.hypot(dv[:, 0], dv[:, 1]),
            2.0 * dv[:, 2],
            2.0 * self.tracked_speed[row, s],
            2.0 * (v[:, 0] * dv[:, 0] + v[:, 1] * dv[:, 1]) / (flat + 0.05),
            0.2 * turning,
            visible,
            visible > 0.02,
            20.0 * clearance,
            np.log(step.extents[n].max(axis=1) / 0.1),
            tilt,
            20.0 * np.linalg.norm(p - self.position[three, s], axis=1),
            *kinds,
            np.minimum(1.0, (k - self._born[s]) / 10.0),
        ]
        self.objects[row, s] = np.clip(np.stack(columns, axis=1), -4.0, 4.0)

    def _set_pairs(
        self, step: Step, n: NDArray[np.int64], s: NDArray[np.int64], half: Array, rotations: Array, row: int
    ) -> None:
        p = step.positions[n]
        offsets = p[None] - p[:, None]
        distances = np.sqrt((offsets**2).sum(axis=-1))
        radii = 0.5 * np.linalg.norm(step.extents[n], axis=1)
        reach = distances - radii[:, None] - radii[None]
        poses = np.concatenate([p, step.quaternions[n], step.extents[n]], axis=1)
        count = len(n)
        states = np.concatenate(
            [np.broadcast_to(poses[:, None], (count, count, 10)), np.broadcast_to(poses[None], (count, count, 10))], -1
        )
        moved = np.abs(self._gap_state[np.ix_(s, s)] - states).max(axis=-1) > _SAME_POSE
        solids: list[Solid] = [(int(step.shapes[m]), step.extents[m], step.hulls[m]) for m in n]
        parts = [step.parts[m] if step.parts else () for m in n]
        pieces: dict[int, Pieces] = {}
        for i, j in zip(*np.nonzero(np.triu((reach < NEAR_GAP_M) & moved, 1)), strict=True):
            a, b = s[i], s[j]
            towards = offsets[i, j] / max(float(distances[i, j]), 1e-6)
            if reach[i, j] > _ROUGH_M:
                gap, normal = float(reach[i, j]), towards
            elif parts[i] or parts[j]:
                # Each object is in several pairs.
                for m in {i, j} - pieces.keys():
                    pieces[m] = Pieces.of(solids[m], parts[m])
                one, other = pieces[i], pieces[j]
                # What is in a bowl touches it on any side.
                gap, normal = gap_of_pieces(one, other, p[i], rotations[i], p[j], rotations[j])
            else:
                gap, normal = gap_and_normal(solids[i], solids[j], p[i], rotations[i], p[j], rotations[j])
                if normal @ towards < 0.2:
                    normal = towards
            self._gap[a, b] = self._gap[b, a] = gap
            self._normal[a, b], self._normal[b, a] = normal, -normal
            self._gap_state[a, b] = states[i, j]
            self._gap_state[b, a] = states[j, i]
        near = reach < NEAR_GAP_M
        np.fill_diagonal(near, False)
        gap = np.where(near, self._gap[np.ix_(s, s)], np.inf)
        normal = self._normal[np.ix_(s, s)] * near[..., None]
        self.gap[row][np.ix_(s, s)] = gap
        self.normal[row][np.ix_(s, s)] = normal
        near &= gap < NEAR_GAP_M
        v, dv = self.velocity[row, s], self.kick[row, s]
        size = np.linalg.norm(dv, axis=1)
        above = (p[:, 2] - half)[:, None] - (p[:, 2] + half)[None]
        known = np.where(near, gap, 0.0)
        columns = [
            100.0 * known,
            10.0 * known,
            2.0 * np.einsum("ik,ijk->ij", v, normal),
            2.0 * np.einsum("jk,ijk->ij", v, normal),
            2.0 * np.einsum("ik,ijk->ij", dv, normal),
            2.0 * np.einsum("jk,ijk->ij", dv, normal),
            np.broadcast_to(2.0 * size[:, None], near.shape),
            np.broadcast_to(2.0 * size[None], near.shape),
            2.0 * np.linalg.norm(v[:, None] - v[None], axis=-1),
            20.0 * above,
            20.0 * above.T,
            np.ones_like(known),
        ]
        self.pairs[row][np.ix_(s, s)] = np.clip(np.stack(columns, axis=-1), -4.0, 4.0) * near[..., None]

    def window(self, last: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Ids (N,), objects (N, W, Fo) and pairs (N, N, W, Fp) of the window that ends with a step.

        The objects are those that exist at the window's center.
        """
        rows = np.array([self.row(k) for k in range(last - WINDOW + 1, last + 1)])
        center = rows[CENTER]
        found = sorted((i, s) for i, s in self.slot.items() if self.here[center, s])
        ids, slots = np.array([i for i, _ in found], np.int64), np.array([s for _, s in found], int)
        objects = self.objects[rows][:, slots].transpose(1, 0, 2)
        pairs = self.pairs[np.ix_(rows, slots, slots)].transpose(1, 2, 0, 3)
        return ids, np.ascontiguousarray(objects), np.ascontiguousarray(pairs)

    def rows_about(self, step: int, before: int, after: int) -> NDArray[np.int64]:
        """Rows of steps ``step - before .. step + after``, kept within what is remembered."""
        low, high = max(0, self.count - self.length), self.count - 1
        return np.array([self.row(min(max(k, low), high)) for k in range(step - before, step + after + 1)])

    def motion_at(self, who: int, step: int) -> tuple[float, float, float]:
        """Speed before and after a step, and the change of velocity [m/s] through it; zeros where it is not known."""
        s = self.slot.get(who)
        if s is None:
            return 0.0, 0.0, 0.0
        rows = self.rows_about(step, 1, 1)
        before, after = self.velocity[rows[0], s], self.velocity[rows[2], s]
        return (
            float(np.linalg.norm(before)),
            float(np.linalg.norm(after)),
            float(np.linalg.norm(after - before)),
        )
