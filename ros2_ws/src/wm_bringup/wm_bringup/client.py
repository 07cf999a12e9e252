"""A client of the graph: listens to scene graphs, calls the imagination by action and by service.

Scene graphs are kept serialized, and deserialized only when one is read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from wm_msgs.action import Imagine
from wm_msgs.msg import SceneGraph as SceneGraphMsg
from wm_msgs.srv import ImagineRollouts

from wm_bringup.recording.topic_format import stamp_reader
from wm_core.rollout import ImagineRequest, Rollout
from wm_core.scene_graph import SceneGraph
from wm_ros import qos
from wm_ros.conversions.requests import request_to_msg
from wm_ros.conversions.rollout import rollout_from_msg
from wm_ros.conversions.scene_graph import scene_graph_from_msg, scene_graph_to_msg

_KEEP = 2000
"""Scene graphs kept: over a minute at 30 Hz, so that a caller may ask for the graph of any stamp of a short run."""


class ClientError(RuntimeError):
    """The graph did not answer, or refused; the message says why."""


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        rollout: as arrays; frames stay in ``message``.
        message: wm_msgs/Rollout.
        compute_s: wall-clock time in the node [s].
        round_trip_s: wall-clock time from sending the request to the answer [s].
        first_feedback_s: until the first feedback [s]; None: the service was called, or no feedback came.
        feedbacks: number of feedbacks.
    """

    rollout: Rollout
    message: Any
    compute_s: float
    round_trip_s: float
    first_feedback_s: float | None = None
    feedbacks: int = 0


