"""What ``wm doctor`` makes of single frames, without a graph: names of frames are those that perception looks up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from rclpy.serialization import serialize_message

from tabletop_images import CAMERA, look_down, render
from wm_bringup.doctor.findings import Finding
from wm_bringup.doctor.frames import FrameLook
from wm_bringup.doctor.seen import Seen
from wm_perception.parameters import PerceptionParameters
from wm_perception.types import PerceptionConfig
from wm_ros.images.camera_info import camera_to_info
from wm_ros.images.pixels import depth_to_image, rgb_to_image
from wm_ros.stamps import ns_to_stamp
from wm_ros.transforms import TransformBuffer

S = 1_000_000_000
FRAMES = 5
POSE = look_down(50.0)
GEOMETRIC = PerceptionConfig(segmenter="geometric", reasoner="geometric")


def look(transforms: TransformBuffer, odometry: Odometry | None = None, **values: Any) -> dict[str, Finding]:
    """The findings by name, of images whose own frame nobody knows."""
    kept: dict[str, list[bytes]] = {"color": [], "depth": [], "camera_info": [], "odometry": []}
    rgb, depth = render(POSE)
    for i in range(FRAMES):
        stamp = 100 * S + i * S // 15
        kept["color"].append(serialize_message(rgb_to_image(rgb, stamp, "unknown")))
        kept["depth"].append(serialize_message(depth_to_image(depth, stamp, "unknown", "16UC1")))
        kept["camera_info"].append(serialize_message(camera_to_info(CAMERA, stamp, "unknown")))
    if odometry is not None:
        kept["odometry"].append(serialize_message(odometry))
    parameters = PerceptionParameters(pipeline=GEOMETRIC, **values)
    listener: Any = SimpleNamespace(kept=kept, parameters=parameters, transforms=transforms)
    seen = Seen()
    found = {finding.name: finding for finding in FrameLook(listener).findings(seen)}
    if seen.result is not None:
        assert seen.result.scene.frame_id == parameters.world
    return found


def known(parent: str, child: str) -> TransformBuffer:
    """Transforms: the pose of the camera, once and for all."""
    from scipy.spatial.transform import Rotation

    buffer = TransformBuffer()
    buffer.set(parent, child, 0, POSE[:3, 3], Rotation.from_matrix(POSE[:3, :3]).as_quat(), True)
    return buffer


@pytest.mark.parametrize(
    ("world", "camera", "parent", "child"),
    [
        ("map", "cam", "robot1/map", "robot1/cam"),
        ("/map", "/cam", "map", "cam"),  # as they stand
    ],
)
def test_frames_are_looked_up_with_their_prefix(world: str, camera: str, parent: str, child: str) -> None:
    named = {"frame_prefix": "robot1/", "world_frame": world, "camera_frame": camera}
    found = look(known(parent, child), **named)
    assert found["camera pose"].level == "ok" and found["camera pose"].found.startswith(f"{child} in {parent} at (")
    assert found["camera pose"].values["position_m"] == pytest.approx(POSE[:3, 3])
    assert found["perceived"].values["supports"] >= 1
    found = look(known("world", "eye"), **named)
    assert (
        found["camera pose"].level == "error" and f"publish tf from {parent} to {child}" in found["camera pose"].advice
    )


def test_odometry_is_in_the_prefixed_world() -> None:
    odometry = Odometry(child_frame_id="robot1/base")
    odometry.header.stamp = ns_to_stamp(100 * S)
    odometry.pose.pose.orientation.w = 1.0
    named = {"frame_prefix": "robot1/", "camera_frame": "cam", "pose_source": "odometry"}
    odometry.header.frame_id = "robot1/map"
    found = look(known("robot1/base", "robot1/cam"), odometry, **named)
    assert found["camera pose"].level == "ok", found["camera pose"]
    assert np.allclose(found["camera pose"].values["position_m"], POSE[:3, 3])
    odometry.header.frame_id = "map"
    found = look(known("robot1/base", "robot1/cam"), odometry, **named)
    assert "is in frame 'map', expected 'robot1/map'" in found["camera pose"].found
