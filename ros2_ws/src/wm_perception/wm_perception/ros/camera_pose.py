"""Where the camera is: from tf, from odometry, or fixed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray

from wm_core.geometry import pose_matrix
from wm_core.health.findings import Finding, Severity
from wm_core.health.inputs import check_stream
from wm_perception.parameters import PerceptionParameters
from wm_perception.ros.bad_frames import BadFrameError, BadFrames
from wm_ros import qos
from wm_ros.health.inputs import InputHealth
from wm_ros.nodes.lifecycle import ManagedNode, guarded
from wm_ros.stamps import seconds_to_ns, stamp_to_ns
from wm_ros.transforms import (
    NotConnectedError,
    RosTransforms,
    TooNewError,
    TooOldError,
    TransformBuffer,
    TransformError,
    UnknownFrameError,
)


class CameraPose:
    """Poses of the camera's optical frame in the world frame, by the parameter ``pose_source``.

    Args:
        node: whose topics, parameters and diagnostics they are. health: follows the streams.
        bad_frames: counts odometry that cannot be used.
    """

    def __init__(self, node: ManagedNode, health: InputHealth, bad_frames: BadFrames) -> None:
        self.report_exception = node.report_exception  # for ``guarded``
        self._node, self._health, self._bad_frames = node, health, bad_frames
        self._transforms: RosTransforms | None = None
        self._odometry = TransformBuffer()
        self._odometry_frames: tuple[str, str] | None = None
        self._odometry_input: Any = None

    def start(self, p: PerceptionParameters) -> None:
        """Subscribe to what the poses come from."""
        self._odometry.clear()
        self._odometry_frames = None
        if p.pose_source == "odometry":
            self._odometry_input = self._node.create_subscription(
                Odometry, p.odometry_topic, self._on_odometry, qos.SENSOR
            )
            self._health.listen("odometry", "camera pose", p.odometry_topic, Odometry, "odometry_topic")
        if p.pose_source == "tf" or (p.pose_source == "odometry" and p.odometry_camera_from_tf):
            self._transforms = RosTransforms(self._node)
            self._node.get_logger().info(f"transforms through {self._transforms.backend}")
            for name, profile in (("tf", qos.TF), ("tf_static", qos.TF_STATIC)):
                self._health.listen(name, "camera pose", f"/{name}", "tf2_msgs/msg/TFMessage", wanted=profile)

    def stop(self) -> None:
        """Unsubscribe."""
        if self._odometry_input is not None:
            self._node.destroy_subscription(self._odometry_input)
        self._odometry_input = None
        if self._transforms is not None:
            self._transforms.destroy()
        self._transforms = None

    def time_was_set_back(self, stamp_ns: int) -> None:
        """Forget transforms later than half a second after this stamp [ns]."""
        if self._transforms is not None:
            self._transforms.clear(stamp_ns + seconds_to_ns(0.5))
        self._odometry.clear(stamp_ns + seconds_to_ns(0.5))

    @guarded
    def _on_odometry(self, msg: Odometry) -> None:
        self._health.arrived("odometry", stamp_to_ns(msg.header.stamp))
        params: PerceptionParameters = self._node.params
        frame, child = msg.header.frame_id.lstrip("/"), msg.child_frame_id.lstrip("/")
        p, q = msg.pose.pose.position, msg.pose.pose.orientation
        if frame != params.world:
            text = f"odometry on {params.odometry_topic} is in frame {frame!r}, expected {params.world!r}"
            self._bad_frames.add(BadFrameError("odometry_frame", text, f"set world_frame to {frame!r}"))
            return
        try:
            self._odometry.set(frame, child, stamp_to_ns(msg.header.stamp), [p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
        except ValueError as error:
            self._node.warn("bad_transform", str(error), f"the publisher of {params.odometry_topic} sends it so")
            return
        self._odometry_frames = (frame, child)

    def at(self, frame_id: str, stamp_ns: int) -> NDArray[np.float64]:
        """world_T_camera (4, 4) of an optical frame at a stamp [ns]; waits for it up to ``tf_timeout_s``.

        Raises:
            BadFrameError: it is not known in time.
        """
        p: PerceptionParameters = self._node.params
        if p.pose_source == "fixed":
            return _pose_of_seven(p.fixed_pose)
        if not frame_id:
            raise BadFrameError(
                "tf_missing", f"images on {p.color_source} have no frame_id", "set the parameter camera_frame"
            )
        started_s = time.monotonic()
        try:
            if p.pose_source == "odometry":
                pose = self._from_odometry(p, frame_id, stamp_ns)
            else:
                pose = self._from_tf(p.world, frame_id, stamp_ns, p.tf_timeout_s)
        except TooNewError as error:
            raise BadFrameError(
                "tf_late", f"{error}, waited {p.tf_timeout_s:g} s", "publish tf sooner, or raise tf_timeout_s"
            ) from error
        except TooOldError as error:
            raise BadFrameError("tf_too_old", str(error), "are the clocks of camera and tf the same?") from error
        except (UnknownFrameError, NotConnectedError, TransformError) as error:
            what = "odometry" if p.pose_source == "odometry" else "tf"
            advice = f"publish {what} from {p.world} to {frame_id}, or set world_frame, camera_frame or pose_source"
            raise BadFrameError("tf_missing", str(error), advice) from error
        self._node.diagnostics.latency("wait for camera pose").add(time.monotonic() - started_s)
        return pose

    def _from_tf(self, target: str, source: str, stamp_ns: int, timeout_s: float) -> NDArray[np.float64]:
        assert self._transforms is not None
        return self._transforms.wait(target, source, stamp_ns, timeout_s)

    def _from_odometry(self, p: PerceptionParameters, frame_id: str, stamp_ns: int) -> NDArray[np.float64]:
        deadline_s = time.monotonic() + p.tf_timeout_s
        while self._odometry_frames is None:
            if time.monotonic() >= deadline_s:
                raise UnknownFrameError(f"nothing usable came on {p.odometry_topic}")
            time.sleep(0.005)
        world, base = self._odometry_frames
        world_T_base = self._odometry.wait(world, base, stamp_ns, max(deadline_s - time.monotonic(), 0.0))
        if not p.odometry_camera_from_tf:
            return world_T_base @ _pose_of_seven(p.odometry_camera_pose)
        return world_T_base @ self._from_tf(base, frame_id, stamp_ns, max(deadline_s - time.monotonic(), 0.0))

    def findings(self) -> list[Finding]:
        """Causes of missing transforms: no publisher, or a QoS that does not reach this node."""
        streams = self._health.streams(("tf", "tf_static"), look_at_all=True)
        if streams and not any(s.publishers for s in streams):
            run = "start robot_state_publisher or a static_transform_publisher, or set pose_source to odometry or fixed"
            return [Finding("no_tf", Severity.ERROR, "nobody publishes /tf or /tf_static (camera pose)", run=run)]
        found = (check_stream(s) for s in streams)
        return [f for f in found if f is not None and f.cause.startswith("qos.")]


def _pose_of_seven(values: tuple[float, ...]) -> NDArray[np.float64]:
    return pose_matrix(values[:3], values[3:])
