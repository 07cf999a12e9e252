"""Settling: backends bring perceived objects to rest before they move them, and answers take that back here.

Perceived poses are a little wrong, so every backend begins from corrected ones (``ScenePreparation``): objects stand on
what is beneath them and overlap nothing. ``Settling`` is the difference between those and what was perceived.
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

SETTLE_DISTANCE_M = 0.025
SETTLE_ANGLE_RAD = 0.25
"""An object that was seen at rest and that the factual future moves and turns by less has only settled: perception and
physics disagree by so much on where objects touch. Larger, and a real slow slide is not drawn."""


class Settling:
    """What settling changed in the belief samples of one request.

    Args:
        scenes: S samples (``sample_belief``), the first is the mean.
        starts: (S, M, 13), M >= N, states at time 0 in a future in which nothing is done to the objects by then.

    Attributes:
        offsets: (S, N, 3) from the bodies to the objects' centers, in the bodies' axes [m]. Where an object's surface
            rests or touches is known better than its center: how high a center is depends on the shape, of which
            nobody has seen all. What settling takes back of the drawn positions is therefore of the shape: the center
            is there, relative to the body, and goes along with it. The mean has none.
    """

    def __init__(self, scenes: Sequence[SceneGraph], starts: ArrayLike) -> None:
        self.offsets = np.zeros((len(scenes), len(scenes[0]), 3))
        if len(scenes) == 1 or not len(scenes[0]):
            return
        begun = np.asarray(starts, dtype=np.float64)[:, : len(scenes[0])]
        taken = np.stack([scene.positions for scene in scenes]) - begun[..., POSITION]
        taken = (taken - taken[:1]) * ~scenes[0].is_static[:, None]
        rotations = quaternion_to_matrix(begun[..., QUATERNION])
        self.offsets = np.nan_to_num(np.einsum("snji,snj->sni", rotations, taken))

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

    Where several backends answered, each has starts of its own.
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

    Dynamics moves an object that was seen floating or sunk by some millimeters until it touches. A picture of that
    would show a jump that nobody imagined. So an object that the factual future leaves where it was seen, but for
    settling, is drawn at its perceived pose, moved as its state differs from the factual state of the same time.

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
        # The object as seen, carried by the rigid motion that takes its reference pose to its pose in this future.
        offset = seen_p[m] - reference[:, POSITION]
        drawn[:, m, POSITION] = states[:, m, POSITION] + turn.apply(offset)
        drawn[:, m, QUATERNION] = (turn * Rotation.from_quat(seen_q[m])).as_quat()
    return drawn
