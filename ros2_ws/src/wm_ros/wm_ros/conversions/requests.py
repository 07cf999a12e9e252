"""Requests to imagination between ``wm_core.rollout`` and wm_msgs."""

from __future__ import annotations

import array

import numpy as np
from wm_msgs.msg import EventQuestion as EventQuestionMsg
from wm_msgs.msg import ImagineRequest as ImagineRequestMsg

from wm_core.interventions import Hypothesis
from wm_core.rollout import EventQuestion, ImageRequest, ImagineRequest, RequestError, StatesWanted
from wm_core.scene_graph import EventKind
from wm_ros.conversions.basics import (
    camera_from_msg,
    camera_to_msg,
    quaternion_from_msg,
    transform_from_pose_msg,
    transform_to_pose_msg,
)
from wm_ros.conversions.interventions import batch_from_msg, batch_to_msg, hypothesis_to_msg, intervention_from_msg
from wm_ros.conversions.scene_graph import scene_graph_from_msg, scene_graph_to_msg

DEFAULT_STEP_S = 1.0 / 30.0
"""Time between states [s] where wm_msgs/ImagineRequest has 0, as that message says."""
DEFAULT_VIDEO_RATE_HZ = 10.0
"""Images a second of a video [Hz] where wm_msgs/ImagineRequest has 0, as that message says."""
_EVENT_KINDS = frozenset(EventKind)


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
        RequestError, InterventionError, ValueError: a field that cannot be read; the message names it.
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
