"""Which perceived objects are parts of one body.

A segmenter cuts an object in two where its color or its shape changes: a drill and its battery, a pan and its handle.
Two objects count as parts of one body when all of this holds:

* They touch, and have touched since both were first seen, so they have never been seen apart. Both are seen in large
  part, and where they are is known.
* Both rest, and one of them could not rest where it is by what it touches (``equilibrium.can_rest``): nothing bears it,
  or its center of mass lies beyond what does.
* The camera sees that nothing is beneath it. The lower half of what is behind something else looks as if it hovered.
* They touch in a face, not in a point: that of a handle on its pan is as large as the handle is thick.
* Together, as one body, they can rest.

So two boxes on or beside one another are two whatever their colors are, and a mug on a book is not one with the book.
A wrong join is worse than a missed one: what is missed is held in the air until something moves it (``settling``), what
is wrong is dragged along.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from wm_core.convex_parts import ConvexPart
from wm_core.part_solids import part_volume
from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import CARRIED_BY, Predicate, SceneGraph
from wm_dynamics.base import Array
from wm_dynamics.belief import moving_objects, scene_states
from wm_dynamics.joining.equilibrium import SLAB_M, Touch, can_rest, common_face, touch_between
from wm_dynamics.mujoco.bodies import geom_points
from wm_dynamics.mujoco.world import World
from wm_dynamics.settling.bodies import floor_height, simulated_bodies

SINCE_NS = 1_000_000_000
"""Time after both were first seen within which a touch counts as there from the beginning [ns]: shapes take about so
long to be known. Longer takes what was soon put down beside another to have been there always."""
LEAST_VISIBLE = 0.75
"""Least visible part of objects that can be of one body: parts hide some of one another. What is hidden more has a
shape that was guessed, down to a table that it may not reach. Smaller joins things of heaps."""
MOST_UNSURE_M = 0.015
"""Largest standard deviation of a position [m] of what can be of one body. Larger joins what is hardly known."""
STILL_M_S = 0.01
"""Speed from which an object is not certain to rest [m/s]: the tracker gives what rests a speed of 0. Larger joins what
is being carried off."""
LEAST_TOUCH = 0.5
"""Least probability of a relation that counts."""
GAP_DEVIATIONS = 2.576
"""Standard deviations of a distance up to which two objects may touch: the 99 % quantile of a normal error."""
GAP_M = (0.005, 0.02)
"""Smallest and largest gap [m] up to which two objects may touch. Larger lets what hovers stand on what is beneath it;
smaller, and what stands seems to hover, by an error of its height."""
BEARING_GAP_M = 0.03
"""Gap [m] up to which an object may be borne by another, not by a surface, when it is asked whether it can rest: tops
of objects are known worse. Larger joins fewer; smaller joins what bridges two boxes to one of them."""
FRICTION = 0.9
"""Coefficient with which objects are asked whether they can rest: that of dry rubber, which nothing usual exceeds.
Smaller takes what leans to be attached to what it leans on."""
CENTER_SHARE = 0.15
"""Part of its size by which an object's center of mass may be off that of its shape filled evenly: a hammer's head is
heavier than its handle. Larger joins fewer, smaller joins a hammer to the book that it lies on."""
LEAST_JOINT = 0.5
"""Least width of a joint, as part of the thickness of the thinner of the two: of a handle that ends at its pan it is 1,
as perceived about 0.6. Larger joins fewer, smaller joins round things to what they stand beside (``JOINT_SLAB_M``)."""
JOINT_SLAB_M = 0.003
"""Thickness of the layers that make a joint [m], beyond what the two overlap by: about the errors of fitted surfaces.
With it a cylinder of 66 mm touches a plane in 0.43 of its diameter, and one of 50 mm in half of it."""
CLEARLY = 1.5
"""Ratio of the joints' areas from which on an object belongs to that one of two neighbors. Smaller joins some to the
wrong one, larger leaves more apart."""
LEAST_SEEN = 1.0 / 3.0
"""Part of the places beneath an object that the camera has to see. Larger joins fewer: an object hides some of what is
beneath it by itself. Smaller takes what was not seen for empty."""
DEEPEST_M = 0.3
"""How far below an object places are looked at [m]."""


def touching_since_seen(mean: SceneGraph) -> frozenset[tuple[int, int]]:
    """Pairs of rows, ascending, of objects at rest that have touched since both were first seen, of which one at least
    does not plainly stand: there is hardly ever one. Objects whose poses are known exactly are taken as they are.
    """
    row_of = {int(object_id): row for row, object_id in enumerate(mean.ids)}
    rests = ~(moving_objects(mean)[0] | mean.is_static | _known_exactly(mean))
    rests &= np.linalg.norm(mean.linear_velocities, axis=1) < STILL_M_S
    rests &= (mean.visibilities >= LEAST_VISIBLE) & (_spread_m(mean) <= MOST_UNSURE_M)
    found = set()
    for relation in mean.relations:
        a, b = row_of.get(relation.subject), row_of.get(relation.object)
        if relation.predicate != Predicate.TOUCHING or a is None or b is None or not (rests[a] and rests[b]):
            continue
        since = int(max(mean.first_seen_ns[a], mean.first_seen_ns[b])) + SINCE_NS
        if relation.probability >= LEAST_TOUCH and relation.since_ns <= since:
            found.add((min(a, b), max(a, b)))
    hover = {i: _may_hover(mean, i) for i in {i for pair in found for i in pair}}
    return frozenset(found) if any(hover.values()) else frozenset()


def attached_rows(mean: SceneGraph, pairs: Collection[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Rows of the objects that are one body, ascending, a tuple for each body of several.

    Args:
        pairs: of rows that can be of one (``touching_since_seen``).
    """
    return _Scene(mean).joined(pairs) if pairs else ()


