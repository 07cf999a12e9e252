"""Geometric relations among the objects of a scene, with hysteresis."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from wm_core.scene_graph import EventKind, Predicate, Relation, SceneGraph, Shape
from wm_perception.shapes import hull_planes, signed_distance, surface_samples
from wm_perception.tracking import Tracker
from wm_perception.types import Array, PerceptionConfig

_SYMMETRIC = (Predicate.TOUCHING, Predicate.NEAR, Predicate.MOVING_WITH)
_ENTER, _LEAVE = 0.5, 0.3


class RelationGraph:
    """Keeps which relations hold and since when; a relation begins at probability 0.5 and ends below 0.3."""

    def __init__(self, config: PerceptionConfig) -> None:
        self.config = config
        self._since: dict[tuple[int, Predicate, int], int] = {}
        self._gaps: dict[tuple[int, int], tuple[Array, float]] = {}

    def update(self, scene: SceneGraph, tracker: Tracker | None = None) -> tuple[Relation, ...]:
        """Relations that hold in this scene; contact events go to the tracker."""
        probabilities = measure_relations(scene, self.config, self._gaps)
        holding: list[Relation] = []
        now: dict[tuple[int, Predicate, int], int] = {}
        for key, probability in probabilities.items():
            before = self._since.get(key)
            if probability >= _ENTER or (before is not None and probability >= _LEAVE):
                now[key] = scene.stamp_ns if before is None else before
                holding.append(Relation(*key, probability=probability, since_ns=now[key]))
        if tracker is not None:
            self._contacts(scene, now, tracker)
        self._since = now
        holding.sort(key=lambda r: (r.subject, int(r.predicate), r.object))
        return tuple(holding)

    def _contacts(self, scene: SceneGraph, now: dict[tuple[int, Predicate, int], int], tracker: Tracker) -> None:
        static = set(scene.ids[scene.is_static].tolist())
        alive = set(scene.ids.tolist())

        def pairs(relations: dict[tuple[int, Predicate, int], int]) -> set[tuple[int, int]]:
            return {(a, b) for a, p, b in relations if p == Predicate.TOUCHING and a not in static and b not in static}

        before, after = pairs(self._since), pairs(now)
        for a, b in sorted(after - before):
            tracker.emit(EventKind.CONTACT, a, b)
        for a, b in sorted(before - after):
            if a in alive and b in alive:
                tracker.emit(EventKind.SEPARATION, a, b)
        was_on = {a for a, p, _ in self._since if p == Predicate.ON}
        is_on = {a for a, p, _ in now if p == Predicate.ON}
        for a in sorted(was_on - is_on):
            if a in alive and scene.linear_velocities[scene.index(a), 2] < -0.3:
                tracker.emit(EventKind.FALL, a)


Solid = tuple[int, Array, Array]
"""A shape, its full extents (3,) [m] and its hull (P, 3)."""

GAP_SAMPLES = 96


def rotation_matrices(quaternions: Array) -> Array:
    """(T, 3, 3) of unit quaternions (T, 4) xyzw."""
    x, y, z, w = np.asarray(quaternions, dtype=np.float64).T
    rows = [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def planes_of(solid: Solid) -> Array | None:
    """Half-spaces of a convex hull; None where the shape needs none or the hull is flat (it then counts as a box)."""
    shape, _, hull = solid
    if shape != Shape.CONVEX or len(hull) < 4:
        return None
    try:
        return hull_planes(hull)
    except ValueError:
        return None


def gaps_between(
    first: Solid, second: Solid, positions_a: Array, rotations_a: Array, positions_b: Array, rotations_b: Array
) -> Array:
    """(T,) distance of the surfaces [m] of two solids at T poses, negative where they overlap.

    From surface samples of one to the exact distance of the other, both ways.

    Args:
        positions_a, positions_b: (T, 3); rotations_a, rotations_b: (T, 3, 3).
    """
    result = np.full(len(positions_a), np.inf)
    ways = (
        (first, second, positions_a, rotations_a, positions_b, rotations_b),
        (second, first, positions_b, rotations_b, positions_a, rotations_a),
    )
    for one, other, p, r, q, s in ways:
        local, _ = surface_samples(one[0], one[1], one[2], GAP_SAMPLES)
        turn = np.einsum("tji,tjk->tik", s, r)
        shift = np.einsum("tji,tj->ti", s, p - q)
        points = np.einsum("tik,pk->tpi", turn, local) + shift[:, None]
        distance, _ = signed_distance(other[0], other[1], points.reshape(-1, 3), planes_of(other))
        result = np.minimum(result, distance.reshape(len(p), -1).min(axis=1))
    return result


def _soft(value: float, limit: float, width: float) -> float:
    """1 well below a limit, 0.5 at it, 0 well above."""
    return float(1.0 / (1.0 + np.exp(np.clip((value - limit) / width, -30.0, 30.0))))


def measure_relations(
    scene: SceneGraph, config: PerceptionConfig, gaps: dict[tuple[int, int], tuple[Array, float]] | None = None
) -> dict[tuple[int, Predicate, int], float]:
    """Probability of every relation that is not clearly absent, by (subject, predicate, object).

    Gaps are between surface samples of one object and the other's exact distance, both ways; the directions are those
    of the camera (x right, z forward), among objects that are near.

    Args:
        gaps: surface gaps of earlier calls by pair of ids; used again while neither of the two has moved.
    """
    gaps = {} if gaps is None else gaps
    n = len(scene)
    result: dict[tuple[int, Predicate, int], float] = {}
    if n < 2:
        return result
    rotations = [Rotation.from_quat(q).as_matrix() for q in scene.quaternions]
    planes = []
    samples = []
    for i in range(n):
        convex = scene.shapes[i] == Shape.CONVEX and len(scene.hulls[i]) >= 4
        try:
            planes.append(hull_planes(scene.hulls[i]) if convex else None)
        except ValueError:
            planes.append(None)
        local, _ = surface_samples(int(scene.shapes[i]), scene.extents[i], scene.hulls[i], 96)
        samples.append(local @ rotations[i].T + scene.positions[i])
    lows = np.array([s[:, 2].min() for s in samples])
    highs = np.array([s[:, 2].max() for s in samples])
    radii = 0.5 * np.linalg.norm(scene.extents, axis=1)
    camera_T_world = np.linalg.inv(scene.world_T_camera)
    optical = scene.positions @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]

    def gap_between(i: int, j: int) -> float:
        poses = np.concatenate([*(np.append(scene.positions[k], scene.quaternions[k]) for k in (i, j))])
        poses = np.concatenate([poses, scene.extents[i], scene.extents[j]])
        pair = int(scene.ids[i]), int(scene.ids[j])
        if pair in gaps and np.abs(gaps[pair][0] - poses).max() < 5e-4:
            return gaps[pair][1]
        d = [
            signed_distance(
                int(scene.shapes[b]), scene.extents[b], (samples[a] - scene.positions[b]) @ rotations[b], planes[b]
            )[0].min()
            for a, b in ((i, j), (j, i))
        ]
        gaps[pair] = poses, float(min(d))
        return gaps[pair][1]

    for i in range(n):
        for j in range(i + 1, n):
            if scene.is_static[i] and scene.is_static[j]:
                continue
            reach = float(np.linalg.norm(scene.positions[i] - scene.positions[j])) - radii[i] - radii[j]
            if reach > config.near_m + 0.05:
                continue
            gap = gap_between(i, j)
            a, b = int(scene.ids[i]), int(scene.ids[j])
            moving = not (scene.is_static[i] or scene.is_static[j])
            touch = _soft(gap, config.touch_m, 0.25 * config.touch_m)
            result[a, Predicate.TOUCHING, b] = touch
            for top, bottom in ((i, j), (j, i)):
                if scene.is_static[top]:
                    continue
                above = _soft(abs(lows[top] - highs[bottom]), 0.02, 0.004)
                over = _over(scene, rotations, top, bottom)
                on = min(above, over)
                subject, carrier = int(scene.ids[top]), int(scene.ids[bottom])
                result[subject, Predicate.ON, carrier] = on
                result[carrier, Predicate.SUPPORTS, subject] = on
                local = (scene.positions[top] - scene.positions[bottom]) @ rotations[bottom]
                smaller = scene.extents[top].max() < 0.95 * scene.extents[bottom].max()
                if moving and smaller and (np.abs(local) < 0.45 * scene.extents[bottom]).all():
                    result[subject, Predicate.INSIDE, carrier] = 0.8
            if not moving:
                continue
            result[a, Predicate.NEAR, b] = _soft(gap, config.near_m, 0.1 * config.near_m)
            relative = scene.linear_velocities[j] - scene.linear_velocities[i]
            direction = scene.positions[j] - scene.positions[i]
            direction /= max(float(np.linalg.norm(direction)), 1e-9)
            closing = -float(relative @ direction)
            speeds = np.linalg.norm(scene.linear_velocities[[i, j]], axis=1)
            if speeds.max() > 0.03:
                for first, second, own in ((a, b, speeds[0]), (b, a, speeds[1])):
                    if own > 0.03:
                        result[first, Predicate.APPROACHING, second] = 1.0 - _soft(closing, 0.05, 0.02)
            if speeds.min() > 0.03:
                together = _soft(float(np.linalg.norm(relative)), 0.05, 0.02)
                result[a, Predicate.MOVING_WITH, b] = min(touch, together)
            if gap < config.near_m:
                right = float(optical[j, 0] - optical[i, 0])
                nearer = float(optical[j, 2] - optical[i, 2])
                side = 1.0 - _soft(abs(right), 0.04, 0.01)
                depth = 1.0 - _soft(abs(nearer), 0.05, 0.01)
                left, other = (a, b) if right > 0.0 else (b, a)
                front, back = (a, b) if nearer > 0.0 else (b, a)
                result[left, Predicate.LEFT_OF, other] = side
                result[other, Predicate.RIGHT_OF, left] = side
                result[front, Predicate.IN_FRONT_OF, back] = depth
                result[back, Predicate.BEHIND, front] = depth
    _occlusions(scene, optical, result)
    return {key: p for key, p in result.items() if p >= 0.05}


def _over(scene: SceneGraph, rotations: list, top: int, bottom: int) -> float:  # type: ignore[type-arg]
    """Whether the centre of one object is over the footprint of another."""
    local = (scene.positions[top] - scene.positions[bottom]) @ rotations[bottom]
    beyond = float((np.abs(local[:2]) - 0.5 * scene.extents[bottom][:2]).max())
    return _soft(beyond, 0.005, 0.003)


def _occlusions(scene: SceneGraph, optical: np.ndarray, result: dict[tuple[int, Predicate, int], float]) -> None:
    radii = 0.5 * np.sort(scene.extents, axis=1)[:, 1]
    for i in range(len(scene)):
        hidden = 1.0 - scene.visibilities[i]
        if scene.is_static[i] or optical[i, 2] <= 0.0 or hidden < 0.2:
            continue
        for j in range(len(scene)):
            if i == j or scene.is_static[j] or optical[j, 2] <= 0.0 or optical[j, 2] > optical[i, 2] - 0.01:
                continue
            angle = np.linalg.norm(optical[i, :2] / optical[i, 2] - optical[j, :2] / optical[j, 2])
            if angle < radii[i] / optical[i, 2] + radii[j] / optical[j, 2]:
                result[int(scene.ids[j]), Predicate.OCCLUDES, int(scene.ids[i])] = float(min(1.0, hidden + 0.3))
