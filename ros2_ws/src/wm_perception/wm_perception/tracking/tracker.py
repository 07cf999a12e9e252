"""Objects over time: how each moves, what solid it is, what it looks like; kept through occlusion."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wm_core import rotations
from wm_core.constants import TRACKED_REST_SPEED_M_S, TRACKED_REST_TIME_S
from wm_core.scene_graph import Event, EventKind, Shape
from wm_perception.shapes.fitting import fit_shape
from wm_perception.shapes.surfaces import Alignment, ShapeFit, align, fit_box, signed_distance
from wm_perception.tracking import association
from wm_perception.tracking.association import Observation
from wm_perception.tracking.motion import MotionFilter
from wm_perception.tracking.track import WAKE_M, Track
from wm_perception.types import Array, Cloud, PerceptionConfig, PredictedObject, Segmentation

_WAKE_SIGMAS = 4.5
_WAKE_AT_ONCE_M = 0.012
_FITS, _SETTLED_FITS = 7, 3
_REFIT_NS = 300_000_000
_ODD_FRAMES = 4
_WRONG_M = 0.004
_CUT_SLACK_M = 0.007
_PATIENCE_FRAMES = 3
_FIT_SPEED_M_S = 0.1
_STILL_M_S = 0.15
_ALIGN_POINTS = 110
_EMPTY_FRACTION = 0.65
_VISIBLE_TOLERANCE_M = 0.025
_SURE_HITS = 2
_CLASS_MEMORY = 0.93
_CLASS_SURE = 0.5
_CLASS_FLOOR = 0.02
_UNCLAIMED_S = 2.5
_FORMS = dict.fromkeys(("ball", "can", "cup", "mug", "bowl", "plate", "bottle", "cylinder"), "round") | {"box": "box"}
_SAME_SIZE_M = 0.003
_RAGGED_MEMORY = 0.7
_VACATED_M = 0.008
_VACATED = 0.15
_EXPLAINED_M = 0.004


class Tracker:
    """Assigns segments to tracks, updates, creates and drops them, and tells what happened."""

    def __init__(self, config: PerceptionConfig, new_id) -> None:  # type: ignore[no-untyped-def]
        self.config = config
        self.tracks: list[Track] = []
        self.events: list[Event] = []
        self.vocabulary: tuple[str, ...] = ()
        self._new_id = new_id
        self._next_key = 0
        self._event_id = 0
        self._stamp_ns = 0
        self._eye: Array | None = None
        self._scored = False

    def class_name(self, t: Track) -> str:
        """The class that is likelier than all others together; where classes are not estimated, what its shape says."""
        if self.vocabulary:
            p = t.class_probabilities()
            return self.vocabulary[int(p.argmax())] if len(p) and p.max() >= _CLASS_SURE else "object"
        return {Shape.BOX: "box", Shape.SPHERE: "ball", Shape.CYLINDER: "cylinder"}.get(t.shape, "object")

    def emit(self, kind: EventKind, a: int, b: int = 0, probability: float = 1.0) -> None:
        """Record an event at the current stamp."""
        self._event_id += 1
        self.events.append(Event(self._event_id, kind, a, b, self._stamp_ns, probability))

    def predict(self, stamp_ns: int, dt: float) -> list[PredictedObject]:
        """Advance every track by ``dt`` [s] and say where to look for it."""
        self._stamp_ns = stamp_ns
        self.events = []
        predicted = []
        for t in self.tracks:
            t.last_position = t.position.copy()
            if dt > self.config.gap_reset_s:
                t.filter.forget_velocity(0.2)
                t.trail.clear()
            elif t.resting:
                t.filter.hold(0.0003 * np.sqrt(30.0 * dt) if t.seen_now else 0.002 * np.sqrt(30.0 * dt))
            else:
                if t.seen_now:
                    t.filter.predict(dt)
                else:
                    t.filter.coast(dt)
                if not t.seen_now or np.linalg.norm(t.angular_velocity) > 0.5:
                    turn = rotations.from_vector(t.angular_velocity * min(dt, 0.1))
                    if t.shape != Shape.SPHERE and not t.turned:
                        t.quaternion = rotations.multiply(turn, t.quaternion)
            speed = float(np.linalg.norm(t.velocity))
            margin = 0.015 + min(0.08, speed * min(dt, 0.2) * 0.6) + min(0.05, 0.01 * t.misses)
            predicted.append(
                PredictedObject(t.key, t.shape, t.position.copy(), t.quaternion, t.extents, t.hull, t.color, margin)
            )
        return predicted

    def update(
        self,
        cloud: Cloud,
        segmentation: Segmentation,
        observations: list[Observation | None],
        dt: float,
        hurried: bool = False,
    ) -> NDArray[np.int64]:
        """Take in a frame's segments; returns for each label 1..L the index of its track, -1 = none.

        Args:
            hurried: the frame has taken long already: only what has hardly been fitted yet is.
        """
        self._eye = cloud.world_T_camera[:3, 3]
        self._scored = len(segmentation.scores) > 0
        self._classes(segmentation)
        by_key = {t.key: i for i, t in enumerate(self.tracks)}
        matched: dict[int, Observation] = {}
        assigned = np.full(len(observations), -1, dtype=np.int64)
        free: list[int] = []
        for label, (key, observation) in enumerate(zip(segmentation.keys, observations, strict=True)):
            if observation is None:
                continue
            row = by_key.get(int(key), -1)
            if row >= 0:
                matched[row] = observation
                assigned[label] = row
            else:
                free.append(label)
        again = self._match_free(matched, observations, free, assigned, dt)
        for t in self.tracks:
            t.seen_now = False
        order = sorted(matched, key=lambda row: self.tracks[row].fit_stamp_ns)
        budget = self.config.fits_per_frame
        for row in order:
            fits = len(self.tracks[row].fits)
            # What has no shape yet cannot wait for its turn; what has been fitted several times can.
            fit = budget > (0 if fits else -2) and not (hurried and fits >= _SETTLED_FITS)
            used = self._observe(self.tracks[row], matched[row], dt, fit=fit, again=row in again)
            budget -= used
        births = [n for n in free if assigned[n] < 0]
        for label in sorted(births, key=lambda n: observations[n].height_low):  # type: ignore[union-attr]
            observation = observations[label]
            assert observation is not None
            if self._may_be_born(observation) and not self._is_part(observation):
                self.tracks.append(self._born(observation))
                assigned[label] = len(self.tracks) - 1
        self.update_visibility(cloud, dt)
        return self._cull(assigned)

    def _match_free(
        self,
        matched: dict[int, Observation],
        observations: list[Observation | None],
        free: list[int],
        assigned: NDArray[np.int64],
        dt: float,
    ) -> set[int]:
        """Assign the segments that nobody has assigned; returns the tracks found again away from their place."""

        def left() -> tuple[list[int], list[int]]:
            return (
                [i for i in range(len(self.tracks)) if i not in matched],
                [n for n in free if assigned[n] < 0 and observations[n] is not None],
            )

        def take(pairs: list[tuple[int, int]], rows: list[int], labels: list[int]) -> None:
            for r, c in pairs:
                matched[rows[r]] = observations[labels[c]]  # type: ignore[assignment]
                assigned[labels[c]] = rows[r]

        rows, labels = left()
        seen: list[Observation] = [observations[n] for n in labels]  # type: ignore[misc]
        take(association.assign([self.tracks[i] for i in rows], seen, dt), rows, labels)
        # Pieces of what is seen already, and what one segment has taken from another thing.
        for label in left()[1]:
            o = observations[label]
            assert o is not None
            for row, whole in list(matched.items()):
                t = self.tracks[row]
                if np.linalg.norm(o.center - t.position) > 0.5 * float(np.linalg.norm(t.extents)) + 0.02:
                    continue
                if association.is_fragment(t, whole, o):
                    matched[row] = replace(
                        whole, points=np.concatenate([whole.points, o.points]), pixels=whole.pixels + o.pixels
                    )
                    assigned[label] = row
                    break
        for row in left()[0]:
            t = self.tracks[row]
            if not t.id or t.misses > 30:
                continue
            for holder in [h for h in matched if h != row]:
                keeper = self.tracks[holder]
                apart = float(np.linalg.norm(keeper.position - t.position))
                if apart > 0.5 * float(np.linalg.norm(t.extents) + np.linalg.norm(keeper.extents)) + 0.02:
                    continue
                if association.of_one_look(keeper, t):
                    continue
                parts = association.divide(keeper, t, matched[holder])
                if parts is not None:
                    matched[holder], matched[row] = parts
                    break
        rows, labels = left()
        rows = [i for i in rows if self.tracks[i].id]
        seen = [observations[n] for n in labels]  # type: ignore[misc]
        pairs = association.assign_again([self.tracks[i] for i in rows], seen)
        take(pairs, rows, labels)
        return {rows[r] for r, _ in pairs}

    def _classes(self, segmentation: Segmentation) -> None:
        """Take over the segmenter's vocabulary; tracks start to count again where it is another one."""
        if segmentation.vocabulary and segmentation.vocabulary != self.vocabulary:
            self.vocabulary = segmentation.vocabulary
            for t in self.tracks:
                t.log_classes = np.zeros(0)

    @staticmethod
    def _look_of(t: Track, o: Observation) -> None:
        """Running means of color, embedding, score, and of the logarithms of class probabilities."""
        weight = max(1.0 / (t.hits + 1.0), 0.05)
        partly = o.hidden_fraction > 0.3 or o.on_border or o.extent > 1.2 * t.seen_extent + 0.01
        t.color = t.color + (0.3 * weight if partly else max(weight, 0.05)) * (o.color - t.color)
        if len(o.embedding):
            if len(t.embedding) != len(o.embedding):
                t.embedding = o.embedding.copy()
            mean = t.embedding + (0.5 if partly else 1.0) * weight * (o.embedding - t.embedding)
            t.embedding = mean / max(float(np.linalg.norm(mean)), 1e-9)
        if len(o.classes):
            logs = np.log(np.maximum(o.classes, _CLASS_FLOOR))
            # Successive frames err alike: each counts for a third.
            t.log_classes = (_CLASS_MEMORY * t.log_classes if len(t.log_classes) == len(logs) else 0.0) + 0.33 * logs
            t.log_classes = t.log_classes - t.log_classes.max()
        if np.isfinite(o.score):
            t.score += max(weight, 0.2) * (o.score - t.score)
        if not partly or t.odd >= _ODD_FRAMES or (o.on_border and o.extent < 1.2 * t.seen_extent + 0.01):
            t.seen_extent += max(weight, 0.2) * (o.extent - t.seen_extent)

    def _may_be_born(self, o: Observation) -> bool:
        # Furniture and walls are beside every support; the rim of a table is not over it.
        if o.over_fraction < 0.5 or o.height_high < max(self.config.min_height_m, 3.0 * o.noise_m):
            return False
        if o.sure:
            # Such a one may be cut off by the image's edge, and be flat.
            return o.pixels >= 0.5 * self.config.min_pixels and o.extent <= 1.2 * self.config.max_extent_m
        return (
            o.pixels >= self.config.min_pixels
            and o.area_m2 > 2.0e-4
            and o.height_high > max(2.0 * self.config.min_height_m, 6.0 * o.noise_m)
            and o.extent <= self.config.max_extent_m
            # What the image cuts off may be anything, unless it is seen to stand on the support.
            and (not o.on_border or (o.height_low < 0.03 and o.outside_fraction == 0.0))
            and o.outside_fraction < 0.5
        )

    def _is_part(self, o: Observation) -> bool:
        """Whether a segment hangs in the air right beside a known thing that is much larger: a handle, a cap."""
        if o.sure or o.height_low < 0.015:
            return False
        for t in self.tracks:
            if not t.seen_now or not t.id or o.extent > 0.7 * float(t.extents.max()):
                continue
            local = (o.points - t.position) @ rotations.matrix(t.quaternion)
            distance, _ = signed_distance(t.shape, t.extents, local, t.planes)
            # On top of it it may be a thing of its own.
            aside = float(np.percentile(o.points[:, 2], 10.0)) < t.position[2] + 0.3 * _vertical_extent(t)
            if aside and np.percentile(distance, 10.0) < 0.012 and np.percentile(distance, 90.0) < 0.045:
                return True
        return False

    def _born(self, o: Observation) -> Track:
        bottom = self._bottom(o, None)
        top = float(np.percentile(o.points[:, 2], 99.0))
        fit = fit_box(o.points, bottom if bottom is not None else o.points[:, 2].min(), top)
        self._next_key += 1
        track = Track(
            key=self._next_key,
            shape=fit.shape,
            quaternion=fit.quaternion,
            extents=fit.extents,
            filter=MotionFilter(fit.position, 0.01, 0.5),
            color=o.color,
            first_seen_ns=self._stamp_ns,
            last_seen_ns=self._stamp_ns,
            seen_extent=o.extent,
            bottom=bottom,
            support_height=o.support_height,
            score=o.score if np.isfinite(o.score) else 0.0,
        )
        self._look_of(track, o)
        track.last_center, track.view = o.center, self._line_of_sight(fit.position)
        track.set_shape(fit, keep_pose=False)
        return track

    def _line_of_sight(self, position: Array) -> Array:
        """(3,) unit vector from the camera to a place, level; how high things are is seen well."""
        if self._eye is None:
            return np.array([1.0, 0.0, 0.0])
        way = (position - self._eye) * np.array([1.0, 1.0, 0.3])
        return way / max(float(np.linalg.norm(way)), 1e-9)

    def _bottom(self, o: Observation, own: Track | None) -> float | None:
        """Height [m] of what a thing stands on: the support, or the top of a thing under it."""
        if o.height_low < 0.03:
            return o.bottom
        low = float(np.percentile(o.points[:, 2], 2.0))
        for t in self.tracks:
            if t is own or t.misses:
                continue
            top = t.position[2] + 0.5 * _vertical_extent(t)
            local = rotations.matrix(t.quaternion).T @ (o.center - t.position)
            # What something stands on is often seen by its front alone, and is deeper than it seems.
            if abs(top - low) < 0.03 and (np.abs(local[:2]) < np.maximum(0.5 * t.extents[:2], 0.03) + 0.01).all():
                return float(top)
        # Nothing under it: what hides its foot stands in front, and it stands on the support.
        return o.bottom

    def _observe(self, t: Track, o: Observation, dt: float, fit: bool, again: bool = False) -> int:
        """Update a track from its segment; returns how many shape fits that took.

        Args:
            again: it was found away from where it was expected, by its look.
        """
        stamp_s = self._stamp_ns * 1e-9
        recent = t.misses == 0 and t.last_center is not None and t.last_position is not None
        self._look_of(t, o)
        t.seen_now = True
        t.misses = t.empty = 0
        t.unseen_s = t.unclaimed_s = 0.0
        t.hits += 1
        t.since += 1
        t.noise_m = o.noise_m
        t.last_seen_ns = self._stamp_ns
        t.existence = min(0.999, 1.0 - (1.0 - t.existence) * (1.0 - 0.5 * o.score if o.sure else 0.7))
        t.support_height = o.support_height
        t.cut = o.on_border or o.hidden_fraction > 0.25 or t.visibility < 0.5
        if again:
            t.filter = MotionFilter(o.center, 0.02, 0.3)
            t.resting, t.moved = False, True
            t.trail.clear()
            t.turns.clear()
            t.since = 0
            recent = False
        self.update_extent_jitter(t, o)
        used = 0
        points = o.points
        if len(points) > _ALIGN_POINTS:
            # Others every time, so that what they err by differs from frame to frame.
            step = len(points) / _ALIGN_POINTS
            points = points[((np.arange(_ALIGN_POINTS) + (0.37 * t.hits) % 1.0) * step).astype(np.int64)]
        # A segment that suddenly is much larger has run into something else, unless it stays so.
        t.odd = t.odd + 1 if t.fits and o.extent > 1.2 * t.seen_extent + 0.01 else 0
        mixed = 0 < t.odd < _ODD_FRAMES
        if mixed:
            near = points[association.outside(t, points) < 0.02 + 2.0 * o.noise_m]
            points = near if len(near) >= 20 else points
        whole = t.visibility > 0.75 and not o.on_border and o.hidden_fraction < 0.25
        # Better a rough shape from what can be seen than none: it is fitted again when more comes into sight, or
        # when it is found to be wrong.
        wrong = t.residual_m > _WRONG_M and self._stamp_ns - t.fit_stamp_ns > _REFIT_NS
        rough = not t.whole and len(o.points) >= 60 and (o.pixels > 1.15 * t.fit_pixels or wrong)
        rough = rough and (o.sure or t.hits >= _PATIENCE_FRAMES)
        slow = t.resting or float(np.linalg.norm(t.velocity)) < _FIT_SPEED_M_S or len(t.fits) < 2
        since_ns = self._stamp_ns - t.fit_stamp_ns
        # Often at first, then less and less: they take longer than all the rest.
        due = len(t.fits) < 2 or since_ns > _REFIT_NS * min(len(t.fits), 6)
        due = due and (len(t.fits) < _FITS or t.resting)
        # After a collision segments may be mixed; a rigid thing is what it was before.
        due = (due or not t.whole) and not (t.moved and t.whole and len(t.fits) >= 3)
        if fit and not mixed and (whole or rough) and due and not t.toppled and len(o.points) >= 30 and slow:
            self._refit(t, o, whole)
            used = 1
        start = t.position
        if recent and not t.cut and not used and not mixed:
            # Where what is to be seen of it has moved to, if that explains the points better than its motion so far.
            assert t.last_position is not None and t.last_center is not None
            carried = t.last_position + (o.center - t.last_center)
            if np.linalg.norm(carried - start) > 0.006:
                offset = carried - t.position
                some = points[::2]
                here = float(np.minimum(association.outside(t, some), 0.05).mean())
                there = float(np.minimum(association.outside(t, some - offset), 0.05).mean())
                start = carried if there < 0.8 * here else start
        round_ = t.turned or t.shape in (Shape.CYLINDER, Shape.CAPSULE, Shape.SPHERE)
        standing = t.turned or (t.shape == Shape.CYLINDER and abs(rotations.matrix(t.quaternion)[2, 2]) > 0.9)
        tilt, spin = (0.012, 0.04) if t.resting or not t.fits else (0.05, 0.15)
        pose = align(
            t.shape,
            t.extents,
            points,
            start,
            t.quaternion,
            hull=t.planes,
            prior_std_m=0.03 if not t.resting else 0.02,
            # What is round about the vertical is not turned by noise.
            prior_std_rad=(tilt, 0.002 if round_ and standing else spin),
            noise_m=max(0.002, o.noise_m),
        )
        t.residual_m = pose.residual_m
        # A thing that is cut off by the image's edge or hidden in part is only roughly where its rest is.
        partly = o.hidden_fraction > 0.25 or t.visibility < 0.5
        slack = 0.3 * o.noise_m + 0.5 * pose.residual_m + (_CUT_SLACK_M if o.on_border else 0.006 if partly else 0.0012)
        wake = max(WAKE_M, _WAKE_SIGMAS * o.noise_m)
        wake *= 2.5 if o.on_border else 2.0 if partly else 1.0
        self._filter(t, pose, dt, stamp_s, slack, wake)
        t.last_center = o.center
        # A segmenter that is sure of it spares the wait.
        enough = t.hits >= (_SURE_HITS if t.score >= 0.5 and o.sure else self.config.confirm_hits)
        if t.id == 0 and enough and (t.fits or t.score >= 0.5):
            t.id = self._new_id()
            self.emit(EventKind.ENTER, t.id)
        return used

    @staticmethod
    def update_extent_jitter(t: Track, o: Observation) -> None:
        """How far the ends of what is seen of a thing have moved apart since the last frame, per world axis.

        What moves takes both its ends along. Where a segment grows or shrinks instead (it comes out from behind
        something, the image cuts it off, the segmenter takes more or less of it), its middle moves by half of that
        with nothing moving: so uncertain is the place that it shows.
        """
        size = np.ptp(np.percentile(o.points, [2.0, 98.0], axis=0), axis=0)
        if t.last_size is not None:
            changed = np.maximum(np.abs(size - t.last_size) - 2.0 * o.noise_m - _SAME_SIZE_M, 0.0)
            t.ragged_m = np.maximum(0.5 * changed, _RAGGED_MEMORY * t.ragged_m)
        t.last_size = size
        # What is seen whole changes its size by turning or toppling, too: so does what moves, and what has left.
        if not t.cut and not (t.resting and t.vacated < _VACATED):
            t.ragged_m = np.zeros(3)

    def _refit(self, t: Track, o: Observation, whole: bool) -> None:
        t.fit_stamp_ns, t.fit_pixels = self._stamp_ns, o.pixels
        t.bottom = self._bottom(o, t)
        fit = fit_shape(
            o.points, t.bottom, seed=len(t.fits), likely=_FORMS.get(self.class_name(t), "") if self.vocabulary else ""
        )
        if fit.extents.max() > 1.3 * self.config.max_extent_m:
            return
        fit = self._under_its_load(t, fit)
        # Fits to a part of it do not count any more once it, or more of it, has been seen.
        first = not t.fits or not t.whole
        if not t.whole:
            t.fits.clear()
        t.whole = whole
        t.view = self._line_of_sight(fit.position)
        t.fits.append(fit)
        if len(t.fits) > 3 * _FITS:
            t.fits.pop(0)
        kinds = [f.shape for f in t.fits]
        # The kind that explains its views best, weighed by how often it won.
        score = {k: sum(1.0 / (f.residual_m + 0.001) for f in t.fits if f.shape == k) for k in sorted(set(kinds))}
        kind = max(score, key=score.__getitem__)
        same = [f for f in t.fits if f.shape == kind]
        last = same[-1]
        if kind == Shape.CONVEX:
            chosen = max(same, key=lambda f: float(np.prod(f.extents)))
        else:
            aligned = [_like(f, last) for f in same]
            chosen = ShapeFit(kind, last.position, last.quaternion, np.median(aligned, axis=0), last.residual_m)
        axis_changed = t.shape != kind or (
            kind == Shape.CYLINDER and rotations.tilt_between(t.quaternion, chosen.quaternion) > 0.5
        )
        t.set_shape(chosen, keep_pose=not (first or axis_changed))
        if first or axis_changed:
            shift = chosen.position - t.position
            t.filter.shift(shift)
            t.trail = deque(((s, p + shift) for s, p in t.trail), maxlen=t.trail.maxlen)
        elif t.resting:
            # What it stands on is known better than its height: the foot stays where it is.
            if t.bottom is not None:
                lift = 0.5 * (t.bottom + 0.5 * _vertical_extent(t) - t.position[2])
                t.filter.shift(np.array([0.0, 0.0, lift]))
            if kind == Shape.BOX:
                t.quaternion = _slerp_yaw(t.quaternion, last.quaternion, 1.0 / len(same))
                t.upright = t.quaternion

    def _under_its_load(self, t: Track, fit: ShapeFit) -> ShapeFit:
        """A box made as deep as it must be to carry what stands on it.

        What stands on a box hides the far part of its top, so that the fit ends too early. A load that would hang
        over the far edge is taken to stand in the middle.
        """
        if fit.shape != Shape.BOX or self._eye is None or t.moved:
            return fit
        rotation = rotations.matrix(fit.quaternion)
        top = fit.position[2] + 0.5 * fit.extents[2]
        position, extents = fit.position.copy(), fit.extents.copy()
        for load in self.tracks:
            # What has moved may lie or lean anyhow.
            if load is t or not load.id or load.moved:
                continue
            if abs(load.position[2] - 0.5 * _vertical_extent(load) - top) > 0.015:
                continue
            local = (load.position - position) @ rotation
            if (np.abs(local[:2]) > 0.5 * extents[:2] + 0.05).any():
                continue
            away = np.where((self._eye - position) @ rotation > 0.0, -1.0, 1.0)
            for axis in (0, 1):
                beyond = float(away[axis] * local[axis])
                if beyond > 0.15 * extents[axis]:
                    extents[axis] += 2.0 * beyond
                    position += rotation[:, axis] * away[axis] * beyond
        return replace(fit, position=position, extents=extents)

    def _filter(self, t: Track, pose: Alignment, dt: float, stamp_s: float, slack: float, wake_m: float) -> None:
        if t.cut:
            # A solid that does not explain what is seen of it, which is not all, may lie on that anyhow.
            slack += 2.0 * max(pose.residual_m - _EXPLAINED_M, 0.0)
        noise = pose.covariance[:3, :3] + np.eye(3) * slack**2 + np.diag(t.ragged_m**2)
        if t.resting:
            offset = pose.position - t.position
            sigma = float(np.sqrt(np.trace(noise) / 3.0))
            away = float(np.linalg.norm(offset))
            limit = max(wake_m, 3.0 * sigma)
            before = t.trail[-1][1] - t.position if t.trail else np.zeros(3)
            # Twice away, and farther in the same direction: it is leaving.
            leaving = t.away >= 1 and away > 1.5 * limit and float(offset @ before) > 0.0
            leaving = leaving and away > 1.4 * float(np.linalg.norm(before))
            t.away = t.away + 1 if away > limit else 0
            # Over the frames since it left its place, from where it was measured before.
            steps = max(t.away, 1)
            since_s, origin = t.trail[-steps] if len(t.trail) >= steps else (stamp_s - dt, t.position)
            step = pose.position - origin
            if t.away >= 3 and float(np.linalg.norm(step)) < 0.5 * limit:
                # It has not gone there: it stood there all the while, and the camera's pose has drifted.
                t.filter.shift(pose.position - t.position)
                t.away = 0
            elif away > max(_WAKE_AT_ONCE_M, 2.0 * wake_m, 4.0 * sigma) or t.away >= 3 or leaving:
                t.resting, t.moved = False, True
                velocity = step / max(stamp_s - since_s, 1e-3)
                # It may have begun to move at any moment since the last frame, so that it is faster by now.
                spread = 0.3 * float(np.linalg.norm(velocity)) + 0.1
                t.filter = MotionFilter(pose.position, max(sigma, 0.003), spread, 4.0, velocity)
                t.away = 0
                t.quaternion = pose.quaternion
                t.turns.clear()
                t.trail.clear()
                if t.id:
                    self.emit(EventKind.MOVE, t.id)
            elif not t.away:
                t.filter.settle(pose.position, noise * 4.0)
        else:
            t.filter.update(pose.position, noise)
            t.quaternion = pose.quaternion
        t.rotation_covariance = np.clip(pose.covariance[3:, 3:], -0.25, 0.25) + np.eye(3) * 0.01**2
        t.trail.append((stamp_s, pose.position.copy()))
        t.turns.append((stamp_s, t.quaternion.copy()))
        self._angular(t)
        self._rest(t, stamp_s, wake_m)
        tilt = rotations.tilt_between(t.upright, t.quaternion)
        if t.shape != Shape.SPHERE and not t.cut and tilt > np.radians(45.0) and not t.toppled and t.id:
            t.toppled = True
            self.emit(EventKind.TOPPLE, t.id)

    @staticmethod
    def _angular(t: Track) -> None:
        """Angular velocity: rolling contact where turning cannot be seen, differences of orientation elsewhere."""
        if t.resting:
            t.angular_velocity = np.zeros(3)
            return
        v = t.velocity
        radius = 0.25 * float(t.extents[0] + t.extents[1])
        standing = abs(t.position[2] - 0.5 * _vertical_extent(t) - t.support_height) < 0.02
        rolling = np.zeros(3)
        if standing:
            rolling = np.asarray(np.cross([0.0, 0.0, 1.0], v) / max(radius, 1e-3), dtype=np.float64)
        if t.shape == Shape.SPHERE:
            # A ball on a table rolls: w = z x v / r. Its turning cannot be seen in its shape.
            t.angular_velocity = rolling
        elif len(t.turns) >= 3:
            (s0, q0), (s1, q1) = t.turns[0], t.turns[-1]
            turned = rotations.to_vector(rotations.multiply(q1, rotations.conjugate(q0)))
            rate = turned / max(s1 - s0, 1e-3)
            if t.shape in (Shape.CYLINDER, Shape.CAPSULE):
                axis = rotations.matrix(t.quaternion)[:, 2]
                lying = abs(axis[2]) < 0.3
                rate = rate - axis * (axis @ rate) + (axis * (axis @ rolling) if lying else 0.0)
            # Turning slower than this is not told from the noise of a fit.
            t.angular_velocity = rate if np.linalg.norm(rate) > 0.6 else np.zeros(3)
            if t.shape in (Shape.CYLINDER, Shape.CAPSULE) and np.linalg.norm(rate) <= 0.6:
                t.angular_velocity = axis * (axis @ rolling) if lying else np.zeros(3)

    def _rest(self, t: Track, stamp_s: float, wake_m: float) -> None:
        if t.resting or len(t.trail) < 5:
            return
        recent = [(s, p) for s, p in t.trail if stamp_s - s <= TRACKED_REST_TIME_S + 1e-6]
        if len(recent) < 6:
            # Slow cameras: as many as it takes to span that time.
            recent = list(t.trail)[-6:]
        if recent[0][0] > stamp_s - 0.9 * TRACKED_REST_TIME_S:
            return
        times = np.array([s for s, _ in recent])
        places = np.stack([p for _, p in recent])
        centered = times - times.mean()
        slope = centered @ (places - places.mean(axis=0)) / max(float(centered @ centered), 1e-9)
        spread = float(np.linalg.norm(places - places.mean(axis=0) - centered[:, None] * slope, axis=1).max())
        span = float(times[-1] - times[0])
        if (
            np.linalg.norm(slope) < TRACKED_REST_SPEED_M_S
            and np.linalg.norm(slope) * span < wake_m
            and spread < 2.0 * wake_m
        ):
            t.resting = True
            t.filter = MotionFilter(places.mean(axis=0) if t.id else t.position.copy(), 0.002, 1e-3, 1e-2)
            t.angular_velocity = np.zeros(3)
            if t.id and t.hits > 12:
                self.emit(EventKind.STOP, t.id)

    def update_visibility(self, cloud: Cloud, dt: float) -> None:
        """Visibility of every track against the depth image, and what to make of those that were not matched."""
        if not self.tracks:
            return
        camera_T_world = np.linalg.inv(cloud.world_T_camera)
        eye = cloud.world_T_camera[:3, 3]
        h, w = cloud.depth.shape
        # All tracks' surfaces in one go.
        faces = []
        for t in self.tracks:
            local, normals = t.surface()
            turn = rotations.matrix(t.quaternion).T
            points = local @ turn + t.position
            facing = np.einsum("pi,pi->p", normals @ turn, eye - points) > 0.0
            faces.append(points[facing])
        optical = np.concatenate(faces) @ camera_T_world[:3, :3].T + camera_T_world[:3, 3]
        pixels, depth = cloud.camera.project(optical)
        with np.errstate(invalid="ignore"):
            inside = (pixels > -0.5).all(axis=1) & (pixels[:, 0] < w - 0.5) & (pixels[:, 1] < h - 0.5) & (depth > 0.0)
        u = np.round(np.where(inside, pixels[:, 0], 0.0)).astype(np.int64)
        v = np.round(np.where(inside, pixels[:, 1], 0.0)).astype(np.int64)
        difference = np.where(inside, cloud.depth[v, u] - depth, np.nan)
        start = 0
        for t, face in zip(self.tracks, faces, strict=True):
            rows = slice(start, start + len(face))
            start += len(face)
            in_view = float(inside[rows].mean()) if len(face) else 0.0
            off = difference[rows]
            known = np.isfinite(off)
            measured = max(int(known.sum()), 1)
            tolerance = _VISIBLE_TOLERANCE_M + 0.1 * float(t.extents.max())
            # Hidden is what something nearer covers. What lies deeper (the inside of a bowl) is in sight all the
            # same, and where nothing was measured it is as elsewhere.
            with np.errstate(invalid="ignore"):
                clear = float((off >= -tolerance).sum()) / measured
                fraction_empty = float((off > tolerance).sum()) / measured
            t.visibility, t.in_view = clear * in_view, in_view
            # What is no higher than that cannot be seen to have left: another thing's top looks the same.
            beneath = _VACATED_M + 3.0 * t.noise_m
            with np.errstate(invalid="ignore"):
                t.vacated = float((off > beneath).sum()) / measured if _thickness(t) > 2.0 * beneath else 0.0
            if not t.seen_now:
                self._missed(t, fraction_empty if in_view >= 0.3 else 0.0, dt)

    def _missed(self, t: Track, fraction_empty: float, dt: float) -> None:
        """A frame without a segment of a track; ``fraction_empty`` of its place shows what is behind it."""
        t.misses += 1
        t.unseen_s += dt
        if np.linalg.norm(t.filter.velocity) < _STILL_M_S:
            # Slower than this, velocity is as likely noise; a hidden thing must not drift away on it.
            t.filter.forget_velocity(0.05)
            t.angular_velocity = np.zeros(3)
        t.hits = min(t.hits, 30)
        if fraction_empty > _EMPTY_FRACTION:
            t.empty += 1
            t.existence *= 0.7
            return
        if self._scored and t.visibility > 0.6:
            # In plain sight, something is there, and yet the segmenter does not take it for a thing.
            t.unclaimed_s += dt
            t.existence = max(0.05, t.existence * float(np.exp(-0.7 * dt)))
        else:
            t.existence = max(0.05, t.existence * float(np.exp(-0.02 * dt)))
        if not t.resting and t.unseen_s > 0.5:
            t.filter.forget_velocity(0.05)

    def _cull(self, assigned: NDArray[np.int64]) -> NDArray[np.int64]:
        dropped: set[int] = set()
        for i, t in enumerate(self.tracks):
            gone = t.empty >= self.config.empty_frames or t.unclaimed_s > _UNCLAIMED_S if t.id else t.misses >= 3
            if gone:
                dropped.add(i)
                if t.id:
                    self.emit(EventKind.LEAVE, t.id)
        # Two tracks of one thing: the younger goes, unless only it is seen.
        for i, a in enumerate(self.tracks):
            for j in range(i + 1, len(self.tracks)):
                b = self.tracks[j]
                if i in dropped or j in dropped or not self._one_thing(a, b):
                    continue
                if not a.seen_now and b.seen_now and a.id:
                    # The thing came back where it was not expected: it keeps its id.
                    b.id, a.id = a.id, 0
                    b.first_seen_ns = min(a.first_seen_ns, b.first_seen_ns)
                    dropped.add(i)
                else:
                    dropped.add(j)
                    if b.id:
                        self.emit(EventKind.LEAVE, b.id)
        kept = [i for i in range(len(self.tracks)) if i not in dropped]
        renumber = np.full(len(self.tracks) + 1, -1, dtype=np.int64)
        renumber[kept] = np.arange(len(kept))
        self.tracks = [self.tracks[i] for i in kept]
        return renumber[assigned]

    def _one_thing(self, a: Track, b: Track) -> bool:
        """Whether two tracks are of one thing. Where both are seen apart for long they are two, one in the other."""
        if np.linalg.norm(a.position - b.position) > 0.5 * (a.extents.max() + b.extents.max()):
            return False
        if a.seen_now and b.seen_now and (self._scored or not _same_place(a, b)):
            return False
        both = self._scored and len(a.embedding) and len(a.embedding) == len(b.embedding)
        if both and float(a.embedding @ b.embedding) < 0.5:
            return False
        return _same_place(a, b)