def _spread_m(mean: SceneGraph) -> Array:
    """(N,) standard deviation of positions along an axis, the mean over the axes [m]."""
    variances = np.einsum("nii->n", mean.pose_covariances[:, :3, :3]) / 3.0
    return np.asarray(np.sqrt(np.maximum(np.nan_to_num(variances, nan=np.inf), 0.0)))


def _known_exactly(mean: SceneGraph) -> NDArray[np.bool_]:
    """(N,) objects whose pose has no covariance."""
    return ~(np.abs(mean.pose_covariances).sum(axis=(1, 2)) > 0.0).reshape(len(mean))


def _may_hover(mean: SceneGraph, row: int) -> bool:
    """Whether it is not plain that an object stands: quick, as most do."""
    own = int(mean.ids[row])
    rows = {int(object_id): i for i, object_id in enumerate(mean.ids)}
    for relation in mean.relations:
        lower = rows.get(relation.object)
        if relation.subject != own or relation.predicate not in CARRIED_BY or lower is None:
            continue
        if relation.probability >= LEAST_TOUCH and not mean.is_static[lower]:
            return False  # its center is over, or in, what carries it
    points = _outline_points(mean, row)
    bottom = float(points[:, 2].min())
    foot = points[points[:, 2] < bottom + GAP_M[0], :2]
    inside = ((foot.min(axis=0) <= mean.positions[row, :2]) & (mean.positions[row, :2] <= foot.max(axis=0))).all()
    for i in np.flatnonzero(mean.is_static).tolist():
        if inside and abs(bottom - (mean.positions[i, 2] + 0.5 * mean.extents[i, 2])) < _gap_limit(mean, row, i):
            return False
    return True


def _outline_points(mean: SceneGraph, row: int) -> Array:
    """(P, 3) corners of an object's hull or bounds in the graph frame [m]."""
    hull = mean.hulls[row]
    if not len(hull):
        hull = 0.5 * mean.extents[row] * np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    return np.asarray(hull @ quaternion_to_matrix(mean.quaternions[row]).T + mean.positions[row])


def _gap_limit(mean: SceneGraph, a: int, b: int) -> float:
    """Largest gap [m] at which two objects may touch, by the errors of their positions."""
    spread = _spread_m(mean)[[i for i in (a, b) if not mean.is_static[i]]]
    return float(np.clip(GAP_DEVIATIONS * np.linalg.norm(spread), *GAP_M))


@dataclass
class _Cluster:
    """Objects that are one body so far: their rows, volume [m^3], center of mass (3,) and bounds (2, 3) [m], and how
    far they may be off in relation to what they touch [m].

    The center is that of what fills them evenly, which is what they have as one body (``compound``).
    """

    rows: frozenset[int]
    volume: float
    center: Array
    bounds: Array
    unsure_m: float

    @property
    def margin(self) -> Array:
        """(2,) how far the center of mass may be off along x and y [m]."""
        return CENTER_SHARE * np.asarray((self.bounds[1] - self.bounds[0])[:2]) + self.unsure_m

    def with_other(self, other: _Cluster) -> _Cluster:
        """Both as one."""
        volume = self.volume + other.volume
        center = (self.volume * self.center + other.volume * other.center) / volume
        low, high = np.minimum(self.bounds[0], other.bounds[0]), np.maximum(self.bounds[1], other.bounds[1])
        unsure = max(self.unsure_m, other.unsure_m)
        return _Cluster(self.rows | other.rows, volume, center, np.stack([low, high]), unsure)


