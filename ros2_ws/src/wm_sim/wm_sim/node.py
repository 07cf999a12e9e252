"""The simulated RGB-D camera as a ROS 2 node.

It publishes these topics. The names are relative to the node's namespace, except /clock, /tf and /tf_static:

- ``camera/color/image_raw``: sensor_msgs/Image rgb8
- ``camera/color/camera_info``: sensor_msgs/CameraInfo of both images
- ``camera/depth/image_raw``: sensor_msgs/Image 16UC1 (mm, 0: no measurement) or 32FC1 (m, NaN: no measurement),
  registered to color (REP-118)
- ``camera/depth/camera_info``: the same sensor_msgs/CameraInfo
- ``odom``: nav_msgs/Odometry, odom -> base_link
- ``sim/scene_graph``: wm_msgs/SceneGraph, the ground truth
- ``pusher/pose``: geometry_msgs/PoseStamped in ``map``, where the scene has exactly one pusher
- ``/clock``: rosgraph_msgs/Clock, at every frame; with ``clock: follow`` the node subscribes to it instead
- ``/tf``, ``/tf_static``: map -> odom -> base_link -> camera_link -> camera_color_optical_frame (REP-105)

The names of all frames, on tf and in messages, begin with ``frame_prefix``. Several simulators on one domain need
different namespaces and prefixes, and only one may publish the clock.

Where the scene has exactly one pusher, the node subscribes to ``pusher/path`` (nav_msgs/Path in ``map``). The pusher
then follows this path in place of its present one. It starts at the header's stamp, or at once where that is zero or
past. The pose stamps minus the header's stamp are the times along the path. The node refuses an invalid path with a
warning.

Every frame is 1/30 s of the simulated world at any speed of the machine. On a slow machine the clock runs slower than
real time, and the log gives the factor. The node publishes the transforms and the clock of a frame before its images.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_quietly

    end_quietly()

import os
import signal
import threading
import time
from collections import deque

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from numpy.typing import NDArray
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from wm_msgs.msg import SceneGraph as SceneGraphMsg

from wm_core.frames import prefixed
from wm_core.geometry import invert_transform, pose_matrix
from wm_ros import qos
from wm_ros.conversions.basics import time_from_msg, time_to_msg, transform_to_pose_msg, twist_to_msg
from wm_ros.conversions.scene_graph import scene_graph_to_msg
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import depth_to_image, rgb_to_image
from wm_ros.nodes.parameters import NodeParameters
from wm_ros.nodes.running import run_node
from wm_ros.transforms import RosTransformBroadcaster, transform_to_msg
from wm_sim.depth_noise import DepthNoise
from wm_sim.parameters import SimCameraParameters
from wm_sim.simulator import FRAME_RATE_HZ, NANOSECONDS, Simulator

LOG_PERIOD_S = 5.0
"""Wall-clock time between two log messages with the real-time factor, and between two warnings [s]."""

_FOLLOW_JUMP_NS = NANOSECONDS // 2
"""Difference to a followed clock, in addition to two frames, above which stamps jump to that clock [ns]. A larger value
lets the simulator lag for longer before it leaves out time."""

LINK_T_OPTICAL = pose_matrix([0.0, 0.0, 0.0], [-0.5, 0.5, -0.5, 0.5])
"""(4, 4) pose of the optical frame (z forward, x right, y down) in camera_link (x forward, y left, z up), REP-103."""


class SimCameraNode(Node):
    """The node of the module's docstring. A thread steps the world and owns the OpenGL context.

    Attributes:
        parameters: values of ``SimCameraParameters``.
        simulator: the simulated world; used by the thread only, once it runs.
        failed: whether the simulation has ended by an error.
    """

    def __init__(self) -> None:
        # Set before anything can fail, because rclpy calls destroy_node also after an error in the constructor.
        self.failed = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__("sim_camera_node")
        self.parameters = NodeParameters(self, SimCameraParameters)
        values = self.parameters.value
        self._stride = max(1, round(FRAME_RATE_HZ / values.rate_hz))
        self.simulator = Simulator(
            values.scene,
            values.seed,
            values.width,
            values.height,
            DepthNoise() if values.depth_noise else None,
        )
        self._color = self.create_publisher(Image, "camera/color/image_raw", qos.SENSOR)
        self._color_info = self.create_publisher(CameraInfo, "camera/color/camera_info", qos.SENSOR)
        self._depth = self.create_publisher(Image, "camera/depth/image_raw", qos.SENSOR)
        self._depth_info = self.create_publisher(CameraInfo, "camera/depth/camera_info", qos.SENSOR)
        self._odometry = self.create_publisher(Odometry, "odom", qos.SENSOR)
        self._ground_truth = self.create_publisher(SceneGraphMsg, "sim/scene_graph", qos.SCENE_GRAPH)
        self._heard_ns: int | None = None
        self._heard = self.create_subscription(SceneGraphMsg, values.lead_topic, self._on_scene_graph, qos.SCENE_GRAPH)
        self._commands: deque[PathMsg] = deque(maxlen=1)
        self._pusher_pose = None
        if len(self.simulator.scene.pushers) == 1:
            self._pusher_pose = self.create_publisher(PoseStamped, "pusher/pose", qos.SENSOR)
            self._pusher_path = self.create_subscription(PathMsg, "pusher/path", self._command, qos.COMMAND)
        # Stamp of the frame before the first [ns]; it differs from 0 only with ``clock: follow``.
        self._base_ns = 0
        self._followed_ns: int | None = None
        self._clock_publisher, self._clock_subscription = None, None
        if values.clock == "publish":
            self._clock_publisher = self.create_publisher(Clock, "/clock", qos.CLOCK)
        else:
            self._clock_subscription = self.create_subscription(Clock, "/clock", self._follow, qos.CLOCK)
        self._transforms = RosTransformBroadcaster(self)
        self._static_transforms = RosTransformBroadcaster(self, static=True)
        self._previous_base: tuple[int, NDArray[np.float64]] | None = None
        self._extra_frames = 0
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._thread.start()

    def destroy_node(self) -> None:
        """End the world's thread, then the node."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        super().destroy_node()

    def _command(self, msg: PathMsg) -> None:
        self._commands.append(msg)

    def _on_scene_graph(self, msg: SceneGraphMsg) -> None:
        self._heard_ns = time_from_msg(msg.header.stamp)

    def _follow(self, msg: Clock) -> None:
        self._followed_ns = time_from_msg(msg.clock)

    def _frame_name(self, name: str) -> str:
        return prefixed(self.parameters.value.frame_prefix, name)

    # The world's thread

    def _keep_to_clock(self) -> None:
        """Wait until the followed clock reaches the next frame; jump to the clock where the difference is too large."""
        said = time.monotonic()
        while not self._stop.is_set():
            period_ns = round(self._stride * NANOSECONDS / FRAME_RATE_HZ)
            due_ns = self._stamp_ns() + period_ns
            behind_ns = None if self._followed_ns is None else self._followed_ns - due_ns
            if behind_ns is not None and abs(behind_ns) > _FOLLOW_JUMP_NS + 2 * period_ns:
                self._base_ns += behind_ns  # at the start, after a jump of the clock, or on a slow machine
            if behind_ns is not None and behind_ns >= 0:
                return
            if behind_ns is None and time.monotonic() - said > LOG_PERIOD_S:
                said = time.monotonic()
                self.get_logger().warning("waiting for /clock: of the simulators one must have clock:=publish")
            self._stop.wait(0.002)

    def _hold(self, max_lead_s: float) -> None:
        """Wait, for 1 s at most, until the scene graphs on `lead_topic` lag by no more than ``max_lead_s``."""
        begun = time.monotonic()
        while max_lead_s > 0.0 and self._heard_ns is not None and not self._stop.is_set():
            behind_s = (self._stamp_ns() - self._heard_ns) / NANOSECONDS
            # A lag of 10 s or more means a graph of an earlier run. The limit of 1 s covers a node that has ended.
            if not max_lead_s < behind_s < 10.0 or time.monotonic() - begun > 1.0:
                return
            self._stop.wait(0.002)

    def _run(self) -> None:
        try:
            self._simulate()
        except Exception as error:  # any error ends the simulation, and then the process must end
            if not self._stop.is_set():
                self.get_logger().fatal(f"the simulation ended: {type(error).__name__}: {error}")
                self.failed = True
                _end_process()
        finally:
            self.simulator.close()

    def _simulate(self) -> None:
        values, simulator = self.parameters.value, self.simulator
        self._send_static_transforms()
        simulator.render()  # creates the OpenGL context in this thread, and fails early where there is none
        self.get_logger().info(
            f"scene {simulator.scene.model.name!r}, seed {values.seed}: {len(simulator.scene.bodies)} bodies, "
            f"{values.width}x{values.height} at {FRAME_RATE_HZ / self._stride:g} Hz, "
            f"rendering with {simulator.drawing.backend}"
        )
        if values.wait_for_subscriber:
            self._wait(values.wait_timeout_s)
        start = due = time.monotonic()
        logged_at, logged_frames, frames = start, 0, 0
        while not self._stop.is_set():
            # The first frame has the stamp 1/30 s, because tf reads a stamp of 0 as "no time".
            ended = values.duration_s > 0.0 and self._elapsed_s() >= values.duration_s - 1e-9
            values = self.parameters.value
            if ended and values.at_end == "stop":
                self.get_logger().info(f"the end after {self._elapsed_s():.2f} s of simulated time")
                _end_process()
                return
            if ended and values.at_end == "loop":
                self._extra_frames += simulator.frame
                simulator.reset()
                self._looped_frames = self._extra_frames
                ended = False
            self._hold(values.max_lead_s)
            if self._clock_publisher is None:
                self._keep_to_clock()
            self._command_newest_path()
            for _ in range(self._stride):
                if ended:
                    self._extra_frames += 1
                else:
                    simulator.step()
            self._publish(values)
            frames += 1
            now = time.monotonic()
            if values.real_time_factor > 0.0 and self._clock_publisher is not None:
                due += self._stride / FRAME_RATE_HZ / values.real_time_factor
                if due > now:
                    self._stop.wait(due - now)
                else:
                    due = now  # late: slow the clock down, and do not make up for the lost time
            now = time.monotonic()
            if now - logged_at >= LOG_PERIOD_S:
                factor = (frames - logged_frames) * self._stride / FRAME_RATE_HZ / (now - logged_at)
                self.get_logger().info(f"real-time factor {factor:.2f} at {self._stamp_ns() / NANOSECONDS:.1f} s")
                logged_at, logged_frames = now, frames
                clocks = self.count_publishers("/clock")
                if self._clock_publisher is not None and clocks > 1:
                    self.get_logger().warning(
                        f"{clocks} nodes publish /clock, and time jumps between them: give all but one clock:=follow"
                    )

    def _command_newest_path(self) -> None:
        """Give the pusher the newest path that has come since the last frame."""
        if not self._commands:
            return
        msg = self._commands.popleft()
        begin_ns, now_ns = time_from_msg(msg.header.stamp), self._stamp_ns()
        wait_s = max(begin_ns - now_ns, 0) / NANOSECONDS
        try:
            if msg.header.frame_id not in ("", self._frame_name("map")):
                raise ValueError(f"header.frame_id: got {msg.header.frame_id!r}, expected {self._frame_name('map')!r}")
            stamps = np.array([time_from_msg(p.header.stamp) for p in msg.poses], dtype=np.int64)
            poses = [p.pose for p in msg.poses]
            self.simulator.command_pusher(
                (stamps - begin_ns) / NANOSECONDS + wait_s,
                [[p.position.x, p.position.y, p.position.z] for p in poses],
                [[p.orientation.x, p.orientation.y, p.orientation.z, p.orientation.w] for p in poses],
            )
        except ValueError as error:
            self.get_logger().warning(f"pusher/path refused: {error}")

    _looped_frames = 0

    def _elapsed_s(self) -> float:
        """Simulated time since the last start of the scene [s]."""
        return (self.simulator.frame + self._extra_frames - self._looped_frames) / FRAME_RATE_HZ

    def _stamp_ns(self) -> int:
        """Stamp of the present frame [ns]; it also ascends after the end of the scene and over a restart."""
        return self._base_ns + round((self.simulator.frame + self._extra_frames) * NANOSECONDS / FRAME_RATE_HZ)

    def _wait(self, timeout_s: float) -> None:
        """Wait for a subscriber of both images, for ``timeout_s`` of wall-clock time at most [s]; 0: no limit."""
        self.get_logger().info("waiting for a subscriber of both images")
        begun = time.monotonic()
        while not self._stop.wait(0.05):
            if self._color.get_subscription_count() and self._depth.get_subscription_count():
                # The subscribers may discover these publishers later than these discover them.
                self._stop.wait(0.5)
                return
            if timeout_s > 0.0 and time.monotonic() - begun > timeout_s:
                self.get_logger().warning(f"nobody has subscribed for {timeout_s:g} s; starting all the same")
                return

    def _base_and_mount(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Poses (4, 4) [m] of base_link in the map frame and of camera_link in base_link.

        The origin of base_link is on the floor below the camera, and its x axis has the camera's heading.
        """
        map_T_link = self.simulator.world_T_camera() @ invert_transform(LINK_T_OPTICAL)
        x, y, _ = map_T_link[:3, 3]
        yaw = float(np.arctan2(map_T_link[1, 0], map_T_link[0, 0]))
        map_T_base = pose_matrix([x, y, 0.0], Rotation.from_euler("z", yaw).as_quat())
        return map_T_base, invert_transform(map_T_base) @ map_T_link

    def _send_static_transforms(self) -> None:
        _, base_T_link = self._base_and_mount()
        name = self._frame_name
        self._static_transforms.send(
            transform_to_msg(name("map"), name("odom"), 0, np.eye(4)),  # the simulated odometry does not drift
            transform_to_msg(name("base_link"), name("camera_link"), 0, base_T_link),
            transform_to_msg(name("camera_link"), name("camera_color_optical_frame"), 0, LINK_T_OPTICAL),
        )

    def _publish(self, values: SimCameraParameters) -> None:
        stamp_ns, simulator = self._stamp_ns(), self.simulator
        frame = simulator.render()
        map_T_base, _ = self._base_and_mount()
        name = self._frame_name
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=time_to_msg(stamp_ns)))
        self._transforms.send(transform_to_msg(name("odom"), name("base_link"), stamp_ns, map_T_base))
        self._odometry.publish(self._odometry_message(stamp_ns, map_T_base))
        if self._pusher_pose is not None:
            pose = PoseStamped()
            pose.header.stamp, pose.header.frame_id = time_to_msg(stamp_ns), name("map")
            pose.pose = transform_to_pose_msg(pose_matrix(*simulator.pusher_pose()))
            self._pusher_pose.publish(pose)
        optical = name("camera_color_optical_frame")
        info = camera_to_info(simulator.camera, stamp_ns, optical)
        self._color_info.publish(info)
        self._depth_info.publish(info)
        self._depth.publish(depth_to_image(frame.depth, stamp_ns, optical, values.depth_encoding))
        self._color.publish(rgb_to_image(frame.rgb, stamp_ns, optical))
        if values.ground_truth and self._ground_truth.get_subscription_count():
            graph = scene_graph_to_msg(simulator.ground_truth())
            graph.header.stamp, graph.header.frame_id = time_to_msg(stamp_ns), name("map")
            self._ground_truth.publish(graph)

    def _odometry_message(self, stamp_ns: int, map_T_base: NDArray[np.float64]) -> Odometry:
        msg = Odometry()
        msg.header.stamp = time_to_msg(stamp_ns)
        msg.header.frame_id, msg.child_frame_id = self._frame_name("odom"), self._frame_name("base_link")
        msg.pose.pose = transform_to_pose_msg(map_T_base)
        if self._previous_base is not None and stamp_ns > self._previous_base[0]:
            seconds = (stamp_ns - self._previous_base[0]) / NANOSECONDS
            moved = invert_transform(self._previous_base[1]) @ map_T_base
            turned = Rotation.from_matrix(moved[:3, :3]).as_rotvec()
            msg.twist.twist = twist_to_msg(moved[:3, 3] / seconds, turned / seconds)
        self._previous_base = (stamp_ns, map_T_base)
        return msg


def _end_process() -> None:
    """Send SIGTERM to this process. Shutting the context down in the world's thread would wait for that same thread."""
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status, 1 after an error of the simulation."""
    made: list[SimCameraNode] = []

    def make() -> SimCameraNode:
        made.append(SimCameraNode())
        return made[0]

    status = run_node(make)
    return 1 if any(node.failed for node in made) else status


if __name__ == "__main__":
    raise SystemExit(main())
