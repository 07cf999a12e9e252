"""A perception pipeline on a rendered clip, compared with the ground truth frame by frame."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.perception import masks
from benchmarks.perception.oracle import OracleSegmenter
from training.reasoner.metrics import (
    ClipGroundTruth,
    add_counts,
    caused_counts,
    event_counts,
    property_rows,
    relation_counts,
)
from training.reasoner.rendered_clips import ClipPlan, RenderedClip, TrueFrame
from wm_core.camera import Camera
from wm_core.scene_graph import SceneGraph
from wm_perception.evaluation import (
    Reappearance,
    TrackFrame,
    extents_error,
    match,
    reappearances,
    rotation_error_deg,
)
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.types import Frame, PerceptionConfig

WARM_UP_S = 0.5
"""Frames before this are not scored: an object is published after it was seen a few times."""
VELOCITY_BAND_M_S = (0.3, 0.8)
"""Objects of these true speeds count for the velocity error at 0.5 m/s."""
MOVING_S = 0.2
"""... and that have been so fast for this long [s]: a velocity cannot be known at the instant of an impact."""
_PICTURES_PER_CLIP = 3
"""Worst frames that are kept of each clip; the picture shows ten of all clips."""

Masks = list[dict[str, Any]]
Counts = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Match:
    """A perceived object and the true one, in one frame.

    Attributes:
        position_m, extents, rotation_deg: errors; rotation None for spheres.
        speed_m_s: true speed; moving_s: for how long it has been at least the band's lower end;
            velocity_error_m_s: length of the velocity's error.
        seen: part of the true object's image area that is seen; normalized_squared: position error squared over its
            perceived covariance, chi-square with 3 degrees of freedom where that is honest.
    """

    position_m: float
    extents: float
    rotation_deg: float | None
    speed_m_s: float
    moving_s: float
    velocity_error_m_s: float
    seen: float
    normalized_squared: float


@dataclass(frozen=True)
class WorstPicture:
    """A badly segmented frame.

    Attributes:
        clip, frame: name of the clip and number of the frame; quality: ``masks.mean_iou``, 0..1.
        rgb: (h, w, 3); ground_truth, found: labels (h, w), 0 = background.
    """

    clip: str
    frame: int
    quality: float
    rgb: NDArray[np.uint8]
    ground_truth: NDArray[np.int32]
    found: NDArray[np.int32]


@dataclass
class ReasoningCounts:
    """Counts (true positives, false positives, misses) by name, which add up over clips.

    Attributes:
        relations: by predicate; events: by kind; causes: of "reasoner" and of "baseline".
        properties: (K, 3, 3) of objects with three contacts or more: log mass, friction, restitution; mean,
            standard deviation, ground truth.
    """

    relations: Counts
    events: Counts
    causes: Counts
    properties: NDArray[np.float64]


def count_reasoning(
    numbers: Sequence[int],
    scenes: Sequence[SceneGraph],
    known_as: Sequence[dict[int, int]],
    clip: RenderedClip,
    clip_ground_truth: ClipGroundTruth,
) -> ReasoningCounts:
    """Relations, events, causes and properties perceived in the frames of these numbers, against the ground truth."""
    relations: Counts = {}
    for number, scene, names in zip(numbers, scenes, known_as, strict=True):
        if clip.ground_truth.times[number] >= WARM_UP_S:
            add_counts(relations, relation_counts(scene, clip.frames[number].scene, names))
    return ReasoningCounts(
        relations,
        event_counts(scenes, clip_ground_truth, known_as, from_s=WARM_UP_S),
        caused_counts(scenes, clip_ground_truth, known_as, from_s=WARM_UP_S),
        property_rows(scenes, clip_ground_truth, known_as),
    )


@dataclass
class ClipRecord:
    """Results of a pipeline on a clip.

    Attributes:
        plan: of the clip.
        ground_truths, predictions: per frame masks as ``masks.encode`` gives them.
        matches: of all scored frames; tracks: scored frames; returns: objects that were hidden and came back.
        quality: mean IoU of each scored frame; seconds: of each frame's processing.
        reasoning: relations, events, causes and properties.
        worst: the frames that were segmented worst.
    """

    plan: ClipPlan
    ground_truths: list[Masks] = field(default_factory=list)
    predictions: list[Masks] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    tracks: list[TrackFrame] = field(default_factory=list)
    returns: list[Reappearance] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reasoning: ReasoningCounts | None = None
    worst: list[WorstPicture] = field(default_factory=list)


def run_clip(
    clip: RenderedClip, config: PerceptionConfig, clip_ground_truth: ClipGroundTruth, oracle_masks: bool = False
) -> ClipRecord:
    """Run a pipeline of this configuration on a clip.

    Args:
        clip_ground_truth: true events and causes, by ``training.reasoner.metrics.clip_ground_truth``.
        oracle_masks: the true masks and classes in place of the configuration's segmenter.
    """
    pipeline = PerceptionPipeline(config, OracleSegmenter(clip) if oracle_masks else None)
    scorer = ClipScorer(clip)
    for number, frame in enumerate(clip.frames):
        begin = time.perf_counter()
        result = pipeline.process(
            Frame(frame.stamp_ns, frame.rgb, frame.depth, clip.camera, frame.scene.world_T_camera)
        )
        seconds = time.perf_counter() - begin
        segmentation = result.segmentation
        assert segmentation is not None
        count = len(segmentation.keys)
        scores = segmentation.scores if len(segmentation.scores) else np.ones(count, np.float32)
        scorer.add(number, result.scene, seconds, FoundMasks(segmentation.labels, scores))
    return scorer.finish(clip_ground_truth)


@dataclass(frozen=True)
class FoundMasks:
    """Instances found in an image.

    Attributes:
        labels: (h, w), 0 = background, 1..L; the image's size or a whole fraction of it.
        scores: (L,) of labels 1..L, 0..1.
    """

    labels: NDArray[np.integer[Any]]
    scores: NDArray[np.floating[Any]]


class ClipScorer:
    """Compares the scene graphs of a clip with the ground truth, in the order of its frames.

    A frame without a scene graph is left out: it is neither a miss nor a find. Who plays a clip to a node that may pass
    over frames says how many those were.

    Args:
        clip: that was perceived.
    """

    def __init__(self, clip: RenderedClip) -> None:
        self._clip = clip
        self._record = ClipRecord(clip.plan)
        self._numbers: list[int] = []
        self._found: list[dict[int, int]] = []
        self._scenes: list[SceneGraph] = []
        self._known_as: list[dict[int, int]] = []
        self._since: dict[int, float] = {}
        self._followed = 0

    def add(self, number: int, scene: SceneGraph, seconds: float, found: FoundMasks | None = None) -> None:
        """Score the scene graph of a frame.

        Args:
            number: of the frame, higher than that of the call before.
            scene: as perceived.
            seconds: that it took [s].
            found: the masks; None: there are none to score.
        """
        clip, record = self._clip, self._record
        frame = clip.frames[number]
        record.seconds.append(seconds)
        pairs = match(scene, frame.scene)
        names = [(int(scene.ids[p]), int(frame.scene.ids[t]), d) for p, t, d in pairs]
        self._numbers.append(number)
        self._scenes.append(scene)
        self._known_as.append({p: t for p, t, _ in names})
        self._found.append({t: p for p, t, _ in names if t in frame.visible})
        self._follow_motion(number)
        now = float(clip.ground_truth.times[number])
        if now < WARM_UP_S:
            return
        record.tracks.append(track_frame(scene, frame, names, clip.camera))
        record.matches += [
            errors_of(scene, p, frame.scene, t, now - self._since.get(int(frame.scene.ids[t]), now))
            for p, t, _ in pairs
            if int(frame.scene.ids[t]) in frame.visible
        ]
        if found is not None:
            self._score_masks(number, frame, found)

    def finish(self, clip_ground_truth: ClipGroundTruth) -> ClipRecord:
        """The record, once all frames were added; ``clip_ground_truth`` as of ``run_clip``."""
        clip, record = self._clip, self._record
        frames = [clip.frames[n] for n in self._numbers]
        record.returns = reappearances(
            clip.ground_truth.times[self._numbers],
            [set(f.visible) for f in frames],
            [set(f.gone) for f in frames],
            self._found,
        )
        record.reasoning = count_reasoning(self._numbers, self._scenes, self._known_as, clip, clip_ground_truth)
        return record

    def _follow_motion(self, number: int) -> None:
        """Since when each true object has been moving, also over frames that were left out."""
        for frame, now in zip(
            self._clip.frames[self._followed : number + 1],
            self._clip.ground_truth.times[self._followed : number + 1],
            strict=True,
        ):
            fast = np.linalg.norm(frame.scene.linear_velocities, axis=1) >= VELOCITY_BAND_M_S[0]
            self._since = {int(i): self._since.get(int(i), float(now)) for i in frame.scene.ids[fast]}
        self._followed = number + 1

    def _score_masks(self, number: int, frame: TrueFrame, found: FoundMasks) -> None:
        labels, record = found.labels, self._record
        step = max(1, round(self._clip.camera.height / labels.shape[0]))
        ground_truth = np.ascontiguousarray(frame.ids[::step, ::step][: labels.shape[0], : labels.shape[1]])
        if masks.available():
            record.ground_truths.append(masks.encode(ground_truth))
            record.predictions.append(masks.encode(labels, found.scores))
        quality = masks.mean_iou(ground_truth, labels, sorted(frame.visible))
        record.quality.append(quality)
        size = (ground_truth.shape[1], ground_truth.shape[0])
        picture = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA)
        name = self._clip.plan.name
        record.worst = _apart(
            [*record.worst, WorstPicture(name, number, quality, picture, ground_truth, labels.astype(np.int32))]
        )


def _apart(pictures: list[WorstPicture]) -> list[WorstPicture]:
    """The worst few frames that are at least ten apart, because neighbors show the same."""
    kept: list[WorstPicture] = []
    for picture in sorted(pictures, key=lambda p: p.quality):
        if len(kept) < _PICTURES_PER_CLIP and all(abs(picture.frame - k.frame) >= 10 for k in kept):
            kept.append(picture)
    return kept


def errors_of(perceived: SceneGraph, p: int, ground_truth: SceneGraph, t: int, moving_s: float) -> Match:
    """Errors of row p of a perceived scene against row t of the true one, which has been moving for so long."""
    offset = perceived.positions[p] - ground_truth.positions[t]
    velocity = perceived.linear_velocities[p] - ground_truth.linear_velocities[t]
    covariance = perceived.pose_covariances[p][:3, :3] + 1e-9 * np.eye(3)
    return Match(
        float(np.linalg.norm(offset)),
        extents_error(perceived.extents[p], ground_truth.extents[t]),
        rotation_error_deg(
            perceived.quaternions[p],
            perceived.extents[p],
            ground_truth.quaternions[t],
            ground_truth.extents[t],
            int(ground_truth.shapes[t]),
            ground_truth.hulls[t],
        ),
        float(np.linalg.norm(ground_truth.linear_velocities[t])),
        moving_s,
        float(np.linalg.norm(velocity)),
        float(ground_truth.visibilities[t]),
        float(offset @ np.linalg.solve(covariance, offset)),
    )


def track_frame(
    scene: SceneGraph, frame: TrueFrame, pairs: Sequence[tuple[int, int, float]], camera: Camera
) -> TrackFrame:
    """The frame for the scores of identities.

    Scored are the visible true objects. A perceived object counts as a find, right or wrong, unless it is matched to a
    true object that is not scored, or to none in a place that the camera cannot see (outside the view, or behind a
    nearer surface), about which nothing can be known.
    """
    true_ids = tuple(sorted(frame.visible))
    kept = tuple((t, p, d) for p, t, d in pairs if t in frame.visible)
    matched = {p for p, _, _ in pairs}
    counted = [p for _, p, _ in kept]
    for row in np.flatnonzero(~scene.is_static):
        name = int(scene.ids[row])
        if name not in matched and could_be_seen(
            scene.positions[row], scene.extents[row], frame.depth, camera, scene.world_T_camera
        ):
            counted.append(name)
    return TrackFrame(true_ids, tuple(sorted(counted)), kept)


def could_be_seen(
    position: NDArray[np.float64],
    extents: NDArray[np.float64],
    depth: NDArray[np.float32],
    camera: Camera,
    world_T_camera: NDArray[np.float64],
) -> bool:
    """Whether an object at this place would be seen: its center is in the view with nothing nearer in front of it.

    Args:
        position, extents: (3,) [m]; depth: (H, W) [m], 0 = not measured.
    """
    x, y, z = (position - world_T_camera[:3, 3]) @ world_T_camera[:3, :3]
    if z < 0.1:
        return False
    column, row = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    if not (0 <= column < camera.width and 0 <= row < camera.height):
        return False
    reach = 3
    patch = depth[
        max(0, int(row) - reach) : int(row) + reach + 1, max(0, int(column) - reach) : int(column) + reach + 1
    ]
    measured = patch[patch > 0.0]
    if not len(measured):
        return False
    return bool(np.median(measured) > z - 0.5 * float(extents.max()) - 0.03)