class GraphClient:
    """A node in this process. A context manager; it has no thread, so call ``spin``.

    Args:
        name: of the node.
        namespace: of perception and imagination.
        on_spin: called while waiting, e.g. to notice that a process died.
        ground_truth_topic: the simulator's scene graph; empty: none.

    Attributes:
        graphs, ground_truths: serialized scene graphs by stamp [ns], perceived and the simulator's, newest last.
        node: the rclpy node, inside the context.
    """

    def __init__(
        self,
        name: str = "wm_client",
        namespace: str = "/wm",
        on_spin: Callable[[], None] = lambda: None,
        ground_truth_topic: str = "",
    ) -> None:
        self._name, self._namespace, self._on_spin, self._ground_truth_topic = (
            name,
            namespace,
            on_spin,
            ground_truth_topic,
        )
        self.graphs: OrderedDict[int, bytes] = OrderedDict()
        self.ground_truths: OrderedDict[int, bytes] = OrderedDict()

    def __enter__(self) -> GraphClient:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(self._name, context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._listen(f"{self._namespace}/scene_graph", self.graphs)
        if self._ground_truth_topic:
            self._listen(self._ground_truth_topic, self.ground_truths)
        self._service = self.node.create_client(ImagineRollouts, f"{self._namespace}/imagine_rollouts")
        self._action = ActionClient(
            self.node, Imagine, f"{self._namespace}/imagine", feedback_sub_qos_profile=QoSProfile(depth=512)
        )
        return self

    def __exit__(self, *details: Any) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._action.destroy()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _listen(self, topic: str, kept: OrderedDict[int, bytes]) -> None:
        read_stamp = stamp_reader(SceneGraphMsg)

        def keep(data: bytes) -> None:
            kept[read_stamp(data)] = data
            while len(kept) > _KEEP:
                kept.popitem(last=False)

        profile = QoSProfile(depth=50, reliability=qos.SCENE_GRAPH.reliability, durability=qos.SCENE_GRAPH.durability)
        self.node.create_subscription(SceneGraphMsg, topic, keep, profile, raw=True)

    def spin(self, seconds: float) -> None:
        """Handle incoming messages for so long [s]."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.1))
            self._on_spin()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Spin until the condition holds; ``what`` names it in the error.

        Raises:
            ClientError: it does not hold after ``timeout_s``.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise ClientError(f"waited {timeout_s:g} s in vain for {what}")
            self._executor.spin_once(timeout_sec=0.05)
            self._on_spin()

    def ready(self) -> bool:
        """Whether the service and the action are there."""
        return bool(self._service.service_is_ready() and self._action.server_is_ready())

    @property
    def latest_stamp_ns(self) -> int:
        """Of the newest scene graph; 0: none yet."""
        return next(reversed(self.graphs), 0)

    def scene(self, stamp_ns: int) -> SceneGraph:
        """The perceived scene graph of a stamp."""
        return scene_graph_from_msg(deserialize_message(self.graphs[stamp_ns], SceneGraphMsg))

    def ground_truth(self, stamp_ns: int) -> SceneGraph:
        """The simulator's scene graph of a stamp."""
        return scene_graph_from_msg(deserialize_message(self.ground_truths[stamp_ns], SceneGraphMsg))

    def _message(self, request: ImagineRequest, scene: SceneGraph | None) -> Any:
        message = request_to_msg(request)
        if scene is not None:
            message.initial_state = scene_graph_to_msg(scene)
        return message

    def imagine(self, request: ImagineRequest, scene: SceneGraph | None = None, timeout_s: float = 60.0) -> Answer:
        """Call the service; ``scene`` None: the node's latest scene graph.

        Raises:
            ClientError: no answer, or a refusal.
        """
        message = ImagineRollouts.Request(request=self._message(request, scene))
        begin = time.monotonic()
        future = self._service.call_async(message)
        self.wait_for(future.done, timeout_s, f"an answer of {self._service.srv_name}")
        seconds = time.monotonic() - begin
        response = future.result()
        if response.error_code != ImagineRollouts.Response.OK:
            raise ClientError(f"{self._service.srv_name} refused: {response.error_msg}")
        return Answer(
            rollout_from_msg(response.rollout, request.pairs, request.questions),
            response.rollout,
            response.compute_time,
            seconds,
        )

    def imagine_streaming(
        self,
        request: ImagineRequest,
        scene: SceneGraph | None = None,
        on_feedback: Callable[[Any], None] = lambda feedback: None,
        timeout_s: float = 120.0,
    ) -> Answer:
        """Call the action; ``on_feedback`` gets each wm_msgs/Imagine feedback as it comes.

        Raises:
            ClientError: refused, no answer, or it ended with an error.
        """
        goal = Imagine.Goal(request=self._message(request, scene))
        begin = time.monotonic()
        first: list[float] = []
        count = 0

        def on_message(message: Any) -> None:
            nonlocal count
            if not first:
                first.append(time.monotonic() - begin)
            count += 1
            on_feedback(message.feedback)

        accepting = self._action.send_goal_async(goal, feedback_callback=on_message)
        self.wait_for(accepting.done, timeout_s, "the imagine action to accept the goal")
        handle = accepting.result()
        if not handle.accepted:
            raise ClientError("the imagine action rejected the goal")
        ending = handle.get_result_async()
        try:
            self.wait_for(ending.done, timeout_s, "the result of the imagine action")
        except (ClientError, KeyboardInterrupt):
            handle.cancel_goal_async()
            self._executor.spin_once(timeout_sec=0.2)
            raise
        seconds = time.monotonic() - begin
        result = ending.result().result
        if result.error_code != Imagine.Result.OK:
            raise ClientError(f"the imagine action failed: {result.error_msg}")
        rollout = rollout_from_msg(result.rollout, request.pairs, request.questions)
        return Answer(rollout, result.rollout, result.compute_time, seconds, first[0] if first else None, count)


def decode_frames(answer: Answer) -> tuple[list[Any], list[Any]]:
    """Imagined color images (H, W, 3) uint8 and depths (H, W) float32 [m], index k*F + f; empty: not requested."""
    from wm_ros.images.compressed import compressed_to_depth, compressed_to_rgb

    return (
        [compressed_to_rgb(frame) for frame in answer.message.video],
        [compressed_to_depth(frame) for frame in answer.message.depth],
    )
