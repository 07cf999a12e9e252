"""The services and the action of imagination: a request message in, an answer message out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.action import CancelResponse, GoalResponse
from rclpy.callback_groups import CallbackGroup
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from wm_msgs.action import Imagine
from wm_msgs.msg import ImagineRequest as ImagineRequestMsg
from wm_msgs.msg import Rollout as RolloutMsg
from wm_msgs.srv import GetSceneGraph, ImagineRollouts

from wm_core.interventions import UnknownObjectError
from wm_core.rollout import Rollout
from wm_core.scene_graph import SceneGraph
from wm_imagination.answering import Progress
from wm_imagination.engine import BackendUnavailableError, Imagination
from wm_imagination.parameters import ImaginationParameters
from wm_imagination.ros.appearance_input import AppearanceInput
from wm_imagination.ros.encoded_frames import EncodedFrames
from wm_imagination.ros.imagined_topics import ImaginedTopics
from wm_imagination.turns import BusyError, Turns
from wm_imagination.validation import NoAppearanceError, check_counts
from wm_ros.conversions.requests import request_from_msg
from wm_ros.conversions.rollout import rollout_to_msg
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.health.diagnostics import Level
from wm_ros.nodes.clients import AbandonedError, ClientWatch, Gone, WatchedActionServer, WatchedService
from wm_ros.nodes.lifecycle import ManagedNode

_MAX_FEEDBACK_PARTIALS = 128
"""Hypotheses of one request up to which feedback is sent for each; of more, twenty a second."""


class NoSceneGraphError(RuntimeError):
    """No scene graph was received yet, and the request has none."""


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NoSceneGraphError, ImagineRollouts.Response.NO_SCENE_GRAPH),
    (UnknownObjectError, ImagineRollouts.Response.UNKNOWN_OBJECT),
    (NoAppearanceError, ImagineRollouts.Response.NO_APPEARANCE),
    (ValueError, ImagineRollouts.Response.INVALID_REQUEST),
    (BackendUnavailableError, ImagineRollouts.Response.BACKEND_UNAVAILABLE),
    (BusyError, ImagineRollouts.Response.INTERNAL),
)
"""Code of the answer by what was raised, the first that fits; the text of the error is the answer's error_msg."""

Feedback = Callable[[Progress, CompressedImage | None], None]
"""Called at each step of progress, with the color of its frame where one was drawn and is wanted."""


