"""Geometric relations among the objects of a scene, with hysteresis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_core.rotations import rotation_matrices
from wm_core.scene_graph import EventKind, Predicate, Relation, SceneGraph
from wm_perception.reasoning.containment import Container, Placed, clearance, inside
from wm_perception.reasoning.gaps import GAP_SAMPLES, Pieces, gap_of_pieces, gaps_between
from wm_perception.shapes.surfaces import surface_samples
from wm_perception.types import Array, PerceptionConfig

Emit = Callable[[EventKind, int, int], None]


@dataclass(frozen=True)
class Meeting:
    """How two objects are to one another.

    Attributes:
        state: (22,) both poses, sizes and counts of parts that the rest was measured at; gap: of the surfaces [m].
        nested: probability that the first is inside the second, and the second inside the first; NaN where the outer
            one has no parts. over: likewise the height [m] of the one's underside over the other.
    """

    state: Array
    gap: float
    nested: tuple[float, float] = (np.nan, np.nan)
    over: tuple[float, float] = (np.nan, np.nan)


Gaps = dict[tuple[int, int], Meeting]
"""By pair of ids."""
_ENTER, _LEAVE = 0.5, 0.4
"""Probabilities at which a relation begins and ends. Chosen by hand; farther apart means fewer changes, and later
ones."""
_LEAVE_CONTACT = 0.3
"""The same end for relations of contact, whose gaps are a few mm, as large as the error of a surface. Chosen by hand
with commit a1ecbd4."""
_CONTACT = (Predicate.TOUCHING, Predicate.ON, Predicate.SUPPORTS)
_SMOOTH_S = 0.14
"""Time [s] over which velocities are averaged for MOVING_WITH: two frames at 15 Hz. Chosen by hand; larger means less
noise and later relations."""
_APART_M = 0.05
"""Gap [m] from which an object is not inside one of parts, nor on it. Chosen by hand: things in a bowl lie against it.
Larger is slower, and lets things hover."""
_SUNK_M = 0.02
"""How far [m] an object may seem to have sunk into the surface that it stands on: the limit of ON. Larger takes what is
beside a step to be on it."""
_OUT_OF_REACH = 1.3
"""Distance of bounds, over that at which objects are near, from which no gap is measured: nothing that depends on it is
as probable as ``_LEAST``. Larger is slower."""
_LEAST = 0.05
"""Relations less probable than this count as absent. Chosen by hand; it keeps the list short."""


class RelationGraph:
    """Keeps which relations hold and since when; a relation begins at probability 0.5 and ends below 0.4 (0.3: touch).

    MOVING_WITH compares displacements over the last two frames: velocities of single frames are too noisy for the small
    difference of two.
    """

    def __init__(self, config: PerceptionConfig) -> None:
        self.config = config
        self._since: dict[tuple[int, Predicate, int], int] = {}
        self._gaps: Gaps = {}
        self._trail: list[tuple[int, dict[int, Array]]] = []

    def update(self, scene: SceneGraph, emit: Emit | None = None) -> tuple[Relation, ...]:
        """Relations that hold in this scene; contacts that begin or end, and falls, are passed to ``emit``."""
        probabilities = measure_relations(scene, self.config, self._gaps, self._smoothed(scene))
        holding: list[Relation] = []
        now: dict[tuple[int, Predicate, int], int] = {}
        for key, probability in probabilities.items():
            before = self._since.get(key)
            if probability >= _ENTER or (
                before is not None and probability >= (_LEAVE_CONTACT if key[1] in _CONTACT else _LEAVE)
            ):
                now[key] = scene.stamp_ns if before is None else before
                holding.append(Relation(*key, probability=probability, since_ns=now[key]))
        if emit is not None:
            self._contacts(scene, now, emit)
        self._since = now
        holding.sort(key=lambda r: (r.subject, int(r.predicate), r.object))
        return tuple(holding)

    def _smoothed(self, scene: SceneGraph) -> Array:
        """Mean velocities (N, 3) over the last ``_SMOOTH_S``, of objects that were seen for so long."""
        now = dict(zip(scene.ids.tolist(), scene.positions, strict=True))
        self._trail = [t for t in self._trail if scene.stamp_ns - t[0] <= _SMOOTH_S * 1e9 and t[0] < scene.stamp_ns]
        velocities = scene.linear_velocities.copy()
        if self._trail:
            stamp, before = self._trail[0]
            seconds = (scene.stamp_ns - stamp) * 1e-9
            for row, who in enumerate(scene.ids.tolist()):
                # The tracker judges rest over more than two frames.
                if who in before and velocities[row].any():
                    velocities[row] = (scene.positions[row] - before[who]) / seconds
        self._trail.append((scene.stamp_ns, now))
        return velocities

    def _contacts(self, scene: SceneGraph, now: dict[tuple[int, Predicate, int], int], emit: Emit) -> None:
        static = set(scene.ids[scene.is_static].tolist())
        alive = set(scene.ids.tolist())

        def pairs(relations: dict[tuple[int, Predicate, int], int]) -> set[tuple[int, int]]:
            return {(a, b) for a, p, b in relations if p == Predicate.TOUCHING and a not in static and b not in static}

        before, after = pairs(self._since), pairs(now)
        for a, b in sorted(after - before):
            emit(EventKind.CONTACT, a, b)
        for a, b in sorted(before - after):
            if a in alive and b in alive:
                emit(EventKind.SEPARATION, a, b)
        was_on = {a for a, p, _ in self._since if p == Predicate.ON}
        is_on = {a for a, p, _ in now if p == Predicate.ON}
        for a in sorted(was_on - is_on):
            if a in alive and scene.linear_velocities[scene.index(a), 2] < -0.3:
                emit(EventKind.FALL, a, 0)


def _soft(value: Array | float, limit: float, width: float) -> Array:
    """1 well below a limit, 0.5 at it, 0 well above."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip((np.asarray(value) - limit) / width, -30.0, 30.0))))