class _Scene:
    """The bodies of a scene where they were seen, and what touches what."""

    def __init__(self, mean: SceneGraph) -> None:
        self._mean = mean
        airborne = np.zeros(len(mean), dtype=bool)
        bodies = simulated_bodies(mean, moving_objects(mean)[0], airborne, _known_exactly(mean))
        self._floor_z = floor_height(mean, bodies, airborne)
        self._world = World(bodies, self._floor_z, 1.0 / 240.0, touch_sensors=False)
        self._data = mujoco.MjData(self._world.model)
        states = scene_states(mean)
        for i in np.flatnonzero(mean.is_static):
            states[i] = bodies[i].static_state
        self._world.set_positions(self._data, states)
        mujoco.mj_kinematics(self._world.model, self._data)
        mujoco.mj_comPos(self._world.model, self._data)
        rotations = quaternion_to_matrix(states[:, QUATERNION])
        self._parts = [
            [geom_points(g) @ rotations[i].T + states[i, POSITION] for g in body.geoms] for i, body in enumerate(bodies)
        ]
        self._touches: dict[tuple[int, int], list[Touch]] = {}

    def joined(self, pairs: Collection[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
        """Rows of the bodies of several objects, of pairs that have touched since both were seen."""
        clusters = {i: self._single(i) for i in sorted({i for pair in pairs for i in pair})}
        again = True
        while again:
            again, falling = False, self._falling(clusters)
            for one in sorted({min(clusters[row].rows) for row in falling}):
                own = clusters[one]
                partner = self._partner(own, clusters, pairs, falling)
                if partner is not None:
                    both = own.with_other(partner)
                    clusters.update(dict.fromkeys(both.rows, both))
                    again = True
                    break
        bodies = {tuple(sorted(c.rows)) for c in clusters.values() if len(c.rows) > 1}
        return tuple(sorted(bodies))

    def _falling(self, clusters: dict[int, _Cluster]) -> frozenset[int]:
        """Rows of what cannot rest, also not by what else cannot rest: all others hold one another."""
        falling: frozenset[int] = frozenset()
        while True:
            more = {
                row
                for row, own in clusters.items()
                if row == min(own.rows) and row not in falling and not self._rests(own, falling)
            }
            if not more:
                return falling
            falling |= {row for one in more for row in clusters[one].rows}

    def _single(self, row: int) -> _Cluster:
        body = self._world.body_ids[row]
        points = np.concatenate(self._parts[row])
        bounds = np.stack([points.min(axis=0), points.max(axis=0)])
        solid = [g for g in self._world.bodies[row].geoms if not g.visual_only]
        volume = sum(part_volume(ConvexPart(g.shape, g.extents, hull=g.hull)) for g in solid)
        unsure = GAP_DEVIATIONS * float(_spread_m(self._mean)[row])
        return _Cluster(frozenset([row]), volume, self._data.xipos[body].copy(), bounds, unsure)

    def _partner(
        self,
        own: _Cluster,
        clusters: dict[int, _Cluster],
        pairs: Collection[tuple[int, int]],
        falling: frozenset[int],
    ) -> _Cluster | None:
        """What objects that cannot rest by themselves are a part of; None: nothing that is sure."""
        others = {id(c): c for a, b in pairs for c in self._across(own, clusters, a, b)}
        if not others or not self._seen_beneath(own):
            return None
        found = []
        for other in others.values():
            area, share = self._joint(own, other)
            if share >= LEAST_JOINT and self._rests(own.with_other(other), falling):
                found.append((area, min(other.rows), other))
        found.sort(key=lambda f: f[:2], reverse=True)
        if not found or (len(found) > 1 and found[0][0] < CLEARLY * found[1][0]):
            return None
        return found[0][2]

    @staticmethod
    def _across(own: _Cluster, clusters: dict[int, _Cluster], a: int, b: int) -> list[_Cluster]:
        """The other cluster of a pair, if one of its two objects is of ``own`` and the other is not."""
        if (a in own.rows) == (b in own.rows):
            return []
        return [clusters[b if a in own.rows else a]]

    def _rests(self, cluster: _Cluster, falling: frozenset[int] = frozenset()) -> bool:
        """Whether a cluster can rest by what it touches, of which what falls itself is no help."""
        touches = [self._on_floor(row) for row in sorted(cluster.rows)]
        others = sorted(set(range(len(self._mean))) - cluster.rows - falling)
        touches += [self.touches(other, row) for row in sorted(cluster.rows) for other in others]
        return can_rest(cluster.center, cluster.margin, list(itertools.chain(*touches)), FRICTION)

    def _joint(self, own: _Cluster, other: _Cluster) -> tuple[float, float]:
        """Area [m^2] of the face in which two clusters touch, and its width as part of the thinner one's thickness."""
        best = (0.0, 0.0)
        for a, b in itertools.product(sorted(own.rows), sorted(other.rows)):
            thickness = float(min(self._mean.extents[a].min(), self._mean.extents[b].min()))
            area, width = common_face(self._measured(a, b, _gap_limit(self._mean, a, b), JOINT_SLAB_M))
            best = max(best, (area, width / thickness))
        return best

    def touches(self, first: int, second: int) -> list[Touch]:
        """Surfaces in which two objects may bear one another, by parts; normals from the first to the second."""
        if first > second:
            return [t.reversed() for t in self.touches(second, first)]
        if (first, second) not in self._touches:
            on_surface = self._mean.is_static[first] or self._mean.is_static[second]
            limit = _gap_limit(self._mean, first, second) if on_surface else BEARING_GAP_M
            self._touches[first, second] = self._measured(first, second, limit)
        return self._touches[first, second]

    def _measured(self, first: int, second: int, limit: float, slab_m: float = SLAB_M) -> list[Touch]:
        model, geoms = self._world.model, self._world.geom_ids
        found = []
        for (m, a), (n, b) in itertools.product(enumerate(geoms[first]), enumerate(geoms[second])):
            apart = np.linalg.norm(self._data.geom_xpos[a] - self._data.geom_xpos[b])
            if apart > model.geom_rbound[a] + model.geom_rbound[b] + limit:
                continue
            distance, normal = self._distance(a, b, limit)
            if normal is not None:
                found.append(touch_between(self._parts[first][m], self._parts[second][n], normal, -distance, slab_m))
        return found

    def _distance(self, a: int, b: int, limit: float) -> tuple[float, Array | None]:
        """Distance [m] and direction (3,) from one geom to another; None: farther than the limit."""
        model, data, ends = self._world.model, self._data, np.zeros(6)
        distance = mujoco.mj_geomDistance(model, data, a, b, limit, ends)
        between = ends[3:] - ends[:3]
        if abs(distance) < 1e-7:
            # They touch to rounding, and there is no direction: look from a little way off.
            toward = data.geom_xpos[b] - data.geom_xpos[a]
            away = 1e-5 * toward / max(float(np.linalg.norm(toward)), 1e-9)
            data.geom_xpos[b] += away
            moved = mujoco.mj_geomDistance(model, data, a, b, limit, ends)
            data.geom_xpos[b] -= away
            between = (ends[3:] - ends[:3]) * np.sign(moved)
        elif distance >= limit:
            return distance, None
        else:
            between = between * np.sign(distance)
        length = float(np.linalg.norm(between))
        return distance, between / length if length > 1e-9 else None

    def _on_floor(self, row: int) -> list[Touch]:
        """The points of an object that are on the floor."""
        points = np.concatenate(self._parts[row])
        low = points[points[:, 2] < self._floor_z + _gap_limit(self._mean, row, row)]
        return [Touch(low, np.array([0.0, 0.0, 1.0]), 0.0)] if len(low) else []

    def _seen_beneath(self, cluster: _Cluster) -> bool:
        """Whether the camera sees that nothing is beneath objects, where they have nothing right beneath them."""
        model, data = self._world.model, self._data
        eye = self._mean.world_T_camera[:3, 3].copy()
        seen = []
        for row in sorted(cluster.rows):
            body = self._world.body_ids[row]
            limit = _gap_limit(self._mean, row, row)
            points = np.concatenate(self._parts[row])
            bottom = float(points[:, 2].min())
            rotation = quaternion_to_matrix(self._mean.quaternions[row])
            reach = 0.35 * rotation * self._mean.extents[row]  # columns: its axes
            level = reach[:, np.argsort(np.abs(reach[2]))[:2]].T * [1.0, 1.0, 0.0]
            middle = np.array([*cluster.center[:2], bottom]) if len(cluster.rows) == 1 else points.mean(axis=0)
            for offset in (np.zeros(3), level[0], -level[0], level[1], -level[1]):
                place = np.array([*(middle + offset)[:2], bottom - 1e-3])
                deep = mujoco.mj_ray(model, data, place, np.array([0.0, 0.0, -1.0]), None, 1, body, _ANY)
                deep = min(deep, DEEPEST_M) if deep >= 0.0 else DEEPEST_M
                if deep <= limit:
                    continue
                for share in (0.25, 0.5, 0.75):
                    ray = place - [0.0, 0.0, share * deep] - eye
                    hit = mujoco.mj_ray(model, data, eye, ray, None, 1, -1, _ANY)
                    seen.append(hit < 0.0 or hit >= 1.0)
        return bool(seen) and float(np.mean(seen)) >= LEAST_SEEN


_ANY = np.zeros(1, dtype=np.int32)
"""Where MuJoCo writes which geom a ray met; it is not looked at."""
