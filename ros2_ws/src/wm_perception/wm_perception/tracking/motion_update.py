"""Motion of a track: prediction, measured poses, falling asleep, waking and toppling."""

from __future__ import annotations

import numpy as np

from wm_core import rotations
from wm_core.constants import TOPPLE_ANGLE_RAD, TRACKED_REST_SPEED_M_S, TRACKED_REST_TIME_S
from wm_core.scene_graph import EventKind, Shape
from wm_perception.shapes.surfaces import Alignment
from wm_perception.tracking.following import EXPLAINED_M, follow, goes_on, is_doubtful
from wm_perception.tracking.motion import MotionFilter, MotionModels
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.surface_flow import Displacement
from wm_perception.tracking.track import WAKE_M, Measured, Track
from wm_perception.types import Array

_WAKE_SIGMAS = 4.5
"""Displacement from which a sleeping object may have been moved, in depth noise, where that is more than ``WAKE_M``.
Chosen by hand; larger means fewer false motions far away, and later true ones."""
_WAKE_AT_ONCE_M = 0.012
"""Displacement [m] that wakes an object in the first frame; smaller ones have to be seen for three. Chosen by hand,
twice ``WAKE_M``; larger means that fast starts are noticed later."""
_TURN_SIGMAS = 4.0
"""Standard deviations of the measured yaw up to which a sleeping object has not turned. Larger means that slow turning
is noticed later, smaller that noise wakes objects."""
_OFF, _OFF_SIGMAS, _OFF_TURN_RAD = 1.6, 0.3, 0.05
"""How much farther points are from the parts of a sleeping object where its alignment starts than where it ends, as a
ratio and in depth noise, from which it is elsewhere, and the turn [rad] from which that is a motion and no drift of the
camera. Of a T at rest the ratio is 1.0 to 1.5, of one that was pushed by 8 mm and 4 degrees 2. Larger notice small
pushes of tools less, smaller take noise for them."""
_STEPS_TO_WAKE = 3
"""Frames for which a smaller displacement has to last. Chosen by hand; larger means later motion and less false one."""
_CUT_SLACK_M, _PARTIAL_SLACK_M, _WHOLE_SLACK_M = 0.007, 0.006, 0.0012
"""Standard deviation [m] of a measured position beyond that of the alignment: of objects that the image cuts off, of
partly hidden ones, of those seen whole. Chosen by hand; larger means smoother and later positions."""
_SAME_SIZE_M = 0.003
"""Change [m] of a segment's extents between frames that is noise. Origin as ``EXPLAINED_M``; larger means that less of
a growing segment is taken for uncertainty."""
_JITTER_MEMORY = 0.7
"""Part of the extent jitter that is kept per frame. Origin as ``EXPLAINED_M``; larger means longer uncertainty."""
VACATED = 0.15
"""Part of a sleeping object's place that must be seen to be vacated for changed extents to count as motion. Origin as
``EXPLAINED_M``; larger means later motion."""
_WATCHED = 1.5
"""Frames since an object was last measured within which it was watched: more than one, less than two."""
_UNKNOWN_M_S = 0.5
"""Standard deviation of a velocity that nothing is known of [m/s], as of a new track."""
_CARRIED_ON_RAD = 0.06
"""Turn [rad] in the last frames that is no noise of fits. Larger puts to sleep what turns slowly, smaller keeps noise
awake."""
_LEAST_TURN_RAD_S = 0.6
"""Rate [rad/s] below which turning is no different from the noise of a fit. Chosen by hand; larger means that slow
turning is lost."""


def predict(t: Track, dt: float, gap_reset_s: float, models: MotionModels) -> None:
    """Advance a track by ``dt`` [s]; after more than ``gap_reset_s`` nothing is known of its velocity."""
    motion, seen_now = t.motion, t.visibility.seen_now
    motion.last_position = t.position.copy()
    if dt > gap_reset_s:
        motion.filter.forget_velocity(0.2)
        motion.trail.clear()
    elif motion.sleeping:
        motion.filter.hold(0.0003 * np.sqrt(30.0 * dt) if seen_now else 0.002 * np.sqrt(30.0 * dt))
    else:
        if seen_now:
            motion.filter.predict(dt, models)
        else:
            motion.filter.coast(dt)
        turning = not seen_now or np.linalg.norm(motion.angular_velocity) > 0.5
        if turning and t.shape != Shape.SPHERE and not t.yaw_free:
            turn = rotations.from_vector(motion.angular_velocity * min(dt, 0.1))
            t.quaternion = rotations.multiply(turn, t.quaternion)


