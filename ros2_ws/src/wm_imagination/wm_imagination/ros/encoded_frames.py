"""Imagined frames as messages."""

from __future__ import annotations

from collections.abc import Sequence

from sensor_msgs.msg import CompressedImage

from wm_core.rollout import ImageRequest, Rollout
from wm_imagination.answering import Progress
from wm_ros.images.compressed import depth_to_compressed, rgb_to_compressed


class EncodedFrames:
    """The frames of one request, compressed as they are drawn, so that their pixels need not be kept.

    Args:
        wanted: the images that the request wants.
        start_ns: stamp of its first state [ns].
        frame_id: of the camera.
        jpeg_quality: 1..100.
    """

    def __init__(self, wanted: ImageRequest, start_ns: int, frame_id: str, jpeg_quality: int) -> None:
        self._wanted, self._start_ns, self._frame_id, self._quality = wanted, start_ns, frame_id, jpeg_quality
        self._color: dict[tuple[int, int], CompressedImage] = {}
        self._depth: dict[tuple[int, int], CompressedImage] = {}

    def stamp_ns(self, step: Progress) -> int:
        """Stamp of the frame of a step [ns]."""
        return self._start_ns + int(step.frame_time_s * 1e9)

    def add(self, step: Progress) -> CompressedImage | None:
        """Compress the frame of a step, where it has one; returns its color, where that is wanted."""
        if step.frame is None:
            return None
        stamp_ns, where = self.stamp_ns(step), (step.hypothesis, step.frame_index)
        if self._wanted.video:
            self._color[where] = rgb_to_compressed(step.frame.color, stamp_ns, self._frame_id, "jpeg", self._quality)
        if self._wanted.depth:
            self._depth[where] = depth_to_compressed(step.frame.depth_m, stamp_ns, self._frame_id, "png")
        return self._color.get(where)

    def of(self, rollout: Rollout) -> tuple[Sequence[CompressedImage], Sequence[CompressedImage]]:
        """Color and depth of all frames, hypothesis by hypothesis; an empty message where one was not drawn."""
        places = [(k, f) for k in range(len(rollout.hypotheses)) for f in range(len(rollout.frame_times))]
        nothing = CompressedImage()
        color = [self._color.get(place, nothing) for place in places] if self._wanted.video else ()
        depth = [self._depth.get(place, nothing) for place in places] if self._wanted.depth else ()
        return color, depth
