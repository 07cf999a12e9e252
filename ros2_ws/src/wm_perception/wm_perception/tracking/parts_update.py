"""The convex parts of a track: when they are looked for, and which finding is kept."""

from __future__ import annotations

import numpy as np

from wm_core import rotations
from wm_core.scene_graph import Shape
from wm_perception.shapes.hollow import Hollow, Verdict, find_hollow
from wm_perception.shapes.hollow_parts import hollow_parts
from wm_perception.shapes.part_frames import Parts, in_object_frame, in_world, moved, scaled
from wm_perception.tracking.observation import Observation
from wm_perception.tracking.track import PartsEvidence, Track
from wm_perception.types import Array

_SURE_SOLID = 2
"""Views in succession in which a body was seen to be closed before it is not looked at for an inside any more, and in
which one that was hollow becomes solid. Larger costs time, and keeps false insides longer."""
_SURE_HOLLOW = 3
"""Views of an inside after which only better ones are used."""
_LYING = 0.3
"""Vertical part of a cylinder's axis below which it lies: 17 degrees."""
_SCALE_LIMIT = 1.3
"""Ratio of extents up to which parts are stretched with them; beyond, the outline is of another part of the object."""


def settled(evidence: PartsEvidence) -> bool:
    """Whether more views of the same will change nothing."""
    return evidence.solid >= _SURE_SOLID or evidence.hollow >= _SURE_HOLLOW


def update_parts(t: Track, o: Observation, eye: Array | None, likely: float) -> None:
    """Look for a hollow body in a segment of a track whose shape was just fitted to it.

    Args:
        eye: (3,) camera position, world [m]; None: not known, then nothing is looked for.
        likely: probability that it is of a class that is hollow, see ``hollow_probability``.
    """
    evidence = t.parts_evidence
    if eye is None or settled(evidence) or t.motion.toppled:
        return
    lying = t.shape in (Shape.CYLINDER, Shape.CAPSULE) and abs(rotations.matrix(t.quaternion)[2, 2]) < _LYING
    if lying:
        verdict, hollow, turn = _find_lying(t, o, eye, likely)
    else:
        base = t.bottom if t.bottom is not None else float(np.percentile(o.points[:, 2], 1.0))
        turn = np.eye(3)
        verdict, hollow = find_hollow(o.points, eye, base, likely, o.noise_m)
    if verdict is Verdict.SOLID:
        evidence.solid += 1
        evidence.hollow = 0
        if evidence.seen <= 0.0 or evidence.solid >= _SURE_SOLID:
            t.parts, evidence.seen = (), -1.0
        return
    if hollow is None:
        return
    if verdict is Verdict.HOLLOW:
        evidence.solid = 0
        evidence.hollow += 1
    # Later views of as much of the inside are better: classes and supports are surer.
    if hollow.seen >= 0.9 * evidence.seen:
        world = moved(hollow_parts(hollow), turn.T, np.zeros(3))
        t.parts = in_object_frame(world, t.position, t.quaternion)
        evidence.seen = hollow.seen


def _find_lying(t: Track, o: Observation, eye: Array, likely: float) -> tuple[Verdict, Hollow | None, Array]:
    """As ``find_hollow``, of a body that lies: either end of its axis may be open; and the turn (3, 3) from the world.

    Its class alone does not say which end that is, so only an inside that was seen counts.
    """
    found: tuple[Verdict, Hollow | None, Array] = (Verdict.UNSEEN, None, np.eye(3))
    axes = rotations.matrix(t.quaternion)
    for sign in (1.0, -1.0):
        turn = np.stack([sign * axes[:, 0], axes[:, 1], sign * axes[:, 2]])
        points, camera = o.points @ turn.T, turn @ eye
        middle = float(turn[2] @ t.position)
        if camera[2] < middle:
            continue
        verdict, hollow = find_hollow(points, camera, middle - 0.5 * float(t.extents[2]), 0.0, o.noise_m)
        if verdict is not Verdict.UNSEEN:
            found = verdict, hollow, turn
    return found


def carried_parts(
    parts: Parts, old: tuple[Array, Array, Array, Shape], new: tuple[Array, Array, Array, Shape]
) -> Parts:
    """Parts after a new shape was chosen; each state is position, quaternion, extents, shape.

    Where the pose is another one they stay where they are in the world; else they are stretched with the extents.
    """
    if not parts:
        return parts
    same_pose = np.allclose(old[0], new[0], atol=1e-9) and np.allclose(old[1], new[1], atol=1e-9)
    if not same_pose:
        return in_object_frame(in_world(parts, old[0], old[1]), new[0], new[1])
    factors = new[2] / np.maximum(old[2], 1e-6)
    if old[3] != new[3] or np.allclose(factors, 1.0) or (np.abs(np.log(factors)) > np.log(_SCALE_LIMIT)).any():
        return parts
    return scaled(parts, factors)