def search_margin_m(t: Track, dt: float) -> float:
    """How far [m] from its predicted surface a segmenter should look for a track."""
    speed = float(np.linalg.norm(t.velocity))
    return 0.015 + min(0.08, speed * min(dt, 0.2) * 0.6) + min(0.05, 0.01 * t.visibility.misses)


def restart(t: Track, center: Array) -> None:
    """Begin anew at a world position (3,): the object was found away from its place."""
    motion = t.motion
    motion.filter = MotionFilter(center, 0.02, 0.3)
    motion.sleeping, motion.moved, motion.seen_moving = False, True, False
    motion.trail.clear()
    motion.turns.clear()
    motion.frames = 0


def update_extent_jitter(t: Track, o: Observation) -> None:
    """Update how far the ends of the seen part have moved apart since the last frame, per world axis.

    A moving object moves both its ends. Where a segment grows or shrinks instead (it appears from behind something,
    the image cuts it off, the segmenter marks more or less of it), its middle moves by half of that without any motion:
    that is how uncertain its position is.
    """
    motion = t.motion
    if motion.last_size is not None:
        changed = np.maximum(np.abs(o.size - motion.last_size) - 2.0 * o.noise_m - _SAME_SIZE_M, 0.0)
        motion.extent_jitter_m = np.maximum(0.5 * changed, _JITTER_MEMORY * motion.extent_jitter_m)
        motion.growth_m = np.maximum(0.5 * changed, _JITTER_MEMORY * motion.growth_m)
    motion.last_size = o.size
    # The extents of an object that is seen whole change by turning and toppling, too, and so do those of one that has
    # left its place.
    if not t.visibility.cut and not (motion.sleeping and t.visibility.vacated < VACATED):
        motion.extent_jitter_m = np.zeros(3)


def update_motion(
    t: Track,
    o: Observation,
    pose: Alignment,
    dt: float,
    stamp_s: float,
    come: bool = False,
    way: Displacement | None = None,
) -> list[EventKind]:
    """Update with a measured pose; returns the events: MOVE, STOP, TOPPLE.

    Args:
        come: its surface is where it was not a moment ago, see ``SeenThrough``.
        way: that its surface has gone since the frame before, None: not known.
    """
    motion = t.motion
    come = come or goes_on(motion.last_flow, way, dt)
    motion.last_flow = None if way is None else way.offset / dt
    motion.moved |= come
    motion.seen_moving = come or (motion.seen_moving and _watched(t, dt, stamp_s))
    # Of an object that is cut off by the image's edge or hidden in part, the position of the rest is a guess.
    partial = o.hidden_fraction > 0.25 or t.visibility.fraction < 0.5
    slack = _CUT_SLACK_M if o.on_border else _PARTIAL_SLACK_M if partial else _WHOLE_SLACK_M
    slack = 0.3 * o.noise_m + 0.5 * pose.residual_m + slack
    # A shape that does not explain the seen part may be aligned to it wrongly.
    misfit = max(pose.residual_m - EXPLAINED_M, 0.0)
    slack += 2.0 * misfit
    wake_m = max(WAKE_M, _WAKE_SIGMAS * o.noise_m)
    wake_m *= 2.5 if o.on_border else 2.0 if partial else 1.0
    position, covariance = (pose.position, pose.covariance[:3, :3]) if motion.sleeping else pose.measured()
    doubtful = is_doubtful(t, pose)
    if motion.doubtful and not doubtful and not motion.sleeping:
        # Its center is known better now, and so is another one: none of that is motion.
        motion.filter.shift(position - motion.filter.position)
    motion.doubtful = doubtful
    noise = covariance + np.eye(3) * slack**2 + np.diag(motion.extent_jitter_m**2)
    events = []
    if motion.sleeping:
        if _wakes(t, pose, noise, dt, stamp_s, wake_m):
            events.append(EventKind.MOVE)
    else:
        follow(t, position, noise, way, dt)
        t.quaternion = pose.quaternion
    motion.measured_s = stamp_s
    motion.rotation_covariance = np.clip(pose.covariance[3:, 3:], -0.25, 0.25) + np.eye(3) * 0.01**2
    motion.trail.append(Measured(stamp_s, pose.position.copy(), noise if motion.seen_moving else noise + _doubt(t, o)))
    if misfit > 0.0:
        motion.turns.clear()
        motion.angular_velocity = np.zeros(3)
    else:
        motion.turns.append((stamp_s, t.quaternion.copy()))
    motion.angular_velocity = _angular_velocity(t)
    if _falls_asleep(t, stamp_s, wake_m) and t.hits > 12:
        events.append(EventKind.STOP)
    tilt = rotations.tilt_between(t.upright, t.quaternion)
    tilted = t.shape != Shape.SPHERE and not t.visibility.cut and tilt > TOPPLE_ANGLE_RAD
    if tilted and not motion.toppled and t.id:
        motion.toppled = True
        events.append(EventKind.TOPPLE)
    return events if t.id else []


