"""What a moving object is followed by: its fitted center, or its surface where that center may shift without motion."""

from __future__ import annotations

import numpy as np

from wm_perception.shapes.surfaces import Alignment
from wm_perception.tracking.surface_flow import Displacement
from wm_perception.tracking.track import Track
from wm_perception.types import Array

EXPLAINED_M = 0.004
"""Mean distance [m] of points to the surface up to which an object's shape explains them; twice what is above it is
added to the position's deviation, and no turn is taken from its orientation. From the work against false motion on the
recorded clip (8 % to 1 % of the objects over the frames, commit fb11c0a); larger means that objects of wrong shapes
move more."""
_WAY_M_S = 0.04
"""Standard deviation [m/s] of the mean velocity by the way of an object's surface, beyond that of its points: the flow
is off as a whole where much is alike. Measured on worlds of ``train`` and ``assemblies``; larger trusts it less."""
_GROWS_M = 0.001
"""Growth of a segment [m], see ``MotionState.growth_m``, from which its center shifts. Larger takes slow growth for
motion."""
_GOES_M_S, _SAME_WAY = 0.1, 0.7
"""Speed [m/s] of a surface's way, and cosine between two in succession, from which it moves. Of what rests 1 % of the
ways are above 0.06 m/s (worlds of ``train`` and ``assemblies``). Larger means later velocities of what is flat."""
_CONTRADICTS = 21.108
"""Normalized square of the way's innovation from which it is not of the object: the 99.99 % bound of chi-square with 3
degrees of freedom. Larger follows what a mask reaches over."""


def is_doubtful(t: Track, pose: Alignment) -> bool:
    """Whether a measured center may shift without motion: of what is seen in part, or of a shape that is not right.

    So may that of a segment that grows, unless it is known to move: then it turns. Then the way of its surface says how
    it moves.
    """
    motion = t.motion
    grows = not motion.seen_moving and float(motion.growth_m.max()) > _GROWS_M
    return grows or t.visibility.cut or not t.evidence.whole or pose.residual_m > EXPLAINED_M


def follow(t: Track, position: Array, noise: Array, way: Displacement | None, dt: float) -> None:
    """Update what moves with its measured position (3,), covariance ``noise`` (3, 3), or with its surface's way."""
    motion, filtered = t.motion, t.motion.filter
    if motion.doubtful:
        covariance = np.zeros((3, 3)) if way is None else way.covariance + np.eye(3) * (_WAY_M_S * dt) ** 2
        off = np.zeros(3) if way is None else way.offset - filtered.velocity * dt
        spread = covariance + filtered.covariance[3:6, 3:6] * dt**2
        # What contradicts all that was known is the way of something else.
        if way is not None and float(off @ np.linalg.solve(spread, off)) < _CONTRADICTS:
            filtered.update_way(way.offset, covariance, dt)
            filtered.update_place(position, noise)
            return
    filtered.update(position, noise)


def goes_on(before: Array | None, way: Displacement | None, dt: float) -> bool:
    """Whether a surface went on as in the step ``before`` (3,) [m/s]: twice the same is no error of the flow."""
    if before is None or way is None:
        return False
    now = way.offset / dt
    lengths = float(np.linalg.norm(before)), float(np.linalg.norm(now))
    return min(lengths) > _GOES_M_S and float(before @ now) > _SAME_WAY * lengths[0] * lengths[1]
