"""The table in one planning step: the scene without the paddle, and the outlines of what stands on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.rotations import quaternion_to_matrix, turn_about_z
from wm_core.scene_graph import SceneGraph
from wm_planning.config import PlanError
from wm_planning.cost_to_go import CostToGo
from wm_planning.outlines import DIRECTIONS, Array, outline
from wm_planning.paths import PusherPose


def without_pusher(
    scene: SceneGraph,
    pose: PusherPose | None,
    extents: ArrayLike,
    keep_ids: Collection[int] = (),
    own_ids: Collection[int] = (),
) -> SceneGraph:
    """The scene without the paddle itself: objects named ``pusher``, and those centered within its bounds.

    The robot knows where its paddle is; perception reports it as one more object, some centimeters off.

    Args:
        pose: of the paddle; extents: (3,) its full size [m].
        keep_ids: of objects that are not the paddle, wherever they are.
        own_ids: of objects that are the paddle.
    """
    keep = np.array([n != "pusher" for n in scene.class_names], dtype=bool) & ~np.isin(scene.ids, list(own_ids))
    if pose is not None:
        turn = Rotation.from_euler("z", -pose.yaw)
        inside = np.abs(turn.apply(scene.positions - pose.position)) < 0.5 * np.asarray(extents) + 0.03
        keep &= ~inside.all(axis=1)
    keep |= scene.is_static | np.isin(scene.ids, list(keep_ids))
    return scene.select(np.flatnonzero(keep))


class OwnPaddle:
    """Which objects of the scene are the paddle itself, kept from step to step."""

    def __init__(self) -> None:
        self._own: set[int] = set()
        self._objects: set[int] = set()

    def without(self, scene: SceneGraph, pusher: PusherPose, extents: ArrayLike, target_id: int) -> SceneGraph:
        """The scene without the paddle.

        An object that once was the paddle stays so, wherever perception places it while it is hidden; and an object
        that was seen beside the paddle does not become the paddle when that comes close.
        """
        rest = without_pusher(scene, pusher, extents, {target_id, *self._objects}, self._own)
        self._own |= set(scene.ids.tolist()) - set(rest.ids.tolist())
        self._objects |= set(rest.ids.tolist())
        return rest


@dataclass(frozen=True)
class Table:
    """The objects and the support in one planning step.

    Attributes:
        scene: without the paddle. target: row of the target there.
        top: height of the support [m]; low, high: its corners (2,) [m].
        others: (M,) rows of what else stands on it; tall: (M,) bool; outlines: (M, DIRECTIONS) [m].
        own: (DIRECTIONS,) outline of the target [m].
        way: what is left for the target's center to the goal [m].
        goal_quaternion: (4,) xyzw of the target at the goal; None: it may be turned in any way.
    """

    scene: SceneGraph
    target: int
    top: float
    low: Array
    high: Array
    others: NDArray[np.int64]
    tall: NDArray[np.bool_]
    outlines: Array
    own: Array
    way: CostToGo
    goal_quaternion: Array | None = None

    @property
    def gyration(self) -> float:
        """Radius of gyration [m] of the target's bounds about the vertical: a turn in meters of way."""
        sides = np.abs(quaternion_to_matrix(self.scene.quaternions[self.target])) @ self.scene.extents[self.target]
        return float(np.hypot(sides[0], sides[1]) / np.sqrt(12.0))

    def turn_left(self, quaternions: ArrayLike) -> Array:
        """(...) turn about the vertical [rad], -pi to pi, that the target at quaternions (..., 4) lacks; 0: no goal."""
        q = np.asarray(quaternions, dtype=np.float64)
        if self.goal_quaternion is None:
            return np.zeros(q.shape[:-1])
        return turn_about_z(self.goal_quaternion, q)

    def left(self, places: ArrayLike, quaternions: ArrayLike) -> Array:
        """(...) what is left for the target at places (..., 2) [m] and quaternions (..., 4): way and turn in meters."""
        return np.hypot(self.way(np.asarray(places)), self.gyration * self.turn_left(quaternions))

    @property
    def left_now(self) -> float:
        """``left`` of the target as it is [m]."""
        return float(self.left(self.place, self.scene.quaternions[self.target]))

    @property
    def place(self) -> Array:
        """(2,) of the target's center [m]."""
        return self.scene.positions[self.target, :2]


