"""Bodies, interventions and hypotheses between ``wm_core.interventions`` and wm_msgs."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from wm_msgs.msg import ActionBatch as ActionBatchMsg
from wm_msgs.msg import Hypothesis as HypothesisMsg
from wm_msgs.msg import Intervention as InterventionMsg
from wm_msgs.msg import SceneObject as SceneObjectMsg

from wm_core.interventions import (
    ActionBatch,
    BodySpec,
    Hypothesis,
    Intervention,
    InterventionError,
    InterventionKind,
    Property,
)
from wm_core.rotations import normalize_quaternion
from wm_core.scene_graph import Shape
from wm_ros.conversions.basics import (
    color_from_msg,
    color_to_msg,
    float_array,
    pose_to_msg,
    quaternion_from_msg,
    twist_to_msg,
    vector_from_msg,
    vector_to_msg,
)

_KINDS = frozenset(InterventionKind)
_PROPERTIES = frozenset(Property)
_SHAPES = frozenset(Shape)


def _body_to_msg(body: BodySpec) -> SceneObjectMsg:
    msg = SceneObjectMsg()
    msg.shape = int(body.shape)
    msg.extents = vector_to_msg(body.extents)
    msg.pose.pose = pose_to_msg(body.position, body.quaternion)
    msg.twist.twist = twist_to_msg(body.linear_velocity, body.angular_velocity)
    msg.log_mass = float(np.log(body.effective_mass))
    msg.friction = float(body.friction)
    msg.restitution = float(body.restitution)
    msg.color = color_to_msg(body.color)
    return msg


def _body_from_msg(msg: SceneObjectMsg, where: str) -> BodySpec:
    if msg.shape not in _SHAPES:
        raise InterventionError(f"{where}.object.shape: got {msg.shape}, expected 0..{max(Shape)}")
    quaternion = quaternion_from_msg(msg.pose.pose.orientation)
    if not np.isfinite(quaternion).all():
        raise InterventionError(f"{where}.object.pose.orientation: got {quaternion.tolist()}, expected finite")
    return BodySpec(
        shape=Shape(msg.shape),
        extents=vector_from_msg(msg.extents),
        position=vector_from_msg(msg.pose.pose.position),
        quaternion=normalize_quaternion(quaternion),
        linear_velocity=vector_from_msg(msg.twist.twist.linear),
        angular_velocity=vector_from_msg(msg.twist.twist.angular),
        mass=float(np.exp(np.clip(msg.log_mass, -700.0, 700.0))) if np.isfinite(msg.log_mass) else float("nan"),
        friction=float(msg.friction),
        restitution=float(msg.restitution),
        color=color_from_msg(msg.color),
    )


def intervention_to_msg(intervention: Intervention) -> InterventionMsg:
    """wm_msgs/Intervention of an intervention."""
    msg = InterventionMsg()
    msg.kind = int(intervention.kind)
    msg.object_id = int(intervention.object_id)
    msg.time_offset = float(intervention.time_offset)
    if intervention.body is not None:
        msg.object = _body_to_msg(intervention.body)
    msg.pose = pose_to_msg(intervention.position, intervention.quaternion)
    msg.twist = twist_to_msg(intervention.linear_velocity, intervention.angular_velocity)
    msg.impulse = vector_to_msg(intervention.impulse)
    msg.point = vector_to_msg(intervention.point)
    msg.property = int(intervention.property)
    msg.value = float(intervention.value)
    msg.value_is_factor = bool(intervention.value_is_factor)
    msg.path_times = float_array(intervention.path_times)
    msg.path = [
        pose_to_msg(p, q) for p, q in zip(intervention.path_positions, intervention.path_quaternions, strict=True)
    ]
    msg.scale = vector_to_msg(intervention.scale)
    msg.color = color_to_msg(intervention.color)
    return msg


def intervention_from_msg(msg: InterventionMsg, where: str = "intervention") -> Intervention:
    """The intervention of a wm_msgs/Intervention; ranges are checked later, by ``validate_intervention``.

    Raises:
        InterventionError: an enumerator is unknown or a quaternion is not finite.
    """
    if msg.kind not in _KINDS:
        raise InterventionError(f"{where}.kind: got {msg.kind}, expected 0..{max(InterventionKind)}")
    kind = InterventionKind(msg.kind)
    values: dict[str, Any] = {}
    if kind == InterventionKind.ADD or (kind == InterventionKind.FOLLOW_PATH and msg.object_id == 0):
        values["body"] = _body_from_msg(msg.object, where)
    if kind == InterventionKind.SET_POSE:
        values["position"] = vector_from_msg(msg.pose.position)
        values["quaternion"] = _unit(quaternion_from_msg(msg.pose.orientation), f"{where}.pose.orientation")
    elif kind == InterventionKind.SET_VELOCITY:
        values["linear_velocity"] = vector_from_msg(msg.twist.linear)
        values["angular_velocity"] = vector_from_msg(msg.twist.angular)
    elif kind == InterventionKind.APPLY_IMPULSE:
        values["impulse"], values["point"] = vector_from_msg(msg.impulse), vector_from_msg(msg.point)
    elif kind == InterventionKind.SET_PROPERTY:
        if msg.property not in _PROPERTIES:
            raise InterventionError(f"{where}.property: got {msg.property}, expected 0..{max(Property)}")
        values["property"] = Property(msg.property)
        values["value"], values["value_is_factor"] = float(msg.value), bool(msg.value_is_factor)
    elif kind == InterventionKind.FOLLOW_PATH:
        poses = np.array(
            [(*_xyz(p.position), p.orientation.x, p.orientation.y, p.orientation.z, p.orientation.w) for p in msg.path],
            dtype=np.float64,
        ).reshape(-1, 7)
        values["path_times"] = np.array(msg.path_times, dtype=np.float64)
        values["path_positions"] = poses[:, :3]
        values["path_quaternions"] = _unit(poses[:, 3:], f"{where}.path.orientation")
    elif kind == InterventionKind.MORPH:
        values["scale"] = vector_from_msg(msg.scale)
    elif kind == InterventionKind.RESTYLE:
        values["color"] = color_from_msg(msg.color)
    return Intervention(kind, int(msg.object_id), float(msg.time_offset), **values)


def _xyz(msg: Point) -> tuple[float, float, float]:
    return msg.x, msg.y, msg.z


def _unit(quaternions: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Unit quaternions (..., 4) of those sent; an all-zero one is the identity.

    Raises:
        InterventionError: one is not finite.
    """
    if not np.isfinite(quaternions).all():
        raise InterventionError(f"{where}: a quaternion is not finite, expected x, y, z, w")
    return normalize_quaternion(quaternions)


