"""Checks the last frames of each stream for ``wm doctor``.

It checks encodings, sizes, calibration, depth, the camera's pose, gravity, and the objects that perception finds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wm_bringup.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from wm_bringup.doctor.seen import Seen
from wm_core.frames import prefixed
from wm_core.health import findings as core
from wm_core.health.depth import find_surfaces, level_share, summarize_depth
from wm_core.health.depth_unit import DepthUnitGuess, agreed_guess, depth_unit_finding, guess_depth_unit
from wm_core.health.inputs import check_distortion, check_intrinsics, check_registration, distortion_shift_px
from wm_perception.inspection import inspect_frame
from wm_perception.types import Frame

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo

    from wm_perception.parameters import PerceptionParameters
    from wm_ros.transforms import RosTransforms

_LEVELS = {core.Severity.OK: OK, core.Severity.WARN: WARNING, core.Severity.ERROR: ERROR}
FRAMES = 8
"""Number of frames of each camera stream that are checked. Perception gives an object an id after four frames; more
frames cost time in proportion."""
_UNIT_FRAMES = 3
"""Number of frames that have to agree on the unit of depth, as in perception."""


def _stamp_ns(msg: Any) -> int:
    return int(msg.header.stamp.sec) * 1_000_000_000 + int(msg.header.stamp.nanosec)


def of_core(section: str, finding: core.Finding) -> Finding:
    """A finding of the nodes' checks as a finding of the doctor."""
    found = f"{finding.found}; expected {finding.expected}" if finding.expected else finding.found
    return Finding(section, finding.cause, _LEVELS[finding.severity], found, finding.run)


class Listener(Protocol):
    """The received messages of a graph, as ``wm_bringup.doctor.graph.GraphListener`` has them.

    Attributes:
        parameters: perception's parameters.
        kept: the last messages of each stream, serialized (CDR), oldest first, by the stream's name.
        transforms: the transforms received on /tf and /tf_static.
    """

    parameters: PerceptionParameters
    kept: dict[str, deque[bytes]]
    transforms: RosTransforms


