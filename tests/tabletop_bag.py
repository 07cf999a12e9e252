"""A recording of a camera over a table with boxes: an MCAP file with what a robot's bag holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mcap.writer import Writer
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Imu
from tf2_msgs.msg import TFMessage

from tabletop_images import CAMERA, look_down, orbit, render
from wm_bringup.environment import message_definition
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import depth_to_image, rgb_to_image
from wm_ros.stamps import ns_to_stamp
from wm_ros.transforms import transform_to_msg

S = 1_000_000_000
SHORT = 11
COLOR, DEPTH, INFO = "/camera/color/image_raw", "/camera/depth/image_raw", "/camera/color/camera_info"
OPTICAL = "camera_color_optical_frame"


def write_bag(
    path: Path,
    frames: int = SHORT,
    *,
    pitch: float = 50.0,
    tf: bool = True,
    imu: str = "",
    chunk: int = 256 * 1024,
    prefix: str = "",
) -> Path:
    """A camera over a table at 15 Hz; each transform comes 60 ms after its images, as of a slow localizer."""
    messages: list[tuple[int, str, object]] = []
    optical = prefix + OPTICAL
    for i, pose in enumerate(orbit(frames, pitch) if tf else [look_down(pitch)] * frames):
        stamp = 100 * S + i * S // 15
        rgb, depth = render(pose)
        # Grain, as of a sensor: pictures that hardly compress, so that they are most of the file.
        rgb = np.clip(rgb + np.random.default_rng(i).integers(-6, 7, rgb.shape), 0, 255).astype(np.uint8)
        messages += [
            (stamp + 20_000_000, COLOR, rgb_to_image(rgb, stamp, optical)),
            (stamp + 25_000_000, DEPTH, depth_to_image(depth, stamp + 1_000_000, optical, "16UC1")),
            (stamp + 21_000_000, INFO, camera_to_info(CAMERA, stamp, optical)),
        ]
        if tf:
            moved = transform_to_msg(f"{prefix}map", optical, stamp, pose)
            messages.append((stamp + 60_000_000, "/tf", TFMessage(transforms=[moved])))
    for i in range(60 if imu else 0):
        sample = Imu()
        sample.header.frame_id = imu
        sample.header.stamp = ns_to_stamp(100 * S + i * S // 100)
        up = look_down(pitch)[2, :3]  # in the camera's axes
        sample.linear_acceleration.x, sample.linear_acceleration.y, sample.linear_acceleration.z = 9.81 * up
        messages.append((100 * S + i * S // 100, "/imu", sample))
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk)
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        for time_ns, topic, message in sorted(messages, key=lambda m: m[0]):
            if topic not in channels:
                kind = f"{type(message).__module__.partition('.')[0]}/msg/{type(message).__name__}"
                schema = writer.register_schema(kind, "ros2msg", message_definition(kind).encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], time_ns, serialize_message(message), time_ns)
        writer.finish()
    return path
