"""Plays a folder of RGB-D frames on the camera topics.

Two layouts are known:

- ``frame-N.color.jpg`` or ``.png``, ``frame-N.depth.png`` (16-bit millimetres), ``frame-N.pose.txt`` (4x4 camera to
  world, metres) and ``camera-intrinsics.txt`` (3x3), as in 7-Scenes and ScanNet exports;
- TUM: ``rgb.txt``, ``depth.txt`` (16 bits, 5000 per metre), ``groundtruth.txt``, and optionally ``camera.yaml`` with
  fx, fy, cx, cy and depth_scale.

The world of such recordings is seldom z-up, which REP-103 asks for: it is turned so before it is played.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.startup import end_quietly

    end_quietly()

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from wm_bringup.sources.depth_unit_check import depth_unit_warning
from wm_bringup.sources.playback import DISCOVERY_S, Player, Progress, SourceError
from wm_core.camera import Camera
from wm_core.geometry import matrix_to_quaternion, pose_matrix
from wm_perception.registration import DepthToColor, estimate_depth_to_color, register_color
from wm_perception.types import Frame
from wm_ros import images, qos
from wm_ros.stamps import NANOSECONDS
from wm_ros.transforms import RosTransformBroadcaster, transform_to_msg

_MILLIMETRES_PER_METRE = 1000.0
_TUM_DEPTH_SCALE = 5000.0
_TUM_CAMERA = (525.0, 525.0, 319.5, 239.5)
_TUM_MAX_DIFFERENCE_S = 0.02
_SATURATED = 65535
_ORTHONORMAL_TOLERANCE = 0.02
_LEVEL_FRAMES = 12
_REGISTRATION_FRAMES = 12


@dataclass(frozen=True)
class RecordedFrame:
    """One frame on disk: files, time since the start of the recording [ns], pose (4, 4) of the optical frame."""

    color: Path
    depth: Path
    time_ns: int
    world_T_camera: NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """A checked folder.

    Attributes:
        frames: in order of time.
        camera: intrinsics of both images.
        depth_scale: depth units per metre.
        left_out: frames without a usable pose.
        registration: the colour camera, where colour is to be brought onto depth; None: images as they are.
    """

    folder: Path
    frames: tuple[RecordedFrame, ...]
    camera: Camera
    depth_scale: float
    left_out: int = 0
    registration: DepthToColor | None = None

    @property
    def duration_s(self) -> float:
        """From the first frame to the last [s]."""
        return (self.frames[-1].time_ns - self.frames[0].time_ns) / NANOSECONDS

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour (H, W, 3) uint8, red first, and depth (H, W) float32 [m], 0 = no measurement, of one frame.

        Raises:
            SourceError: a file does not decode or is not of the first frame's size.
        """
        frame = self.frames[index]
        color = cv2.imread(str(frame.color), cv2.IMREAD_COLOR)
        if color is None:
            raise SourceError(f"{frame.color}: does not decode, expected a jpeg or png image")
        depth = cv2.imread(str(frame.depth), cv2.IMREAD_UNCHANGED)
        if depth is None or depth.ndim != 2 or depth.dtype != np.uint16:
            found = "does not decode" if depth is None else f"is {depth.dtype} of shape {depth.shape}"
            raise SourceError(f"{frame.depth}: {found}, expected a 16-bit grey png")
        size = (self.camera.width, self.camera.height)
        for path, pixels in ((frame.color, color), (frame.depth, depth)):
            if pixels.shape[1::-1] != size:
                raise SourceError(f"{path}: {pixels.shape[1]}x{pixels.shape[0]}, expected {size[0]}x{size[1]}")
        metres = depth.astype(np.float32) / np.float32(self.depth_scale)
        metres[depth == _SATURATED] = 0.0
        rgb = np.ascontiguousarray(color[:, :, ::-1])
        if self.registration is not None:
            rgb = register_color(Frame(frame.time_ns, rgb, metres, self.camera, np.eye(4)), self.registration)
        return rgb, metres

    def frame(self, index: int) -> Frame:
        """One frame as perception takes it. Raises as ``load``."""
        color, depth = self.load(index)
        recorded = self.frames[index]
        return Frame(recorded.time_ns, color, depth, self.camera, recorded.world_T_camera)

    def registered(self) -> Recording:
        """The same recording with colour brought onto depth, if the images do not fit each other as they are.

        Recordings of a Kinect's raw streams, 7-Scenes among them, hold two unregistered images. A recording that shows
        too few depth edges to tell is left as it is.
        """
        chosen = np.unique(np.linspace(0, len(self.frames) - 1, _REGISTRATION_FRAMES).round().astype(int))
        try:
            found = estimate_depth_to_color([self.frame(int(i)) for i in chosen])
        except SourceError:
            raise
        except ValueError:
            return self
        return self if found.registered_already else replace(self, registration=found)

    def levelled(self) -> Recording:
        """The same recording in a world whose z points up, judged by the surfaces seen.

        Raises:
            SourceError: too little is seen to tell.
        """
        from wm_perception.gravity import estimate_up_direction

        chosen = np.unique(np.linspace(0, len(self.frames) - 1, _LEVEL_FRAMES).round().astype(int))
        try:
            level_T_world = estimate_up_direction([self.frame(int(i)) for i in chosen])
        except SourceError:
            raise
        except ValueError as error:
            raise SourceError(f"{self.folder}: {error}; play it as it is with --no-level") from error
        frames = tuple(replace(f, world_T_camera=level_T_world @ f.world_T_camera) for f in self.frames)
        return replace(self, frames=frames)