class FrameLook:
    """Decodes and checks the last messages of a listener."""

    def __init__(self, listener: Listener) -> None:
        from wm_ros.images.camera_input import CameraInput

        self._kept, self._parameters, self._transforms = listener.kept, listener.parameters, listener.transforms
        self._input = CameraInput(self._parameters.color_source, self._parameters.depth_source)

    def _messages(self, name: str, kind: type) -> list[Any]:
        from rclpy.serialization import deserialize_message

        return [deserialize_message(data, kind) for data in self._kept[name]]

    def findings(self, seen: Seen) -> list[Finding]:
        """Findings on the last frames; ``seen`` gets the images, the last frame and perception's result."""
        from wm_ros.images.camera_input import CameraInputError

        p = self._parameters
        result: list[Finding] = []
        color = self._last_image("color", result)
        depth = self._last_image("depth", result)
        info = self._camera_info(result)
        seen.color, seen.depth_m = (None if last is None else last[1] for last in (color, depth))
        if depth is not None:
            summary = summarize_depth(depth[1], p.pipeline.max_depth_m)
            text = (
                f"{100.0 * summary.measured:.0f} % of its pixels measured, median {summary.median_m:.2f} m "
                f"(5 to 95 %: {summary.p05_m:.2f} to {summary.p95_m:.2f} m), {100.0 * summary.beyond:.0f} % of these "
                f"beyond max_depth_m {p.pipeline.max_depth_m:g}"
            )
            values = {"measured": summary.measured, "median_m": summary.median_m, "beyond": summary.beyond}
            result.append(Finding("frames", "depth values", OK, text, values=values))
        if color is None or depth is None or info is None:
            return result
        try:
            read = self._input.read(color[0], depth[0], info, p)
        except CameraInputError as error:
            return [*result, Finding("frames", error.counter, ERROR, error.detail, error.advice)]
        seen.color, seen.depth_m = read.color, read.depth_m
        pairs = self._pairs()
        if not pairs:
            return [*result, Finding("frames", "pairs", NOTE, "no color and depth image make a pair; not looked at")]
        color_frame, depth_frame = (msg.header.frame_id for msg in pairs[-1])
        wrong = check_registration(p.color_source, color_frame, p.depth_source, depth_frame)
        result += [of_core("frames", wrong)] if wrong is not None else []
        frame_id = prefixed(p.frame_prefix, p.camera_frame) or color_frame
        poses: list[NDArray[np.float64]] = []
        for color_msg, _ in pairs[-FRAMES:]:
            try:
                poses.append(self._pose(frame_id, _stamp_ns(color_msg)))
            except ValueError as error:
                advice = f"publish tf from {p.world} to {frame_id}, or name other frames (--world-frame)"
                return [*result, Finding("frames", "camera pose", ERROR, str(error), advice)]
        try:
            frames, unit = self._frames(pairs[-FRAMES:], poses, info, result)
        except CameraInputError as error:
            return [*result, Finding("frames", error.counter, ERROR, error.detail, error.advice)]
        return result + self._pose_findings(frames[-1], frame_id) + self._perceive(frames, frame_id, seen, unit)

    def _frames(
        self,
        pairs: Sequence[tuple[Any, Any]],
        poses: Sequence[NDArray[np.float64]],
        info: CameraInfo,
        result: list[Finding],
    ) -> tuple[list[Frame], core.Finding | None]:
        """The pairs as frames that perception would process, and a finding where the unit of depth appears wrong.

        Args:
            pairs: color and depth messages.
            poses: (4, 4) world_T_camera [m] of each pair.
            info: intrinsics of the color images.
            result: gets a note where another unit is applied.

        Raises:
            CameraInputError: perception cannot use a pair.
        """
        from wm_ros.images.camera_input import applies_guess

        p = self._parameters

        def read(factor: float) -> tuple[list[Frame], float]:
            taken, unit_m = [], 0.0
            for (color, depth), pose in zip(pairs, poses, strict=True):
                one = self._input.read(color, depth, info, p, factor)
                taken.append(Frame(_stamp_ns(color), one.color, one.depth_m, one.camera, pose))
                unit_m = one.depth_unit_m
            return taken, unit_m

        frames, unit_m = read(1.0)
        guess = self._unit_guess(frames) if p.depth_scale_guess != "off" else None
        finding = depth_unit_finding(p.depth_source, guess, unit_m) if guess is not None else None
        if guess is None or finding is None or guess.others or not applies_guess(p):
            return frames, finding
        frames, now_m = read(guess.factor)
        text = f"{finding.found}; read as {1000.0 * now_m:g} mm a unit (depth_scale_guess apply)"
        result.append(Finding("frames", "depth unit", NOTE, text, finding.run))
        return frames, None

    def _unit_guess(self, frames: Sequence[Frame]) -> DepthUnitGuess | None:
        said = self._parameters.depth_scale > 0.0
        last = frames[-_UNIT_FRAMES:]
        return agreed_guess([guess_depth_unit(f.depth_m, f.camera, f.world_T_camera, said) for f in last])

    def _last_image(self, name: str, result: list[Finding]) -> tuple[Any, Any] | None:
        """The last message of color or depth, and its pixels as the nodes decode them; None: no valid message."""
        from sensor_msgs.msg import CompressedImage, Image

        from wm_ros.images.camera_input import CameraInputError

        p = self._parameters
        if not self._kept[name]:
            return None
        raw = (p.color_transport if name == "color" else p.depth_transport) == "raw"
        msg = self._messages(name, Image if raw else CompressedImage)[-1]
        try:
            pixels = self._input.color(msg, p) if name == "color" else self._input.depth(msg, p)[0]
        except CameraInputError as error:
            result.append(Finding("frames", f"{name} image", ERROR, error.detail, error.advice))
            return None
        form = msg.encoding if raw else msg.format
        found = f"{pixels.shape[1]}x{pixels.shape[0]} {form}, frame {msg.header.frame_id!r}"
        values = {"width": pixels.shape[1], "height": pixels.shape[0], "encoding": form, "frame": msg.header.frame_id}
        result.append(Finding("frames", f"{name} image", OK, found, values=values))
        return msg, pixels

    def _camera_info(self, result: list[Finding]) -> CameraInfo | None:
        """The last camera info, where it is valid; ``result`` gets the findings on it."""
        from sensor_msgs.msg import CameraInfo

        from wm_ros.images.pixels import ImageError

        if not self._kept["camera_info"]:
            return None
        msg = self._messages("camera_info", CameraInfo)[-1]
        p = self._parameters
        topic = p.camera_info_topic
        try:
            lens = self._input.lens(msg, topic)
        except ImageError as error:
            result.append(Finding("frames", "intrinsics", ERROR, str(error), "calibrate the camera"))
            return None
        camera, corrected = lens.raw, self._input.corrects(lens, p.rectify)
        for wrong in (
            check_intrinsics(topic, camera),
            check_distortion(topic, lens.model, lens.coefficients, camera, corrected),
        ):
            result += [of_core("frames", wrong)] if wrong is not None else []
        degrees = np.degrees(2.0 * np.arctan(0.5 * camera.width / camera.fx))
        shift = distortion_shift_px(lens.model, lens.coefficients, camera)
        found = (
            f"{camera.width}x{camera.height}, fx {camera.fx:.1f}, fy {camera.fy:.1f}, cx {camera.cx:.1f}, "
            f"cy {camera.cy:.1f} ({degrees:.0f} degrees wide), distortion moves pixels by up to {shift:.1f} px"
            f"{', and is removed' if self._input.undistorts(lens, p.rectify, p.color_source) and lens.distorts else ''}"
        )
        values = {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy, "distortion_px": shift}
        result.append(Finding("frames", "intrinsics", OK, found, values=values))
        return msg

    def _pairs(self) -> list[tuple[Any, Any]]:
        from sensor_msgs.msg import CompressedImage, Image

        p = self._parameters
        colors = self._messages("color", Image if p.color_transport == "raw" else CompressedImage)
        depths = self._messages("depth", Image if p.depth_transport == "raw" else CompressedImage)
        limit_ns = p.max_stamp_difference_s * 1e9
        pairs = []
        last_ns = -1
        for msg in colors:
            nearest = min(depths, key=lambda d: abs(_stamp_ns(d) - _stamp_ns(msg)), default=None)
            if nearest is None or abs(_stamp_ns(nearest) - _stamp_ns(msg)) > limit_ns or _stamp_ns(msg) <= last_ns:
                continue
            last_ns = _stamp_ns(msg)
            pairs.append((msg, nearest))
        return pairs

    def _pose(self, frame_id: str, stamp_ns: int) -> NDArray[np.float64]:
        from wm_core.geometry import pose_matrix
        from wm_ros.transforms import LATEST, TooNewError, TooOldError, TransformError

        p = self._parameters
        if p.pose_source == "fixed":
            return pose_matrix(p.fixed_pose[:3], p.fixed_pose[3:])
        if not frame_id:
            raise ValueError(f"images on {p.color_source} have no frame_id")
        target, world_T_base = p.world, np.eye(4)
        try:
            if p.pose_source == "odometry":
                world_T_base, target = self._odometry()
                if not p.odometry_camera_from_tf:
                    return world_T_base @ pose_matrix(p.odometry_camera_pose[:3], p.odometry_camera_pose[3:])
            try:
                base_T_camera = self._transforms.wait(target, frame_id, stamp_ns, 0.0)
            except (TooNewError, TooOldError):
                # The newest transform suffices for this check; other findings report stamps that do not fit.
                base_T_camera = self._transforms.wait(target, frame_id, LATEST, 0.0)
        except TransformError as error:
            raise ValueError(str(error)) from error
        return world_T_base @ base_T_camera

    def _odometry(self) -> tuple[NDArray[np.float64], str]:
        from nav_msgs.msg import Odometry

        from wm_core.geometry import pose_matrix

        p = self._parameters
        if not self._kept["odometry"]:
            raise ValueError(f"nothing came on {p.odometry_topic}")
        msg = self._messages("odometry", Odometry)[-1]
        frame = msg.header.frame_id.lstrip("/")
        if frame != p.world:
            raise ValueError(f"odometry on {p.odometry_topic} is in frame {frame!r}, expected {p.world!r}")
        at, turn = msg.pose.pose.position, msg.pose.pose.orientation
        return pose_matrix([at.x, at.y, at.z], [turn.x, turn.y, turn.z, turn.w]), msg.child_frame_id

    def _pose_findings(self, frame: Frame, frame_id: str) -> list[Finding]:
        p, pose = self._parameters, frame.world_T_camera
        surfaces = find_surfaces(frame.depth_m, frame.camera)
        share = level_share(surfaces.normals, pose[:3, :3]) if len(surfaces.normals) else 0.0
        elevation = float(np.degrees(np.arcsin(np.clip(pose[2, 2], -1.0, 1.0))))
        x, y, z = pose[:3, 3]
        found = (
            f"{frame_id} in {p.world} at ({x:.2f}, {y:.2f}, {z:.2f}) m, looks {abs(elevation):.0f} degrees "
            f"{'up' if elevation > 0 else 'down'} (from {p.pose_source}); {100.0 * share:.0f} % of the view is level"
        )
        values = {"position_m": [float(v) for v in (x, y, z)], "elevation_degrees": elevation, "level_share": share}
        return [Finding("frames", "camera pose", OK, found, values=values)]

    def _perceive(self, frames: Sequence[Frame], frame_id: str, seen: Seen, unit: core.Finding | None) -> list[Finding]:
        """Run perception's pipeline on the frames, and check the last frame with its scene."""
        from wm_perception.pipeline import PerceptionPipeline

        p = self._parameters
        seen.frame = frames[-1]
        try:
            pipeline = PerceptionPipeline(replace(p.pipeline, world_frame=p.world))
            for frame in frames:
                seen.result = pipeline.process(frame)
        except (ValueError, OSError, RuntimeError) as error:
            return [Finding("frames", "perception", ERROR, f"refuses: {error}", "see the models above")]
        assert seen.result is not None
        scene = seen.result.scene
        wrong = inspect_frame(
            frames[-1],
            scene if len(frames) > 2 else None,
            p.depth_source,
            frame_id,
            p.world,
            p.pipeline,
            p.min_depth_fraction,
            unit,
        )
        supports = int(np.count_nonzero(scene.is_static))
        values = {"supports": supports, "objects": len(scene) - supports, "frames": len(frames)}
        found = f"{supports} supports and {len(scene) - supports} objects after {len(frames)} frames"
        return [*(of_core("frames", f) for f in wrong), Finding("frames", "perceived", OK, found, values=values)]