def measure_relations(
    scene: SceneGraph, config: PerceptionConfig, gaps: Gaps | None = None, velocities: Array | None = None
) -> dict[tuple[int, Predicate, int], float]:
    """Probability of every relation that is not clearly absent, by (subject, predicate, object).

    Gaps are between surface samples of one object and the other's exact distance, both ways; the directions are those
    of the camera (x right, z forward), among objects that are near.

    Args:
        gaps: surface gaps of earlier calls by pair of ids; used again while neither of the two has moved.
        velocities: (N, 3) [m/s] for MOVING_WITH, by default those of the scene.
    """
    gaps = {} if gaps is None else gaps
    n = len(scene)
    result: dict[tuple[int, Predicate, int], float] = {}
    if n < 2:
        return result
    positions, extents, static = scene.positions, scene.extents, scene.is_static
    rotations = rotation_matrices(scene.quaternions)
    radii = 0.5 * np.linalg.norm(extents, axis=1)
    offsets = positions[None] - positions[:, None]
    distances = np.linalg.norm(offsets, axis=-1)
    close = (distances - radii[:, None] - radii[None] <= config.near_m + 0.05) & ~(static[:, None] & static[None])
    rows, columns = np.nonzero(np.triu(close, 1))
    if not len(rows):
        _occlusions(scene, _optical(scene), result)
        return result
    meetings = _meetings(scene, rotations, rows, columns, gaps, max(_OUT_OF_REACH * config.near_m, _APART_M))
    gap = np.array([m.gap for m in meetings])
    samples = [_surface(scene, i) for i in range(n)]
    heights = [s @ rotations[i, 2] for i, s in enumerate(samples)]
    lows = positions[:, 2] + [h.min() for h in heights]
    highs = positions[:, 2] + [h.max() for h in heights]
    ids = scene.ids.tolist()
    touch = _soft(gap, config.touch_m, 0.25 * config.touch_m)
    near = _soft(gap, config.near_m, 0.1 * config.near_m)
    speeds = np.linalg.norm(scene.linear_velocities, axis=1)
    relative = scene.linear_velocities[columns] - scene.linear_velocities[rows]
    closing = -(relative * offsets[rows, columns]).sum(axis=1) / np.maximum(distances[rows, columns], 1e-9)
    approach = 1.0 - _soft(closing, 0.05, 0.02)
    if velocities is not None:
        relative = velocities[columns] - velocities[rows]
    together = np.minimum(touch, _soft(np.linalg.norm(relative, axis=1), 0.05, 0.02))
    optical = _optical(scene)
    aside = optical[columns, 0] - optical[rows, 0]
    deeper = optical[columns, 2] - optical[rows, 2]
    side, depth = 1.0 - _soft(np.abs(aside), 0.04, 0.01), 1.0 - _soft(np.abs(deeper), 0.05, 0.01)
    local = np.stack(
        [
            np.einsum("pk,pkl->pl", -offsets[rows, columns], rotations[columns]),
            np.einsum("pk,pkl->pl", offsets[rows, columns], rotations[rows]),
        ]
    )
    # Both ways: the first on the second, the second on the first.
    tops, bottoms = np.stack([rows, columns]), np.stack([columns, rows])
    over = np.array([m.over for m in meetings]).T
    over = np.where(np.isnan(over), lows[tops] - highs[bottoms], over)
    level = _soft(np.abs(over), 0.02, 0.004)
    beyond = (np.abs(local[..., :2]) - 0.5 * extents[bottoms, :2]).max(axis=-1)
    on = np.where(static[tops], 0.0, np.minimum(level, _soft(beyond, 0.005, 0.003)))
    longest = extents.max(axis=1)
    enclosed = (np.abs(local) < 0.45 * extents[bottoms]).all(axis=-1) & (longest[tops] < 0.95 * longest[bottoms])
    nested = np.array([m.nested for m in meetings]).T
    # What is in a bowl is not on it.
    on = np.where(nested >= _LEAVE, 0.0, on)
    within = np.where(np.isnan(nested), np.where(enclosed & ~(nested[::-1] >= _LEAVE), 0.8, 0.0), nested)
    table = zip(
        rows.tolist(), columns.tolist(), *(v.tolist() for v in (gap, touch, near, approach, together, aside, deeper)),
        *(v.tolist() for v in (side, depth, on[0], on[1], within[0], within[1])), strict=True,
    )  # fmt: skip
    still, fast = static.tolist(), (speeds > 0.03).tolist()
    for i, j, g, touching, close_by, nears, joint, right, behind, beside, apart, on_a, on_b, in_a, in_b in table:
        a, b = ids[i], ids[j]
        result[a, Predicate.TOUCHING, b] = touching
        moving = not (still[i] or still[j])
        for top, bottom, rests, inner in ((a, b, on_a, in_a), (b, a, on_b, in_b)):
            if rests >= _LEAST:
                result[top, Predicate.ON, bottom] = rests
                result[bottom, Predicate.SUPPORTS, top] = rests
            if moving and inner >= _LEAST:
                result[top, Predicate.INSIDE, bottom] = inner
        if not moving:
            continue
        result[a, Predicate.NEAR, b] = close_by
        if fast[i]:
            result[a, Predicate.APPROACHING, b] = nears
        if fast[j]:
            result[b, Predicate.APPROACHING, a] = nears
        if fast[i] and fast[j]:
            result[a, Predicate.MOVING_WITH, b] = joint
        if g < config.near_m:
            left, other = (a, b) if right > 0.0 else (b, a)
            front, back = (a, b) if behind > 0.0 else (b, a)
            result[left, Predicate.LEFT_OF, other] = result[other, Predicate.RIGHT_OF, left] = beside
            result[front, Predicate.IN_FRONT_OF, back] = result[back, Predicate.BEHIND, front] = apart
    _occlusions(scene, optical, result)
    return {key: p for key, p in result.items() if p >= _LEAST}