def hypothesis_to_msg(hypothesis: Hypothesis) -> HypothesisMsg:
    """wm_msgs/Hypothesis of a hypothesis."""
    return HypothesisMsg(name=hypothesis.name, interventions=[intervention_to_msg(i) for i in hypothesis.interventions])


def batch_to_msg(batch: ActionBatch) -> ActionBatchMsg:
    """wm_msgs/ActionBatch of a batch."""
    msg = ActionBatchMsg()
    msg.name = batch.name
    msg.kind = int(batch.kind)
    msg.object_id = int(batch.object_id)
    if batch.body is not None:
        msg.object = _body_to_msg(batch.body)
    msg.count = len(batch)
    msg.time_offset = float(batch.time_offset)
    msg.times = float_array(batch.times)
    msg.values = float_array(batch.values)
    if batch.kind == InterventionKind.FOLLOW_PATH:
        msg.quaternions = float_array(batch.quaternions)
    elif batch.kind == InterventionKind.SET_VELOCITY and batch.angular is not None:
        msg.angular = float_array(batch.angular)
    elif batch.kind == InterventionKind.APPLY_IMPULSE:
        msg.points = float_array(batch.points)
    msg.common = [intervention_to_msg(i) for i in batch.common]
    return msg


def batch_from_msg(msg: ActionBatchMsg, where: str = "batch") -> ActionBatch:
    """The batch of a wm_msgs/ActionBatch; ranges are checked later, by ``validate_batch``.

    Raises:
        InterventionError: an array is not of the size that ``count`` and ``times`` say, a quaternion is not finite.
    """
    if msg.kind not in _KINDS:
        raise InterventionError(f"{where}.kind: got {msg.kind}, expected FOLLOW_PATH, SET_VELOCITY or APPLY_IMPULSE")
    kind, count, times = InterventionKind(msg.kind), int(msg.count), np.array(msg.times, dtype=np.float64)
    if not count or not len(times):
        raise InterventionError(f"{where}: got count {count} and {len(times)} times, expected at least 1 of each")

    def numbers(name: str, columns: int, same_for_all: bool) -> NDArray[np.float64] | None:
        """(K, M, columns), (columns,) where one may stand for all, or None where it was left empty."""
        values = np.asarray(getattr(msg, name), dtype=np.float64)
        if not values.size:
            return None
        if same_for_all and values.size == columns and count * len(times) != 1:
            return values
        if values.size != count * len(times) * columns:
            raise InterventionError(
                f"{where}.{name}: got {values.size} numbers, expected {count} x {len(times)} x {columns} "
                "(count, times, components)"
            )
        return values.reshape(count, len(times), columns)

    values = numbers("values", 3, False)
    if values is None:
        raise InterventionError(f"{where}.values: got none, expected {count} x {len(times)} x 3")
    given: dict[str, Any] = {}
    if kind == InterventionKind.FOLLOW_PATH:
        quaternions = numbers("quaternions", 4, True)
        if quaternions is not None:
            given["quaternions"] = _unit(quaternions, f"{where}.quaternions")
        if msg.object_id == 0:
            given["body"] = _body_from_msg(msg.object, where)
    elif kind == InterventionKind.SET_VELOCITY:
        given["angular"] = numbers("angular", 3, False)
    elif kind == InterventionKind.APPLY_IMPULSE:
        points = numbers("points", 3, True)
        if points is not None:
            given["points"] = points
    return ActionBatch(
        kind,
        values,
        times,
        int(msg.object_id),
        time_offset=float(msg.time_offset),
        common=tuple(intervention_from_msg(i, f"{where}.common[{j}]") for j, i in enumerate(msg.common)),
        name=msg.name or "batch",
        **given,
    )
