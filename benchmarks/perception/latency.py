"""From camera to scene graph on a live graph: frames rendered beforehand, played by a process of its own.

`python -m benchmarks.perception.latency FOLDER --rate 30 --seconds 10` is that process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "/wm"
CORES = 2
"""Cores of the nodes and the player together, so that machines can be compared."""
START_S = 60.0
"""Time [s] that the nodes have to start and to send a first scene graph."""
_SETTLE_S = 2.0
"""Graphs of the first seconds are not timed: supports are found and threads are started."""
_FRAME = "camera_color_optical_frame"
_TOPICS = ("/camera/color/image_raw", "/camera/depth/image_raw", "/camera/color/camera_info")


def save_frames(folder: Path, clip: Any) -> None:
    """Write a ``RenderedClip`` for the player: depth in whole millimeters, as cameras send it."""
    from wm_ros.images.pixels import depth_to_millimeters

    frames = clip.frames
    np.save(folder / "rgb.npy", np.stack([f.rgb for f in frames]))
    np.save(folder / "depth.npy", np.stack([depth_to_millimeters(f.depth) for f in frames]))
    np.save(folder / "poses.npy", np.stack([f.scene.world_T_camera for f in frames]))
    c = clip.camera
    np.save(folder / "camera.npy", np.array([c.width, c.height, c.fx, c.fy, c.cx, c.cy], np.float64))


def figures(arrivals: Sequence[tuple[int, int]]) -> dict[str, float | int | None]:
    """Median and 95th percentile of latency [s], and rate [1/s], of (stamp, arrival) in wall-clock nanoseconds."""
    if len(arrivals) < 2:
        return {"latency_median_s": None, "latency_p95_s": None, "rate_hz": None, "graphs": len(arrivals)}
    stamps, arrived = np.array(arrivals, np.int64).T
    seconds = 1e-9 * (arrived - stamps)
    span_s = 1e-9 * float(arrived.max() - arrived.min())
    return {
        "latency_median_s": float(np.median(seconds)),
        "latency_p95_s": float(np.quantile(seconds, 0.95)),
        "rate_hz": (len(arrivals) - 1) / span_s if span_s > 0.0 else None,
        "graphs": len(arrivals),
    }


@contextmanager
def on_cores(count: int) -> Iterator[int]:
    """Run this process and those that it starts on so many cores at most; the context is their number."""
    if not hasattr(os, "sched_setaffinity"):
        yield os.cpu_count() or 1
        return
    before = os.sched_getaffinity(0)
    chosen = sorted(before)[:count]
    os.sched_setaffinity(0, chosen)
    try:
        yield len(chosen)
    finally:
        os.sched_setaffinity(0, before)


def measure(
    clip: Any, parameters: Mapping[str, Any], rate_hz: float, seconds: float, logs: Path
) -> dict[str, float | int | None]:
    """Play a clip to the perception node for so long and time its scene graphs; ``figures`` of them.

    Args:
        clip: a ``RenderedClip``; it is played forward and backward in turns. parameters: of the node.

    Raises:
        wm_bringup.run.processes.ProcessDied: the node or the player ended; its last output is in the message.
        RuntimeError: no scene graph came.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.signals import SignalHandlerOptions
    from wm_msgs.msg import SceneGraph as SceneGraphMsg

    from wm_bringup.demo.capture import environment
    from wm_bringup.environment import package_file
    from wm_bringup.recording.topic_format import stamp_reader
    from wm_bringup.run.node_command import node_command
    from wm_bringup.run.private_graph import graph_environment
    from wm_bringup.run.processes import ProcessGroup
    from wm_ros import qos

    environ = graph_environment()
    arrivals: list[tuple[int, int]] = []
    read_stamp = stamp_reader(SceneGraphMsg)
    with (
        tempfile.TemporaryDirectory() as folder,
        on_cores(CORES),
        environment(environ),
        ProcessGroup(logs, environ) as processes,
    ):
        save_frames(Path(folder), clip)
        context = rclpy.Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = Node("wm_bench_perception", context=context, start_parameter_services=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        profile = QoSProfile(depth=50, reliability=qos.SCENE_GRAPH.reliability, durability=qos.SCENE_GRAPH.durability)

        def on_graph(data: bytes) -> None:
            arrivals.append((read_stamp(data), time.time_ns()))

        node.create_subscription(SceneGraphMsg, f"{NAMESPACE}/scene_graph", on_graph, profile, raw=True)
        try:
            config = package_file("wm_perception", "config", "perception.yaml")
            processes.start("perception", node_command("wm_perception.node", NAMESPACE, parameters, [config]))
            command = [sys.executable, "-m", "benchmarks.perception.latency", folder]
            command += ["--rate", f"{rate_hz:g}", "--seconds", f"{seconds + _SETTLE_S:g}"]
            processes.start("player", command, may_end=True, cwd=ROOT)
            deadline = time.monotonic() + START_S
            while not arrivals:
                executor.spin_once(timeout_sec=0.05)
                processes.check()
                if time.monotonic() > deadline:
                    tail = processes["perception"].tail(5)
                    raise RuntimeError(f"latency: no scene graph within {START_S:g} s; perception said last:\n{tail}")
            begin_ns = arrivals[0][1]
            while processes["player"].alive:
                executor.spin_once(timeout_sec=0.05)
                processes.check()
        finally:
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
            rclpy.try_shutdown(context=context)
    return figures([a for a in arrivals if a[1] - begin_ns > _SETTLE_S * 1e9])


def play(folder: Path, rate_hz: float, seconds: float) -> None:
    """Publish the frames forth and back once perception listens; stamps are the times of publishing."""
    from sensor_msgs.msg import CameraInfo, Image

    from wm_bringup.sources.playback import DISCOVERY_S, Player
    from wm_core.camera import Camera
    from wm_ros import qos
    from wm_ros.images.camera_info import camera_to_info
    from wm_ros.images.pixels import array_to_image, rgb_to_image
    from wm_ros.stamps import ns_to_stamp
    from wm_ros.transforms import RosTransformBroadcaster, transform_to_msg

    rgb, depth = np.load(folder / "rgb.npy"), np.load(folder / "depth.npy")
    poses, sizes = np.load(folder / "poses.npy"), np.load(folder / "camera.npy")
    camera = Camera(int(sizes[0]), int(sizes[1]), *(float(v) for v in sizes[2:]))
    messages = [
        (rgb_to_image(c, 0, _FRAME), array_to_image(d, "16UC1", 0, _FRAME), p)
        for c, d, p in zip(rgb, depth, poses, strict=True)
    ]
    del rgb, depth
    with Player("camera", [], publish_clock=False) as player:
        outs = [
            player.node.create_publisher(kind, topic, qos.SENSOR)
            for kind, topic in zip((Image, Image, CameraInfo), _TOPICS, strict=True)
        ]
        transforms = RosTransformBroadcaster(player.node)
        player.wait_for(lambda: all(out.get_subscription_count() for out in outs), START_S)
        player.sleep(DISCOVERY_S)
        begin = time.monotonic()
        forth_and_back = cycle([*messages, *messages[-2:0:-1]])
        for number, (color, measured, pose) in enumerate(forth_and_back):
            due = begin + number / rate_hz
            if due > begin + seconds or not player.sleep(max(0.0, due - time.monotonic())):
                break
            stamp_ns = time.time_ns()
            stamp = ns_to_stamp(stamp_ns)
            color.header.stamp = measured.header.stamp = stamp
            transforms.send(transform_to_msg("map", _FRAME, stamp_ns, pose))
            outs[2].publish(camera_to_info(camera, stamp_ns, _FRAME))
            outs[0].publish(color)
            outs[1].publish(measured)
        player.sleep(0.3)  # the last message is still on its way


def main() -> int:
    """The player."""
    parser = argparse.ArgumentParser(description="Plays frames on the camera topics, stamped when they are published.")
    parser.add_argument("folder", type=Path, help="as written by save_frames")
    parser.add_argument("--rate", type=float, default=30.0, metavar="HZ")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    play(arguments.folder, arguments.rate, arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