def _doubt(t: Track, o: Observation) -> Array:
    """Covariance (3, 3) [m^2] of the place of what has not been seen to move, beyond that of its measured pose.

    A segment that grows is no sign of motion even where nothing hides the object, and of what is cut off half of what
    is not seen of its extents may be on either side.
    """
    unseen = np.zeros(3)
    if t.visibility.cut:
        bounds = np.abs(rotations.matrix(t.quaternion)) @ t.extents
        unseen = 0.5 * np.maximum(bounds - o.size, 0.0)
    return np.diag(t.motion.growth_m**2 + unseen**2)


def _wakes(t: Track, pose: Alignment, noise: Array, dt: float, stamp_s: float, wake_m: float) -> bool:
    """Update a sleeping object with a measured pose, position covariance ``noise`` (3, 3); whether that wakes it."""
    motion = t.motion
    offset = pose.position - t.position
    sigma = float(np.sqrt(np.trace(noise) / 3.0))
    away = float(np.linalg.norm(offset))
    limit = max(wake_m, 3.0 * sigma)
    before = motion.trail[-1].position - t.position if motion.trail else np.zeros(3)
    # Displaced twice, the second time farther in the same direction: it is leaving.
    leaving = motion.displaced_frames >= 1 and away > 1.5 * limit and float(offset @ before) > 0.0
    leaving = leaving and away > 1.4 * float(np.linalg.norm(before))
    off = bool(t.parts) and not t.visibility.cut
    off = off and pose.start_mean_m > max(_OFF * pose.mean_m, pose.mean_m + _OFF_SIGMAS * t.noise_m)
    turning = _swing_m(t, pose) > limit or (off and _turn_rad(t, pose) > _OFF_TURN_RAD)
    displaced = away > limit or turning
    motion.displaced_frames = motion.displaced_frames + 1 if displaced or off else 0
    # Over the frames since it left its place, from where it was measured before.
    steps = max(motion.displaced_frames, 1)
    since_s, origin = motion.trail[-steps][:2] if len(motion.trail) >= steps else (stamp_s - dt, t.position)
    step = pose.position - origin
    lasting = motion.displaced_frames >= _STEPS_TO_WAKE
    if lasting and not turning and (float(np.linalg.norm(step)) < 0.5 * limit or not displaced):
        # It was measured there all the time: not the object has moved, the camera's pose has drifted. Or it has moved
        # by less than can be told from that.
        motion.filter.shift(pose.position - t.position)
        motion.displaced_frames = 0
    elif away > max(_WAKE_AT_ONCE_M, 2.0 * wake_m, 4.0 * sigma) or lasting or leaving:
        # What was out of view may have been moved meanwhile, and a center may shift without motion; whether it moves is
        # seen in the frames to come.
        watched = _watched(t, dt, stamp_s)
        motion.sleeping, motion.moved = False, motion.moved or watched
        motion.seen_moving |= watched and not motion.doubtful
        velocity = step / max(stamp_s - since_s, 1e-3) if motion.seen_moving else np.zeros(3)
        # It may have begun to move at any moment since the last frame, so that it is faster by now.
        spread = 0.3 * float(np.linalg.norm(velocity)) + 0.1 if motion.seen_moving else _UNKNOWN_M_S
        motion.filter = MotionFilter(pose.position, max(sigma, 0.003), spread, 4.0, velocity)
        motion.displaced_frames = 0
        t.quaternion = pose.quaternion
        motion.turns.clear()
        motion.trail.clear()
        return True
    elif not motion.displaced_frames:
        motion.filter.settle(pose.position, noise * 4.0)
    return False


def _watched(t: Track, dt: float, stamp_s: float) -> bool:
    """Whether a track was measured in the frame before."""
    return t.motion.measured_s is not None and stamp_s - t.motion.measured_s < _WATCHED * dt


def _turn_rad(t: Track, pose: Alignment) -> float:
    """Angle [rad] about the vertical between a track and a measured pose."""
    return abs(float(rotations.to_vector(rotations.multiply(pose.quaternion, rotations.conjugate(t.quaternion)))[2]))


