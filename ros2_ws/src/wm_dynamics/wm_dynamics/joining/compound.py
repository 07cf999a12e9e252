"""Objects that are parts of one body, as the one object of several parts that they are in a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from wm_core.convex_parts import ConvexPart, hull_part, merged
from wm_core.rotations import conjugate, multiply, normalize_quaternion, quaternion_to_matrix
from wm_core.scene_graph import Relation, SceneGraph, Shape
from wm_dynamics.base import Array
from wm_dynamics.belief import scene_body
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, simplify_hull
from wm_dynamics.settling.bodies import sample_properties

_PER_OBJECT = ("class_names", "hulls", "parts")
"""Tuples of a scene graph that have an entry for each object."""


@dataclass(frozen=True)
class Compound:
    """Objects that are one body. Its frame has the axes of its heaviest member, and its origin is at the center of its
    bounds along them. It has the highest id of its members, so that ids of created bodies are as they would be.

    Attributes:
        rows: of its m members in the scene, ascending.
        object_id: of the compound.
        root: row of the heaviest member: the compound has its pose errors, class and color.
        places, turns: (m, 3) centers [m] and (m, 4) orientations xyzw of the members in the compound's frame.
        masses: (m,) by the mean [kg].
        bodies: of the members in their own frames.
    """

    rows: tuple[int, ...]
    object_id: int
    root: int
    places: Array
    turns: Array
    masses: Array
    bodies: tuple[BodyDef, ...]

    @staticmethod
    def of(mean: SceneGraph, rows: Sequence[int]) -> Compound:
        """The body of some objects where the mean has them."""
        chosen = list(rows)
        masses = sample_properties(mean)[0][chosen]
        root = chosen[int(np.argmax(masses))]
        bodies = tuple(scene_body(mean, i) for i in chosen)
        axes = normalize_quaternion(mean.quaternions[root])
        back, rotation = conjugate(axes), quaternion_to_matrix(axes)
        turns = np.array([multiply(back, normalize_quaternion(mean.quaternions[i])) for i in chosen])
        places = (mean.positions[chosen] - mean.positions[root]) @ rotation
        made = Compound(tuple(chosen), int(mean.ids[max(chosen)]), root, places, turns, masses, bodies)
        points = np.concatenate([p.points() for own in made.parts() for p in own])
        return replace(made, places=places - 0.5 * (points.min(axis=0) + points.max(axis=0)))

    def parts(self) -> list[list[ConvexPart]]:
        """Of each member its convex parts, in the compound's frame."""
        return [
            placed(body, place, turn) for body, place, turn in zip(self.bodies, self.places, self.turns, strict=True)
        ]

    @property
    def root_place(self) -> Array:
        """(3,) center of the root in the compound's frame [m]."""
        return np.asarray(self.places[self.rows.index(self.root)])


def placed(body: BodyDef, place: Array, turn: Array) -> list[ConvexPart]:
    """The parts of a body in the frame in which the body's is at a place (3,) [m] and turned by (4,) xyzw."""
    rotation = quaternion_to_matrix(turn)
    return [
        ConvexPart(g.shape, g.extents, place + rotation @ g.position, multiply(turn, g.quaternion), g.hull)
        for g in body.geoms
        if not g.visual_only
    ]


def geoms_of(parts: Sequence[ConvexPart]) -> tuple[GeomDef, ...]:
    """Parts as those of a body, at most ``MAX_PARTS``."""
    return tuple(GeomDef(p.shape, p.extents, p.position, p.quaternion, p.hull) for p in merged(parts))


