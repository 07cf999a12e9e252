"""The parameters of the node ``perception``."""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.camera_parameters import CameraParameters
from wm_core.frames import prefixed
from wm_core.parameters import group, parameter
from wm_perception.frame_worker import OVERLAP
from wm_perception.types import PerceptionConfig


@dataclass(frozen=True)
class PerceptionParameters(CameraParameters):
    """Parameters of the node ``perception``."""

    world_frame: str = parameter("map", "fixed frame of the scene graph, z up", read_only=True)
    frame_prefix: str = parameter(
        "",
        "put before world_frame and camera_frame, e.g. robot1/; a frame that begins with / is taken as it stands",
        read_only=True,
    )
    min_depth_fraction: float = parameter(
        0.02, "warn when a smaller fraction of the depth image has a measurement", minimum=0.0, maximum=1.0
    )
    pose_source: str = parameter(
        "tf", "where the camera's pose comes from", choices=("tf", "odometry", "fixed"), read_only=True
    )
    camera_frame: str = parameter("", "optical frame; empty: frame_id of the color image", read_only=True)
    tf_timeout_s: float = parameter(
        0.2, "how long a frame waits for its camera pose (wall clock)", unit="s", minimum=0.0, maximum=10.0
    )
    odometry_topic: str = parameter("/odom", "nav_msgs/Odometry, for pose_source odometry", read_only=True)
    odometry_camera_from_tf: bool = parameter(
        True,
        "pose_source odometry: the camera on the robot from tf; false: from odometry_camera_pose",
        read_only=True,
    )
    odometry_camera_pose: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0, -0.5, 0.5, -0.5, 0.5),
        "optical frame in the odometry's child frame: x y z [m], quaternion x y z w",
        length=7,
        read_only=True,
    )
    fixed_pose: tuple[float, ...] = parameter(
        (0.0, 0.0, 0.0, -0.5, 0.5, -0.5, 0.5),
        "optical frame in world_frame, for pose_source fixed: x y z [m], quaternion x y z w",
        length=7,
    )
    overlap_frames: str = parameter(
        "auto",
        "begin the next image, up to the segmenter's network, while the objects of this one are tracked: more scene "
        "graphs a second, each of them later; auto: where a core is left beside inference_threads",
        choices=OVERLAP,
        read_only=True,
    )
    pipeline: PerceptionConfig = group(PerceptionConfig, exclude=("world_frame",), read_only=True)  # noqa: RUF009

    @property
    def world(self) -> str:
        """Frame of the scene graph, with the prefix."""
        return prefixed(self.frame_prefix, self.world_frame)
