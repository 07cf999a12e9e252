"""Interventions on a world, drawn at random so that most of them lead to contacts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.constants import GRAVITY_M_S2
from wm_core.interventions import (
    BodySpec,
    Hypothesis,
    Property,
    add,
    apply_impulse,
    follow_path,
    morph,
    remove,
    set_pose,
    set_property,
    set_velocity,
)
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import Predicate, SceneGraph, Shape

Array = NDArray[np.float64]


class _Table:
    """The movable objects on the table, and draws among them.

    Attributes:
        scene: the true scene graph; top: height [m] of the table's top; rng: of all draws.
        rows: rows of the scene of the movable objects that are on the table.
    """

    def __init__(self, scene: SceneGraph, top_m: float, rng: np.random.Generator) -> None:
        self.scene, self.top, self.rng = scene, top_m, rng
        self.rows = [i for i in range(len(scene)) if not scene.is_static[i] and scene.positions[i, 2] > top_m - 0.02]

    def half_height(self, row: int) -> float:
        """Half of an object's extent along z [m] in its present orientation."""
        return 0.5 * float(np.abs(quaternion_to_matrix(self.scene.quaternions[row]))[2] @ self.scene.extents[row])

    def reach(self, row: int) -> float:
        """Half of the mean horizontal extent [m]."""
        turned = np.abs(quaternion_to_matrix(self.scene.quaternions[row])) @ self.scene.extents[row]
        return 0.25 * float(turned[0] + turned[1])

    def any_row(self) -> int:
        """A row at random."""
        return int(self.rng.choice(self.rows))

    def neighbor(self, row: int) -> tuple[int, Array, float]:
        """One of the three nearest: its row, the unit direction (2,) to it, and the gap [m] between the two."""
        others = [k for k in self.rows if k != row]
        apart = self.scene.positions[others, :2] - self.scene.positions[row, :2]
        distance = np.linalg.norm(apart, axis=1)
        near = [int(k) for k in np.argsort(distance) if distance[k] > 0.03][:3] or [int(np.argmax(distance))]
        k = near[int(self.rng.integers(len(near)))]
        direction = apart[k] + self.rng.normal(0.0, 0.012, 2)
        direction /= max(float(np.linalg.norm(direction)), 1e-6)
        gap = max(float(distance[k]) - self.reach(row) - self.reach(others[k]), 0.0)
        return others[k], direction, gap

    def rolls(self, row: int) -> float:
        """Radius [m] of an object that rolls when it is pushed, else 0."""
        shape = int(self.scene.shapes[row])
        lies = abs(quaternion_to_matrix(self.scene.quaternions[row])[2, 2]) < 0.3
        if shape == Shape.SPHERE or (shape in (Shape.CYLINDER, Shape.CAPSULE) and lies):
            return 0.5 * float(self.scene.extents[row, 0])
        return 0.0

    def speed(self, row: int, gap: float) -> float:
        """A speed [m/s] at which an object slides across a gap [m] and 3 to 15 cm further."""
        if self.rolls(row):
            return float(self.rng.uniform(0.3, 0.9))
        distance = gap + self.rng.uniform(0.03, 0.15)
        return float(np.clip(np.sqrt(2.0 * self.scene.friction[row] * GRAVITY_M_S2 * distance), 0.3, 2.0))

    def spin(self, row: int, velocity: Array) -> Array:
        """(3,) [rad/s] of rolling without slip; zero if the object slides, in 3 of 10 a turn about the vertical."""
        radius = self.rolls(row)
        if radius:
            return np.asarray(np.cross([0.0, 0.0, 1.0], velocity) / radius, dtype=np.float64)
        return np.array([0.0, 0.0, self.rng.normal(0.0, 2.0) * (self.rng.uniform() < 0.3)])

    def later(self) -> float:
        """A time offset [s]: 0, or 0.05 to 0.5."""
        return 0.0 if self.rng.uniform() < 0.5 else float(self.rng.uniform(0.05, 0.5))

    def name(self, row: int) -> int:
        """Its id."""
        return int(self.scene.ids[row])

    def carrier(self) -> int | None:
        """The row of an object that another stands on; None where there is none."""
        carries = {r.object for r in self.scene.relations if r.predicate == Predicate.ON}
        found = [k for k in self.rows if int(self.scene.ids[k]) in carries]
        return int(self.rng.choice(found)) if found else None