def _numbers(path: Path, count: int, what: str) -> NDArray[np.float64]:
    try:
        values = np.array(path.read_text().split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}, expected {what}") from error
    if len(values) != count:
        raise SourceError(f"{path}: {len(values)} numbers, expected {count} ({what})")
    return values


def _pose(path: Path) -> NDArray[np.float64] | None:
    """Camera to world; None where tracking was lost (ScanNet writes -inf)."""
    pose = _numbers(path, 16, "a 4x4 camera-to-world transform").reshape(4, 4)
    if not np.isfinite(pose).all():
        return None
    rotation = pose[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > _ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0.0 or not np.allclose(pose[3], [0, 0, 0, 1]):
        raise SourceError(f"{path}: not a rigid transform (rotation is off by {error:.3f}), expected camera to world")
    return pose_matrix(pose[:3, 3], matrix_to_quaternion(rotation))


def _size(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SourceError(f"{path}: does not decode, expected an image")
    return int(image.shape[1]), int(image.shape[0])


def _camera(folder: Path, size: tuple[int, int], default: tuple[float, ...] | None) -> tuple[Camera, float | None]:
    text, described = folder / "camera-intrinsics.txt", folder / "camera.yaml"
    scale = None
    if described.is_file():
        import yaml

        try:
            values = yaml.safe_load(described.read_text())
            fx, fy, cx, cy = (float(values[name]) for name in ("fx", "fy", "cx", "cy"))
            scale = float(values["depth_scale"]) if "depth_scale" in values else None
        except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            raise SourceError(f"{described}: {error!r}, expected fx, fy, cx, cy and optionally depth_scale") from error
        path = described
    elif text.is_file():
        matrix = _numbers(text, 9, "a 3x3 intrinsic matrix").reshape(3, 3)
        fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
        path = text
    elif default is not None:
        fx, fy, cx, cy = default
        path = folder
    else:
        raise SourceError(f"{text}: no such file, expected a 3x3 intrinsic matrix")
    if scale is not None and not scale > 0.0:
        raise SourceError(f"{described}: depth_scale {scale:g}, expected units per metre > 0")
    try:
        return Camera(*size, float(fx), float(fy), float(cx), float(cy)), scale
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error


def _open_numbered(folder: Path, rate_hz: float | None) -> Recording:
    colors: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"frame-(\d+)\.color\.(jpg|jpeg|png)", path.name)
        if match:
            colors[int(match[1])] = path
    frames, left_out = [], 0
    numbers = sorted(colors)
    for order, number in enumerate(numbers):
        stem = colors[number].name.split(".")[0]
        depth, pose = folder / f"{stem}.depth.png", folder / f"{stem}.pose.txt"
        for path in (depth, pose):
            if not path.is_file():
                raise SourceError(f"{path}: no such file, expected one beside {colors[number].name}")
        world_T_camera = _pose(pose)
        if world_T_camera is None:
            left_out += 1
            continue
        # Numbers count camera frames: a thinned recording keeps its pace.
        seconds = order / rate_hz if rate_hz else (number - numbers[0]) / 30.0
        frames.append(RecordedFrame(colors[number], depth, round(seconds * NANOSECONDS), world_T_camera))
    if not frames:
        raise SourceError(f"{folder}: {left_out} frames and none with a finite pose")
    camera, scale = _camera(folder, _size(frames[0].color), None)
    return Recording(folder, tuple(frames), camera, scale or _MILLIMETRES_PER_METRE, left_out)


def _table(path: Path, columns: int) -> list[list[str]]:
    if not path.is_file():
        raise SourceError(f"{path}: no such file, expected a TUM list")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            row = line.replace(",", " ").split()
            try:
                [float(v) for v in (row[:1] if columns == 2 else row)]
            except ValueError:
                row = []
            if len(row) != columns:
                raise SourceError(f"{path}:{number}: {line[:60]!r}, expected {columns} columns, time first")
            rows.append(row)
    if not rows:
        raise SourceError(f"{path}: no rows")
    return sorted(rows, key=lambda row: float(row[0]))


def _open_tum(folder: Path, rate_hz: float | None) -> Recording:
    colors, depths = _table(folder / "rgb.txt", 2), _table(folder / "depth.txt", 2)
    poses = np.array(_table(folder / "groundtruth.txt", 8), dtype=np.float64)
    depth_times = np.array([float(row[0]) for row in depths])
    frames: list[RecordedFrame] = []
    left_out, first_s = 0, None
    for stamp, name in colors:
        seconds = float(stamp)
        nearest = int(np.argmin(np.abs(depth_times - seconds)))
        pose = int(np.argmin(np.abs(poses[:, 0] - seconds)))
        apart = max(abs(depth_times[nearest] - seconds), abs(poses[pose, 0] - seconds))
        if apart > _TUM_MAX_DIFFERENCE_S or not np.isfinite(poses[pose]).all():
            left_out += 1
            continue
        color, depth = folder / name, folder / depths[nearest][1]
        for path in (color, depth):
            if not path.is_file():
                raise SourceError(f"{path}: no such file, though its list names it")
        first_s = seconds if first_s is None else first_s
        time_s = len(frames) / rate_hz if rate_hz else seconds - first_s
        world_T_camera = pose_matrix(poses[pose, 1:4], poses[pose, 4:8])
        frames.append(RecordedFrame(color, depth, round(time_s * NANOSECONDS), world_T_camera))
    if not frames:
        raise SourceError(f"{folder}: no colour image has depth and pose within {_TUM_MAX_DIFFERENCE_S:g} s")
    camera, scale = _camera(folder, _size(frames[0].color), _TUM_CAMERA)
    return Recording(folder, tuple(frames), camera, scale or _TUM_DEPTH_SCALE, left_out)


def open_folder(folder: str | Path, rate_hz: float | None = None) -> Recording:
    """Read and check a folder of RGB-D frames.

    ``rate_hz``: frames follow each other at this rate; None: the folder's own times (numbers in names at 30 Hz).

    Raises:
        SourceError: names the file and what is wrong with it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise SourceError(f"{path}: no such folder")
    if rate_hz is not None and not 0.1 <= rate_hz <= 1000.0:
        raise SourceError(f"rate: got {rate_hz:g} Hz, expected 0.1 to 1000 Hz")
    if (path / "rgb.txt").is_file():
        recording = _open_tum(path, rate_hz)
    elif any(path.glob("frame-*.color.*")):
        recording = _open_numbered(path, rate_hz)
    else:
        raise SourceError(f"{path}: expected frame-N.color.jpg, .depth.png and .pose.txt, or TUM's rgb.txt")
    recording.load(0)
    return recording


def play(recording: Recording, options: argparse.Namespace, ros_arguments: list[str]) -> None:
    """Publish a recording until its end, or for ever with ``options.loop``, or until a signal.

    Raises:
        SourceError: an image does not load.
    """
    with Player("rgbd_folder", ros_arguments, options.speed, options.clock) as player:
        node = player.node
        color_out = node.create_publisher(Image, options.color_topic, qos.SENSOR)
        depth_out = node.create_publisher(Image, options.depth_topic, qos.SENSOR)
        info_out = node.create_publisher(CameraInfo, options.camera_info_topic, qos.SENSOR)
        transforms = RosTransformBroadcaster(node)
        if options.wait > 0.0:
            print(f"waiting up to {options.wait:g} s for a subscriber of {options.color_topic}", file=sys.stderr)
            if player.wait_for(lambda: color_out.get_subscription_count() > 0, options.wait):
                player.sleep(DISCOVERY_S)
        start_ns = time.time_ns() if options.start_time is None else round(options.start_time * NANOSECONDS)
        step_ns = round(recording.duration_s * NANOSECONDS / max(len(recording.frames) - 1, 1)) or NANOSECONDS // 30
        progress = Progress(recording.folder.name, recording.duration_s)
        published = 0
        while not player.stopped:
            for index, recorded in enumerate(recording.frames):
                color, depth = recording.load(index)
                stamp_ns = start_ns + recorded.time_ns
                if not player.wait_until(stamp_ns):
                    break
                pose = transform_to_msg(options.world_frame, options.camera_frame, stamp_ns, recorded.world_T_camera)
                transforms.send(pose)
                info_out.publish(images.camera_to_info(recording.camera, stamp_ns, options.camera_frame))
                color_out.publish(images.rgb_to_image(color, stamp_ns, options.camera_frame))
                depth_out.publish(images.depth_to_image(depth, stamp_ns, options.camera_frame, "16UC1"))
                published += 1
                progress.show(recorded.time_ns / NANOSECONDS, f"frame {published}")
            if not options.loop:
                break
            # Time goes on over the seam: what was tracked stays tracked.
            start_ns += recording.frames[-1].time_ns - recording.frames[0].time_ns + step_ns
        player.sleep(0.3)  # the last frame is still under way in the middleware
        progress.show(recording.duration_s, f"{published} frames published", final=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m wm_bringup.sources.rgbd_folder",
        description="Plays a folder of RGB-D frames on the camera topics, with tf and /clock.",
        epilog="Further arguments go to ROS: --ros-args ...",
    )
    result.add_argument("folder", help="frame-N.color.jpg|png, .depth.png, .pose.txt and camera-intrinsics.txt; or TUM")
    result.add_argument("--rate", type=float, metavar="HZ", help="frames per second; default: the times recorded")
    result.add_argument("--speed", type=float, default=1.0, help="times as fast as recorded, 0.01 to 100; default 1")
    result.add_argument("--loop", action="store_true", help="start again at the end; stamps go on")
    result.add_argument("--wait", type=float, default=10.0, metavar="S", help="for a subscriber at most; default 10")
    result.add_argument("--start-time", type=float, metavar="S", help="stamp of the first frame; default: now")
    result.add_argument("--no-clock", dest="clock", action="store_false", help="do not publish /clock")
    result.add_argument("--no-level", dest="level", action="store_false", help="keep the world as it is, z-up or not")
    result.add_argument(
        "--no-register", dest="register", action="store_false", help="keep colour as it is, on the depth image or not"
    )
    result.add_argument(
        "--depth-scale", type=float, metavar="M", help="metres per unit of depth; default: as the layout has it"
    )
    result.add_argument("--world-frame", default="map", help="default map")
    result.add_argument("--camera-frame", default="camera_color_optical_frame", help="default %(default)s")
    result.add_argument("--color-topic", default="/camera/color/image_raw", help="default %(default)s")
    result.add_argument("--depth-topic", default="/camera/depth/image_raw", help="default %(default)s")
    result.add_argument("--camera-info-topic", default="/camera/color/camera_info", help="default %(default)s")
    result.add_argument("--check", action="store_true", help="read every file, say what is there, play nothing")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a folder; returns the exit status: 0 played or ended by a signal, 1 with one line on what is wrong."""
    options, ros_arguments = parser().parse_known_args(arguments)
    if ros_arguments and ros_arguments[0] != "--ros-args":
        parser().error(f"unknown argument {ros_arguments[0]}")
    try:
        recording = open_folder(options.folder, options.rate)
        if options.depth_scale is not None:
            if not 0.0 < options.depth_scale <= 1.0:
                raise SourceError(f"--depth-scale: got {options.depth_scale:g}, expected metres per unit, over 0 to 1")
            recording = replace(recording, depth_scale=1.0 / options.depth_scale)
        if options.check:
            for index in range(len(recording.frames)):
                recording.load(index)
        if options.register:
            recording = recording.registered()
        if options.level:
            recording = recording.levelled()
        camera = recording.camera
        left_out = f", {recording.left_out} left out for want of a pose" if recording.left_out else ""
        print(
            f"{recording.folder}: {len(recording.frames)} frames{left_out}, {recording.duration_s:.1f} s, "
            f"{camera.width}x{camera.height}, fx {camera.fx:g}",
            file=sys.stderr,
        )
        if recording.registration is not None:
            lens = recording.registration
            print(
                f"colour is not on the depth image; brought onto it (colour camera fx {lens.camera.fx:.0f}, "
                f"{1000.0 * lens.translation_m[0]:.0f} mm beside; edge agreement {lens.score_unregistered:.2f} -> "
                f"{lens.score:.2f})",
                file=sys.stderr,
            )
        if options.depth_scale is None:
            wrong = depth_unit_warning(recording.frame, len(recording.frames), 1.0 / recording.depth_scale)
            if wrong:
                print(f"warning: {recording.folder}: {wrong}", file=sys.stderr)
        if not options.check:
            play(recording, options, ros_arguments)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