def _optical(scene: SceneGraph) -> Array:
    camera_T_world = np.linalg.inv(scene.world_T_camera)
    return np.asarray(scene.positions @ camera_T_world[:3, :3].T + camera_T_world[:3, 3])


def _surface(scene: SceneGraph, i: int) -> Array:
    """Points (P, 3) of an object's surface in its own frame [m]; where it has parts, those that span them."""
    if scene.parts[i]:
        return np.concatenate([p.points() for p in scene.parts[i]])
    return surface_samples(int(scene.shapes[i]), scene.extents[i], scene.hulls[i], GAP_SAMPLES)[0]


def _meetings(
    scene: SceneGraph,
    rotations: Array,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    known: Gaps,
    far_m: float,
) -> list[Meeting]:
    """Of P pairs of rows; those of pairs that have not moved are taken from ``known``.

    Where the bounds along the world's axes are farther apart than ``far_m`` [m], that is the gap.
    """
    counts = np.array([[float(len(p))] for p in scene.parts])
    poses = np.concatenate([scene.positions, scene.quaternions, scene.extents, counts], axis=1)
    states = np.concatenate([poses[rows], poses[columns]], axis=1)
    result = []
    fresh: Gaps = {}
    ids, pieces = scene.ids.tolist(), _AllPieces(scene)
    halves = 0.5 * np.einsum("nij,nj->ni", np.abs(rotations), scene.extents)
    beyond = np.abs(scene.positions[rows] - scene.positions[columns]) - halves[rows] - halves[columns]
    bounds = np.linalg.norm(np.maximum(beyond, 0.0), axis=1).tolist()
    for i, j, state, bound in zip(rows.tolist(), columns.tolist(), states, bounds, strict=True):
        if bound > far_m:
            result.append(_apart(scene, i, j, state, bound))
            continue
        key = ids[i], ids[j]
        found = known.get(key)
        if found is None or np.abs(found.state - state).max() > 5e-4:
            found = _meet(scene, rotations, i, j, state, pieces)
        fresh[key] = found
        result.append(found)
    known.clear()
    known.update(fresh)
    return result


