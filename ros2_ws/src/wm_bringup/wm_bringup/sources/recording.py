"""A checked folder of RGB-D frames: it loads the files and makes them the frames that perception processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_bringup.sources.playback import SourceError
from wm_core.camera import Camera
from wm_perception.lifting.gravity import find_up
from wm_perception.lifting.registration import DepthToColor, estimate_depth_to_color, register_images
from wm_perception.types import Frame
from wm_ros.stamps import NANOSECONDS

MODES = ("auto", "on", "off")
"""Values of the options --register and --level."""
_SATURATED = 65535
"""Depth value of a 16-bit image that means no measurement (7-Scenes), like 0."""
_LEVEL_FRAMES = 12
"""Number of frames, evenly spread over the recording, that are searched for level surfaces. More frames cost time in
proportion and make it likelier that one of them shows a support."""
_REGISTRATION_FRAMES = 12
"""Number of frames, evenly spread, that the color camera is estimated from. More frames cost time in proportion and
give more different views."""
_LEVEL_ALREADY_DEG = 1.0
"""Tilt of the poses [degrees] below which the world counts as level. A larger value leaves more tilt uncorrected."""


@dataclass(frozen=True)
class RecordedFrame:
    """One frame on disk.

    Attributes:
        color, depth: the image files.
        time_ns: time since the start of the recording [ns].
        world_T_camera: (4, 4) pose of the optical frame in the recording's world [m].
        camera: intrinsics of this frame; None: those of the recording.
        depth_scale: depth units per meter of this frame; None: that of the recording.
    """

    color: Path
    depth: Path
    time_ns: int
    world_T_camera: NDArray[np.float64]
    camera: Camera | None = None
    depth_scale: float | None = None


@dataclass(frozen=True)
class Recording:
    """A checked folder of RGB-D frames.

    Attributes:
        folder: the folder.
        frames: the frames, ordered by time.
        camera: intrinsics of the depth images, and of the color images that ``load`` returns.
        depth_scale: depth units per meter.
        layout: name of the folder's layout, for people.
        left_out: number of frames without a usable pose or depth image.
        has_poses: False: the folder has no poses, and the camera is assumed not to move.
        registration: pose and intrinsics of the color camera, with which ``load`` maps color to the depth image; None:
            the images are aligned already.
        color_is_larger: the color image shows the view of the depth image at a larger size; ``load`` scales it down.
        notes: what was assumed or changed, a sentence each, for people.
    """

    folder: Path
    frames: tuple[RecordedFrame, ...]
    camera: Camera
    depth_scale: float
    layout: str = ""
    left_out: int = 0
    has_poses: bool = True
    registration: DepthToColor | None = None
    color_is_larger: bool = False
    notes: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Time from the first frame to the last [s]."""
        return (self.frames[-1].time_ns - self.frames[0].time_ns) / NANOSECONDS

    def camera_of(self, index: int) -> Camera:
        """Intrinsics of the frame of an index."""
        return self.frames[index].camera or self.camera

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Color (H, W, 3) uint8, RGB, and depth (H, W) float32 [m], 0: no measurement, of the frame of an index.

        Raises:
            SourceError: a file cannot be decoded or does not have the expected size.
        """
        frame, camera = self.frames[index], self.camera_of(index)
        color = cv2.imread(str(frame.color), cv2.IMREAD_COLOR)
        if color is None:
            raise SourceError(f"{frame.color}: does not decode, expected a jpeg or png image")
        depth = cv2.imread(str(frame.depth), cv2.IMREAD_UNCHANGED)
        if depth is None or depth.ndim != 2 or depth.dtype != np.uint16:
            found = "does not decode" if depth is None else f"is {depth.dtype} of shape {depth.shape}"
            raise SourceError(f"{frame.depth}: {found}, expected a 16-bit gray png")
        size = (camera.width, camera.height)
        color_size = size
        if self.registration is not None:
            color_size = (self.registration.camera.width, self.registration.camera.height)
        if self.color_is_larger:
            color_size = color.shape[1::-1]
            if abs(color_size[0] * size[1] - color_size[1] * size[0]) > max(color_size):
                color_size = size
        for path, pixels, expected in ((frame.color, color, color_size), (frame.depth, depth, size)):
            if pixels.shape[1::-1] != expected:
                found = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise SourceError(f"{path}: {found}, expected {expected[0]}x{expected[1]}")
        meters = depth.astype(np.float32) / np.float32(frame.depth_scale or self.depth_scale)
        meters[depth == _SATURATED] = 0.0
        rgb = np.ascontiguousarray(color[:, :, ::-1])
        if self.registration is not None:
            rgb = register_images(rgb, meters, camera, self.registration)
        elif color_size != size:
            rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return rgb, meters

    def frame(self, index: int) -> Frame:
        """The frame of an index as perception processes it; raises as ``load``."""
        color, depth = self.load(index)
        recorded = self.frames[index]
        return Frame(recorded.time_ns, color, depth, self.camera_of(index), recorded.world_T_camera)

    def with_depth_unit(self, unit_m: float) -> Recording:
        """The same recording with its depth read as ``unit_m`` meters per unit, in place of the layout's unit."""
        frames = tuple(replace(f, depth_scale=None) for f in self.frames)
        return replace(self, frames=frames, depth_scale=1.0 / unit_m)

    def registered(self, mode: str = "auto") -> Recording:
        """The same recording with color mapped to the depth image, where the two are not aligned.

        Recordings of a Kinect's raw streams, e.g. 7-Scenes, have color and depth images of two cameras that are not
        registered. Where the folder has the calibration of both cameras, that is used. Otherwise the color camera is
        estimated from image edges. The estimate counts where the frames show enough different views, the edges agree
        clearly better with it, and its camera is at a plausible place beside the depth camera.

        Args:
            mode: ``auto``: use an estimate that counts, else leave the images unchanged; ``on``: fail where the
                estimate does not count; ``off``: leave the images unchanged.

        Raises:
            SourceError: ``mode`` is ``on`` and the estimate does not count, or an image cannot be loaded.
        """
        check_mode("--register", mode)
        if mode == "off" or self.registration is not None or self.color_is_larger:
            return self
        try:
            found = estimate_depth_to_color([self.frame(i) for i in self._spread(_REGISTRATION_FRAMES)])
            why_not = found.refusal
        except SourceError:
            raise
        except ValueError as error:
            found, why_not = None, str(error)
        if found is None or why_not:
            if mode == "on":
                raise SourceError(f"{self.folder}: color cannot be brought onto depth: {why_not}; --register off")
            return self
        lens = found.camera
        note = (
            f"color is not on the depth image; brought onto it (depth fx {self.camera.fx:.0f}, color fx "
            f"{lens.fx:.0f}, {1000.0 * np.linalg.norm(found.translation_m):.0f} mm beside; "
            f"edges of {found.views} views agree {found.gain:.1f} times as well); --register off leaves it"
        )
        return replace(self, registration=found, notes=(*self.notes, note))

    def leveled(self, mode: str = "auto") -> Recording:
        """The same recording in a world whose z axis points up.

        The up direction is the normal of the largest support that the frames show.

        Args:
            mode: ``auto``: rotate the world where the folder has no poses, or where z up would mean a camera that is
                upside down or on its side (7-Scenes, whose world is the frame of its first camera); ``on``: rotate it
                always; ``off``: never.

        Raises:
            SourceError: the frames show no surface that gives the up direction.
        """
        check_mode("--level", mode)
        if mode == "off":
            return self
        try:
            up = find_up([self.frame(i) for i in self._spread(_LEVEL_FRAMES)])
        except SourceError:
            raise
        except ValueError as error:
            if mode == "auto" and self.has_poses:
                return replace(self, notes=(*self.notes, f"the poses are taken as they are ({error})"))
            raise SourceError(f"{self.folder}: {error}; play it as it is with --level off") from error
        share = f"{100.0 * up.share:.0f} % of what is seen"
        if mode == "auto" and self.has_poses and up.given_is_plausible:
            if up.share_given > 0.5 * up.share or up.turned_deg < _LEVEL_ALREADY_DEG:
                return self
            note = (
                f"the poses are taken as they are, though the largest surface that may be level ({share}) is "
                f"{up.turned_deg:.0f} degrees off their z axis; --level on turns the world by that"
            )
            return replace(self, notes=(*self.notes, note))
        if self.has_poses:
            asked = "" if mode == "on" else ", for with their z up the camera would be upside down or on its side"
            note = (
                f"the world of the poses is turned by {up.turned_deg:.0f} degrees{asked}; z is up where {share} faces"
            )
            note += "; --level off leaves it"
        else:
            note = f"no poses: gravity is taken from the largest support that is seen ({share})"
        frames = tuple(replace(f, world_T_camera=up.level_T_world @ f.world_T_camera) for f in self.frames)
        return replace(self, frames=frames, notes=(*self.notes, note))

    def _spread(self, count: int) -> list[int]:
        """Indices of up to ``count`` frames, evenly spread over the recording; only 0 where all frames are the same."""
        if len({f.depth for f in self.frames}) == 1:
            return [0]
        chosen = np.unique(np.linspace(0, len(self.frames) - 1, count).round().astype(int))
        return [int(i) for i in chosen]


def check_mode(option: str, mode: str) -> None:
    """Check that the value of an option is one of ``MODES``.

    Raises:
        SourceError: it is not; the message names the option.
    """
    if mode not in MODES:
        raise SourceError(f"{option}: got {mode!r}, expected one of {', '.join(MODES)}")
