"""Frames in, scene graphs out."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wm_core.camera import Camera
from wm_core.scene_graph import SceneGraph, Shape
from wm_perception.lifting.cloud import depth_noise_m, make_cloud
from wm_perception.lifting.supports import Support, SupportMap
from wm_perception.lifting.working_size import enlarged, reduced, reduction
from wm_perception.models.reasoner import make_reasoner
from wm_perception.models.segmenter import make_segmenter
from wm_perception.reasoning.reasoner import Reasoner
from wm_perception.segmentation.geometric import candidate_pixels
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.tracker import Tracker
from wm_perception.types import (
    Array,
    Cloud,
    Frame,
    PerceptionConfig,
    PerceptionResult,
    Segmentation,
    Segmenter,
    TwoStageSegmenter,
)

__all__ = ["Frame", "PerceptionConfig", "PerceptionPipeline", "PerceptionResult"]

_SUPPORT_THICKNESS_M = 0.04
_MAX_POINTS = 500
_CLEAR_SHARE = 0.4
_MIXED_PIXEL_NOISE_M = 0.0025
_STEP_M = 0.03
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (5, 5))
_SQUARE = np.ones((5, 5), np.uint8)


@dataclass(frozen=True)
class BegunFrame:
    """What ``PerceptionPipeline.begin`` found.

    Attributes:
        frame: at the working size; full: intrinsics of the frame given; factor: between the two.
        since_last_s: to the frame before, 0 for the first.
        cloud: of ``frame``, (h, w) at the pipeline's stride.
        height, which: (h, w) over the support below each pixel [m], and that support's index; see ``SupportMap``.
        supports: as they were in this frame; searched: whether it was looked for new ones.
        inferred: what the segmenter's network gave; None where the segmenter has none that runs ahead of tracking.
        timings_s: seconds per stage so far; warnings: what was odd about the frame.
    """

    frame: Frame
    full: Camera
    factor: int
    since_last_s: float
    cloud: Cloud
    height: NDArray[np.float32]
    which: NDArray[np.int32]
    supports: tuple[Support, ...]
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

    ``process`` is ``begin`` and then ``finish``. The next frame may be begun, in another thread, before this one is
    finished: what they share is not changed by ``begin``. Frames are begun in order and finished in that order.

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
        self.tracker = Tracker(self.config, self._new_id)
        self.reasoner.reset()
        self._last_stamp_ns: int | None = None

    def _new_id(self) -> int:
        return next(self._ids)

    def process(self, frame: Frame) -> PerceptionResult:
        """The scene graph at this frame.

        Raises:
            ValueError: the frame is not later than the previous one (call ``reset`` when time starts again).
        """
        return self.finish(self.begin(frame))

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
            searched,
            inferred,
            laps.timings_s,
            tuple(warnings),
        )

    def finish(self, begun: BegunFrame) -> PerceptionResult:
        """The second half: instances, tracks, relations, the scene graph at the frame that was begun."""
        frame, cloud, height = begun.frame, begun.cloud, begun.height
        laps = _Laps()
        predicted = self.tracker.predict(frame.stamp_ns, begun.since_last_s)
        candidates = candidate_pixels(cloud, height, self.config.min_height_m, self.config.max_height_m)
        if isinstance(self.segmenter, TwoStageSegmenter):
            segmentation = self.segmenter.decode(begun.inferred, cloud, candidates, height, predicted)
        else:
            segmentation = self.segmenter.segment(frame, cloud, candidates, height, predicted)
        laps.lap("segment")
        observations = self._observations(begun, segmentation, candidates)
        assigned = self.tracker.update(cloud, segmentation, observations, begun.since_last_s, hurried=begun.searched)
        laps.lap("track")
        scene = self.reasoner.update(self._scene(frame, begun.supports), self.tracker.events)
        laps.lap("relations")
        ids = self._instance_ids(begun.full, begun.factor * self.config.stride, segmentation, assigned)
        laps.lap("instances")
        return PerceptionResult(scene, ids, {**begun.timings_s, **laps.timings_s}, begun.warnings)

    def _observations(
        self, begun: BegunFrame, segmentation: Segmentation, candidates: NDArray[np.bool_]
    ) -> list[Observation | None]:
        cloud, height, which = begun.cloud, begun.height, begun.which
        observations: list[Observation | None] = []
        boxes = ndimage.find_objects(segmentation.labels, max_label=len(segmentation.keys))
        h, w = segmentation.labels.shape
        for label, box in enumerate(boxes, start=1):
            if box is None:
                observations.append(None)
                continue
            # A network may mark pixels without depth.
            mask = (segmentation.labels[box] == label) & np.isfinite(cloud.depth[box])
            pixels = int(mask.sum())
            depth = float(np.median(cloud.depth[box][mask])) if pixels else 0.0
            noise = float(depth_noise_m(np.array(depth, np.float32)))
            # A network's masks reach over the object's rim, onto the support and the background.
            clear = mask & candidates[box]
            use = clear if int(clear.sum()) >= _CLEAR_SHARE * pixels else mask
            use = use & ~_behind(cloud.depth[box], mask)
            if noise > _MIXED_PIXEL_NOISE_M:
                # Far away, a sensor's outermost pixels mix the object with what is behind it.
                inner = cv2.erode(use.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
                use = inner if int(inner.sum()) >= 0.35 * pixels else use
            rows, columns = np.nonzero(use)
            if len(rows) < 8 or pixels < 12:
                observations.append(None)
                continue
            # Evenly sampled; more would make everything slower and nothing better.
            some = slice(None, None, max(1, len(rows) // _MAX_POINTS))
            rows, columns = rows[some] + box[0].start, columns[some] + box[1].start
            points = cloud.points[rows, columns].astype(np.float64)
            heights = height[rows, columns]
            over = which[rows, columns]
            tall = np.isfinite(heights)
            index = int(np.bincount(over[over >= 0]).argmax()) if (over >= 0).any() else -1
            ranks = np.sort(points, axis=0)[(np.array([0.01, 0.02, 0.98, 0.99]) * (len(points) - 1)).astype(int)]
            center = 0.5 * (ranks[1] + ranks[2])
            bottom: float | None = None
            support_height = float(points[:, 2].min())
            if index >= 0:
                plane = begun.supports[index].plane
                support_height = float(center[2] - plane.height_over(center[None].astype(np.float32))[0])
                bottom = support_height
            tallest = np.sort(heights[tall])
            low, high = (tallest[[int(q * (len(tallest) - 1)) for q in (0.02, 0.95)]]) if len(tallest) else (0.0, 0.0)
            down, right = box
            edge = self._edge_pixels
            border = down.start < edge or right.start < edge or down.stop > h - edge or right.stop > w - edge
            fresh = segmentation.keys[label - 1] < 0
            outside = _outside(points, begun.supports[index]) if fresh and index >= 0 else 0.0
            extent = float((ranks[3] - ranks[0]).max())
            observations.append(
                Observation(
                    points=points,
                    noise_m=noise,
                    color=cloud.rgb[rows, columns].mean(axis=0),
                    pixels=pixels,
                    bottom=bottom,
                    support_height=support_height,
                    height_low=float(low),
                    height_high=float(high),
                    on_border=border,
                    outside_fraction=outside,
                    extent=extent,
                    center=center,
                    area_m2=pixels * depth**2 / (cloud.camera.fx * cloud.camera.fy),
                    over_fraction=float(tall.mean()),
                    hidden_fraction=_hidden_fraction(cloud.depth, segmentation.labels, label, box),
                    score=float(segmentation.scores[label - 1]) if len(segmentation.scores) else float("nan"),
                    embedding=_row(segmentation.embeddings, label - 1),
                    classes=_row(segmentation.class_probabilities, label - 1),
                )
            )
        return observations

    def _instance_ids(
        self, camera: Camera, factor: int, segmentation: Segmentation, assigned: NDArray[np.int64]
    ) -> NDArray[np.uint16]:
        table = np.zeros(len(segmentation.keys) + 1, dtype=np.uint16)
        for label, row in enumerate(assigned, start=1):
            if row >= 0:
                table[label] = self.tracker.tracks[row].id
        return enlarged(table[segmentation.labels], factor, camera.height, camera.width)

    def _scene(self, frame: Frame, supports: tuple[Support, ...]) -> SceneGraph:
        rows: list[dict[str, Any]] = [self._support_row(s) for s in supports if s.frames >= 2]
        for t in self.tracker.tracks:
            if t.id == 0:
                continue
            rows.append(
                {
                    "ids": t.id,
                    "class_names": self.tracker.class_name(t),
                    "positions": t.position,
                    "quaternions": t.quaternion,
                    "linear_velocities": t.velocity,
                    "angular_velocities": t.motion.angular_velocity,
                    "extents": t.extents,
                    "shapes": int(t.shape),
                    "is_static": False,
                    "pose_covariances": t.pose_covariance(),
                    "twist_covariances": t.twist_covariance(),
                    "colors": np.clip(t.appearance.color / 255.0, 0.0, 1.0),
                    "visibilities": t.visibility.fraction if t.visibility.seen_now else 0.0,
                    "existence_probabilities": t.existence,
                    "first_seen_ns": t.first_seen_ns,
                    "last_seen_ns": t.last_seen_ns,
                    "hulls": t.hull,
                    "class_probabilities": t.appearance.class_probabilities(),
                    "embeddings": t.appearance.embedding,
                }
            )
        rows.sort(key=lambda row: row["ids"])  # type: ignore[arg-type, return-value]
        names = [
            "ids", "class_names", "positions", "quaternions", "linear_velocities", "angular_velocities", "extents",
            "shapes", "is_static", "pose_covariances", "twist_covariances", "colors", "visibilities",
            "existence_probabilities", "first_seen_ns", "last_seen_ns", "hulls",
        ]  # fmt: skip
        columns = {name: [row[name] for row in rows] for name in names}
        n = len(rows)
        shapes = {"quaternions": (n, 4), "pose_covariances": (n, 6, 6), "twist_covariances": (n, 6, 6)}
        for name in ("linear_velocities", "angular_velocities", "colors"):
            shapes[name] = (n, 3)
        # Supports are not classified and have no embedding: their rows are 0.
        optional = {name: _rows(rows, name) for name in ("class_probabilities", "embeddings")}
        return SceneGraph.build(
            columns.pop("ids"),
            columns.pop("positions"),
            columns.pop("extents"),
            stamp_ns=frame.stamp_ns,
            frame_id=self.config.world_frame,
            world_T_camera=np.asarray(frame.world_T_camera, dtype=np.float64),
            class_vocabulary=self.tracker.vocabulary if optional["class_probabilities"].size else (),
            **optional,
            **{k: np.asarray(v, dtype=float).reshape(shapes[k]) if k in shapes else v for k, v in columns.items()},
        )

    @staticmethod
    def _support_row(s: Support) -> dict[str, Any]:
        center, sizes, yaw, outline = s.rectangle()
        quaternion = np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)])
        local = outline - center
        cosine, sine = np.cos(yaw), np.sin(yaw)
        local = np.stack([cosine * local[:, 0] + sine * local[:, 1], -sine * local[:, 0] + cosine * local[:, 1]], 1)
        covariance = np.diag([0.02**2, 0.02**2, 0.004**2, 0.01**2, 0.01**2, 0.03**2])
        return {
            "ids": s.id,
            "class_names": "support",
            "positions": np.array([*center, s.height_m - 0.5 * _SUPPORT_THICKNESS_M]),
            "quaternions": quaternion,
            "linear_velocities": np.zeros(3),
            "angular_velocities": np.zeros(3),
            "extents": np.array([*np.maximum(sizes, 0.02), _SUPPORT_THICKNESS_M]),
            "shapes": int(Shape.BOX),
            "is_static": True,
            "pose_covariances": covariance,
            "twist_covariances": np.zeros((6, 6)),
            "colors": np.clip(s.color / 255.0, 0.0, 1.0),
            "visibilities": 1.0 if s.seen_now else 0.0,
            "existence_probabilities": min(0.999, 0.5 + 0.1 * s.frames),
            "first_seen_ns": s.first_seen_ns,
            "last_seen_ns": s.last_seen_ns,
            "hulls": np.column_stack([local, np.full(len(local), 0.5 * _SUPPORT_THICKNESS_M)]),
        }


def _outside(points: Array, support: Support) -> float:
    """Fraction of points (P, 3) beyond the seen outline of their support."""
    sample = points[:: max(1, len(points) // 40), :2]
    return float(support.outside(sample).mean())


def _row(values: NDArray[np.float32], row: int) -> Array:
    """One row (D,) in double precision, or (0,) where there are none."""
    return values[row].astype(np.float64) if values.size else np.zeros(0)


def _hidden_fraction(
    depth: NDArray[np.float32], labels: NDArray[np.int32], label: int, box: tuple[slice, slice]
) -> float:
    """Part 0..1 of a segment's outline beyond which something nearer (by 2 cm) may cover more of it."""
    h, w = labels.shape
    window = tuple(slice(max(s.start - 2, 0), min(s.stop + 2, n)) for s, n in zip(box, (h, w), strict=True))
    mask = (labels[window] == label).astype(np.uint8)
    ring = (cv2.dilate(mask, _CROSS) > 0) & (mask == 0)
    count = int(ring.sum())
    if not count:
        return 0.0
    around = depth[window]
    own = cv2.dilate(np.where((mask > 0) & np.isfinite(around), around, np.float32(0.0)), _SQUARE)
    with np.errstate(invalid="ignore"):
        return float((around[ring] < own[ring] - 0.02).sum()) / count


def _rows(rows: list[dict[str, Any]], name: str) -> Array:
    """(N, C) of a column that some rows lack or have empty; those are 0."""
    width = max((len(row.get(name, ())) for row in rows), default=0)
    out = np.zeros((len(rows), width))
    for values, row in zip(out, rows, strict=True):
        given = row.get(name, ())
        if len(given) == width:
            values[:] = given
    return out


def _behind(depth: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (h, w) at the rim of a mask that lie behind what is beside them in it: of another surface.

    Only at the rim: within a mask a step in depth may be the object's own (the far wall of a bowl).
    """
    kernel = np.ones((5, 5), np.uint8)
    rim = mask & (cv2.erode(mask.astype(np.uint8), kernel, borderValue=0) == 0)
    nearest = cv2.erode(np.where(mask, depth, np.float32(1e3)), kernel)
    return rim & (depth - nearest > _STEP_M)