def _apart(scene: SceneGraph, i: int, j: int, state: Array, gap: float) -> Meeting:
    """Of two objects that are far from each other: neither is inside the other, nor on it."""
    outer = [bool(scene.parts[m]) and not scene.is_static[n] for n, m in ((i, j), (j, i))]
    nested, over = ([value if o else np.nan for o in outer] for value in (0.0, np.inf))
    return Meeting(state, gap, (nested[0], nested[1]), (over[0], over[1]))


class _AllPieces(dict[int, Pieces]):
    """``Pieces`` by the row of an object, made when they are asked for: an object is in several pairs."""

    def __init__(self, scene: SceneGraph) -> None:
        super().__init__()
        self._scene = scene

    def __missing__(self, row: int) -> Pieces:
        scene = self._scene
        solid = int(scene.shapes[row]), scene.extents[row], scene.hulls[row]
        made = self[row] = Pieces.of(solid, scene.parts[row])
        return made


def _meet(scene: SceneGraph, rotations: Array, i: int, j: int, state: Array, pieces: _AllPieces) -> Meeting:
    one, other = ((int(scene.shapes[m]), scene.extents[m], scene.hulls[m]) for m in (i, j))
    if not (scene.parts[i] or scene.parts[j]):
        a, b = slice(i, i + 1), slice(j, j + 1)
        gap = gaps_between(one, other, scene.positions[a], rotations[a], scene.positions[b], rotations[b])
        return Meeting(state, float(gap[0]))
    places = scene.positions[i], rotations[i], scene.positions[j], rotations[j]
    nearest, _ = gap_of_pieces(pieces[i], pieces[j], *places, samples=GAP_SAMPLES)
    nested, over = [], []
    for inner, outer in ((i, j), (j, i)):
        if not scene.parts[outer] or scene.is_static[inner]:
            nested.append(np.nan)
            over.append(np.nan)
        elif nearest > _APART_M:
            nested.append(0.0)
            over.append(np.inf)
        else:
            surface = _surface(scene, inner) @ rotations[inner].T + scene.positions[inner]
            thing = Placed(surface, scene.positions[inner], scene.extents[inner])
            container = Container(scene.parts[outer], scene.positions[outer], rotations[outer])
            nested.append(inside(thing, container))
            over.append(clearance(thing, container, _SUNK_M))
    return Meeting(state, nearest, (nested[0], nested[1]), (over[0], over[1]))


def _occlusions(scene: SceneGraph, optical: Array, result: dict[tuple[int, Predicate, int], float]) -> None:
    radii = 0.5 * np.sort(scene.extents, axis=1)[:, 1]
    hidden = 1.0 - scene.visibilities
    ahead = (optical[:, 2] > 0.0) & ~scene.is_static
    depth = np.maximum(optical[:, 2], 1e-6)
    seen = optical[:, :2] / depth[:, None]
    wide = radii / depth
    for i in np.flatnonzero(ahead & (hidden >= 0.2)):
        nearer = ahead & (optical[:, 2] <= optical[i, 2] - 0.01)
        nearer[i] = False
        nearer &= np.linalg.norm(seen - seen[i], axis=1) < wide + wide[i]
        for j in np.flatnonzero(nearer):
            result[int(scene.ids[j]), Predicate.OCCLUDES, int(scene.ids[i])] = float(min(1.0, hidden[i] + 0.3))
