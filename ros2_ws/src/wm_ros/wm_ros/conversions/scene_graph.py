"""Scene graphs between ``wm_core.scene_graph`` and wm_msgs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from wm_msgs.msg import ConvexPart as ConvexPartMsg
from wm_msgs.msg import SceneEvent as SceneEventMsg
from wm_msgs.msg import SceneGraph as SceneGraphMsg
from wm_msgs.msg import SceneObject as SceneObjectMsg
from wm_msgs.msg import SceneRelation as SceneRelationMsg

from wm_core.convex_parts import MAX_PARTS, ConvexPart
from wm_core.rotations import normalize_quaternion
from wm_core.scene_graph import Event, EventKind, Predicate, Relation, SceneGraph, Shape
from wm_ros.conversions.basics import (
    color_from_msg,
    color_to_msg,
    float_array,
    pose_to_msg,
    quaternion_from_msg,
    time_from_msg,
    time_to_msg,
    transform_from_pose_msg,
    transform_to_pose_msg,
    twist_to_msg,
    vector_from_msg,
    vector_to_msg,
)

_SHAPES = frozenset(Shape)
_COMPOUND = SceneObjectMsg.SHAPE_COMPOUND


def _part_to_msg(part: ConvexPart) -> ConvexPartMsg:
    return ConvexPartMsg(
        shape=int(part.shape),
        pose=pose_to_msg(part.position, part.quaternion),
        extents=vector_to_msg(part.extents),
        hull_points=float_array(part.hull),
    )


def _part_from_msg(msg: ConvexPartMsg) -> ConvexPart:
    return ConvexPart(
        Shape(msg.shape),
        vector_from_msg(msg.extents),
        vector_from_msg(msg.pose.position),
        normalize_quaternion(quaternion_from_msg(msg.pose.orientation)),
        np.array(msg.hull_points, dtype=np.float64).reshape(-1, 3),
    )


def _check_shape(o: SceneObjectMsg) -> None:
    """Raises ValueError where an object's shape, or one of its parts, is not what the message allows."""
    if o.shape not in _SHAPES and o.shape != _COMPOUND:
        raise ValueError(f"objects[id={o.id}].shape: got {o.shape}, expected 0..{_COMPOUND}")
    _check_hull(o.hull_points, f"objects[id={o.id}]")
    if o.shape != _COMPOUND:
        return
    if o.outline_shape not in _SHAPES:
        raise ValueError(f"objects[id={o.id}].outline_shape: got {o.outline_shape}, expected 0..{max(Shape)}")
    if not 1 <= len(o.parts) <= MAX_PARTS:
        raise ValueError(f"objects[id={o.id}].parts: got {len(o.parts)}, expected 1..{MAX_PARTS} of SHAPE_COMPOUND")
    for k, part in enumerate(o.parts):
        where = f"objects[id={o.id}].parts[{k}]"
        if part.shape not in _SHAPES:
            raise ValueError(f"{where}.shape: got {part.shape}, expected 0..{max(Shape)}")
        extents = vector_from_msg(part.extents)
        if not (np.isfinite(extents).all() and (extents > 0.0).all()):
            raise ValueError(f"{where}.extents: got {extents.tolist()}, expected finite and > 0")
        _check_hull(part.hull_points, where)
        place = [*vector_from_msg(part.pose.position), *quaternion_from_msg(part.pose.orientation)]
        if not np.isfinite(place).all():
            raise ValueError(f"{where}: has a number that is not finite")


def _check_hull(points: Sequence[float], where: str) -> None:
    """Raises ValueError where hull points are not triples of finite numbers."""
    if len(points) % 3:
        raise ValueError(f"{where}.hull_points: got {len(points)} numbers, expected x, y, z of each point")
    if len(points) and not np.isfinite(np.asarray(points, dtype=np.float64)).all():
        raise ValueError(f"{where}.hull_points: has a number that is not finite")


def _scene_object_to_msg(scene: SceneGraph, i: int) -> SceneObjectMsg:
    msg = SceneObjectMsg()
    msg.id = int(scene.ids[i])
    msg.class_name = scene.class_names[i]
    msg.pose.pose = pose_to_msg(scene.positions[i], scene.quaternions[i])
    msg.pose.covariance = scene.pose_covariances[i].ravel().tolist()
    msg.twist.twist = twist_to_msg(scene.linear_velocities[i], scene.angular_velocities[i])
    msg.twist.covariance = scene.twist_covariances[i].ravel().tolist()
    msg.extents = vector_to_msg(scene.extents[i])
    msg.shape = _COMPOUND if scene.parts[i] else int(scene.shapes[i])
    msg.outline_shape = int(scene.shapes[i])
    msg.parts = [_part_to_msg(part) for part in scene.parts[i]]
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
        _check_shape(o)

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
        shapes=np.array([o.outline_shape if o.shape == _COMPOUND else o.shape for o in objects], dtype=np.int64),
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
        parts=tuple(tuple(map(_part_from_msg, o.parts)) if o.shape == _COMPOUND else () for o in objects),
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
