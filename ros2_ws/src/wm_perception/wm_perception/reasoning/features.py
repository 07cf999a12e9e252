"""What the reasoner looks at: motion and gaps of things on an even time grid, and what a contact tells of them.

Plain NumPy, the same for training and on the robot. Times are grid steps of 1 / ``RATE_HZ``; things have slots, rows of
the arrays, as long as they are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.constants import GRAVITY_M_S2
from wm_core.rotations import rotation_matrices
from wm_core.scene_graph import EventKind, SceneGraph, Shape, shape_volume
from wm_perception.reasoning.events import upright_axis
from wm_perception.reasoning.relations import Solid, planes_of
from wm_perception.shapes.surfaces import signed_distance, surface_samples

Array = NDArray[np.float64]

RATE_HZ = 15.0
STEP_S = 1.0 / RATE_HZ
VERSION = 3
"""Of the features: goes up when they change, and what was made of earlier ones is made anew."""
WINDOW = 9
"""Steps that the network sees; it judges the step ``CENTER``, so that it knows what came of it."""
CENTER = 5
AHEAD = WINDOW - 1 - CENTER
CONTACT_LAG, STEP_LAG = 6, 10
"""Steps after which it is seen what came of a contact, and of a slide."""
NEAR_GAP_M = 0.20
SLOTS = 32
MOVING_M_S = 0.12
"""Slower than this, motion tells little of friction."""
_SAMPLES = 64
_ROUGH_M = 0.08
_KINDS = (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE, Shape.BOX, Shape.CONVEX)

OBJECT_FEATURES = (
    "speed", "vertical_velocity", "kick", "vertical_kick", "tracked_speed", "acceleration", "turning", "visibility",
    "seen", "clearance", "log_size", "tilt", "path", "sphere", "cylinder", "capsule", "box", "convex", "age",
)  # fmt: skip
PAIR_FEATURES = (
    "gap_fine", "gap_coarse", "velocity_i", "velocity_j", "kick_i", "kick_j", "kick_size_i", "kick_size_j",
    "relative_speed", "above_i", "above_j", "valid",
)  # fmt: skip
CONTACT_FEATURES = (
    "ratio", "log_kicks", "prior_difference", "restitution", "closing", "kick_own", "kick_other", "pre_own",
    "pre_other", "post_own", "post_other", "later_own", "later_other", "side_own", "side_other", "log_size_own",
    "log_size_other", "round_own", "round_other", "vertical", "seen", "gap", "ratio_then", "log_kicks_then",
    "restitution_then", "way_own", "way_other", "way_ratio",
)  # fmt: skip
STEP_FEATURES = (
    "friction", "speed_before", "speed", "speed_after", "speed_later", "sideways", "nearest_gap", "turning", "round",
    "vertical_before", "vertical", "vertical_after", "clearance", "seen", "log_size", "kick_before", "straight",
    "stopping", "rests", "long_friction", "until_rest", "later_kick", "later_turning", "later_gap",
)  # fmt: skip
SHAPE_FEATURES = (
    "log_long", "log_middle", "log_short", "log_volume", "sphere", "cylinder", "capsule", "box", "convex",
)  # fmt: skip
CAUSE_FEATURES = (
    "delay", "delay_short", "influence_most", "influence_least", "plain_influence", "share_mover", "share_other",
    "closing", "effect_has_mover", "effect_has_other", "other_at_rest", "mover_at_rest", "later_contacts", "own_starts",
    "hops", "is_contact", "is_separation", "is_fall", "is_topple", "is_move", "is_stop", "effect_kick", "effect_speed",
    "rival", "latest", "influence_by_time", "nearest", "nearest_is_cause", "source", "source_plain", "hit_share",
)  # fmt: skip
EFFECTS = (
    EventKind.CONTACT,
    EventKind.SEPARATION,
    EventKind.FALL,
    EventKind.TOPPLE,
    EventKind.MOVE,
    EventKind.STOP,
)
"""Events of which one may ask what caused them."""
PAIR_EVENTS = (EventKind.CONTACT, EventKind.SEPARATION)
OBJECT_EVENTS = (EventKind.MOVE, EventKind.STOP, EventKind.FALL, EventKind.TOPPLE)
BEFORE_S = 0.08
"""An effect may be stamped this much before its cause: instants are not known better."""


def cause_candidates(happenings: list[tuple[EventKind, tuple[int, ...], float]]) -> list[tuple[int, int]]:
    """Pairs (contact, later event) of which one may ask whether the first caused the second.

    Not of an event with both participants of the contact: what would have become of those two nobody can tell.
    """
    pairs = []
    for i, (kind, who, time) in enumerate(happenings):
        if kind != EventKind.CONTACT:
            continue
        for j, (effect, others, later) in enumerate(happenings):
            if i == j or effect not in EFFECTS or later <= time - BEFORE_S or set(who) <= set(others):
                continue
            if later >= time or effect == EventKind.MOVE:
                pairs.append((i, j))
    return pairs


@dataclass(frozen=True)
class Step:
    """The movable things of one instant: n ids, poses, sizes, shapes; ``floors``: heights of what is below [m]."""

    time: float
    ids: NDArray[np.int64]
    positions: Array
    quaternions: Array
    velocities: Array
    extents: Array
    shapes: NDArray[np.int64]
    hulls: tuple[Array, ...]
    visibilities: Array
    floors: Array


def step_of(scene: SceneGraph, time: float) -> Step:
    """What the reasoner takes from a scene graph."""
    rows = np.flatnonzero(~scene.is_static)[:SLOTS]
    floors = np.full(len(rows), -np.inf)
    for k in np.flatnonzero(scene.is_static):
        rotation = rotation_matrices(scene.quaternions[k : k + 1])[0]
        local = (scene.positions[rows] - scene.positions[k]) @ rotation
        over = (np.abs(local[:, :2]) < 0.5 * scene.extents[k, :2] + 0.02).all(axis=1) & (local[:, 2] > -0.02)
        top = scene.positions[k, 2] + 0.5 * scene.extents[k, 2]
        floors[over] = np.maximum(floors[over], top)
    return Step(
        time=time,
        ids=scene.ids[rows],
        positions=scene.positions[rows],
        quaternions=scene.quaternions[rows],
        velocities=scene.linear_velocities[rows],
        extents=scene.extents[rows],
        shapes=scene.shapes[rows],
        hulls=tuple(scene.hulls[k] for k in rows),
        visibilities=scene.visibilities[rows],
        floors=floors,
    )


def between(a: Step, b: Step, time: float) -> Step:
    """The instant between two steps; things of ``b`` that ``a`` did not have are as in ``b``."""
    weight = float(np.clip((time - a.time) / max(b.time - a.time, 1e-9), 0.0, 1.0))
    if weight > 0.97:
        return Step(time, *(getattr(b, f) for f in list(Step.__dataclass_fields__)[1:]))
    positions, quaternions, velocities = b.positions.copy(), b.quaternions.copy(), b.velocities.copy()
    visibilities = b.visibilities.copy()
    where = {int(i): k for k, i in enumerate(a.ids)}
    for k, i in enumerate(b.ids):
        if (j := where.get(int(i))) is None:
            continue
        positions[k] += (1.0 - weight) * (a.positions[j] - b.positions[k])
        velocities[k] += (1.0 - weight) * (a.velocities[j] - b.velocities[k])
        sign = 1.0 if a.quaternions[j] @ b.quaternions[k] >= 0.0 else -1.0
        mixed = (1.0 - weight) * sign * a.quaternions[j] + weight * b.quaternions[k]
        quaternions[k] = mixed / np.linalg.norm(mixed)
        visibilities[k] = min(a.visibilities[j], b.visibilities[k])
    return Step(time, b.ids, positions, quaternions, velocities, b.extents, b.shapes, b.hulls, visibilities, b.floors)


def log_mass_prior(shape: int, extents: Array) -> float:
    """Log mass [kg] by volume alone, at 400 kg/m^3."""
    return float(np.log(max(shape_volume(shape, extents), 1e-7) * 400.0))


def shape_row(shape: int, extents: Array) -> NDArray[np.float32]:
    """``SHAPE_FEATURES`` of a thing."""
    sizes = np.sort(np.asarray(extents, dtype=np.float64))[::-1]
    kinds = [float(shape == s) for s in _KINDS]
    return np.array([*np.log(sizes / 0.08), 0.5 * (log_mass_prior(shape, extents) + 1.5), *kinds], dtype=np.float32)


def gap_and_normal(
    first: Solid, second: Solid, position_a: Array, rotation_a: Array, position_b: Array, rotation_b: Array
) -> tuple[float, Array]:
    """Distance of the surfaces [m] and the direction (3,) from the first to the second where they are nearest."""
    best, normal = np.inf, np.zeros(3)
    ways = (
        (first, second, position_a, rotation_a, position_b, rotation_b, -1.0),
        (second, first, position_b, rotation_b, position_a, rotation_a, 1.0),
    )
    for one, other, p, r, q, t, sign in ways:
        local, _ = surface_samples(*one, _SAMPLES)
        points = (local @ r.T + (p - q)) @ t
        distance, gradient = signed_distance(other[0], other[1], points, planes_of(other))
        nearest = int(distance.argmin())
        if distance[nearest] < best:
            best, normal = float(distance[nearest]), sign * (t @ gradient[nearest])
    return best, normal


class MotionHistory:
    """The last ``length`` grid steps of all things, as arrays by slot.

    Attributes:
        count: steps taken in; time (L,) [s], of step k at row k % length.
        position, velocity, kick: (L, S, 3): where, mean velocity since the step before [m/s], its change [m/s].
        tracked_speed (L, S): of the tracker's filter [m/s], 0 where it holds a thing to be at rest.
        gap (L, S, S) [m], inf where far or unknown; normal (L, S, S, 3), from the first to the second.
        here (L, S): the thing existed; objects (L, S, Fo), pairs (L, S, S, Fp): features.
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
        """Of a step; steps before ``count - length`` are forgotten."""
        return step % self.length

    def born(self, who: int) -> int:
        """The step in which a thing was first there."""
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
        """Take in the next grid step."""
        k = self.count
        row, before = self.row(k), self.row(k - 1)
        self.time[row] = step.time
        for old in [i for i, s in self.slot.items() if self._last[s] < k - self.length]:
            self._forget(old)
        # What is no longer there stays where it was, as not here.
        self.position[row] = self.position[before]
        self.clearance[row] = self.clearance[before]
        self.objects[row] = self.objects[before]
        self.objects[row, :, :9] = 0.0
        for name in ("velocity", "kick", "tracked_speed", "turning", "seen", "pairs", "normal"):
            getattr(self, name)[row] = 0.0
        self.here[row] = False
        self.gap[row] = np.inf
        slots = [self._slot_of(int(i)) for i in step.ids]
        things = np.array([n for n, s in enumerate(slots) if s is not None], dtype=np.int64)
        if len(things):
            at = np.array([slots[n] for n in things], dtype=np.int64)
            rotations = rotation_matrices(step.quaternions[things])
            half = 0.5 * np.einsum("nj,nj->n", np.abs(rotations[:, 2, :]), step.extents[things])
            half = np.where(step.shapes[things] == Shape.SPHERE, 0.5 * step.extents[things, 2], half)
            self._take_objects(step, things, at, half, row, before)
            if len(things) > 1:
                self._take_pairs(step, things, at, half, rotations, row)
        self.count += 1

    def _take_objects(
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
        kinds = [step.shapes[n] == t for t in _KINDS]
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

    def _take_pairs(
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
        moved = np.abs(self._gap_state[np.ix_(s, s)] - states).max(axis=-1) > 5e-4
        solids: list[Solid] = [(int(step.shapes[m]), step.extents[m], step.hulls[m]) for m in n]
        for i, j in zip(*np.nonzero(np.triu((reach < NEAR_GAP_M) & moved, 1)), strict=True):
            a, b = s[i], s[j]
            towards = offsets[i, j] / max(float(distances[i, j]), 1e-6)
            if reach[i, j] > _ROUGH_M:
                gap, normal = float(reach[i, j]), towards
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

        The things are those that are there at the window's center.
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

    def contact_row(self, own: int, other: int, step: int) -> NDArray[np.float32] | None:
        """``CONTACT_FEATURES`` of a contact within a grid step, for one of the two (ids); None: no longer known."""
        if own not in self.slot or other not in self.slot:
            return None
        s, t = self.slot[own], self.slot[other]
        rows = self.rows_about(step, 2, CONTACT_LAG)
        n = self.normal[rows[2], s, t]
        if not n.any():
            n = self.position[rows[2], t] - self.position[rows[2], s]
            n = n / max(float(np.linalg.norm(n)), 1e-6)
        v, u = self.velocity[rows, s], self.velocity[rows, t]
        a, b = v @ n, u @ n
        # Step 2 holds the contact: before it steps 0 and 1, after it 3 to 5.
        dv, du = v[3] - v[1], u[3] - u[1]
        own_kick, other_kick = float(np.linalg.norm(dv)), float(np.linalg.norm(du))
        closing = a[1] - b[1]
        log_kicks = float(np.log((abs(b[3] - b[1]) + 0.03) / (abs(a[3] - a[1]) + 0.03)))
        # Friction slows both down within a step: back to the instant of the contact.
        a_before, b_before = (x[1] + 0.75 * float(np.clip(min(x[1] - x[0], 0.0), -0.4, 0.0)) for x in (a, b))
        a_after, b_after = (x[3] + float(np.clip(x[3] - x[4], -0.5, 0.5)) for x in (a, b))
        log_kicks_then = float(np.log((abs(b_after - b_before) + 0.05) / (abs(a_after - a_before) + 0.05)))
        way_own, way_other = (float((self.position[rows[-1], w] - self.position[rows[1], w]) @ n) for w in (s, t))
        shape_own, shape_other = self.shape[own], self.shape[other]
        prior = log_mass_prior(*shape_other) - log_mass_prior(*shape_own)
        round_kinds = (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE)
        row = [
            0.5 * (log_kicks + prior),
            log_kicks,
            0.5 * prior,
            float(np.clip((b[3] - a[3]) / max(closing, 0.1), -1.0, 1.5)),
            closing,
            own_kick,
            other_kick,
            a[1],
            b[1],
            a[3],
            b[3],
            a[4],
            b[4],
            float(np.linalg.norm(v[1] - a[1] * n)),
            float(np.linalg.norm(u[1] - b[1] * n)),
            np.log(shape_own[1].max() / 0.1),
            np.log(shape_other[1].max() / 0.1),
            float(shape_own[0] in round_kinds),
            float(shape_other[0] in round_kinds),
            abs(n[2]),
            self.seen[rows, s].min() * self.seen[rows, t].min(),
            10.0 * min(self.gap[rows[2], s, t], 0.2),
            0.5 * (log_kicks_then + prior),
            log_kicks_then,
            float(np.clip((b_after - a_after) / max(a_before - b_before, 0.1), -1.0, 1.5)),
            5.0 * way_own,
            5.0 * way_other,
            0.5 * float(np.log((abs(way_other) + 0.004) / (abs(way_own) + 0.004))),
        ]
        return np.clip(row, -4.0, 4.0).astype(np.float32)

    def step_row(self, who: int, step: int) -> NDArray[np.float32] | None:
        """``STEP_FEATURES`` of a thing in motion about a step, ``STEP_LAG`` steps later; None: it tells nothing.

        Where it slides to rest from speed v over a way d, friction is v^2 / 2 g d.
        """
        s = self.slot.get(who)
        if s is None or step - 1 <= self._born[s] or step + STEP_LAG >= self.count:
            return None
        rows = self.rows_about(step, 1, STEP_LAG)
        if not self.here[rows[:4], s].all():
            return None
        v = self.velocity[rows, s]
        speeds = np.hypot(v[:, 0], v[:, 1])
        if speeds[1] < MOVING_M_S or speeds[2] < 0.2 * MOVING_M_S:
            return None
        along = v[1, :2] / speeds[1]
        change = (v[2, :2] - v[1, :2]) / STEP_S
        shape, extents = self.shape[who]
        gaps = np.where(self.here[rows], self.gap[rows, s], np.inf).min(axis=1)
        slow = np.flatnonzero((speeds[2:] < 0.04) | ~self.here[rows[2:], s])
        end = int(slow[0]) + 2 if len(slow) else len(rows) - 1
        rests = bool(len(slow)) and bool(self.here[rows[end], s])
        # From the middle of the step on.
        way = STEP_S * (0.5 * speeds[1] + float(speeds[2 : end + 1].sum()))
        spent = STEP_S * max(end - 1, 1)
        row = [
            -float(change @ along) / GRAVITY_M_S2,
            *speeds[:4],
            float(abs(change[0] * along[1] - change[1] * along[0])) / GRAVITY_M_S2,
            10.0 * min(float(gaps[:4].min()), 0.2),
            0.2 * self.turning[rows[:4], s].max(),
            float(shape in (Shape.SPHERE, Shape.CYLINDER, Shape.CAPSULE)),
            2.0 * v[0, 2],
            2.0 * v[1, 2],
            2.0 * v[2, 2],
            20.0 * self.clearance[rows[1], s],
            float(self.seen[rows, s].min()),
            np.log(extents.max() / 0.1),
            float(np.linalg.norm(self.kick[rows[1], s])),
            float(v[2, :2] @ along) / max(float(speeds[2]), 1e-3),
            float(speeds[1] ** 2) / (2.0 * GRAVITY_M_S2 * max(way, 1e-3)) if rests else 0.0,
            float(rests),
            float(speeds[1] - speeds[end]) / (GRAVITY_M_S2 * spent),
            0.2 * end,
            4.0 * float(np.diff(speeds[1 : end + 1]).max(initial=0.0)),
            0.2 * float(self.turning[rows[1 : end + 1], s].max()),
            10.0 * min(float(gaps[: end + 1].min()), 0.2),
        ]
        return np.clip(row, -4.0, 4.0).astype(np.float32)

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


@dataclass(frozen=True)
class ObservedEvent:
    """An event with the motion about it: per participant speed before, speed after, change of velocity [m/s]."""

    kind: EventKind
    who: tuple[int, ...]
    time: float
    motion: tuple[tuple[float, float, float], ...]

    def share(self, who: int) -> float:
        """0..1: how much of a participant's motion after the event is due to it."""
        before, after, change = self.motion[self.who.index(who)]
        return change / (change + 0.5 * min(before, after) + 0.03)


def cause_row(happenings: list[ObservedEvent], cause: int, effect: int) -> NDArray[np.float32]:
    """``CAUSE_FEATURES`` of a contact and a later event, among all that happened (in time order).

    The influence of a contact spreads: to its two, and with each later contact to whom they touch, as much as that
    contact changed their motion. A start from rest that no contact explains has another cause.
    """
    first, last = happenings[cause], happenings[effect]
    influence = {w: first.share(w) for w in first.who}
    plain = dict.fromkeys(first.who, 1.0)
    latest = dict.fromkeys(first.who, first.time)
    hops = dict.fromkeys(first.who, 0.0)
    later, starts = 0, 0
    # What sets a thing in motion may be stamped a little later than the motion.
    until = last.time + (BEFORE_S if last.kind == EventKind.MOVE else 0.0)
    near = [
        (abs(last.time - h.time), k)
        for k, h in enumerate(happenings)
        if k != effect and h.kind == EventKind.CONTACT and h.time <= until and set(h.who) & set(last.who)
    ]
    nearest, hit = min(near, default=(3.0, -1))
    # Of the one that hit last: how far it was under the influence before.
    source = source_plain = 0.0
    touched: dict[int, float] = dict.fromkeys(first.who, first.time)
    for k, h in enumerate(happenings):
        if k in (cause, effect) or h.time < first.time or h.time > until:
            continue
        if h.kind == EventKind.CONTACT:
            later += int(bool(set(h.who) & set(last.who)))
            old = {w: (influence.get(w, 0.0), plain.get(w, 0.0), hops.get(w, 9.0)) for w in h.who}
            if k == hit:
                source = max((old[w][0] for w in h.who if w not in last.who), default=max(o[0] for o in old.values()))
                source_plain = max(old[w][1] for w in h.who)
            for w, other in (h.who, h.who[::-1]):
                share = h.share(w)
                passed = old[other][0] * share
                kept = old[w][0]
                if passed > kept:
                    influence[w], hops[w], latest[w] = passed, old[other][2] + 1.0, h.time
                else:
                    influence[w] = kept
                plain[w] = max(old[w][1], old[other][1])
                touched[w] = h.time
        elif h.kind == EventKind.MOVE:
            w = h.who[0]
            if h.time - touched.get(w, -9.0) > 0.2 and w in influence:
                starts += int(w in last.who)
                influence[w] *= 0.3
    levels = sorted((influence.get(w, 0.0) for w in last.who), reverse=True)
    speeds = first.motion
    mover = int(np.argmax([m[0] for m in speeds]))
    a, b = first.who[mover], first.who[1 - mover]
    delay = last.time - first.time
    rivals = [
        h.time
        for k, h in enumerate(happenings)
        if k not in (cause, effect)
        and h.kind == EventKind.CONTACT
        and h.time <= last.time + 0.03
        and set(h.who) & set(last.who)
    ]
    rival = last.time - max(rivals) if rivals else 3.0
    effect_motion = max(last.motion, key=lambda m: m[2])
    since = min((last.time - latest[w] for w in last.who if w in latest), default=3.0)
    row = [
        delay,
        np.exp(-np.abs(delay) / 0.12),
        levels[0],
        levels[-1],
        max(plain.get(w, 0.0) for w in last.who),
        first.share(a),
        first.share(b),
        speeds[mover][0],
        float(a in last.who),
        float(b in last.who),
        float(speeds[1 - mover][0] < 0.06),
        float(speeds[mover][0] < 0.06),
        min(later, 4),
        min(starts, 3),
        min((hops.get(w, 5.0) for w in last.who), default=5.0),
        *[float(last.kind == kind) for kind in EFFECTS],
        effect_motion[2],
        effect_motion[0],
        min(rival, 3.0),
        since,
        levels[0] * np.exp(-max(since, 0.0) / 0.5),
        min(nearest, 3.0),
        float(hit == cause),
        1.0 if hit == cause else source,
        1.0 if hit == cause else source_plain,
        max((happenings[hit].share(w) for w in happenings[hit].who if w in last.who), default=0.0) if hit >= 0 else 0.0,
    ]
    return np.clip(row, -4.0, 5.0).astype(np.float32)