class RequestServer:
    """Answers imagine_rollouts, imagine and get_scene_graph in the executor's threads, a few requests at a time.

    Args:
        node: that offers them. group: of their callbacks, reentrant.
        imagination: the one that answers now. scene: the newest graph, or None.
        appearance: what was seen. imagined: where frames and rollouts are shown.
    """

    def __init__(
        self,
        node: ManagedNode,
        group: CallbackGroup,
        imagination: Callable[[], Imagination],
        scene: Callable[[], SceneGraph | None],
        appearance: AppearanceInput,
        imagined: ImaginedTopics,
    ) -> None:
        self._node, self._group = node, group
        self._imagination, self._scene, self._appearance, self._imagined = imagination, scene, appearance, imagined
        self._client_watch = ClientWatch(node)
        self._turns = Turns(1)
        self._stop = threading.Event()
        self._graph_service: Any = None
        self._rollouts: WatchedService | None = None
        self._action: WatchedActionServer | None = None

    def open(self, concurrent: int) -> None:
        """Offer the services and the action; so many requests are worked on at a time."""
        self._turns = Turns(concurrent)
        self._stop.clear()
        node, watch, group = self._node, self._client_watch, self._group
        self._graph_service = node.create_service(
            GetSceneGraph, "get_scene_graph", self._on_get_scene_graph, callback_group=group
        )
        self._rollouts = WatchedService(
            node, watch, ImagineRollouts, "imagine_rollouts", self._on_imagine_rollouts, group
        )
        self._action = WatchedActionServer(
            node,
            watch,
            Imagine,
            "imagine",
            execute_callback=self._on_goal,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=group,
            feedback_pub_qos_profile=QoSProfile(depth=2 * _MAX_FEEDBACK_PARTIALS),
        )

    def close(self) -> None:
        """End the running requests, withdraw the services and the action."""
        self._stop.set()
        if self._graph_service is not None:
            self._node.destroy_service(self._graph_service)
        for server in (self._rollouts, self._action):
            if server is not None:
                server.destroy()
        self._graph_service, self._rollouts, self._action = None, None, None

    # The callbacks.

    def _on_imagine_rollouts(
        self, request: ImagineRollouts.Request, response: ImagineRollouts.Response, gone: Gone
    ) -> ImagineRollouts.Response:
        return self._answer(request.request, response, gone, self._stop.is_set)

    def _on_goal(self, goal: Any) -> Imagine.Result:
        action = self._action
        gone = action.client_gone(goal) if action is not None else self._stop.is_set

        def should_stop() -> bool:
            return goal.is_cancel_requested or self._stop.is_set()

        many = len(goal.request.request.hypotheses) > _MAX_FEEDBACK_PARTIALS
        last_s = -np.inf

        def feed_back(step: Progress, frame: CompressedImage | None) -> None:
            nonlocal last_s
            # Of very many hypotheses some are shown; the result has them all.
            if many and step.partial is not None and time.monotonic() - last_s < 0.05:
                return
            last_s = time.monotonic()
            feedback = Imagine.Feedback()
            feedback.progress = float(step.fraction)
            feedback.hypothesis = int(step.hypothesis)
            feedback.frame_time = float(step.frame_time_s)
            if step.partial is not None:
                feedback.partial = rollout_to_msg(step.partial)
            if frame is not None:
                feedback.frame = frame
            goal.publish_feedback(feedback)

        result = self._answer(goal.request.request, Imagine.Result(), gone, should_stop, feed_back)
        if goal.is_cancel_requested:
            if result.error_code == Imagine.Result.OK:
                result.error_code = Imagine.Result.CANCELLED
                result.error_msg = "cancelled by the client; the rollout holds what was done by then"
            goal.canceled()
        elif result.error_code == Imagine.Result.OK and not self._stop.is_set():
            goal.succeed()
        else:
            if result.error_code == Imagine.Result.OK:
                result.error_code = Imagine.Result.CANCELLED
                result.error_msg = "the node was deactivated; the rollout holds what was done by then"
            goal.abort()
        return result

    def _on_get_scene_graph(
        self, request: GetSceneGraph.Request, response: GetSceneGraph.Response
    ) -> GetSceneGraph.Response:
        scene = self._scene()
        wanted = [int(i) for i in request.object_ids]
        if scene is None:
            response.error_code = GetSceneGraph.Response.NO_SCENE_GRAPH
            response.error_msg = "no scene graph was received yet on scene_graph; is the perception node running?"
            return response
        unknown = [i for i in wanted if i not in scene.ids]
        if unknown:
            response.error_code = GetSceneGraph.Response.UNKNOWN_OBJECT
            response.error_msg = f"object_ids: got {unknown}, expected ids out of {scene.ids.tolist()}"
            return response
        if wanted:
            scene = scene.select(np.isin(scene.ids, wanted))
        response.scene_graph = scene_graph_to_msg(scene)
        return response

    # From request to answer.

    def _answer(
        self,
        msg: ImagineRequestMsg,
        response: Any,
        gone: Gone,
        should_stop: Callable[[], bool],
        feed_back: Feedback | None = None,
    ) -> Any:
        """Fill a service response or an action result (their fields have the same names)."""
        begin = time.monotonic()
        try:
            response.rollout = self._imagine(msg, gone, should_stop, feed_back, begin)
            response.error_code = ImagineRollouts.Response.OK
        except AbandonedError as error:
            response.error_code, response.error_msg = ImagineRollouts.Response.INTERNAL, str(error)
            self._node.diagnostics.counter("abandoned_requests", level=Level.OK).add(1, str(error))
            return response
        except Exception as error:
            response.error_code, response.error_msg = self._refusal(error)
        response.compute_time = time.monotonic() - begin
        self._count(response)
        return response

    def _refusal(self, error: Exception) -> tuple[int, str]:
        """Code and text of the answer for what was raised; unexpected errors are logged, too."""
        for kind, code in _CODES:
            if isinstance(error, kind):
                return code, str(error)
        self._node.report_exception("imagine", error)
        return ImagineRollouts.Response.INTERNAL, f"{type(error).__name__}: {error} (see the node's log)"

    def _imagine(
        self,
        msg: ImagineRequestMsg,
        gone: Gone,
        should_stop: Callable[[], bool],
        feed_back: Feedback | None,
        begin: float,
    ) -> RolloutMsg:
        """The rollout of a request; ``begin``: when it came [s, monotonic].

        Raises:
            NoSceneGraphError, BusyError, AbandonedError: it was not, or not to the end, worked on.
            ValueError, BackendUnavailableError: see ``Imagination.imagine``.
        """
        imagination = self._imagination()
        p: ImaginationParameters = self._node.params
        check_counts(msg.hypotheses, [int(b.count) for b in msg.batches], imagination.limits)
        request = request_from_msg(msg)
        scene = self._scene() if request.initial_state is None else request.initial_state
        if scene is None:
            raise NoSceneGraphError(
                "no scene graph was received yet on scene_graph and the request has no initial_state; "
                "start the perception node, or give one"
            )
        frame_id = self._appearance.optical_frame
        frames = EncodedFrames(request.images, scene.stamp_ns, frame_id, p.jpeg_quality)

        def on_progress(step: Progress) -> None:
            color = frames.add(step)
            if step.frame is not None:
                self._imagined.show_frame(step.frame.color, frames.stamp_ns(step), frame_id)
            if feed_back is not None:
                feed_back(step, color)

        def ends() -> bool:
            return should_stop() or gone()

        # Of a service's progress only frames are used; without them none is reported.
        listens = feed_back is not None or request.images.any_images
        with self._turns.take(p.max_waiting, ends):
            rollout: Rollout = imagination.imagine(
                request,
                scene,
                self._appearance.memory,
                should_stop=ends,
                on_progress=on_progress if listens else None,
                keep_frames=False,
                begin=begin,
            )
        if gone():
            raise AbandonedError("the client is gone; the request was ended")
        self._imagined.show_rollout(rollout, self._appearance.memory)
        return rollout_to_msg(rollout, *frames.of(rollout))

    # Diagnostics.

    def _count(self, response: Any) -> None:
        """Count answers by backend, latency, and refusals."""
        diagnostics = self._node.diagnostics
        if response.error_code != ImagineRollouts.Response.OK:
            diagnostics.counter("refused_requests", level=Level.OK).add(1, response.error_msg)
            self._node.log_throttled(f"request refused: {response.error_msg}", key="refused")
            return
        diagnostics.latency("imagine").add(response.compute_time)
        diagnostics.latency("dynamics").add(response.rollout.dynamics_time)
        self._count_futures(response.rollout)
        diagnostics.rate("requests").tick()

    def _count_futures(self, rollout: RolloutMsg) -> None:
        """Count incomplete answers, invalid futures and warnings."""
        diagnostics = self._node.diagnostics
        backends = list(rollout.backends) or [rollout.backend] * len(rollout.hypotheses)
        for name in sorted(set(backends)):
            diagnostics.counter(f"futures.{name}", level=Level.OK).add(backends.count(name), "")
        if not rollout.complete:
            late = f"{int(np.sum(rollout.computed))} of {len(rollout.computed)} futures were done in time"
            diagnostics.counter("incomplete_answers", level=Level.OK).add(1, late)
        invalid = int(np.sum(np.asarray(rollout.computed, bool) & ~np.asarray(rollout.valid, bool)))
        if invalid:
            reason = next((r for r, ok in zip(rollout.invalid_reasons, rollout.valid, strict=True) if not ok), "")
            diagnostics.counter("invalid_futures", level=Level.WARN).add(invalid, reason)
        if len(rollout.warnings):
            diagnostics.counter("odd_requests", level=Level.OK).add(1, rollout.warnings[0])
