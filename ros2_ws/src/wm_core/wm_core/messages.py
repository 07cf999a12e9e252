"""Conversions between the core's dataclasses and wm_msgs.

The only core module that knows message types; it needs no rclpy, only the generated Python classes. Large arrays
travel as ``array.array``: rclpy copies those in one piece, and lists element by element (rclpy issue 763).
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Twist, Vector3
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA
from wm_msgs.msg import ActionBatch as ActionBatchMsg
from wm_msgs.msg import EventAnswer as EventAnswerMsg
from wm_msgs.msg import EventQuestion as EventQuestionMsg
from wm_msgs.msg import Hypothesis as HypothesisMsg
from wm_msgs.msg import ImagineRequest as ImagineRequestMsg
from wm_msgs.msg import Intervention as InterventionMsg
from wm_msgs.msg import Rollout as RolloutMsg
from wm_msgs.msg import RolloutEvent as RolloutEventMsg
from wm_msgs.msg import SceneEvent as SceneEventMsg
from wm_msgs.msg import SceneGraph as SceneGraphMsg
from wm_msgs.msg import SceneObject as SceneObjectMsg
from wm_msgs.msg import SceneRelation as SceneRelationMsg

from wm_core.camera import Camera
from wm_core.geometry import matrix_to_quaternion, normalize_quaternion, pose_matrix
from wm_core.interventions import (
    ActionBatch,
    BodySpec,
    Hypothesis,
    Intervention,
    InterventionError,
    InterventionKind,
    Property,
)
from wm_core.rollout import (
    STATE_SIZE,
    EventAnswer,
    EventQuestion,
    ImageRequest,
    ImagineRequest,
    RequestError,
    Rollout,
    RolloutEvent,
    StatesWanted,
)
from wm_core.scene_graph import Event, EventKind, Predicate, Relation, SceneGraph, Shape

NANOSECONDS = 1_000_000_000
DEFAULT_STEP_S = 1.0 / 30.0
DEFAULT_VIDEO_RATE_HZ = 10.0
_KINDS, _PROPERTIES, _SHAPES = frozenset(InterventionKind), frozenset(Property), frozenset(Shape)
_EVENT_KINDS = frozenset(EventKind)


def time_to_msg(stamp_ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds (negative stamps, which ROS cannot carry, become 0)."""
    seconds, nanoseconds = divmod(max(int(stamp_ns), 0), NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def time_from_msg(msg: Time) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(msg.sec) * NANOSECONDS + int(msg.nanosec)


def float_array(values: ArrayLike) -> array.array:
    """A flat float32 ``array.array`` of any array (row-major)."""
    return array.array("f", np.ascontiguousarray(values, dtype=np.float32).tobytes())


def byte_array(values: ArrayLike) -> array.array:
    """A flat uint8 ``array.array`` of any array (row-major)."""
    return array.array("B", np.ascontiguousarray(values, dtype=np.uint8).tobytes())


def point_to_msg(values: ArrayLike) -> Point:
    """geometry_msgs/Point of (3,)."""
    x, y, z = (float(v) for v in np.asarray(values))
    return Point(x=x, y=y, z=z)


def vector_to_msg(values: ArrayLike) -> Vector3:
    """geometry_msgs/Vector3 of (3,)."""
    x, y, z = (float(v) for v in np.asarray(values))
    return Vector3(x=x, y=y, z=z)


def vector_from_msg(msg: Vector3 | Point) -> NDArray[np.float64]:
    """(3,) of a Vector3 or Point."""
    return np.array([msg.x, msg.y, msg.z], dtype=np.float64)


def quaternion_from_msg(msg: Quaternion) -> NDArray[np.float64]:
    """(4,) x, y, z, w as sent, not normalised."""
    return np.array([msg.x, msg.y, msg.z, msg.w], dtype=np.float64)


def pose_to_msg(position: ArrayLike, quaternion_xyzw: ArrayLike) -> Pose:
    """geometry_msgs/Pose of a position [m] and a quaternion."""
    x, y, z, w = (float(v) for v in np.asarray(quaternion_xyzw))
    return Pose(position=point_to_msg(position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def transform_to_pose_msg(transform: NDArray[np.float64]) -> Pose:
    """geometry_msgs/Pose of a 4x4 transform."""
    return pose_to_msg(transform[:3, 3], matrix_to_quaternion(transform[:3, :3]))


def transform_from_pose_msg(msg: Pose) -> NDArray[np.float64]:
    """4x4 transform of a geometry_msgs/Pose; an all-zero quaternion is the identity."""
    return pose_matrix(vector_from_msg(msg.position), quaternion_from_msg(msg.orientation))


def twist_to_msg(linear: ArrayLike, angular: ArrayLike) -> Twist:
    """geometry_msgs/Twist of [m/s] and [rad/s]."""
    return Twist(linear=vector_to_msg(linear), angular=vector_to_msg(angular))


def color_to_msg(rgb: ArrayLike) -> ColorRGBA:
    """std_msgs/ColorRGBA, opaque, of (3,) in 0..1."""
    r, g, b = (float(v) for v in np.asarray(rgb))
    return ColorRGBA(r=r, g=g, b=b, a=1.0)


def color_from_msg(msg: ColorRGBA) -> NDArray[np.float64]:
    """(3,) in 0..1."""
    return np.array([msg.r, msg.g, msg.b], dtype=np.float64)


def camera_to_msg(camera: Camera) -> CameraInfo:
    """sensor_msgs/CameraInfo (no header) of a rectified pinhole camera."""
    msg = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
    msg.k = camera.matrix.ravel().tolist()
    msg.r = np.eye(3).ravel().tolist()
    msg.p = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel().tolist()
    return msg


def camera_from_msg(msg: CameraInfo) -> Camera:
    """The pinhole camera of a sensor_msgs/CameraInfo.

    Raises:
        ValueError: a size or intrinsic is impossible (an uncalibrated camera publishes zeros).
    """
    k = np.asarray(msg.k, dtype=np.float64)
    return Camera(int(msg.width), int(msg.height), float(k[0]), float(k[4]), float(k[2]), float(k[5]))


def _scene_object_to_msg(scene: SceneGraph, i: int) -> SceneObjectMsg:
    msg = SceneObjectMsg()
    msg.id = int(scene.ids[i])
    msg.class_name = scene.class_names[i]
    msg.pose.pose = pose_to_msg(scene.positions[i], scene.quaternions[i])
    msg.pose.covariance = scene.pose_covariances[i].ravel().tolist()
    msg.twist.twist = twist_to_msg(scene.linear_velocities[i], scene.angular_velocities[i])
    msg.twist.covariance = scene.twist_covariances[i].ravel().tolist()
    msg.extents = vector_to_msg(scene.extents[i])
    msg.shape = int(scene.shapes[i])
    msg.hull_points = float_array(scene.hulls[i])
    msg.is_static = bool(scene.is_static[i])
    msg.color = color_to_msg(scene.colors[i])
    for name in ("log_mass", "friction", "restitution"):
        setattr(msg, name, float(getattr(scene, name)[i]))
        setattr(msg, f"{name}_std", float(getattr(scene, f"{name}_std")[i]))
    # What was not estimated is absent, not zero.
    if scene.class_probabilities[i].any():
        msg.class_probabilities = float_array(scene.class_probabilities[i])
    if scene.embeddings[i].any():
        msg.embedding = float_array(scene.embeddings[i])
    msg.visibility = float(scene.visibilities[i])
    msg.existence_probability = float(scene.existence_probabilities[i])
    msg.first_seen = time_to_msg(scene.first_seen_ns[i])
    msg.last_seen = time_to_msg(scene.last_seen_ns[i])
    return msg


def scene_graph_to_msg(scene: SceneGraph) -> SceneGraphMsg:
    """wm_msgs/SceneGraph of a scene graph."""
    msg = SceneGraphMsg()
    msg.header.stamp = time_to_msg(scene.stamp_ns)
    msg.header.frame_id = scene.frame_id
    msg.class_names = list(scene.class_vocabulary)
    msg.objects = [_scene_object_to_msg(scene, i) for i in range(len(scene))]
    msg.relations = [
        SceneRelationMsg(
            subject=r.subject,
            predicate=int(r.predicate),
            object=r.object,
            probability=float(r.probability),
            since=time_to_msg(r.since_ns),
        )
        for r in scene.relations
    ]
    msg.events = [
        SceneEventMsg(
            id=e.id,
            kind=int(e.kind),
            a=e.a,
            b=e.b,
            stamp=time_to_msg(e.stamp_ns),
            probability=float(e.probability),
        )
        for e in scene.events
    ]
    msg.camera_pose = transform_to_pose_msg(scene.world_T_camera)
    return msg


def scene_graph_from_msg(msg: SceneGraphMsg) -> SceneGraph:
    """The scene graph of a wm_msgs/SceneGraph; objects may come in any order.

    Raises:
        ValueError: ids are not unique, an extent is not positive, a number is not finite, an enumerator unknown, or
            class probabilities or embeddings are not all of one length.
    """
    objects = sorted(msg.objects, key=lambda o: o.id)
    for o in objects:
        if o.shape not in _SHAPES:
            raise ValueError(f"objects[id={o.id}].shape: got {o.shape}, expected 0..{max(Shape)}")

    def rows(function, *shape: int) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
        return np.array([function(o) for o in objects], dtype=np.float64).reshape(len(objects), *shape)

    return SceneGraph(
        stamp_ns=time_from_msg(msg.header.stamp),
        frame_id=msg.header.frame_id,
        ids=np.array([o.id for o in objects], dtype=np.int64),
        class_names=tuple(o.class_name for o in objects),
        positions=rows(lambda o: vector_from_msg(o.pose.pose.position), 3),
        quaternions=normalize_quaternion(rows(lambda o: quaternion_from_msg(o.pose.pose.orientation), 4)),
        linear_velocities=rows(lambda o: vector_from_msg(o.twist.twist.linear), 3),
        angular_velocities=rows(lambda o: vector_from_msg(o.twist.twist.angular), 3),
        extents=rows(lambda o: vector_from_msg(o.extents), 3),
        shapes=np.array([o.shape for o in objects], dtype=np.int64),
        is_static=np.array([o.is_static for o in objects], dtype=bool),
        pose_covariances=rows(lambda o: o.pose.covariance, 6, 6),
        twist_covariances=rows(lambda o: o.twist.covariance, 6, 6),
        log_mass=rows(lambda o: o.log_mass),
        log_mass_std=rows(lambda o: o.log_mass_std),
        friction=rows(lambda o: o.friction),
        friction_std=rows(lambda o: o.friction_std),
        restitution=rows(lambda o: o.restitution),
        restitution_std=rows(lambda o: o.restitution_std),
        colors=rows(lambda o: color_from_msg(o.color), 3),
        visibilities=rows(lambda o: o.visibility),
        existence_probabilities=rows(lambda o: o.existence_probability),
        first_seen_ns=np.array([time_from_msg(o.first_seen) for o in objects], dtype=np.int64),
        last_seen_ns=np.array([time_from_msg(o.last_seen) for o in objects], dtype=np.int64),
        hulls=tuple(np.array(o.hull_points, dtype=np.float64).reshape(-1, 3) for o in objects),
        relations=tuple(
            Relation(r.subject, Predicate(r.predicate), r.object, r.probability, time_from_msg(r.since))
            for r in msg.relations
        ),
        events=tuple(
            Event(e.id, EventKind(e.kind), e.a, e.b, time_from_msg(e.stamp), e.probability) for e in msg.events
        ),
        world_T_camera=transform_from_pose_msg(msg.camera_pose),
        class_vocabulary=tuple(msg.class_names),
        class_probabilities=_optional_rows(objects, "class_probabilities", len(msg.class_names)),
        embeddings=_optional_rows(objects, "embedding", max((len(o.embedding) for o in objects), default=0)),
    )


def _optional_rows(objects: Sequence[SceneObjectMsg], name: str, columns: int) -> NDArray[np.float64]:
    """(N, columns) of a field that an object may leave empty; its row is then 0."""
    rows = np.zeros((len(objects), columns))
    for row, o in zip(rows, objects, strict=True):
        values = getattr(o, name)
        if len(values) not in (0, columns):
            raise ValueError(f"objects[id={o.id}].{name}: got {len(values)} values, expected {columns} or none")
        if len(values):
            row[:] = values
    return rows


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


def question_to_msg(question: EventQuestion) -> EventQuestionMsg:
    """wm_msgs/EventQuestion of a question."""
    return EventQuestionMsg(
        hypothesis=int(question.hypothesis),
        kind=int(question.kind),
        a=int(question.a),
        b=int(question.b),
        until=float(question.until_s),
        object_ids=array.array("I", [int(i) for i in question.object_ids]),
    )


def question_from_msg(msg: EventQuestionMsg, where: str = "question") -> EventQuestion:
    """The question of a wm_msgs/EventQuestion.

    Raises:
        RequestError: an unknown kind of event.
    """
    return EventQuestion(
        _event_kind(msg.kind, f"{where}.kind"),
        int(msg.a),
        int(msg.b),
        int(msg.hypothesis),
        float(msg.until),
        tuple(int(i) for i in msg.object_ids),
    )


def _event_kind(value: int, where: str) -> EventKind:
    if value not in _EVENT_KINDS:
        raise RequestError(f"{where}: got {value}, expected 0..{max(EventKind)}")
    return EventKind(value)


def request_to_msg(request: ImagineRequest) -> ImagineRequestMsg:
    """wm_msgs/ImagineRequest of a request."""
    msg = ImagineRequestMsg()
    msg.hypotheses = [hypothesis_to_msg(h) for h in request.hypotheses]
    if request.initial_state is not None:
        msg.initial_state = scene_graph_to_msg(request.initial_state)
    msg.horizon = float(request.horizon_s)
    msg.step = float(request.step_s)
    msg.samples = int(request.samples)
    msg.seed = int(request.seed)
    msg.backend = request.backend
    msg.pairs = array.array("I", [int(i) for pair in request.pairs for i in pair])
    msg.deadline = float(request.deadline_s)
    msg.batches = [batch_to_msg(b) for b in request.batches]
    msg.want_states = int(request.want_states)
    msg.want_events = ImagineRequestMsg.EVENTS_LIST if request.want_events else ImagineRequestMsg.EVENTS_NONE
    msg.event_kinds = [int(k) for k in request.event_kinds]
    msg.questions = [question_to_msg(q) for q in request.questions]
    msg.want_video = request.images.video
    msg.want_depth = request.images.depth
    msg.want_points = request.images.points
    msg.video_rate = float(request.images.rate_hz)
    if request.images.camera is not None:
        msg.camera = camera_to_msg(request.images.camera)
    if request.images.world_T_camera is not None:
        msg.camera_pose = transform_to_pose_msg(request.images.world_T_camera)
    else:
        msg.camera_pose.orientation.w = 0.0
    return msg


def request_from_msg(msg: ImagineRequestMsg) -> ImagineRequest:
    """The request of a wm_msgs/ImagineRequest, defaults filled in; ranges are checked by the imagination.

    Raises:
        RequestError, InterventionError, ValueError: what cannot even be read; the message names the field.
    """
    if len(msg.pairs) % 2:
        raise RequestError(f"pairs: got {len(msg.pairs)} ids, expected an even number (a1, b1, a2, b2, ...)")
    pairs = np.array(msg.pairs, dtype=np.int64).reshape(-1, 2)
    hypotheses = tuple(
        Hypothesis(
            h.name,
            tuple(
                intervention_from_msg(i, f"hypotheses[{k}].interventions[{j}]") for j, i in enumerate(h.interventions)
            ),
        )
        for k, h in enumerate(msg.hypotheses)
    )
    camera_quaternion = quaternion_from_msg(msg.camera_pose.orientation)
    initial_state = None
    if msg.initial_state.header.frame_id:
        try:
            initial_state = scene_graph_from_msg(msg.initial_state)
        except ValueError as error:
            raise RequestError(f"initial_state: {error}") from None
    if msg.want_states not in set(StatesWanted):
        raise RequestError(f"want_states: got {msg.want_states}, expected 0..{max(StatesWanted)}")
    if msg.want_events not in (ImagineRequestMsg.EVENTS_LIST, ImagineRequestMsg.EVENTS_NONE):
        raise RequestError(f"want_events: got {msg.want_events}, expected EVENTS_LIST or EVENTS_NONE")
    try:
        camera = camera_from_msg(msg.camera) if msg.camera.width else None
    except ValueError as error:
        raise RequestError(f"camera: {error}") from None
    return ImagineRequest(
        hypotheses=hypotheses,
        horizon_s=float(msg.horizon),
        step_s=float(msg.step) if msg.step != 0.0 else DEFAULT_STEP_S,
        samples=max(int(msg.samples), 1),
        seed=int(msg.seed),
        backend=msg.backend or "auto",
        pairs=tuple((int(a), int(b)) for a, b in pairs),
        deadline_s=float(msg.deadline),
        initial_state=initial_state,
        batches=tuple(batch_from_msg(b, f"batches[{k}]") for k, b in enumerate(msg.batches)),
        want_states=StatesWanted(msg.want_states),
        want_events=msg.want_events == ImagineRequestMsg.EVENTS_LIST,
        event_kinds=tuple(_event_kind(v, f"event_kinds[{e}]") for e, v in enumerate(msg.event_kinds)),
        questions=tuple(question_from_msg(q, f"questions[{n}]") for n, q in enumerate(msg.questions)),
        images=ImageRequest(
            video=bool(msg.want_video),
            depth=bool(msg.want_depth),
            points=bool(msg.want_points),
            rate_hz=float(msg.video_rate) if msg.video_rate != 0.0 else DEFAULT_VIDEO_RATE_HZ,
            camera=camera,
            world_T_camera=(
                transform_from_pose_msg(msg.camera_pose)
                if np.isfinite(camera_quaternion).all() and np.linalg.norm(camera_quaternion) > 1e-9
                else None
            ),
        ),
    )


def rollout_to_msg(rollout: Rollout, video: Sequence[object] = (), depth: Sequence[object] = ()) -> RolloutMsg:
    """wm_msgs/Rollout of a rollout.

    Args:
        video, depth: encoded frames (sensor_msgs/CompressedImage), index k*F + f; encoding is the node's work.
    """
    msg = RolloutMsg()
    msg.header.stamp = time_to_msg(rollout.stamp_ns)
    msg.header.frame_id = rollout.frame_id
    msg.hypotheses = list(rollout.hypotheses)
    msg.samples = int(rollout.states.shape[1])
    msg.times = float_array(rollout.times)
    msg.object_ids = array.array("I", rollout.object_ids.astype(np.uint32).tobytes())
    msg.backend = rollout.backend
    msg.complete = bool(rollout.complete)
    msg.states = float_array(rollout.states)
    msg.present = byte_array(rollout.present)
    msg.position_std = float_array(rollout.position_std)
    msg.events = [
        RolloutEventMsg(
            hypothesis=e.hypothesis,
            sample=e.sample,
            kind=int(e.kind),
            a=int(e.a),
            b=int(e.b),
            time=float(e.time_s),
        )
        for e in rollout.events
    ]
    msg.backends = list(rollout.backends)
    msg.computed = byte_array(rollout.computed)
    msg.valid = byte_array(rollout.valid)
    msg.invalid_reasons = list(rollout.invalid_reasons)
    msg.dynamics_time = float(rollout.dynamics_s)
    msg.warnings = list(rollout.warnings)
    msg.final_states = float_array(rollout.final_states)
    msg.final_present = byte_array(rollout.final_present)
    msg.final_position_std = float_array(rollout.final_position_std)
    msg.event_kinds = array.array("B", [int(k) for k in rollout.event_kinds])
    msg.event_probability = float_array(rollout.event_probability)
    msg.pairs = array.array("I", [int(i) for pair in rollout.pairs for i in pair])
    msg.path_outside = float_array(rollout.path_outside)
    msg.answers = [
        EventAnswerMsg(
            probability=float(a.probability),
            object_ids=array.array("I", a.object_ids.astype(np.uint32).tobytes()),
            probability_without=float_array(a.probability_without),
            prevented=float_array(a.prevented),
        )
        for a in rollout.answers
    ]
    msg.effect = float_array(rollout.effect)
    msg.effect_vector = float_array(rollout.effect_vector)
    msg.pair_separation = float_array(rollout.pair_separation)
    msg.pair_collision = float_array(rollout.pair_collision)
    msg.frame_times = float_array(rollout.frame_times)
    msg.video = list(video)
    msg.depth = list(depth)
    if rollout.camera is not None and len(rollout.frame_times):
        msg.camera = camera_to_msg(rollout.camera)
    if rollout.world_T_camera is not None:
        msg.camera_pose = transform_to_pose_msg(rollout.world_T_camera)
    if rollout.points:
        msg.point_counts = array.array("I", [len(p) for p in rollout.points])
        msg.points = float_array(np.concatenate(rollout.points))
        msg.point_colors = byte_array(np.concatenate(rollout.point_colors))
    return msg


def rollout_from_msg(
    msg: RolloutMsg, pairs: Sequence[tuple[int, int]] = (), questions: Sequence[EventQuestion] = ()
) -> Rollout:
    """The rollout of a wm_msgs/Rollout. Frames stay encoded in the message.

    Args:
        pairs: those of the request; empty: as the message says.
        questions: those of the request, for ``Rollout.answers``; without them the answers are left out.

    Raises:
        ValueError: an array is not of the size that its shape says.
    """
    k, s, t, n = len(msg.hypotheses), int(msg.samples), len(msg.times), len(msg.object_ids)

    def shaped(name: str, kind: type, *shape: int) -> NDArray:  # type: ignore[type-arg]
        values: NDArray = np.asarray(getattr(msg, name), dtype=kind)  # type: ignore[type-arg]
        if values.size != int(np.prod(shape)):
            raise ValueError(f"Rollout.{name}: got {values.size} values, expected {shape} = {int(np.prod(shape))}")
        return values.reshape(shape)

    def optional(name: str, axis: int, kind: type, *shape: int) -> NDArray:  # type: ignore[type-arg]
        """Of that shape, or with none along ``axis`` where it was not asked for."""
        if len(getattr(msg, name)) or not np.prod(shape):
            return shaped(name, kind, *shape)
        return np.zeros((*shape[:axis], 0, *shape[axis + 1 :]), kind)

    known = np.asarray(msg.pairs, dtype=np.int64).reshape(-1, 2).tolist()
    all_pairs = tuple(pairs) or tuple((int(a), int(b)) for a, b in known)
    kinds = tuple(EventKind(v) for v in msg.event_kinds)
    offsets = np.cumsum(np.asarray(msg.point_counts, dtype=np.int64))[:-1]
    total = int(np.sum(np.asarray(msg.point_counts, dtype=np.int64))) if len(msg.point_counts) else 0
    return Rollout(
        stamp_ns=time_from_msg(msg.header.stamp),
        frame_id=msg.header.frame_id,
        hypotheses=tuple(msg.hypotheses),
        times=np.asarray(msg.times, dtype=np.float64),
        object_ids=np.asarray(msg.object_ids, dtype=np.int64),
        states=optional("states", 2, np.float32, k, s, t, n, STATE_SIZE),
        present=optional("present", 1, np.uint8, k, t, n).astype(bool),
        backend=msg.backend,
        complete=bool(msg.complete),
        position_std=optional("position_std", 1, np.float32, k, t, n),
        events=tuple(RolloutEvent(e.hypothesis, e.sample, EventKind(e.kind), e.a, e.b, e.time) for e in msg.events),
        effect=shaped("effect", np.float32, k, n),
        effect_vector=shaped("effect_vector", np.float32, k, n, 3),
        pairs=all_pairs,
        pair_separation=shaped("pair_separation", np.float32, k, len(all_pairs)),
        pair_collision=shaped("pair_collision", np.float32, k, len(all_pairs)),
        frame_times=np.asarray(msg.frame_times, dtype=np.float64),
        camera=camera_from_msg(msg.camera) if msg.camera.width else None,
        world_T_camera=transform_from_pose_msg(msg.camera_pose) if msg.camera.width else None,
        points=tuple(np.split(shaped("points", np.float32, total, 3), offsets)) if total else (),
        point_colors=tuple(np.split(shaped("point_colors", np.uint8, total, 3), offsets)) if total else (),
        backends=tuple(msg.backends),
        computed=optional("computed", 0, np.uint8, k).astype(bool),
        valid=optional("valid", 0, np.uint8, k).astype(bool),
        invalid_reasons=tuple(msg.invalid_reasons),
        dynamics_s=float(msg.dynamics_time),
        warnings=tuple(msg.warnings),
        final_states=optional("final_states", 2, np.float32, k, s, n, STATE_SIZE),
        final_present=optional("final_present", 1, np.uint8, k, n).astype(bool),
        final_position_std=optional("final_position_std", 1, np.float32, k, n),
        event_kinds=kinds,
        event_probability=optional("event_probability", 1, np.float32, k, len(kinds), n),
        path_outside=optional("path_outside", 0, np.float32, k),
        answers=tuple(
            EventAnswer(
                question,
                float(a.probability),
                np.asarray(a.object_ids, dtype=np.int64),
                np.asarray(a.probability_without, dtype=np.float64),
                np.asarray(a.prevented, dtype=np.float64),
            )
            for question, a in zip(questions, msg.answers, strict=False)
        ),
    )
