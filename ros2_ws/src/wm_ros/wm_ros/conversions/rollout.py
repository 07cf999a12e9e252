"""Imagined futures between ``wm_core.rollout`` and wm_msgs."""

from __future__ import annotations

import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from wm_msgs.msg import EventAnswer as EventAnswerMsg
from wm_msgs.msg import Rollout as RolloutMsg
from wm_msgs.msg import RolloutEvent as RolloutEventMsg

from wm_core.rollout import STATE_SIZE, EventAnswer, EventQuestion, Rollout, RolloutEvent
from wm_core.scene_graph import EventKind
from wm_ros.conversions.basics import (
    byte_array,
    camera_from_msg,
    camera_to_msg,
    float_array,
    time_from_msg,
    time_to_msg,
    transform_from_pose_msg,
    transform_to_pose_msg,
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
        """Of that shape, or with size 0 along ``axis`` where it was not requested."""
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