def _vertical_extent(t: Track) -> float:
    if t.shape == Shape.SPHERE:
        return float(t.extents[2])
    return float(np.abs(rotations.matrix(t.quaternion)[2]) @ t.extents)


def _thickness(t: Track) -> float:
    """Extent [m] along the axis nearest to the vertical: of a flat thing the same when it is tilted a little."""
    return float(t.extents[int(np.abs(rotations.matrix(t.quaternion)[2]).argmax())])


def _like(fit: ShapeFit, reference: ShapeFit) -> Array:
    """Extents of a fit in the axes of another of the same kind (boxes may have swapped x and y)."""
    if fit.shape != Shape.BOX:
        return fit.extents
    yaw = 2.0 * np.arctan2(fit.quaternion[2], fit.quaternion[3])
    other = 2.0 * np.arctan2(reference.quaternion[2], reference.quaternion[3])
    turns = int(np.round((yaw - other) / (0.5 * np.pi)))
    return fit.extents[[1, 0, 2]] if turns % 2 else fit.extents


def _slerp_yaw(current: Array, target: Array, weight: float) -> Array:
    """Turn a box's orientation towards another, modulo quarter turns, by a fraction of the way."""
    difference = float(rotations.to_vector(rotations.multiply(target, rotations.conjugate(current)))[2])
    difference -= 0.5 * np.pi * np.round(difference / (0.5 * np.pi))
    return rotations.multiply(rotations.about_z(weight * difference), current)


def _same_place(a: Track, b: Track) -> bool:
    """Whether two tracks are of one thing: a center well inside the other, or mostly inside and of one color."""
    if np.linalg.norm(a.position - b.position) > 0.5 * (a.extents.max() + b.extents.max()):
        return False
    alike = float(np.abs(a.color - b.color).mean()) < 30.0
    for one, other in ((a, b), (b, a)):
        turn = rotations.matrix(one.quaternion)
        if (np.abs((other.position - one.position) @ turn) < 0.35 * one.extents).all():
            return True
        local, _ = other.surface()
        world = local @ rotations.matrix(other.quaternion).T + other.position
        distance, _ = signed_distance(one.shape, one.extents, (world - one.position) @ turn, one.planes)
        if alike and float((distance < 0.0).mean()) > 0.5:
            return True
    return False
