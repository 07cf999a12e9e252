"""Scenarios that fit the scene: the factual future, and interventions on the object that moves, on one in its way and
on one at rest.

Objects are chosen from the perceived scene graph by the roles they play, never by known ids.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wm_core import interventions as do
from wm_core.interventions import BodySpec, Hypothesis
from wm_core.rotations import quaternion_to_matrix
from wm_core.scene_graph import SceneGraph, Shape

# All set by hand for the demonstration's table.
MOVING_M_S = 0.05
"""An object moves above this speed; objects at rest are estimated to move by about 1 cm/s."""
MIN_SIZE_M = 0.03
"""Smallest side of an object that may be chosen; smaller ones are often a piece of another."""
PUSH_SPEED_M_S = 1.2
"""Speed that a push gives to an object whose mass is what perception estimates; larger sends it off the table."""
PUSHER_SPEED_M_S = 0.25
PUSHER_SIZE_M = (0.05, 0.10, 0.06)
"""Full sizes of the pusher along its path, across it, and upright."""
PUSHER_GAP_M = 0.05
"""Between the pusher and the object at the start."""
PUSHER_TRAVEL_M = 0.30
_DIRECTIONS = 24
"""Tried around an object: every 15 degrees."""


@dataclass(frozen=True)
class Roles:
    """Object ids by the role they play; None where none does.

    Attributes:
        mover: the fastest.
        target: first in the mover's way (or else nearest to it).
        bystander: at rest, out of the way, with room around it.
        second_bystander: another such.
    """

    mover: int | None = None
    target: int | None = None
    bystander: int | None = None
    second_bystander: int | None = None


@dataclass(frozen=True)
class Scenario:
    """A hypothesis with its texts.

    Attributes:
        hypothesis: with object ids of the graph that it was chosen from.
        title: for people, e.g. "What if the red can #4 were pushed?".
        detail: what is changed, with figures.
        subject: id of the object that is changed; 0: none.
    """

    hypothesis: Hypothesis
    title: str
    detail: str
    subject: int = 0

    @property
    def name(self) -> str:
        """Name of the hypothesis."""
        return self.hypothesis.name


_HUES = ((15.0, "red"), (40.0, "orange"), (70.0, "yellow"), (165.0, "green"), (195.0, "teal"), (255.0, "blue"))


def color_word(color: NDArray[np.floating]) -> str:
    """A color (3,) 0..1 as a word; empty: not observed."""
    if not np.any(color):
        return ""
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(np.clip(c, 0.0, 1.0)) for c in color))
    degrees = 360.0 * hue
    if value < 0.15:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.75 else "gray"
    if 15.0 <= degrees < 45.0 and value < 0.62:
        return "brown"
    if degrees >= 340.0:
        return "red"
    return next((word for limit, word in _HUES if degrees < limit), "purple" if degrees < 300.0 else "pink")


def object_name(scene: SceneGraph, object_id: int) -> str:
    """An object for people: color, class and id."""
    if object_id not in scene.ids:
        return f"#{object_id}"
    row = scene.index(object_id)
    word = "" if scene.is_static[row] else color_word(scene.colors[row])
    return f"{word} {scene.class_names[row]} #{object_id}".strip()


def radius_xy(scene: SceneGraph, row: int) -> float:
    """Half the horizontal size of an object [m] (mean of its two horizontal bounds)."""
    rotation = np.abs(quaternion_to_matrix(scene.quaternions[row]))
    return 0.25 * float((rotation @ scene.extents[row])[:2].sum())


def half_height(scene: SceneGraph, row: int) -> float:
    """Half the vertical size of an object [m]."""
    return 0.5 * float((np.abs(quaternion_to_matrix(scene.quaternions[row])) @ scene.extents[row])[2])


def _candidates(scene: SceneGraph) -> NDArray[np.int64]:
    """Rows of movable objects that exist, are seen, and are large enough."""
    return np.flatnonzero(
        ~scene.is_static
        & (scene.extents.min(axis=1) >= MIN_SIZE_M)
        & (scene.existence_probabilities > 0.5)
        & (scene.visibilities > 0.2)
    )


def find_roles(scene: SceneGraph) -> Roles:
    """The object for each role in this graph."""
    rows = _candidates(scene)
    if not len(rows):
        return Roles()
    speeds = np.linalg.norm(scene.linear_velocities[rows], axis=1)
    mover = int(rows[np.argmax(speeds)]) if speeds.max() > MOVING_M_S else None
    target = None
    in_way: set[int] = set()
    if mover is not None:
        direction = scene.linear_velocities[mover, :2]
        direction = direction / max(float(np.linalg.norm(direction)), 1e-9)
        ahead: list[tuple[float, int]] = []
        for row in rows.tolist():
            if row == mover:
                continue
            offset = scene.positions[row, :2] - scene.positions[mover, :2]
            along, aside = float(offset @ direction), float(abs(direction[0] * offset[1] - direction[1] * offset[0]))
            low = abs(scene.positions[row, 2] - scene.positions[mover, 2]) < half_height(scene, row) + half_height(
                scene, mover
            )
            if along > 0.0 and aside < radius_xy(scene, row) + radius_xy(scene, mover):
                in_way.add(row)
                if low:
                    ahead.append((along, row))
        others = [row for row in rows.tolist() if row != mover]
        if ahead:
            target = min(ahead)[1]
        elif others:
            target = min(others, key=lambda r: float(np.linalg.norm(scene.positions[r] - scene.positions[mover])))
    at_rest = [
        row
        for row in rows.tolist()
        if row not in in_way
        and row not in (mover, target)
        and np.linalg.norm(scene.linear_velocities[row]) < MOVING_M_S
        and not _carries(scene, row)
        and not _on_another(scene, row)
    ]
    # Those with the clearest way first; among equals the smaller id, so that the choice is the same in every run.
    at_rest.sort(key=lambda r: (-round(clearest_direction(scene, r)[1], 1), int(scene.ids[r])))

    def id_of(row: int | None) -> int | None:
        return None if row is None else int(scene.ids[row])

    return Roles(
        id_of(mover),
        id_of(target),
        id_of(at_rest[0] if at_rest else None),
        id_of(at_rest[1] if len(at_rest) > 1 else None),
    )


def _carries(scene: SceneGraph, row: int) -> bool:
    """Whether another movable object stands on it."""
    return any(_on_another(scene, other, row) for other in _candidates(scene).tolist() if other != row)


def _on_another(scene: SceneGraph, row: int, below: int | None = None) -> bool:
    """Whether it stands on another movable object (or on that of row ``below``)."""
    bottom = scene.positions[row, 2] - half_height(scene, row)
    for other in _candidates(scene).tolist() if below is None else [below]:
        if other == row:
            continue
        top = scene.positions[other, 2] + half_height(scene, other)
        apart = np.linalg.norm(scene.positions[row, :2] - scene.positions[other, :2])
        if abs(bottom - top) < 0.025 and apart < radius_xy(scene, other) + 0.5 * radius_xy(scene, row):
            return True
    return False


def support_of(scene: SceneGraph, row: int) -> int | None:
    """Row of the static surface that an object stands on: the highest one below its center that spans it."""
    best, best_top = None, -np.inf
    for support in np.flatnonzero(scene.is_static).tolist():
        rotation = quaternion_to_matrix(scene.quaternions[support])
        local = rotation.T @ (scene.positions[row] - scene.positions[support])
        half = 0.5 * scene.extents[support]
        top = scene.positions[support, 2] + half_height(scene, support)
        if (np.abs(local[:2]) <= half[:2]).all() and top < scene.positions[row, 2] and top > best_top:
            best, best_top = support, float(top)
    return best


def distance_to_edge(scene: SceneGraph, row: int, direction: NDArray[np.float64]) -> float:
    """How far [m] an object's center can go along a horizontal direction (2,) until its support ends; inf: none."""
    support = support_of(scene, row)
    if support is None:
        return float("inf")
    rotation = quaternion_to_matrix(scene.quaternions[support])
    local = (rotation.T @ (scene.positions[row] - scene.positions[support]))[:2]
    along = (rotation.T @ np.array([direction[0], direction[1], 0.0]))[:2]
    half = 0.5 * scene.extents[support][:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(np.abs(along) > 1e-9, (np.sign(along) * half - local) / along, np.inf)
    return float(reach.min())


def clearance(scene: SceneGraph, row: int, direction: NDArray[np.float64], half_width: float) -> float:
    """How far [m] a body of this half width [m] can go from an object's center along a direction (2,) freely."""
    free = distance_to_edge(scene, row, direction)
    for other in np.flatnonzero(~scene.is_static).tolist():
        if other == row:
            continue
        offset = scene.positions[other, :2] - scene.positions[row, :2]
        along, aside = float(offset @ direction), float(abs(direction[0] * offset[1] - direction[1] * offset[0]))
        reach = radius_xy(scene, other) + half_width
        if along > 0.0 and aside < reach:
            free = min(free, along - float(np.sqrt(max(reach**2 - aside**2, 0.0))))
    return free


def clearest_direction(scene: SceneGraph, row: int) -> tuple[NDArray[np.float64], float]:
    """Unit direction (2,) in which an object can go farthest, and how far [m, at most 0.5]."""
    angles = np.arange(_DIRECTIONS) * (2.0 * np.pi / _DIRECTIONS)
    best, farthest = np.array([1.0, 0.0]), -np.inf
    for angle in angles:
        direction = np.array([np.cos(angle), np.sin(angle)])
        free = min(0.5, clearance(scene, row, direction, radius_xy(scene, row)))
        if free > farthest + 1e-6:
            best, farthest = direction, free
    return best, float(farthest)


def _words(vector: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{v:+.2f}" for v in vector) + ")"


def push(scene: SceneGraph, object_id: int, name: str, speed_m_s: float = PUSH_SPEED_M_S) -> Scenario:
    """An impulse that gives an object this speed, if its mass is the estimated one."""
    row = scene.index(object_id)
    direction, _ = clearest_direction(scene, row)
    mass = float(np.exp(scene.log_mass[row]))
    impulse = mass * speed_m_s * np.array([*direction, 0.0])
    who = object_name(scene, object_id)
    return Scenario(
        Hypothesis(name, (do.apply_impulse(object_id, impulse.tolist()),)),
        f"What if the {who} were pushed?",
        f"impulse {_words(impulse)} N s at its center",
        object_id,
    )


def pusher_path(scene: SceneGraph, object_id: int, name: str) -> Scenario:
    """A box that comes from one side of an object and pushes it along."""
    row = scene.index(object_id)
    radius = radius_xy(scene, row)
    depth, width, height = PUSHER_SIZE_M
    best: tuple[float, NDArray[np.float64]] | None = None
    for k in range(_DIRECTIONS):
        angle = 2.0 * np.pi * k / _DIRECTIONS
        direction = np.array([np.cos(angle), np.sin(angle)])
        # Room behind for the pusher itself, and ahead for what it pushes.
        behind = clearance(scene, row, -direction, width / 2.0)
        ahead = clearance(scene, row, direction, max(radius, width / 2.0))
        room = min(behind - radius - PUSHER_GAP_M - depth, ahead - PUSHER_TRAVEL_M)
        if best is None or room > best[0] + 1e-6:
            best = (room, direction)
    assert best is not None
    direction = best[1]
    support = support_of(scene, row)
    bottom = (
        scene.positions[support, 2] + half_height(scene, support)
        if support is not None
        else scene.positions[row, 2] - half_height(scene, row)
    )
    start = scene.positions[row, :2] - direction * (radius + PUSHER_GAP_M + depth / 2.0)
    end = start + direction * PUSHER_TRAVEL_M
    z = float(bottom) + 0.01 + height / 2.0
    yaw = 0.5 * float(np.arctan2(direction[1], direction[0]))
    quaternion = [0.0, 0.0, float(np.sin(yaw)), float(np.cos(yaw))]
    body = BodySpec(
        Shape.BOX,
        np.array(PUSHER_SIZE_M),
        np.array([*start, z]),
        np.array(quaternion),
        color=np.array([0.16, 0.17, 0.20]),
    )
    times = [0.0, PUSHER_TRAVEL_M / PUSHER_SPEED_M_S]
    path = do.follow_path(times, [[*start, z], [*end, z]], [quaternion, quaternion], body=body)
    who = object_name(scene, object_id)
    return Scenario(
        Hypothesis(name, (path,)),
        f"What if a pusher shoved the {who}?",
        f"a box goes {100 * PUSHER_TRAVEL_M:.0f} cm along {_words(direction)} at {PUSHER_SPEED_M_S:g} m/s",
        object_id,
    )


def choose_scenarios(scene: SceneGraph) -> list[Scenario]:
    """The factual future and the counterfactual ones that fit this graph."""
    roles = find_roles(scene)
    scenarios = [Scenario(Hypothesis("factual"), "What will happen?", "nothing is changed")]
    mover, target = roles.mover, roles.target
    changed = target if target is not None else roles.bystander
    if changed is not None:
        who = object_name(scene, changed)
        scenarios.append(
            Scenario(
                Hypothesis("remove", (do.remove(changed),)),
                f"What if the {who} were not there?",
                "it is removed",
                changed,
            )
        )
    if mover is not None:
        who = object_name(scene, mover)
        slow = 0.5 * scene.linear_velocities[scene.index(mover)]
        scenarios.append(
            Scenario(
                Hypothesis("slower", (do.set_velocity(mover, slow.tolist()),)),
                f"What if the {who} came at half its speed?",
                f"velocity {_words(slow)} m/s",
                mover,
            )
        )
    if changed is not None:
        who = object_name(scene, changed)
        double = do.set_property(changed, do.Property.MASS, 2.0, factor=True)
        scenarios.append(
            Scenario(
                Hypothesis("heavier", (double,)), f"What if the {who} weighed twice as much?", "mass doubled", changed
            )
        )
    pushed = roles.bystander if roles.bystander is not None else mover
    if pushed is not None:
        scenarios.append(push(scene, pushed, "push"))
    shoved = roles.second_bystander if roles.second_bystander is not None else pushed
    if shoved is not None:
        scenarios.append(pusher_path(scene, shoved, "pusher"))
    return scenarios


def timing_hypotheses(scene: SceneGraph, count: int, seed: int = 0) -> list[Hypothesis]:
    """``count`` different pushes of movable objects, as a sampling planner requests them."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(~scene.is_static)
    if not len(rows):
        return [Hypothesis(f"h{k}") for k in range(count)]
    hypotheses = []
    for k in range(count):
        row = int(rows[k % len(rows)])
        angle, speed = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.1, 0.8)
        impulse = float(np.exp(scene.log_mass[row])) * speed * np.array([np.cos(angle), np.sin(angle), 0.0])
        hypotheses.append(Hypothesis(f"h{k}", (do.apply_impulse(int(scene.ids[row]), impulse.tolist()),)))
    return hypotheses


def with_true_ids(hypothesis: Hypothesis, true_ids: dict[int, int]) -> Hypothesis | None:
    """The same interventions on the true objects; None where one of them is no true object."""
    changed = []
    for intervention in hypothesis.interventions:
        if intervention.object_id == 0:
            changed.append(intervention)
        elif intervention.object_id in true_ids:
            changed.append(replace(intervention, object_id=true_ids[intervention.object_id]))
        else:
            return None
    return Hypothesis(hypothesis.name, tuple(changed))