class JoinedScene:
    """A scene in which compounds are one object each.

    Args:
        mean: N objects. groups: rows of the members of each compound (``evidence.attached_rows``).

    Attributes:
        mean: as given.
        compounds: one for each group.
        column: (N,) row of each object, or of its compound, in the joined scene.
        member_of: row -> its compound and its index among the members.
    """

    def __init__(self, mean: SceneGraph, groups: Sequence[Sequence[int]]) -> None:
        self.mean = mean
        self.compounds = [Compound.of(mean, rows) for rows in groups]
        self.member_of = {row: (c, n) for c in self.compounds for n, row in enumerate(c.rows)}
        last = {c.rows[-1]: c for c in self.compounds}
        self._kept = [i for i in range(len(mean)) if i not in self.member_of or i in last]
        self._source = np.array([last[i].root if i in last else i for i in self._kept], dtype=np.int64)
        place = {row: n for n, row in enumerate(self._kept)}
        self.column = np.array(
            [place[self.member_of[i][0].rows[-1] if i in self.member_of else i] for i in range(len(mean))],
            dtype=np.int64,
        )
        self._parts = [merged([p for own in c.parts() for p in own]) for c in self.compounds]
        self._outlines = [_outline(own) for own in self._parts]

    @property
    def count(self) -> int:
        """Objects of the joined scene."""
        return len(self._kept)

    def joined(self, scene: SceneGraph) -> SceneGraph:
        """The mean or a sample, with its compounds where their roots are."""
        source = self._source.tolist()
        changes: dict[str, object] = {name: tuple(getattr(scene, name)[i] for i in source) for name in _PER_OBJECT}
        for f in fields(scene):
            value = getattr(scene, f.name)
            if isinstance(value, np.ndarray) and f.name != "world_T_camera":
                changes[f.name] = value[self._source]
        changes |= {"ids": scene.ids[self._kept], "relations": self._relations(scene), "events": ()}
        rows = [int(self.column[c.root]) for c in self.compounds]
        masses, frictions, restitutions = sample_properties(scene)
        own: dict[str, list[object]] = {
            "positions": [], "extents": [], "shapes": [], "log_mass": [], "friction": [], "restitution": [],
            "hulls": [], "parts": [],
        }  # fmt: skip
        for c, whole, (hull, extents) in zip(self.compounds, self._parts, self._outlines, strict=True):
            members, weights = list(c.rows), c.masses / c.masses.sum()
            rotation = quaternion_to_matrix(normalize_quaternion(scene.quaternions[c.root]))
            own["positions"].append(scene.positions[c.root] - rotation @ c.root_place)
            own["extents"].append(extents)
            own["shapes"].append(int(Shape.CONVEX))
            own["log_mass"].append(float(np.log(masses[members].sum())))
            own["friction"].append(float(weights @ frictions[members]))
            own["restitution"].append(float(weights @ restitutions[members]))
            own["hulls"].append(hull)
            own["parts"].append(whole)
        for name, values in own.items():
            column = changes[name]
            if isinstance(column, np.ndarray):
                column[rows] = values  # indexed above, so a copy
            else:
                replaced = dict(zip(rows, values, strict=True))
                changes[name] = tuple(replaced.get(n, v) for n, v in enumerate(column))  # type: ignore[arg-type]
        return replace(scene, **changes)  # type: ignore[arg-type]

    def _relations(self, scene: SceneGraph) -> tuple[Relation, ...]:
        """Relations between compounds and other objects, the most probable of those of their members."""
        name = {int(scene.ids[row]): c.object_id for row, (c, _) in self.member_of.items()}
        best: dict[tuple[int, int, int], Relation] = {}
        for relation in scene.relations:
            a, b = name.get(relation.subject, relation.subject), name.get(relation.object, relation.object)
            key = (a, int(relation.predicate), b)
            if a != b and (key not in best or relation.probability > best[key].probability):
                best[key] = replace(relation, subject=a, object=b)
        return tuple(best.values())


def _outline(parts: Sequence[ConvexPart]) -> tuple[NDArray[np.float64], Array]:
    """Corners (P, 3) and extents (3,) [m] of the hull of parts."""
    points = np.concatenate([p.points() for p in parts])
    hull = simplify_hull(points)
    if hull is None:
        hull = hull_part(points).hull
    return hull, np.maximum(np.ptp(points, axis=0), 1e-4)