def _into_neighbor(table: _Table, at_s: float) -> Hypothesis:
    row = table.any_row()
    _, direction, gap = table.neighbor(row)
    velocity = np.array([*(direction * table.speed(row, gap)), 0.0])
    sets_off = set_velocity(table.name(row), velocity.tolist(), table.spin(row, velocity).tolist(), at_s)
    return Hypothesis("set_velocity", (sets_off,))


def _knock(table: _Table, at_s: float) -> Hypothesis:
    row = table.any_row()
    _, direction, gap = table.neighbor(row)
    size = float(table.scene.masses[row]) * table.speed(row, gap)
    height = table.rng.uniform(0.0, 0.6) * table.half_height(row)
    push = apply_impulse(table.name(row), [*(direction * size), 0.0], [0.0, 0.0, height], at_s)
    return Hypothesis("apply_impulse", (push,))


def _pusher(table: _Table, at_s: float) -> Hypothesis:
    """A block approaches an object from one of the four freest directions, and pushes it on by 5 to 15 cm."""
    row, rng = table.any_row(), table.rng
    size = np.array([rng.uniform(0.03, 0.05), rng.uniform(0.06, 0.12), rng.uniform(0.05, 0.10)])
    here = table.scene.positions[row, :2]
    angles = rng.uniform(-np.pi, np.pi) + np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    starts = here - (0.10 + table.reach(row)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    room = [
        min(float(np.linalg.norm(table.scene.positions[k, :2] - s)) - table.reach(k) for k in table.rows)
        for s in starts
    ]
    k = int(rng.choice(np.argsort(room)[-4:]))
    direction = np.array([np.cos(angles[k]), np.sin(angles[k])])
    end = here + direction * rng.uniform(0.05, 0.15)
    z = table.top + 0.5 * size[2] + 0.006
    seconds = float(np.linalg.norm(end - starts[k])) / rng.uniform(0.2, 0.5)
    quaternion = Rotation.from_euler("z", angles[k]).as_quat()
    path = follow_path(
        [0.0, seconds, seconds + 5.0],
        [[*starts[k], z], [*end, z], [*end, z]],
        np.tile(quaternion, (3, 1)).tolist(),
        body=BodySpec(Shape.BOX, size, friction=0.4),
        at_s=at_s,
    )
    return Hypothesis("follow_path", (path,))


def _without(table: _Table, at_s: float) -> Hypothesis:
    """Removes an object that carries another, else one that lies ahead of the fastest, else any."""
    row = table.carrier()
    if row is None:
        speeds = np.linalg.norm(table.scene.linear_velocities[table.rows], axis=1)
        fastest = table.rows[int(speeds.argmax())]
        if speeds.max() > 0.05:
            others = [k for k in table.rows if k != fastest]
            ahead = table.scene.linear_velocities[fastest, :2] / speeds.max()
            apart = table.scene.positions[others, :2] - table.scene.positions[fastest, :2]
            row = others[int((apart @ ahead / np.maximum(np.linalg.norm(apart, axis=1), 1e-6)).argmax())]
        else:
            row = table.any_row()
    return Hypothesis("remove", (remove(table.name(row), at_s),))


def _placed(table: _Table, at_s: float) -> Hypothesis:
    """Releases an object 5 to 60 mm above another, or 1 to 10 cm above the table beside it."""
    row, rng = table.any_row(), table.rng
    other, direction, _ = table.neighbor(row)
    there = table.scene.positions[other]
    if rng.uniform() < 0.6:
        spot = there[:2] + rng.normal(0.0, 0.02, 2)
        z = there[2] + table.half_height(other) + table.half_height(row) + rng.uniform(0.005, 0.06)
    else:
        spot = there[:2] - direction * (table.reach(other) + table.reach(row) + rng.uniform(0.0, 0.02))
        z = table.top + table.half_height(row) + rng.uniform(0.01, 0.10)
    turn = Rotation.from_euler("z", rng.uniform(-1.0, 1.0)) * Rotation.from_quat(table.scene.quaternions[row])
    return Hypothesis("set_pose", (set_pose(table.name(row), [*spot, z], turn.as_quat(), at_s),))


def _entering(table: _Table, at_s: float) -> Hypothesis:
    """A new sphere, box or cylinder falls onto an object, or flies at it just above the table."""
    row, rng = table.any_row(), table.rng
    shape = Shape(int(rng.choice([Shape.SPHERE, Shape.BOX, Shape.CYLINDER])))
    size = rng.uniform(0.04, 0.08, 3)
    size[1] = size[0]
    if shape == Shape.SPHERE:
        size[2] = size[0]
    there = table.scene.positions[row]
    if rng.uniform() < 0.5:
        position = np.array([*(there[:2] + rng.normal(0.0, 0.025, 2)), 0.0])
        position[2] = there[2] + table.half_height(row) + 0.5 * size[2] + rng.uniform(0.02, 0.15)
        velocity = np.zeros(3)
    else:
        angle = rng.uniform(-np.pi, np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        position = np.array([*(there[:2] - (table.reach(row) + size[0] + 0.06) * direction), 0.0])
        position[2] = table.top + 0.5 * size[2] + 0.01
        velocity = np.array([*(direction * rng.uniform(0.5, 1.5)), 0.0])
    body = BodySpec(
        shape,
        size,
        position=position,
        linear_velocity=velocity,
        mass=float(rng.uniform(0.03, 0.4)),
        friction=float(rng.uniform(0.2, 0.8)),
        restitution=float(rng.uniform(0.0, 0.5)),
    )
    return Hypothesis("add", (add(body, at_s),))


def _changed(table: _Table, at_s: float) -> Hypothesis:
    """Changes an object's size, mass or friction, then sets it in motion or has it hit."""
    row, rng = table.any_row(), table.rng
    other, direction, gap = table.neighbor(row)
    velocity = np.array([*(direction * table.speed(row, gap)), 0.0])
    then = at_s + float(rng.uniform(0.1, 0.3))
    if rng.uniform() < 0.5:
        scale = float(rng.choice([rng.uniform(0.6, 0.85), rng.uniform(1.15, 1.5)]))
        push = apply_impulse(
            table.name(row), (float(table.scene.masses[row]) * scale**3 * velocity).tolist(), at_s=then
        )
        return Hypothesis("morph", (morph(table.name(row), [scale] * 3, at_s), push))
    sets_off = set_velocity(table.name(row), velocity.tolist(), table.spin(row, velocity).tolist(), then)
    if rng.uniform() < 0.5:  # of what is hit
        factor = float(rng.choice([rng.uniform(0.25, 0.6), rng.uniform(1.6, 4.0)]))
        change = set_property(table.name(other), Property.MASS, factor, factor=True, at_s=at_s)
    else:
        change = set_property(table.name(row), Property.FRICTION, float(rng.uniform(0.05, 0.9)), at_s=at_s)
    return Hypothesis("set_property", (change, sets_off))


def pushes_and_removals(
    scene: SceneGraph, table_top_m: float, rng: np.random.Generator
) -> list[tuple[str, Hypothesis]] | None:
    """The factual future, two pushes by a block, two shoves, a knock, and a removal of what carries, where one does.

    Kinds: push, shove (a velocity is set), knock (an impulse), remove. None where fewer than two objects are on the
    table.
    """
    table = _Table(scene, table_top_m, rng)
    if len(table.rows) < 2:
        return None
    drawn = [("factual", Hypothesis("factual"))]
    makers = [("push", _pusher), ("push", _pusher), ("shove", _into_neighbor), ("shove", _into_neighbor)]
    makers.append(("knock", _knock))
    if table.carrier() is not None:
        makers.append(("remove", _without))
    for number, (kind, make) in enumerate(makers, start=1):
        drawn.append((kind, replace(make(table, table.later()), name=f"{kind} {number}")))
    return drawn


def scenarios(scene: SceneGraph, table_top_m: float, rng: np.random.Generator) -> list[tuple[str, Hypothesis]] | None:
    """The factual future and seven interventions by kind; None where fewer than two objects are on the table.

    The kinds: set_velocity, apply_impulse, follow_path, remove, set_pose, add, and one of morph and set_property.
    """
    table = _Table(scene, table_top_m, rng)
    if len(table.rows) < 2:
        return None
    drawn = [Hypothesis("factual")]
    for make in (_into_neighbor, _knock, _pusher, _without, _placed, _entering, _changed):
        drawn.append(make(table, table.later()))
    return [(h.name, h) for h in drawn]