def outline_of(scene: SceneGraph, i: int) -> Array:
    """(DIRECTIONS,) how far object ``i`` reaches from its center, seen from above [m]."""
    return outline(int(scene.shapes[i]), scene.extents[i], scene.quaternions[i], scene.hulls[i])


def is_tall(scene: SceneGraph, i: int, ratio: float) -> bool:
    """Whether object ``i`` is so many times higher than its smaller width."""
    sides = np.abs(quaternion_to_matrix(scene.quaternions[i])) @ scene.extents[i]
    return bool(sides[2] > ratio * min(sides[0], sides[1]))


def make_table(
    scene: SceneGraph, target_id: int, goal: Array, tall_ratio: float, goal_quaternion: Array | None = None
) -> Table:
    """The table of a scene.

    Args:
        scene: without the paddle, graph frame, z up. goal: (2,) [m].
        goal_quaternion: (4,) xyzw; None: the target may be turned in any way.

    Raises:
        PlanError: the target is not in the scene or is static, the goal is not on its support, or no number.
    """
    if target_id not in scene.ids:
        raise PlanError(f"target_id: got {target_id}, expected one of {scene.ids.tolist()}")
    target = scene.index(target_id)
    if scene.is_static[target]:
        raise PlanError(f"target_id: got {target_id}, which is static, expected a movable object")
    if goal.shape != (2,) or not np.isfinite(goal).all():
        raise PlanError(f"goal: got {goal.tolist()}, expected x and y [m]")
    if goal_quaternion is not None:
        goal_quaternion = np.asarray(goal_quaternion, dtype=np.float64)
        if goal_quaternion.shape != (4,) or not abs(float(np.linalg.norm(goal_quaternion)) - 1.0) < 1e-3:
            raise PlanError(f"goal_quaternion: got {goal_quaternion.tolist()}, expected x, y, z, w of length 1")
    low, high, top = support_of(scene, target)
    if (goal < low).any() or (goal > high).any():
        raise PlanError(
            f"goal: got {goal.tolist()}, expected a place on the support, {low.tolist()} to {high.tolist()}"
        )
    rows = [i for i in range(len(scene)) if i != target and not scene.is_static[i] and scene.positions[i, 2] > top]
    outlines = np.array([outline_of(scene, i) for i in rows]).reshape(-1, len(DIRECTIONS))
    others = np.array(rows, dtype=np.int64)
    tall = np.array([is_tall(scene, i, tall_ratio) for i in rows], dtype=bool)
    own = outline_of(scene, target)
    way = CostToGo(low, high, goal, own, scene.positions[others, :2], outlines, tall)
    return Table(scene, target, top, low, high, others, tall, outlines, own, way, goal_quaternion)


def support_of(scene: SceneGraph, target: int) -> tuple[Array, Array, float]:
    """Corners (2,), (2,) and height of the top of what the target stands on: the highest static object below."""
    best: tuple[Array, Array, float] | None = None
    for i in np.flatnonzero(scene.is_static):
        half = 0.5 * np.abs(quaternion_to_matrix(scene.quaternions[i])) @ scene.extents[i]
        top = float(scene.positions[i, 2] + half[2])
        low, high = scene.positions[i, :2] - half[:2], scene.positions[i, :2] + half[:2]
        here = scene.positions[target]
        over = top < here[2] and (here[:2] > low - 0.05).all() and (here[:2] < high + 0.05).all()
        if over and (best is None or top > best[2]):
            best = (low, high, top)
    if best is None:
        raise PlanError("scene: found no support (a static object) under the target, expected one")
    return best
