"""From a pair of image messages to color and depth in meters, of one pinhole camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from wm_core.health.depth_unit import DepthUnitWatch, depth_unit_finding
from wm_core.health.findings import Finding
from wm_core.health.inputs import check_distortion, check_intrinsics
from wm_perception.parameters import PerceptionParameters
from wm_perception.ros.bad_frames import BadFrameError
from wm_ros.health.diagnostics import Level
from wm_ros.images import camera_input
from wm_ros.images.camera_info import info_to_lens
from wm_ros.images.pixels import ImageError
from wm_ros.nodes.lifecycle import ManagedNode
from wm_ros.stamps import Pair


class FrameReader:
    """Decodes images, removes the lens's distortion, and determines the unit of depth.

    Attributes:
        unit_finding: what is wrong with the unit of depth; None: nothing.
    """

    def __init__(self, node: ManagedNode) -> None:
        self.unit_finding: Finding | None = None
        self._node = node
        self._input = camera_input.CameraInput("", "")
        self._depth_unit = DepthUnitWatch()

    def start(self, color_topic: str, depth_topic: str) -> None:
        """Begin with another camera; topics after remapping."""
        self._input = camera_input.CameraInput(color_topic, depth_topic)
        self._depth_unit, self.unit_finding = DepthUnitWatch(), None

    def read(self, pair: Pair, info: CameraInfo | None) -> camera_input.CameraImages:
        """The images of a pair.

        Raises:
            BadFrameError: they cannot be used.
        """
        p: PerceptionParameters = self._node.params
        self._depth_unit.begin(1e-9 * pair.stamp_ns, camera_input.unit_settings(p))
        if info is None:
            raise BadFrameError(
                "missing_camera_info",
                f"no camera info on {p.camera_info_topic} yet",
                "publish it, or remap the topic",
            )
        try:
            factor = self._depth_unit.factor if camera_input.applies_guess(p) else 1.0
            read = self._input.read(pair.color.msg, pair.depth.msg, info, p, factor)
        except camera_input.CameraInputError as error:
            raise BadFrameError(error.counter, error.detail, error.advice) from error
        lens = self._input.lens(info)
        text = f"{read.camera.width}x{read.camera.height}, fx {read.camera.fx:.1f}"
        if self._input.undistorts(lens, p.rectify, self._input.color_topic):
            text += f", distortion ({lens.model}) is removed"
        self._node.diagnostics.set_status("camera", Level.OK, text, frame=info.header.frame_id)
        measured = np.count_nonzero(read.depth_m) / read.depth_m.size
        if measured < p.min_depth_fraction:
            self._node.diagnostics.counter("empty_depth").add(
                1,
                f"depth on {p.depth_source} has measurements in {100.0 * measured:.1f} % of its pixels, "
                f"expected at least {100.0 * p.min_depth_fraction:g} %",
            )
        return read

    def check_depth_unit(
        self, read: camera_input.CameraImages, world_T_camera: NDArray[np.float64], stamp_ns: int
    ) -> None:
        """Update ``unit_finding``, or switch to the unit found where the parameters say so.

        Raises:
            BadFrameError: the unit is to be guessed and is not known yet, or was found with this frame.
        """
        p: PerceptionParameters = self._node.params
        unit = self._depth_unit
        if p.depth_scale_guess == "off":
            self.unit_finding = None
            return
        apply = camera_input.applies_guess(p)
        if unit.due(1e-9 * stamp_ns):
            guess = unit.look(read.depth_m, read.camera, world_T_camera, said=p.depth_scale > 0.0)
            finding = depth_unit_finding(p.depth_source, guess, read.depth_unit_m) if guess is not None else None
            self.unit_finding = finding
            if guess is not None and finding is not None:
                if apply and unit.take(guess):
                    self.unit_finding = None
                    text = (
                        f"{finding.found}; from now on read as {1000.0 * read.depth_unit_m * guess.factor:g} mm a unit"
                    )
                    self._node.get_logger().warning(f"{text}; {finding.run}")
                    raise BadFrameError("depth_unit", text, finding.run, resets=True)
                self._node.diagnostics.counter("depth_unit", advice=finding.run).add(1, finding.found)
        if apply and not unit.decided:
            raise BadFrameError("depth_unit_unknown", f"the unit of depth on {p.depth_source} is still looked at")

    def findings(self, info: CameraInfo | None) -> list[Finding]:
        """Impossible intrinsics, and distortion that is removed neither here nor before."""
        p: PerceptionParameters = self._node.params
        topic = p.camera_info_topic
        if info is None:
            return []
        try:
            lens = info_to_lens(info, topic)
        except ImageError:
            return []  # reported for each frame
        corrected = self._input.corrects(lens, p.rectify)
        findings = (
            check_intrinsics(topic, lens.raw),
            check_distortion(topic, lens.model, lens.coefficients, lens.raw, corrected),
        )
        return [f for f in findings if f is not None]
