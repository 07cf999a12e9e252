"""Frames in, scene graphs out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_core.camera import Camera
from wm_core.scene_graph import EventKind
from wm_perception.lifting.cloud import make_cloud
from wm_perception.lifting.published_containers import PublishedContainers
from wm_perception.lifting.structure import Container, Structure, StructureMap
from wm_perception.lifting.supports import Support, SupportMap
from wm_perception.lifting.working_size import enlarged, reduced, reduction
from wm_perception.models.reasoner import make_reasoner
from wm_perception.models.segmenter import make_segmenter
from wm_perception.reasoning.reasoner import Reasoner
from wm_perception.scene_building import build_scene
from wm_perception.segmentation.geometric import candidate_pixels
from wm_perception.segmentation.structure_filter import without_structure
from wm_perception.tracking.observing import observe
from wm_perception.tracking.tracker import Tracker
from wm_perception.types import (
    Cloud,
    Frame,
    PerceptionConfig,
    PerceptionResult,
    RefiningSegmenter,
    Segmenter,
    TwoStageSegmenter,
)


@dataclass(frozen=True)
class BegunFrame:
    """What ``PerceptionPipeline.begin`` found.

    Attributes:
        frame: at the working size; full: intrinsics of the frame given; factor: its sides over those of ``frame``.
        since_last_s: time since the frame before [s], 0 for the first.
        cloud: of ``frame``, (h, w) at the pipeline's stride.
        height: (h, w) over the support below each pixel [m]; which: (h, w) index of that support in ``supports``, -1:
            none.
        supports: copies of those known at this frame; structure: walls and containers known at this frame; searched:
            whether new ones of either were searched for in it.
        inferred: output of the segmenter's network; None for a segmenter that is not a ``TwoStageSegmenter``.
        timings_s: durations so far [s], by name; warnings: sentences on the frame's faults.
    """

    frame: Frame
    full: Camera
    factor: int
    since_last_s: float
    cloud: Cloud
    height: NDArray[np.float32]
    which: NDArray[np.int32]
    supports: tuple[Support, ...]
    structure: Structure
    searched: bool
    inferred: Any
    timings_s: dict[str, float]
    warnings: tuple[str, ...]


class _Laps:
    """Seconds of each stage of a frame."""

    def __init__(self) -> None:
        self.timings_s: dict[str, float] = {}
        self._clock = time.perf_counter()

    def lap(self, name: str) -> None:
        """The stage of this name ends now."""
        now = time.perf_counter()
        self.timings_s[name] = now - self._clock
        self._clock = now


class PerceptionPipeline:
    """Segment, lift to 3D, track, relate: one call per frame, state kept between calls.

    ``process`` is ``begin``, ``finish`` and ``settle``. The next frame may be begun, in another thread, before this one
    is finished and settled: what they share is not changed by ``begin``. Frames are begun in order and finished in that
    order. The result of ``finish`` may be used before ``settle`` is called, which takes as long as the rest of the work
    in some frames; ``finish`` of the next frame calls it where nobody did.

    Args:
        config: see ``PerceptionConfig``.
        segmenter: finds instances; by default what the configuration names.
        reasoner: relates them over time; by default what the configuration names.

    Raises:
        ModelError: a model that the configuration names is absent or not what it should be.
    """

    def __init__(
        self,
        config: PerceptionConfig | None = None,
        segmenter: Segmenter | None = None,
        reasoner: Reasoner | None = None,
    ) -> None:
        self.config = config or PerceptionConfig()
        self.segmenter: Segmenter = segmenter or make_segmenter(self.config)
        self.reasoner = reasoner or make_reasoner(self.config)
        self._ids = itertools.count(1)
        # Depth images have a blind band at their rim, up to a dozen pixels wide.
        self._edge_pixels = max(2, 12 // self.config.stride)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the ids given: they are not used again."""
        self.supports = SupportMap(self.config, self._new_id)
        self.structure = StructureMap(self.config, self._new_id)
        self.tracker = Tracker(self.config, self._new_id)
        self._containers = PublishedContainers()
        self.reasoner.reset()
        self._last_stamp_ns: int | None = None

    def _new_id(self) -> int:
        return next(self._ids)

    def process(self, frame: Frame) -> PerceptionResult:
        """The scene graph at this frame.

        Raises:
            ValueError: the frame is not later than the previous one (call ``reset`` when time starts again).
        """
        result = self.finish(self.begin(frame))
        self.settle()
        return result

    def begin(self, frame: Frame) -> BegunFrame:
        """The first half of the work on a frame: its points, the supports, and the segmenter's network.

        Raises:
            ValueError: the frame is not later than the previous one (call ``reset`` when time starts again).
        """
        if self._last_stamp_ns is not None and frame.stamp_ns <= self._last_stamp_ns:
            raise ValueError(
                f"frame stamp: got {frame.stamp_ns} ns, expected later than {self._last_stamp_ns} ns (time went back)"
            )
        since_last_s = 0.0 if self._last_stamp_ns is None else (frame.stamp_ns - self._last_stamp_ns) * 1e-9
        self._last_stamp_ns = frame.stamp_ns
        warnings: list[str] = []
        laps = _Laps()
        full = frame.camera
        factor = reduction(full.width, self.config.working_width)
        frame = reduced(frame, factor)
        laps.lap("size")
        cloud = make_cloud(frame, self.config.stride, self.config.max_depth_m)
        known = float(np.isfinite(cloud.depth).mean())
        if known < 0.02:
            measured = 100.0 * float((frame.depth_m > 0.0).mean())
            warnings.append(
                f"depth image: {100.0 * known:.1f} % of the pixels have depth within max_depth_m "
                f"{self.config.max_depth_m:g} m ({measured:.1f} % have any), expected most of them"
            )
        laps.lap("cloud")
        self.supports.update(cloud, frame.stamp_ns)
        height, which = self.supports.heights(cloud)
        supports, searched = self.supports.snapshot(), self.supports.searched
        laps.lap("supports")
        self.structure.update(cloud, height, which, supports, frame.stamp_ns, busy=searched)
        structure, searched = self.structure.snapshot(), searched or self.structure.searched
        laps.lap("structure")
        inferred = None
        if isinstance(self.segmenter, TwoStageSegmenter):
            inferred = self.segmenter.infer(frame, cloud, height)
            laps.lap("network")
        return BegunFrame(
            frame,
            full,
            factor,
            since_last_s,
            cloud,
            height,
            which,
            supports,
            structure,
            searched,
            inferred,
            laps.timings_s,
            tuple(warnings),
        )

    def finish(self, begun: BegunFrame) -> PerceptionResult:
        """The second half: instances, tracks, relations, the scene graph at the frame that was begun."""
        frame, cloud, height = begun.frame, begun.cloud, begun.height
        self.settle()
        laps = _Laps()
        self.tracker.predict(frame.stamp_ns, begun.since_last_s)
        # They take a tenth of a millisecond each.
        uses_tracks = getattr(self.segmenter, "uses_tracks", True)
        predicted = self.tracker.predicted(begun.since_last_s) if uses_tracks else []
        candidates = candidate_pixels(cloud, height, self.config.min_height_m, self.config.max_height_m)
        if isinstance(self.segmenter, TwoStageSegmenter):
            segmentation = self.segmenter.decode(begun.inferred, cloud, candidates, height, predicted)
        else:
            segmentation = self.segmenter.segment(frame, cloud, candidates, height, predicted)
        segmentation = self.tracker.join(segmentation, cloud)
        if isinstance(self.segmenter, RefiningSegmenter):
            segmentation = self.segmenter.refine(segmentation, cloud)
        segmentation, whole = without_structure(segmentation, cloud, height, begun.structure, self.config.max_extent_m)
        laps.lap("segment")
        observations = observe(cloud, height, begun.which, begun.supports, segmentation, candidates, self._edge_pixels)
        assigned = self.tracker.update(cloud, segmentation, observations, begun.since_last_s, hurried=begun.searched)
        laps.lap("track")
        # A container that is one instance is an object of its own until it is a track that is published.
        tracked = [k for k, label in whole.items() if self._id_of(assigned[label - 1])]
        containers = self._containers.update(begun.structure, tracked)
        for kind, ids in ((EventKind.ENTER, self._containers.entered), (EventKind.LEAVE, self._containers.left)):
            for object_id in ids:
                self.tracker.report(kind, object_id)
        scene = build_scene(frame, begun.supports, self.tracker, self.config.world_frame, containers)
        scene = self.reasoner.update(scene, self.tracker.events)
        laps.lap("relations")
        sides = partial(self._with_sides, cloud=cloud, candidates=candidates, containers=containers)
        ids = partial(
            self._ids_of_pixels,
            segmentation.labels,
            self._table(assigned),
            sides if containers else None,
            begun.factor * self.config.stride,
            begun.full,
        )
        return PerceptionResult(scene, ids, {**begun.timings_s, **laps.timings_s}, begun.warnings, segmentation)

    def settle(self) -> None:
        """What is left to do after ``finish``, for the frames to come: fits of shapes. Nothing the second time."""
        self.tracker.fit_shapes()

    def _id_of(self, row: int) -> int:
        """Id of a track by its index, 0: not published, or none."""
        return self.tracker.tracks[row].id if row >= 0 else 0

    def _table(self, assigned: NDArray[np.int64]) -> NDArray[np.uint16]:
        """(L + 1,) ids of the tracks of labels 0..L, 0: none."""
        return np.array([0, *(self._id_of(row) for row in assigned)], np.uint16)

    @staticmethod
    def _ids_of_pixels(
        labels: NDArray[np.int32],
        table: NDArray[np.uint16],
        sides: Callable[[NDArray[np.uint16]], NDArray[np.uint16]] | None,
        factor: int,
        full: Camera,
    ) -> NDArray[np.uint16]:
        """``PerceptionResult.instance_ids``; ``sides`` adds those of containers."""
        instances = table[labels]
        return enlarged(instances if sides is None else sides(instances), factor, full.height, full.width)

    @staticmethod
    def _with_sides(
        instances: NDArray[np.uint16],
        cloud: Cloud,
        candidates: NDArray[np.bool_],
        containers: tuple[Container, ...],
    ) -> NDArray[np.uint16]:
        """The ids with those of containers, where nothing else is."""
        pixels = np.flatnonzero(candidates & (instances == 0))
        structure = Structure(containers=containers)
        which = structure.on_sides(cloud.points.reshape(-1, 3)[pixels], cloud.depth.ravel()[pixels])
        ids = np.array([0, *(c.id for c in containers)], np.uint16)
        instances.ravel()[pixels] = ids[which + 1]
        return instances