def _swing_m(t: Track, pose: Alignment) -> float:
    """How far [m] a measured turn about the vertical moves the rim of a sleeping object; 0 where it is within noise.

    Something long that is pushed at its end turns about its middle: its center stays where it is.
    """
    if t.is_round or t.visibility.cut or not t.evidence.whole:
        return 0.0
    turn = _turn_rad(t, pose)
    if turn < _TURN_SIGMAS * float(np.sqrt(pose.covariance[5, 5])):
        return 0.0
    return turn * 0.25 * float(np.hypot(*_level_extents(t)))


def _spins(t: Track, wake_m: float) -> bool:
    """Whether an object turns about the vertical by more than ``wake_m`` [m] at its rim in the time of rest.

    The last frames are fewer than that time has, so a turn that is no noise is carried on to it.
    """
    turns = t.motion.turns
    if t.is_round or t.visibility.cut or not t.evidence.whole or len(turns) < 3:
        return False
    turned = rotations.to_vector(rotations.multiply(turns[-1][1], rotations.conjugate(turns[0][1])))
    turn = abs(float(turned[2]))
    if turn > _CARRIED_ON_RAD:
        turn *= max(TRACKED_REST_TIME_S / max(turns[-1][0] - turns[0][0], 1e-3), 1.0)
    return turn * 0.25 * float(np.hypot(*_level_extents(t))) > wake_m


def _level_extents(t: Track) -> Array:
    """(2,) of the object's bounds along the world's x and y [m]."""
    return np.asarray(np.abs(rotations.matrix(t.quaternion)[:2]) @ t.extents)


def _angular_velocity(t: Track) -> Array:
    """(3,) world axes [rad/s]: differences of orientation, and rolling contact where turning cannot be seen.

    A ball of radius r on a support rolls with w = z x v / r; so does a lying cylinder about its own axis.
    """
    motion = t.motion
    if motion.sleeping:
        return np.zeros(3)
    v = t.velocity
    radius = 0.25 * float(t.extents[0] + t.extents[1])
    standing = abs(t.position[2] - 0.5 * t.vertical_extent - t.support_height) < 0.02
    rolling = np.zeros(3)
    if standing:
        rolling = np.asarray(np.cross([0.0, 0.0, 1.0], v) / max(radius, 1e-3), dtype=np.float64)
    if t.shape == Shape.SPHERE:
        return rolling
    if len(motion.turns) < 3:
        return motion.angular_velocity
    (s0, q0), (s1, q1) = motion.turns[0], motion.turns[-1]
    turned = rotations.to_vector(rotations.multiply(q1, rotations.conjugate(q0)))
    rate = turned / max(s1 - s0, 1e-3)
    unseen = np.zeros(3)
    if t.shape in (Shape.CYLINDER, Shape.CAPSULE):
        axis = rotations.matrix(t.quaternion)[:, 2]
        if abs(axis[2]) < 0.3:
            unseen = axis * (axis @ rolling)
        rate = rate - axis * (axis @ rate) + unseen
    return rate if np.linalg.norm(rate) > _LEAST_TURN_RAD_S else unseen


def _falls_asleep(t: Track, stamp_s: float, wake_m: float) -> bool:
    """Put an object to sleep that has stayed within ``wake_m`` [m] for long enough; whether it did so now."""
    motion = t.motion
    if motion.sleeping or len(motion.trail) < 5:
        return False
    recent = [m for m in motion.trail if stamp_s - m.stamp_s <= TRACKED_REST_TIME_S + 1e-6]
    if len(recent) < 6:
        # Slow cameras: as many as it takes to span that time.
        recent = list(motion.trail)[-6:]
    if recent[0].stamp_s > stamp_s - 0.9 * TRACKED_REST_TIME_S:
        return False
    times = np.array([m.stamp_s for m in recent])
    places = np.stack([m.position for m in recent])
    centered = times - times.mean()
    slope = centered @ (places - places.mean(axis=0)) / max(float(centered @ centered), 1e-9)
    spread = float(np.linalg.norm(places - places.mean(axis=0) - centered[:, None] * slope, axis=1).max())
    speed = np.linalg.norm(slope)
    still = speed < TRACKED_REST_SPEED_M_S and speed * float(times[-1] - times[0]) < wake_m and spread < 2.0 * wake_m
    still = still and not _spins(t, wake_m)
    if not still:
        return False
    motion.sleeping = True
    motion.filter = MotionFilter(places.mean(axis=0) if t.id else t.position.copy(), 0.002, 1e-3, 1e-2)
    motion.angular_velocity = np.zeros(3)
    return True
