"""From simulated poses back to perceived ones.

Backends begin from corrected poses (``ScenePreparation``), in which objects stand on what is beneath them and overlap
nothing. ``Settling`` is the difference between those and the perceived poses; answers and images undo it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.rollout import POSITION, QUATERNION
from wm_core.rotations import normalize_quaternion, quaternion_to_matrix, rotation_distance
from wm_core.scene_graph import SceneGraph
from wm_dynamics.base import DynamicsResult, States
from wm_dynamics.belief import moving_objects

# An object that was seen at rest and that the factual future moves and turns by less than both has only settled:
# perception and physics disagree by so much on where objects touch. Larger, and a real slow slide is not drawn.
SETTLE_DISTANCE_M = 0.025
"""Displacement of the center [m]."""
SETTLE_ANGLE_RAD = 0.25
"""Rotation [rad]."""


class Settling:
    """The changes that settling made to the belief samples of one request.

    Args:
        scenes: S samples (``sample_belief``), the first is the mean.
        starts: (S, M, 13), M >= N, states at time 0 in a future in which nothing is done to the objects by then.

    Attributes:
        offsets: (S, N, 3) from the bodies to the objects' centers, in the bodies' axes [m]; 0 in the mean. The place
            where an object touches its support is known better than the height of its center, which depends on a shape
            that was seen in part. A correction of a drawn position therefore counts as an error of the shape: the
            center is off the body by it, and moves with the body.
    """

    def __init__(self, scenes: Sequence[SceneGraph], starts: ArrayLike) -> None:
        self.offsets = np.zeros((len(scenes), len(scenes[0]), 3))
        if len(scenes) == 1 or not len(scenes[0]):
            return
        begun = np.asarray(starts, dtype=np.float64)[:, : len(scenes[0])]
        moved = np.stack([scene.positions for scene in scenes]) - begun[..., POSITION]
        moved = (moved - moved[:1]) * ~scenes[0].is_static[:, None]
        rotations = quaternion_to_matrix(begun[..., QUATERNION])
        self.offsets = np.nan_to_num(np.einsum("snji,snj->sni", rotations, moved))

    def restore_centers(self, states: States) -> None:
        """Move the positions in states (..., S, T, M, 13) to where the objects' centers are, in place."""
        for sample, index in np.argwhere(np.linalg.norm(self.offsets, axis=-1) > 1e-6).tolist():
            own = states[..., sample, :, index, :]
            axis = own[..., QUATERNION][..., :3]
            offset = self.offsets[sample, index].astype(states.dtype)
            turned = 2.0 * np.cross(axis, offset)
            own[..., POSITION] += offset + own[..., 6:7] * turned + np.cross(axis, turned)


def restore_centers(result: DynamicsResult, scenes: Sequence[SceneGraph]) -> None:
    """``Settling.restore_centers`` of a whole answer, in place; its first future has to be the factual one.

    Where several backends answered, each began from starts of its own.
    """
    if not result.factual:
        Settling(scenes, result.states[0, :, 0]).restore_centers(result.states)
        return
    for name, (states, _) in result.factual.items():
        settling = Settling(scenes, states[:, 0])
        for k in np.flatnonzero([backend == name for backend in result.backends]).tolist():
            settling.restore_centers(result.states[k])


def states_as_seen(
    scene: SceneGraph, states: NDArray[np.float32], factual: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """States (T, M, 13) to draw: those of objects seen at rest without the settling of the first moments.

    Dynamics moves an object that was seen floating or sunk by some millimeters until it touches, which would show as a
    jump. So an object that the factual future leaves where it was seen, except for settling, is drawn at its perceived
    pose, displaced as its state is from the factual state of the same time.

    Args:
        scene: the mean.
        states, factual: (T, M, 13) of one hypothesis and of the factual future; None: states are drawn as they are.
    """
    count = len(scene)
    if factual is None or not count:
        return states
    seen_p, seen_q = scene.positions, normalize_quaternion(scene.quaternions)
    drift = np.linalg.norm(factual[:, :count, POSITION] - seen_p, axis=-1).max(axis=0)
    turned = rotation_distance(factual[:, :count, QUATERNION], np.broadcast_to(seen_q, (len(factual), count, 4)))
    settles = (drift < SETTLE_DISTANCE_M) & (turned.max(axis=0) < SETTLE_ANGLE_RAD) & ~moving_objects(scene)[0]
    drawn = states.copy()
    for m in np.flatnonzero(~scene.is_static):
        # Of other objects only the first correction (out of what they were seen to overlap) is left out.
        reference = factual[:, m] if settles[m] else np.broadcast_to(factual[0, m], factual[:, m].shape)
        turn = Rotation.from_quat(states[:, m, QUATERNION]) * Rotation.from_quat(reference[:, QUATERNION]).inv()
        # The perceived pose, moved by the rigid motion from the reference pose to the pose in this future.
        offset = seen_p[m] - reference[:, POSITION]
        drawn[:, m, POSITION] = states[:, m, POSITION] + turn.apply(offset)
        drawn[:, m, QUATERNION] = (turn * Rotation.from_quat(seen_q[m])).as_quat()
    return drawn
