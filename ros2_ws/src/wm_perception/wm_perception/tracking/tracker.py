"""Objects over time: motion, shape and appearance of each, kept while it is hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wm_core.scene_graph import Event, EventKind, Shape
from wm_perception.shapes.hollow import hollow_probability
from wm_perception.tracking import motion_update, visibility
from wm_perception.tracking.appearance import ENLARGED_FRAMES
from wm_perception.tracking.association import Matching
from wm_perception.tracking.births import born, is_beside, is_heir, is_one_object, is_part, may_be_born
from wm_perception.tracking.following import is_doubtful
from wm_perception.tracking.motion import MotionModels
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.one_or_two import OneOrTwo
from wm_perception.tracking.part_memory import PartMemory
from wm_perception.tracking.pieces import count_less, count_pieces, remember
from wm_perception.tracking.pose_measuring import (
    carried_start,
    measure_pose,
    points_to_align,
    rows_to_align,
    without_wrong_turn,
)
from wm_perception.tracking.seen_through import SeenThrough
from wm_perception.tracking.shape_update import SETTLED_FITS, ShapeUpdater, is_due
from wm_perception.tracking.surface_flow import SurfaceFlow
from wm_perception.tracking.track import Track
from wm_perception.types import Array, Cloud, PerceptionConfig, PredictedObject, Segmentation

_SURE_HITS, _SURE_SCORE = 2, 0.5
"""Frames after which a track gets an id where the segmenter is sure of it, and the mean score for that, instead of
``confirm_hits``. Chosen by hand; larger means later and fewer false objects."""
_COME_POINTS = 96
"""Points of a segment of which it is asked whether they lie where the camera saw through before. Larger is slower."""
_BESIDE_HITS = 8
"""The same for what appears right beside an object, of which it may be a part. Chosen by hand; larger means that parts
which are seen apart now and then become objects less often, and that what is set down beside others is late."""
_CLASS_SURE = 0.5
"""A class is named when it is likelier than all others together; larger means more objects without a class."""
_UNCLAIMED_S = 2.5
"""Time [s] in plain sight without a segment after which a track is dropped. Chosen by hand; larger means that false
objects stay, smaller that objects are lost which the segmenter misses for a while."""
_UNCONFIRMED_MISSES = 3
"""Frames in succession without a segment after which a track without an id is dropped. Chosen by hand; larger means
that more false objects are confirmed."""


class Tracker:
    """Assigns segments to tracks; updates, creates and drops tracks; reports events.

    Args:
        new_id: gives object ids that were not used before.

    Attributes:
        tracks: of the current frame; those with ``id`` 0 are not confirmed.
        events: of the current frame.
        vocabulary: class names of the segmenter, empty where it does not classify.
    """

    def __init__(self, config: PerceptionConfig, new_id: Callable[[], int]) -> None:
        self.config = config
        self.tracks: list[Track] = []
        self.events: list[Event] = []
        self.vocabulary: tuple[str, ...] = ()
        self._shapes = ShapeUpdater(config.max_extent_m)
        self._models = MotionModels()
        self._votes = OneOrTwo()
        self._parts = PartMemory()
        self._through = SeenThrough()
        self._flow = SurfaceFlow()
        self._new_id = new_id
        self._next_key = 0
        self._event_id = 0
        self._stamp_ns = 0
        self._eye: Array | None = None
        self._scored = False
        self._hurried = False
        self._to_fit: list[tuple[Track, Observation]] = []

    def class_name(self, t: Track) -> str:
        """The class that is likelier than all others together; by shape where the segmenter gives no classes."""
        if self.vocabulary:
            p = t.appearance.class_probabilities()
            return self.vocabulary[int(p.argmax())] if len(p) and p.max() >= _CLASS_SURE else "object"
        return {Shape.BOX: "box", Shape.SPHERE: "ball", Shape.CYLINDER: "cylinder"}.get(t.shape, "object")

    def report(self, kind: EventKind, object_id: int) -> None:
        """Record an event of an object that is not tracked here, at the current stamp."""
        self._emit(kind, object_id)

    def _emit(self, kind: EventKind, a: int) -> None:
        """Record an event at the current stamp."""
        self._event_id += 1
        self.events.append(Event(self._event_id, kind, a, 0, self._stamp_ns, 1.0))

    def predict(self, stamp_ns: int, dt: float) -> None:
        """Advance every track by ``dt`` [s]."""
        self._stamp_ns = stamp_ns
        self.events = []
        for t in self.tracks:
            motion_update.predict(t, dt, self.config.gap_reset_s, self._models)

    def predicted(self, dt: float) -> list[PredictedObject]:
        """Where each track is expected, after it was advanced by ``dt`` [s]."""
        return [
            PredictedObject(
                t.key,
                t.shape,
                t.position.copy(),
                t.quaternion,
                t.extents,
                t.hull,
                t.appearance.color,
                motion_update.search_margin_m(t, dt),
            )
            for t in self.tracks
        ]

    def join(self, segmentation: Segmentation, cloud: Cloud) -> Segmentation:
        """The segmentation with segments of one object joined; merges tracks that turn out to be of one object."""
        result, merged = self._parts.join(segmentation, self.tracks, cloud)
        for kept, gone in merged:
            kept.take_in(gone)
            self.tracks = [t for t in self.tracks if t is not gone]
            if gone.id:
                self._emit(EventKind.LEAVE, gone.id)
        return result

    def update(
        self,
        cloud: Cloud,
        segmentation: Segmentation,
        observations: Sequence[Observation | None],
        dt: float,
        hurried: bool = False,
    ) -> NDArray[np.int64]:
        """Update with a frame's segments; returns for each label 1..L the index of its track, -1 = none.

        Shapes are fitted by ``fit_shapes``, when the frame's scene has been built.

        Args:
            observations: of the labels 1..L, None where a label has too few points.
            dt: time since the frame before [s].
            hurried: the search for supports has taken long, so only tracks with few fits are fitted.
        """
        self._to_fit, self._hurried = [], hurried
        self._eye = cloud.world_T_camera[:3, 3]
        self._flow.add(cloud, self._stamp_ns)
        self._scored = len(segmentation.scores) > 0
        self._set_vocabulary(segmentation)
        apart = {(int(a) - 1, int(b) - 1) for a, b in segmentation.pairs}
        matching = Matching(self.tracks, observations, self._votes, apart)
        matching.solve(segmentation.keys, dt)
        for t in self.tracks:
            t.visibility.seen_now = False
        for row in sorted(matching.by_track, key=lambda row: self.tracks[row].evidence.stamp_ns):
            t = self.tracks[row]
            o = matching.by_track[row]
            again = row in matching.found_again
            count_pieces(t, o, row in matching.in_pieces)
            count_less(t, o, cloud)
            self._observe(t, o, dt, found_again=again)
            remember(t, o, cloud, again)
            self._to_fit.append((t, o))
        for label, o in sorted(matching.free(), key=lambda item: item[1].height_low):
            if may_be_born(o, self.config) and not is_part(o, self.tracks):
                self._next_key += 1
                fresh = born(o, self._next_key, self.tracks, self._eye, self._stamp_ns)
                fresh.beside = is_beside(o, self.tracks)
                remember(fresh, o, cloud, anew=True)
                self._to_fit.append((fresh, o))
                self.tracks.append(fresh)
                matching.assigned[label] = len(self.tracks) - 1
        visibility.update_visibility(self.tracks, cloud, dt, self._scored)
        self._through.add(cloud, self._stamp_ns)
        return self._cull(matching.assigned, matching.one)

    def fit_shapes(self) -> None:
        """Fit the shapes that are due in the frame of the last update; nobody has to wait for the rest of them.

        That is how many a frame, whatever they take: results do not depend on when this is called before the next one.
        """
        pending, self._to_fit = self._to_fit, []
        budget = self.config.fits_per_frame
        alive = {t.key for t in self.tracks}
        for t, o in sorted(pending, key=lambda pair: pair[0].evidence.stamp_ns):
            fits = len(t.evidence.fits)
            # A track without a shape cannot wait for its turn; one that has been fitted several times can.
            may = budget > (0 if fits else -2) and not (self._hurried and fits >= SETTLED_FITS)
            if may and t.key in alive and not _is_mixed(t) and is_due(t, o, self._stamp_ns):
                self._fit(t, o)
                budget -= 1

    def _fit(self, t: Track, o: Observation) -> None:
        """Fit the shape of a track to its segment, and carry over to it what is known of the track."""
        seen = t.seen.in_world(t.position, t.quaternion) if t.seen is not None else None
        aligned = points_to_align(t, o)
        rows = rows_to_align(t, aligned, False)
        before = measure_pose(t, aligned, rows, t.position, self._eye).position
        name = self.class_name(t) if self.vocabulary else ""
        hollow = hollow_probability(self.vocabulary, t.appearance.class_probabilities())
        self._shapes.refit(t, o, self.tracks, self._eye, self._stamp_ns, name, hollow)
        aligned = points_to_align(t, o)
        pose = measure_pose(t, aligned, rows_to_align(t, aligned, False), t.position, self._eye)
        t.motion.shift_trail(pose.position - before)
        t.evidence.residual_m = pose.residual_m
        if t.seen is not None and seen is not None:
            t.seen.move(seen, t.position, t.quaternion)

    def _set_vocabulary(self, segmentation: Segmentation) -> None:
        """Set the segmenter's vocabulary; a new one clears the classes of the tracks."""
        if segmentation.vocabulary and segmentation.vocabulary != self.vocabulary:
            self.vocabulary = segmentation.vocabulary
            for t in self.tracks:
                t.appearance.log_classes = np.zeros(0)

    def _observe(self, t: Track, o: Observation, dt: float, found_again: bool) -> None:
        """Update a track from its segment.

        Args:
            found_again: it was found away from where it was expected, by its appearance.
        """
        continued = t.visibility.misses == 0 and not found_again
        self._count_sighting(t, o)
        if found_again:
            motion_update.restart(t, o.center)
        motion_update.update_extent_jitter(t, o)
        # A segment that suddenly is much larger has merged with another one, unless it stays so.
        enlarged = t.evidence.fits and t.appearance.is_enlarged(o)
        t.appearance.enlarged_frames = t.appearance.enlarged_frames + 1 if enlarged else 0
        mixed = _is_mixed(t)
        aligned = points_to_align(t, o)
        rows = rows_to_align(t, aligned, mixed)
        carry = continued and not t.visibility.cut and not mixed
        start = carried_start(t, o, aligned.points[rows]) if carry else t.position
        pose = without_wrong_turn(t, aligned, rows, measure_pose(t, aligned, rows, start, self._eye), self._eye)
        t.evidence.residual_m = pose.residual_m
        come = self._through.has_come(o.sample(_COME_POINTS), o.noise_m, self._stamp_ns)
        follow = not t.motion.sleeping and is_doubtful(t, pose)
        way = self._flow.displacement_of(o.points, pose.position, o.noise_m) if follow else None
        events = motion_update.update_motion(t, o, pose, dt, self._stamp_ns * 1e-9, come, way)
        for kind in events:
            self._emit(kind, t.id)
        t.motion.last_center = o.center
        sure = t.appearance.score >= _SURE_SCORE
        needed = _SURE_HITS if sure and o.sure else self.config.confirm_hits
        enough = t.hits >= (_BESIDE_HITS if t.beside else needed)
        if t.id == 0 and enough and (t.evidence.fits or sure):
            t.id = self._new_id()
            self._emit(EventKind.ENTER, t.id)

    def _count_sighting(self, t: Track, o: Observation) -> None:
        """Appearance, visibility and counters of a track that has a segment."""
        t.appearance.update(o, t.hits)
        seen = t.visibility
        seen.seen_now = True
        seen.misses = seen.empty_frames = 0
        seen.unseen_s = seen.unclaimed_s = 0.0
        seen.cut = o.on_border or o.hidden_fraction > 0.25 or seen.fraction < 0.5
        t.hits += 1
        t.motion.frames += 1
        t.noise_m = o.noise_m
        t.last_seen_ns = self._stamp_ns
        t.existence = min(0.999, 1.0 - (1.0 - t.existence) * (1.0 - 0.5 * o.score if o.sure else 0.7))
        t.support_height = o.support_height

    def _cull(self, assigned: NDArray[np.int64], one: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """Drop tracks that are gone or double; returns ``assigned`` by the indices of those that are left.

        Args:
            one: indices of a track with a segment, and of one that is of the same object.
        """
        dropped = {i for i, t in enumerate(self.tracks) if self._is_gone(t)}
        for i in sorted(dropped):
            gone = self.tracks[i]
            heirs = [t for j, t in enumerate(self.tracks) if j not in dropped and gone.id and is_heir(gone, t)]
            if heirs:
                # It has come to rest elsewhere, where it looked like another object at first.
                _hand_over(gone, min(heirs, key=lambda t: float(np.linalg.norm(t.position - gone.position))))
            if gone.id:
                self._emit(EventKind.LEAVE, gone.id)
        for keeper, double in one:
            if keeper in dropped or double in dropped:
                continue
            a, b = self.tracks[keeper], self.tracks[double]
            if b.id and (not a.id or b.first_seen_ns < a.first_seen_ns):
                a.id, b.id = b.id, a.id
                a.first_seen_ns = min(a.first_seen_ns, b.first_seen_ns)
            dropped.add(double)
            if b.id:
                self._emit(EventKind.LEAVE, b.id)
        # Two tracks of one object: the younger goes, unless only it is seen.
        for i, a in enumerate(self.tracks):
            for j in range(i + 1, len(self.tracks)):
                b = self.tracks[j]
                if i in dropped or j in dropped or not is_one_object(a, b, self._scored):
                    continue
                if not a.visibility.seen_now and b.visibility.seen_now and a.id:
                    # The object came back where it was not expected: it keeps its id.
                    b.id, a.id = a.id, 0
                    b.first_seen_ns = min(a.first_seen_ns, b.first_seen_ns)
                    dropped.add(i)
                else:
                    dropped.add(j)
                    if b.id:
                        self._emit(EventKind.LEAVE, b.id)
        kept = [i for i in range(len(self.tracks)) if i not in dropped]
        renumber = np.full(len(self.tracks) + 1, -1, dtype=np.int64)
        renumber[kept] = np.arange(len(kept))
        self.tracks = [self.tracks[i] for i in kept]
        self._votes.forget(self.tracks)
        self._parts.forget(self.tracks)
        return renumber[assigned]

    def _is_gone(self, t: Track) -> bool:
        if not t.id:
            return t.visibility.misses >= _UNCONFIRMED_MISSES
        return t.visibility.empty_frames >= self.config.empty_frames or t.visibility.unclaimed_s > _UNCLAIMED_S


def _is_mixed(t: Track) -> bool:
    """Whether the segment of a track seems to have merged with another one in this frame."""
    return 0 < t.appearance.enlarged_frames < ENLARGED_FRAMES


def _hand_over(gone: Track, heir: Track) -> None:
    """Exchange the ids of a track that is dropped and of its heir, which has had another one for less long."""
    gone.id, heir.id = heir.id, gone.id
    heir.first_seen_ns = min(gone.first_seen_ns, heir.first_seen_ns)
